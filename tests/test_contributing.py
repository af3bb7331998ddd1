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

EXTRACTOR, METHOD, _, PROOF = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
FILES = {
    "featcache/extractors/mean_colour.py": EXTRACTOR,
    "heads/methods/entropy.py": METHOD,
    "featcache/testing/test_proof.py": PROOF,
}
NET_AND_BRIDGE = """
import json_rows
import linear
from featcache.testing import BridgeTests, NetTests

class TestLinear(NetTests):
    module = linear

class TestJsonRows(BridgeTests):
    module = json_rows
"""
BROKEN = """
import broken_entropy
import broken_json_rows
import broken_linear
import broken_mean_colour
from featcache.testing import BridgeTests, ExtractorTests, MethodTests, NetTests

class TestRowsThatDependOnTheirBatch(ExtractorTests):
    module = broken_mean_colour

class TestAParameterThatNothingTrains(MethodTests):
    module = broken_entropy
    compares_sides = False

class TestANetThatIgnoresPresent(NetTests):
    module = broken_linear

class TestABridgeThatLosesIds(BridgeTests):
    module = broken_json_rows
"""
CHANGES = {  #: file -> what breaks it
    "mean_colour.py": [
        ("return windows.astype(np.float32)", "return (windows - windows.mean(0) / 9).astype(np.float32)"),
        ('name = "mean-colour"', 'name = "broken-mean-colour"'),
    ],
    "entropy.py": [
        (
            '    needs = ("source", "target")\n',
            '    needs = ("source", "target")\n\n    def __init__(self, params, spec, net):\n'
            "        super().__init__(params, spec, net)\n        self.idle = torch.nn.Parameter(torch.zeros(3))\n",
        )
    ],
    "linear.py": [("side.pool(m).flatten(1)) * side.has(m)[:, None]", "side.x[m].mean(1).flatten(1))")],
    "json_rows.py": [("clip[0] for clip in clips", "str(k) for k in range(len(clips))")],
}
FAILURES = {  #: class -> tests that fail
    "TestRowsThatDependOnTheirBatch": {"test_rows_do_not_depend_on_the_batch"},
    "TestAParameterThatNothingTrains": {"test_every_parameter_gets_a_gradient"},
    "TestANetThatIgnoresPresent": {"test_windows_that_are_not_present_are_not_read"},
    "TestABridgeThatLosesIds": {"test_one_key_comes_back_in_the_order_of_the_file", "test_ids"},
}


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("command", [("check",), ("format", "--diff")], ids=lambda command: command[0])
def test_the_linter_has_nothing_to_say(path, command):
    """The linter reads each block under the name of its file."""
    ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--stdin-filename", path, "-"]
    run = subprocess.run(ruff, input=FILES[path], capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """The output of pytest in a folder outside the repository: four files, a broken copy of each, and their tests."""
    folder = tmp_path_factory.mktemp("outside")
    files = {"mean_colour.py": EXTRACTOR, "entropy.py": METHOD}
    files |= {name: (ROOT / "tests" / "data" / name).read_text() for name in ("linear.py", "json_rows.py")}
    for name, text in files.items():
        (folder / name).write_text(text)
        for old, new in CHANGES[name]:
            assert text.count(old) == 1
            text = text.replace(old, new)
        (folder / f"broken_{name}").write_text(text)
    for name, text in {"proof": PROOF, "net_and_bridge": NET_AND_BRIDGE, "broken": BROKEN}.items():
        (folder / f"test_{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-rfp", "--strict-markers", f"--rootdir={folder}", str(folder)]
    settings = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "300"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=settings).stdout


def outcomes_by_class(outcome, output):
    """{file: {class: names of its tests with this outcome, PASSED or FAILED}}."""
    tests = {}
    for file, owner, name in re.findall(rf"^{outcome} (\S+?)::(\w+)::(\w+)", output, re.MULTILINE):
        tests.setdefault(file, {}).setdefault(owner, set()).add(name)
    return tests


@pytest.mark.slow
def test_files_outside_the_repository_prove_themselves(outside):
    passed, failed = outcomes_by_class("PASSED", outside), outcomes_by_class("FAILED", outside)
    assert failed.keys() == {"test_broken.py"}, outside
    proved = passed["test_proof.py"] | passed["test_net_and_bridge.py"]
    assert proved.keys() == {"TestMeanColour", "TestEntropy", "TestLinear", "TestJsonRows"}
    assert min(map(len, proved.values())) >= 7
    assert "error" not in outside.splitlines()[-1]
    assert "warning" not in outside.splitlines()[-1]


@pytest.mark.slow
def test_broken_files_fail_the_test_of_what_is_broken(outside):
    failed = outcomes_by_class("FAILED", outside)["test_broken.py"]
    assert failed.keys() == FAILURES.keys()
    for owner, names in FAILURES.items():
        assert names <= failed[owner]
        assert len(failed[owner]) == 1 or owner == "TestABridgeThatLosesIds"  # most of its tests compare ids
    assert "no gradient reaches idle; use these parameters in a loss, or freeze them" in outside
    assert "ids are lost, changed or in another order" in outside
    assert "the feature rgb depends on windows that are not present" in outside
    assert "a row differs in a batch of one" in outside


def test_without_pytest_the_error_names_the_fix():
    code = "import sys; sys.modules['pytest'] = None; import featcache.testing"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "the contract tests need pytest; install it with: pip install pytest" in run.stderr


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
    log = train(build(module, SPEC, sides, params={"lambda_ent": 5.0}), SPEC, sides, steps=20)
    assert log[-1]["L_ent"] < log[0]["L_ent"]
