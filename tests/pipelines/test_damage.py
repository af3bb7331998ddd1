"""Damaged files never change a number: every use of them is as before, or an error of one sentence that has the fix."""

import dataclasses
import json
import os
import random
import re
import shutil
import warnings

import numpy as np
import pytest
from click.testing import CliRunner

from featcache import FeatureStore
from featcache.errors import ConfigError, FeatcacheError, StoreError
from featcache.exporting import export_features
from featcache.files import remembered
from featcache.importing import import_features
from featcache.leaks import leaks
from featcache.manifest import Manifest
from featcache.store import _format, archive, digests, info
from featcache.store.mapped import Mapped
from pipelines.cli import main
from pipelines.data.draws import draws
from pipelines.data.opening import open_run
from pipelines.evaluation.evaluate import evaluate, predictions
from pipelines.training import runs as kept
from pipelines.training.runs import Run
from pipelines.training.train import train
from tests.helpers.damage import damage
from tests.helpers.stores import run, small_blocks, write_all
from tests.helpers.weights import EARLIER, as_earlier


@pytest.fixture(scope="module", autouse=True)
def blocks():
    with small_blocks() as patch:
        patch.setattr(_format.Layout, "block_rows", 16)  # whole pages for both stores, so that they can be mapped
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """STORES/toy with a failed clip, the same stores as archives, and two runs."""
    folder = tmp_path_factory.mktemp("damage")
    write_all(folder / "stores", states={3: "failed"}, windows=32)
    (folder / "packed" / "toy").mkdir(parents=True)
    shutil.copy(folder / "stores/toy/manifest.csv", folder / "packed/toy/manifest.csv")
    for name in ("hog", "hof"):
        archive.pack(folder / f"stores/toy/{name}.zarr", folder / f"packed/toy/{name}.zarr")
    for seed in (0, 1):
        train(run(steps=3, seed=seed, absent="drop"), folder / "stores", folder / "runs")
    return folder


def files_of(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def fate(use):
    """The result of a use, or "refused" with a sentence that names the fix; anything else is raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return use()
        except FeatcacheError as error:
            text = str(error)
            assert "\n" not in text, text
            assert re.search(
                "featcache (check|repair|train-head|extract|pack)|another copy|copy of the|train it again", text
            ), text
            return "refused"


def numbers(value):
    """A value without what differs from call to call, such as seconds; arrays as bytes."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {name: numbers(part) for name, part in value.items()}
    return value


# ------------------------------------------------------------------------------------------------------------- stores


def uses_of_stores(stores, tmp_path):
    """Name -> a function that makes numbers or a copy from STORES/toy/hog.zarr."""
    config, path = run(steps=3, absent="drop"), stores / "toy" / "hog.zarr"

    def trained():
        run = Run.open(train(config, stores, tmp_path / f"runs{next(count)}"))
        return numbers(run.outputs), run.log()

    def batches(tier):
        opened = open_run(config, stores, tier=tier)
        side = next(draws(config, opened.sides)["source"])
        swept = [numbers(part.x["rgb"].numpy()) for part in opened.sweep("source")]
        return [numbers(x.numpy()) for x in side.x.values()], swept

    def copied():
        target = tmp_path / f"copy{next(count)}"
        report = import_features([path], "store", Manifest.read(stores / "toy/manifest.csv"), target)[0]
        return {name: (report.path / name).read_bytes() for name in files_of(report.path)}

    def exported():
        export_features([path], "npy", out := tmp_path / f"out{next(count)}.npy")
        return out.read_bytes()

    count = iter(range(10**6))
    uses = {
        "train": trained,
        "copy": copied,
        "export": exported,
        "read": lambda: numbers(FeatureStore.open(path).features),
        "frame": lambda: FeatureStore.open(path).frame().to_csv(),
        "info": lambda: {k: v for k, v in info.info(path).items() if k not in ("bytes", "store")},
        "leaks": lambda: leaks(FeatureStore.open(path), Manifest.read(stores / "toy/manifest.csv")),
    }
    if stores.name == "packed":
        return uses
    return uses | {
        "mapped": lambda: numbers(Mapped(FeatureStore.open(path)).array),
        "mapped tier": lambda: batches("mapped"),
        "streaming tier": lambda: batches("streaming"),
    }


@pytest.mark.parametrize(
    ("name", "tries"),
    [("stores", 12), ("packed", 4), *(pytest.param(n, 500, marks=pytest.mark.slow) for n in ("stores", "packed"))],
)
def test_a_damaged_store_gives_the_same_numbers_or_none(name, tries, folder, tmp_path):
    stores, rng, refused = folder / name, random.Random(tries), 0
    uses, path = uses_of_stores(stores, tmp_path), stores / "toy" / "hog.zarr"
    whole = {use: fate(make) for use, make in uses.items()}
    assert "refused" not in whole.values()
    for _ in range(tries):
        file = rng.choice(files_of(path))
        with damage(path / file, rng):
            for use in rng.sample(list(uses), 3):
                found = fate(uses[use])
                assert found in (whole[use], "refused"), f"{use} with damaged {file}"
                refused += found == "refused"
    assert refused > tries  # of three times as many; few files are in every use
    assert fate(uses["read"]) == whole["read"]


def test_a_damaged_block_is_named_with_the_fix_and_only_where_it_is_used(folder, tmp_path):
    stores = shutil.copytree(folder / "stores", tmp_path / "stores")
    path = stores / "toy" / "hog.zarr"
    store = FeatureStore.open(path)
    shard = path / "features/c/1/0/0"
    data = bytearray(shard.read_bytes())
    data[5] ^= 4
    shard.write_bytes(data)
    named = r"features/c/1/0/0 is damaged.*`featcache check .*`featcache repair .*rows 16-31 \(block 1\).*extract"
    for use in (store.read, lambda: store[store.clip_ids[17]], lambda: store.verify([17]), lambda: Mapped(store).array):
        with pytest.raises(StoreError, match=named):
            use()
    assert np.isfinite(store.read(range(16))).all()
    mapped = Mapped(store)
    x = mapped.tensor(np.arange(32, 36))  # not the damaged block
    assert np.array_equal(x[32:36].numpy(), store.read(range(32, 36)))
    with pytest.raises(StoreError, match=named):
        mapped.verify(np.array([0, 20]))
    with pytest.raises(StoreError, match=named):
        import_features([path], "store", Manifest.read(stores / "toy/manifest.csv"), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    with pytest.raises(StoreError, match=named):
        export_features([path], "npz", tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_a_block_is_verified_once_until_it_changes(folder, tmp_path, monkeypatch):
    """Also when the change keeps size and time: the time of the inode's change and its number are compared."""
    stores = shutil.copytree(folder / "stores", tmp_path / "stores")
    path = stores / "toy" / "hog.zarr"
    shard, read = path / "features/c/0/0/0", []
    monkeypatch.setattr("featcache.files.TICK", 0)  # else files that were written just now are read each time
    read_once = remembered(99)(lambda file: (read.append(file), digests.file_crc(file))[1])
    monkeypatch.setattr(digests, "shard_crc", read_once)
    for _ in range(3):
        FeatureStore.open(path).read()
    assert len(read) == len(set(read)) == FeatureStore.open(path).layout.blocks
    status, data = shard.stat(), shard.read_bytes()
    (path / "new").write_bytes(bytes([data[0] ^ 1]) + data[1:])
    os.replace(path / "new", shard)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(StoreError, match="features/c/0/0/0 is damaged"):
        FeatureStore.open(path).read([1])
    assert read.count(shard) == 2


def test_opening_a_store_reads_no_features(folder, monkeypatch):
    monkeypatch.setattr("featcache.store.digests.shard_crc", lambda path: pytest.fail(f"{path} was read"))
    store = FeatureStore.open(folder / "stores/toy/hog.zarr")
    assert store.fingerprint
    assert store.counts()["failed"] == 1
    Mapped(store)


# --------------------------------------------------------------------------------------------------------------- runs


def uses_of_a_run(folder, first, tmp_path):
    """Name -> a function that makes numbers from a run."""

    def second():
        config = run(steps=2, seed=7, absent="drop", init_from=first.name)
        runs = tmp_path / f"second{next(count)}"
        runs.mkdir()
        os.symlink(first, runs / first.name)
        return numbers(Run.open(train(config, folder / "stores", runs)).outputs)

    def classes():
        found = predictions(first, folder / "stores")
        return numbers(found.truth), numbers(found.predicted), found.classes

    count = iter(range(10**6))
    return {
        "evaluate": lambda: [dataclasses.asdict(row) for row in evaluate(first, folder / "stores")],
        "predictions": classes,
        "weights": lambda: {k: numbers(w.numpy()) for k, w in Run.open(first).method().state_dict().items()},
        "log": lambda: Run.open(first).log(),
        "init_from": second,
    }


@pytest.mark.parametrize("tries", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_a_damaged_run_gives_the_same_numbers_or_none(tries, folder, tmp_path):
    rng, first = random.Random(tries), folder / "runs" / run(steps=3, absent="drop").id
    uses = uses_of_a_run(folder, first, tmp_path)
    whole = {use: fate(make) for use, make in uses.items()}
    assert "refused" not in whole.values()
    for name in (*kept.files_of(first), "SHA256SUMS"):
        for _ in range(tries):
            with damage(first / name, rng):
                for use in uses if tries > 5 else rng.sample(list(uses), 2):
                    assert fate(uses[use]) == "refused", f"{use} with damaged {name}"
    assert {use: fate(make) for use, make in uses.items()} == whole


@pytest.mark.parametrize("tries", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_a_damaged_run_of_an_earlier_version_is_refused_without_a_traceback(tries, folder, tmp_path):
    """Its weights and outputs are zip archives, whose checksums find most damage; its JSON may hold another number."""
    first = shutil.copytree(folder / "runs" / run(steps=3, absent="drop").id, tmp_path / run(steps=3, absent="drop").id)
    as_earlier(first)
    rng, uses = random.Random(tries), uses_of_a_run(folder, first, tmp_path)
    whole = {use: fate(make) for use, make in uses.items()}
    assert "refused" not in whole.values()
    for name in ("log.jsonl", EARLIER, "outputs.npz"):
        for _ in range(tries):
            with damage(first / name, rng):
                for use in uses if tries > 5 else rng.sample(list(uses), 2):
                    found = fate(uses[use])
                    assert found in (whole[use], "refused") or name == "log.jsonl", f"{use} with damaged {name}"


def test_exchanged_outputs_and_folders_are_refused_and_the_other_runs_are_evaluated(folder, tmp_path):
    runs = shutil.copytree(folder / "runs", tmp_path / "runs")
    a, b = (runs / run(steps=3, seed=seed, absent="drop").id for seed in (0, 1))
    for one, other in ((a, b), (b, a)):
        shutil.copy(folder / "runs" / other.name / "outputs.npz", one / "outputs.npz")
    for one in (a, b):
        with pytest.raises(ConfigError, match=f"{one.name}/outputs.npz is damaged .*`featcache train-head`"):
            evaluate(one, folder / "stores")
        shutil.copy(folder / "runs" / one.name / "outputs.npz", one / "outputs.npz")
        assert evaluate(one, folder / "stores")
    a.rename(runs / "aside")
    b.rename(a)
    (runs / "aside").rename(b)
    for one, other in ((a, b), (b, a)):
        with pytest.raises(ConfigError, match=f"{one.name} is the folder of run {other.name}.*`featcache train-head`"):
            evaluate(one, folder / "stores")


# -------------------------------------------------------------------------------------------------------- the commands

EXPERIMENT = """
from dataclasses import replace
from tests.helpers.stores import run

NAME = "damage"
RUNS = [run(steps=3, absent="drop", seed=seed) for seed in (0, 1)]
"""


@pytest.fixture
def job(folder, tmp_path):
    """A function that calls a command on an experiment of two runs, and returns the result of click."""
    (tmp_path / "damage.py").write_text(EXPERIMENT)
    shutil.copytree(folder / "runs", tmp_path / "runs")
    words = [str(tmp_path / "damage.py"), "--stores", str(folder / "stores"), "--runs", str(tmp_path / "runs")]

    def call(command, *options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = CliRunner().invoke(main, [command, *words, *options])
        result.warnings = " ".join(str(warning.message) for warning in caught)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return call


def test_a_broken_run_stops_no_other_and_is_trained_again(job, tmp_path):
    broken, whole = (tmp_path / "runs" / run(steps=3, seed=seed, absent="drop").id for seed in (0, 1))
    (broken / "outputs.npz").write_bytes(b"PK\3\4" + bytes(999))
    result = job("evaluate")
    assert result.exit_code == 1
    assert re.search(rf"1 of 2 runs.*{broken.name}/outputs.npz is damaged", result.output, re.DOTALL)
    lines = list(map(json.loads, (tmp_path / "runs" / "results.jsonl").read_text().splitlines()))
    assert {line["run"] for line in lines} == {whole.name}
    assert job("train-head", "--workers", "1").exit_code == 0
    assert job("evaluate").exit_code == 0


def test_the_results_file_is_named_only_if_a_run_has_a_result(job, tmp_path):
    assert str(tmp_path / "runs" / "results.jsonl") in job("evaluate").stdout
    for seed in (0, 1):
        (tmp_path / "runs" / run(steps=3, seed=seed, absent="drop").id / "outputs.npz").unlink()
    result = job("evaluate")
    assert (result.exit_code, result.stdout) == (1, "")


def test_tables_note_what_damaged_results_cost(job, tmp_path):
    assert job("evaluate").exit_code == 0
    path = tmp_path / "runs" / "results.jsonl"
    whole, norms = path.read_bytes(), job("table", "--metric", "norms").stdout
    lines = whole.splitlines(keepends=True)
    lost = [bytes(len(line) - 1) + b"\n" if b'"metric": "cv_' in line else line for line in lines]
    assert lost != lines
    path.write_bytes(b"".join(lost))
    result = job("table", "--metric", "norms")
    text = " ".join(result.stdout.split())
    assert re.search(r"DAMAGED RESULTS: 6 damaged lines.*results.jsonl.*MISSING: source-only all 2", text)
    for found in (result, job("table"), job("report")):
        assert found.warnings.count("6 damaged lines") == 1
    assert "DAMAGED RESULTS" in (tmp_path / "runs" / "damage.html").read_text()
    assert job("evaluate").exit_code == 0
    assert "6 damaged lines" in job("table").warnings  # nobody knows what they held
    path.write_bytes(whole.replace(b'"value": 0.', b'"value": 9.'))
    assert "damaged lines" in job("table").warnings
    assert job("evaluate").exit_code == 0
    result = job("table", "--metric", "norms")
    assert (result.stdout, result.warnings) == (norms, "")
    path.write_bytes(bytes(len(whole)))
    assert "1 damaged line is" in job("table", "--metric", "norms").warnings


@pytest.mark.slow
def test_a_damaged_results_file_never_changes_a_table(job, tmp_path):
    assert job("evaluate").exit_code == 0
    path, rng = tmp_path / "runs" / "results.jsonl", random.Random(0)
    tables = [("table",), ("table", "--metric", "norms"), ("report",)]
    whole = [job(*command).stdout for command in tables]
    page = (tmp_path / "runs" / "damage.html").read_text()
    for _ in range(50):
        with damage(path, rng):
            for command, text in zip(tables, whole, strict=True):
                result = job(*command)
                now = (tmp_path / "runs" / "damage.html").read_text()
                same = result.stdout == text and (command != ("report",) or now == page)  # others leave an old page
                assert same or "damaged" in result.warnings or result.exit_code == 1
