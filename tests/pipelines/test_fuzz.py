"""Changed files of stores, archives and runs: each command works or says why not, soon and in little memory."""

import json
import random
import shutil
import subprocess
import sys
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featcache.errors import FeatcacheError
from pipelines.evaluation.evaluate import evaluate
from pipelines.predicting.predict import predict
from pipelines.training.runs import Run
from pipelines.training.train import train
from tests.conftest import ROOT
from tests.helpers import caption_stores, fuzz, skeleton_stores
from tests.helpers.weights import HEAD

MB = 200  #: that a change may take
EVERY = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    fuzz.make(folder / "base")
    return folder


def test_every_file_is_among_those_that_are_changed(base):
    names = fuzz.files(base / "base")
    endings = ("config.json", "run.json", "log.jsonl", HEAD, "outputs.npz", "results.jsonl", "manifest.csv")
    for ending in (*endings, "rows.csv", "archive.json", "SHA256SUMS", "hog.zarr/zarr.json", "state/c/0", "0.jsonl"):
        assert any(name.endswith(ending) for name in names), ending


@pytest.mark.slow
@settings(EVERY, max_examples=20)
@given(data=st.data())
def test_a_changed_file_is_a_sentence(base, data):
    _attack(base, data, commands=1)


@pytest.mark.slow
@settings(EVERY, max_examples=600)
@given(data=st.data())
def test_a_changed_file_is_a_sentence_for_every_command(base, data):
    _attack(base, data)


def _attack(base, data, **options):
    name = data.draw(st.sampled_from(fuzz.files(base / "base")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zarr and zip archives
        fuzz.attack(base / "base", base / "scratch", name, data.draw(st.integers(0, 2**32)), **options)


@pytest.mark.slow
def test_commands_refuse_pipes(base):
    """One command for each file; the slow test calls all."""
    for k, name in enumerate(fuzz.files(base / "base")):
        commands = fuzz.commands_for(name)
        fuzz.replace(base / "base", base / "scratch", name, "pipe", [commands[k % len(commands)]])


@pytest.mark.slow
@pytest.mark.parametrize("kind", fuzz.IRREGULAR)
def test_every_command_refuses_what_is_no_file(base, kind):
    for name in fuzz.files(base / "base"):
        fuzz.replace(base / "base", base / "scratch", name, kind, fuzz.commands_for(name))


@pytest.mark.slow
def test_a_changed_file_takes_little_memory(base):
    """A process of its own, whose peak is known, reads 300 changes after one call of each command."""
    code = (
        "import json, resource, sys, warnings; from pathlib import Path; from tests.helpers import fuzz\n"
        "warnings.simplefilter('ignore'); base = Path(sys.argv[1]); names = fuzz.files(base / 'base')\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "[fuzz.attack(base / 'base', base / 'apart', name, 1) for name in names]; before = peak()\n"
        "[fuzz.attack(base / 'base', base / 'apart', names[k % len(names)], k) for k in range(300)]\n"
        "print(json.dumps(peak() - before))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(base)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) < MB


@pytest.mark.slow
@pytest.mark.parametrize("helper", [caption_stores, skeleton_stores], ids=["retrieval", "clustering"])
def test_a_changed_run_of_another_task_is_a_sentence(helper, tmp_path):
    stores = helper.write_all(tmp_path / "stores")
    config = helper.run(eval_every=1, keep=2, select="mean")
    run, clips = train(config, stores, tmp_path / "runs"), stores / config.manifest
    assert evaluate(run, stores)
    names, folder = sorted(path.name for path in run.iterdir()), tmp_path / "changed" / run.name
    reads = (lambda: evaluate(folder, stores), lambda: Run.open(folder).log(), lambda: predict(folder, clips).frame())
    for seed in range(300):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run, folder)
        rng = random.Random(seed)
        what = fuzz.change(folder / names[seed % len(names)], rng)
        fuzz.resum(tmp_path, folder / names[seed % len(names)])
        for read in reads if seed % 4 == 0 else reads[:2]:
            with fuzz.limited(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    read()
                except (FeatcacheError, OSError):
                    continue
                except Exception as error:
                    raise AssertionError(f"{names[seed % len(names)]} ({what}, {seed})") from error
