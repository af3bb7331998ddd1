"""The outputs, weights, facts and settings of a run that do not fit each other are refused, before memory is taken."""

import contextlib
import json
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open

from featcache import registry
from featcache.errors import ConfigError
from featcache.files import file_sha256
from heads import methods
from heads.testing.problems import net_for, side, small, specs_for
from pipelines.config import RunConfig
from pipelines.evaluation.evaluate import evaluate
from pipelines.training.kept import loaded, write_weights
from pipelines.training.runs import Run, files_of, out_of_date
from pipelines.training.train import train
from tests.helpers import fuzz
from tests.helpers.stores import run, write_all
from tests.helpers.weights import EARLIER, HEAD, as_earlier, saved


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    base = tmp_path_factory.mktemp("kept")
    write_all(base / "stores")
    return train(run(steps=6, eval_every=3, keep=2), base / "stores", base / "runs")


@pytest.fixture
def folder(finished, tmp_path):
    """A run without SHA256SUMS, like those of earlier versions: whoever edits a run can write its sums again."""
    copy = shutil.copytree(finished, tmp_path / finished.name)
    (copy / "SHA256SUMS").unlink()
    return copy


OUTPUTS = {
    "no rows": ({"rows": None}, "no rows"),
    "no label": ({"label": None}, "no label"),
    "rows as text": ({"rows": lambda a: a.astype(str)}, "'rows' holds <U"),
    "rows as numbers with a point": ({"rows": lambda a: a.astype(float)}, "'rows' holds float64"),
    "rows of two axes": ({"rows": lambda a: a[None]}, r"'rows' holds int64 \(1, 6\)"),
    "no row": ({"rows": lambda a: a[:0]}, r"'rows' holds int64 \(0,\)"),
    "negative rows": ({"rows": lambda a: a - 100}, "numbers from -"),
    "fewer rows": ({"rows": lambda a: a[:-1]}, r"'label' holds .*\(2, 5, 3\)"),
    "fewer points": ({"label": lambda a: a[:1]}, r"'label' holds .*\(1, 6, 3\).*\(2, 6, 3\)"),
    "other classes": ({"label": lambda a: a[..., :2]}, r"\(2, 6, 2\)"),
    "objects": ({"label": lambda a: a.astype(object)}, "label.*objects"),
    "integers": ({"label": lambda a: a.astype(int)}, "'label' holds int64"),
    "NaN": ({"label": lambda a: a * np.nan}, "'label' .*not finite"),
    "inf": ({"label": lambda a: a + np.inf}, "'label' .*not finite"),
    "a scalar": ({"label": lambda a: a[0, 0, 0]}, r"'label' holds float32 \(\)"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_that_do_not_fit(name, folder):
    changes, words = OUTPUTS[name]
    with np.load(folder / "outputs.npz") as file:
        outputs = dict(file)
    for key, change in changes.items():
        outputs[key] = change(outputs[key]) if change else None
    np.savez(folder / "outputs.npz", **{key: array for key, array in outputs.items() if array is not None})
    with pytest.raises(ConfigError, match=rf"outputs.npz is damaged .*{words}.*train the run again"):
        _ = Run.open(folder).outputs


def test_compressed_outputs_are_not_ours(folder):
    with np.load(folder / "outputs.npz") as file:
        np.savez_compressed(folder / "outputs.npz", **dict(file))
    with pytest.raises(ConfigError, match=r"outputs.npz is damaged .*compressed"):
        _ = Run.open(folder).outputs


def test_rows_outside_the_manifest(finished, folder):
    with np.load(folder / "outputs.npz") as file:
        outputs = dict(file)
    np.savez(folder / "outputs.npz", **outputs | {"rows": outputs["rows"] + 1000})
    with pytest.raises(ConfigError, match=r"outputs.npz has row 10\d\d, but manifest 'toy' has 36"):
        evaluate(folder, finished.parents[1] / "stores")


OF_EARLIER = {  #: what no safetensors can hold
    "a list": (lambda weights, name: [weights], "holds a list"),
    "text": (lambda weights, name: weights | {name: "text"}, "no dense tensor"),
    "sparse": (lambda weights, name: weights | {name: weights[name].to_sparse()}, "no dense tensor"),
    "meta": (lambda weights, name: weights | {name: torch.empty(10**9, device="meta")}, "no dense tensor"),
}
WEIGHTS = {
    "shape": (lambda weights, name: weights | {name: weights[name][:1]}, r"\(1, 8\)"),
    "whole numbers": (lambda weights, name: weights | {name: weights[name].long()}, "int64"),
    "NaN": (lambda weights, name: weights | {name: weights[name] * torch.nan}, "not finite"),
    "one more": (lambda weights, name: weights | {"more": weights[name]}, "differ in more"),
    "none": (lambda weights, name: {}, "differ in|layers"),
}


@pytest.mark.parametrize("name", OF_EARLIER | WEIGHTS)
def test_weights_of_an_earlier_version_that_do_not_fit(name, finished, tmp_path):
    folder = as_earlier(shutil.copytree(finished, tmp_path / finished.name))
    change, words = (OF_EARLIER | WEIGHTS)[name]
    weights = torch.load(folder / EARLIER, weights_only=True)
    torch.save(change(weights, square(weights)), folder / EARLIER)
    with pytest.raises(ConfigError, match=rf"head.pt is damaged .*{words}.*train the run again"):
        Run.open(folder).method()


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_do_not_fit(name, folder):
    change, words = WEIGHTS[name]
    weights = saved(folder)
    write_weights(change(weights, square(weights)), folder)
    with pytest.raises(ConfigError, match=rf"head.safetensors is damaged .*{words}.*train the run again"):
        Run.open(folder).method()


def square(weights):
    """The name of the weights of shape (8, 8)."""
    (name,) = [key for key, value in weights.items() if value.shape == (8, 8)]
    return name


def test_an_earlier_version_saved_weights_with_torch(finished, tmp_path):
    """Such a run opens, predicts, is evaluated, begins a second stage, and is trained again into the new format."""
    runs, stores = tmp_path / "runs", finished.parents[1] / "stores"
    folder = as_earlier(shutil.copytree(finished, runs / finished.name))
    old, new = Run.open(folder), Run.open(finished)
    assert all(torch.equal(new.weights[0][name], value) for name, value in old.weights[0].items())
    assert len(old.weights[0]) == len(new.weights[0])
    assert [result.value for result in evaluate(folder, stores)] == [r.value for r in evaluate(finished, stores)]
    second = Run.open(train(run(seed=1, steps=2, init_from=folder.name), stores, runs))
    assert not out_of_date(folder, old.facts.read)
    assert second.facts.read["init_from"] == file_sha256(folder / EARLIER)
    (folder / EARLIER).write_bytes(b"")
    assert sorted(os.listdir(train(old.config, stores, runs))) == ["SHA256SUMS", *sorted(files_of(finished))]
    assert HEAD in files_of(folder)


def test_safetensors_are_read_by_other_tools(finished):
    """And hold nothing else than numbers."""
    with safe_open(finished / HEAD, "np") as file:
        assert set(file.keys()) == set(saved(finished))


@pytest.mark.parametrize(
    ("file", "place", "value", "words"),
    [
        ("config.json", ("net", "dim"), 10**15, "head.safetensors.*10000000"),
        ("config.json", ("net", "dim"), 2**62, HEAD),
        ("config.json", ("net",), {"name": "mtran", "layers": 10**9, "dim": 8}, "more layers"),
        ("config.json", ("steps",), 10**15, "log.jsonl.* 6 of 10000"),
        ("config.json", ("keep",), 1, "2 points.*1"),
        ("config.json", ("eval_every",), 10**17, "keep=2"),
        ("config.json", ("net", "dim"), "8", "net.dim: '8' is not a whole number"),
        ("config.json", ("feeds", "rgb", "train"), "random:" + "9" * 5000, "feeds.rgb.train"),
        ("config.json", ("optim", "lr"), float("nan"), "optim.lr=nan"),
        ("run.json", ("spec", "shapes", "rgb"), [10**12], HEAD),
        ("run.json", ("spec", "shapes", "rgb"), [-1], HEAD),
        ("run.json", ("spec", "shapes"), {"rgb": [8]}, HEAD),
        ("run.json", ("spec", "classes"), {"label": 10**9}, "head.safetensors|outputs"),
        ("run.json", ("spec", "classes"), {}, "spec.classes is empty"),
        ("run.json", ("points",), [], "0 points"),
        ("run.json", ("points",), [1, 2], r"points\[0\]: 1 is not a group"),
        ("run.json", ("points", 0, "step"), float("nan"), "step.* nan"),
        ("run.json", ("points", 1, "step"), float("inf"), "step.* inf"),
        ("run.json", ("points", 1), {}, "step.* nan"),
        ("run.json", ("points", 1, "step"), 1.5, r"step.* 1\.5"),
        ("run.json", ("read",), {"manifest": 1}, "read.manifest: 1 is not text"),
        ("run.json", ("untrained",), "rgb", "untrained: 'rgb' is not a list"),
        ("run.json", ("note",), None, "note: None is not text"),
    ],
)
def test_settings_and_facts_that_do_not_fit(file, place, value, words, folder):
    content = json.loads((folder / file).read_text())
    part = content
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    (folder / file).write_text(json.dumps(content))
    if file == "config.json":
        with contextlib.suppress(ConfigError):  # a configuration that cannot be read has no id
            folder = folder.rename(folder.with_name(RunConfig.from_json(content).id))
    with fuzz.limited(), pytest.raises(ConfigError, match=words):
        Run.open(folder).method()


def test_a_log_that_is_no_log(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    (folder / "log.jsonl").write_text("\n".join(['{"step": "0"}', *lines[1:]]) + "\n")
    with pytest.raises(ConfigError, match=r"log.jsonl is damaged \(line 1: step: '0' is not a number"):
        Run.open(folder).log()


def test_a_run_of_an_older_version_still_opens(folder):
    """Its facts lack those that were added later, and a newer version may have added some."""
    facts = json.loads((folder / "run.json").read_text())
    for name in ("features", "classes", "versions", "device", "tier", "tier_why", "seconds", "date", "host"):
        del facts[name]
    for name in ("domains", "captions", "clusters"):
        del facts["spec"][name]
    (folder / "run.json").write_text(json.dumps(facts | {"added": [1]}))
    made = Run.open(folder)
    assert made.facts.tier == ""
    assert made.facts.spec.domains == ()
    assert set(made.method().state_dict()) == set(made.weights[0])


def test_the_keys_of_run_json(folder):
    facts = json.loads((folder / "run.json").read_text())
    keys = "read note recipes features classes untrained collapsed one_class points versions device tier tier_why"
    assert list(facts) == [*keys.split(), "seconds", "date", "host", "spec"]
    assert facts["spec"]["shapes"] == {"rgb": [8], "flow": [6]}


FITTED = ("label_propagation", "logistic_regression", "nearest_mean")  #: methods with equal weights before an epoch


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:method.:UserWarning")  # so few rows to find prototypes in
@pytest.mark.parametrize("name", [name for name in registry.names(methods) if name != "joints"])
def test_a_method_with_the_weights_of_another_run_is_that_run(name):
    """`evaluate_all` builds one method for all runs of equal settings; nothing of the run before may stay."""
    module = registry.load(methods, name, "method")

    def built(spec, seed):
        torch.manual_seed(seed)
        return module.METHOD(module.Params(**small(module)), spec, net_for(module, spec)).eval()

    for spec in specs_for(module.METHOD.tasks).values():
        first, second, fresh = (built(spec, seed) for seed in (1, 2, 3))
        rows = side(spec, labelled=False)
        with torch.no_grad():
            before = {name: out.clone() for name, out in first.predict(rows).items()}
            loaded(fresh, second.state_dict())
            loaded(first, second.state_dict())
            for kind in ("predict", "features"):
                expected, found = getattr(fresh, kind)(rows), getattr(first, kind)(rows)
                assert expected.keys() == found.keys()
                assert all(torch.equal(expected[name], found[name]) for name in expected)
            if name not in FITTED:
                assert any(not torch.equal(before[name], out) for name, out in first.predict(rows).items())
