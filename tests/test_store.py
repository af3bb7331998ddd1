"""The store against numpy, zarr-python and its own promises. Kills are in test_store_crash.py."""

import errno
import hashlib
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache import Clip, FeatureStore, Manifest
from featcache.errors import StoreError
from featcache.store import StoreWriter, _format
from featcache.store import writer as writer_module
from featcache.store.check import problems

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


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(1, 40),
    windows=st.integers(1, 3),
    shape=st.lists(st.integers(1, 4), max_size=3).map(tuple),
    dtype=st.sampled_from(["float16", "float32"]),
    block=st.sampled_from([1, 2, 8, 32]),
    data=st.data(),
)
def test_own_shards_equal_zarrs(tmp_path_factory, n, windows, shape, dtype, block, data):
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
    tensor = store.to_torch([4, 0])
    assert tensor.dtype == torch.float32
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
    journal = path / "journal" / "0.log"
    whole = journal.read_bytes()
    for cut in (1, 4, len(whole) // 3 - 1):
        journal.write_bytes(whole[:-cut])
        with open_writer(path) as writer:
            assert writer.pending == [2, 3, 4, 5, 6]
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # in the second record: the third is lost with it, the first is not
    journal.write_bytes(flipped)
    with open_writer(path) as writer:
        assert writer.pending == [1, 2, 3, 4, 5, 6]
        fill(writer, rows())
    assert np.array_equal(FeatureStore.open(path).features, rows().astype(np.float16))


def test_unwritten_rows_are_not_tried(tmp_path, small_blocks):
    with open_writer(tmp_path / "toy.zarr") as writer:
        for row in range(5):
            writer.done(row, rows()[row], np.zeros(2), np.ones(2))
    store = FeatureStore.open(tmp_path / "toy.zarr")
    assert store.state.tolist() == [1, 1, 1, 1, 0, 0, 0]  # row 4 is in the journal: known, but not committed
    with pytest.raises(StoreError, match="'004' is not tried"):
        store["004"]
    assert problems(store.path) == ["3 of 7 clips are not there yet; run `featcache extract` again"]


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
        patch.setattr(StoreWriter, "_commit_if_full", lambda self, number: None)
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
    with pytest.raises(StoreError, match="3 rows in the store, 7 in the manifest"):
        open_writer(tmp_path / "toy.zarr")


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
    renames = [event for event in events if event[0] == "rename" and Path(event[1]).name.startswith(".")]
    assert len(renames) > 12
    for event in renames:
        before, after = events[: events.index(event)], events[events.index(event) :]
        _, source, target = event
        if source.endswith("toy.zarr.partial"):  # the new store: everything in it was synced
            synced = {entry[1] for entry in before if entry[0] == "sync"} | {e[2] for e in before if e[0] == "rename"}
            assert all(str(Path(source) / name) in synced for name in _format.FIXED_FILES)
        else:
            assert ("sync", source) in before
        assert ("sync", str(Path(target).parent)) in after
    new = {str(path) for path in (tmp_path / "toy.zarr").rglob("*") if path.is_dir()}
    made = {path for path in new if "/c" in path and not path.endswith("/c")}
    assert {entry[1] for entry in events if entry[0] == "sync"} >= {str(Path(path).parent) for path in made}


def test_bad_rows_are_refused(tmp_path):
    good, times = rows()[0], np.zeros(2)
    with open_writer(tmp_path / "toy.zarr") as writer:
        with pytest.raises(StoreError, match=r"row 0 has shape \(2, 3\), the store \(2, 3, 2\)"):
            writer.done(0, good[..., 0], times, times)
        with pytest.raises(StoreError, match="not finite"):
            writer.done(0, good * np.nan, times, times)
        with pytest.raises(StoreError, match="reaches 7e.04, beyond float16; .* --dtype float32"):
            writer.done(0, np.full_like(good, 7e4), times, times)
        writer.done(0, np.full_like(good, 65504), times, times)
        with pytest.raises(StoreError, match="row 0 is already there"):
            writer.done(0, good, times, times)


def test_other_recipes_and_rows_are_refused_with_the_difference(store):
    other = RECIPE | {"params": {"bins": 12}, "extra": 1}
    with pytest.raises(
        StoreError, match=r"extra: 'nothing' in the store, 1 asked for\n  params.bins: 9 in the store, 12 asked"
    ):
        open_writer(store.path, recipe=other)
    renamed = Manifest("m", (*manifest().clips[:6], Clip("x", "d", "train", "v/6.mp4")))
    with pytest.raises(StoreError, match=r"row 6 \(006\): clip_id '006' in the store, 'x' in the manifest; caption"):
        open_writer(store.path, clips=renamed)
    with pytest.raises(StoreError, match="7 rows in the store, 8 in the manifest"):
        open_writer(store.path, clips=manifest(8))
    with pytest.raises(StoreError, match="and 3 more"):
        open_writer(store.path, clips=Manifest("m", manifest().clips[::-1]))
    store.check_rows(Manifest("n", tuple(Clip(**{**vars(c), "source": "w/" + c.source}) for c in manifest())))


def test_a_second_writer_is_refused_while_the_first_lives(tmp_path):
    path = tmp_path / "toy.zarr"
    with open_writer(path) as writer:
        with pytest.raises(StoreError, match="being written by another process"):
            open_writer(path)
        fill(writer, rows())
        assert problems(path) == ["is being written by another process; check again when it is done"]
    open_writer(path).close()
    assert problems(path) == []


def test_no_store(tmp_path):
    with pytest.raises(StoreError, match="no feature store at"):
        FeatureStore.open(tmp_path / "none.zarr")
    zarr.create_group(tmp_path / "foreign.zarr")
    with pytest.raises(StoreError, match="no feature store|not a feature store"):
        FeatureStore.open(tmp_path / "foreign.zarr")
    (tmp_path / "full.zarr").mkdir()
    (tmp_path / "full.zarr" / "mine.txt").write_text("keep")
    with pytest.raises(StoreError, match="exists and is not a store"):
        open_writer(tmp_path / "full.zarr")
    assert (tmp_path / "full.zarr" / "mine.txt").read_text() == "keep"


def test_a_store_of_a_later_format_is_refused(store):
    path = store.path / "zarr.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(StoreError, match="has format 3; this featcache reads 2"):
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


def test_rows_that_are_open_again_do_not_count(store):
    (store.path / "state" / "c" / "0").unlink()  # as a retry does, before its rows are committed again
    again = FeatureStore.open(store.path)
    assert again.failures == {5: "no sound"}
    assert not again.read(range(4)).any()  # although the old shard is still there
    assert np.array_equal(again.read([4]), store.read([4]))


def test_a_journal_is_durable_when_rows_rest_on_it(store, tmp_path, monkeypatch):
    """It is synced about every two seconds, and before the state of a block that it takes over is removed."""
    events, now = [], [100.0]
    fsync, unlink = os.fsync, Path.unlink
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(Path(os.readlink(f"/proc/self/fd/{fd}"))), fsync(fd))[1])
    monkeypatch.setattr(Path, "unlink", lambda path, **how: (events.append(("gone", path)), unlink(path, **how))[1])
    monkeypatch.setattr(writer_module.time, "monotonic", lambda: now[0])
    with open_writer(tmp_path / "new.zarr") as writer:
        journal = tmp_path / "new.zarr" / "journal" / "0.log"
        synced = []
        for row, at in enumerate((100.0, 101.0, 101.9, 102.1)):
            now[0] = at
            writer.done(row, rows()[row], np.zeros(2), np.ones(2))
            synced.append(events.count(journal))
        assert synced == [1, 1, 1, 2]
    events.clear()
    with open_writer(store.path) as writer:
        writer.retry_failed()
        writer.failed(1, "still broken")
    gone = events.index(("gone", store.path / "state" / "c" / "0"))
    before = [n for n, event in enumerate(events) if event == store.path / "journal" / "0.log" and n < gone]
    assert len(before) >= 2  # once at its first record, once when it was complete
    assert store.path / "journal" in events[:gone]


def test_reading_some_rows(store):
    assert np.array_equal(store.read([6, 0, 6, -1]), store.features[[6, 0, 6, 6]])
    assert store.read([]).shape == (0, 2, *SHAPE)
    assert np.array_equal(store[5:1:-2], store.features[5:1:-2])
    with pytest.raises(IndexError, match="rows 3 to 7, of 7"):
        store.read([3, 7])
    with pytest.raises(TypeError, match="not list"):
        store[[1, 2]]


def test_sums_are_what_sha256sum_checks(store):
    listed = dict(line.split("  ")[::-1] for line in (store.path / "SHA256SUMS").read_text().splitlines())
    assert listed["rows.csv"] == hashlib.sha256((store.path / "rows.csv").read_bytes()).hexdigest()
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=store.path, check=True)


def test_check_names_failed_clips(store):
    assert problems(store.path) == ["clip '001' failed: broken: é"]


def test_check_finds_a_flip_of_any_byte(store):
    """Every byte of every file, one at a time; a flip in the shape or format may also make `open` refuse."""
    for path in sorted(p for p in store.path.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        step = max(1, len(whole) // 60) if path.name == "zarr.json" else 1
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
    real = writer_module.write_file
    for fail_at in range(12):
        path, calls = tmp_path / f"{fail_at}.zarr", iter(range(100))

        def full(target, data, fail_at=fail_at, calls=calls):
            if next(calls) == fail_at:
                raise OSError(errno.ENOSPC, "No space left on device", str(target))
            real(target, data)

        with monkeypatch.context() as patch:
            patch.setattr(writer_module, "write_file", full)
            try:
                with open_writer(path) as writer:
                    fill(writer, rows())
            except OSError as error:
                assert error.errno == errno.ENOSPC
        with open_writer(path) as writer:
            fill(writer, rows())
        assert files(path) == files(tmp_path / "whole.zarr")


def test_a_full_disk_while_journalling(tmp_path):
    """A torn record is taken back at once, so that the next rows are not lost behind it."""
    path = tmp_path / "toy.zarr"
    with open_writer(path) as writer:
        writer.done(0, rows()[0], np.zeros(2), np.ones(2))
        block = writer._blocks[0]

        class Full:
            def __init__(self, file):
                self.file = file

            def write(self, data):
                self.file.write(data[:5])
                self.file.flush()
                raise OSError(errno.ENOSPC, "No space left on device")

            def __getattr__(self, name):
                return getattr(self.file, name)

        block.file = Full(block.file)
        with pytest.raises(OSError, match="No space"):
            writer.done(1, rows()[1], np.zeros(2), np.ones(2))
        writer.done(2, rows()[2], np.zeros(2), np.ones(2))
    with open_writer(path) as writer:
        assert writer.pending == [1, 3, 4, 5, 6]


def test_metadata_is_plain_json(store):
    attributes = json.loads((store.path / "zarr.json").read_text())["attributes"]["featcache"]
    assert attributes == {"format": 2, "manifest": "m", "recipe": RECIPE, "facts": {"numpy": "2"}}
