"""The store against numpy, zarr-python and its own promises. Kills are in test_store_crash.py."""

import contextlib
import errno
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
from collections import deque
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache import Clip, FeatureStore, Manifest, checking
from featcache.errors import StoreError
from featcache.store import StoreWriter, _block, _format, _lease, digests
from featcache.store import writer as writer_module
from featcache.store.check import problems, repair
from featcache.store.reader import committed

RECIPE = {"extractor": "toy", "modality": "rgb", "weights_sha256": "none", "dtype": "float16", "params": {"bins": 9}}
SHAPE = (3, 2)


def manifest(n=7):
    return Manifest(
        "m", tuple(Clip(f"{i:03}", "d", "train", f"v/{i}.mp4", caption='say "é",\nthen stop') for i in range(n))
    )


def rows(n=7, windows=2, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).standard_normal((n, windows, *shape)).astype(np.float32)


def open_writer(path, clips=None, recipe=RECIPE, shape=SHAPE, windows=2):
    return StoreWriter.open(path, clips or manifest(), recipe, row_shape=shape, windows=windows, facts={"numpy": "2"})


def fill(writer, features):
    for row in writer.pending:
        start = row + np.arange(len(features[row]), dtype=float)
        writer.done(row, features[row], start, start + 0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"extractor": None}, "recipe.extractor: None is not text"),
        ({"external": {"files": ["x"]}}, r"recipe.external.files\[0\]: 'x'"),
        ({"dtype": "float64"}, "recipe.dtype is 'float64'; choose from float16, float32"),
        ({"params": {"a": "\0"}}, "params.a: .* no text"),
        ({"params": {"a": np.zeros(1)}}, "ndarray"),
    ],
)
def test_a_store_that_could_not_be_opened_is_not_made(tmp_path, changes, words):
    with pytest.raises(StoreError, match=f"(?s)s.zarr cannot be made: .*{words}"):
        open_writer(tmp_path / "s.zarr", recipe=RECIPE | changes)
    with pytest.raises(StoreError, match="'modality', 'weights_sha256' is missing"):
        open_writer(tmp_path / "s.zarr", recipe={"extractor": "x", "dtype": "float16"})
    assert not list(tmp_path.iterdir())


def test_a_recipe_may_hold_numbers_that_are_not_finite(tmp_path):
    recipe = RECIPE | {"params": {"a": float("nan"), "b": [float("inf")], "c": 10**30}}
    for _ in range(2):
        open_writer(tmp_path / "s.zarr", recipe=recipe).close()
    assert repr(FeatureStore.open(tmp_path / "s.zarr").recipe) == repr(recipe)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of four rows, chunks of two: several blocks and a part-filled last one from seven rows."""
    monkeypatch.setattr(_format.Layout, "block_rows", 4)
    monkeypatch.setattr(_format.Layout, "chunk_rows", 2)


@pytest.fixture
def store(tmp_path, small_blocks):
    """Seven rows; row 1 failed, row 5 is absent."""
    with open_writer(tmp_path / "toy.zarr") as writer:
        for row, features in enumerate(rows()):
            if row == 1:
                writer.failed(row, "broken: é")
            elif row == 5:
                writer.absent(row, "no sound")
            else:
                writer.done(row, features, np.array([row, row + 1.0]), np.array([row + 0.5, row + 1.5]))
    return FeatureStore.open(tmp_path / "toy.zarr")


def files(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_row_i_is_clip_i(store):
    expected = rows().astype(np.float16)
    expected[[1, 5]] = 0
    assert np.array_equal(store.features, expected)
    assert store.state.tolist() == [1, 2, 1, 1, 1, 3, 1]
    assert store.clip_ids == [f"{i:03}" for i in range(7)]
    assert store.window_start[3].tolist() == [3, 4]
    assert store.window_stop[6].tolist() == [6.5, 7.5]
    assert store.failures == {1: "broken: é", 5: "no sound"}
    assert store.counts() == {"not tried": 0, "done": 5, "failed": 1, "absent": 1}
    assert (len(store), store.windows, store.row_shape, store.name) == (7, 2, SHAPE, "toy")


def test_zarr_python_reads_the_same(store):
    group = zarr.open_group(store.path, mode="r")
    for name in ("features", "state", "window_start", "window_stop"):
        assert np.array_equal(group[name][:], getattr(store, name))
    assert group["features"].shards == (4, 2, *SHAPE)
    assert group["features"].chunks == (2, 2, *SHAPE)


def test_a_shard_begins_with_its_rows(store):
    shard = (store.path / "features" / "c" / "0" / "0" / "0" / "0").read_bytes()
    payload = np.frombuffer(shard, "<f2", 4 * 2 * 6).reshape(4, 2, *SHAPE)
    assert np.array_equal(payload, store.features[:4])


any_store = given(
    n=st.integers(1, 40),
    windows=st.integers(1, 3),
    shape=st.lists(st.integers(1, 4), max_size=3).map(tuple),
    dtype=st.sampled_from(["float16", "float32"]),
    block=st.sampled_from([1, 2, 8, 32]),
    data=st.data(),
)


def own_shards_equal_zarrs(tmp_path_factory, n, windows, shape, dtype, block, data):
    """What zarr-python itself would write, read back by zarr-python: equal arrays, whatever the shapes."""
    path = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_format.Layout, "block_rows", block)
        patch.setattr(_format.Layout, "chunk_rows", data.draw(st.sampled_from([c for c in (1, 2, 8) if c <= block])))
        values = rows(n, windows, shape)
        values[data.draw(st.integers(0, n - 1))] = 0  # an all-zero row looks like a missing one to zarr
        with open_writer(path / "s.zarr", manifest(n), RECIPE | {"dtype": dtype}, shape, windows) as writer:
            fill(writer, values)
        assert np.array_equal(zarr.open_array(path / "s.zarr" / "features")[:], values.astype(dtype))
        assert problems(path / "s.zarr") == []


test_own_shards_equal_zarrs = settings(deadline=None, max_examples=8)(any_store(own_shards_equal_zarrs))
test_many_shards_equal_zarrs = pytest.mark.slow(
    settings(deadline=None, max_examples=80)(any_store(own_shards_equal_zarrs))
)


@pytest.mark.parametrize("row_bytes", [2, 30, 768, 5_670, 10_240, 30_720, 204_800, 100 << 20])
def test_layout_of_blocks(row_bytes):
    layout = _format.Layout(10**6, 1, (row_bytes // 2,), "float16")
    payload = layout.block_rows * row_bytes
    assert layout.block_rows & (layout.block_rows - 1) == 0
    assert layout.block_rows % layout.chunk_rows == 0
    if 768 <= row_bytes <= 204_800:
        assert 16 << 20 <= payload <= 64 << 20
        assert payload % 4096 == 0
    assert layout.chunk_rows == 1 if row_bytes >= 8192 else layout.chunk_rows * row_bytes <= 32768


def test_single_rows_and_slices(store):
    assert np.array_equal(store["002"], rows()[2].astype(np.float16))
    assert np.array_equal(store[-1], store["006"])
    assert np.array_equal(store[2:5], store.features[2:5])
    assert [clip_id for clip_id, _ in store] == ["000", "002", "003", "004", "006"]
    with pytest.raises(StoreError, match="clip '001' is failed: broken: é"):
        store["001"]
    with pytest.raises(StoreError, match="no clip '9'"):
        store["9"]
    with pytest.raises(IndexError):
        store[7]


def test_ids_with_line_ends_come_back(tmp_path):
    clips = Manifest("m", (Clip("a\rb", "d", "train", "v"), Clip('c\n"d', "d", "train", "w")))
    with open_writer(tmp_path / "toy.zarr", clips) as writer:
        fill(writer, rows())
    assert FeatureStore.open(tmp_path / "toy.zarr").clip_ids == ["a\rb", 'c\n"d']


def test_torch_and_pandas(store):
    torch = pytest.importorskip("torch")
    tensor = store.to_torch([4, 0])
    assert tensor.dtype == torch.float32
    assert torch.equal(store.to_torch(store.state == 1), store.to_torch([0, 2, 3, 4, 6]))
    assert np.array_equal(tensor.numpy(), store.features[[4, 0]].astype(np.float32))
    frame = store.frame()
    assert frame["state"].tolist() == ["done", "failed", "done", "done", "done", "absent", "done"]
    assert frame["caption"][0] == 'say "é",\nthen stop'


def test_resume_gives_the_same_bytes(tmp_path, small_blocks):
    whole, parts = tmp_path / "whole.zarr", tmp_path / "parts.zarr"
    with open_writer(whole) as writer:
        fill(writer, rows())
    for stop in (1, 3, 4, 4, 6, 7):
        with open_writer(parts) as writer:
            for row in [row for row in writer.pending if row < stop]:
                writer.done(row, rows()[row], row + np.arange(2.0), row + np.arange(2.0) + 0.5)
    assert files(whole) == files(parts)
    assert not list(parts.glob("journal/*"))


def test_a_torn_journal_record_is_computed_again(tmp_path):
    path = tmp_path / "toy.zarr"
    with open_writer(path) as writer:
        for row in range(3):
            writer.done(row, rows()[row], np.zeros(2), np.ones(2))
    log = path / "journal" / "0.log"
    whole = log.read_bytes()
    for cut in (1, 4, 30):
        log.write_bytes(whole[:-cut])
        with open_writer(path) as writer:
            assert writer.pending == [2, 3, 4, 5, 6]
    flipped = bytearray(whole)
    flipped[-60] ^= 1  # in the second record: the third is lost with it, the first is not
    log.write_bytes(flipped)
    with open_writer(path) as writer:
        assert writer.pending == [1, 2, 3, 4, 5, 6]
        fill(writer, rows())
    assert np.array_equal(FeatureStore.open(path).features, rows().astype(np.float16))


def test_features_that_a_power_cut_lost_are_computed_again(tmp_path):
    """The journal came to the disk, a row's features did not: its checksum tells."""
    path = tmp_path / "toy.zarr"
    with open_writer(path) as writer:
        for row in range(3):
            writer.done(row, rows()[row], np.zeros(2), np.ones(2))
    shard = bytearray((path / "journal" / "0.shard").read_bytes())
    row_bytes = writer.layout.row_bytes
    shard[row_bytes : 2 * row_bytes] = bytes(row_bytes)
    (path / "journal" / "0.shard").write_bytes(shard)
    with open_writer(path) as writer:
        assert writer.pending == [1, 3, 4, 5, 6]
    (path / "journal" / "0.shard").write_bytes(shard[: 2 * row_bytes + 1])
    with open_writer(path) as writer:
        assert writer.pending == [1, 2, 3, 4, 5, 6]


def test_rows_of_fewer_windows(tmp_path, small_blocks):
    path, values = tmp_path / "toy.zarr", rows()
    with open_writer(path) as writer:
        for row in range(7):
            t = 1 + row % 2
            writer.done(row, values[row, :t], np.full(t, np.nan), np.arange(float(t)))
        with pytest.raises(StoreError, match=r"shape \(0, 3, 2\), the store.* \(2, 3, 2\)"):
            writer.done(0, values[0, :0], np.zeros(0), np.zeros(0))
    store = FeatureStore.open(path)
    assert store.length.tolist() == [1, 2, 1, 2, 1, 2, 1]
    assert store.present.tolist() == [[True, row % 2 == 1] for row in range(7)]
    expected = values.astype(np.float16)
    expected[::2, 1] = 0
    assert np.array_equal(store.features, expected)
    assert np.isnan(store.window_start[3]).all()
    assert store.window_stop[3].tolist() == [0, 1]
    assert problems(path) == []


def test_unwritten_rows_are_not_tried(tmp_path, small_blocks):
    with open_writer(tmp_path / "toy.zarr") as writer:
        for row in range(5):
            writer.done(row, rows()[row], np.zeros(2), np.ones(2))
    store = FeatureStore.open(tmp_path / "toy.zarr")
    assert store.state.tolist() == [1, 1, 1, 1, 0, 0, 0]  # row 4 is in the journal: known, but not committed
    with pytest.raises(StoreError, match="'004' is not tried"):
        store["004"]
    assert problems(store.path) == ["3 of 7 clips are not extracted yet; run `featcache extract` again"]


def test_retry_recomputes_the_failed_rows_only(store):
    before = files(store.path)
    with open_writer(store.path) as writer:
        assert writer.pending == []
        writer.retry_failed()
        assert writer.pending == [1]
    assert files(store.path) == before  # nothing was tried again: nothing has changed
    with open_writer(store.path) as writer:
        writer.retry_failed()
        writer.failed(1, "broken: é")
    assert files(store.path) == before
    with open_writer(store.path) as writer:
        writer.retry_failed()
        writer.done(1, rows()[1], np.zeros(2), np.ones(2))
    again = FeatureStore.open(store.path)
    assert again.counts() == {"not tried": 0, "done": 6, "failed": 0, "absent": 1}
    assert np.array_equal(again.features[:5], rows()[:5].astype(np.float16))
    assert again.failures == {5: "no sound"}
    assert problems(again.path) == []


def test_a_retry_that_stops_halfway_keeps_the_other_reasons(tmp_path, small_blocks):
    path = tmp_path / "toy.zarr"
    with open_writer(path) as writer:
        for row in writer.pending:
            writer.failed(row, f"reason {row}")
    with open_writer(path) as writer:
        writer.retry_failed()
        writer.done(2, rows()[2], np.zeros(2), np.ones(2))
    store = FeatureStore.open(path)
    assert store.state.tolist() == [2, 2, 1, 2, 2, 2, 2]
    assert store.failures == {row: f"reason {row}" for row in (0, 1, 3, 4, 5, 6)}
    with open_writer(path) as writer:
        writer.retry_failed()
        assert writer.pending == [0, 1, 3, 4, 5, 6]


def test_retry_of_failures_that_are_still_in_the_journal(tmp_path):
    with open_writer(tmp_path / "toy.zarr") as writer:
        writer.failed(0, "x")
        writer.done(1, rows()[1], np.zeros(2), np.ones(2))
        writer.retry_failed()
        assert writer.pending == [0, 2, 3, 4, 5, 6]
        writer.done(0, rows()[0], np.zeros(2), np.ones(2))
    with open_writer(tmp_path / "toy.zarr") as writer:
        assert writer.pending == [2, 3, 4, 5, 6]
        fill(writer, rows())
    assert np.array_equal(FeatureStore.open(tmp_path / "toy.zarr").features, rows().astype(np.float16))


def test_retry_of_a_block_whose_commit_was_cut_off(tmp_path, small_blocks, monkeypatch):
    """All rows are in the journal, and the kill came before the commit: the next open commits, and retries."""
    path = tmp_path / "toy.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "_commit_if_complete", lambda self, number: None)
        with open_writer(path) as writer:
            for row in range(4):
                writer.failed(row, "x") if row == 1 else writer.done(row, rows()[row], np.zeros(2), np.ones(2))
    with open_writer(path) as writer:
        writer.retry_failed()
        assert writer.pending == [1, 4, 5, 6]


def test_rows_after_a_torn_record_are_kept(tmp_path):
    """The torn end is cut off before the next row is appended; else that row would be lost behind it."""
    path = tmp_path / "toy.zarr"
    with open_writer(path) as writer:
        writer.done(0, rows()[0], np.zeros(2), np.ones(2))
        writer.done(1, rows()[1], np.zeros(2), np.ones(2))
    journal = path / "journal" / "0.log"
    journal.write_bytes(journal.read_bytes()[:-3])
    with open_writer(path) as writer:
        writer.done(2, rows()[2], np.zeros(2), np.ones(2))
    with open_writer(path) as writer:
        assert writer.pending == [1, 3, 4, 5, 6]


def test_a_store_without_a_row_does_not_bind_its_maker(tmp_path):
    """A mistyped parameter and Ctrl-C before the first clip: the right command must work afterwards."""
    open_writer(tmp_path / "toy.zarr", recipe=RECIPE | {"params": {"bins": 0}}).close()
    with open_writer(tmp_path / "toy.zarr", clips=manifest(3)) as writer:
        writer.done(0, rows()[0], np.zeros(2), np.ones(2))
    with pytest.raises(StoreError, match=r"bins: 9 in the store, 10 requested"):
        open_writer(tmp_path / "toy.zarr", clips=manifest(3), recipe=RECIPE | {"params": {"bins": 10}})


def test_nothing_is_renamed_before_it_is_durable(tmp_path, small_blocks, monkeypatch):
    """Every file that a name comes to stand for was synced first, and the folder of the name afterwards."""
    events = []
    fsync, replace = os.fsync, os.replace

    def path_of(descriptor):
        return os.readlink(f"/proc/self/fd/{descriptor}")

    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(("sync", path_of(fd))), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(("rename", str(a), str(b))), replace(a, b))[1])
    with open_writer(tmp_path / "toy.zarr") as writer:
        fill(writer, rows())
    renames = [event for event in events if event[0] == "rename" and ".partial" not in event[2]]
    assert len(renames) > 10
    for event in renames:
        before, after = events[: events.index(event)], events[events.index(event) :]
        _, source, target = event
        if source.endswith("partial/toy.zarr"):  # the new store: everything in it was synced
            synced = {entry[1] for entry in before if entry[0] == "sync"}
            assert synced >= {source, *(str(Path(source) / name) for name in (*_format.FIXED_FILES, _format.SUMS))}
        else:
            assert ("sync", source) in before
        assert ("sync", str(Path(target).parent)) in after
    new = {str(path) for path in (tmp_path / "toy.zarr").rglob("*") if path.is_dir()}
    made = {path for path in new if "/c" in path and not path.endswith("/c")}
    assert {entry[1] for entry in events if entry[0] == "sync"} >= {str(Path(path).parent) for path in made}


def test_bad_rows_are_refused(tmp_path):
    good, times = rows()[0], np.zeros(2)
    with open_writer(tmp_path / "toy.zarr") as writer:
        with pytest.raises(StoreError, match=r"row 0 has shape \(2, 3\), the store.* \(2, 3, 2\)"):
            writer.done(0, good[..., 0], times, times)
        with pytest.raises(StoreError, match="not finite"):
            writer.done(0, good * np.nan, times, times)
        with pytest.raises(StoreError, match="reaches 7e.04, beyond float16"):
            writer.done(0, np.full_like(good, 7e4), times, times)
        writer.done(0, np.full_like(good, 65504), times, times)
        with pytest.raises(StoreError, match="row 0 is already written"):
            writer.done(0, good, times, times)


def test_other_recipes_and_rows_are_refused_with_the_difference(store):
    other = RECIPE | {"params": {"bins": 12}, "extra": 1}
    with pytest.raises(
        StoreError, match=r"extra: 'nothing' in the store, 1 requested\n  params.bins: 9 in the store, 12 requested"
    ):
        open_writer(store.path, recipe=other)
    clips = manifest().clips
    late = replace(clips[3], start=1)
    changed = {
        "removed: '006'": clips[:6],
        "removed: '002', '004'": (*clips[:2], clips[3], *clips[5:]),
        "removed: '006'\n": (*clips[:6], Clip("x", "d", "train", "v/6.mp4")),
        "edited: '003' (start '' in the store, '1' in the manifest)": (*clips[:3], late, *clips[4:]),
        "moved: '001', '002', '003', … and 3 more": clips[::-1],
        "new, but not at the end: 'x'": (*clips[:3], Clip("x", "d", "train", "v"), *clips[3:]),
    }
    for difference, others in changed.items():
        with pytest.raises(StoreError) as caught:
            open_writer(store.path, clips=Manifest("m", tuple(others)))
        assert difference in str(caught.value)
    with pytest.raises(StoreError, match="lacks the last 1 clips of manifest 'm'; `featcache extract`"):
        store.check_rows(manifest(8))
    store.check_rows(Manifest("n", tuple(Clip(**{**vars(c), "source": "w/" + c.source}) for c in manifest())))


def test_two_writers_share_a_store_by_blocks(tmp_path, small_blocks):
    path = tmp_path / "toy.zarr"
    with open_writer(path) as first, open_writer(path) as second:
        assert first.claim(1)
        assert not second.claim(2)  # the same block
        with pytest.raises(StoreError, match=rf"rows 0-3 are being written by process {os.getpid()} on "):
            second.done(2, rows()[2], np.zeros(2), np.ones(2))
        assert second.claim(4)
        assert not first.claim(6)
        assert problems(path) == ["is being written by another process; check again when that process has finished"]
        for row in (0, 1, 2, 3):
            first.done(row, rows()[row], np.zeros(2), np.ones(2))
        for row in (4, 5, 6):
            second.done(row, rows()[row], np.zeros(2), np.ones(2))
        assert not first.claim(3)  # it is there
        assert first.pending == second.pending == []
    assert np.array_equal(FeatureStore.open(path).features, rows().astype(np.float16))
    assert problems(path) == []


def test_a_block_that_another_writer_finished_is_not_written_again(tmp_path, small_blocks):
    path = tmp_path / "toy.zarr"
    with open_writer(path) as slow:
        todo = slow.pending
        with open_writer(path) as fast:
            fill(fast, rows())
        before = files(path)
        assert [row for row in todo if slow.claim(row)] == []
    assert files(path) == before


def test_the_lease_of_a_writer_that_died_is_free(tmp_path, small_blocks):
    path = tmp_path / "toy.zarr"
    child = os.fork()
    if not child:
        writer = open_writer(path)
        writer.done(0, rows()[0], np.zeros(2), np.ones(2))
        os._exit(0)
    os.waitpid(child, 0)
    with open_writer(path) as writer:
        assert writer.pending == [1, 2, 3, 4, 5, 6]
        assert writer.claim(1)


def test_what_changes_the_whole_store_waits_for_its_writers(store, monkeypatch):
    monkeypatch.setattr(writer_module, "PATIENCE", 0.05)
    with open_writer(store.path):
        with pytest.raises(StoreError, match="is being written by another process; wait .* or stop"):
            open_writer(store.path, clips=manifest(8))  # would extend it
        with pytest.raises(StoreError, match="is being written by another process; repair it when"):
            repair(store.path)
        open_writer(store.path).close()  # a second writer is welcome


def test_no_store(tmp_path):
    with pytest.raises(StoreError, match="no feature store at"):
        FeatureStore.open(tmp_path / "none.zarr")
    zarr.create_group(tmp_path / "foreign.zarr")
    with pytest.raises(StoreError, match="foreign.zarr.*not a featcache store|no feature store at .*foreign.zarr"):
        FeatureStore.open(tmp_path / "foreign.zarr")
    (tmp_path / "full.zarr").mkdir()
    (tmp_path / "full.zarr" / "mine.txt").write_text("keep")
    with pytest.raises(StoreError, match="exists and is not a store"):
        open_writer(tmp_path / "full.zarr")
    assert (tmp_path / "full.zarr" / "mine.txt").read_text() == "keep"


def test_a_store_of_a_later_format_is_refused(store):
    path = store.path / "zarr.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(StoreError, match="has format 3, .*reads only 2; extract"):
        FeatureStore.open(store.path)


def test_fingerprint_is_of_the_content(store, tmp_path):
    with open_writer(tmp_path / "copy.zarr") as writer:
        fill(writer, rows())
    copy = FeatureStore.open(tmp_path / "copy.zarr")
    assert copy.recipe_sha256 == store.recipe_sha256
    assert copy.fingerprint != store.fingerprint  # two rows differ
    with open_writer(tmp_path / "again.zarr") as writer:
        fill(writer, rows())
    assert FeatureStore.open(tmp_path / "again.zarr").fingerprint == copy.fingerprint
    others = {
        "recipe.zarr": (None, RECIPE | {"version": 2}),
        "rows.zarr": (Manifest("m", tuple(replace(clip, caption="") for clip in manifest())), RECIPE),
    }
    for name, (clips, recipe) in others.items():
        with open_writer(tmp_path / name, clips, recipe) as writer:
            fill(writer, rows())
        assert FeatureStore.open(tmp_path / name).fingerprint != copy.fingerprint


@contextlib.contextmanager
def in_time():
    """Raise TimeoutError in place of waiting for ever, as for the other end of a pipe."""

    def late(number, frame):
        raise TimeoutError("waits for ever")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 20)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read_all(path):
    store = FeatureStore.open(path)
    return store.failures, store.notes, store.length, store.window_start, store.window_stop, store.read(), store.rows


@pytest.mark.parametrize("replace", [os.mkfifo, os.mkdir])
def test_a_pipe_or_folder_in_place_of_a_file_is_an_error(store, tmp_path, replace):
    (tmp_path / "copy").mkdir()
    manifest().write(tmp_path / "copy" / "manifest.csv")  # what `repair` restores rows.csv from
    for name in files(store.path):
        path = tmp_path / "copy" / "toy.zarr"
        shutil.copytree(store.path, path)
        (path / name).unlink()
        replace(path / name)
        with in_time():
            with pytest.raises(StoreError, match=re.escape(str(path / name))):
                read_all(path)
            assert checking.problems(path)
            if name in ("zarr.json", "features/zarr.json"):  # the recipe cannot be recomputed
                with pytest.raises(StoreError, match=re.escape(str(path))):
                    repair(path)
            elif not name.endswith("zarr.json") or name == "length/zarr.json":  # recomputing arrays takes a while
                repair(path)
                assert (path / name).is_file() or not (path / name).exists(), name
                read_all(path)
        shutil.rmtree(path)


def test_a_file_in_place_of_a_folder_is_found(store, tmp_path):
    folders = [part.relative_to(store.path) for part in store.path.glob("*/**") if part.is_dir()]
    for folder in sorted(part for part in folders if part.name == "c" or part.parent == Path()):
        path = tmp_path / "copy.zarr"
        shutil.copytree(store.path, path)
        shutil.rmtree(path / folder)
        (path / folder).touch()
        assert checking.problems(path), folder
        with contextlib.suppress(StoreError):
            read_all(path)
        shutil.rmtree(path)


def test_a_block_that_is_written_again_while_it_is_read(store, monkeypatch):
    """`state` is removed first, so its absence is not damage."""
    first, path = FeatureStore.open(store.path), store.path / store.layout.file(0, "state")
    assert first.counts()["done"] == 5
    features = store.path / store.layout.file(0, "features")
    kept = features.read_bytes()
    features.unlink()
    with pytest.raises(StoreError, match=f"{features} is missing"):
        first.read()
    path.unlink()
    with pytest.raises(StoreError, match="block 0 of .* is being written by another process; wait"):
        first.read()
    features.write_bytes(kept)
    monkeypatch.setattr("featcache.store.reader.committed", lambda folder, layout: [0, 1])
    with pytest.raises(StoreError, match="block 0 of .* is being written by another process; wait"):
        _ = FeatureStore.open(store.path).state


def test_names_that_are_no_blocks_are_not_committed(store):
    for name in ("00", "01", "2", "x", "\u0661"):
        (store.path / "state" / "c" / name).touch()
    assert committed(store.path, store.layout) == [0, 1]


def test_rows_that_are_open_again_do_not_count(store):
    (store.path / "state" / "c" / "0").unlink()  # as a retry does, before its rows are committed again
    again = FeatureStore.open(store.path)
    assert again.failures == {5: "no sound"}
    assert not again.read(range(4)).any()  # although the old shard is still there
    assert np.array_equal(again.read([4]), store.read([4]))


def record_durability(monkeypatch, of=os):
    """Every fsync, rename and removal from now on, in order, as (what, path)."""
    events, fsync, replace, unlink = [], os.fsync, os.replace, Path.unlink

    def path_of(descriptor):
        return Path(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(("sync", path_of(fd))), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(("rename", Path(a), Path(b))), replace(a, b))[1])
    monkeypatch.setattr(Path, "unlink", lambda path, **how: (events.append(("gone", path)), unlink(path, **how))[1])
    return events


def test_rows_are_durable_two_seconds_later(tmp_path, small_blocks, monkeypatch):
    """Those of every open block, when the next row comes, of whatever block."""
    now = [100.0]
    monkeypatch.setattr(writer_module.time, "monotonic", lambda: now[0])
    path = tmp_path / "new.zarr"
    with open_writer(path) as writer:
        events = record_durability(monkeypatch)
        for row, at in ((0, 100.0), (4, 101.9)):
            now[0] = at
            writer.done(row, rows()[row], np.zeros(2), np.ones(2))
        assert events == []
        now[0] = 102.1
        writer.done(5, rows()[5], np.zeros(2), np.ones(2))
        journal = path / "journal"
        synced = [journal / "0.shard", journal / "0.log", journal, journal / "4.shard", journal / "4.log", journal]
        assert events == [("sync", Path(str(p).replace("/4.", "/1."))) for p in synced]


def test_a_shard_is_durable_before_it_gets_its_place(tmp_path, small_blocks, monkeypatch):
    events = record_durability(monkeypatch)
    with open_writer(tmp_path / "toy.zarr") as writer:
        fill(writer, rows())
    for block in (0, 1):
        place = tmp_path / "toy.zarr" / writer.layout.files(block)["features"]
        shard = tmp_path / "toy.zarr" / "journal" / f"{block}.shard"
        state = tmp_path / "toy.zarr" / writer.layout.files(block)["state"]
        at = events.index(("rename", shard, place))
        vouched = next(k for k, event in enumerate(events) if event[0] == "rename" and event[-1] == state)
        assert events[at - 1] == ("sync", shard) or ("sync", shard) in events[:at]
        assert ("sync", place.parent) in events[at:vouched]


def test_a_journal_is_durable_before_state_goes(store, monkeypatch):
    """With the newest row in it: from then on it alone vouches for the block."""
    with open_writer(store.path) as writer:
        writer.retry_failed()
        assert writer.claim(1)
        block, journal = writer._blocks[0], store.path / "journal"
        record, written = block._record, []
        monkeypatch.setattr(block, "_record", lambda *of: (record(*of), written.append(len(events))))
        events = record_durability(monkeypatch)
        writer.failed(1, "still broken")
    gone = events.index(("gone", store.path / "state" / "c" / "0"))
    for path in (journal / "0.shard", journal / "0.log", journal):
        assert ("sync", path) in events[written[-1] : gone]
    assert events[gone + 1] == ("sync", store.path / "state" / "c")
    assert FeatureStore.open(store.path).failures[1] == "still broken"


def test_a_block_stays_readable_while_its_failures_are_tried_again(store):
    with open_writer(store.path) as writer:
        writer.retry_failed()
        assert FeatureStore.open(store.path).state.tolist() == [1, 2, 1, 1, 1, 3, 1]
    assert problems(store.path) == ["clip '001' failed: broken: é"]


def test_reading_some_rows(store):
    assert np.array_equal(store.read([6, 0, 6, -1]), store.features[[6, 0, 6, 6]])
    assert store.read([]).shape == (0, 2, *SHAPE)
    assert np.array_equal(store[5:1:-2], store.features[5:1:-2])
    with pytest.raises(IndexError, match="rows 3 to 7 .*outside the 7 rows"):
        store.read([3, 7])
    assert np.array_equal(store.read(store.state == 1), store.features[[0, 2, 3, 4, 6]])
    with pytest.raises(IndexError, match=r"a mask of shape \(6,\) for 7 rows"):
        store.read(np.ones(6, bool))
    with pytest.raises(TypeError, match="rows are whole numbers or a mask, not float64"):
        store.read([2.9])
    with pytest.raises(TypeError, match="not list"):
        store[[1, 2]]


def test_sums_are_what_sha256sum_checks(store):
    listed = dict(line.split("  ")[::-1] for line in (store.path / "SHA256SUMS").read_text().splitlines())
    assert listed["rows.csv"] == hashlib.sha256((store.path / "rows.csv").read_bytes()).hexdigest()
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=store.path, check=True)


def test_check_names_failed_clips(store):
    assert problems(store.path) == ["clip '001' failed: broken: é"]


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_check_finds_a_flip_of_any_byte(store, every):
    """Every byte of every file, one at a time; a flip in the shape or format may also make `open` refuse."""
    for path in sorted(p for p in store.path.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        step = max(1, len(whole) // 60) if path.name == "zarr.json" else every
        for place in range(0, len(whole), step):
            damaged = bytearray(whole)
            damaged[place] ^= 0x04
            path.write_bytes(damaged)
            try:
                found = problems(store.path)
            except StoreError as error:
                found = [str(error)]
            assert found != ["clip '001' failed: broken: é"], f"flip at {place} of {path.name} went unseen"
        path.write_bytes(whole)
    assert problems(store.path) == ["clip '001' failed: broken: é"]


def test_check_finds_missing_truncated_and_stray_files(store):
    for path in sorted(p for p in store.path.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        for damaged in (None, whole[:-1], b""):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            try:
                found = problems(store.path)
            except StoreError as error:
                found = [str(error)]
            assert found != ["clip '001' failed: broken: é"], f"{path} was damaged unseen"
            path.write_bytes(whole)
    (store.path / "features" / "c" / "0" / "0" / "0" / ".0.partial").write_bytes(b"x")
    assert any(".0.partial does not belong" in problem for problem in problems(store.path))


def test_a_full_disk_loses_nothing(tmp_path, small_blocks, monkeypatch):
    """The n-th write to disk fails, for every n: what was written stays, and a resume ends with the same bytes."""
    with open_writer(tmp_path / "whole.zarr") as writer:
        fill(writer, rows())
    real = _block.write_file
    for fail_at in range(10):
        path, calls = tmp_path / f"{fail_at}.zarr", iter(range(100))

        def full(target, data, fail_at=fail_at, calls=calls):
            if next(calls) == fail_at:
                raise OSError(errno.ENOSPC, "No space left on device", str(target))
            real(target, data)

        with monkeypatch.context() as patch:
            patch.setattr(_block, "write_file", full)
            with pytest.raises(OSError, match="No space"), open_writer(path) as writer:
                fill(writer, rows())
        with open_writer(path) as writer:
            fill(writer, rows())
        assert files(path) == files(tmp_path / "whole.zarr")


@pytest.mark.parametrize("place", ["shard", "log"])
def test_a_full_disk_while_a_row_is_written(tmp_path, monkeypatch, place):
    """A torn record is taken back at once, so that the next rows are not lost behind it."""
    path, pwrite = tmp_path / "toy.zarr", os.pwrite
    with open_writer(path) as writer:
        writer.done(0, rows()[0], np.zeros(2), np.ones(2))

        def full(descriptor, data, offset):
            if os.readlink(f"/proc/self/fd/{descriptor}").endswith(place):
                pwrite(descriptor, bytes(data)[:5], offset)
                raise OSError(errno.ENOSPC, "No space left on device")
            return pwrite(descriptor, data, offset)

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            with pytest.raises(OSError, match="No space"):
                writer.done(1, rows()[1], np.zeros(2), np.ones(2))
        writer.done(2, rows()[2], np.zeros(2), np.ones(2))
    with open_writer(path) as writer:
        assert writer.pending == [1, 3, 4, 5, 6]
        fill(writer, rows())
    assert np.array_equal(FeatureStore.open(path).features, rows().astype(np.float16))
    assert problems(path) == []


def test_metadata_is_plain_json(store):
    attributes = json.loads((store.path / "zarr.json").read_text())["attributes"]["featcache"]
    assert attributes == {"format": 2, "manifest": "m", "recipe": RECIPE, "facts": {"numpy": "2"}}


# ------------------------------------------------------------------------------------------------- appending, repairing


@pytest.mark.parametrize("before", [1, 3, 4, 7])
def test_appended_clips_extend_the_store(tmp_path, small_blocks, before):
    """The bytes of a store that grew are those of one that was made at once; what was there is not computed again."""
    grown, whole = tmp_path / "grown.zarr", tmp_path / "whole.zarr"
    with open_writer(whole, manifest(9)) as writer:
        fill(writer, rows(9))
    with open_writer(grown, manifest(before)) as writer:
        fill(writer, rows(9))
    with open_writer(grown, manifest(9)) as writer:
        assert writer.pending == list(range(before, 9))
    half = FeatureStore.open(grown)
    assert half.counts()["not tried"] == 9 - before
    assert np.array_equal(half.features[:before], rows(9)[:before].astype(np.float16))
    assert not half.features[before:].any()
    assert np.array_equal(zarr.open_array(grown / "features")[:], half.features)
    assert problems(grown) == [f"{9 - before} of 9 clips are not extracted yet; run `featcache extract` again"]
    with open_writer(grown, manifest(9)) as writer:
        fill(writer, rows(9))
    assert files(grown) == files(whole)


@pytest.mark.parametrize("windows", [1, 3])
def test_clips_of_another_number_of_windows_are_appended_if_there_is_room(tmp_path, small_blocks, windows):
    """A store has the windows that it was made with; clips with more are refused before the store is changed."""
    path = tmp_path / "toy.zarr"
    with open_writer(path, manifest(5)) as writer:
        fill(writer, rows(5))
    before = files(path)
    if windows == 3:
        with pytest.raises(StoreError, match="room for 2 windows.*has 3; extract into another --stores"):
            open_writer(path, manifest(9), windows=3)
        assert files(path) == before
    else:
        with open_writer(path, manifest(9), windows=1) as writer:
            assert writer.layout.windows == 2
            assert "3 windows" in writer.refusal(rows(1, windows=3)[0])
            fill(writer, rows(9))
        assert np.array_equal(FeatureStore.open(path).features, rows(9).astype(np.float16))
    assert problems(path) == []


def test_rows_that_are_written_again_give_the_bytes_of_a_new_store(tmp_path, small_blocks):
    path, other, changed = tmp_path / "toy.zarr", tmp_path / "other.zarr", rows()
    changed[[1, 5]] = rows(seed=1)[[1, 5]]
    for place, features in ((path, rows()), (other, changed)):
        with open_writer(place) as writer:
            fill(writer, features)
    before = files(path)
    for written in ((), (1,), (1, 5)):
        with open_writer(path) as writer:
            assert writer.pending == []
            writer.renew([1, 5])
            assert writer.pending == [1, 5]
            for row in written:
                writer.done(row, changed[row], np.arange(2), np.arange(2) + 1.0)
        assert problems(path) == []
        assert (files(path) == before) == (not written)
    with open_writer(tmp_path / "new.zarr") as writer:
        for row in writer.pending:
            writer.done(row, changed[row], np.arange(2), np.arange(2) + 1.0)
    assert np.array_equal(FeatureStore.open(path).features, FeatureStore.open(other).features)


def test_an_extension_that_was_cut_off_is_finished(tmp_path, small_blocks, monkeypatch):
    path, real = tmp_path / "toy.zarr", writer_module.write_file
    expected = tmp_path / "whole.zarr"
    with open_writer(expected, manifest(9)) as writer:
        fill(writer, rows(9))
    with open_writer(tmp_path / "before.zarr") as writer:
        fill(writer, rows(9))
    for kill_at in range(20):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(tmp_path / "before.zarr", path)
        calls = iter(range(100))

        def killed(target, data, kill_at=kill_at, calls=calls):
            if next(calls) == kill_at:
                raise KeyboardInterrupt
            real(target, data)

        with monkeypatch.context() as patch:
            patch.setattr(writer_module, "write_file", killed)
            try:
                open_writer(path, manifest(9)).close()
            except KeyboardInterrupt:
                pass
            else:
                break
        if (path / "extension").exists():
            with pytest.raises(StoreError, match="clips are being appended to"):
                FeatureStore.open(path)
            if kill_at % 2:
                assert repair(path)[0] == "finished appending clips, which had been interrupted"
        else:
            assert len(FeatureStore.open(path)) == 7
        with open_writer(path, manifest(9)) as writer:
            fill(writer, rows(9))
        assert files(path) == files(expected)
    assert kill_at > 10


def test_repair_makes_damaged_blocks_pending_and_touches_no_good_one(tmp_path, small_blocks):
    path = tmp_path / "toy.zarr"
    with open_writer(path) as writer:
        fill(writer, rows())
    whole = files(path)
    for name in sorted(whole):
        if name in _format.FIXED_FILES or name == "SHA256SUMS":
            continue
        for damaged in (None, whole[name][:-1], bytes([whole[name][0] ^ 1]) + whole[name][1:]):
            (path / name).unlink() if damaged is None else (path / name).write_bytes(damaged)
            times = {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.is_file()}
            assert repair(path)
            assert [found for found in problems(path) if "not extracted yet" not in found] == []
            block = name.split("/")[2] if "/c/" in name else "0"
            other = "1" if block == "0" else "0"
            good = [p for p in times if f"/c/{other}" in str(p)]
            assert len(good) >= 6
            assert all(p.stat().st_mtime_ns == times[p] for p in good)
            with open_writer(path) as writer:
                assert writer.pending == list(writer.layout.span(int(block)))
                fill(writer, rows())
            assert files(path) == whole
    assert repair(path) == []


def test_repair_makes_metadata_anew_and_removes_strays(tmp_path, small_blocks):
    path = tmp_path / "toy.zarr"
    manifest().write(tmp_path / "manifest.csv")
    with open_writer(path) as writer:
        fill(writer, rows())
    whole = files(path)
    for name in ("window_start/zarr.json", "state/zarr.json", "rows.csv"):
        for damage in (lambda p: p.unlink(), lambda p: p.write_bytes(b"{}")):
            damage(path / name)
            assert [line.split(" was ")[0] for line in repair(path)] == [name]
            assert files(path) == whole
    for damaged in (None, whole["SHA256SUMS"].replace(b"a", b"b", 1), whole["SHA256SUMS"][:70]):
        (path / "SHA256SUMS").unlink() if damaged is None else (path / "SHA256SUMS").write_bytes(damaged)
        (action,) = repair(path)
        assert re.search("SHA256SUMS was wrong: .*recipe, blocks and manifest fit", action)
        assert files(path) == whole
    for name in ("zarr.json", "features/zarr.json"):
        for damaged in (None, whole[name].replace(b"7", b"8", 1).replace(b"toy", b"tay", 1)):
            (path / name).unlink() if damaged is None else (path / name).write_bytes(damaged)
            with pytest.raises(StoreError, match="restore it from a copy|no feature store"):
                repair(path)
            (path / name).write_bytes(whole[name])
    (path / "SHA256SUMS").unlink()
    text = whole["zarr.json"].replace(b"toy", b"tay")
    (path / "zarr.json").write_bytes(text)  # nothing proves the recipe now
    with pytest.raises(StoreError, match="SHA256SUMS is missing or damaged"):
        repair(path)
    for name in ("zarr.json", "SHA256SUMS"):
        (path / name).write_bytes(whole[name])
    (path / "features" / "c" / ".0.partial").write_bytes(b"x")
    (path / "state" / "c" / "9").write_bytes(b"x")
    assert repair(path) == ["removed features/c/.0.partial", "removed state/c/9"]
    assert files(path) == whole


def test_a_damaged_block_is_not_carried_on_by_a_retry(store):
    shard = store.path / store.layout.files(0)["features"]
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    with open_writer(store.path) as writer:
        writer.retry_failed()
        with pytest.raises(StoreError, match="block 0 .* features damaged; `featcache repair`"):
            writer.done(1, rows()[1], np.zeros(2), np.ones(2))
    assert shard.read_bytes() == data


def test_swapped_blocks_are_found(tmp_path, small_blocks):
    """Every file is whole, but stands in the place of another block's."""
    path = tmp_path / "toy.zarr"
    with open_writer(path, manifest(8)) as writer:
        fill(writer, rows(8))
    for name in ("features", "window_start", "window_stop", "digest"):
        a, b = (path / writer.layout.files(block)[name] for block in (0, 1))
        whole = a.read_bytes(), b.read_bytes()
        a.write_bytes(whole[1])
        b.write_bytes(whole[0])
        assert len(problems(path)) == 2
        a.write_bytes(whole[0])
        b.write_bytes(whole[1])
    assert problems(path) == []
    for name in ("features", "window_start", "window_stop", "length", "state", "digest"):
        a, b = (path / writer.layout.files(block)[name] for block in (0, 1))
        whole = a.read_bytes(), b.read_bytes()
        a.write_bytes(whole[1])
        b.write_bytes(whole[0])
    assert [line.split(";")[0] for line in problems(path)] == [
        "block 0 (rows 0-3): digest damaged",
        "block 1 (rows 4-7): digest damaged",
    ]


def test_a_block_of_another_store_is_found(tmp_path, small_blocks):
    for name, recipe in {"a.zarr": RECIPE, "b.zarr": RECIPE | {"version": 2}}.items():
        with open_writer(tmp_path / name, recipe=recipe) as writer:
            fill(writer, rows())
    for path in writer.layout.files(0).values():
        if (tmp_path / "a.zarr" / path).exists():
            shutil.copy(tmp_path / "a.zarr" / path, tmp_path / "b.zarr" / path)
    assert problems(tmp_path / "b.zarr")[0].startswith("block 0 (rows 0-3): digest damaged")


def test_a_fast_check_looks_at_all_but_the_features(store):
    known = ["clip '001' failed: broken: é"]
    assert problems(store.path, fast=True) == known
    for name, path in store.layout.files(0).items():
        whole = (store.path / path).read_bytes()
        for damaged in (whole[:-1], bytes([whole[0] ^ 1]) + whole[1:]):
            (store.path / path).write_bytes(damaged)
            seen = problems(store.path, fast=True) != known
            assert seen == (name != "features" or len(damaged) < len(whole))
        (store.path / path).write_bytes(whole)


# ------------------------------------------------------------------------------------------------ what a review found


def test_a_retry_does_not_replace_a_row_that_another_writer_mended(store):
    with open_writer(store.path) as slow:
        slow.retry_failed()
        with open_writer(store.path) as fast:
            fast.retry_failed()
            fast.done(1, rows()[1], np.zeros(2), np.ones(2))
        assert not slow.claim(1)
        with pytest.raises(StoreError, match="row 1 is already written"):
            slow.failed(1, "no memory")
    assert FeatureStore.open(store.path).state.tolist() == [1, 1, 1, 1, 1, 3, 1]


def test_a_row_that_was_half_written_and_then_failed_is_zeros(store, monkeypatch):
    before = files(store.path)

    def full(block, records):
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_writer(store.path) as writer:
        writer.retry_failed()
        writer.failed(1, "broken: é")  # takes the block over
        writer.retry_failed()
    with open_writer(store.path) as writer:
        writer.retry_failed()
        assert writer.claim(1)
        writer._blocks[0]._take_over()
        with monkeypatch.context() as patch:
            patch.setattr(_block.Block, "_record", full)
            with pytest.raises(OSError, match="No space"):
                writer.done(1, rows()[1], np.zeros(2), np.ones(2))
    assert files(store.path) == before


def test_times_must_be_of_the_windows(tmp_path):
    with open_writer(tmp_path / "toy.zarr") as writer:
        for start, stop in ((np.zeros(3), np.zeros(3)), (np.zeros(2), np.zeros(1)), (np.zeros((2, 1)), np.zeros(2))):
            with pytest.raises(StoreError, match="row 0 has 2 windows, but start of shape"):
                writer.done(0, rows()[0], start, stop)
        assert writer.pending == list(range(7))


def test_a_state_that_is_cut_off_vouches_for_nothing(store):
    path = store.path / store.layout.files(0)["state"]
    whole = path.read_bytes()
    for cut in (0, 1, 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(StoreError, match="state/c/0 is damaged.*`featcache repair"):
            FeatureStore.open(store.path).counts()
        with open_writer(store.path) as writer, pytest.raises(StoreError, match="state/c/0 is damaged; `featcache rep"):
            _ = writer.pending


def test_a_store_keeps_its_metadata_to_the_letter_when_it_grows(tmp_path, small_blocks):
    """zarr may come to write JSON in another way; the blocks are sealed with it."""
    path = tmp_path / "toy.zarr"
    with open_writer(path) as writer:
        fill(writer, rows())
    with zarr.config.set({"json_indent": 4}):
        open_writer(path, manifest(8)).close()
    assert problems(path) == ["1 of 8 clips are not extracted yet; run `featcache extract` again"]


def test_a_lease_is_of_the_file_that_stands_there(tmp_path, monkeypatch):
    """The owner removed the file between our opening and our locking of it: what we have locked is nothing."""
    path, take, calls = tmp_path / "0.log", _lease._taken, []

    def late(file, kind):
        if not calls:
            calls.append(path.unlink())
        return take(file, kind)

    monkeypatch.setattr(_lease, "_taken", late)
    first = _lease.lease(path)
    assert first is not None
    assert os.path.samestat(os.fstat(first.fileno()), path.stat())
    assert _lease.lease(path) is None
    _lease.free(first)


def test_a_forked_child_does_not_keep_the_locks(tmp_path, small_blocks):
    path = tmp_path / "toy.zarr"
    writer = open_writer(path)
    writer.done(0, rows()[0], np.zeros(2), np.ones(2))
    child = os.fork()
    if not child:
        signal.pause()
    try:
        writer.close()
        assert repair(path) == []
        with open_writer(path) as again:
            assert again.claim(1)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_one_store_has_one_lock_whatever_its_path(store, tmp_path, monkeypatch):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "l.zarr").symlink_to(store.path)
    with open_writer(store.path), pytest.raises(StoreError, match="is being written by another process; repair it"):
        repair(tmp_path / "links" / "l.zarr")
    monkeypatch.chdir(store.path)
    assert problems(Path(".")) == ["clip '001' failed: broken: é"]
    assert repair(Path(".")) == []


def test_a_commit_that_fails_lets_go_of_the_block(tmp_path, small_blocks, monkeypatch):
    path = tmp_path / "toy.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(_block, "write_file", lambda *of: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space")))
        with pytest.raises(OSError, match="No space") as kept, open_writer(path) as writer:
            fill(writer, rows())
    with open_writer(path) as writer:
        fill(writer, rows())
    assert kept.traceback  # as in a notebook, which keeps the frames of the last error
    assert problems(path) == []


def test_present_and_features_are_of_one_moment(tmp_path, small_blocks):
    with open_writer(tmp_path / "toy.zarr") as writer:
        writer.done(0, rows()[0], np.zeros(2), np.ones(2))
        store = FeatureStore.open(tmp_path / "toy.zarr")
        assert not store.state.any()
        for row in (1, 2, 3):
            writer.done(row, rows()[row], np.zeros(2), np.ones(2))
        assert not store.present.any()
        assert not store.features.any()


def test_a_lost_state_is_reported_as_pending_clips(tmp_path, small_blocks):
    path = tmp_path / "toy.zarr"
    with open_writer(path) as writer:
        fill(writer, rows())
    (path / "state" / "c" / "0").unlink()
    assert repair(path) == ["block 0: state missing: its clips are pending again"]
    assert problems(path) == ["4 of 7 clips are not extracted yet; run `featcache extract` again"]


# ------------------------------------------------------------------------------------------------------------- limits


def test_more_blocks_than_open_files_is_told_with_the_fix(tmp_path, monkeypatch):
    monkeypatch.setattr(_format.Layout, "block_rows", 2)
    monkeypatch.setattr(_format.Layout, "chunk_rows", 1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    clips, path = manifest(400), tmp_path / "toy.zarr"
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with open_writer(path, clips) as writer:
            begin = [partial(writer.done, row, rows()[0], np.zeros(2), np.ones(2)) for row in range(0, 400, 2)]
            with pytest.raises(StoreError, match=r"limit of open files.* write .*`pending`.*ulimit"):
                deque(one() for one in begin)
        with open_writer(path, clips) as writer:
            kept = set(range(400)) - set(writer.pending)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert kept == set(range(0, 2 * len(kept), 2))
    assert len(kept) > 50


METADATA = {
    "zarr.json": [
        (("attributes", "featcache", "manifest"), 3, "attributes.featcache.manifest: 3 is not text"),
        (("attributes", "featcache", "recipe"), [], r"attributes.featcache.recipe: \[\] is not a group"),
        (("attributes", "featcache", "recipe", "extractor"), None, "recipe.extractor: None is not text"),
        (("attributes", "featcache", "facts", "licence"), 1, "facts.licence: 1 is not text"),
        (("attributes", "featcache", "format"), "2", "format is missing"),
        (("attributes",), {}, "format is missing"),
    ],
    "features/zarr.json": [
        (("shape", 0), 10**12, "shape has 1000000000000 clips, more than rows.csv"),
        (("shape",), [0, 3, 4], r"shape=\(0, 3, 4\)"),
        (("shape",), [4], r"shape=\(4,\)"),
        (("shape",), [4, 10**9, 4], r"shape=\(4, 1000000000, 4\)"),
        (("shape", 1), -1, r"shape\[1\]=-1 must be at least 0"),
        (("shape", 1), 2.0, r"shape\[1\]: 2.0 is not a whole number"),
        (("shape", 1), 2**70, r"shape\[1\]=.* 64 bits"),
        (("data_type",), "float64", "float64 is not"),
        (("zarr_format",), 2, "zarr_format=2"),
        (("codecs",), [{"name": "bytes"}], "other shards, chunks or codecs"),
    ],
    "length/zarr.json": [
        (("shape",), [3], r"length/zarr.json: shape is \(3,\)"),
        (("chunk_grid", "configuration", "chunk_shape"), [1], r"length/zarr.json: chunk_shape is \(1,\)"),
        (("data_type",), "float32", "length/zarr.json: data_type is float32"),
        (("codecs",), [], "length/zarr.json: codecs"),
    ],
}


@pytest.mark.parametrize(
    ("file", "place", "value", "words"),
    [(file, *edit) for file, edits in METADATA.items() for edit in edits],
)
def test_metadata_that_do_not_fit_are_named(file, place, value, words, store):
    path = store.path
    content = json.loads((path / file).read_text())
    part = content
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    (path / file).write_text(json.dumps(content))
    (path / "SHA256SUMS").write_bytes(digests.fixed_sums(path))
    with pytest.raises(StoreError, match=words):
        FeatureStore.open(path)
