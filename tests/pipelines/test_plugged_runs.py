"""Plug-ins in commands: what the README shows, what runs and stores record, and changed or missing files."""

import hashlib
import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from featcache import FeatureStore, bridges, plugins, registry
from featcache.bridges import External
from featcache.errors import ConfigError, NoEntryError
from featcache.importing import import_features
from heads.testing.methods import build, train
from heads.testing.problems import SPEC
from pipelines import experiments
from pipelines.cli import main
from pipelines.commands.jobs import job
from pipelines.data.opening import open_run
from pipelines.evaluation.engine import cases_of
from pipelines.training.runs import NotTrainedError, Run
from pipelines.training.train import start
from pipelines.training.train import train as train_run
from tests.conftest import ROOT
from tests.helpers.media import write_sound
from tests.helpers.stores import manifest, run, write_all

README, CONTRIBUTING, PAGE = ((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "docs/plugins.md"))
(METHOD,) = (block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "METHOD = " in block)
EXPERIMENT = """
from dataclasses import replace
from heads.methods import confidence
from heads.nets import linear
from tests.helpers.stores import run
own = {"method": confidence.Params(), "net": linear.Params()}
RUNS = (replace(run(), row="mine", target="night", epoch="target", **own),)
"""
EXTRACTOR = """
import numpy as np
from dataclasses import dataclass
from featcache.extractors import Extractor, Sound

@dataclass(frozen=True)
class Params:
    pass

class Loudness(Extractor):
    name, modality, row_shape, window = "loudness", "audio", (1,), Sound(8000, 0.5)

    def prepare(self, window):
        return np.abs(window).mean(keepdims=True)

    def __call__(self, windows):
        return windows.astype(np.float32)

EXTRACTOR = Loudness
"""


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def cli(*words):
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture
def mine(tmp_path):
    """A folder of plug-ins: the method of the README, a net, and an experiment of both."""
    files = {
        "methods/confidence.py": METHOD,
        "nets/linear.py": (ROOT / "tests" / "data" / "linear.py").read_text(),
        "experiments/trial.py": EXPERIMENT,
        "extractors/loudness.py": EXTRACTOR,
        "bridges/json_rows.py": (ROOT / "tests" / "data" / "json_rows.py").read_text(),
    }
    for name, text in files.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text(text)
    return tmp_path / "mine"


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"))


def test_the_lines_are_few_and_the_same_everywhere():
    assert len([line for line in METHOD.splitlines() if line]) <= 16
    assert METHOD in CONTRIBUTING
    assert METHOD in PAGE


def test_a_run_records_the_files_of_its_method_and_net_and_is_trained_again_when_one_changes(stores, mine, tmp_path):
    command = (
        "train-head",
        "trial",
        "--stores",
        stores,
        "--runs",
        tmp_path / "runs",
        "--workers",
        1,
        "--plugins",
        mine,
    )
    assert "1 trained" in cli(*command).stderr
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if not path.name.startswith("."))
    read = json.loads((folder / "run.json").read_text())["read"]
    names = {"methods/confidence.py": METHOD, "nets/linear.py": (mine / "nets/linear.py").read_text()}
    assert {name: read[f"plug-in {name}"] for name in names} == {name: sha256(text) for name, text in names.items()}
    assert "1 kept" in cli(*command).stderr
    assert cli("evaluate", *command[1:]).exit_code == 0
    (mine / "nets/linear.py").write_text(names["nets/linear.py"] + "# another net\n")
    stale = cli("evaluate", *command[1:])
    assert stale.exit_code == 1
    assert "plug-in nets/linear.py has changed" in stale.stderr
    again = cli(*command).stderr
    assert "1 trained" in again
    assert "trained again, because these have changed: plug-in nets/linear.py" in again


def test_a_run_without_its_plug_in_is_not_called_damaged(stores, mine, tmp_path):
    runs = tmp_path / "runs"
    cli("train-head", "trial", "--stores", stores, "--runs", runs, "--workers", 1, "--plugins", mine)
    (folder,) = (path for path in runs.iterdir() if not path.name.startswith("."))
    with pytest.raises(NoEntryError, match="config.json.*no method 'confidence'.*--plugins FOLDER") as error:
        Run.open(folder)
    assert "damaged" not in str(error.value)
    cases, (problem,) = cases_of(runs)
    assert cases == []
    assert "--plugins FOLDER" in problem
    with plugins.added([mine]):
        assert Run.open(folder).method().params == registry.load("heads.methods", "confidence", "method").Params()


def test_a_head_is_not_used_with_another_file_than_it_was_trained_with(stores, mine, tmp_path):
    """It is refused where no stores are compared, too, as in predictions."""
    runs = tmp_path / "runs"
    cli("train-head", "trial", "--stores", stores, "--runs", runs, "--workers", 1, "--plugins", mine)
    (folder,) = (path for path in runs.iterdir() if not path.name.startswith("."))
    (mine / "methods" / "confidence.py").write_text(METHOD + "# changed\n")
    with plugins.added([mine]), pytest.raises(NotTrainedError, match="plug-in methods/confidence.py has changed"):
        Run.open(folder).method()


def test_slow_results_that_runs_share_are_those_of_one_file(stores, mine, tmp_path):
    """A changed file may compute another tensor under the same name."""
    folders = set()
    for text in (METHOD, METHOD + "# changed\n"):
        (mine / "methods" / "confidence.py").write_text(text)
        with plugins.added([mine]):
            (config,) = experiments.load("trial").runs
            folders.add(start(config, open_run(config, stores, "cpu"), tmp_path).shared.folder)
    assert len(folders) == 2
    assert {folder.parent for folder in folders} == {tmp_path / ".shared"}
    assert start(run(), open_run(run(), stores, "cpu"), tmp_path).shared.folder == tmp_path / ".shared"


def test_runs_of_shipped_methods_and_stores_of_shipped_extractors_record_nothing_new(stores, tmp_path):
    facts = Run.open(train_run(run(), stores, tmp_path)).facts
    assert facts.read.keys() == {"store rgb", "store flow", "manifest"}


def test_the_commands_that_reproduce_a_table_name_the_plug_ins(mine):
    with plugins.added([mine]):
        assert f"--plugins {mine}" in job("trial").experiment.arguments


def test_an_experiment_file_may_use_plug_ins_and_names_what_is_missing(mine, tmp_path):
    (tmp_path / "e.py").write_text(EXPERIMENT)
    with pytest.raises(ConfigError, match="e.py line 3: ImportError.*confidence.*--plugins FOLDER"):
        experiments.load(tmp_path / "e.py")
    with plugins.added([mine]):
        assert [run.row for run in experiments.load(tmp_path / "e.py").runs] == ["mine"]


def test_a_store_records_the_file_of_its_extractor_and_refuses_another(mine, tmp_path):
    sound = np.sin(np.arange(8000) / 10)
    for name in "ab":
        write_sound(tmp_path / f"{name}.wav", sound, 8000)
    rows = [f"{name},home,train,{name}.wav" for name in "ab"]
    (tmp_path / "m.csv").write_text("\n".join(["clip_id,domain,split,source", *rows]) + "\n")
    command = ("extract", tmp_path / "m.csv", "loudness", "--stores", tmp_path / "stores", "--plugins", mine)
    assert cli(*command).stdout.endswith("loudness.zarr\t2 done\n")
    store = FeatureStore.open(tmp_path / "stores" / "m" / "loudness.zarr")
    assert store.recipe["plugin"] == {"extractors/loudness.py": sha256(EXTRACTOR)}
    np.testing.assert_allclose(store["a"], np.abs(sound).mean(), atol=0.05)
    assert cli(*command).exit_code == 0
    (mine / "extractors" / "loudness.py").write_text(EXTRACTOR.replace("abs", "square"))
    refused = cli(*command)
    assert refused.exit_code == 1
    assert "another recipe" in refused.stderr
    assert re.search(r"plugin\.extractors/loudness\.py: '\w{64}' in the store, '\w{64}' requested", refused.stderr)


def test_an_import_records_the_file_of_its_bridge(mine, tmp_path):
    clips = manifest()
    with plugins.added([mine]):
        table = External([clip.clip_id for clip in clips], lambda k: np.full((1, 2), k, np.float32))
        bridges.load("json_rows").write(tmp_path / "f.json", {"rgb": table})
        (report,) = import_features([tmp_path / "f.json"], "json_rows", clips, tmp_path)
    text = (mine / "bridges" / "json_rows.py").read_text()
    assert FeatureStore.open(report.path).recipe["plugin"] == {"bridges/json_rows.py": sha256(text)}


def test_the_method_of_the_readme_does_what_it_says(mine):
    with plugins.added([mine]):
        module = registry.load("heads.methods", "confidence", "method")
        method = build(module, SPEC, ("source", "target"), params={"lambda_conf": 1.0})
        log = train(method, SPEC, ("source", "target"), steps=20)
    assert log[-1]["L_conf"] < log[0]["L_conf"] < 0
