"""Sweeps: the runs of a grid, searches with pruning, what is printed, and the same command after a kill."""

import json
import os
import re
import shutil
import sys

import pytest
from click.testing import CliRunner

from heads.methods import rna
from heads.nets import adapter
from heads.params import Range
from pipelines import experiments
from pipelines.cli import main
from pipelines.config import override
from pipelines.evaluation import results
from pipelines.experiments import Experiment, parse_grid, swept
from pipelines.report import sensitivity
from pipelines.report.write import write as write_report
from pipelines.sweeps import plan, search
from pipelines.sweeps.space import Limits, declared, parse_ranges, space
from pipelines.tables.build import build
from pipelines.training import train
from pipelines.training.runs import Run, write_sums
from tests.helpers.crash import KILLED, killed_at
from tests.helpers.processes import command, wait_for
from tests.helpers.stores import manifest, run, write_all

FILE = """
from heads.methods import rna
from tests.helpers.stores import run
start = run(steps=3)
RUNS = tuple(
    made
    for seed in range(3)
    for made in (
        run(steps={steps}, seed=seed),
        run(row="RNA", method=rna.Params(), target="night", steps={steps}, seed=seed),
        run(row="later", method=rna.Params(), target="night", steps={steps}, seed=seed, init_from=start.id),
    )
) + (start,)
"""
GRID = ("--only", "RNA", "--seeds", "0..1", "--grid", "method.lambda_g=0.1,1")
SEARCH = ("--only", "RNA", "--seeds", "0..1", "--search", "tpe:5", "--range", "method.lambda_g=0.01..10,log")
SEEDS = ("--only", "RNA", "--seeds", "0..12", "--grid", "method.lambda_g=0.1,1")
ALONE = ("--batch", "off")  #: equal digits, whatever else is trained


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"))


def sweep(folder, stores, *words, name="sweep", steps=3):
    (folder / "e.py").write_text(FILE.format(steps=steps))
    words = [name, folder / "e.py", "--stores", stores, "--runs", folder / "runs", *words]
    return CliRunner().invoke(main, [*map(str, words), *(("--workers", "1") if name == "sweep" else ())])


def toy(**changes):
    row = {"row": "RNA", "method": rna.Params(), "target": "night"} | changes
    return Experiment("toy", "Toy.", tuple(made for seed in (0, 1) for made in (run(seed=seed), run(seed=seed, **row))))


def folders(path):
    """Run -> what tells one training of it from the next."""
    return {made.name: made.stat().st_ino for made in path.glob("[!.]*") if made.is_dir()}


# ---------------------------------------------------------------------------------------------------------------- grid


def test_a_row_gets_the_settings_that_it_has_and_its_runs_are_those_of_set():
    made = swept(toy(), parse_grid(["method.lambda_g=0.1,1", "method.mod=true"]))
    assert made.rows == ("source-only", "RNA, lambda_g = 0.1, mod = true", "RNA, lambda_g = 1, mod = true")
    by_set = toy().changed(["method.lambda_g=0.1", "method.mod=true"], only=["RNA"])
    assert {run.id for run in by_set.runs} == {run.id for run in made.runs if "0.1" in run.row}
    assert made.recorded.rows == ("source-only", "RNA")
    assert made.command.startswith("featcache sweep")


def test_runs_that_others_start_from_are_swept_with_them():
    start = run(row="", steps=4)
    alone = Experiment("toy", "Toy.", (start, run(init_from=start.id)))
    made = swept(alone, {"optim.lr": ("0.1", "0.2")})
    assert [run.optim.lr for run in made.runs] == [0.1, 0.1, 0.2, 0.2]
    assert [bool(run.row) for run in made.runs] == [False, True, False, True]
    assert [made.chain(run)[-1].optim.lr for run in made.runs if run.row] == [0.1, 0.2]


def test_names_that_end_alike_are_whole_and_brackets_hold_values_together():
    made = swept(toy(), parse_grid(["optim.name=sgd,adam", "batch=(6,6),(4,4)", "feeds.rgb.train=all", "net.dim=8"]))
    assert "source-only, name = adam, batch = (4,4), train = all, dim = 8" in made.rows
    made = swept(toy(), parse_grid(["feeds.rgb.train=all,mean", "feeds.flow.train=mean"]))
    assert made.rows[1] == "source-only, feeds.rgb.train = mean, feeds.flow.train = mean"


@pytest.mark.parametrize(
    ("text", "seeds"), [("0..2", [0, 1, 2]), ("4", [4]), ("0,2", [0, 2]), ("7,1..2", [7, 1, 2]), ("3..3", [3])]
)
def test_ranges_of_seeds(text, seeds):
    assert sorted({run.seed for run in toy().changed(seeds=text).runs}) == sorted(seeds)


WRONG = {
    "a name that does not exist": (("--grid", "method.lambda_x=1"), "no setting 'method.lambda_x'.*'method.lambda_g'"),
    "another part": (("--grid", "metod.lambda_g=1"), "no setting 'metod.lambda_g'; did you mean 'method.lambda_g'"),
    "out of range": (("--grid", "method.lambda_g=-1,1"), "'RNA'.*lambda_g=-1.*at least 0"),
    "another type": (("--grid", "method.lambda_g=1,high"), "'RNA'.*'high' is not a number"),
    "no values": (("--grid", "method.lambda_g="), "'method.lambda_g=' has no value"),
    "an empty value": (("--grid", "method.lambda_g=1,,2"), "empty value"),
    "no name": (("--grid", "1,2"), "no grid '1,2'; write NAME="),
    "a name twice": (("--grid", "steps=1", "--grid", "steps=2"), "'steps' twice"),
    "a value twice": (("--grid", "method.lambda_g=1,1.0"), "lambda_g = 1' are named twice"),
    "a text twice": (("--grid", "method.mod=true,True"), "mod = True' are named twice"),
    "seeds": (("--grid", "seed=1,2"), "'seed' makes no sweep.*--seeds"),
    "also fixed": (("--grid", "steps=1,2", "--set", "steps=3"), "'steps' is swept.*--set"),
    "too many": (
        ("--grid", f"steps={','.join(map(str, range(101)))}", "--grid", f"epoch={','.join(map(str, range(1, 101)))}"),
        "10,100 settings",
    ),
    "only a row without it": (("--only", "source-only", "--grid", "method.lambda_g=1"), "no setting 'method.lambda_g'"),
    "no sweep": ((), "nothing to sweep; give --grid"),
    "seeds that count down": (("--grid", "steps=1", "--seeds", "4..0"), "seeds '4..0'.*count up"),
    "seeds without end": (("--grid", "steps=1", "--seeds", "0..999999999"), "10,000"),
    "seeds of text": (("--grid", "steps=1", "--seeds", "0..x"), "seeds '0..x' are not whole numbers"),
    "a rule without a search": (("--grid", "steps=1", "--by", "snd"), "--by belongs to a search"),
    "a range without a search": (("--grid", "steps=1", "--range", "optim.lr"), "--range belongs to a search"),
    "no trials": (("--search", "tpe:0"), "'tpe:0' must have from 1"),
    "no number of trials": (("--search", "random"), "'random' must have from 1"),
    "an unknown search": (("--search", "grid:3"), "no search 'grid'.*random, tpe"),
    "an unknown rule": (("--search", "tpe:3", "--by", "sdn"), "no validator 'sdn'; did you mean 'snd'"),
    "target labels by another name": (("--search", "tpe:3", "--by", "top1"), "'top1'.*labels.*oracle"),
    "a rule without its rows": (("--search", "tpe:3", "--by", "dev"), "'dev', which needs source_val.*infomax"),
    "a rule of no row": (("--search", "tpe:3", "--only", "source-only"), "no run has rows for a validator.*holdout"),
    "chosen by labels": (("--search", "tpe:3", "--only", "RNA", "--set", "select=oracle"), "'RNA' has select=oracle"),
    "a text": (("--search", "tpe:3", "--range", "feeds.rgb.train"), "'feeds.rgb.train'.*no number.*--grid"),
    "a range beyond": (("--search", "tpe:3", "--range", "method.lambda_g=-1..1"), "lambda_g=-1.*at least 0"),
    "an empty range": (("--search", "tpe:3", "--range", "method.lambda_g=2..1"), "no range 'method.lambda_g=2..1'"),
    "half a range": (("--search", "tpe:3", "--range", "method.lambda_g=2.."), "write NAME=LOW..HIGH"),
    "a logarithm of 0": (("--search", "tpe:3", "--range", "method.lambda_g=0..1,log"), "must be above 0"),
    "choices that are alike": (
        ("--search", "tpe:3", "--grid", "method.lambda_g=0.1,0.10"),
        "'RNA, lambda_g = 0.1' are named twice",
    ),
    "texts that are alike": (("--search", "tpe:3", "--grid", "method.mod=true,True"), "mod = True' are named twice"),
    "parts of seconds": (("--search", "tpe:3", "--range", "steps=1.5..3"), "'steps'.*whole number"),
    "two ranges": (("--search", "tpe:3", "--range", "steps=1..3", "--range", "steps"), "'steps' a second time"),
    "range and grid": (
        ("--search", "tpe:3", "--range", "steps=1..3", "--grid", "steps=1"),
        "'steps'.*grid and a range",
    ),
    "a range of nothing": (("--search", "tpe:3", "--range", "method.x=1..3"), "no setting 'method.x'"),
    "no size to begin with": (("--search", "tpe:3", "--range", "optim.inverse"), "optim.inverse=0.0 .*LOW..HIGH"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(tmp_path, stores, case):
    words, message = WRONG[case]
    result = sweep(tmp_path, stores, *words)
    assert result.exit_code == 1, result.output
    assert re.search(message, result.stderr)
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_grid_is_trained_once_and_table_choose_and_report_know_it(tmp_path, stores):
    first = sweep(tmp_path, stores, "--only", "source-only", *GRID)
    assert first.exit_code == 0, first.output
    assert re.search("2 settings .*1 shift, 2 seeds: 6 runs, of which 0 finished", first.stderr)
    assert "one setting: source-only" in first.stderr
    assert "measured on 25 steps" in first.stderr
    before = folders(tmp_path / "runs")
    assert len(before) == 6
    again = sweep(tmp_path, stores, "--only", "source-only", *GRID)
    assert (again.stdout, folders(tmp_path / "runs")) == (first.stdout, before)
    table = sweep(tmp_path, stores, "--only", "source-only", *GRID, name="table")
    assert first.stdout.startswith(table.stdout)
    assert "RNA, lambda_g = 0.1" in table.stdout
    choose = CliRunner().invoke(main, ["choose", str(tmp_path / "e.py"), "--runs", str(tmp_path / "runs")])
    choices = [line for line in choose.stdout.splitlines() if line.startswith("| RNA")]
    assert choices
    assert set(choices) <= set(first.stdout.splitlines())
    assert "oracle" in table.stdout  # the best of the rows is a choice by test labels
    made = swept(experiments.load(tmp_path / "e.py").changed(seeds="0..1", only=["RNA"]), parse_grid(GRID[-1:]))
    rows = results.read(tmp_path / "runs" / "results.jsonl")
    write_report(made, rows, tmp_path / "no runs", tmp_path / "no stores", tmp_path / "e.html")
    assert "RNA: lambda_g" in (tmp_path / "e.html").read_text()
    assert "featcache sweep e" in (tmp_path / "e.html").read_text()


def test_a_damaged_result_row_is_named_and_measured_again(tmp_path, stores):
    assert sweep(tmp_path, stores, *GRID).exit_code == 0
    path = tmp_path / "runs" / "results.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0].replace(b'"value": ', b'"value": 7'), *lines[1:]]))
    result = sweep(tmp_path, stores, *GRID)
    assert result.exit_code == 0, result.output
    assert "damaged line" not in result.output  # a later line has replaced it


@pytest.mark.slow
def test_the_rows_of_a_sweep_are_those_of_every_command(tmp_path, stores):
    """sweep, table, report, compare and evaluate --all: the same rows and numbers, and no run is measured twice."""
    made = sweep(tmp_path, stores, *GRID)
    assert made.exit_code == 0, made.output
    table = sweep(tmp_path, stores, *GRID, name="table")
    assert made.stdout.startswith(table.stdout)
    assert re.search("SWEEP: .*marked.*oracle", " ".join(table.stdout.split()))
    numbers = re.findall(r"(RNA, lambda_g = \S+) +\|[ *_]*([\d.]+) ±", table.stdout)
    assert len(numbers) == 2
    page = tmp_path / "page.html"
    report = sweep(tmp_path, stores, *GRID, "--out", page, name="report")
    assert report.exit_code == 0, report.output
    assert re.search("best setting of the sweep[^<]*oracle", page.read_text())
    for row, number in numbers:
        assert row in page.read_text()
        assert number in page.read_text()
    rows = [row for row, _ in numbers]
    words = [*map(str, (tmp_path / "e.py", *rows, "--stores", stores, "--runs", tmp_path / "runs"))]
    compared = CliRunner().invoke(main, ["compare", *words, *GRID[-4:]])
    assert compared.exit_code == 0, compared.output
    assert re.search(r"\| method.lambda_g \| +0.1 \| +1(\.0)? \|", compared.stdout)
    assert all(f"{side}: {row}" in compared.stdout for side, row in zip("AB", rows, strict=True))
    without = CliRunner().invoke(main, ["compare", *words])
    assert without.exit_code == 1
    assert "no row 'RNA, lambda_g = 0.1'" in without.stderr
    of_runs = CliRunner().invoke(main, ["compare", "a", "b", *GRID[-2:]])
    assert (of_runs.exit_code, "--grid" in of_runs.stderr) == (2, True)
    before = (tmp_path / "runs" / "results.jsonl").read_bytes()
    every = CliRunner().invoke(main, ["evaluate", "--all", *words[3:]])
    assert (every.exit_code, "4 kept" in every.stderr) == (0, True), every.output
    assert (tmp_path / "runs" / "results.jsonl").read_bytes() == before
    assert sweep(tmp_path, stores, *GRID, name="table").stdout == table.stdout


@pytest.mark.slow
def test_settings_on_features_of_different_recipes_are_named_and_trained_again(tmp_path):
    words = ("--only", "RNA", "--seeds", "0", "--grid")
    old, new = write_all(tmp_path / "stores"), tmp_path / "new" / "stores"
    assert sweep(tmp_path, old, *words, "method.lambda_g=0.1").exit_code == 0
    shutil.rmtree(old)
    new = write_all(tmp_path / "stores", weights="a" * 64)
    assert sweep(tmp_path, new, *words, "method.lambda_g=1").exit_code == 0
    mixed = sweep(tmp_path, new, *words, "method.lambda_g=0.1,1", name="table")
    assert mixed.stdout.count("DIFFERENT FEATURES: feed rgb") == 1
    every = CliRunner().invoke(main, ["evaluate", "--all", "--stores", str(new), "--runs", str(tmp_path / "runs")])
    assert every.exit_code == 1
    assert re.search(r"1 of 2 runs have no result.*\n  \S+: store rgb, store flow has changed[^\n]*\n$", every.stderr)
    again = sweep(tmp_path, new, *words, "method.lambda_g=0.1,1")
    assert again.exit_code == 0, again.output
    assert "DIFFERENT FEATURES" not in again.stdout


@pytest.mark.filterwarnings("ignore:1 damaged line")
def test_a_damaged_line_that_nothing_replaces_is_named_once(tmp_path, stores):
    assert sweep(tmp_path, stores, *GRID).exit_code == 0
    path = tmp_path / "runs" / "results.jsonl"
    path.write_bytes(b'{"run": "gone", "value": 1}\n' + path.read_bytes())
    result = sweep(tmp_path, stores, *GRID)
    assert result.exit_code == 0, result.output
    assert result.stdout.split("| row")[0].count("DAMAGED RESULTS") == 1
    assert "Traceback" not in result.output


def test_a_run_that_fails_is_named_and_the_others_are_compared(tmp_path, stores):
    words = ("--only", "RNA", "--seeds", "0", "--grid", "optim.lr=0.05,0.1,1e30")
    result = sweep(tmp_path, stores, *words)
    assert result.exit_code == 1
    assert "lower optim.lr" in result.stderr
    assert "optim.lr=0.1 |" in result.stdout
    assert re.search(r"lr = 1e\+30 \| +– ", result.stdout)


# -------------------------------------------------------------------------------------------------------------- search


def test_the_ranges_that_a_search_draws_from():
    made = toy()
    config = next(run for run in made.runs if run.row == "RNA")
    assert declared(config)["method.lambda_g"] == Limits(0.1, 10, log=True)
    assert declared(config).keys() == {f"method.lambda_{name}" for name in ("g", "c", "d", "im")}
    assert declared(override(config, "method.lambda_d=0")).keys().isdisjoint({"method.lambda_d"})
    drawn = space(
        made, "RNA", {"net.dim": ("8", "16")}, parse_ranges(["steps=10..1000,log", "optim.lr", "holdout=0..0.5"])
    )
    assert drawn["net.dim"] == ("8", "16")
    assert drawn["steps"] == Limits(10, 1000, log=True, whole=True)
    assert drawn["optim.lr"] == Limits(0.005, 0.5, log=True)
    assert drawn["holdout"] == Limits(0, 0.5)


def test_open_ends_are_not_drawn():
    from pipelines.sweeps.space import _interval

    for value, allowed in [(0.8, Range(0, 1, False, True)), (0.6, Range(0.5, float("inf"), True, False))]:
        drawn = _interval(value, allowed)
        assert drawn.low in allowed
        assert drawn.high in allowed
    assert _interval(3, Range(1, float("inf"), True, False)) == Limits(2, 30, log=True, whole=True)


def tried(score, trials=20, sampler="tpe", seeds=3, higher=True, **changes):
    """Trials of a search without training, and the runs that it asked for."""
    made = toy().changed(seeds=f"0..{seeds - 1}")
    asked = []

    def of(runs):
        asked.extend(runs)
        return {run.id: score(run) for run in runs}

    drawn = {"method.lambda_g": Limits(0.01, 10, log=True), **changes}
    found = search.search(made, "RNA", drawn, (sampler, trials), of, higher=higher)
    return [trial for trials in found for trial in trials], asked


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_search_is_repeated_exactly_and_trials_that_begin_badly_are_pruned(sampler):
    found, asked = tried(lambda run: run.method.lambda_g, sampler=sampler)
    assert found == tried(lambda run: run.method.lambda_g, sampler=sampler)[0]
    assert len(found) == 20
    states = [trial.state for trial in found]
    assert states[:8] == [search.COMPLETE] * 8
    assert search.PRUNED in states
    assert len(asked) == sum(trial.runs for trial in found)
    ranked = search.best(found, higher=True)
    assert ranked[0].score == max(trial.score for trial in found if trial.state == search.COMPLETE)
    assert ranked[0].setting.values["method.lambda_g"] == f"{ranked[0].score:g}"


@pytest.mark.parametrize("higher", [True, False])
def test_a_lucky_first_seed_does_not_protect_a_trial(higher):
    sign, first = 1 if higher else -1, []

    def score(run):
        if len(first) < 8 and run.seed == 0:
            first.append(run.method.lambda_g)
        lucky = {0: 1.0, 1: -10.0, 2: 5.0}
        return sign * (0.5 if run.method.lambda_g in first else lucky[run.seed])

    found, _ = tried(score, trials=16, sampler="random", higher=higher)
    assert [trial.state for trial in found] == [search.COMPLETE] * 8 + [search.PRUNED] * 8
    assert {trial.runs for trial in found[8:]} == {2}


def test_a_setting_that_fails_is_no_choice():
    found, _ = tried(lambda run: "exploded" if run.method.lambda_g > 1 else run.method.lambda_g, trials=8)
    failed = [trial for trial in found if trial.state == search.FAIL]
    assert failed
    assert all(trial.reason == "exploded" for trial in failed)
    assert search.best(found, higher=True)[0].score <= 1
    found, asked = tried(lambda run: 1.0, trials=2, **{"method.lambda_c": ("-1", "-2")})
    assert {trial.state for trial in found} == {search.FAIL}
    assert asked == []


@pytest.mark.slow
def test_a_search_ends_after_a_kill_as_if_there_was_none(tmp_path, stores, monkeypatch):
    whole = tmp_path / "whole"
    whole.mkdir()
    first = sweep(whole, stores, *SEARCH, *ALONE)
    assert first.exit_code == 0, first.output
    assert "ranked by infomax" in first.stderr
    assert not re.search("optuna|Warning", first.stderr)
    (chosen,) = re.findall(r"infomax chooses lambda_g = (\S+) \(--only RNA --set method.lambda_g=\1\)", first.stdout)
    assert first.stdout.count(f"lambda_g = {chosen} ") >= 3  # its trial, the choice, and its row
    (tmp_path / "e.py").write_text(FILE.format(steps=3))
    words = [str(word) for word in (tmp_path / "e.py", "--stores", stores, "--runs", tmp_path / "runs", "--workers", 1)]

    def job():
        CliRunner().invoke(main, ["sweep", *words, *SEARCH, *ALONE])

    def write(folder, *content, **more):
        if len(folders(tmp_path / "runs")) == 5:
            os._exit(KILLED)
        write_run(folder, *content, **more)

    write_run = train.write
    monkeypatch.setattr(train, "write", write)
    assert killed_at(0, "", job)
    monkeypatch.undo()
    kept = folders(tmp_path / "runs")
    assert 5 == len(kept) < len(folders(whole / "runs"))
    again = sweep(tmp_path, stores, *SEARCH, *ALONE)
    assert again.stdout == first.stdout
    assert kept.items() <= folders(tmp_path / "runs").items()
    assert folders(tmp_path / "runs").keys() == folders(whole / "runs").keys()


def test_an_oracle_is_named_wherever_its_number_is(tmp_path, stores):
    words = (
        "--only",
        "RNA",
        "--seeds",
        "0",
        "--search",
        "random:2",
        "--grid",
        "method.lambda_g=0.1,1",
        "--by",
        "oracle",
    )
    result = sweep(tmp_path, stores, *words)
    assert result.exit_code == 0, result.output
    assert "| oracle (top1) |" in result.stdout
    assert "RNA (oracle): oracle chooses" in result.stdout
    assert "ranked by oracle" in result.stderr


def test_a_search_needs_no_labels_of_the_target(tmp_path):
    unlabelled = manifest(labels=lambda domain, split, name: {} if domain == "night" else {"label": name})
    result = sweep(tmp_path, write_all(tmp_path / "stores", unlabelled), "--only", "RNA", "--search", "tpe:1")
    assert "RNA: infomax chooses" in result.stdout
    assert "NO LABELS in day→night" in result.stdout
    assert result.exit_code == 0


def test_without_optuna_the_extra_is_named(tmp_path, stores, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    for name in ("search", "scores"):
        monkeypatch.delitem(sys.modules, f"pipelines.sweeps.{name}")
        monkeypatch.delattr(f"pipelines.sweeps.{name}")
    result = sweep(tmp_path, stores, *SEARCH)
    assert result.exit_code == 1
    assert "featcache[sweep]" in result.stderr
    assert sweep(tmp_path, stores, *GRID).exit_code == 0


# ------------------------------------------------------------------------------------------------------ plan and figure


def test_the_plan_counts_what_is_left_and_names_where_its_minutes_come_from(tmp_path, stores):
    made = swept(toy(), {"method.lambda_g": ("0.1", "1")})
    assert plan.unfinished(made, tmp_path) == list(made.by_id.values())
    timed = []
    costs = plan.costs(made, stores, tmp_path, "cpu", lambda done, total: timed.append((done, total)))
    known = {kind: plan.Cost(1.0, 0.5, measured=False) for kind in costs}
    assert timed == [(1, 2), (2, 2)]
    assert len(known) == 2
    runs = list(made.by_id.values())
    assert plan.seconds(runs, known) == pytest.approx(sum(1 + 0.5 * run.steps for run in runs))
    assert plan.seconds(runs, {}) is None
    assert "finished runs" in plan.sentences(made, runs, known, 2)[-1]
    assert "unknown" in plan.sentences(made, runs, {}, 2)[-1]
    many = swept(toy(), {"method.lambda_g": ("0.1", "0.2", "0.4", "1")})
    lines = plan.sentences(many, list(many.by_id.values()), known, 1)
    assert any("8 runs in 1 group;" in line for line in lines)  # source-only has two runs, too few for a group


def test_an_unknown_time_has_its_reason(tmp_path, stores):
    made = swept(toy(), {"method.lambda_g": ("0.1", "1")})
    runs = list(made.by_id.values())
    known = plan.costs(made, tmp_path / "nowhere", tmp_path, "cpu")
    assert plan.seconds(runs, known) is None
    assert re.search("unknown, because .*nowhere", plan.sentences(made, runs, known, 2)[-1])
    start = run(row="", steps=4)
    later = Experiment("toy", "Toy.", (run(init_from=start.id, net=adapter.Params(dim=4)), start))
    of_later = plan.costs(later, stores, tmp_path, "cpu")
    assert next(iter(of_later.values())) == plan.STARTED
    assert plan.seconds(later.runs, of_later) > 0  # as much as the others
    assert re.search("unknown, because .*start from others", plan.expected(None, {"": plan.STARTED}, 1))
    alike = Experiment("toy", "Toy.", (run(init_from=start.id), start))
    (cost,) = plan.costs(alike, stores, tmp_path, "cpu").values()
    assert cost.measured


def test_seconds_of_runs_in_one_pass_are_no_cost_of_a_run(tmp_path, stores):
    config = run(steps=3)
    folder = train.train(config, stores, tmp_path)
    made = Experiment("toy", "Toy.", (config,))
    (cost,) = plan.costs(made, stores, tmp_path, "cpu").values()
    assert not cost.measured
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(facts | {"batched": 4}))
    write_sums(folder)
    (cost,) = plan.costs(made, stores, tmp_path, "cpu").values()
    assert cost.measured


def test_a_curve_per_swept_number_with_the_others_near_the_experiment():
    made = swept(toy(), parse_grid(["method.lambda_g=0.1,1,10", "optim.lr=0.01,0.04", "method.mod=false,true"]))
    found = {each.title: each for each in sensitivity.sweeps(made, build([], made))}
    assert found.keys() == {
        "source-only: lr",
        "RNA, lr = 0.04, mod = True: lambda_g",
        "RNA, lambda_g = 1, mod = True: lr",
    }
    curve = found["RNA, lr = 0.04, mod = True: lambda_g"]
    assert [line.method for line in curve.lines.values()] == [
        f"RNA, lambda_g = {g}, lr = 0.04, mod = true" for g in (0.1, 1, 10)
    ]
    assert curve.default == 1  # of the experiment
    assert found["source-only: lr"].default is None  # 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "finished"),
    [
        ((*GRID, *ALONE, "--workers", "2"), 2),
        ((*SEARCH, *ALONE, "--workers", "2"), 2),
        ((*SEEDS, "--workers", "1"), 13),
    ],
    ids=["grid", "search", "groups"],
)
def test_kill_9_in_the_middle(tmp_path, stores, words, finished):
    """Whatever was finished is kept, and the same command ends as one that nobody killed.

    Runs that are trained in passes, here two of 13, are finished when their pass is.
    """
    whole = tmp_path / "whole"
    whole.mkdir()
    (tmp_path / "e.py").write_text(FILE.format(steps=60))
    line = ["sweep", tmp_path / "e.py", "--stores", stores, *words, "--runs"]
    first = command(*line, whole / "runs")
    expected, stderr = first.communicate(timeout=300)
    assert first.returncode == 0, stderr
    process = command(*line, tmp_path / "runs")
    assert wait_for(lambda: process.poll() is not None or len(folders(tmp_path / "runs")) >= finished)
    process.kill()
    process.wait()
    kept = folders(tmp_path / "runs")
    assert finished <= len(kept) < len(folders(whole / "runs"))
    again = command(*line, tmp_path / "runs")
    stdout, stderr = again.communicate(timeout=300)
    assert again.returncode == 0, stderr
    assert f"{len(kept)} finished" in stderr or "--search" in words
    assert kept.items() <= folders(tmp_path / "runs").items()
    assert folders(tmp_path / "runs").keys() == folders(whole / "runs").keys()
    batched = {Run.open(tmp_path / "runs" / name).facts.batched for name in kept}
    assert batched == ({0} if finished == 2 else {13})
    if batched == {0}:  # the last digits of passes depend on the runs that share them
        assert stdout == expected


def test_every_validator_has_a_place_in_the_order_of_the_default():
    assert sorted(search.PREFERRED) == sorted(search.VALIDATORS)
