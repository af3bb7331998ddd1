"""CoDT's tables: rows, steps, numbers as printed, and the stores and manifests that their docstrings make."""

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
from pipelines.evaluation.evaluate import evaluate
from pipelines.tables.build import render
from pipelines.tasks import clustering
from pipelines.training.train import train
from tests.featcache.test_builders_skeletons import WRITERS

torch.set_num_threads(1)
TABLE = experiments.load("codt_supplement")
KINECT = experiments.load("codt_kinect")
PARTS = {"kinetics_ntu60": ("kinetics_skeleton", "ntu60_hrnet"), "gym_skeletics": ("gym_vibe", "skeletics")}


@pytest.mark.parametrize("table", [TABLE, KINECT], ids=lambda table: table.name)
def test_rows_are_the_second_stage_of_one_first_stage_and_differ_in_their_losses_alone(table):
    runs = [run for run in table.runs if run.row != "joints"]
    rows = {"BM": "ccm", "BM+OCM": "ccm", "BM+OCM+CCM": "ccm"}
    if table is KINECT:
        rows |= {"BM+OCM+CCM-FP": "fp", "BM+OCM+CCM-PF": "pf"}
    assert [row for row in table.rows if row != "joints"] == list(rows)
    assert len(runs) == (1 + len(rows)) * 3 * len({(run.source, run.target) for run in runs})
    given, rate, size = (codt.Params(), 0.1, 128) if table is TABLE else (codt.Params(alpha=0.99), 0.01, 32)
    for run in runs:
        of = run.method
        weights = (of.lambda_sup, of.lambda_dec, of.lambda_cont, of.lambda_cls, of.lambda_cot)
        expected = {
            "": (1, 20, 1, 0, 0),
            "BM": (1, 20, 1, 0, 0),
            "BM+OCM": (1, 20, 1, 5, 0),
            "BM+OCM+CCM": (1, 20, 1, 5, 10),
        }
        assert weights == expected[run.row.removesuffix("-FP").removesuffix("-PF")]
        changes = {"lambda_cls": weights[3], "lambda_cot": weights[4], "strong": bool(run.row)}
        assert of == replace(given, **changes, variant=rows.get(run.row, "ccm"))
        first = table.by_id[run.init_from] if run.row else run
        assert (first.seed, first.manifest, first.row, first.init_from) == (run.seed, run.manifest, "", None)
        assert (first.source, first.target, first.test) == (run.source, run.target, run.target)
        assert (first.optim.lr, run.optim.lr) == (rate, 0.01 if run.row else rate)
        assert (run.select, run.fidelity, run.batch) == ("last", "exact", (size, size))


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
        assert TABLE.published_numbers("BM", metric, False)["kinetics→ntu60"] == 12.2
    assert TABLE.published_numbers("BM+OCM", "acc_dominant/B0", False)["kinetics→ntu60"] == 13.6
    assert TABLE.published_numbers("BM+OCM", "acc_dominant/B0/kmeans", False) == {}
    assert TABLE.published_numbers("BM", "acc_hungarian/B0", True) == {}


def test_joints_of_the_real_experiment_are_trained_for_no_step_and_the_stores_are_those_of_its_docstring():
    joints = [run for run in KINECT.runs if run.row == "joints"]
    assert {run.steps for run in joints} == {0}
    assert len(joints) == 9
    assert {run.steps for run in KINECT.runs if run.row == ""} == {500}
    assert {run.steps for run in KINECT.runs if run.row not in ("", "joints")} == {200}
    assert f"{len(KINECT.runs)} runs" in KINECT.doc
    assert "500 and 200 steps" in KINECT.doc
    (layouts,) = re.findall(r"for layout in (.*); do", KINECT.doc)
    stores = {run.feeds["skeleton"].store for run in KINECT.runs}
    assert stores == {f"skeleton-{layout}" for layout in layouts.split()}
    assert {run.manifest for run in KINECT.runs} == {"kinect_actions"} <= WRITERS.keys()
    assert all("kinect-15" in run.feeds["skeleton"].store for run in KINECT.runs if run.target == "florence")


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


@pytest.mark.parametrize(
    ("table", "source", "target", "printed"),
    [
        (TABLE, "kinetics", "ntu60", ["10.4", "12.1", "13.9"]),  # in the plane
        pytest.param(TABLE, "gym", "skeletics", ["18.7", "21.8", "23.4"], marks=pytest.mark.slow),
        (KINECT, "utk", "msr", []),
        pytest.param(KINECT, "utk", "florence", [], marks=pytest.mark.slow),
        pytest.param(KINECT, "msr", "florence", [], marks=pytest.mark.slow),
    ],
)
def test_every_row_trains_and_stands_in_the_table(tmp_path, monkeypatch, table, source, target, printed):
    monkeypatch.setattr(clustering, "RESTARTS", 1)
    small = table.changed(["steps=1", "batch=6,6", "net.width=2", "net.dim=8", "net.kernel=3"], "0")
    experiment = replace(small, runs=tuple(r for r in small.runs if (r.source, r.target) == ((source,), target)))
    manifest = experiment.runs[0].manifest
    domains = sorted({domain for run in experiment.runs for domain in (*run.source, run.target)})
    for store in {run.feeds["skeleton"].store for run in experiment.runs}:
        write_store(tmp_path / "stores", manifest, store, domains)
    folders = [train(run, tmp_path / "stores", tmp_path / "runs") for run in experiment.runs]
    rows = [
        row
        for run, folder in zip(experiment.runs, folders, strict=True)
        if run.row
        for row in evaluate(folder, tmp_path / "stores", table.name)
    ]
    said = render(rows, experiment, "acc_dominant/B1")
    assert all(f"| {row} " in said for row in table.rows)
    assert all(f"({number})" in said for number in printed)
