"""Ctrl-C and SIGTERM at any moment of any command: a soon end, one sentence, and the same command ends well."""

import re
import shutil
import time

import numpy as np
import pytest

from tests.helpers.processes import command, listening, stopped
from tests.helpers.stores import run, write_all

EXPERIMENT = "from tests.helpers.stores import run\nRUNS = tuple(run(seed=seed) for seed in range(3))"
COMMANDS = {  # name -> words; {} is a folder with an experiment, its stores and its runs
    "sweep": "sweep {}/e.py --stores {}/stores --runs {}/swept --grid steps=12,24 --workers 1",
    "evaluate": "evaluate {}/e.py --again --stores {}/stores --runs {}/runs",
    "table": "table {}/e.py --stores {}/stores --runs {}/runs",
    "report": "report {}/e.py --stores {}/stores --runs {}/runs",
    "import": "import store {}/stores/toy/hog.zarr {}/stores/toy/manifest.csv --stores {}/imported",
    "export": "export {}/stores/toy/hog.zarr --format hdf5 --out {}/hog.h5 --overwrite",
    "pack": "pack {}/stores/toy/hog.zarr {}/packed.zarr",
    "info": "info {}/stores/toy/hog.zarr",
    "build": "manifest build kitchens {}/kitchens",
    "scan": "manifest scan {}/videos --layout {{label}}/{{domain}}/{{clip_id}} --out {}/scanned.csv --overwrite",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, videos):
    from pipelines.evaluation import results
    from pipelines.evaluation.evaluate import evaluate
    from pipelines.training.train import train

    path = tmp_path_factory.mktemp("signals")
    write_all(path / "stores")
    (path / "e.py").write_text(EXPERIMENT)
    for seed in range(3):
        trained = train(run(seed=seed), path / "stores", path / "runs")
        results.append(path / "runs" / "results.jsonl", evaluate(trained, path / "stores", "e", "cpu", "source-only"))
    for copy in range(40):  # one copy is scanned within 30 ms, before most signals
        (path / "videos" / f"{copy}").mkdir(parents=True)
        for domain in ("cottage", "loft"):
            (path / "videos" / f"{copy}" / domain).symlink_to(videos / domain)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_at_any_moment(folder, name):
    words, random = COMMANDS[name].replace("{}", str(folder)).format().split(), np.random.default_rng(0)
    began = time.monotonic()
    if name != "build":  # which takes minutes
        assert command(*words).wait(timeout=100) == 0
    length, met = min(time.monotonic() - began, 5), 0
    for repeat in range(6):
        _forget_packed(folder)
        process = command(*words)
        how, code, cause = [("SIGINT to all", 130, "Ctrl-C"), ("SIGTERM", 143, "SIGTERM")][repeat % 2]
        if listening(process):  # else it has ended within this moment
            time.sleep(random.uniform(0, length / 2))
        ended = process.poll() is not None
        returncode, seconds, stderr = (process.returncode, 0, "") if ended else stopped(process, how)
        if returncode == code:
            met += 1
            assert re.search(rf"Stopped by {cause}\b.*run the same command", stderr)
        else:
            assert returncode == 0, stderr
        assert "Traceback" not in stderr
        assert seconds < 10  # on a busy machine
    assert met
    _forget_packed(folder)
    if name != "build":
        assert command(*words).wait(timeout=100) == 0


def _forget_packed(folder):
    """An archive that exists is not replaced."""
    if (folder / "packed.zarr").exists():
        shutil.rmtree(folder / "packed.zarr")
