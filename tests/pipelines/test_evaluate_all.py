"""Many runs in one call: shared data, results that are up to date, damage, two processes at once, and the command."""

import json
import multiprocessing
import os
import re
import shutil
from dataclasses import replace

import pytest
from click.testing import CliRunner

from heads.methods import rna
from heads.nets import adapter
from pipelines.cli import main
from pipelines.config import Feed, Preparation
from pipelines.data import opening
from pipelines.evaluation import engine, results
from pipelines.evaluation.engine import Case, cases_of, evaluate_all
from pipelines.evaluation.evaluate import evaluate
from pipelines.tasks.classification import TASK
from pipelines.training.runs import Run
from pipelines.training.train import train
from tests.helpers.stores import manifest, run, write_all
from tests.helpers.weights import HEAD, put

CONFIGS = [
    *(run(steps=2, seed=seed) for seed in range(3)),
    run(steps=2, method=rna.Params(), target="night", row="RNA"),
    run(steps=2, source=("night",), test="day"),
    run(steps=2, net=adapter.Params(dim=4), row="small"),
    run(steps=2, preparation=Preparation(units="source"), row="units"),
    run(steps=2, seed=1, preparation=Preparation(units="source"), row="units"),
    run(steps=2, feeds={"rgb": Feed("hog", train="mean", test="mean")}, row="rgb"),
    run(steps=2, feeds={"rgb": Feed("hog", test="each")}, row="each"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with stores and runs."""
    folder = tmp_path_factory.mktemp("many")
    write_all(folder / "stores")
    for config in CONFIGS:
        train(config, folder / "stores", folder / "runs")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the runs, with times of files, next to the stores."""
    shutil.copytree(made / "runs", tmp_path / "runs")
    (tmp_path / "stores").symlink_to(made / "stores")
    return tmp_path


def everything(folder, configs=CONFIGS, experiment="toy", **options):
    return evaluate_all([Case(c, experiment) for c in configs], folder / "stores", folder / "runs", **options)


def statuses(*arguments, **options):
    return [outcome.status for outcome in everything(*arguments, **options)]


def lines(folder):
    return (folder / "runs" / "results.jsonl").read_bytes().splitlines()


def test_a_file_that_was_replaced_by_an_older_one_is_read(folder):
    assert statuses(folder, CONFIGS[:1]) == ["measured"]
    path = folder / "runs" / CONFIGS[0].id / HEAD
    time = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(time, time))
    (outcome,) = everything(folder, CONFIGS[:1])
    assert outcome.status == "failed"
    assert HEAD in outcome.note


def test_results_are_those_of_single_runs(folder):
    assert set(statuses(folder)) == {"measured"}
    together = results.read(folder / "runs" / "results.jsonl")
    alone = [row for c in CONFIGS for row in evaluate(folder / "runs" / c.id, folder / "stores", "toy", row=c.row)]
    by_id = {(row.run, row.metric): row for row in together}
    assert len(by_id) == len(alone) == len(lines(folder))
    for row in alone:
        assert replace(by_id[row.run, row.metric], value=0) == replace(row, value=0)
        assert by_id[row.run, row.metric].value == pytest.approx(row.value, rel=1e-6)


def test_data_are_opened_and_test_rows_loaded_once(folder, monkeypatch):
    opened, loaded = [], []
    monkeypatch.setattr(
        engine, "open_run", lambda config, *of, **also: opened.append(config) or opening.open_run(config, *of, **also)
    )
    load = opening.load
    monkeypatch.setattr(opening, "load", lambda *of, **also: loaded.append(also["trained"]) or load(*of, **also))
    assert statuses(folder, CONFIGS[:3]) == ["measured"] * 3
    assert len(opened) == 1
    assert loaded.count(False) == 2  # test rows of the target, and of the source
    assert loaded.count(True) <= 1  # training rows, if all test rows are given one class
    assert not engine._OPENED
    assert not engine._LAST


def test_runs_that_are_up_to_date_are_not_measured(folder):
    first = everything(folder)
    before = lines(folder)
    assert set(statuses(folder)) == {"kept"}
    assert lines(folder) == before
    assert [outcome.case for outcome in first] == [Case(config, "toy") for config in CONFIGS]
    assert set(statuses(folder, again=True)) == {"measured"}
    assert len(lines(folder)) == 2 * len(before)


def test_another_experiment_or_row_is_written_without_a_measurement(folder):
    statuses(folder, CONFIGS[:1])
    before = results.read(folder / "runs" / "results.jsonl")
    renamed = replace(CONFIGS[0], row="other")
    assert statuses(folder, [renamed], "second") == ["kept"]
    after = results.read(folder / "runs" / "results.jsonl")
    assert {(row.experiment, row.row, row.config["row"]) for row in after} == {("second", "other", "other")}
    assert [row.value for row in after] == [row.value for row in before]
    count = len(lines(folder))
    assert statuses(folder, [renamed], "second") == ["kept"]
    assert len(lines(folder)) == count


@pytest.mark.parametrize("change", ["damaged", "lost", "torn", "earlier version", "older lines"])
def test_results_that_are_not_whole_are_measured_again(folder, change):
    """And no other run is."""
    statuses(folder, CONFIGS[:3])
    path = folder / "runs" / "results.jsonl"
    all_lines = lines(folder)
    k = next(k for k, line in enumerate(all_lines) if json.loads(line)["run"] == CONFIGS[1].id)
    if change == "damaged":
        all_lines[k] = all_lines[k].replace(b'"value": ', b'"value": 1')
    elif change == "lost":
        del all_lines[k]
    elif change == "torn":
        mine = [line for line in all_lines if json.loads(line)["run"] == CONFIGS[1].id]
        all_lines = [line for line in all_lines if line not in mine] + [*mine[:-1], mine[-1][:-9]]
    else:
        lone = {
            name: value for name, value in json.loads(all_lines[k]).items() if name not in ("crc32c", "measurement")
        }
        if change == "earlier version":
            all_lines[k] = json.dumps(lone).encode()
        else:  # an earlier version has measured the run again: tables read its number
            all_lines.append(json.dumps(lone).encode())
    path.write_bytes(b"\n".join(all_lines) + b"\n")
    expected = ["kept", "measured", "kept"]
    assert statuses(folder, CONFIGS[:3]) == expected
    assert results.read(path).damaged == ""
    assert statuses(folder, CONFIGS[:3]) == ["kept"] * 3


def test_a_version_that_measures_more_measures_again(folder, monkeypatch):
    statuses(folder, CONFIGS[:1])
    engine.described.cache_clear()
    monkeypatch.setitem(TASK.metrics, "more", TASK.metrics["top1"])
    assert statuses(folder, CONFIGS[:1]) == ["measured"]
    engine.described.cache_clear()


def test_a_run_that_was_trained_again_is_measured_again(folder):
    statuses(folder, CONFIGS[:2])
    changed = folder / "runs" / CONFIGS[0].id
    put(changed, {name: w * 2 for name, w in Run.open(changed).method().state_dict().items()})
    assert statuses(folder, CONFIGS[:2]) == ["measured", "kept"]


def test_changed_data_and_damaged_runs_fail_and_the_others_do_not(made, tmp_path):
    shutil.copytree(made / "runs", tmp_path / "runs")
    write_all(tmp_path / "stores", seed=0)
    configs = CONFIGS[:4]
    assert set(statuses(tmp_path, configs)) == {"measured"}
    with (tmp_path / "runs" / configs[0].id / "outputs.npz").open("r+b") as file:
        file.write(b"X")
    shutil.rmtree(tmp_path / "runs" / configs[1].id)
    (tmp_path / "runs" / configs[2].id / "log.jsonl").unlink()
    before = lines(tmp_path)
    found = everything(tmp_path, configs)
    assert [outcome.status for outcome in found] == ["failed", "failed", "failed", "kept"]
    assert all(outcome.untrained for outcome in found[:3])
    assert "outputs.npz is damaged" in found[0].note
    assert lines(tmp_path) == before
    manifest(labels=lambda d, s, name: {"label": "stir"}).write(tmp_path / "stores" / "toy" / "manifest.csv")
    found = everything(tmp_path, configs[3:])
    assert (found[0].status, found[0].untrained) == ("failed", True)
    assert "manifest 'toy' has changed" in found[0].note


@pytest.mark.parametrize("error", [RuntimeError("broken"), MemoryError("broken"), OSError(5, "broken")], ids=repr)
def test_an_error_of_the_program_is_the_outcome_of_its_run(folder, monkeypatch, error):
    measure = engine.measure

    def broken(run, *how):
        if run.run.config == CONFIGS[1]:
            raise error
        return measure(run, *how)

    monkeypatch.setattr(engine, "measure", broken)
    found = everything(folder, CONFIGS[:3])
    assert [outcome.status for outcome in found] == ["measured", "failed", "measured"]
    assert "broken" in found[1].note
    assert ("Traceback" in found[1].note) == (not isinstance(error, OSError))
    assert not found[1].untrained
    monkeypatch.setattr(engine, "fingerprints", lambda *_: 1 / 0)
    assert [outcome.status for outcome in everything(folder, CONFIGS[:3])] == ["measured", "failed", "measured"]


def test_without_a_stress_nothing_is_measured(folder):
    assert everything(folder, CONFIGS[:2], stresses={}) == []
    assert everything(folder, CONFIGS[:2], stresses={CONFIGS[0].id: ()}) == []
    assert not list(folder.glob("runs/*.jsonl"))


def test_runs_of_a_folder_have_the_names_of_their_last_results(folder):
    everything(folder, [replace(CONFIGS[0], row="shown")], "mine")
    (folder / "runs" / ".scratch.partial").mkdir()
    (folder / "runs" / "notes").mkdir()
    (folder / "runs" / CONFIGS[1].id / "config.json").write_text("{")
    cases, errors = cases_of(folder / "runs")
    names = {case.config.id: (case.experiment, case.config.row) for case in cases}
    assert names == {c.id: ("", c.row) for c in CONFIGS if c != CONFIGS[1]} | {CONFIGS[0].id: ("mine", "shown")}
    assert len(errors) == 1
    assert CONFIGS[1].id in errors[0]
    assert cases_of(folder / "none") == ([], [])


def _evaluate_again(folder):
    everything(folder, again=True)


@pytest.mark.slow
def test_two_processes_at_once_lose_no_line(folder):
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_evaluate_again, args=(folder,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    found = [json.loads(line) for line in lines(folder)]
    counts = {}
    for line in found:
        counts[line["run"], line["metric"]] = counts.get((line["run"], line["metric"]), 0) + 1
    assert set(counts.values()) == {2}
    assert {run for run, _ in counts} == {config.id for config in CONFIGS}
    assert set(statuses(folder)) == {"kept"}


@pytest.mark.slow
def test_several_processes_measure_what_one_does(folder, monkeypatch):
    monkeypatch.setattr(engine, "RUNS_PER_PROCESS", 1)
    done = []
    outcomes = everything(folder, workers=2, report=lambda outcome, n, total: done.append((n, total)))
    assert {outcome.status for outcome in outcomes} == {"measured"}
    assert done == [(k + 1, len(CONFIGS)) for k in range(len(CONFIGS))]
    several = {(row.run, row.metric): row.value for row in results.read(folder / "runs" / "results.jsonl")}
    assert set(statuses(folder, again=True)) == {"measured"}
    assert several == {(row.run, row.metric): row.value for row in results.read(folder / "runs" / "results.jsonl")}


# ------------------------------------------------------------------------------------------------------- the command

EXPERIMENT = """
from tests.pipelines.test_evaluate_all import CONFIGS
RUNS = [config for config in CONFIGS if config.row in {rows!r}]
"""


@pytest.fixture
def command(folder, monkeypatch):
    """A function that calls `featcache evaluate`; a.py and b.py are experiments, and share the row `small`."""
    (folder / "a.py").write_text(EXPERIMENT.format(rows=("source-only", "small")))
    (folder / "b.py").write_text(EXPERIMENT.format(rows=("small", "RNA")))
    monkeypatch.chdir(folder)
    return lambda *words: CliRunner().invoke(main, ["evaluate", *words])


def test_several_experiments_in_one_call(command, folder):
    result = command("a.py", "b.py")
    assert (result.exit_code, result.stdout) == (0, "runs/results.jsonl\n")
    assert "6 measured" in result.stderr
    named = {row.row: row.experiment for row in results.read(folder / "runs" / "results.jsonl")}
    assert named == {"source-only": "a", "small": "b", "RNA": "b"}
    assert "6 kept" in command("a.py", "b.py").stderr
    assert "6 measured" in command("a.py", "b.py", "--again").stderr


def test_all_runs_of_a_folder(command, folder):
    assert command("a.py").exit_code == 0
    result = command("--all")
    assert (result.exit_code, result.stdout) == (0, "runs/results.jsonl\n")
    assert f"{len(CONFIGS) - 5} measured" in result.stderr
    assert "5 kept" in result.stderr
    rows = results.read(folder / "runs" / "results.jsonl")
    assert {row.run for row in rows} == {config.id for config in CONFIGS}
    assert {row.experiment for row in rows if row.row in ("source-only", "small")} == {"a"}
    (folder / "runs" / CONFIGS[0].id / "config.json").write_text("{")
    result = command("--all")
    assert result.exit_code == 1
    assert re.search(r"1 of 10 runs have no result.*train-head.*config.json is damaged", result.stderr, re.DOTALL)
    assert "9 kept" in result.stderr


def test_all_runs_after_features_of_another_recipe_is_one_sentence(command, folder):
    assert command("--all").exit_code == 0
    before = lines(folder)
    (folder / "stores").unlink()
    write_all(folder / "stores", weights="a" * 64)  # another recipe
    result = command("--all")
    assert (result.exit_code, result.stdout) == (1, "")
    heading, *reasons = result.stderr.partition("Error: ")[2].splitlines()
    assert re.search("10 of 10 runs have no result.*train-head", heading)
    assert [re.search("([0-9]+) runs, .*: (.*) has changed", line).groups() for line in reasons] == [
        ("8", "store rgb, store flow"),
        ("2", "store rgb"),
    ]
    assert lines(folder) == before


@pytest.mark.filterwarnings("ignore:1 damaged line")
def test_a_damaged_line_of_a_run_that_is_gone_is_named_by_tables_only(command, folder):
    assert command("--all").exit_code == 0
    path = folder / "runs" / "results.jsonl"
    path.write_bytes(b'{"run": "gone", "value": 1}\n' + path.read_bytes())
    result = command("--all")
    assert (result.exit_code, result.stdout) == (0, "runs/results.jsonl\n")
    assert "10 kept" in result.stderr
    shown = CliRunner().invoke(main, ["table", "a.py"]).stdout
    assert len(re.findall("DAMAGED RESULTS", shown)) == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "EXPERIMENT.*--all"),
        (("a.py", "--all"), 2, "--all.*EXPERIMENT"),
        (("--all", "--seeds", "1"), 2, "--seeds"),
        (("a.py", "nobody"), 1, "no experiment 'nobody'"),
        (("a.py", "b.py", "--only", "RNA"), 1, "no row 'RNA'"),
        (("--all", "--runs", "empty"), 1, "empty has no run.*train-head"),
        (("--all", "--runs", "nowhere"), 1, "nowhere has no run.*train-head"),
        (("--all", "--stores", "nowhere"), 1, "no folder nowhere"),
        (
            ("a.py", "b.py", "--runs", "empty"),
            1,
            "none of the 6 runs of a and b; .*train-head a.py.* and .*b.py.* train",
        ),
        (("a.py", "--device", "abacus"), 1, "no device 'abacus'"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(command, folder, words, code, message):
    (folder / "empty").mkdir()
    result = command(*words)
    assert result.exit_code == code, result.output
    assert re.search(message, " ".join(result.stderr.split()))
    assert "Traceback" not in result.output
    assert not list(folder.rglob("results.jsonl"))
