"""ΔAcc of a table: the mean gain over labels and action, against naive loops."""

import csv
import io
import re
import statistics
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from featcache.errors import ConfigError
from heads.methods import cbst, dann, rna, source_only
from heads.nets import adapter
from pipelines import experiments
from pipelines.cli import main
from pipelines.config import Feed
from pipelines.evaluation import results
from pipelines.experiments import Experiment
from pipelines.experiments._files import from_module
from pipelines.tables.build import build, render
from pipelines.tables.deltas import baselines
from tests.helpers.result_rows import config, result

METRICS = ("top1/verb", "top1/noun", "top1/action")
SEEDS = (0, 1, 2)
SHIFTS = (("D1", "D3"), ("D2", "D3"), ("D3", "D1"))


def kitchens():
    """Three rows on three shifts, and a supervised one whose run into D3 stands in two columns."""
    methods = {"source-only": source_only.Params(), "DANN": dann.Params(), "RNA": rna.Params()}
    made = [
        replace(config(row, (s,), t, seed), method=method, target=None if row == "source-only" else t)
        for row, method in methods.items()
        for s, t in SHIFTS
        for seed in SEEDS
    ]
    made += [config("supervised", (t,), t, seed) for t in ("D3", "D1") for seed in SEEDS]
    return Experiment("toy", "", tuple(made))


def measured(experiment, metrics=METRICS, seed=0):
    rng = np.random.default_rng(seed)
    return [result(run, float(rng.random()), metric) for run in experiment.runs for metric in (*metrics, "top5/verb")]


def naive(rows, experiment, row, base, shift, seed):
    """The mean difference of two runs over the three metrics, in per cent."""
    source, test = shift
    total = 0.0
    for metric in METRICS:
        ours, theirs = (
            next(
                r.value
                for r in rows
                if (r.row, r.test, r.seed, r.metric) == (name, test, seed, metric)
                and r.source == ((test,) if name == "supervised" else (source,))
            )
            for name in (row, base)
        )
        total += 100 * (ours - theirs)
    return total / 3


def test_every_cell_is_the_mean_gain_of_a_naive_loop():
    toy = kitchens()
    rows = measured(toy)
    table = build(rows[::-1], toy, "delta_acc")
    assert [line.method for line in table.lines] == ["source-only", "DANN", "RNA", "supervised"]
    assert all(cell.values == {} and cell.seeds == () for cell in table.lines[0].cells.values())
    for line in table.lines[1:]:
        for source, test in SHIFTS:
            wanted = {seed: naive(rows, toy, line.method, "source-only", (source, test), seed) for seed in SEEDS}
            assert line.cells[f"{source}→{test}"].values == pytest.approx(wanted)
        means = [
            statistics.fmean(naive(rows, toy, line.method, "source-only", shift, seed) for shift in SHIFTS)
            for seed in SEEDS
        ]
        assert line.mean.mean == pytest.approx(statistics.fmean(means))
        assert line.mean.std == pytest.approx(statistics.stdev(means))
    assert not table.lines[-1].label_free


def test_it_is_the_mean_of_the_last_columns_of_the_three_tables():
    toy = kitchens()
    rows = measured(toy, seed=1)
    tables = [build(rows, toy, metric) for metric in METRICS]
    for k, line in enumerate(build(rows, toy, "delta_acc").lines[1:], 1):
        for seed in SEEDS:
            assert line.mean.values[seed] == pytest.approx(np.mean([t.lines[k].gain.values[seed] for t in tables]))


def test_texts_have_no_second_column_of_gains_and_a_baseline_has_no_number():
    toy = kitchens()
    rows = measured(toy)
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in render(rows, toy, "delta_acc").split("\n")
    ]
    assert lines[0] == ["method", "D1→D3", "D2→D3", "D3→D1", "mean", "95 % interval"]
    assert lines[2] == ["source-only", *["n/a"] * 4, ""]
    assert "seed by seed, over source-only." in render(rows, toy, "delta_acc")
    assert "vs source-only" not in render(rows, toy, "delta_acc", "latex")
    written = list(csv.DictReader(io.StringIO(render(rows, toy, "delta_acc", "csv"))))
    assert {row["column"] for row in written} == {"D1→D3", "D2→D3", "D3→D1", "mean"}
    by_cell = {(row["method"], row["column"]): row for row in written}
    assert float(by_cell["RNA", "D2→D3"]["mean"]) == pytest.approx(
        np.mean([naive(rows, toy, "RNA", "source-only", ("D2", "D3"), seed) for seed in SEEDS]), abs=1e-6
    )
    assert (by_cell["source-only", "mean"]["n_seeds"], by_cell["source-only", "mean"]["missing_seeds"]) == ("0", "")


@pytest.mark.parametrize(("gone", "named"), [("source-only", "source-only 1 of 9"), ("RNA", "RNA 1 of 9")])
@pytest.mark.parametrize("metrics", [METRICS, METRICS[:1]])
def test_a_seed_without_all_numbers_of_both_rows_has_no_gain_and_is_named(gone, named, metrics):
    toy = kitchens()
    rows = measured(toy)
    some = [r for r in rows if not ((r.row, r.source, r.seed) == (gone, ("D1",), 1) and r.metric in metrics)]
    table = build(some, toy, "delta_acc")
    line = next(line for line in table.lines if line.method == "RNA")
    assert list(line.cells["D1→D3"].values) == [0, 2]
    assert not line.mean.values
    (missing,) = [note.text for note in table.notes if "MISSING" in note.text]
    assert named in missing


def test_without_results_the_plan_is_still_shown():
    text = " ".join(render([], kitchens(), "delta_acc").split())
    assert "no results yet" in text
    assert "MISSING: source-only all 9" in text


# --------------------------------------------------------------------------------------------------------- baselines


def grouped():
    """Two groups of feeds, and in one of them a source-only row of its own for methods that classify per modality."""
    both, one = {"rgb": Feed("hog"), "audio": Feed("logmel")}, {"rgb": Feed("hog")}
    rows = {
        "source-only": (source_only.Params(), both),
        "source-only, per modality": (source_only.Params(per_modality=True), both),
        "DANN": (dann.Params(), both),
        "RNA, per modality": (rna.Params(per_modality=True), both),
        "CBST, per modality": (cbst.Params(per_modality=True), both),
        "DANN, rgb": (dann.Params(), one),
        "source-only, rgb": (source_only.Params(), one),
        "DANN, wide": (dann.Params(), both),
    }
    made = []
    for row, (method, feeds) in rows.items():
        net = adapter.Params(dim=64) if "wide" in row else adapter.Params()
        target = None if row.startswith("source-only") else "D2"
        made += [
            replace(config(row, ("D1",), "D2", seed), method=method, target=target, feeds=feeds, net=net)
            for seed in SEEDS
        ]
    return Experiment("toy", "", tuple(made))


def test_a_row_is_compared_with_the_source_only_row_of_its_net_feeds_and_settings():
    assert baselines(grouped()) == {
        "source-only": "source-only",
        "source-only, per modality": "source-only, per modality",
        "DANN": "source-only",
        "RNA, per modality": "source-only, per modality",
        "CBST, per modality": "source-only, per modality",
        "DANN, rgb": "source-only, rgb",
        "source-only, rgb": "source-only, rgb",
        "DANN, wide": "source-only",  # no source-only has this net: the first row
    }
    toy = grouped()
    rows = measured(toy)
    table = build(rows, toy, "delta_acc")
    for line in table.lines:
        base = baselines(toy)[line.method]
        wanted = (
            {}
            if base == line.method
            else {seed: naive(rows, toy, line.method, base, ("D1", "D2"), seed) for seed in SEEDS}
        )
        assert line.cells["D1→D2"].values == pytest.approx(wanted)
    (note,) = [note.text for note in table.notes if "seed by seed" in note.text]
    assert "over source-only, rgb (of DANN, rgb)" in note


@pytest.mark.parametrize(
    ("name", "row", "base"),
    [
        ("rna_epic100_rivals", "Gradient Blending", "source-only, per modality"),
        ("rna_epic100", "UDA (L_RNA) + L_IM", "source-only"),
        ("rna_epic100_rivals", "RNA (DG), per modality", "source-only, per modality"),
        ("rna_epic100_rivals", "CIA (surrogate)", "source-only"),
        ("rna_epic100_modalities", "RNA (DG), rgb + audio", "source-only, rgb + audio"),
        ("rna_epic100_drop", "UDA (L_RNA), no rgb", "source-only, no rgb"),
        ("rna_epic100_drop", "UDA (L_RNA)", "source-only"),
    ],
)
def test_the_tables_of_rna_have_the_papers_baselines(name, row, base):
    assert baselines(experiments.load(name))[row] == base


@pytest.mark.parametrize("name", ["rna_epic100", "rna_epic100_rivals", "rna_epic100_modalities", "rna_epic100_drop"])
def test_gains_of_the_published_accuracies_are_the_published_gains(name):
    """Except where the paper compares a rival with a source-only row of its own, which the table quotes."""
    table = experiments.load(name)
    rows = []
    for run in table.runs:
        numbers = table.published.get(run.row, {}).get("source→target", {})
        rows += [result(run, numbers[metric] / 100, metric) for metric in METRICS if run.row]
    compared = 0
    for line in build(rows, table, "delta_acc").lines:
        cell = line.cells["source→target"]
        assert (cell.published is None) == (baselines(table)[line.method] == line.method)
        if cell.published is not None and not any(rival in line.method for rival in ("MM-SADA", "Grad", "TA3N", "CIA")):
            assert cell.mean == pytest.approx(float(cell.published), abs=0.0101), line.method
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize(
    ("name", "only", "shown"),
    [
        ("rna_epic100", ("source-only", "L_g", "RNA (UDA)"), {"L_g", "RNA (UDA)"}),
        ("rna_epic100", ("L_g", "RNA (UDA)"), set()),
        ("rna_epic100_rivals", ("source-only", "RNA (DG)", "RNA (DG), per modality"), {"RNA (DG)"}),
        ("rna_epic100_modalities", ("source-only, rgb + flow", "RNA (DG), rgb + flow"), {"RNA (DG), rgb + flow"}),
        ("rna_epic100_modalities", ("source-only, rgb + flow", "RNA (DG), rgb + audio"), set()),
    ],
)
@pytest.mark.parametrize("settings", [(), ("select=oracle",)])
def test_a_published_gain_is_shown_only_over_the_same_row_as_in_the_whole_table(name, only, shown, settings):
    table = experiments.load(name).changed(settings, only=only)
    lines = build([], table, "delta_acc").lines
    assert {table.rows_shown[line.method] for line in lines if line.mean.published is not None} == shown


def test_gains_over_rows_that_the_paper_alone_has_are_named():
    """Rows whose published gain is not that of the published accuracies over our baseline."""
    table = experiments.load("rna_epic100_rivals")
    (note,) = [note.text for note in build([], table, "delta_acc").notes if "not comparable" in note.text]
    rivals = ("MM-SADA self-supervised", "Gradient Blending", "TA3N", "MM-SADA", "CIA (surrogate)")
    assert re.findall(r"([^:;.]+) over source-only of", note) == [f" {rival}" for rival in rivals]
    for plain in (table.changed(only=["source-only", "RNA (DG)"]), table.changed(only=["RNA (DG)", "TA3N"])):
        assert "not comparable" not in render([], plain, "delta_acc")
    assert "not comparable" not in render([], experiments.load("rna_epic100"), "delta_acc")


# ---------------------------------------------------------------------------------------------------------- refusals


def test_one_label_is_refused_with_the_metric_that_there_is():
    toy = kitchens()
    with pytest.raises(ConfigError, match=r"delta_acc.*'toy'.*one.*--metric top1"):
        build(measured(toy, metrics=("top1",)), toy, "delta_acc")


@pytest.mark.parametrize("row", ["source-only", "DANN"])
def test_a_row_alone_has_nothing_to_be_compared_with(row):
    alone = kitchens().changed(only=[row])
    with pytest.raises(ConfigError, match=rf"delta_acc.*'toy'.*{row};.*--only"):
        build(measured(alone), alone, "delta_acc")
    both = kitchens().changed(only=["DANN", "RNA"])
    assert baselines(both) == {"DANN": "DANN", "RNA": "DANN"}


@pytest.mark.parametrize("name", ["acp_ablation", "codt_kinect"])
def test_other_tasks_are_refused(name):
    task = experiments.load(name).task.name
    with pytest.raises(ConfigError, match=rf"'{name}' is a {task} experiment; delta_acc.*classification"):
        build([], experiments.load(name), "delta_acc")


@pytest.mark.parametrize(("number", "fits"), [(-2.5, True), (2.5, True), (-101, False), (101, False)])
def test_a_published_gain_may_be_a_loss(number, fits, tmp_path):
    module = type(experiments)("mine")
    module.__file__ = "mine.py"
    module.RUNS = kitchens().runs
    module.PUBLISHED = {"RNA": {"D1→D3": {"delta_acc": number}}}
    if fits:
        line = build(measured(kitchens()), from_module("mine", module), "delta_acc").lines[2]
        assert line.cells["D1→D3"].published == number
    else:
        with pytest.raises(ConfigError, match=f"delta_acc.*{number}.*from -100 to 100"):
            from_module("mine", module)


# -------------------------------------------------------------------------------------------------- the command line


def test_the_command_prints_it_and_lists_it(tmp_path):
    table = experiments.load("rna_epic100")
    rng = np.random.default_rng(0)
    rows = [
        replace(result(run, float(rng.random()), metric), experiment="rna_epic100")
        for run in table.runs
        for metric in METRICS
    ]
    results.append(tmp_path / "results.jsonl", rows)
    words = ["table", "rna_epic100", "--runs", str(tmp_path), "--metric", "delta_acc"]
    printed = CliRunner().invoke(main, words, catch_exceptions=False).stdout
    line = build(rows, table, "delta_acc").lines[1]
    assert f"{line.cells['source→target'].mean:.1f} ± {line.cells['source→target'].std:.1f} (1.36)" in printed
    assert "delta_acc" in CliRunner().invoke(main, ["table", "--help"]).stdout
