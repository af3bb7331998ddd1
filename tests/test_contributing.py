"""The files that CONTRIBUTING.md shows are complete: they pass the linter and the contract of their folder."""

import importlib.util
import inspect
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.featcache import test_extractor_contract as extractor_contract
from tests.heads import test_method_contract as method_contract
from tests.helpers.problems import SPEC, of

EXTRACTOR, METHOD = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
FILES = {"featcache/extractors/mean_colour.py": EXTRACTOR, "heads/methods/entropy.py": METHOD}


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("command", [("check",), ("format", "--diff")], ids=lambda command: command[0])
def test_the_linter_has_nothing_to_say(path, command):
    """As if the block lay at `path`."""
    ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--stdin-filename", path, "-"]
    run = subprocess.run(ruff, input=FILES[path], capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr


def load(tmp_path, monkeypatch, name, text):
    (tmp_path / f"{name}.py").write_text(text)
    spec = importlib.util.spec_from_file_location(f"contributing_{name}", tmp_path / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where inspect looks for a class's source
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "promise",
    [
        extractor_contract.test_rows_are_finite_float32_of_the_promised_shape,
        extractor_contract.test_rows_are_of_order_one_and_tell_windows_apart,
        extractor_contract.test_rows_do_not_depend_on_the_batch,
        extractor_contract.test_prepare_is_reentrant,
    ],
    ids=lambda test: test.__name__,
)
def test_the_extractor_keeps_the_contract(tmp_path, monkeypatch, promise):
    module = load(tmp_path, monkeypatch, "mean_colour", EXTRACTOR)
    extractor = module.EXTRACTOR(module.Params())
    windows = [extractor_contract.raw_window(extractor.window, seed) for seed in range(7)]
    prepared = np.stack([extractor.prepare(window) for window in windows])
    given = {"extractor": extractor, "prepared": prepared, "rows": extractor(prepared)}
    promise(*(given[name] for name in inspect.signature(promise).parameters))


def test_the_extractor_gives_the_mean_colour(tmp_path, monkeypatch):
    module = load(tmp_path, monkeypatch, "mean_colour", EXTRACTOR)
    extractor = module.EXTRACTOR(module.Params())
    window = [np.full((4, 6, 3), (0, 51, 255), np.uint8), np.zeros((4, 6, 3), np.uint8)] * 2
    np.testing.assert_allclose(extractor(extractor.prepare(window)[None]), [[0, 0.1, 0.5]])


def test_the_method_follows_the_layout(tmp_path, monkeypatch):
    method_contract.test_files_follow_the_layout(load(tmp_path, monkeypatch, "entropy", METHOD))


@pytest.mark.parametrize(
    "promise",
    [
        method_contract.test_terms_are_finite_scalars,
        method_contract.test_every_parameter_gets_a_gradient,
        method_contract.test_same_seed_same_log,
        method_contract.test_state_dict_round_trip,
        method_contract.test_labels_of_the_target_are_not_asked_for,
        method_contract.test_missing_labels_of_the_source_are_named,
        method_contract.test_a_batch_of_one_and_rows_without_a_modality,
        method_contract.test_shapes_do_not_depend_on_values,
    ],
    ids=lambda test: test.__name__,
)
@pytest.mark.parametrize("spec", of("classification").values(), ids=of("classification"))
def test_the_method_keeps_the_contract(tmp_path, monkeypatch, promise, spec):
    promise(load(tmp_path, monkeypatch, "entropy", METHOD), spec, ("source", "target"))


def test_the_method_makes_the_target_certain(tmp_path, monkeypatch):
    module = load(tmp_path, monkeypatch, "entropy", METHOD)
    sides = ("source", "target")
    log = method_contract.train(method_contract.build(module, SPEC, sides), SPEC, sides, steps=20)
    assert log[-1]["L_ent"] < log[0]["L_ent"]
