"""CoDT's table: rows, steps, numbers as printed, and the stores and manifests that its docstring makes."""

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from featcache.manifest import Clip, Manifest
from featcache.store import StoreWriter
from heads.methods import codt
from pipelines import experiments
from pipelines.evaluate import evaluate
from pipelines.tables import render
from pipelines.train_head import train
from tests.test_builders_skeletons import WRITERS

torch.set_num_threads(1)
TABLE = experiments.load("codt_supplement")
PARTS = {"kinetics_ntu60": ("kinetics_skeleton", "ntu60_hrnet"), "gym_skeletics": ("gym_vibe", "skeletics")}


def test_rows_are_the_second_stage_of_one_first_stage_and_differ_in_their_losses_alone():
    assert TABLE.rows == ("BM", "BM+OCM", "BM+OCM+CCM")
    assert len(TABLE.runs) == 4 * 2 * 3
    for run in TABLE.runs:
        of = run.method
        weights = (of.lambda_sup, of.lambda_dec, of.lambda_cont, of.lambda_cls, of.lambda_cot)
        expected = {
            "": (1, 20, 1, 0, 0),
            "BM": (1, 20, 1, 0, 0),
            "BM+OCM": (1, 20, 1, 5, 0),
            "BM+OCM+CCM": (1, 20, 1, 5, 10),
        }
        assert weights == expected[run.row]
        assert of == replace(codt.Params(), lambda_cls=weights[3], lambda_cot=weights[4], strong=bool(run.row))
        first = TABLE.by_id[run.init_from] if run.row else run
        assert (first.seed, first.manifest, first.row, first.init_from) == (run.seed, run.manifest, "", None)
        assert (first.optim.lr, run.optim.lr) == (0.1, 0.01 if run.row else 0.1)
        assert (run.select, run.fidelity, run.batch) == ("last", "exact", (128, 128))


def test_a_stage_has_150_passes_over_the_target():
    clips = {"ntu60": 37_646, "skeletics": 24_265}
    for run in TABLE.runs:
        assert run.steps == 150 * -(-clips[run.target] // 128)
        assert f"{run.steps:,}" in TABLE.doc


def test_the_docstring_makes_the_manifests_and_stores():
    for run in TABLE.runs:
        first, second = PARTS[run.manifest]
        assert {first, second} <= WRITERS.keys()
        assert re.search(rf"manifest join \S+/{first}.csv \S+/{second}.csv {run.manifest}.csv\n", TABLE.doc)
        (feed,) = run.feeds.values()
        assert f"extract {run.manifest}.csv skeleton" in TABLE.doc
        assert f"skeleton.layout={feed.store.removeprefix('skeleton-')}" in TABLE.doc
        for name in (first, second):
            assert f"featcache manifest build {name} " in TABLE.doc


def test_numbers_are_those_printed():
    """Columns of Table 2 sum to what they do in print."""
    printed = {"gym→skeletics": (120.8, 140.6, 47.3), "kinetics→ntu60": (76.8, 157.8, 34.0)}
    for shift, sums in printed.items():
        cells = [TABLE.published[row][shift] for row in TABLE.rows]
        for measure, expected in zip(("acc_dominant", "nmi", "ari"), sums, strict=True):
            values = [value for cell in cells for name, value in cell.items() if name.startswith(measure)]
            assert len(values) == 6
            assert sum(values) == pytest.approx(expected)
        assert all(name.endswith("/kmeans") == (k == 0) for k, cell in enumerate(cells) for name in cell)


def test_published_numbers_by_k_means_stand_where_the_row_has_no_others():
    for metric in ("acc_dominant/B0", "acc_dominant/B0/kmeans"):
        assert TABLE.theirs("BM", metric, False)["kinetics→ntu60"] == 12.2
    assert TABLE.theirs("BM+OCM", "acc_dominant/B0", False)["kinetics→ntu60"] == 13.6
    assert TABLE.theirs("BM+OCM", "acc_dominant/B0/kmeans", False) == {}
    assert TABLE.theirs("BM", "acc_hungarian/B0", True) == {}


def write_store(folder, name, store, domains):
    """Random skeletons of 8 frames; of each domain 3 classes, 4 clips of each to train on and 2 to test."""
    V = int(store.rpartition("-")[2])
    clips = [
        Clip(f"{domain}{k}-{split}{n}", domain, split, "s.npy", labels={"label": f"{domain}:{k}"})
        for domain, k, (split, count) in product(domains, range(3), (("train", 4), ("test", 2)))
        for n in range(count)
    ]
    of, rng = Manifest(name, tuple(clips)), np.random.default_rng(0)
    of.write(folder / name / "manifest.csv")
    recipe = {
        "extractor": "skeleton",
        "version": 1,
        "modality": "skeleton",
        "weights_sha256": "none",
        "dtype": "float32",
    }
    path = folder / name / f"{store}.zarr"
    with StoreWriter.open(path, of, recipe, row_shape=(3, 8, V, 2), windows=1, facts={}) as writer:
        for row in range(len(clips)):
            writer.done(row, rng.normal(size=(1, 3, 8, V, 2)).astype(np.float32), np.zeros(1), np.ones(1))


def test_every_row_trains_and_stands_in_the_table(tmp_path):
    """In the plane, which no other run is in."""
    name, domains = "kinetics_ntu60", ("kinetics", "ntu60")
    write_store(tmp_path / "stores", name, "skeleton-coco-17", domains)
    small = TABLE.changed(["steps=1", "batch=6,6", "net.width=2", "net.dim=8", "net.kernel=3"], "0")
    experiment = replace(small, runs=tuple(run for run in small.runs if run.manifest == name))
    folders = [train(run, tmp_path / "stores", tmp_path / "runs") for run in experiment.runs]
    rows = [row for folder in folders[1:] for row in evaluate(folder, tmp_path / "stores", TABLE.name)]
    said = render(rows, experiment, "acc_dominant/B1")
    assert all(f"({number})" in said for number in ("10.4", "12.1", "13.9"))
