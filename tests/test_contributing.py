"""The files that CONTRIBUTING.md shows are complete: they pass the linter, and the contracts outside the repository."""

import importlib.util
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from heads.testing.methods import build, train
from heads.testing.problems import SPEC
from tests.conftest import ROOT

EXTRACTOR, METHOD, PROOF = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
FILES = {
    "featcache/extractors/mean_colour.py": EXTRACTOR,
    "heads/methods/entropy.py": METHOD,
    "featcache/testing/test_proof.py": PROOF,
}
OTHERS = """
import json_rows
import linear
from featcache.testing import BridgeTests, NetTests

class TestLinear(NetTests):
    module = linear

class TestJsonRows(BridgeTests):
    module = json_rows
"""
#: what is broken -> (file, old text, new text, tests that must fail)
BROKEN = {
    "an extractor whose rows depend on the batch": (
        "mean_colour.py",
        "return windows.astype(np.float32)",
        "return (windows - windows.mean(0) / 9).astype(np.float32)",
        {"test_rows_do_not_depend_on_the_batch"},
    ),
    "a method with a parameter that nothing trains": (
        "entropy.py",
        '    needs = ("source", "target")\n',
        '    needs = ("source", "target")\n\n    def __init__(self, params, spec, net):\n'
        "        super().__init__(params, spec, net)\n        self.idle = torch.nn.Parameter(torch.zeros(3))\n",
        {"test_every_parameter_gets_a_gradient"},
    ),
    "a net that ignores `present`": (
        "linear.py",
        "side.pool(m).flatten(1)) * side.has(m)[:, None]",
        "side.x[m].mean(1).flatten(1))",
        {"test_windows_that_are_not_present_are_not_read"},
    ),
    "a bridge that loses ids": (
        "json_rows.py",
        "clip[0] for clip in clips",
        "str(k) for k in range(len(clips))",
        {"test_one_key_comes_back_in_the_order_of_the_file", "test_ids"},
    ),
}


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("command", [("check",), ("format", "--diff")], ids=lambda command: command[0])
def test_the_linter_has_nothing_to_say(path, command):
    """As if the block lay at `path`."""
    ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--stdin-filename", path, "-"]
    run = subprocess.run(ruff, input=FILES[path], capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr


def write_own_files(folder):
    """A folder outside the repository: the files of CONTRIBUTING.md, a net, a bridge, and the tests of all four."""
    files = {"mean_colour.py": EXTRACTOR, "entropy.py": METHOD, "test_proof.py": PROOF, "test_others.py": OTHERS}
    files |= {name: (ROOT / "tests" / "data" / name).read_text() for name in ("linear.py", "json_rows.py")}
    for name, text in files.items():
        (folder / name).write_text(text)


def run_pytest(folder):
    """Run pytest there; (exit code, output)."""
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "--strict-markers", "-p", "no:cacheprovider"]
    others = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
    run = subprocess.run(
        [*command, f"--rootdir={folder}", str(folder)],
        capture_output=True, text=True, check=False, cwd=folder, env=os.environ | others,
    )  # fmt: skip
    return run.returncode, run.stdout + run.stderr


def test_files_outside_the_repository_prove_themselves(tmp_path):
    write_own_files(tmp_path)
    code, output = run_pytest(tmp_path)
    assert code == 0, output
    assert "warning" not in output


def test_broken_files_fail_the_test_of_what_is_broken(tmp_path):
    write_own_files(tmp_path)
    for file, old, new, _ in BROKEN.values():
        text = (tmp_path / file).read_text()
        assert text.count(old) == 1
        (tmp_path / file).write_text(text.replace(old, new))
    code, output = run_pytest(tmp_path)
    assert code == 1, output
    failed = set(re.findall(r"^FAILED \S+?::\w+::(\w+)", output, re.MULTILINE))
    for what, (*_, tests) in BROKEN.items():
        assert tests <= failed, f"{what}: {failed}"
    assert "no gradient reaches idle; use these parameters in a loss, or freeze them" in output
    assert "ids are lost, changed or in another order" in output
    assert "the feature rgb depends on windows that are not present" in output


def load(tmp_path, monkeypatch, name, text):
    (tmp_path / f"{name}.py").write_text(text)
    spec = importlib.util.spec_from_file_location(f"contributing_{name}", tmp_path / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_the_extractor_gives_the_mean_colour(tmp_path, monkeypatch):
    module = load(tmp_path, monkeypatch, "mean_colour", EXTRACTOR)
    extractor = module.EXTRACTOR(module.Params())
    window = [np.full((4, 6, 3), (0, 51, 255), np.uint8), np.zeros((4, 6, 3), np.uint8)] * 2
    np.testing.assert_allclose(extractor(extractor.prepare(window)[None]), [[0, 0.1, 0.5]])


def test_the_method_makes_the_target_certain(tmp_path, monkeypatch):
    module = load(tmp_path, monkeypatch, "entropy", METHOD)
    sides = ("source", "target")
    log = train(build(module, SPEC, sides), SPEC, sides, steps=20)
    assert log[-1]["L_ent"] < log[0]["L_ent"]
