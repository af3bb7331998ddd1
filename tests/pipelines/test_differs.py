"""Intervals and marks of tables: what they are made of, what is printed in every format, and what the notes say."""

import csv
import io
import time
from dataclasses import replace

import numpy as np
import pytest

from pipelines.experiments import Experiment
from pipelines.measures.intervals import over_clips, over_seeds
from pipelines.measures.outcomes import Outcomes, decode, encode, of_clips
from pipelines.tables.build import build, render
from tests.helpers.result_rows import config, experiment, result, rows
from tests.pipelines.test_tables import cells

SKILL = {"source-only": 0.5, "RNA (UDA)": 0.7, "supervised-target": 0.9}
N = 200


def measured(of, metric="top1", n=N, seed=0):
    """Results with outcomes: the clips of a test domain are the same for all runs."""
    rng = np.random.default_rng(seed)
    made = []
    for run in of.runs:
        right = rng.random(n) < SKILL.get(run.row, 0.6)
        clips = encode(replace(of_clips(right), clips=f"{run.test:0>8}"))
        made.append(result(run, float(right.mean()), metric, n=n, clips=clips))
    return made


def one_line(text):
    return " ".join(text.split())


def of_row(results, row):
    """Column -> seed -> outcomes."""
    columns = {"night": "day→night", "day": "night→day"}
    found = {column: {} for column in columns.values()}
    for each in results:
        if each.row == row:
            found[columns[each.test]][each.seed] = decode(each.clips)
    return found


@pytest.fixture
def toy():
    return experiment()


def test_each_row_has_the_interval_of_its_difference_from_the_first_one(toy):
    results = measured(toy)
    base, *others = build(results, toy).lines
    assert base.interval is None
    for line in others:
        expected = over_clips(of_row(results, line.method), of_row(results, "source-only")).times(100)
        assert line.interval == expected
        assert line.interval.middle == pytest.approx(line.gain.mean)
        assert line.interval.over == "clips and seeds"
    text = one_line(render(results, toy))
    assert "95 % interval: of the difference from source-only, paired by shift, seed and clip." in text
    assert "n.d.: not distinguishable" in text
    assert "Only the chance" not in text


def test_the_order_of_results_and_other_results_do_not_matter(toy):
    results = measured(toy)
    others = [replace(row, metric="top5", value=0.9, clips="") for row in results]
    assert render([*others, *results[::-1]], toy) == render(results, toy)


def test_intervals_are_of_the_row_that_the_heading_names(toy):
    results = measured(toy)
    for order in (("RNA (UDA)", "source-only"), ("supervised-target", "RNA (UDA)"), ("RNA (UDA)",)):
        some = replace(toy, runs=tuple(run for row in order for run in toy.runs if run.row == row))
        table = cells(render(results, some), whole=True)
        assert (f"vs {order[0]}" in table[""]) is (len(order) > 1)
        if len(order) > 1:
            assert f"of the difference from {order[0]}, paired" in one_line(render(results, some))
            expected = over_clips(of_row(results, order[1]), of_row(results, order[0]))
            assert table[order[1]][-1].startswith(f"[{100 * expected.low:+.1f}, {100 * expected.high:+.1f}]")


def test_one_seed_has_an_interval_over_clips_and_the_note_says_so():
    toy = experiment(seeds=(1,))
    line = build(measured(toy), toy).lines[1]
    assert line.interval.over == "clips"
    text = one_line(render(measured(toy), toy))
    assert "paired by shift, seed and clip. It covers the chance of test clips, not" in text
    assert "Only the chance of clips, because of a single seed." in text


def test_rows_with_fewer_seeds_are_compared_at_these(toy):
    some = replace(toy, runs=tuple(run for run in toy.runs if run.row != "RNA (UDA)" or run.seed == 2))
    results = measured(some)
    line = build(results, some).lines[1]
    assert line.interval.over == "clips"
    base = {column: {2: by_seed[2]} for column, by_seed in of_row(results, "source-only").items()}
    assert line.interval == over_clips(of_row(results, "RNA (UDA)"), base).times(100)


def test_results_of_earlier_versions_have_intervals_over_seeds_and_the_note_says_so(toy):
    lines = build(rows(toy), toy).lines
    assert lines[1].interval == over_seeds([0, 5, 10])
    text = one_line(render(rows(toy), toy))
    assert "paired by shift and seed. It covers the chance of seeds, not" in text
    assert "Only the chance of seeds, because the results have no outcomes of clips." in text


def test_a_metric_that_is_no_share_of_clips_has_intervals_over_seeds(toy):
    results = measured(toy)
    others = [replace(row, metric="mean_class", clips="") for row in results]
    text = one_line(render([*results, *others], toy, "mean_class"))
    assert "Only the chance of seeds, because this metric is not a share of right clips." in text


@pytest.mark.parametrize(("metric", "limit"), [("mean_class", 100), ("v2t/MedR", None)])
def test_an_interval_over_seeds_ends_where_differences_of_the_metric_end(metric, limit):
    toy = experiment(seeds=(0, 1))
    values = {"source-only": (0.9, 0.1), "RNA (UDA)": (0.1, 0.9), "supervised-target": (0.5, 0.5)}
    found = [result(run, values[run.row][run.seed], metric) for run in toy.runs]
    interval = build(found, toy, metric).lines[1].interval
    middle, free = interval.middle, over_seeds([-0.8, 0.8])
    assert (interval.low, interval.high) == ((-limit, limit) if limit else (middle + free.low, middle + free.high))


def test_a_single_seed_without_outcomes_has_no_interval():
    toy = experiment(seeds=(1,))
    text = render(rows(toy), toy)
    assert "95 % interval" not in text
    assert "No interval, because of a single seed, and the results have no outcomes of clips." in one_line(text)


def not_the_clips(row):
    return replace(row, clips=row.clips.replace(row.clips[:8], "ffffffff"))


def not_the_value(row):
    return replace(row, value=row.value + 0.01)


def not_the_number(row):
    return replace(row, n=row.n + 1)


def not_outcomes(row):
    return replace(row, clips="from another program")


@pytest.mark.parametrize("spoil", [not_the_clips, not_the_value, not_the_number, not_outcomes])
def test_runs_whose_outcomes_are_of_other_clips_or_of_another_number_are_not_paired(toy, spoil):
    results = [spoil(row) if (row.row, row.seed) == ("RNA (UDA)", 1) else row for row in measured(toy)]
    rna, supervised = build(results, toy).lines[1:]
    assert rna.interval.over == "seeds"
    assert supervised.interval.over == "clips and seeds"
    reason = "Only the chance of seeds, because not all of the results have outcomes of the same clips: RNA (UDA)."
    assert reason in one_line(render(results, toy))


def test_rows_with_missing_results_have_no_interval(toy):
    some = [row for row in measured(toy) if not (row.row == "RNA (UDA)" and row.seed == 1)]
    table = build(some, toy)
    assert [line.interval is None for line in table.lines] == [True, True, False]
    assert build([], toy).lines[1].interval is None
    assert "interval" not in render([], toy)


def test_csv_has_the_ends_and_the_marks(toy):
    results = measured(toy)
    lines = list(csv.DictReader(io.StringIO(render(results, toy, format="csv"))))
    by_cell = {(line["method"], line["column"]): line for line in lines}
    expected = build(results, toy).lines[1].interval
    row = by_cell["RNA (UDA)", "vs source-only"]
    assert (float(row["low"]), float(row["high"])) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert {line["low"] for line in lines if not line["column"].startswith("vs ")} == {""}
    assert {name: by_cell[name, "mean"]["mark"] for name in SKILL} == {
        "source-only": "",
        "RNA (UDA)": "best",
        "supervised-target": "",
    }


def ranked(values, **changes):
    """An experiment of rows on one shift, each with its number in per cent, and its results."""
    runs = tuple(
        config(row, ("day",), "night", 0, **{"steps": 1 + k, **changes.get(row, {})}) for k, row in enumerate(values)
    )
    of = Experiment("toy", "", runs)
    return of, [result(run, value / 100) for run, value in zip(runs, values.values(), strict=True)]


@pytest.mark.parametrize(
    ("values", "marks"),
    [
        ({"a": 50, "b": 60, "c": 55}, {"b": "best", "c": "second"}),
        ({"a": 60, "b": 50, "c": 55}, {"a": "best", "c": "second"}),  # the first row competes
        ({"a": 50, "b": 60}, {"b": "best"}),  # of two, the second is the last
        ({"a": 50}, {}),
        ({"a": 60, "b": 60, "c": 55}, {"a": "best", "b": "best"}),
        ({"a": 60.01, "b": 60.04, "c": 55}, {"a": "best", "b": "best"}),  # printed alike
        ({"a": 60, "b": 55, "c": 55, "d": 1}, {"a": "best", "b": "second", "c": "second"}),
        ({"a": 60, "b": 60}, {"a": "best", "b": "best"}),
    ],
)
def test_the_best_and_the_second_best_number_of_a_column_are_marked(values, marks):
    of, results = ranked(values)
    found = build(results, of).marks
    assert {row: mark for (row, column), mark in found.items() if column == "day→night"} == marks
    assert ("Marked in each column" in one_line(render(results, of))) is bool(marks)


def test_rows_that_use_labels_of_the_test_domain_are_not_marked():
    of, results = ranked({"a": 50, "b": 60, "c": 55}, b={"select": "oracle"})
    assert set(build(results, of).marks.values()) == {"best"}
    assert {row for row, _ in build(results, of).marks} == {"c"}
    toy = experiment()
    assert not any(row == "supervised-target" for row, _ in build(rows(toy), toy).marks)


def test_where_lower_is_better_the_lowest_number_is_marked():
    of, results = ranked({"a": 5, "b": 4, "c": 6})
    ranks = [replace(row, metric="t2v/MedR", value=100 * row.value) for row in results]
    assert build(ranks, of, "t2v/MedR").marks["b", "mean"] == "best"
    assert build(ranks, of, "t2v/MedR").marks["a", "mean"] == "second"


def test_marks_in_markdown_and_latex_are_on_our_number_only():
    of, results = ranked({"a": 50, "b": 60, "c": 55})
    of = replace(of, published={"b": {"day→night": 61.5}})
    table = cells(render(results, of), whole=True)
    assert [table[row][1] for row in "abc"] == ["50.0", "**60.0** (61.5)", "_55.0_"]
    assert [cells(render(results, of))[row][1] for row in "abc"] == ["50.0", "60.0 (61.5)", "55.0"]
    latex = render(results, of, format="latex")
    assert r"\textbf{60.0} (61.5)" in latex
    assert r"\underline{55.0}" in latex


def test_delta_acc_is_compared_clip_by_clip_too():
    """The outcomes of its three metrics are summed; here all three are alike, so it is the interval of one."""
    toy = experiment()
    results = measured(toy, "top1/verb")
    same = [replace(row, metric=metric) for metric in ("top1/verb", "top1/noun", "top1/action") for row in results]
    one, delta = build(same, toy, "top1/verb"), build(same, toy, "delta_acc")
    for line, own in zip(delta.lines, one.lines, strict=True):
        assert (line.interval is None) is (own.interval is None)
        if line.interval:
            assert (line.interval.low, line.interval.high) == pytest.approx((own.interval.low, own.interval.high))
            assert line.interval.over == "clips and seeds"
    assert "of the difference from source-only, paired" in one_line(render(same, toy, "delta_acc"))


def test_captions_of_a_clip_are_drawn_together(toy):
    """Outcomes with several answers per clip are read, and their value is the share of right answers."""
    rng, answers = np.random.default_rng(0), np.arange(N) % 4
    results = []
    for run in toy.runs:
        clips = Outcomes(rng.binomial(answers, SKILL[run.row]), answers, f"{run.test:0>8}")
        results.append(result(run, clips.value, "t2v/R@1", n=N, clips=encode(clips)))
    assert build(results, toy, "t2v/R@1").lines[1].interval.over == "clips and seeds"


@pytest.mark.slow
def test_a_large_table_is_built_in_two_seconds():
    """18 rows on 12 shifts, 5 seeds and 2,000 clips."""
    domains = ["D1", "D2", "D3", "D4"]
    shifts = [(a, b) for a in domains for b in domains if a != b]
    of = Experiment(
        "large", "", tuple(config(f"row {k}", (a,), b, seed) for k in range(18) for a, b in shifts for seed in range(5))
    )
    results = measured(of, n=2000)
    start = time.process_time()
    table = build(results, of)
    assert time.process_time() - start < 2
    assert all(line.interval.over == "clips and seeds" for line in table.lines[1:])
