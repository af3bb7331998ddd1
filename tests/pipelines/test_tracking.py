"""Trackers read back what log.jsonl and run.json have; a tracker that fails ends no training."""

import json
import os
import subprocess
import sys
from importlib import util
from math import isnan

import pytest
from click.testing import CliRunner

import pipelines
from featcache.errors import ArgumentsError, ConfigError
from heads.methods import rna
from pipelines import tracking
from pipelines.cli import main
from pipelines.config import Optim
from pipelines.tracking import NAMES, Tracking, last_numbers, wandb
from pipelines.training import engine, groups
from pipelines.training.runs import Run
from pipelines.training.watching import News
from tests.conftest import ROOT
from tests.helpers.stores import run, write_all
from tests.pipelines.test_watching import experiment, train_head


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"))


class Memory:
    """A tracker that keeps what it receives; `fails` names the calls that raise."""

    def __init__(self, monkeypatch, *fails):
        self.records, self.fails = {}, fails
        monkeypatch.setattr(tracking, "check", lambda names: None)
        monkeypatch.setattr(tracking, "import_module", lambda name: self)

    def begin(self, folder, experiment, config):
        self._maybe("begin")
        self.records.setdefault(config.id, []).append(Record(self, folder, experiment))
        return self.records[config.id][-1]

    def view(self, folder, experiment):
        return f"look at {folder / experiment}"

    def _maybe(self, call):
        if call in self.fails:
            raise OSError(28, "No space left on device")


class Record:
    def __init__(self, tracker, folder, experiment):
        self.tracker, self.place, self.values, self.finished = tracker, (folder, experiment), [], None

    def log(self, values):
        self.tracker._maybe("log")
        self.values += values

    def end(self, *, finished):
        self.finished = finished
        self.tracker._maybe("end")


def tracked(folder, stores, configs, memory, **options):
    """Train runs with a tracker; return its warnings."""
    warnings = []
    watch = Tracking(["memory"], folder / "tracked", "my table/1", warnings.append)
    outcomes = engine.run_all(configs, stores, folder, report=watch.ended, hear=watch.hear, logs=True, **options)
    watch.close()
    return warnings, outcomes, watch


def expected(finished):
    """(step, name) -> value: everything that a tracker is to have of a run."""
    config, values = finished.config, {}
    for line in finished.log():
        progress = line["step"] / config.steps
        values |= {(line["step"], f"terms/{name}"): value for name, value in line.items() if name != "step"}
        values[line["step"], "learning_rate"] = config.optim.at(progress)
        values |= {(line["step"], f"learning_rate/{part}"): o.at(progress) for part, o in config.optim_for.items()}
    for point in finished.points:
        values |= {(point["step"], f"validators/{name}"): score for name, score in point.items() if name != "step"}
    return values | {(config.steps, name): value for name, value in last_numbers(finished).items()}


def check_equal(found, finished, **close):
    """Compare (step, name) -> value with the run."""
    wanted = expected(finished)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert found[key] == pytest.approx(value, **close) or (isnan(value) and isnan(found[key])), key


def as_mapping(values):
    return {(step, name): value for step, named in values for name, value in named.items()}


@pytest.mark.parametrize("seeds", [1, 4], ids=["alone", "in one pass"])
def test_a_tracker_gets_all_numbers_of_a_run(stores, tmp_path, monkeypatch, seeds):
    monkeypatch.setattr(groups, "GAIN", 0)
    memory, falling = Memory(monkeypatch), Optim(lr=1e-3, inverse=10.0, clip_norm=5.0)
    options = {"target": "night", "epoch": 4, "eval_every": 5, "keep": 2, "optim": falling}
    options |= {"optim_for": {"net.F.rgb": Optim(lr=1e-4, clip_norm=5.0)}}
    configs = [run(method=rna.Params(), seed=seed, **options) for seed in range(seeds)]
    warnings, outcomes, watch = tracked(tmp_path, stores, configs, memory)
    assert [outcome.note for outcome in outcomes] == [""] * seeds
    assert warnings == []
    for config in configs:
        (record,) = memory.records[config.id]
        finished = Run.open(tmp_path / config.id)
        assert record.finished
        check_equal(as_mapping(record.values), finished, rel=0, abs=0)
        assert record.place == (tmp_path / "tracked", "my-table-1")
        steps = [step for step, _ in record.values]
        assert steps == sorted(steps)  # as wandb needs them
    assert watch.views == [f"look at {tmp_path / 'tracked' / 'my-table-1'}"]


def test_kept_runs_are_not_tracked_again(stores, tmp_path, monkeypatch):
    engine.run_all([run()], stores, tmp_path)
    memory = Memory(monkeypatch)
    tracked(tmp_path, stores, [run(), run(seed=1)], memory)
    assert list(memory.records) == [run(seed=1).id]
    assert tracked(tmp_path, stores, [run(), run(seed=1)], memory)[2].views == []


def test_a_run_that_begins_again_has_a_new_record(monkeypatch, tmp_path):
    """A pass that fails begins its runs again; close() ends what a stopped command leaves."""
    memory, config = Memory(monkeypatch), run()
    watch = Tracking(["memory"], tmp_path, "toy", pytest.fail)
    for loss in (1.0, 2.0):
        watch.hear(News((config.id,), 0, (config,)))
        watch.hear(News((config.id,), 1, loss=loss, lines={config.id: [{"step": 0, "L": loss}]}))
    watch.close()
    first, second = memory.records[config.id]
    assert (first.finished, second.finished) == (False, False)
    assert [values["terms/L"] for _, values in second.values] == [2.0]


@pytest.mark.parametrize("call", ["begin", "log", "end"])
def test_a_tracker_that_fails_is_one_warning_and_training_continues(stores, tmp_path, monkeypatch, call):
    memory = Memory(monkeypatch, call)
    warnings, outcomes, _ = tracked(tmp_path, stores, [run(), run(seed=1)], memory)
    assert [outcome.status for outcome in outcomes] == ["trained", "trained"]
    assert len(warnings) == 1
    assert "memory" in warnings[0]
    assert "No space left on device" in warnings[0]


def test_one_tracker_that_fails_leaves_the_others(stores, tmp_path, monkeypatch):
    good, bad = Memory(monkeypatch), Memory(monkeypatch, "log")
    monkeypatch.setattr(tracking, "import_module", lambda name: bad if name.endswith("bad") else good)
    warnings = []
    watch = Tracking(["bad", "good"], tmp_path, "toy", warnings.append)
    engine.run_all([run(), run(seed=1)], stores, tmp_path, report=watch.ended, hear=watch.hear, logs=True)
    assert len(warnings) == 1
    assert [record.finished for (record,) in good.records.values()] == [True, True]


def test_unknown_trackers_and_missing_packages_are_named(monkeypatch):
    with pytest.raises(ConfigError, match=r"tensorbord.*tensorboard"):
        tracking.check(["tensorbord"])
    for missing in (None, util.spec_from_loader("wandb", None)):  # absent, and a folder of that name
        monkeypatch.setattr(tracking, "find_spec", lambda name, missing=missing: missing)
        for name in NAMES:
            with pytest.raises(ConfigError, match=rf"--track {name} .*featcache\[{name}\]"):
                tracking.check([name])


def test_the_commands_offer_all_trackers():
    for name in ("train-head", "sweep"):
        (option,) = [each for each in main.commands[name].params if each.name == "track"]
        assert tuple(option.type.choices) == NAMES


def test_the_command_tracks_beside_its_runs_and_says_how_to_look(stores, tmp_path, monkeypatch):
    memory = Memory(monkeypatch)
    done = train_head(tmp_path, stores, "--track", "wandb", "--track", "wandb")
    assert done.exit_code == 0, done.stderr
    assert memory.records.keys() == {path.parent.name for path in (tmp_path / "runs").glob("*/run.json")}
    assert {record.place for (record,) in memory.records.values()} == {(tmp_path / "runs-tracked", "toy")}
    assert done.stderr.count(f"look at {tmp_path / 'runs-tracked' / 'toy'}") == 1
    assert "look at" not in train_head(tmp_path, stores, "--track", "wandb").stderr  # all runs are kept


@pytest.mark.parametrize("function", [pipelines.train, pipelines.sweep])
def test_a_folder_without_a_tracker_is_refused(stores, tmp_path, function):
    words = {"grid": "method.smoothing=0,0.1"} if function is pipelines.sweep else {}
    with pytest.raises(ArgumentsError, match=r"--track-to .*--track tensorboard\|"):
        function(experiment(tmp_path), stores, tmp_path / "runs", track_to=tmp_path / "t", **words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("mode", ["", "offline", "online"])
def test_runs_that_were_sent_to_wandb_need_no_command(monkeypatch, tmp_path, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    shown = wandb.view(tmp_path, "toy")
    assert ("offline-run" in shown) == (mode != "online")
    assert ("https://wandb.ai" in shown) == (mode == "online")


GRID = pytest.param("--grid", id="grid", marks=pytest.mark.slow)


@pytest.mark.parametrize("how", [GRID, pytest.param("--search random:2 --by source_val --grid", id="search")])
def test_a_sweep_tracks_the_runs_of_all_settings(stores, tmp_path, monkeypatch, how):
    memory = Memory(monkeypatch)
    words = ["sweep", experiment(tmp_path, seeds=1), "--stores", stores, "--runs", tmp_path / "runs", "--workers", 1]
    words += ["--set", "holdout=0.3", *how.split(), "method.smoothing=0,0.1"]
    words += ["--track", "wandb", "--track-to", tmp_path / "t"]
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == 0, done.stderr
    assert memory.records.keys() == {path.parent.name for path in (tmp_path / "runs").glob("*/run.json")}
    assert memory.records
    assert all(record.finished and record.place[0] == tmp_path / "t" for (record,) in memory.records.values())


def test_the_command_names_the_extra_before_it_trains(stores, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    done = train_head(tmp_path, stores, "--track", "wandb")
    assert done.exit_code == 1
    assert "featcache[wandb]" in done.stderr
    assert not (tmp_path / "runs").exists()


# ---------------------------------------------------------------------------------------------------- the real trackers


def installed():
    """The trackers that are installed here."""
    return [name for name in NAMES if (spec := util.find_spec(name)) and spec.origin]


def needs(name):
    if name not in installed():
        pytest.skip(f"{name} is not installed: pip install 'featcache[{name}]'")


def train_in_a_process(folder, stores, *words, **environment):
    """Run train-head with two workers and all trackers; return its stderr."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "TRACKIO_"))}
    words = ["train-head", experiment(folder), "--stores", stores, "--runs", folder / "runs", "--workers", 2, *words]
    words += [word for name in installed() for word in ("--track", name)]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *map(str, words)],
        cwd=folder,
        env=ours | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{folder / 'runs'}\n"  # no words of a tracker
    return done.stderr


@pytest.fixture(scope="module")
def twice(stores, tmp_path_factory):
    """A folder with runs that were trained twice with all trackers, so that their first records are replaced."""
    if not installed():
        pytest.skip("no tracker is installed: pip install 'featcache[tensorboard,trackio,wandb]'")
    folder = tmp_path_factory.mktemp("twice")
    for time in range(2):
        assert "Warning" not in train_in_a_process(folder, stores, "--set", "eval_every=5", "--set", "keep=2")
        finished = {path.parent.name: Run.open(path.parent) for path in (folder / "runs").glob("*/run.json")}
        assert len(finished) == 2
        for each in finished.values():
            if time == 0:
                (each.folder / "outputs.npz").unlink()
    return folder, finished


@pytest.mark.slow
def test_tensorboard_reads_back_equal_numbers(twice):
    needs("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, finished = twice
    assert {each.name for each in (folder / "runs-tracked" / "tensorboard" / "toy").iterdir()} == finished.keys()
    for name, each in finished.items():
        place = folder / "runs-tracked" / "tensorboard" / "toy" / name
        assert len(list(place.iterdir())) == 1
        events = EventAccumulator(str(place), size_guidance={"scalars": 0})
        events.Reload()
        found = {(e.step, tag): e.value for tag in events.Tags()["scalars"] for e in events.Scalars(tag)}
        check_equal(found, each, rel=1e-6)  # it keeps float32
        terms = {(line["step"], f"terms/{term}"): value for line in each.log() for term, value in line.items()}
        assert all(found[key] == value for key, value in terms.items() if key[1] != "terms/step")  # which these are
        config = events.Tensors("config")[0].tensor_proto.string_val[0].decode()
        assert json.loads(config.strip("`json\n")) == each.config.all_settings


def wandb_records(path):
    """The records of a .wandb file: those of LevelDB's logs, in blocks of 32 kB after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""


@pytest.mark.slow
def test_wandb_has_equal_numbers_offline(twice):
    needs("wandb")
    folder, finished = twice
    files = list((folder / "runs-tracked" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == len(finished)
    for path in files:
        found = {}
        for record in wandb_records(path):
            if record.HasField("run"):
                each = finished[record.run.display_name]
                assert record.run.project == "toy"
                settings = {item.key: json.loads(item.value_json) for item in record.run.config.update}
                assert settings.items() >= each.config.all_settings.items()
            if record.HasField("history"):
                items = {(item.key or item.nested_key[0]): item.value_json for item in record.history.item}
                step = int(items.pop("_step"))
                found |= {(step, key): float(value) for key, value in items.items() if not key.startswith("_")}
        check_equal(found, each, rel=1e-12)


@pytest.mark.slow
def test_trackio_has_equal_numbers_on_this_machine(twice):
    needs("trackio")
    folder, finished = twice
    code = """
import json
import trackio
from trackio.sqlite_storage import SQLiteStorage
runs = [(run.name, run.config, SQLiteStorage.get_logs("toy", run.name)) for run in trackio.Api().runs("toy")]
print(json.dumps(runs, default=str))
"""
    environment = os.environ | {"TRACKIO_DIR": str(folder / "runs-tracked" / "trackio")}
    read = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    kept = json.loads(read.stdout)
    assert sorted(name for name, _, _ in kept) == sorted(finished)
    for name, config, logs in kept:
        values = [(each.pop("step"), each) for each in logs if each.pop("timestamp")]
        check_equal(as_mapping(values), finished[name], rel=1e-12)
        assert config.items() >= finished[name].config.all_settings.items()


@pytest.mark.slow
def test_trackio_never_writes_to_the_folder_of_an_earlier_call(tmp_path):
    """It has one folder per process; another one is a warning, and the earlier records stay."""
    needs("trackio")
    code = """
import os
from pathlib import Path
from pipelines.tracking import Tracking
from pipelines.training.watching import News
from tests.helpers.stores import run
config, warnings = run(), []
for name, losses in (("first", [2.0, 1.0]), ("second", [3.0]), ("first", [4.0])):
    watch = Tracking(["trackio"], Path(name), "toy", warnings.append)
    watch.hear(News((config.id,), 0, (config,)))
    lines = [{"step": step, "L": loss} for step, loss in enumerate(losses)]
    watch.hear(News((config.id,), len(losses), lines={config.id: lines}))
    watch.close()
    assert len(watch.views) == (name == "first"), watch.views
    assert not Path("second").exists()
    assert "TRACKIO_DIR" not in os.environ
    from trackio.sqlite_storage import SQLiteStorage
    if name == "second":
        kept = [each["terms/L"] for each in SQLiteStorage.get_logs("toy", config.id)]
        assert kept == [2.0, 1.0], kept
(warning,) = warnings
for word in (Path("first").resolve(), Path("second").resolve(), "restart Python"):
    assert str(word) in warning, warning
assert [each["terms/L"] for each in SQLiteStorage.get_logs("toy", config.id)] == [4.0]
"""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TRACKIO_")}
    environment = ours | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("full", [True, False], ids=["full disk", "no folder"])
def test_a_disk_that_takes_nothing_is_one_warning_for_each_tracker(stores, tmp_path, full):
    """A full disk: files have at most so many bytes. Those of the runs themselves are smaller."""
    if not installed():
        pytest.skip("no tracker is installed: pip install 'featcache[tensorboard,trackio,wandb]'")
    if full:
        limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))\n"
        (tmp_path / "sitecustomize.py").write_text(limit)
        path = os.pathsep.join([str(tmp_path), str(ROOT)])
        printed = train_in_a_process(tmp_path, stores, "--set", "steps=500", PYTHONPATH=path)
    else:
        (tmp_path / "file").write_text("")
        printed = train_in_a_process(tmp_path, stores, "--track-to", tmp_path / "file" / "x")
    assert "2 trained" in printed
    assert printed.count("Warning") == len(installed())
    for name in installed():
        assert f"tracking by {name} has failed" in printed
        assert "look at it" not in printed
