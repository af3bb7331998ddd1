"""Intervals of differences: coverage in simulations, the bootstrap in closed form, and rows that cannot be compared."""

import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import stats

from pipelines.measures.intervals import Interval, over_clips, over_seeds
from pipelines.measures.outcomes import Outcomes, of_clips, together


def some(right, clips="c"):
    return replace(of_clips(np.array(right, bool)), clips=clips)


@dataclass(frozen=True)
class World:
    """Clips, seeds and chance: a clip is right where a sum of normal effects is above 0.

    Both rows share the difficulty of a clip, and a part of the luck of a seed.
    """

    seeds: int = 3
    shifts: int = 2
    clips: int = 60
    difficulty: float = 1.0  #: of a clip, for both rows
    taste: float = 0.4  #: of a clip, for one row
    luck: float = 0.1  #: of a training run
    seed_luck: float = 0.05  #: of a seed, at all shifts
    noise: float = 0.4  #: of a clip in a run
    shared: bool = False  #: True if all shifts test the same clips
    tested: float = 1.0  #: share of these clips that a shift tests, other ones at each shift
    skill: tuple[float, float] = (0.8, 0.5)

    def draw(self, rng):
        """Return the two rows, and the true difference: of all seeds, or of the one seed that there is."""
        S, K, n = self.shifts, self.seeds, self.clips
        per_clip = (1 if self.shared else S, 1, n)
        difficulty, both = rng.normal(0, self.difficulty, per_clip), rng.normal(0, self.seed_luck, (1, K, 1))
        of_clip = np.hypot(np.hypot(self.difficulty, self.taste), self.noise)
        rows, expected = [], []
        chosen = [rng.permutation(n)[: int(self.tested * n)] if self.tested < 1 else np.arange(n) for _ in range(S)]
        for skill in self.skill:
            luck = rng.normal(0, self.luck, (S, K, 1)) + both + rng.normal(0, self.seed_luck, (1, K, 1))
            z = skill + difficulty + rng.normal(0, self.taste, per_clip) + luck + rng.normal(0, self.noise, (S, K, n))
            rows.append(
                {
                    str(s): {
                        k: replace(of_clips(z[s, k, own] > 0), clips=str(s * (not self.shared or self.tested < 1)))
                        for k in range(K)
                    }
                    for s, own in enumerate(chosen)
                }
            )
            spread = of_clip if K == 1 else np.hypot(of_clip, np.hypot(self.luck, 2**0.5 * self.seed_luck))
            expected.append(stats.norm.cdf((skill + luck * (K == 1)) / spread).mean())
        return *rows, expected[0] - expected[1]


WORLDS = {
    "as usual": World(),
    "one seed": World(seeds=1),
    "one seed, one shift": World(seeds=1, shifts=1),
    "one shift": World(shifts=1),
    "six shifts, five seeds": World(shifts=6, seeds=5, clips=40),
    "shifts that test the same clips": World(shared=True, shifts=3, clips=100),
    "much luck of runs": World(luck=0.4, shifts=3),
    "much luck of seeds": World(seed_luck=0.3, shifts=3, clips=100),
    "much noise": World(noise=1.5, taste=0.1, seed_luck=0.0, luck=0.0),
    "clips only": World(noise=0.01, seed_luck=0.0, luck=0.0, shifts=1, seeds=5),
    "few clips, alike": World(clips=25, taste=0.1, noise=0.1, shifts=1),
    "two seeds": World(seeds=2, seed_luck=0.2),
}


def coverage(world, repetitions, interval=over_clips):
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(repetitions):
        row, other, truth = world.draw(rng)
        found = interval(row, other)
        hits.append(found.low <= truth <= found.high)
    return np.mean(hits)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if k % 4 else ()) for k, name in enumerate(WORLDS)]
)
def test_intervals_cover_the_true_difference(name):
    assert coverage(WORLDS[name], 500) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("clips", [30, 200, 1000])
@pytest.mark.parametrize("name", WORLDS)
def test_intervals_cover_in_many_worlds(name, clips):
    share = coverage(replace(WORLDS[name], clips=clips), 2000)
    assert share >= 0.93
    print(f"{name}, {clips} clips: {100 * share:.1f} %")  # pytest -s


def of_clips_only(row, other):
    """A bootstrap over clips only, as in scipy, in closed form."""
    (shift,) = row
    own, its = (np.mean([run.right for run in runs[shift].values()], 0) for runs in (row, other))
    d = own - its
    h = 1.96 * d.std() / len(d) ** 0.5
    return Interval(d.mean(), d.mean() - h, d.mean() + h, "clips")


def of_seeds_only(row, other):
    """A percentile bootstrap over three seeds."""
    (shift,) = row
    d = [row[shift][k].value - other[shift][k].value for k in range(3)]
    means = sorted(np.mean([d[i], d[j], d[k]]) for i in range(3) for j in range(3) for k in range(3))
    return Interval(0, means[0], means[-1], "seeds")


def test_the_simulation_shows_where_simpler_intervals_fail():
    assert coverage(World(shifts=1, luck=0.3), 300, of_clips_only) < 0.8
    assert coverage(World(shifts=1, luck=0.1), 300, of_seeds_only) < 0.8


def test_where_shifts_share_most_of_their_clips_but_not_all_intervals_are_too_short():
    """A limit that the guide names: clips are recognised by the checksum of all clips of a test."""
    world = World(shared=True, shifts=12, clips=100, luck=0.05, seed_luck=0.0)
    assert coverage(world, 300) >= 0.93
    assert coverage(replace(world, tested=0.9), 300) < 0.9


def test_intervals_are_not_wider_than_they_must_be():
    """Nine points are found with five seeds and a few hundred clips; where there are none, they seldom are."""
    rng, world = np.random.default_rng(0), World(seeds=5, clips=300)
    none = replace(world, skill=(0.5, 0.5))
    assert np.mean([over_clips(*world.draw(rng)[:2]).differs for _ in range(200)]) > 0.9
    assert 0.01 < np.mean([over_clips(*none.draw(rng)[:2]).differs for _ in range(400)]) < 0.07


def bootstrap(statistic, n):
    """The variance of a statistic of drawn clips."""
    rng = np.random.default_rng(0)
    found = stats.bootstrap(
        (np.arange(n),), statistic, n_resamples=4000, vectorized=False, rng=rng, method="percentile"
    )
    return found.standard_error**2


def part_of_clips(interval, n, most):
    """v of the module's docstring, without the two added clips."""
    h2 = ((interval.high - interval.low) / 2) ** 2
    return (h2 / stats.t.ppf(0.975, n - 1) ** 2 - 2 * most**2) * (n - 1) / n


@pytest.mark.parametrize("kind", ["one shift", "same clips", "captions"])
def test_the_closed_form_is_the_bootstrap_over_clips(kind):
    rng, n = np.random.default_rng(1), 150
    shifts = 2 if kind == "same clips" else 1
    answers = rng.integers(0, 6, n) if kind == "captions" else np.ones(n, int)
    rows = [{str(s): {0: Outcomes(rng.binomial(answers, p), answers, "c")} for s in range(shifts)} for p in (0.7, 0.5)]

    def difference(drawn):
        shares = [[runs[0].right[drawn].sum() / answers[drawn].sum() for runs in row.values()] for row in rows]
        return np.mean(shares[0]) - np.mean(shares[1])

    interval = over_clips(*rows)
    assert interval.middle == pytest.approx(difference(np.arange(n)))
    v = part_of_clips(interval, n, answers.max() / answers.sum())
    assert v == pytest.approx(bootstrap(difference, n), rel=0.08)


def test_of_several_seeds_the_bootstrap_counts_without_what_differs_between_them():
    """The variance of a bootstrap over clips, all seeds of a clip together, minus the variance of its seeds' mean."""
    world, rng = World(shifts=1, clips=400), np.random.default_rng(2)
    row, other, _ = world.draw(rng)
    d_Kn = np.stack([row["0"][k].right - other["0"][k].right for k in range(3)])
    u_Kn = (d_Kn - d_Kn.mean(1, keepdims=True)) / 400
    v = bootstrap(lambda drawn: d_Kn[:, drawn].mean(), 400) - u_Kn.var(0, ddof=1).sum() / 3
    interval, seeds = over_clips(row, other), over_seeds(d_Kn.mean(1).tolist())
    h2, h2_seeds = (((each.high - each.low) / 2) ** 2 for each in (interval, seeds))
    assert (h2 - h2_seeds) / 1.966**2 == pytest.approx(v * 400 / 399 + 2 / 400**2, rel=0.1)


def test_seeds_only_is_students_interval():
    d = [0.01, 0.05, 0.02, -0.01]
    found = over_seeds(d)
    expected = stats.ttest_1samp(d, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert over_seeds([0.1]) is None
    assert over_seeds([]) is None


ONE, TWO = {"a": {0: some([1, 0, 1, 1]), 1: some([1, 1, 1, 1])}}, {"a": {0: some([1, 0, 0, 0]), 1: some([0, 0, 1, 1])}}


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"b": TWO["a"]},
        {**TWO, "b": TWO["a"]},
        {"a": {0: TWO["a"][0]}},  # a seed less
        {"a": {0: TWO["a"][0], 1: some([1, 0, 1, 1], "other clips")}},
        {"a": {0: TWO["a"][0], 1: some([1, 0, 1])}},
    ],
)
def test_rows_without_the_same_shifts_seeds_and_clips_have_no_interval(other):
    assert over_clips(ONE, TWO).over == "clips and seeds"
    assert over_clips(ONE, other) is None


def test_seeds_of_the_other_row_only_do_not_count():
    one = {"a": {1: ONE["a"][1]}}
    assert over_clips(one, TWO) == over_clips(one, {"a": {1: TWO["a"][1]}})
    assert over_clips(one, TWO).over == "clips"


def test_seeds_that_differ_by_shift_have_no_interval():
    assert over_clips({**ONE, "b": {0: ONE["a"][0]}}, {**TWO, "b": TWO["a"]}) is None


def test_the_order_of_shifts_and_seeds_does_not_matter():
    row, other, _ = WORLDS["as usual"].draw(np.random.default_rng(0))
    turned = {shift: dict(reversed(runs.items())) for shift, runs in reversed(row.items())}
    found, again = over_clips(row, other), over_clips(turned, other)
    assert (found.low, found.high) == pytest.approx((again.low, again.high))
    back = over_clips(other, row)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_shifts_that_test_the_same_clips_are_no_further_clips():
    """Two shifts with the same outcomes of the same clips are as wide as one; of other clips they are narrower."""
    rng = np.random.default_rng(0)
    right = [rng.random(100) < p for p in (0.7, 0.5)]
    one, same, others = (
        over_clips(*({s: {0: some(r, clips)} for s, clips in names.items()} for r in right))
        for names in ({"a": "x"}, {"a": "x", "b": "x"}, {"a": "x", "b": "y"})
    )
    assert (same.low, same.high) == pytest.approx((one.low, one.high))
    assert others.high - others.low == pytest.approx((one.high - one.low) / 2**0.5, rel=0.03)


def test_points_and_seeds_of_one_clip_are_no_further_clips():
    """Ten equal points of a run say no more than one."""
    ten = {"a": {0: together([ONE["a"][0]] * 10)}}
    found, again = (over_clips(row, {"a": {0: TWO["a"][0]}}) for row in (ten, {"a": {0: ONE["a"][0]}}))
    assert (found.low, found.high) == pytest.approx((again.low, again.high))


def test_rows_that_are_alike_are_not_distinguishable_and_a_single_clip_tells_nothing():
    same = over_clips(ONE, ONE)
    assert same.low < 0 < same.high
    assert not same.differs
    assert over_clips({"a": {0: some([1])}}, {"a": {0: some([0])}}) is None


@pytest.mark.parametrize("right", [([1, 1], [1, 1]), ([1, 1, 1], [1, 0, 0]), ([0, 0], [1, 1]), ([1] * 9, [0] * 9)])
@pytest.mark.parametrize("seeds", [1, 2])
def test_no_end_is_beyond_the_largest_difference_of_two_shares(right, seeds):
    row, other = ({"a": {k: some(each[k:] + each[:k]) for k in range(seeds)}} for each in right)
    found = over_clips(row, other)
    assert -1 <= found.low <= found.middle <= found.high <= 1


def test_an_interval_over_seeds_is_cut_only_where_the_metric_is_limited():
    wide = over_seeds([-60.0, 90.0])
    assert wide.low < -100
    assert wide.high > 100
    assert over_seeds([-60.0, 90.0], 100) == replace(wide, low=-100, high=100)
    assert over_seeds([1.0, 2.0], 100) == over_seeds([1.0, 2.0])


def test_a_large_table_takes_less_than_two_seconds():
    """18 rows on 12 shifts, five seeds, 2,000 clips."""
    rng = np.random.default_rng(0)
    rows = [{str(s): {k: some(rng.random(2000) < 0.6, str(s)) for k in range(5)} for s in range(12)} for _ in range(18)]
    start = time.process_time()
    for row in rows[1:]:
        over_clips(row, rows[0])
    assert time.process_time() - start < 2
