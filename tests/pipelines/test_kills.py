"""Killed while anything is written: what was there or the new one is there, and the next call leaves nothing else."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache import Clip, FeatureStore, Manifest, bridges
from featcache.bridges import External
from featcache.errors import StoreError
from featcache.store import StoreWriter, archive
from heads.batch import Spec
from pipelines.report.write import write as write_report
from pipelines.training import runs
from pipelines.training.train import train
from tests.helpers.crash import content, killed_at, lines_in
from tests.helpers.formats import rows
from tests.helpers.result_rows import config, experiment
from tests.helpers.result_rows import rows as result_rows
from tests.helpers.stores import manifest, run, write_all

SPEC = Spec(shapes={"rgb": (4,)}, windows={"rgb": 1}, classes={"label": 2}, rows={}, domains=("day",))
FORMATS = [name for name in bridges.names() if hasattr(bridges.load(name), "write")]


def write_export(format, version, out):
    tables = {"rgb": External([f"{version}{k}" for k in range(3)], rows(2, 2, 2, size=4).__getitem__)}
    bridges.load(format).write(out, tables)


def write_manifest(version, out):
    Manifest("m", (Clip(version, "d", "train", "a.mp4"),), out.parent).write(out)


def write_page(version, out):
    toy = experiment(seeds=(0,))
    write_report(toy, result_rows(toy), Path("runs"), Path("stores"), out, date=version)


def write_run(version, out):
    weights, outputs = {"w": torch.full((3, 3), float(len(version)))}, {"rows": np.arange(len(version))}
    runs.write(
        out,
        config("Source only", ("day",), "night", 0),
        SPEC,
        {"note": version},
        log=[],
        weights=weights,
        outputs=outputs,
    )


JOBS = {
    **{f"export {name}": lambda version, out, name=name: write_export(name, version, out) for name in FORMATS},
    "manifest": write_manifest,
    "report": write_page,
    "run": write_run,
}


def found(folder):
    """File -> bytes, without what is beside its place."""
    return {name: data for name, data in content(folder).items() if ".partial/" not in name}


@pytest.fixture(scope="module", autouse=True)
def no_waiting():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(os, "sync", lambda: None)
        yield


FAST = ("export npy", "export npz", "manifest", "report", "run")  #: several files, and one


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("job", [pytest.param(job, marks=() if job in FAST else pytest.mark.slow) for job in JOBS])
def test_killed_at_any_line(tmp_path, job, kills):
    write = JOBS[job]
    for version in ("old", "newer"):
        write(version, tmp_path / version / "o.x")
    old, new = (content(tmp_path / version) for version in ("old", "newer"))
    folder, half = tmp_path / "t", []
    for before in ({}, old):
        lines = lines_in("featcache/files.py", lambda: write("newer", tmp_path / "count" / "o.x"))
        for line in np.unique(np.linspace(1, lines, kills, dtype=int)).tolist():
            if before:
                shutil.copytree(tmp_path / "old", folder)
            assert killed_at(line, "featcache/files.py", lambda: write("newer", folder / "o.x"))
            if found(folder) not in (before, new, {}):
                half.append(line)
            write("newer", folder / "o.x")
            assert content(folder) == new, line
            assert not [path for path in folder.rglob("*") if ".partial" in path.name], line
            shutil.rmtree(folder)
    pairs = job in ("export npy", "export mmaction2")  # features and a file of ids: a kill leaves one of them, or none
    assert half == [] or pairs


def leave_beside(path):
    """What a process leaves that is killed after `path` has got its name."""
    scratch = path.with_name(f".{path.name}.7-0a.partial")
    scratch.mkdir(parents=True)
    (scratch / "lock").touch()
    return scratch


def test_what_is_finished_and_kept_is_tidied_too(tmp_path):
    """These calls write nothing the second time."""
    stores, store = write_all(tmp_path / "stores"), tmp_path / "stores" / "toy" / "hog.zarr"
    folder = train(run(), stores, tmp_path / "runs")
    archive.pack(store, tmp_path / "hog.zarr")
    left = [leave_beside(path) for path in (folder, store, tmp_path / "hog.zarr", tmp_path / "other")]
    assert train(run(), stores, tmp_path / "runs") == folder
    made = FeatureStore.open(store)
    StoreWriter.open(store, manifest(), made.recipe, row_shape=made.row_shape, windows=made.windows, facts={}).close()
    with pytest.raises(StoreError, match="exists"):
        archive.pack(store, tmp_path / "hog.zarr")
    assert [path.exists() for path in left] == [False, False, False, True]
