"""Tables with a column per class or per domain, from hand-made counts; and the counts of a run."""

from dataclasses import replace

import numpy as np
import pytest

from featcache.errors import ConfigError
from pipelines.evaluation.evaluate import evaluate
from pipelines.tables.slices import by_class, by_domain
from pipelines.training.runs import Run
from pipelines.training.train import train
from tests.helpers.result_rows import ACCURACIES, config, experiment, result, rows
from tests.helpers.stores import manifest, run, write_all

COUNTS = {  #: class -> right, clips, given; a seed adds to the right ones of `cut`
    "cut": lambda seed: (2.0 + seed, 8.0, 6.0),
    "peel": lambda seed: (1.0, 4.0, 10.0),
    "stir": lambda seed: (0.0, 0.0, 2.0),
}


def counted(of, metric="top1"):
    """The result rows of an experiment, with counts."""
    return [
        replace(
            result(one, ACCURACIES[one.row, one.source[0]][one.seed] / 100, metric),
            by_class={name: counts(one.seed) for name, counts in COUNTS.items()},
        )
        for one in of.runs
    ]


def test_classes_are_columns_in_the_order_of_their_clips():
    table = by_class(counted(experiment()), experiment())
    line = table.lines[0]
    assert table.shifts == ("cut", "peel")  # `stir` has no test clips
    assert line.cells["cut"].values == {0: 25.0, 1: 37.5, 2: 50.0}  # of both shifts together
    assert line.cells["peel"].values == dict.fromkeys(range(3), 25.0)
    assert (line.mean.mean, table.lines[1].gain.mean) == (35, 5)  # of the whole table
    assert "Test clips: cut 16, peel 8." in table.notes[0].text
    assert "| source-only" in table.text("markdown")
    assert "37.5 ± 12.5" in table.text("latex").replace(r"$\pm$", "±")


def test_f1_per_class():
    of = experiment(seeds=(0,))
    rows_of = [*counted(of), *(replace(row, metric="macro_f1", by_class={}) for row in counted(of))]
    line = by_class(rows_of, of, "macro_f1").lines[0]
    assert line.cells["cut"].values[0] == pytest.approx(100 * 2 * 2 / (8 + 6))
    assert line.cells["peel"].values[0] == pytest.approx(100 * 2 * 1 / (4 + 10))


def test_many_classes_are_cut_except_in_csv():
    of = experiment(seeds=(0,))
    many = {f"noun {k:03}": (1.0, 300.0 - k, 2.0) for k in range(300)}
    found = [replace(row, by_class=many) for row in rows(of)]
    table = by_class(found, of, most=12)
    assert table.shifts == tuple(f"noun {k:03}" for k in range(12))
    assert "288 of 300 classes" in table.notes[1].text
    assert "noun 299" in by_class(found, of).text("csv")


def test_one_label_of_several():
    of = experiment()
    both = [replace(row, metric=f"top1/{label}") for row in counted(of) for label in ("verb", "noun")]
    both += [replace(row, metric="top1/action", by_class={}) for row in rows(of)]
    assert by_class(both, of, "top1/noun").shifts == ("cut", "peel")
    with pytest.raises(ConfigError, match="top1/action.*top1/noun, top1/verb"):
        by_class(both, of)  # the headline is of all labels at once


def test_results_without_counts_are_named():
    with pytest.raises(ConfigError, match="featcache evaluate toy"):
        by_class(rows(experiment()), experiment())
    some = [replace(row, by_class={}) if row.row == "RNA (UDA)" and row.seed else row for row in counted(experiment())]
    cell = by_class(some, experiment()).lines[1].cells["cut"]
    assert (cell.values, cell.seeds) == ({0: 25.0}, (0, 1, 2))
    ece = [replace(row, metric="ece") for row in rows(experiment())]
    with pytest.raises(ConfigError, match="'ece'.*top1"):
        by_class([*counted(experiment()), *ece], experiment(), "ece")


def test_without_any_result_the_reason_is_that_there_is_none():
    for found in ([], [replace(row, run="another") for row in counted(experiment())]):
        with pytest.raises(ConfigError, match="results.*'toy'.*featcache train-head toy") as caught:
            by_class(found, experiment())
        assert "earlier" not in str(caught.value)


def three_domains():
    shifts = [(s, t) for s in "ABC" for t in "ABC" if s != t]
    runs = [config("source-only", (s,), t, seed) for s, t in shifts for seed in (0, 1)]
    runs += [config("RNA (UDA)", ("A", "B"), "C", seed, target="C") for seed in (0, 1)]
    return replace(experiment(), runs=tuple(runs))


def test_domains_are_means_over_their_shifts():
    of = three_domains()
    value = {("A", "B"): 10, ("A", "C"): 20, ("B", "A"): 30, ("B", "C"): 40, ("C", "A"): 50, ("C", "B"): 60}
    found = [result(one, (value.get((*one.source, one.test), 70) + one.seed) / 100) for one in of.runs]
    table = by_domain(found, of)
    assert table.shifts == ("→B", "→C", "→A", "A→", "B→", "C→")
    cells = table.lines[0].cells
    assert cells["→B"].values == pytest.approx({0: 35, 1: 36})
    assert cells["→A"].values == pytest.approx({0: 40, 1: 41})
    assert cells["C→"].values == pytest.approx({0: 55, 1: 56})
    assert not cells["A→"].values  # with A+B→C, which this row has not
    assert "D→" in table.notes[0].text


def test_domains_of_two_shifts_and_of_one():
    table = by_domain(rows(experiment()), experiment())
    assert table.shifts == ("→night", "→day")  # a column of the sources would repeat them
    assert table.lines[2].cells["→night"].mean == 91  # the supervised row
    one = replace(experiment(), runs=experiment().runs[:3])
    with pytest.raises(ConfigError, match="--by domain"):
        by_domain(rows(one), one)


def test_the_counts_of_a_run_are_those_of_its_outputs(tmp_path):
    """Over several selected points they are means; a label of several has its own."""
    two = manifest(labels=lambda d, split, name: {"verb": name, "noun": {"chop": "leek"}.get(name, "soup")})
    stores = write_all(tmp_path / "stores", two)
    folder = train(run(steps=6, eval_every=2, keep=3, select="mean"), stores, tmp_path)
    found = {each.metric: each for each in evaluate(folder, stores)}
    outputs = Run.open(folder).outputs
    for label in ("verb", "noun"):
        names = two.classes[label]
        truth = [two.clips[row].labels[label] for row in outputs["rows"]]
        guesses = [[names[k] for k in point.argmax(1)] for point in outputs[label]]
        for name in names:
            right = np.mean([sum(t == g == name for t, g in zip(truth, guess, strict=True)) for guess in guesses])
            given = np.mean([guess.count(name) for guess in guesses])
            assert found[f"top1/{label}"].by_class[name] == pytest.approx((right, truth.count(name), given))
    assert not found["mean_class/verb"].by_class
