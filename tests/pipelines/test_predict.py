"""Runs that are applied to clips: the outputs that they kept, to the bit, and the features of their recipe."""

import csv
import dataclasses
import gc
import inspect
import json
import os
import re
import shutil
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import tqdm.auto
from click.testing import CliRunner

from featcache import FeatureStore, Manifest, registry, weights
from featcache.backbones.bninception import BNInception
from featcache.errors import ArgumentsError, ConfigError, StoreError, WeightsError
from featcache.extractors import Runtime, load
from featcache.extractors._frozen import fill_by_seed
from featcache.manifest import Clip
from featcache.scanning import scan, unlabelled
from featcache.store import StoreWriter
from featcache.windows import Plan
from heads import methods
from heads.methods import adabn, codt, joints
from heads.testing.problems import SIMPLE, small
from pipelines.cli import main
from pipelines.config import Feed, Optim, Preparation
from pipelines.evaluation import predictions as of_runs
from pipelines.extraction import engine
from pipelines.extraction import extract as extraction
from pipelines.extraction.extract import extract
from pipelines.extraction.extractors import load_extractors, remade
from pipelines.measures.accuracy import probabilities
from pipelines.predicting import features
from pipelines.predicting.predict import predict
from pipelines.training import groups
from pipelines.training.engine import run_all
from pipelines.training.runs import NotTrainedError, Run, find_run
from pipelines.training.train import train
from tests.helpers import caption_stores, hf_models, skeleton_stores
from tests.helpers.stores import manifest, run, write_all, write_store
from tests.helpers.weights import HEAD

TASKS = {"classification": (write_all, run), "retrieval": (caption_stores.write_all, caption_stores.run)}
TASKS["clustering"] = skeleton_stores.write_all, skeleton_stores.run


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def folder(stores, tmp_path_factory):
    return train(run(), stores, tmp_path_factory.mktemp("runs"))


def outputs(predictions):
    """Name -> outputs on all clips, in the order in which they come."""
    parts = list(predictions)
    names = dict.fromkeys(name for part in parts for name in part.outputs)
    return {name: np.concatenate([part.outputs[name] for part in parts if name in part.outputs]) for name in names}


def kept(made):
    """Name -> the outputs that a run has kept at its last point."""
    return {name: x[-1] for name, x in made.outputs.items() if name not in ("rows", "captions", "clip")}


def assert_kept(folder, *clips, **options):
    """The outputs on these clips begin with those that the run has kept of its test clips, to the bit."""
    made = Run.open(folder)
    found = outputs(predict(folder, clips, **options))
    assert found.keys() == kept(made).keys()
    for name, expected in kept(made).items():
        assert np.array_equal(found[name][: len(expected)], expected), name


def cli(*words):
    return CliRunner().invoke(main, ["predict", *map(str, words)])


# ---------------------------------------------------------------------------------------------------- own test clips


@pytest.mark.parametrize("task", ["classification", "retrieval", pytest.param("clustering", marks=pytest.mark.slow)])
def test_own_test_clips_give_the_kept_outputs(task, tmp_path):
    """To the bit, and also where the other clips of the stores come behind them."""
    write, config = TASKS[task]
    stores = write(tmp_path / "stores")
    folder = train(config(), stores, tmp_path / "runs")
    own = sorted(path for path in stores.iterdir())
    assert_kept(folder, *own)
    assert_kept(folder, *own, domain=[config().test], split="test")
    made = Run.open(folder)
    clips = Manifest.read(own[0] / "manifest.csv").clips
    table = predict(folder, own).frame()
    first = list(dict.fromkeys(table.clip_id))[: len(made.outputs["rows"])]
    assert first == [clips[row].clip_id for row in made.outputs["rows"]]


@pytest.mark.slow
def test_each_reading_has_a_bar_that_is_closed(stores, folder, monkeypatch):
    bars, ours = [], tqdm.auto.tqdm
    monkeypatch.setattr(tqdm.auto, "tqdm", lambda **options: bars.append(ours(**options)) or bars[-1])
    made = predict(folder, stores / "toy", progress=True)
    list(made)
    next(iter(made))  # and no further
    gc.collect()
    assert [bar.desc for bar in bars] == ["predict"] * 2
    assert bars[0].n == made.total
    assert all(bar.disable for bar in bars)


def test_clips_are_computed_in_the_pieces_of_a_sweep(stores, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.data.rows.SWEEP_ROWS", 4)
    folder = train(run(), stores, tmp_path)
    assert_kept(folder, stores / "toy")
    assert [len(part.clips) for part in predict(folder, stores / "toy")] == [4, 2, *[4] * 7, 2]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "retrieval"])
def test_runs_that_were_trained_in_one_pass(task, tmp_path, monkeypatch):
    """Their kept outputs are those of the weights in memory of their own, also of a point before the end."""
    monkeypatch.setattr(groups, "GAIN", 0.0)
    write, config = TASKS[task]
    stores, changes = write(tmp_path / "stores"), {"steps": 4, "eval_every": 1, "keep": 4}
    if task == "retrieval":
        changes |= {"holdout": 0.3, "select": "source_val"}  # which keeps the best point, and its weights
    optims = [Optim("adam", lr=0.01 * k) for k in range(1, 5)]
    outcomes = run_all([config(optim=optim, **changes) for optim in optims], stores, tmp_path / "runs")
    assert {Run.open(outcome.folder).facts.batched for outcome in outcomes} == {4}
    for outcome in outcomes:
        assert_kept(outcome.folder, *sorted(stores.iterdir()))


@pytest.mark.parametrize(
    "changes",
    [
        {"feeds": {"rgb": Feed("hog", test="mean"), "flow": Feed("hof", train="segments:2", test="segments:2")}},
        {"feeds": {"rgb": Feed("hog", test="each"), "flow": Feed("hof", test="each")}},
        {"preparation": Preparation("length", "domain")},
        {"preparation": Preparation("as-is", "domain"), "target": "night", "method": adabn.Params()},
        {"eval_every": 4, "keep": 3, "select": "mean"},
    ],
)
def test_draws_and_preparation_are_those_of_the_run(changes, stores, tmp_path):
    assert_kept(train(run(**changes), stores, tmp_path), stores / "toy")


def test_clips_that_lack_a_modality(tmp_path):
    """They are masked as in the run, or refused with the reason."""
    of, lacking = manifest(), {row: "absent" for row, clip in enumerate(manifest()) if clip.clip_id.endswith("test1")}
    stores = write_all(tmp_path / "stores", of)
    shutil.rmtree(stores / "toy" / "hof.zarr")
    write_store(stores / "toy", of, "hof", states=lacking)
    masked = train(run(absent="mask"), stores, tmp_path / "runs")
    assert_kept(masked, stores / "toy")
    dropped = train(run(absent="drop"), stores, tmp_path / "runs")
    assert_kept(dropped, stores / "toy")
    made = predict(dropped, stores / "toy")
    assert len(made.frame()) == len(of) - len(lacking)
    assert {clip.partition("_")[2][-5:] for clip in made.failures} == {"test1"}
    assert all("flow: no sound" in reason for reason in made.failures.values())


@pytest.mark.slow
def test_captions_that_are_classified_are_clips(tmp_path):
    """A run that does no retrieval may have a manifest of captions, whose rows name the clips that they describe."""
    of = dataclasses.replace(manifest(), clips=tuple(dataclasses.replace(clip, of="film") for clip in manifest()))
    stores = write_all(tmp_path / "stores", of)
    assert_kept(train(run(preparation=Preparation("as-is", "domain")), stores, tmp_path / "runs"), stores / "toy")


@pytest.mark.slow
def test_clusters_without_a_classifier_are_those_of_the_runs_own_clips(tmp_path):
    stores = skeleton_stores.write_all(tmp_path / "stores")
    plain = skeleton_stores.run()
    folder = train(plain, stores, tmp_path / "runs")
    of_runs.write(tmp_path / "own.parquet", [(plain, folder, stores)])
    own, table = pd.read_parquet(tmp_path / "own.parquet"), predict(folder, stores / "motions").frame()
    merged = own.merge(table, on=["clip_id", "branch"])
    assert len(merged) == len(own)
    assert (merged.cluster_x == merged.cluster_y).all()
    classified = train(skeleton_stores.run(method=codt.Params()), stores, tmp_path / "runs")
    assert_kept(classified, stores / "motions")
    table = predict(classified, stores / "motions", top_k=2).frame()
    assert (table.cluster == [row[0] for row in table.clusters]).all()
    assert {len(row) for row in table.probabilities} == {2}


def net_of(module, task):
    net = inspect.get_annotations(module.METHOD, eval_str=True).get("net", SIMPLE[task])
    file = sys.modules[net.__module__]
    return file.Params(**small(file))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:method.:UserWarning")  # so few rows to find prototypes in
@pytest.mark.parametrize("name", registry.names(methods))
def test_every_method_gives_its_kept_outputs(name, tmp_path):
    module = registry.load(methods, name, "method")
    for task in module.METHOD.tasks:
        write, config = TASKS[task]
        stores, sees = write(tmp_path / task), module.METHOD.needs + module.METHOD.may
        net = net_of(module, task) if task != "clustering" else config().net
        first = config(net=net, steps=2)
        if "init_from" in module.METHOD.needs:
            train(first, stores, tmp_path / "runs")
        made = config(
            method=module.Params(**small(module)),
            net=net,
            source=config().source if "source" in sees else (),
            target=config().test if "target" in sees else None,
            holdout=0.25 if "source_val" in sees else 0.0,
            init_from=first.id if "init_from" in module.METHOD.needs else None,
            epoch=2,
            optim=Optim("adam", lr=1e-3),
            steps=4 if module.METHOD is not joints.METHOD else 0,
        )
        assert_kept(train(made, stores, tmp_path / "runs"), *sorted(stores.iterdir()))


# ------------------------------------------------------------------------------------------------------- other clips


def other_stores(folder, name="new", recipe=None, **clips):
    """Stores of other clips by the recipes of the toy stores; recipe: what is different in that of hog."""
    of = dataclasses.replace(manifest(**{"domains": ("night",), "train": 1, "test": 2, **clips}), name=name)
    of.write(folder / name / "manifest.csv")
    for store, (modality, size) in {"hog": ("rgb", 8), "hof": ("flow", 6)}.items():
        made = {"extractor": store, "version": 1, "modality": modality, "weights_sha256": "none", "dtype": "float32"}
        made |= (recipe or {}) if store == "hog" else {}
        path = folder / name / f"{store}.zarr"
        with StoreWriter.open(path, of, made, row_shape=(size,), windows=3, facts={}) as writer:
            for row in range(len(of)):
                x = np.random.default_rng([row, size]).normal(size=(3, size)).astype(np.float32)
                writer.done(row, x, np.arange(3), np.arange(3) + 1.0)
    return folder / name


def test_a_run_is_applied_without_the_stores_that_it_was_trained_on(tmp_path):
    """It records their recipes and the names of its classes."""
    stores = write_all(tmp_path / "stores")
    folder = train(run(), stores, tmp_path / "runs")
    new = other_stores(tmp_path / "elsewhere")
    before = predict(folder, new).frame()
    shutil.rmtree(stores)
    after = predict(folder, new).frame()
    pd.testing.assert_frame_equal(before, after)
    assert after.attrs == {"runs": [run().id], "classes": {"label": ["chop", "peel", "stir"]}}
    assert len(after) == 9


def test_stores_of_a_manifest_are_found(folder, stores, tmp_path):
    """Next to a manifest that was copied there, and in the folder of all stores."""
    expected = predict(folder, stores / "toy").frame()
    pd.testing.assert_frame_equal(predict(folder, stores / "toy" / "manifest.csv").frame(), expected)
    manifest().write(tmp_path / "toy.csv")
    pd.testing.assert_frame_equal(predict(folder, tmp_path / "toy.csv", stores=stores).frame(), expected)
    manifest(train=5).write(tmp_path / "toy.csv")
    with pytest.raises(StoreError, match="was made from other clips"):
        predict(folder, tmp_path / "toy.csv", stores=stores).frame()


def test_a_run_of_an_earlier_version_needs_its_stores(stores, folder, tmp_path):
    old = tmp_path / "runs" / folder.name
    shutil.copytree(folder, old)
    facts = json.loads((old / "run.json").read_text())
    del facts["features"], facts["classes"]
    (old / "run.json").write_text(json.dumps(facts))
    (old / "SHA256SUMS").unlink()
    new = other_stores(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"earlier version.*toy/hog\.zarr.*--stores"):
        predict(old, new)
    expected = predict(folder, new).frame()
    pd.testing.assert_frame_equal(predict(old, new, stores=stores).frame(), expected)
    (tmp_path / "stores").symlink_to(stores)  # the usual place, next to the runs
    pd.testing.assert_frame_equal(predict(old, new).frame(), expected)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"version": 2}, r"hog\.zarr.*version is 1 in the run and 2 in the store"),
        ({"params": {"bins": 9}}, r"params\.bins is 'nothing' in the run and 9"),
        ({"weights_sha256": "ab"}, "weights_sha256 is 'none' in the run and 'ab'"),
        ({"dtype": "float16"}, "dtype is 'float32' in the run and 'float16'"),
    ],
)
def test_another_recipe_is_refused_with_the_parameter_and_both_values(recipe, words, folder, tmp_path):
    new = other_stores(tmp_path, recipe=recipe)
    for clips in (new, [new / "hog.zarr", new / "hof.zarr"]):
        with pytest.raises(ConfigError, match=words):
            predict(folder, clips).frame()


def test_an_imported_store_has_other_files_but_the_same_recipe():
    def recipe(sha256, key="RGB", **more):
        files = [{"file": f"{sha256}.npz", "sha256": sha256, "ids_sha256": sha256, **more}]
        return {"recipe": "external", "extractor": "rgb", "external": {"format": "npz", "key": key, "files": files}}

    assert features.key(recipe("a")) == features.key(recipe("b"))
    assert features.key(recipe("a")) != features.key(recipe("a", key="Flow"))
    assert features.key(recipe("a", recipe={"net": "x"})) != features.key(recipe("b", recipe={"net": "y"}))


def test_the_domain_of_a_clip_decides_its_units(stores, tmp_path):
    folder = train(
        run(preparation=Preparation("as-is", "domain"), target="night", method=adabn.Params()), stores, tmp_path
    )
    known = other_stores(tmp_path / "a")
    unknown = other_stores(tmp_path / "b", domains=("dusk",))
    with pytest.raises(ConfigError, match="dusk.*--as-domain: day, night"):
        predict(folder, unknown)
    with pytest.raises(ConfigError, match="no domain 'nigth'.*night"):
        predict(folder, unknown, as_domain="nigth")
    night, day = (outputs(predict(folder, unknown, as_domain=name))["label"] for name in ("night", "day"))
    assert np.array_equal(night, outputs(predict(folder, known))["label"])
    assert not np.allclose(night, day)


# ---------------------------------------------------------------------------------------------------------- ensembles


def test_several_runs_are_an_ensemble(stores, tmp_path):
    folders = [train(run(seed=seed), stores, tmp_path) for seed in (0, 1)]
    table = predict(folders, stores / "toy", domain=["night"], split="test", top_k=3).frame()
    mean = np.mean([probabilities(Run.open(each).outputs["label"][-1]) for each in folders], 0)
    names = ["chop", "peel", "stir"]
    assert table.predicted.tolist() == [names[k] for k in mean.argmax(1)]
    for p, row, line in zip(mean, table.classes, table.probabilities, strict=True):
        assert line == pytest.approx(np.sort(p)[::-1], abs=1e-6)
        assert row == [names[k] for k in np.argsort(-p)]
    assert table.attrs["runs"] == [run(seed=seed).id for seed in (0, 1)]


@pytest.mark.slow
def test_runs_that_cannot_be_averaged(stores, folder, tmp_path):
    other = write_all(tmp_path / "stores", manifest(labels=lambda d, s, name: {"verb": name}))
    verbs = train(run(), other, tmp_path / "runs")
    with pytest.raises(ConfigError, match=r"different classes \(3 of label: .*; 3 of verb"):
        predict([folder, verbs], stores / "toy")
    ranked = train(caption_stores.run(), caption_stores.write_all(tmp_path / "stores"), tmp_path / "runs")
    with pytest.raises(ConfigError, match="averaged.*retrieval"):
        predict([folder, ranked], tmp_path / "stores" / "clips")
    with pytest.raises(ConfigError, match="named twice"):
        predict([folder, folder], stores / "toy")


# ------------------------------------------------------------------------------------------------------------- media


@pytest.fixture(scope="module")
def filmed(videos, tmp_path_factory):
    """Stores of hog and logmel of eight videos, and a run on them: (manifest, folder of stores, folder of the run)."""
    base = tmp_path_factory.mktemp("filmed")
    films = Manifest.read(videos / "kitchens.csv")
    clips = [
        Clip(
            f"c{k}",
            f"d{k // 4}",
            "test" if k % 4 == 3 else "train",
            str(films.path(clip)),
            labels={"label": "ab"[k % 2]},
        )
        for k, clip in enumerate(films)
    ]
    of = Manifest("films", tuple(clips))
    extract(of, load_extractors(["hog", "logmel"], ["hog.count=1"]), base / "stores", plan=Plan("segments", 2))
    feeds = {"rgb": Feed("hog"), "audio": Feed("logmel")}
    made = run(manifest="films", feeds=feeds, source=("d0",), test="d1", steps=3)
    return of, base / "stores", train(made, base / "stores", base / "runs")


def linked(of, folder, *, names="abcdefgh", broken=()):
    """A folder with the films under other names; those that are broken have no content."""
    folder.mkdir()
    for k, (clip, name) in enumerate(zip(of, names, strict=True)):
        if k in broken:
            (folder / f"{name}.mp4").write_bytes(b"")
        else:
            os.link(of.path(clip), folder / f"{name}.mp4")
    return folder


def bytes_of(folder):
    """Relative path -> bytes of each file; without the records of media files, whose lines come in any order."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".files"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_new_videos_get_the_features_of_the_recipe(filmed, tmp_path, monkeypatch):
    """They are decoded once for all extractors, nothing is written, and equal videos get equal outputs."""
    of, stores, folder = filmed
    new = linked(of, tmp_path / "new")
    before, opened, held = sorted(tmp_path.rglob("*")), list[str](), list[int]()
    windows_of = engine.windows_of
    monkeypatch.setattr(
        engine, "windows_of", lambda path, *rest: (opened.append(path.name), windows_of(path, *rest))[1]
    )
    monkeypatch.setattr(features, "CHUNK", 3)
    extract_rows = features.extract_rows
    monkeypatch.setattr(
        features,
        "extract_rows",
        lambda of, wanted, **rest: (held.extend(map(len, wanted.values())), extract_rows(of, wanted, **rest))[1],
    )
    monkeypatch.chdir(tmp_path)
    table = predict(folder, new).frame()
    assert sorted(opened) == [f"{name}.mp4" for name in "abcdefgh"]
    assert sorted(tmp_path.rglob("*")) == before
    assert held == [3, 3, 3, 3, 2, 2]  # rows of each extractor that are in memory at a time
    by_id = predict(folder, stores / "films").frame().set_index("clip_id")
    assert table.clip_id.tolist() == [*"abcdefgh"]
    for k in range(8):
        assert table.probabilities[k] == pytest.approx(by_id.probabilities[f"c{k}"], abs=1e-6)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_clips(tmp_path, monkeypatch):
    """Measured, in parts of eight clips of 80 kB; the features of all new clips have 10 MB."""
    monkeypatch.setattr(features, "CHUNK", 8)
    monkeypatch.setattr("pipelines.data.rows.SWEEP_ROWS", 8)
    for folder, count in (("own", 16), ("few", 24), ("many", 128)):
        for k in range(count):
            place = tmp_path / folder / "ab"[k % 2]
            place.mkdir(parents=True, exist_ok=True)
            np.save(place / f"{k}.npy", np.random.default_rng(k).normal(size=(1, 20_000)).astype(np.float32))
    of = scan(tmp_path / "own", domain="day").manifest
    extract(
        of, load_extractors(["vector"], manifest=of), tmp_path / "stores", plan=Plan("segments", 1), dtype="float32"
    )
    config = run(manifest="own", feeds={"vector": Feed("vector")}, source=("day",), target=None, test="day", steps=2)
    folder, peaks = train(config, tmp_path / "stores", tmp_path / "runs"), dict[str, int]()
    for name in ("few", "few", "many"):  # the first time, modules are imported
        made = predict(folder, tmp_path / name, workers=1)
        tracemalloc.start()
        assert sum(len(part.clips) for part in made) == made.total
        peaks[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks["many"] < peaks["few"] + 8 * 80_000


def test_kept_features_are_those_of_extract(filmed, tmp_path):
    """Byte by byte; and the next call reads them."""
    of, _, folder = filmed
    new = linked(of, tmp_path / "new")
    first = predict(folder, new, stores=tmp_path / "kept").frame()
    clips = Manifest.read(tmp_path / "kept" / "new" / "manifest.csv")
    expected = extract(
        clips, load_extractors(["hog", "logmel"], ["hog.count=1"]), tmp_path / "again", plan=Plan("segments", 2)
    )
    assert {*expected.stores} == {"hog", "logmel"}
    assert bytes_of(tmp_path / "kept") == bytes_of(tmp_path / "again")
    shutil.rmtree(tmp_path / "new")
    again = predict(folder, tmp_path / "kept" / "new").frame()
    pd.testing.assert_frame_equal(again, first)


@pytest.mark.slow
@pytest.mark.parametrize("words", ["files", "folders"])
def test_kept_features_serve_only_the_very_same_files(words, filmed, tmp_path):
    """Files of the same name are not exchanged, also where the first is gone, and further files are added."""
    of, _, folder = filmed
    places = [tmp_path / name / "new" for name in "ab"]
    for place, clip in zip(places, (of.clips[0], of.clips[5]), strict=True):
        place.mkdir(parents=True)
        os.link(of.path(clip), place / "x.mp4")
    clips = [place / "x.mp4" if words == "files" else place for place in places]
    expected = [predict(folder, clip).frame() for clip in clips]
    assert not expected[0].equals(expected[1])
    pd.testing.assert_frame_equal(predict(folder, clips[0], stores=tmp_path / "kept").frame(), expected[0])
    for _ in range(2):  # also where the first file is gone
        if words == "files":
            pd.testing.assert_frame_equal(predict(folder, clips[1], stores=tmp_path / "kept").frame(), expected[1])
        else:
            with pytest.raises(StoreError, match=r"a/new/x.mp4.*b/new/x.mp4.*another --stores"):
                predict(folder, clips[1], stores=tmp_path / "kept").frame()
        (places[0] / "x.mp4").unlink(missing_ok=True)
    os.link(of.path(of.clips[5]), places[0] / "a.mp4")  # a new file before the one that is gone
    later = places[0] / "a.mp4" if words == "files" else places[0]
    found = predict(folder, later, stores=tmp_path / "kept").frame()
    assert found.clip_id.tolist() == ["a"]
    assert found.probabilities[0] == pytest.approx(expected[1].probabilities[0], abs=1e-6)


@pytest.mark.slow
def test_a_file_that_was_replaced_is_read_again(filmed, tmp_path):
    of, _, folder = filmed
    shutil.copy(of.path(of.clips[0]), tmp_path / "x.mp4")
    first = predict(folder, tmp_path / "x.mp4", stores=tmp_path / "kept").frame()
    shutil.copy(of.path(of.clips[5]), tmp_path / "x.mp4")
    second = predict(folder, tmp_path / "x.mp4", stores=tmp_path / "kept").frame()
    assert not first.equals(second)
    pd.testing.assert_frame_equal(predict(folder, tmp_path / "x.mp4").frame(), second)


@pytest.mark.parametrize("words", ["folder", pytest.param("manifest", marks=pytest.mark.slow)])
def test_files_that_were_replaced_in_their_place_are_extracted_again(words, filmed, tmp_path):
    """As `extract` would do it from the beginning, also with a longer clip; clips that are equal are not."""
    of, _, folder = filmed
    new = linked(of, tmp_path / "new")
    for name in "abdeh":
        (new / f"{name}.mp4").unlink()
    unlabelled(new, "d1")[0].write(tmp_path / "new.csv")
    clips, options = new if words == "folder" else tmp_path / "new.csv", {"stores": tmp_path / "kept"}
    first, opened = predict(folder, clips, **options).frame(), list[str]()
    shutil.copy(of.path(of.clips[5]), tmp_path / "other")
    os.replace(tmp_path / "other", new / "c.mp4")
    shutil.copy(of.path(of.clips[6]), tmp_path / "same")  # another time, the same content
    os.replace(tmp_path / "same", new / "g.mp4")
    with pytest.MonkeyPatch.context() as patch:
        windows_of = engine.windows_of
        patch.setattr(engine, "windows_of", lambda path, *of: (opened.append(path.name), windows_of(path, *of))[1])
        second = predict(folder, clips, **options).frame()
        assert opened == ["c.mp4"]
        pd.testing.assert_frame_equal(predict(folder, clips, **options).frame(), second)
        assert opened == ["c.mp4"]
        pd.testing.assert_frame_equal(predict(folder, clips).frame(), second)
    differ = [a != b for a, b in zip(first.probabilities.map(str), second.probabilities.map(str), strict=True)]
    assert dict(zip(first.clip_id, differ, strict=True)) == {"c": True, "f": False, "g": False}
    extract(
        Manifest.read(tmp_path / "kept" / "new" / "manifest.csv"),
        load_extractors(["hog", "logmel"], ["hog.count=1"]),
        tmp_path / "again",
        plan=Plan("segments", 2),
    )
    stores = [{k: v for k, v in bytes_of(tmp_path / name).items() if ".zarr" in k} for name in ("kept", "again")]
    assert stores[0] == stores[1]


@pytest.mark.slow
@pytest.mark.parametrize("before", ["interrupted", "of an earlier version", "renewal interrupted"])
def test_files_that_were_replaced_where_the_record_is_not_complete(before, filmed, tmp_path, monkeypatch):
    """The predictions are those without kept features."""
    of, _, folder = filmed
    new, kept = linked(of, tmp_path / "new"), tmp_path / "kept"
    unlabelled(new, "d1")[0].write(tmp_path / "new.csv")
    hog = load_extractors(["hog"], ["hog.count=1"])

    def killed(self, rows, *rest):
        """End after the row was written, so that others stay in the journal."""
        self.writer.done_many(rows, *rest)
        if 5 in rows:
            raise RuntimeError("killed")
        self._made(*rows)

    def extract_films(**options):
        extract(Manifest.read(tmp_path / "new.csv"), hog, kept, plan=Plan("segments", 2), workers=1, **options)

    def replace(name, other):
        shutil.copy(of.path(of.clips[other]), tmp_path / "other")
        os.replace(tmp_path / "other", new / name)

    if before != "interrupted":
        extract_films()
    if before == "renewal interrupted":
        replace("f.mp4", 0)
    if before != "of an earlier version":
        with monkeypatch.context() as patch:
            patch.setattr(extraction.RecordingWriter, "done_many", killed)
            with pytest.raises(RuntimeError, match="killed"):
                extract_films(renew=True)
    else:
        (kept / "new" / ".hog.zarr.files").unlink()
    replace("f.mp4", 2)
    replace("a.mp4", 3)
    expected = predict(folder, tmp_path / "new.csv").frame()
    for _ in range(2):
        pd.testing.assert_frame_equal(predict(folder, tmp_path / "new.csv", stores=kept).frame(), expected)


@pytest.mark.slow
def test_a_record_of_files_that_is_damaged_is_named(filmed, tmp_path):
    of, _, folder = filmed
    new = linked(of, tmp_path / "new", broken=range(2, 8))
    predict(folder, new, stores=tmp_path / "kept").frame()
    (tmp_path / "kept" / "new" / ".hog.zarr.files").write_text("[]")
    with pytest.raises(StoreError, match=r"kept/new/.hog.zarr.files.*remove it"):
        predict(folder, new, stores=tmp_path / "kept").frame()


@pytest.fixture(scope="module")
def other_plan(filmed, tmp_path_factory):
    """A run on another window plan of logmel."""
    of, _, _ = filmed
    base = tmp_path_factory.mktemp("other_plan")
    extract(of, load_extractors(["logmel"]), base / "stores", plan=Plan("segments", 3))
    made = run(manifest="films", feeds={"audio": Feed("logmel")}, source=("d0",), test="d1", steps=2)
    return train(made, base / "stores", base / "runs")


@pytest.mark.slow
def test_two_window_plans_are_not_kept_in_one_store(filmed, other_plan, tmp_path):
    of, _, folder = filmed
    new = linked(of, tmp_path / "new", broken=range(2, 8))
    assert len(predict([folder, other_plan], new).frame()) == 2
    for runs in ([folder, other_plan], [other_plan, folder]):
        with pytest.raises(ConfigError, match=r"logmel.*plan is 'segments:\d' and 'segments:\d'.*leave --stores out"):
            predict(runs, new, stores=tmp_path / "kept").frame()
    assert not (tmp_path / "kept").exists()
    alone = [predict(each, new, stores=tmp_path / each.name).frame() for each in (folder, other_plan)]
    assert [len(table) for table in alone] == [2, 2]
    with pytest.raises(ConfigError, match="leave --stores out"):
        predict([folder, other_plan], new, stores=tmp_path / folder.name).frame()


@pytest.mark.slow
def test_progress_never_goes_back_nor_beyond_its_end(filmed, other_plan, tmp_path, monkeypatch):
    of, stores, folder = filmed
    monkeypatch.setattr(features, "CHUNK", 3)
    linked(of, tmp_path / "new")
    of.write(tmp_path / "films.csv")
    files = [tmp_path / "new" / "a.mp4", tmp_path / "new" / "b.mp4"]
    chosen = {"domain": "d1", "split": "test"}
    for run_or_runs, clips, options in (
        (folder, tmp_path / "new", {"stores": tmp_path / "kept"}),
        (folder, tmp_path / "new", {"stores": tmp_path / "kept"}),
        (folder, files, {"stores": tmp_path / "kept"}),
        (folder, tmp_path / "films.csv", {"stores": tmp_path / "kept", **chosen}),
        (folder, [tmp_path / "films.csv", files[0]], {"stores": stores}),
        ([folder, other_plan], [tmp_path / "new"], {}),
    ):
        seen = list[tuple[int, int]]()
        made = predict(run_or_runs, clips, progress=lambda *numbers, seen=seen: seen.append(numbers), **options)
        assert len(made.frame()) == made.total
        done, totals = zip(*seen, strict=True)
        assert seen[0][0] == 0
        assert seen[-1][0] == seen[-1][1] == totals[0] >= made.total
        assert len({*totals}) == 1
        assert list(done) == sorted(done)
        assert max(done) == totals[0]


@pytest.mark.slow
def test_clips_are_chosen_of_a_manifest_whose_features_are_kept(filmed, tmp_path):
    """All its clips are kept, only the chosen ones are predicted, and files named one by one are kept apart."""
    of, stores, folder = filmed
    of.write(tmp_path / "films.csv")
    expected = predict(folder, stores / "films", domain="d1", split="test").frame()
    for _ in range(2):
        found = predict(folder, tmp_path / "films.csv", stores=tmp_path / "kept", domain="d1", split="test").frame()
        pd.testing.assert_frame_equal(found, expected)
    assert FeatureStore.open(tmp_path / "kept" / "films" / "hog.zarr").counts()["done"] == len(of)
    files = [of.path(clip) for clip in of.clips[:2]]
    for some in (files[:1], files[1:], files, files):
        assert len(predict(folder, some, stores=tmp_path / "kept").frame()) == len(some)
    assert len([*(tmp_path / "kept").glob("clips-*")]) == 3


def test_clips_without_files_are_predicted_from_their_stores_only(filmed, tmp_path):
    of, _, folder = filmed
    clips = tuple(dataclasses.replace(clip, source="") for clip in of)
    dataclasses.replace(of, clips=clips).write(tmp_path / "films.csv")
    for options in ({}, {"stores": tmp_path / "kept"}):
        with pytest.raises(ConfigError, match=r"films.csv has a source.*hog, logmel.*name the stores"):
            predict(folder, tmp_path / "films.csv", **options).frame()


def test_media_are_not_added_to_the_stores_of_a_manifest_with_labels(filmed, tmp_path):
    of, stores, folder = filmed
    with pytest.raises(ConfigError, match=r"films.*with labels.*'a'.*--stores"):
        predict(folder, linked(of, tmp_path / "films"), stores=stores)


@pytest.mark.slow
def test_clips_that_have_failed_are_tried_again_when_features_are_kept(filmed, tmp_path):
    of, _, folder = filmed
    new, options = linked(of, tmp_path / "new", broken=(2,)), {"stores": tmp_path / "kept"}
    failed = predict(folder, new, **options)
    assert len(failed.frame()) == 7
    assert {*failed.failures} == {"c"}
    (new / "c.mp4").unlink()
    os.link(of.path(of.clips[2]), new / "c.mp4")
    repaired = predict(folder, new, **options)
    assert sorted(repaired.frame().clip_id) == [*"abcdefgh"]
    assert repaired.failures == {}
    assert FeatureStore.open(tmp_path / "kept" / "new" / "hog.zarr").counts()["failed"] == 0


@pytest.mark.slow
def test_a_model_that_only_a_recipe_names_is_not_downloaded(monkeypatch):
    pytest.importorskip("transformers")
    asked = []

    def fetch(model, local_files_only=False, **others):
        asked.append(local_files_only)
        raise FileNotFoundError(model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    recipe = {"extractor": "hf:some/model", "weights_sha256": "0" * 64, "params": {"model": "some/model"}}
    with pytest.raises(WeightsError, match=r"some/model.*on this machine.*--weights hf:some/model=FOLDER"):
        remade(recipe)
    assert asked == [True]
    with pytest.raises(WeightsError):
        remade(recipe, "mine/model")
    assert asked == [True, False]


def test_broken_clips_stop_no_other(filmed, tmp_path):
    of, _, folder = filmed
    new = linked(of, tmp_path / "new", names=[*"abcdefg", "h\n\x1b[2J"], broken=(0, 4, 7))
    result = cli(folder, new, "--out", tmp_path / "p.csv")
    assert result.exit_code == 1
    assert [line["clip_id"] for line in csv.DictReader((tmp_path / "p.csv").open())] == ["b", "c", "d", "f", "g"]
    for name in ("a", "e", r"h\n\x1b[2J"):
        assert f"\n{name}: rgb, audio: " in f"\n{result.stderr}"
    assert "3 of 8 clips have no prediction" in result.stderr
    assert result.stdout == f"{tmp_path / 'p.csv'}\n"
    nothing = cli(folder, tmp_path / "new" / "a.mp4", "--out", tmp_path / "q.csv")
    assert nothing.exit_code == 1
    assert nothing.stderr.splitlines()[-1].startswith(
        "Error: none of 1 clips has a prediction; the first, a: rgb, audio: "
    )
    assert not (tmp_path / "q.csv").exists()


@pytest.mark.slow
def test_a_hundred_clips_of_which_three_are_broken(filmed, tmp_path):
    of, _, folder = filmed
    (tmp_path / "new").mkdir()
    for k in range(100):
        os.link(of.path(of.clips[k % 8]), tmp_path / "new" / f"v{k:03}.mp4")
    for k in (3, 50, 99):
        (tmp_path / "new" / f"v{k:03}.mp4").unlink()
        (tmp_path / "new" / f"v{k:03}.mp4").write_bytes(b"no video")
    result = cli(folder, tmp_path / "new", "--out", tmp_path / "p.jsonl")
    assert result.exit_code == 1
    assert len((tmp_path / "p.jsonl").read_text().splitlines()) == 97
    assert [f"v{k:03}: " in result.stderr for k in (3, 50, 99, 4)] == [True, True, True, False]


@pytest.mark.slow
def test_an_unfinished_store_is_filled_from_the_media(filmed, tmp_path):
    """Clips that were not tried, or were added behind those of a store, are extracted."""
    of, stores, folder = filmed
    part = tmp_path / "part" / "films"
    dataclasses.replace(of, clips=of.clips[:5]).write(tmp_path / "films.csv")
    extract(
        Manifest.read(tmp_path / "films.csv"),
        load_extractors(["hog"], ["hog.count=1"]),
        tmp_path / "part",
        plan=Plan("segments", 2),
    )
    of.write(part / "manifest.csv")
    expected = predict(folder, stores / "films").frame()
    pd.testing.assert_frame_equal(predict(folder, part).frame(), expected)
    assert [path.name for path in part.iterdir() if path.suffix == ".zarr"] == ["hog.zarr"]


def test_a_recipe_that_this_installation_cannot_repeat(filmed, tmp_path, monkeypatch):
    of, _, folder = filmed
    new = linked(of, tmp_path / "new")
    monkeypatch.setattr(extraction, "version", lambda name: "99" if name == "av" else "1")
    words = r"hog.*decoders\.av is '.*' in the run and '99' in this installation.*install av \d.*stores"
    with pytest.raises(ConfigError, match=words):
        predict(folder, new).frame()


@pytest.mark.slow
def test_weights_that_are_not_at_hand_are_named_with_their_digest(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATCACHE_WEIGHTS", str(tmp_path))
    sha256 = "2609088c2e8c868187c9921c50bc225329a9057ed75e76120e0b4a397a2c7538"
    recipe = load("i3d-rgb").recipe | {"weights_sha256": sha256}
    with pytest.raises(
        WeightsError, match=rf"i3d-rgb needs the weights \(i3d-rgb\) whose SHA-256 is {sha256}.*weights fetch i3d"
    ):
        remade(recipe)
    made = load("tbn-audio").ready(Runtime("untrained", 3))
    assert remade(made.recipe).recipe == made.recipe


@pytest.mark.slow
def test_weights_are_found_by_their_digest(filmed, tmp_path, monkeypatch):
    """The user's file or one of the folder of weights serves; others are refused with both digests."""
    of, _, _ = filmed
    of = dataclasses.replace(of, clips=tuple(clip for k, clip in enumerate(of) if k in (0, 3, 4, 7)))
    monkeypatch.setenv("FEATCACHE_WEIGHTS", str(tmp_path / "weights"))
    files = [tmp_path / "mine.pth", tmp_path / "other.pth"]
    for seed, path in enumerate(files):
        net = BNInception(1)
        fill_by_seed(net, seed)
        torch.save(net.state_dict(), path)
    loaded = load_extractors(["tbn-audio"], weights=[f"tbn-audio={files[0]}"])
    extract(of, loaded, tmp_path / "stores", plan=Plan("segments", 2))
    made = run(manifest="films", feeds={"audio": Feed("tbn-audio")}, source=("d0",), test="d1", steps=2)
    folder, sha256 = train(made, tmp_path / "stores", tmp_path / "runs"), weights.digest(files[0])
    expected, film = predict(folder, tmp_path / "stores" / "films").frame(), of.path(of.clips[3])
    with pytest.raises(
        WeightsError, match=rf"tbn-audio needs the weights whose SHA-256 is {sha256}.*--weights tbn-audio=FILE"
    ):
        predict(folder, film).frame()
    with pytest.raises(ConfigError, match=rf"weights_sha256 is '{sha256}' in the run and '{weights.digest(files[1])}'"):
        predict(folder, film, weights=[f"tbn-audio={files[1]}"]).frame()
    by_file = predict(folder, film, weights=[f"tbn-audio={files[0]}"]).frame()
    (tmp_path / "weights").mkdir()
    shutil.copy(files[0], tmp_path / "weights" / "tbn-epic-100.pth")
    for table in (by_file, predict(folder, film).frame()):
        assert table.probabilities[0] == pytest.approx(expected.set_index("clip_id").probabilities["c7"], abs=1e-6)


@pytest.mark.slow
def test_a_model_is_found_by_its_folder(filmed, tmp_path):
    pytest.importorskip("transformers")
    of, _, _ = filmed
    of = dataclasses.replace(of, clips=tuple(clip for k, clip in enumerate(of) if k in (0, 3, 4, 7)))
    model = hf_models.dinov2(tmp_path / "tiny")
    extract(of, load_extractors([f"hf:{model}"]), tmp_path / "stores", plan=Plan("segments", 2))
    made = run(manifest="films", feeds={"rgb": Feed("hf-tiny")}, source=("d0",), test="d1", steps=2)
    folder, film = train(made, tmp_path / "stores", tmp_path / "runs"), of.path(of.clips[3])
    with pytest.raises(WeightsError, match=r"hf:tiny.*SHA-256 is \w{64}.*--weights hf:tiny=FOLDER"):
        predict(folder, film).frame()
    table = predict(folder, film, weights=[f"hf:tiny={model}"]).frame()
    expected = predict(folder, tmp_path / "stores" / "films").frame().set_index("clip_id")
    assert table.probabilities[0] == pytest.approx(expected.probabilities["c7"], abs=1e-6)


# --------------------------------------------------------------------------------------------------- the command line


def test_the_three_formats_have_the_same_values(folder, stores, tmp_path):
    words = (folder, stores / "toy", "--domain", "night", "--top-k", 2)
    for ending in ("csv", "jsonl", "parquet"):
        result = cli(*words, "--out", tmp_path / f"p.{ending}")
        assert (result.exit_code, result.stdout) == (0, f"{tmp_path / f'p.{ending}'}\n")
    table = pd.read_parquet(tmp_path / "p.parquet")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    cells = list(csv.DictReader((tmp_path / "p.csv").open(newline="")))
    columns = ["clip_id", "start", "stop", "unit", "task", "label", "predicted", "classes", "probabilities"]
    assert list(table.columns) == list(lines[0]) == list(cells[0]) == columns
    assert len(table) == len(lines) == len(cells) == 18
    for row, line, cell in zip(table.itertuples(), lines, cells, strict=True):
        assert row.clip_id == line["clip_id"] == cell["clip_id"]
        assert row.predicted == line["predicted"] == cell["predicted"] == row.classes[0]
        assert np.array_equal(row.probabilities, np.float32(line["probabilities"]))
        assert json.loads(cell["probabilities"]) == line["probabilities"]
        assert json.loads(cell["classes"]) == line["classes"] == row.classes.tolist()
    result = cli(*words)
    assert result.stdout == (tmp_path / "p.csv").read_text()
    assert table.attrs["classes"] == {"label": ["chop", "peel", "stir"]}


def test_a_run_is_found_by_its_id(folder, stores, tmp_path):
    assert find_run(Path(folder.name), folder.parent).config.id == folder.name
    result = cli(folder.name, stores / "toy", "--runs", folder.parent)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 37


def test_the_weights_of_the_last_point_are_named_where_another_is_selected(stores, tmp_path):
    folder = train(run(eval_every=4, keep=3, select="oracle"), stores, tmp_path)
    result = cli(folder, stores / "toy")
    assert result.exit_code == 0
    assert "'oracle'" in result.stderr
    assert "step 12" in result.stderr


WRONG = {  # words, and what the sentence names
    "no run": (("nope", "toy"), r"nope is no finished run.*runs has none of that id"),
    "a folder of runs": (("runs", "toy"), r"runs is a folder of runs; name one of them: source_only"),
    "clips that do not exist": (("RUN", "nothere.mp4"), "nothere.mp4: it does not exist"),
    "an empty folder": (("RUN", "empty"), "no videos.* under empty"),
    "a file of another kind": (("RUN", "notes.txt"), "notes.txt names no clips"),
    "a manifest without columns": (("RUN", "bad.csv"), "bad.csv line 1: column 'domain' is missing"),
    "all stores": (("RUN", "stores"), r"stores has the stores of several manifests.*stores/toy"),
    "clips twice": (("RUN", "toy", "copy"), "36 clips come twice, in toy and in copy: 'day_chop_train0'"),
    "a manifest twice": (("RUN", "toy/manifest.csv", "toy/manifest.csv"), "36 clips come twice, in toy/manifest.csv:"),
    "a file twice": (("RUN", "a.mp4", "a.mp4"), "a clip comes twice, in a.mp4: 'a.mp4'"),
    "a folder of runs for clips": (("RUN", "runs"), "runs is a folder of runs, not of clips"),
    "an unknown ending": (("RUN", "toy", "--out", "p.xlsx"), r"--out p.xlsx must end in .*\.csv"),
    "an existing file": (("RUN", "toy", "--out", "notes.csv"), "notes.csv exists.*--overwrite"),
    "a folder as file": (("RUN", "toy", "--out", "folder.csv"), "folder.csv is a folder"),
    "a place that cannot be written to": (("RUN", "toy", "--out", "notes.txt/p.csv"), "notes.txt"),
    "no such domain": (("RUN", "toy", "--domain", "dusk"), "no clip has --domain dusk.*day, night"),
    "no such split": (("RUN", "toy", "--split", "val"), r"--split val.*day \(test, train\), night \(test, train\)"),
    "a store that no run reads": (("RUN", "toy/hog.zarr", "toy/rms.zarr"), "rms.zarr holds features by rms.*hog"),
    "weights of another extractor": (("RUN", "toy", "--weights", "hig=x"), "no extractor 'hig'.*hog"),
    "weights without a file": (("RUN", "toy", "--weights", "hog"), "--weights hog: write .*EXTRACTOR=FILE"),
    "no such device": (("RUN", "toy", "--device", "gpu7"), "no device 'gpu7'"),
}


@pytest.fixture(scope="module")
def place(folder, stores, tmp_path_factory):
    """A folder of things that are no run or no clips, of stores, and of runs."""
    base = tmp_path_factory.mktemp("place")
    for name in ("toy", "copy"):
        shutil.copytree(stores / "toy", base / name)
    write_store(base / "toy", manifest(), "rms")
    (base / "stores").symlink_to(stores)
    (base / "runs").symlink_to(folder.parent)
    (base / "empty").mkdir()
    (base / "folder.csv").mkdir()
    (base / "a.mp4").write_bytes(b"")
    for name, text in {"notes.txt": "mine", "notes.csv": "mine", "bad.csv": "clip_id,source\na,a.mp4\n"}.items():
        (base / name).write_text(text)
    return base


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence(case, folder, place, monkeypatch):
    monkeypatch.chdir(place)
    before, (words, expected) = sorted(place.iterdir()), WRONG[case]
    result = cli(*(folder if word == "RUN" else word for word in words))
    assert result.exit_code == 1, result.output
    assert len([line for line in result.stderr.splitlines() if line.startswith("Error: ")]) == 1
    assert re.search(expected, " ".join(result.stderr.split())), result.stderr
    assert sorted(place.iterdir()) == before
    assert (place / "notes.csv").read_text() == "mine"


@pytest.mark.parametrize("value", ["3", 2.5, True])
@pytest.mark.parametrize("option", ["top_k", "workers"])
def test_a_number_of_another_type_is_one_sentence(folder, stores, option, value):
    with pytest.raises(ArgumentsError, match=f"{option} is {value!r}, .*whole number"):
        predict(folder, stores / "toy", **{option: value})


def test_an_empty_domain_is_no_domain(folder, stores):
    with pytest.raises(ArgumentsError, match="--domain is empty; name"):
        predict(folder, stores / "toy", domain="")


def test_a_damaged_run_is_named(folder, stores, tmp_path):
    broken = tmp_path / folder.name
    shutil.copytree(folder, broken)
    (broken / HEAD).write_bytes(b"")
    with pytest.raises(NotTrainedError, match=HEAD):
        predict(broken, stores / "toy")


def test_features_in_memory_are_those_of_a_store(filmed):
    """They are equal where only some rows are wanted, too, and are rounded as the store rounds them."""
    of, stores, _ = filmed
    (hog,) = load_extractors(["hog"], ["hog.count=1"])
    found, _ = extraction.extract_rows(of, {hog: [1, 5]}, plan=Plan("segments", 2), dtypes={"hog": "float16"})
    store = FeatureStore.open(stores / "films" / "hog.zarr")
    assert {*found["hog"]} == {1, 5}
    for row, x in found["hog"].items():
        assert x.dtype == np.float16
        assert np.array_equal(x, store[row])
