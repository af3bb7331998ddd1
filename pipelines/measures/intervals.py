"""Does one row of a table differ from another? The 95 % interval of the difference of two accuracies.

    Δ = mean over shifts, of the mean over seeds, of (accuracy of the row - accuracy of the other row)

Both rows have the same shifts, seeds and test clips, so their runs are compared in pairs. Two things vary by chance:
the clips of the test, which all seeds share, and the seeds of training. The shifts are fixed: the interval is about
these shifts, not about others. Half of its width, h, has a part for each, and the squares add:

    h² = t²(K - 1) · s² / K  +  t²(n - 1) · v        K seeds, n clips, t: the 97.5 % quantile of Student's t

s² is the variance over seeds of the differences, means over shifts: runs of one seed may have the same luck at all
shifts. v is the variance that a bootstrap over clips gives, in closed form: clips are drawn again with replacement,
all seeds and all shifts of a clip together. It leaves out what differs between seeds, which s² contains already. Two
clips are added to v, one that each row wins: otherwise rows that differ in few clips or none would have intervals that
are too short [Agresti and Min 2005].

The sum of squared t intervals covers at least 95 % for normal errors [Banerjee 1960]. A bootstrap over clips only, or
over seeds only, does not, and a percentile bootstrap over few seeds is too short in any case. The simulations are in
`tests/pipelines/test_intervals.py`. Tests with different checksums count as different clips: where shifts share most of
their test clips, but not all, the interval is too short. With one seed the first part is missing: the interval is about
these trained runs. Both ends are cut at the largest difference that two values can have, which few clips or seeds may
exceed; the true difference is never beyond it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
from numpy.typing import NDArray

from pipelines.measures.outcomes import Outcomes

LEVEL = 0.95

Runs = Mapping[str, Mapping[int, Outcomes]]  #: shift -> seed -> the outcomes of a run
Moves = dict[str, NDArray[np.float64]]  #: checksum of clips -> (n,) a number of each clip


@dataclass(frozen=True)
class Interval:
    """A difference and its 95 % interval."""

    middle: float  #: the difference
    low: float
    high: float
    over: str  #: the chance that it covers: "clips and seeds", "clips" (one seed) or "seeds" (no outcomes of clips)

    @property
    def differs(self) -> bool:
        """True if 0 is outside the interval; otherwise the two rows are not distinguishable."""
        return not self.low <= 0 <= self.high

    def times(self, factor: float) -> "Interval":
        """Return the interval in another unit, such as per cent."""
        return Interval(factor * self.middle, factor * self.low, factor * self.high, self.over)


def over_clips(row: Runs, other: Runs) -> Interval | None:
    """Return the interval of the share of right answers of `row` minus that of `other`, over clips and seeds.

    Seeds that only `other` has do not count. None unless both have the same shifts, the same seeds at all of them, and
    the same clips, two or more, in all runs of a shift.
    """
    seeds = list(next(iter(row.values()), {}))
    if not seeds or row.keys() != other.keys() or not all(_comparable(row[s], other[s], seeds) for s in row):
        return None
    K, middle, moved, share = len(seeds), np.zeros(len(seeds)), [Moves() for _ in seeds], Moves()
    for shift, runs in row.items():
        for k, seed in enumerate(seeds):
            own, its = runs[seed], other[shift][seed]
            middle[k] += (own.value - its.value) / len(row)
            _add(moved[k], own.clips, (_moves(own) - _moves(its)) / len(row))
        _add(share, own.clips, own.answers / own.answers.sum() / len(row))
    n, most = min(map(len, share.values())), max(float(each.max()) for each in share.values())
    if n < 2:
        return None
    v = max(sum(_shared(np.stack([each[clips] for each in moved])) for clips in share), 0.0) * n / (n - 1)
    h2 = _t2(n - 1) * (v + 2 * most**2) + (_t2(K - 1) * middle.var(ddof=1) / K if K > 1 else 0.0)
    return _around(middle.mean(), h2, "clips and seeds" if K > 1 else "clips", 1.0)


def over_seeds(differences: Sequence[float], widest: float = math.inf) -> Interval | None:
    """Return the interval of the mean of differences, one per seed, over seeds only; None for fewer than two.

    widest: the largest difference that two values of the metric can have.
    """
    K = len(differences)
    if K < 2:
        return None
    return _around(np.mean(differences), _t2(K - 1) * np.var(differences, ddof=1) / K, "seeds", widest)


def _around(middle: SupportsFloat, h2: SupportsFloat, over: str, widest: float) -> Interval:
    """Return the interval of this middle and half width, squared, cut at ± `widest`."""
    centre, h = float(middle), float(h2) ** 0.5
    return Interval(centre, max(centre - h, -widest), min(centre + h, widest), over)


def _t2(freedom: int) -> float:
    """Return the squared 97.5 % quantile of Student's t with these degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2) ** 2)


def _comparable(runs: Mapping[int, Outcomes], others: Mapping[int, Outcomes], seeds: Sequence[int]) -> bool:
    """True if the runs have exactly these seeds, the others have them too, and all test the same clips."""
    if runs.keys() != set(seeds) or not runs.keys() <= others.keys():
        return False
    return len({(run.clips, len(run.right)) for seed in seeds for run in (runs[seed], others[seed])}) == 1


def _moves(run: Outcomes) -> NDArray[np.float64]:
    """Return (n,) how far each clip moves the share of right answers from its mean; the sum is 0."""
    moves: NDArray[np.float64] = (run.right - run.value * run.answers) / run.answers.sum()
    return moves


def _add(sums: Moves, clips: str, numbers: NDArray[np.float64]) -> None:
    """Add numbers of clips (n,) to those that other shifts have for the same clips."""
    sums[clips] = sums.get(clips, 0.0) + numbers


def _shared(moves_Kn: NDArray[np.float64]) -> float:
    """Return the variance from clips that all seeds share: Σ over clips of u u', the mean over pairs of seeds.

    With one seed it is Σ u², the variance of a bootstrap over clips.
    """
    K, every = len(moves_Kn), float((moves_Kn.sum(0) ** 2).sum())
    return every if K == 1 else (every - float((moves_Kn**2).sum())) / (K * (K - 1))
