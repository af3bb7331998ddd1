"""CoDT's tables: rows, steps, numbers as printed, and the stores and manifests that their docstrings make."""

import re
import warnings
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from featcache import FeatureStore
from featcache.manifest import Clip, Manifest
from featcache.store import DONE, StoreWriter
from heads.methods import codt
from pipelines import experiments
from pipelines.cli import main
from pipelines.evaluation.evaluate import evaluate
from pipelines.tables.build import render
from pipelines.tasks import clustering
from pipelines.training.train import train
from tests.featcache.test_builders_skeletons import WRITERS

torch.set_num_threads(1)
TABLE = experiments.load("codt_supplement")
KINECT = experiments.load("codt_kinect")
MAIN = experiments.load("codt_main")
PARTS = {  #: manifest -> the builders of its parts
    "kinetics_ntu60": ("kinetics_skeleton", "ntu60_hrnet"),
    "gym_skeletics": ("gym_vibe", "skeletics"),
    "ntu60_skeletics": ("ntu60_xview", "skeletics"),
    "skeletics_pkummd": ("skeletics", "pkummd_xview"),
    "ntu60plus_pkummd": ("ntu60plus_xsub", "pkummd_xsub"),
}


@pytest.mark.parametrize("table", [TABLE, KINECT, MAIN], ids=lambda table: table.name)
def test_rows_are_the_second_stage_of_one_first_stage_and_differ_in_their_losses_alone(table):
    runs = [run for run in table.runs if run.row != "joints"]
    rows = {"BM": "ccm", "BM+OCM": "ccm", "BM+OCM+CCM": "ccm"}
    if table is not TABLE:
        rows |= {"BM+OCM+CCM-FP": "fp", "BM+OCM+CCM-PF": "pf"}
    assert [row for row in table.rows if row != "joints"] == list(rows)
    assert len(runs) == (1 + len(rows)) * 3 * len({(run.source, run.target) for run in runs})
    given, rate, size = (codt.Params(alpha=0.99), 0.01, 32) if table is KINECT else (codt.Params(), 0.1, 128)
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


@pytest.mark.parametrize("table", [TABLE, MAIN], ids=lambda table: table.name)
def test_a_stage_has_150_passes_over_the_target(table):
    clips = {"ntu60": 37_646, "skeletics": 24_265, "skeletics_pkummd": 14_357, "ntu60plus_pkummd": 18_841}
    for run in table.runs:
        assert run.steps == 150 * -(-clips[run.manifest if run.target == "pkummd" else run.target] // 128)
        assert f"{run.steps:,}" in table.doc


@pytest.mark.parametrize("table", [TABLE, MAIN], ids=lambda table: table.name)
def test_the_docstring_makes_the_manifests_and_stores(table):
    assert re.search(rf"^{len(table.runs)} runs", table.doc, re.MULTILINE)
    for run in table.runs:
        first, second = PARTS[run.manifest]
        assert {first, second} <= WRITERS.keys()
        assert re.search(rf"manifest join \S+/{first}.csv \S+/{second}.csv {run.manifest}.csv\n", table.doc)
        commands = [line for line in table.doc.splitlines() if f"extract {run.manifest}.csv skeleton" in line]
        for feed in run.feeds.values():
            layout = feed.store.removeprefix("skeleton-")
            assert any(f"skeleton.layout={layout}" in command for command in commands)
        for name in (first, second):
            assert f"featcache manifest build {name} " in table.doc


def test_the_main_shifts_have_the_protocols_and_joints_of_the_supplement():
    """Branch B1 has all joints of the target where the source lacks them; nothing published stands beside our rows."""
    stores = {run.manifest: [feed.store for feed in run.feeds.values()] for run in MAIN.runs}
    assert stores == {
        "ntu60_skeletics": ["skeleton-shared-15"],
        "skeletics_pkummd": ["skeleton-shared-15", "skeleton-ntu-25"],
        "ntu60plus_pkummd": ["skeleton-ntu-25"],
    }
    assert len({run.id for run in MAIN.runs}) == len(MAIN.runs) == 54
    assert MAIN.published is None
    assert "NO PUBLISHED NUMBERS" in MAIN.note


def test_the_commands_of_the_main_shifts_make_their_stores_of_small_files(tmp_path, monkeypatch):
    """The docstring's own commands, up to the training; Skeletics' clips have no row of 25 joints."""
    monkeypatch.chdir(tmp_path)
    for folder, name in {"NTU": "ntu60_xview", "SKELETICS": "skeletics", "PKU": "pkummd_xview"}.items():
        (tmp_path / folder).mkdir()
        WRITERS[name](tmp_path / folder)
    lines = re.findall(r"featcache ((?:manifest|extract) [^&#\n]*)", MAIN.doc)
    assert len(lines) == 12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few clips
        for line in lines:
            result = CliRunner().invoke(main, line.split())
            fails = "skeletics_pkummd.csv" in line and "ntu-25" in line
            assert result.exit_code == fails, (line, result.output)
    for run in MAIN.runs:
        for feed in run.feeds.values():
            store = FeatureStore.open(tmp_path / "stores" / run.manifest / f"{feed.store}.zarr")
            clips = Manifest.read(tmp_path / "stores" / run.manifest / "manifest.csv").clips
            done = {clip.domain for clip, state in zip(clips, store.state, strict=True) if state == DONE}
            assert done == {run.target, *(run.source if "source" in feed.seen_by else ())}


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


def write_store(folder, name, store, domains, failing=()):
    """Random skeletons of 8 frames; of each domain 3 classes, 4 clips of each to train on and 2 to test.

    failing: domains whose clips lack these joints.
    """
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
        for row, clip in enumerate(clips):
            if clip.domain in failing:
                writer.failed(row, "no such joints")
                continue
            writer.done(row, rng.normal(size=(1, 3, 8, V, 2)).astype(np.float32), np.zeros(1), np.ones(1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "source", "target", "printed"),
    [
        (TABLE, "kinetics", "ntu60", ["10.4", "12.1", "13.9"]),  # in the plane
        (TABLE, "gym", "skeletics", ["18.7", "21.8", "23.4"]),
        (MAIN, "skeletics", "pkummd", []),
        (MAIN, "ntu60", "skeletics", []),
        (MAIN, "ntu60plus", "pkummd", []),
        (KINECT, "utk", "msr", []),
        (KINECT, "utk", "florence", []),
        (KINECT, "msr", "florence", []),
    ],
)
def test_every_row_trains_and_stands_in_the_table(tmp_path, monkeypatch, table, source, target, printed):
    said = trained_and_printed(tmp_path, monkeypatch, table, source, target)
    assert all(f"| {row} " in said for row in table.rows)
    assert all(f"({number})" in said for number in printed)


def test_a_source_without_the_joints_of_branch_b1_is_no_obstacle(tmp_path, monkeypatch):
    said = trained_and_printed(tmp_path, monkeypatch, MAIN, "skeletics", "pkummd", ["BM+OCM+CCM-PF"])
    assert "| BM+OCM+CCM-PF " in said
    assert "(" not in said.split("NO PUBLISHED NUMBERS")[0]  # no number of a paper


def trained_and_printed(tmp_path, monkeypatch, table, source, target, only=()):
    """The table of one shift of a tiny copy, from random skeletons."""
    monkeypatch.setattr(clustering, "RESTARTS", 1)
    small = table.changed(["steps=1", "batch=6,6", "net.width=2", "net.dim=8", "net.kernel=3"], "0", only)
    experiment = replace(small, runs=tuple(r for r in small.runs if (r.source, r.target) == ((source,), target)))
    manifest = experiment.runs[0].manifest
    domains = sorted({domain for run in experiment.runs for domain in (*run.source, run.target)})
    for feed in {feed for run in experiment.runs for feed in run.feeds.values()}:
        failing = () if "source" in feed.seen_by else (source,)
        write_store(tmp_path / "stores", manifest, feed.store, domains, failing)
    folders = [train(run, tmp_path / "stores", tmp_path / "runs") for run in experiment.runs]
    rows = [
        row
        for run, folder in zip(experiment.runs, folders, strict=True)
        if run.row
        for row in evaluate(folder, tmp_path / "stores", table.name)
    ]
    return render(rows, experiment, "acc_dominant/B1")
