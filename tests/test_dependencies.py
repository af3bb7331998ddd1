"""setup.cfg names what is imported, bounds what is known to break, and the newest of everything works."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_layers import FILES, nodes_of

PACKAGES = {"cv2": "opencv-contrib-python-headless", "sklearn": "scikit-learn"}  #: module -> package of another name
BREAKING = ["av", "zarr"]  #: packages whose first numbers have removed what we call
REMOVED = {"metadata_errors": "PyAV 19 has no such option"}
TESTS = ["manifest", "scan", "media", "media_sound", "media_bad", "store", "store_archive"]


def requirements():
    """Name -> bounds of the packages that `pip install featcache` brings, and the names of those of all extras."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = config["options"]["install_requires"].split()
    extras = " ".join(config["options.extras_require"].values()).split()
    required = {re.split(r"[<>=]", line)[0]: line for line in lines}
    return required, {re.split(r"[<>=]", line)[0].replace("_", "-") for line in extras}


def test_every_package_that_is_imported_is_required():
    required, extras = requirements()
    ours = {"featcache", "heads", "pipelines"}
    imported = set()
    for path in FILES:
        for node in nodes_of(path):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.split(".")[0] for name in modules}
    packages = {PACKAGES.get(name, name).replace("_", "-") for name in imported - ours - set(sys.stdlib_module_names)}
    assert packages - required.keys() <= extras
    assert required.keys() <= packages


def test_packages_that_are_known_to_break_have_an_upper_bound():
    required, _ = requirements()
    for name in BREAKING:
        assert re.search(r"<\d+$", required[name]), f"{required[name]} has no upper bound in setup.cfg"


def test_options_that_newer_releases_have_removed_are_not_passed_by_name():
    """They are chosen by the installed version."""
    for path in FILES:
        for node in nodes_of(path):
            if isinstance(node, ast.keyword):
                assert node.arg not in REMOVED, f"{path} line {node.lineno}: {node.arg}: {REMOVED[node.arg]}"


def python(newest):
    """The oldest Python that we support, or the newest one of this machine from 3.13 on; skips where there is none."""
    folders = [*map(Path, os.environ["PATH"].split(os.pathsep)), *Path.home().glob(".pyenv/versions/3.*/bin")]
    folders += Path.home().glob(".local/share/uv/python/cpython-3.*/bin")
    for minor in range(20, 12, -1) if newest else [11]:
        for path in (folder / f"python3.{minor}" for folder in folders):
            works = path.is_file() and subprocess.run([path, "-c", "import ensurepip, venv"], capture_output=True)
            if works and works.returncode == 0:
                return path
    pytest.skip(f"no Python {'3.13 or newer' if newest else '3.11'} on this machine")


@pytest.mark.slow
@pytest.mark.parametrize("newest", [False, True], ids=["oldest Python", "newest Python"])
def test_the_wheel_works_with_the_newest_of_everything(tmp_path, newest):
    """Without constraints.txt, as a user installs it. torch is left out: it may bring gigabytes of CUDA along."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*command):
        return subprocess.run(list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert run(python(newest), "-m", "venv", tmp_path / "venv").returncode == 0
    inside = tmp_path / "venv" / "bin" / "python"
    pip = [inside, "-m", "pip", "install", "--quiet", "--retries", "1"]
    if run(*pip, "pytest", "hypothesis").returncode:
        pytest.skip("no package index")
    others = shutil.ignore_patterns(".*", "tests", "demo", "build", "*.egg-info")
    shutil.copytree(ROOT, tmp_path / "source", ignore=others)
    required, _ = requirements()
    for words in (["--no-deps", tmp_path / "source"], [line for name, line in required.items() if name != "torch"]):
        done = run(*pip, *words)
        assert done.returncode == 0, done.stderr
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    place = run(inside, "-c", "import featcache; print(featcache.__file__)").stdout
    assert place.startswith(str(tmp_path / "venv")), place
    tests = [f"tests/featcache/test_{name}.py" for name in TESTS]
    done = run(inside, "-m", "pytest", "-m", "not slow", "--basetemp", tmp_path / "made", *tests)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    shutil.rmtree(tmp_path / "venv")


@pytest.mark.slow
def test_the_wheel_has_the_dataset_cards(tmp_path):
    """Messages name data_manifests/BENCHMARK.md, and `featcache show benchmark` prints it, without a clone, too."""
    pytest.importorskip("setuptools", reason="builds a wheel")
    others = shutil.ignore_patterns(".*", "tests", "demo", "build", "*.egg-info")
    shutil.copytree(ROOT, tmp_path / "source", ignore=others)
    build = f"from setuptools.build_meta import build_wheel; print(build_wheel({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path / "source", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    cards = {path.name for path in (ROOT / "data_manifests").glob("*.md")}
    assert {path.name for path in (tmp_path / "installed" / "data_manifests").glob("*.md")} == cards
    code = "from pipelines import catalogue; print(catalogue.__file__, catalogue.card('pairs'))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    card = (ROOT / "data_manifests" / "pairs.md").read_text()
    assert shown.stdout == f"{tmp_path}/installed/pipelines/catalogue.py {card}\n"
