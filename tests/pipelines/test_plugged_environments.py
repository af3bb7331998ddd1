"""The README's lines as they stand, and an installed package of plug-ins in a fresh environment, with two workers."""

import json
import os
import re
import site
import subprocess
import sys
import venv

import numpy as np
import pytest

from featcache.manifest import Clip, Manifest
from tests.conftest import ROOT
from tests.helpers.media import write_sound
from tests.helpers.stores import STORES, manifest, write_store
from tests.pipelines.test_plugged_runs import EXTRACTOR, METHOD, PAGE, README

pytestmark = pytest.mark.slow
COMMANDS = re.findall(r"```sh\n(.*?)```", README.split(METHOD)[1], re.DOTALL)[0]
PROOF, PROVE = re.search(r"```python\n([^`]*?class TestConfidence.*?)```\n\n```sh\n(.*?)```", PAGE, re.DOTALL).groups()
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "our-lab"
version = "1.2"

[project.entry-points."featcache.methods"]
confidence = "our_lab.confidence"

[project.entry-points."featcache.nets"]
wide = "our_lab.nets.linear"

[project.entry-points."featcache.extractors"]
loudness = "our_lab.loudness"

[project.entry-points."featcache.experiments"]
trial = "our_lab.trial"

[tool.setuptools]
packages = ["our_lab", "our_lab.nets"]
"""
TRIAL = """
from our_lab import confidence
from our_lab.nets import linear
from pipelines.config import Feed, RunConfig

RUNS = tuple(
    RunConfig(
        "m", confidence.Params(), linear.Params(), {"audio": Feed("loudness")}, row="ours", source=("loud",),
        target="quiet", train_split="train", test_split="train", steps=20, epoch=10, batch=(4, 4), seed=seed,
    )
    for seed in range(2)
)
"""


def called(*command, folder, path="", **variables):
    """Run a command in a folder, with `path` before all else on the PATH; return what it prints."""
    settings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    settings["PATH"] = f"{path}:{settings['PATH']}"
    run = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    return run.stdout + run.stderr


def test_the_lines_of_the_readme_work_and_prove_themselves(tmp_path):
    clips = Manifest("videos", manifest().clips)
    clips.write(tmp_path / "stores" / "videos" / "manifest.csv")
    for name in STORES:
        write_store(tmp_path / "stores" / "videos", clips, name)
    (tmp_path / "mine" / "methods").mkdir(parents=True)
    (tmp_path / "mine" / "methods" / "confidence.py").write_text(METHOD)
    (tmp_path / "test_confidence.py").write_text(PROOF)
    for name, module in {"featcache": "pipelines.cli", "pytest": "pytest"}.items():
        (tmp_path / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (tmp_path / name).chmod(0o755)
    output = called("sh", "-e", "-c", COMMANDS, folder=tmp_path, path=tmp_path)
    assert re.search(rf"^confidence +{tmp_path}/mine/methods/confidence.py Confidence: ", output, re.MULTILINE)
    assert re.search(r"\d+ trained in", output)
    assert "failed" not in output
    runs = [path for path in (tmp_path / "runs").iterdir() if path.name.startswith("confidence_")]
    assert len(runs) >= 6
    assert re.search(r"\d\d passed", called("sh", "-e", "-c", PROVE, folder=tmp_path, path=tmp_path))


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Python of a fresh environment with an installed package of plug-ins; other packages are those of this one."""
    pytest.importorskip("setuptools", reason="the package is built with setuptools")
    folder = tmp_path_factory.mktemp("environment")
    files = {
        "pyproject.toml": PROJECT,
        "our_lab/__init__.py": "",
        "our_lab/nets/__init__.py": "",
        "our_lab/confidence.py": METHOD,
        "our_lab/nets/linear.py": (ROOT / "tests" / "data" / "linear.py").read_text(),
        "our_lab/loudness.py": EXTRACTOR,
        "our_lab/trial.py": TRIAL,
    }
    for name, text in files.items():
        (folder / "package" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "package" / name).write_text(text)
    venv.create(folder / "venv")
    (own,) = (folder / "venv" / "lib").glob("python*/site-packages")
    lines = [f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages() if os.path.isdir(path)]
    (own / "others.pth").write_text("".join(lines))
    python = folder / "venv" / "bin" / "python"
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    called(sys.executable, "-m", "pip", "--python", python, "install", *options, folder / "package", folder=folder)
    return python, own / "our_lab"


def sounds(folder):
    """A manifest of eight sounds of two loudnesses in two domains."""
    clips = []
    for k in range(8):
        domain, loud = ("loud", "quiet")[k % 2], k // 4
        write_sound(folder / f"{k}.wav", (0.1 + 0.3 * loud) * np.sin(np.arange(8000) / 9), 8000)
        clips.append(Clip(f"c{k}", domain, "train", f"{k}.wav", labels={"label": ("low", "high")[loud]}))
    Manifest("m", tuple(clips), folder).write(folder / "m.csv")


def test_a_package_in_a_fresh_environment_extracts_and_trains_with_two_workers(environment, tmp_path):
    python, installed = environment

    def featcache(*words):
        return called(python, "-m", "pipelines.cli", *words, folder=tmp_path)

    sounds(tmp_path)
    assert re.search(r"^confidence +our-lab 1\.2 ", featcache("list", "methods"), re.MULTILINE)
    assert "8 done" in featcache("extract", "m.csv", "loudness")
    assert "2 trained" in featcache("train-head", "trial", "--workers", "2", "--batch", "off")
    runs = [path for path in (tmp_path / "runs").iterdir() if not path.name.startswith(".")]
    read = [json.loads((path / "run.json").read_text())["read"] for path in runs]
    assert read[0] == read[1]
    names = {name for name in read[0] if name.startswith("plug-in")}
    assert names == {"plug-in methods/confidence.py", "plug-in nets/wide.py"}
    assert all(json.loads((path / "config.json").read_text())["net"]["name"] == "wide" for path in runs)
    assert featcache("evaluate", "trial").startswith("runs/results.jsonl")
    (installed / "confidence.py").write_text(METHOD + "# changed\n")
    again = featcache("train-head", "trial", "--workers", "2")
    assert "trained again, because these have changed: plug-in methods/confidence.py" in again
