"""One preparation of features for every net and method: what reads it, what it may see, and how runs keep it."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from featcache.errors import ConfigError
from featcache.manifest import Clip, Manifest
from featcache.store import StoreWriter
from heads.methods import adabn, rna, shot, source_only
from heads.nets import adapter, mtran, trn
from pipelines import experiments
from pipelines.cli import main
from pipelines.config import Feed, Preparation, RunConfig, override
from pipelines.data.draws import batches, draws
from pipelines.data.opening import Opened, open_run
from pipelines.evaluation.evaluate import evaluate
from pipelines.experiments import Experiment
from pipelines.tables.build import render
from pipelines.training.outputs import outputs
from pipelines.training.runs import Run
from pipelines.training.train import copy_weights, train
from tests.helpers import caption_stores, skeleton_stores
from tests.helpers.stores import manifest, run, write_all

SOURCE, DOMAIN = Preparation(units="source"), Preparation(units="domain")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"))


def measured(config, stores, **options):
    opened = open_run(config, stores, **options)
    opened.measure()
    return opened


def everything(rows):
    """Modality -> all windows of these rows (n, D)."""
    sides = list(rows.sweep())
    return {m: torch.cat([side.x[m].flatten(0, 1) for side in sides]) for m in sides[0].x}


# ------------------------------------------------------------------------------------------------------------- settings


def test_runs_without_a_preparation_are_written_as_before_there_was_one():
    """So their ids are the same, and configurations of old runs open."""
    assert "preparation" not in run().to_json()
    prepared = override(run(), "preparation.units=domain", "preparation.rows=sum")
    assert prepared.to_json()["preparation"] == {"rows": "sum", "units": "domain"}
    assert RunConfig.from_json(json.loads(json.dumps(prepared.to_json()))) == prepared
    assert prepared.id != run().id
    assert override(prepared, "preparation.units=none", "preparation.rows=as-is").id == run().id


@pytest.mark.parametrize("setting", ["preparation.units=target", "preparation.rows=max"])
def test_choices_are_named(setting):
    with pytest.raises(ConfigError, match=rf"{setting.partition('=')[0]}='\w+'; choose from \S+, source|as-is, sum"):
        override(run(), setting)


# -------------------------------------------------------------------------------------------------- what is prepared


@pytest.mark.parametrize("units", ["source", "domain"])
def test_all_sides_batches_and_test_rows_have_the_units(stores, units):
    opened = measured(run(method=rna.Params(), target="night", preparation=Preparation(units=units)), stores)
    for m, x in everything(opened.sides["source"]).items():
        assert x.mean(0).abs().max() < 1e-4, m
        assert (x.var(0, correction=0) - 1).abs().max() < 1e-3
    night = {m: x.mean(0).abs().max() for m, x in everything(opened.sides["target"]).items()}
    assert all((mean < 1e-4) == (units == "domain") for mean in night.values())
    with batches(draws(opened.config, opened.sides), 4) as stream:
        drawn = torch.cat([batch.source.x["rgb"].flatten(0, 1) for batch in [next(stream) for _ in range(4)]])
    assert torch.isin(drawn[:, 0], everything(opened.sides["source"])["rgb"][:, 0]).all()
    plain = everything(open_run(run(), stores).test())["rgb"]
    mean, std = (opened.prepare.get_buffer(f"{name}:rgb")[-1 if units == "source" else 1] for name in ("mean", "std"))
    assert torch.allclose(everything(opened.test())["rgb"], (plain - mean) / std, atol=1e-5)


@pytest.mark.parametrize("rows", ["sum", "length"])
def test_rows_are_scaled_for_every_draw_in_every_tier(stores, rows):
    """A drawn mean of windows is one row."""
    feeds = {"rgb": Feed("hog", train="mean", test="mean"), "flow": Feed("hof", train="random:2")}
    config = run(feeds=feeds, preparation=Preparation(rows, "source"))
    plain = dataclasses.replace(config, preparation=Preparation(rows))
    for tier in ("resident", "mapped", "streaming"):
        for m, x in everything(open_run(plain, stores, tier=tier).sides["source"]).items():
            size = x.abs().sum(1) if rows == "sum" else x.norm(dim=1)
            assert torch.allclose(size, torch.ones(())), (tier, m)
    resident, mapped = (everything(measured(config, stores, tier=tier).test()) for tier in ("resident", "mapped"))
    assert all(torch.equal(resident[m], mapped[m]) for m in resident)


@pytest.mark.parametrize(
    ("method", "net"),
    [(source_only, adapter), (rna, adapter), (source_only, trn), (source_only, mtran), (adabn, adapter)],
    ids=["source_only", "rna", "trn", "mtran", "adabn"],
)
def test_no_net_sees_the_scale_of_the_cache(tmp_path, method, net):
    """One store a thousand times as large, the other a ten-thousandth, give the same run."""
    write_all(tmp_path / "one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.helpers.stores.STORES", {"hog": ("rgb", 8, 5e3), "hof": ("flow", 6, 0.5e-4)})
        write_all(tmp_path / "other")
    small = {"dim": 8} | ({"frame_dim": 8, "relation_dim": 8} if net is trn else {})
    target = "night" if "target" in method.METHOD.needs + method.METHOD.may else None
    config = run(method=method.Params(), net=net.Params(**small), target=target, test="night", preparation=SOURCE)
    made = [Run.open(train(config, tmp_path / of, tmp_path / f"runs {of}")) for of in ("one", "other")]
    first, second = (made_run.outputs["label"] for made_run in made)
    assert first == pytest.approx(second, abs=1e-2)


def test_retrieval_and_clustering_runs_are_prepared(tmp_path):
    stores = caption_stores.write_all(tmp_path / "retrieval")
    for preparation in (Preparation("length", "source"), DOMAIN):
        config = caption_stores.run(steps=3, preparation=preparation)
        made = Run.open(train(config, stores, tmp_path / "runs"))
        opened = made.opened(stores)
        again = outputs(made.method(), opened.test(), opened)
        assert np.allclose(again["text"], made.outputs["text"][-1], atol=1e-5)
        assert np.allclose(again["visual"], made.outputs["visual"][-1], atol=1e-5)
    skeletons = skeleton_stores.write_all(tmp_path / "clustering")
    config = skeleton_stores.run(preparation=Preparation("length", "source"))
    assert evaluate(train(config, skeletons, tmp_path / "runs"), skeletons)


# ------------------------------------------------------------------------------------------------- what it may see


def test_source_only_with_units_by_domain_reads_the_targets_features_but_no_label(stores, tmp_path):
    """The train rows of the test domain are read, their labels and the test rows' labels are not; tables note it."""
    rolled = {"chop": "peel", "peel": "stir", "stir": "chop"}
    clips = manifest(labels=lambda d, _, name: {"label": rolled[name] if d == "night" else name})
    other = write_all(tmp_path / "rolled", clips)
    config = run(preparation=DOMAIN)
    assert config.target is None
    made = [Run.open(train(config, folder, tmp_path / f"runs{k}")) for k, folder in enumerate((stores, other))]
    assert np.array_equal(made[0].outputs["label"], made[1].outputs["label"])
    for m, x in everything(measured(config, stores)._test_domain().prepared(made[0].opened(stores).prepare)).items():
        assert x.mean(0).abs().max() < 1e-4, m

    experiment = Experiment("toy", "Toy.", (config, run(row="plain", seed=1)))
    text = " ".join(render(evaluate(made[0].folder, stores, "toy"), experiment).split())
    assert "**UNITS BY DOMAIN: source-only has seen unlabelled clips of the test domain" in text
    assert "Prepared features: entries of each domain standardised by its own mean and spread." in text
    seen = run(method=rna.Params(), target="night", row="RNA", preparation=DOMAIN)
    text = " ".join(render([], Experiment("toy", "Toy.", (seen,))).split())
    assert "UNITS BY DOMAIN" not in text


def test_a_test_domain_without_train_rows_has_no_units_of_its_own(tmp_path):
    clips = manifest()
    kept = tuple(clip for clip in clips if (clip.domain, clip.split) != ("night", "train"))
    stores = write_all(tmp_path, Manifest("toy", kept))
    with pytest.raises(ConfigError, match="preparation.units='domain'.*train rows of 'night'.*units=source"):
        train(run(preparation=DOMAIN), stores, tmp_path / "runs")
    assert train(run(preparation=SOURCE), stores, tmp_path / "runs").is_dir()


def test_other_test_domains_have_no_units(tmp_path):
    stores = write_all(tmp_path, manifest(domains=("day", "dusk", "night")))
    with pytest.raises(ConfigError, match="units of dusk were not measured"):
        measured(run(preparation=DOMAIN), stores).test("dusk")
    assert len(measured(run(preparation=SOURCE), stores).test("dusk")) == 6


@pytest.mark.parametrize("units", ["source", "domain"])
def test_source_free_adaptation_has_the_units_of_its_start_and_reads_no_source_row(stores, tmp_path, units):
    """By source: those that the first stage saved. By domain: its own, of the target alone."""
    first = run(row="", preparation=Preparation(units=units))
    changes = {"source": (), "target": "night", "epoch": 3, "steps": 6, "init_from": first.id}
    second = dataclasses.replace(first, method=shot.Params(), row="adapted", **changes)
    train(first, stores, tmp_path)
    asked, load = [], Opened.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Opened, "load", lambda self, role, rows, **k: (asked.extend(rows), load(self, role, rows, **k))[1]
        )
        made = Run.open(train(second, stores, tmp_path))
    assert {manifest().clips[row].domain for row in asked} == {"night"}
    mean, start = (
        Run.open(tmp_path / each.id).opened(stores).prepare.get_buffer("mean:rgb") for each in (second, first)
    )
    assert torch.equal(mean[0], start[0]) == (units == "source")
    assert evaluate(made.folder, stores)
    other = dataclasses.replace(second, preparation=Preparation())
    with pytest.raises(ConfigError, match=f"preparation.units={units}, but this run has .*units=none"):
        train(other, stores, tmp_path)


def test_source_free_adaptation_with_other_feeds_takes_their_units(stores, tmp_path):
    first = run(row="", preparation=SOURCE)
    few = dataclasses.replace(first, feeds={"rgb": Feed("hog")})
    for each in (first, few):
        train(each, stores, tmp_path)
    changes = {"source": (), "target": "night", "epoch": 3, "steps": 3, "row": "adapted"}
    fewer = dataclasses.replace(first, feeds=few.feeds, method=shot.Params(), init_from=first.id, **changes)
    mean, start = (
        Run.open(tmp_path / name).opened(stores).prepare.get_buffer("mean:rgb")
        for name in (Run.open(train(fewer, stores, tmp_path)).config.id, first.id)
    )
    assert torch.equal(mean, start)
    more = open_run(dataclasses.replace(fewer, feeds=first.feeds, init_from=few.id), stores)
    start = Run.open(tmp_path / few.id)
    with pytest.raises(ConfigError, match=f"{few.id} has no units.*'flow'.*same feeds"):
        copy_weights(start, start.method(), more)


# ----------------------------------------------------------------------------------------------------- what is kept


def test_evaluation_takes_the_units_that_the_run_saved(stores, tmp_path, monkeypatch):
    folder = train(run(method=rna.Params(), target="night", preparation=DOMAIN), stores, tmp_path)
    monkeypatch.setattr(Opened, "measure", lambda self: pytest.fail("units are measured in training only"))
    norms = {result.metric: result.value for result in evaluate(folder, stores)}
    made = Run.open(folder)
    opened = made.opened(stores)
    rows = opened.test()
    again = outputs(made.method(), rows, opened)["label"]
    assert np.allclose(again, made.outputs["label"][-1], atol=1e-5)
    with torch.no_grad():
        f = torch.cat([made.method().net.encode(side)["rgb"] for side in rows.sweep()])
    assert norms["norm/target/rgb"] == pytest.approx(f.norm(dim=1).mean().item(), rel=1e-4)


def test_it_is_a_setting_of_the_command_line(stores, tmp_path):
    words = ["toy.py", "--stores", str(stores), "--runs", str(tmp_path), "--set", "preparation.units=domain"]
    (tmp_path / "toy.py").write_text('"""Toy."""\nfrom tests.helpers.stores import run\nRUNS = (run(steps=2),)\n')
    words[0] = str(tmp_path / "toy.py")
    result = CliRunner().invoke(main, ["train-head", *words, "--set", "preparation.rows=sum", "--workers", "1"])
    assert result.exit_code == 0, result.output
    (config,) = tmp_path.glob("*/config.json")
    assert json.loads(config.read_text())["preparation"] == {"rows": "sum", "units": "domain"}


@pytest.mark.slow
def test_histograms_gain_from_unit_sum_and_units_by_domain(tmp_path):
    """800 counts, whose total differs by clip and whose profile by class and domain; docs/guide.md has the numbers."""
    rng = np.random.default_rng(0)
    clips, classes, bins = 600, 10, 800
    y, domain, part = rng.integers(classes, size=clips), np.arange(clips) % 2, np.arange(clips) % 6 // 4
    profile = rng.gamma(0.5, size=bins) * np.exp(0.35 * rng.normal(size=(classes, bins)))[y]
    profile *= np.exp(0.5 * rng.normal(size=(2, bins)))[domain]
    profile /= profile.sum(1, keepdims=True)
    total = np.exp(6 + 0.8 * rng.normal(size=clips) + 0.7 * domain).astype(int)
    x = np.stack([rng.multinomial(n, p) for n, p in zip(total, profile, strict=True)]).astype(np.float32)
    made = [
        Clip(f"{k:04}", "ab"[domain[k]], ("train", "test")[part[k]], f"{k}.mp4", labels={"label": f"c{y[k]}"})
        for k in range(clips)
    ]
    manifest, folder = Manifest("bags", tuple(made)), tmp_path / "bags"
    manifest.write(folder / "manifest.csv")
    recipe = {"extractor": "bag", "version": 1, "modality": "rgb", "weights_sha256": "none", "dtype": "float32"}
    with StoreWriter.open(folder / "bag.zarr", manifest, recipe, row_shape=(bins,), windows=1, facts={}) as writer:
        for row in range(clips):
            writer.done(row, x[row : row + 1], np.zeros(1), np.ones(1))
    accuracy = {}
    for settings in (("units=none",), ("units=source",), ("units=domain", "rows=sum"), ("units=domain", "rows=length")):
        changed = experiments.load(folder).changed([f"preparation.{s}" for s in settings], "0,1", ["source-only"])
        results = [evaluate(train(run, tmp_path, tmp_path / "runs"), tmp_path) for run in changed.runs]
        accuracy[settings] = np.mean([r.value for each in results for r in each if r.metric == "top1"])
    *others, by_sum, by_length = accuracy.values()
    assert min(by_sum, by_length) > max(others) + 0.02
