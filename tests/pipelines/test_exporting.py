"""Exported heads: called by a process without featcache, they return what the run has kept of its test clips."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from featcache import registry
from featcache.errors import ConfigError, FormatError
from featcache.store import FeatureStore
from heads import methods, nets
from heads.nets import adapter, ce, cogbeacon, gated, mmt, mtran, stgcn, trn
from pipelines.cli import main
from pipelines.config import Feed, Preparation
from pipelines.exporting import formats
from pipelines.exporting.export import compared, export_head, note_of, stored
from pipelines.exporting.head import Input, inputs, taken
from pipelines.training.runs import NotTrainedError, Run
from tests.conftest import ROOT
from tests.helpers import heads, stores

ROUNDING = 1e-5  #: of the largest output: onnxruntime sums in another order than torch, and so do other numbers of rows
WHOLE = 10**6  #: rows of a batch: all
EXTRA = "ONNX is in the extra `onnx`"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return heads.write_all(tmp_path_factory.mktemp("stores"))


def check(configs, folder, base, endings):
    """Train, export, call without featcache, and compare; return what was exported."""
    cases, exported = [], []
    for k, config in enumerate(configs):
        made = Run.open(heads.trained(config, folder, base / "runs"))
        for ending in endings:
            exported.append(export_head(made.folder, base / f"head{k}{ending}", folder))
            cases.append((exported[-1].path, made, made.opened(folder), (WHOLE, 1, 5)))
    for (path, made, _, sizes), found in zip(cases, heads.alone(cases, base), strict=True):
        for size in sizes:
            for name, value in found[size].items():
                kept = made.outputs[name][-1][:size]
                place = f"{made.config.id}, {path.suffix}: {name} of {size} rows"
                assert value.shape == kept.shape, place
                if path.suffix == ".pt2" and size == WHOLE and not averages(made):
                    assert np.array_equal(value, kept), place
                same = value == kept  # also -inf
                limit = bound(made) * max(1, np.abs(kept[np.isfinite(kept)]).max())
                assert np.abs(np.where(same, 0, value - np.where(same, value, kept))).max() <= limit, place
    return exported


def bound(made):
    """bfloat16 has 8 bits."""
    return 1e-2 if getattr(made.config.net, "precision", "") == "bfloat16" else ROUNDING


def averages(made):
    """The logarithm of a mean over windows is taken of all rows at once by a run, and of a batch by a file."""
    return any(feed.test == "each" for feed in made.config.feeds.values())


PLAIN = heads.run("source_only")
RGB, FLOW = PLAIN.feeds["rgb"], PLAIN.feeds["flow"]
WAYS = {  #: draws, masks and preparations -> changes of a run
    "mean": {"feeds": {"rgb": Feed("hog", test="mean"), "flow": FLOW}},
    "segments": {"feeds": {"rgb": Feed("hog", train="segments:2", test="segments:2"), "flow": FLOW}},
    "each": {"feeds": {"rgb": Feed("hog", test="each"), "flow": Feed("hof", test="each")}},
    "one feed tested": {"feeds": {"rgb": RGB, "flow": Feed("hof", seen_by="source target")}},
    "units of the source": {"preparation": Preparation("length", "source")},
    "units of an unseen domain": {"preparation": Preparation("sum", "domain")},
    "bfloat16": {"net": mtran.Params(dim=8, layers=1, precision="bfloat16")},
    "standardised by the net": {"net": adapter.Params(dim=8, standardise=True, batch_norm=True)},
}
RAGGED = {  #: the same on float16 rows of one to three windows, some of which lack a modality
    "mask": {"absent": "mask"},
    "mask and each": {"absent": "mask", "feeds": {"rgb": Feed("hog", test="each"), "flow": FLOW}},
    "mask and mean": {"absent": "mask", "feeds": {"rgb": Feed("hog", train="mean", test="mean"), "flow": FLOW}},
    "drop and segments": {
        "absent": "drop",
        "feeds": {m: Feed(feed.store, train="mean", test="segments:2") for m, feed in PLAIN.feeds.items()},
        "preparation": Preparation("length", "source"),
    },
}
NETS = {
    "adapter": {},
    "cogbeacon": {"net": cogbeacon.Params(dim=8)},
    "mtran": {"net": mtran.Params(dim=8, layers=2)},
    "trn": {"net": trn.Params(dim=8, frame_dim=8, relation_dim=8)},
    "gated": {"task": "retrieval", "net": gated.Params(dim=8)},
    "ce": {"task": "retrieval", "net": ce.Params(dim=8, text="netvlad", clusters=2)},
    "mmt": {"task": "retrieval", "net": mmt.Params(dim=8, layers=1, ff_dim=8)},
    "stgcn": {"method": "codt", "net": stgcn.Params(width=2, dim=8, kernel=3)},
}


@pytest.mark.slow
def test_heads_return_what_their_runs_keep(folder, tmp_path):
    """A few; the slow test takes all."""
    check([heads.run("source_only", **WAYS["each"])], folder, tmp_path, [".pt2"])


@pytest.mark.slow
def test_every_draw_preparation_and_mask(folder, tmp_path):
    changes = [*WAYS.values(), *(each | {"manifest": "ragged"} for each in RAGGED.values())]
    layers = heads.run("adabn", net=adapter.Params(dim=8, batch_norm=True))
    check([layers, *(heads.run("source_only", **each) for each in changes)], folder, tmp_path, [".pt2"])


@pytest.mark.slow
def test_rows_may_be_longer_where_they_differ(folder, tmp_path):
    """Rows with two more windows that are not there have the same outputs; with two that are there, others.

    An ONNX file is made of what a file .pt2 contains.
    """
    pytest.importorskip("onnxruntime", reason=EXTRA)
    run = Run.open(heads.trained(heads.run("source_only", manifest="ragged", absent="mask"), folder, tmp_path / "runs"))
    exported = export_head(run.folder, tmp_path / "head.onnx", folder)
    assert exported.facts["inputs"]["rgb"]["shape"] == ["clips", "3 or more", 8]
    predict = formats.read_onnx(exported.path.read_bytes())
    rows = run.outputs["rows"]
    features = stored(run, run.opened(folder), inputs(run, run.opened(folder)), {"rows": rows})
    longer = {m: np.concatenate([x, np.ones_like(x[:, :2]) * (x.dtype != bool)], 1) for m, x in features.items()}
    kept = run.outputs["label"][-1]
    assert np.abs(predict(longer)["label"] - kept).max() < ROUNDING
    assert str(ROOT).encode() not in exported.path.read_bytes()
    longer["rgb.present"][:] = True
    assert np.abs(predict(longer)["label"] - kept).min(1).max() > ROUNDING


@pytest.mark.slow
def test_clips_need_no_captions_and_captions_no_clips(folder, tmp_path):
    pytest.importorskip("onnxruntime", reason=EXTRA)
    run = Run.open(heads.trained(heads.run("source_only", "retrieval"), folder, tmp_path / "runs"))
    exported = export_head(run.folder, tmp_path / "head.onnx", folder)
    predict = formats.read_onnx(exported.path.read_bytes())
    opened, shapes = run.opened(folder), {name: each["shape"] for name, each in exported.facts["inputs"].items()}
    features = stored(run, opened, inputs(run, opened), {name: run.outputs[name] for name in ("rows", "captions")})
    for kind, name in (("clips", "visual"), ("captions", "text")):
        found = predict({m: x if shapes[m][0] == kind else x[:0] for m, x in features.items()})
        assert {out: len(value) for out, value in found.items()} == {"visual": 0, "text": 0, name: len(found[name])}
        assert np.abs(found[name] - run.outputs[name][-1]).max() < ROUNDING


@pytest.mark.slow
def test_every_net_in_both_formats(folder, tmp_path):
    pytest.importorskip("onnxruntime", reason=EXTRA)
    assert NETS.keys() == set(registry.names(nets))
    configs = [heads.run(**{"method": "source_only", "absent": "mask", **changes}) for changes in NETS.values()]
    check(configs, folder, tmp_path, [".pt2", ".onnx"])
    narrow = heads.trained(heads.run("source_only", **WAYS["bfloat16"]), folder, tmp_path / "runs")
    with pytest.raises(ConfigError, match=r"net mtran.*onnxruntime.*\.pt2"):
        export_head(narrow, tmp_path / "narrow.onnx", folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:method.:UserWarning")  # so few rows to find prototypes in
def test_every_method(folder, tmp_path):
    check(map(heads.run, registry.names(methods)), folder, tmp_path, [".pt2"])


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    return heads.trained(heads.run("dann", row="DANN"), folder, tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
def test_the_command_prints_the_facts_that_the_file_has(made, folder, tmp_path):
    words = ["export-head", made.name, str(tmp_path / "head.pt2"), "--stores", str(folder), "--runs", str(made.parent)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    extra = {formats.FACTS: ""}
    program = torch.export.load(tmp_path / "head.pt2", extra_files=extra)
    facts = json.loads(extra[formats.FACTS])
    assert facts == json.loads(result.stdout)
    assert facts["run"] == made.name
    assert (facts["row"], facts["task"], facts["method"], facts["net"]) == ("DANN", "classification", "dann", "adapter")
    assert (facts["fidelity"], facts["source"], facts["domain"]) == ("adapter", ["day"], "night")
    assert facts["classes"] == {"label": ["chop", "peel", "stir"]}
    assert {name: each["shape"] for name, each in facts["inputs"].items()} == {
        "rgb": ["clips", 3, 8],
        "flow": ["clips", 3, 6],
    }
    assert facts["inputs"]["rgb"]["recipe"] == FeatureStore.open(folder / "toy" / "hog.zarr").recipe
    assert facts["outputs"]["label"]["shape"] == ["clips", 3]
    assert "6 test clips" in result.stderr
    assert list(program.state_dict)
    assert not [name for name in program.state_dict if ".D" in name], "no output depends on a discriminator"
    assert str(ROOT).encode() not in (tmp_path / "head.pt2").read_bytes()
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr


@pytest.mark.slow
def test_what_cannot_be_exported_is_refused(made, folder, tmp_path, monkeypatch):
    def refused(match, out="head.pt2", run=made):
        with pytest.raises(ConfigError, match=match):
            export_head(run, tmp_path / out, folder)
        assert not list(tmp_path.iterdir())

    refused("'.onx'.*.pt2.*.onnx", "head.onx")
    refused("no finished run", run=made.parent / "other")
    monkeypatch.setattr(adapter.Adapter, "outputs", of_others)
    refused("method dann, net adapter.*other clips")
    monkeypatch.setattr(adapter.Adapter, "outputs", decides)
    refused("method dann, net adapter.*torch.export")


def of_others(self, f):
    """Scores relative to those of the other rows."""
    return {name: z - z.mean(0) for name, z in self.classify(f).items()}


def decides(self, f):
    """Scores that Python chooses by their values."""
    z = self.classify(f)
    return z if float(z["label"].sum()) > 0 else {name: -value for name, value in z.items()}


def test_a_choice_among_points_is_a_note(folder, tmp_path):
    run = heads.run("source_only", steps=4, eval_every=2, keep=2, select="mean")
    note = note_of(Run.open(heads.trained(run, folder, tmp_path / "runs")))
    assert "select=mean" in note
    assert "step 4" in note


@pytest.mark.parametrize(
    ("out", "words"),
    [("folder.pt2", "is a folder"), ("there.pt2", "exists.*--overwrite"), ("file/head.pt2", "file is a file")],
)
def test_a_place_that_cannot_be_written_is_named_before_the_work(out, words, made, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.exporting.export.traced", None)
    (tmp_path / "folder.pt2").mkdir()
    for name in ("there.pt2", "file"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(FormatError, match=words):
        export_head(made, tmp_path / out, folder, overwrite=out == "folder.pt2")


def test_a_run_is_found_as_predict_finds_it(made, folder, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=f"is a folder of runs; name one of them: {made.name}"):
        export_head(made.parent, tmp_path / "head.pt2", folder)
    with pytest.raises(ConfigError, match=f"'toy' in {tmp_path}.*--stores"):
        export_head(made, tmp_path / "head.pt2", tmp_path)
    other = stores.write_all(tmp_path / "stores", weights="0" * 64)
    with pytest.raises(NotTrainedError, match=r"changed.*its own toy/hog.zarr, toy/hof.zarr with --stores"):
        export_head(made, tmp_path / "head.pt2", other)


def test_a_written_head_differs_by_rounding_only(made, folder, monkeypatch):
    """More on another device than that of the run."""
    run = Run.open(made)
    opened = run.opened(folder)
    taken = inputs(run, opened)
    kept, place = run.outputs["label"][-1], {"rows": run.outputs["rows"]}
    everything = next(iter(stored(run, opened, taken, place).values()))

    def off_by(share):
        def predict(features):
            rows = [int(np.flatnonzero((everything == x).all((1, 2)))[0]) for x in next(iter(features.values()))]
            return {"label": kept[rows] + np.float32(share * max(1, np.abs(kept).max()))}

        return predict

    assert compared(off_by(0), run, opened, taken) == (len(kept), 0)
    compared(off_by(5e-5), run, opened, taken)
    with pytest.raises(ConfigError, match="differ.*0.005"):
        compared(off_by(5e-3), run, opened, taken)
    elsewhere = dataclasses.replace(run, facts=dataclasses.replace(run.facts, device="cuda"))
    compared(off_by(5e-3), elsewhere, opened, taken)
    with pytest.raises(ConfigError, match="differ.*0.02.*cuda"):
        compared(off_by(2e-2), elsewhere, opened, taken)


def test_onnx_without_its_extra_names_it(made, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"onnx .*featcache\[onnx\]"):
        export_head(made, tmp_path / "head.onnx", folder)


@pytest.mark.slow
def test_lengths_of_python_are_traced_strictly():
    """`len(tensor)` is a number for torch.export, unless it reads the code itself."""

    class Ones(nn.Module):
        def forward(self, features):
            return {"y": features["x"] * torch.ones(len(features["x"]), 1)}

    program, _ = formats.traced(Ones(), {"x": Input(torch.float32, (2,), "clips")})
    assert program.module()({"x": torch.arange(10.0).reshape(5, 2)})["y"].tolist() == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
        [8, 9],
    ]


def test_the_windows_of_a_draw():
    x = torch.arange(1.0, 9.0).reshape(2, 4, 1)
    present = torch.tensor([[True, True, True, True], [True, True, False, False]])
    for draw, mask, expected in (
        ("all", None, [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ("all", present, [[1, 2, 3, 4], [5, 6, 0, 0]]),
        ("mean", present, [[2.5], [5.5]]),
        ("segments:2", None, [[2, 4], [6, 8]]),
        ("segments:2", present, [[2, 4], [5, 6]]),
    ):
        windows, exists = taken(draw, x, mask)
        assert windows[:, :, 0].tolist() == expected, draw
        assert exists.tolist() == [[value > 0 for value in row] for row in expected]
