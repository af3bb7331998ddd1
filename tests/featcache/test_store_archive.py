"""Archives: everything reads them as the store they were made of, they give it back byte for byte, damage is found."""

import errno
import os
import pickle
import shutil
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache import FeatureStore
from featcache.errors import ConfigError, StoreError
from featcache.store import _format, archive, check, writer
from featcache.store.mapped import Mapped
from pipelines.cli import archive as cli_archive
from tests.featcache.test_store import RECIPE, SHAPE, files, fill, manifest, open_writer, rows


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of four rows, chunks of two, compressed ones too: two blocks of seven rows."""
    monkeypatch.setattr(_format.Layout, "block_rows", 4)
    monkeypatch.setattr(_format.Layout, "chunk_rows", 2)
    monkeypatch.setattr(_format, "PACKED_ROWS", 2)


@pytest.fixture
def store(tmp_path, small_blocks):
    """Seven rows; row 1 failed, row 5 is absent, row 3 has one window only and row 6 is -0."""
    path = tmp_path / "toy.zarr"
    with open_writer(path) as writer:
        for row, values in enumerate(rows()):
            if row == 1:
                writer.failed(row, "broken: é")
            elif row == 5:
                writer.absent(row, "no sound")
            else:
                values = values[:1] if row == 3 else -0.0 * values if row == 6 else values
                writer.done(row, values, row + np.arange(len(values)), np.full(len(values), np.nan))
    return path


@pytest.fixture
def packed(store, tmp_path):
    archive.pack(store, tmp_path / "packed.zarr")
    return tmp_path / "packed.zarr"


def refused(folder, match):
    """Unpacking is an error, and leaves nothing behind."""
    with pytest.raises(StoreError, match=match):
        archive.unpack(folder, folder.parent / "out.zarr")
    assert {p.name for p in folder.parent.glob("*out*")} <= {".out.zarr.lock"}


def test_unpacked_is_the_original(store, packed, tmp_path):
    archive.unpack(packed, tmp_path / "deep" / "again.zarr")
    assert files(tmp_path / "deep" / "again.zarr") == files(store)
    assert check.problems(tmp_path / "deep" / "again.zarr") == check.problems(store)
    archive.pack(store, tmp_path / "twice.zarr")
    assert files(tmp_path / "twice.zarr") == files(packed)


any_shape = given(
    n=st.integers(1, 40),
    shape=st.lists(st.integers(1, 4), max_size=3).map(tuple),
    dtype=st.sampled_from(["float16", "float32"]),
    block=st.sampled_from([1, 4, 32, 64]),
    zeros=st.integers(0, 40),
)


def comes_back(tmp_path_factory, n, shape, dtype, block, zeros):
    path = tmp_path_factory.mktemp("shapes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_format.Layout, "block_rows", block)
        patch.setattr(_format.Layout, "chunk_rows", min(2, block))
        values = rows(n, 2, shape)
        values[:zeros] = 0
        with open_writer(path / "s.zarr", manifest(n), RECIPE | {"dtype": dtype}, shape, 2) as writer:
            fill(writer, values)
        archive.pack(path / "s.zarr", path / "a.zarr")
        archive.unpack(path / "a.zarr", path / "again.zarr")
        assert files(path / "again.zarr") == files(path / "s.zarr")
        plain, packed = FeatureStore.open(path / "s.zarr"), FeatureStore.open(path / "a.zarr")
        assert packed.features.tobytes() == plain.features.tobytes()
        assert zarr.open_group(path / "a.zarr", mode="r")["features"][:].tobytes() == plain.features.tobytes()


test_shapes_come_back = settings(deadline=None, max_examples=4)(any_shape(comes_back))
test_many_shapes_come_back = pytest.mark.slow(settings(deadline=None, max_examples=50)(any_shape(comes_back)))


def test_an_archive_reads_as_the_store(store, packed):
    plain, opened = FeatureStore.open(store), FeatureStore.open(packed)
    for name in ("features", "state", "length", "present", "window_start", "window_stop"):
        np.testing.assert_array_equal(getattr(opened, name), getattr(plain, name), strict=True)
    for name in ("rows", "failures", "recipe", "facts", "manifest", "attributes", "fingerprint", "layout"):
        assert getattr(opened, name) == getattr(plain, name)
    assert opened.counts() == plain.counts()
    assert np.array_equal(opened["003"], plain["003"])
    assert np.array_equal(opened[-2:], plain[-2:])
    assert np.array_equal(opened.read([6, 0]), plain.read([6, 0]))
    assert [name for name, _ in opened] == ["000", "002", "003", "004", "006"]
    opened.check_rows(manifest())
    assert (plain.archived, opened.archived) == (False, True)


def test_features_are_decoded_at_their_first_use_only(packed):
    told = []
    opened = FeatureStore.open(packed, progress=lambda done, total: told.append((done, total)))
    assert opened.state.sum()
    assert told == []
    assert opened["000"].any()
    assert told == [(0, 2), (1, 2), (2, 2)]
    shutil.rmtree(packed / "features" / "c")
    assert opened["004"].any()
    assert len(told) == 3


def test_a_pickled_store_is_opened_again(store, packed):
    for path in (store, packed):
        opened = FeatureStore.open(path)
        size = len(pickle.dumps(opened))
        assert opened.features.any()
        assert len(pickle.dumps(opened)) == size < 1000
        assert np.array_equal(pickle.loads(pickle.dumps(opened)).features, opened.features)


def test_one_request_opens_the_group(packed):
    group = zarr.open_group(packed, mode="r", use_consolidated=True)
    members = group.metadata.consolidated_metadata.metadata
    assert set(members) == {*_format.ARRAYS}
    assert members["features"].codecs[0].codecs[-1].to_dict()["configuration"]["level"] == 1
    assert (group["features"].shards, group["features"].chunks) == ((4, 2, *SHAPE), (2, 2, *SHAPE))
    for name in ("state", "length", "digest"):
        assert np.array_equal(group[name][:], zarr.open_array(packed.parent / "toy.zarr" / name)[:])


def test_sums_are_those_of_sha256sum(packed):
    lines = (packed / "SHA256SUMS").read_text().splitlines()
    assert sorted([line.split("  ")[1] for line in lines] + ["SHA256SUMS"]) == sorted(files(packed))


def test_chunks_of_sixteen_rows(tmp_path):
    with open_writer(tmp_path / "s.zarr", manifest(40)) as writer:
        fill(writer, rows(40))
    archive.pack(tmp_path / "s.zarr", tmp_path / "a.zarr")
    features = zarr.open_group(tmp_path / "a.zarr", mode="r")["features"]
    assert (features.chunks[0], features.shards[0]) == (16, FeatureStore.open(tmp_path / "s.zarr").layout.block_rows)


def test_rows_that_are_not_there_and_a_journal_go_along(tmp_path, small_blocks):
    with open_writer(tmp_path / "s.zarr") as writer:
        for row in (4, 5, 6, 0):  # block 1 is committed, block 0 is in its journal
            writer.done(row, rows()[row], np.zeros(2), np.ones(2))
    archive.pack(tmp_path / "s.zarr", tmp_path / "a.zarr")
    opened = FeatureStore.open(tmp_path / "a.zarr")
    assert opened.state.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert not opened[:4].any()
    archive.unpack(tmp_path / "a.zarr", tmp_path / "again.zarr")
    assert files(tmp_path / "again.zarr") == files(tmp_path / "s.zarr")
    with open_writer(tmp_path / "again.zarr") as writer:
        assert writer.pending == [1, 2, 3]
        fill(writer, rows())
    assert np.array_equal(FeatureStore.open(tmp_path / "again.zarr").features, rows().astype(np.float16))


def test_a_store_that_is_being_written_is_not_packed(tmp_path, small_blocks):
    with open_writer(tmp_path / "s.zarr") as writer:
        writer.done(0, rows()[0], np.zeros(2), np.ones(2))
        with pytest.raises(StoreError, match="is being written or packed by another process; pack it when"):
            archive.pack(tmp_path / "s.zarr", tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_nobody_writes_a_store_while_it_is_packed(store, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "PATIENCE", 0.0)

    def write(done, total):
        with pytest.raises(StoreError, match="is being written by another process"):
            open_writer(store)

    archive.pack(store, tmp_path / "a.zarr", write)
    open_writer(store).close()


def test_a_damaged_store_is_not_packed(store, tmp_path):
    for name in files(store):
        data = (store / name).read_bytes()
        (store / name).write_bytes(bytes([data[0] ^ 1]) + data[1:])
        with pytest.raises(StoreError):
            archive.pack(store, tmp_path / "a.zarr")
        (store / name).write_bytes(data)
    (store / "state" / "c" / "1").unlink()
    with pytest.raises(StoreError, match="writing block 1 was interrupted; `featcache extract`"):
        archive.pack(store, tmp_path / "a.zarr")
    assert not any(path.name.startswith(("a.zarr", ".a.zarr.partial")) for path in tmp_path.iterdir())


def test_what_cannot_be_packed_or_unpacked_is_named(store, packed, tmp_path):
    with pytest.raises(StoreError, match=r"packed\.zarr is already an archive; copy it"):
        archive.pack(packed, tmp_path / "a.zarr")
    with pytest.raises(
        StoreError, match=r"toy\.zarr is not an archive, or its SHA256SUMS is damaged; `featcache pack`"
    ):
        archive.unpack(store, tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="no feature store at"):
        archive.pack(tmp_path / "none.zarr", tmp_path / "a.zarr")
    with pytest.raises(StoreError, match=r"no archive at .*none\.zarr"):
        archive.unpack(tmp_path / "none.zarr", tmp_path / "a.zarr")
    for make in (lambda: archive.pack(store, packed), lambda: archive.unpack(packed, store)):
        before = files(tmp_path)
        with pytest.raises(StoreError, match="exists; remove it, or name another"):
            make()
        assert files(tmp_path) == before
    assert not (tmp_path / ".none.zarr.lock").exists()


def test_archives_are_neither_mapped_nor_written(packed):
    before = files(packed)
    with pytest.raises(StoreError, match="is an archive; `featcache unpack` makes a store of it that can be written"):
        open_writer(packed)
    with pytest.raises(StoreError, match="featcache unpack"):
        Mapped(FeatureStore.open(packed))
    assert files(packed) == before


@pytest.mark.parametrize("verb", ["pack", "unpack"])
def test_interrupted_nothing_is_left(store, packed, tmp_path, monkeypatch, verb):
    def stop(done, total):
        if done == 1:
            raise KeyboardInterrupt

    make, source = {"pack": (archive.pack, store), "unpack": (archive.unpack, packed)}[verb]
    with pytest.raises(KeyboardInterrupt):
        make(source, tmp_path / "out.zarr", stop)
    assert not [p for p in tmp_path.iterdir() if "out.zarr" in p.name and p.name != ".out.zarr.lock"]

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"No space.*'.*/out\.zarr"):
        make(source, tmp_path / "out.zarr")
    assert not [p for p in tmp_path.iterdir() if "out.zarr" in p.name and p.name != ".out.zarr.lock"]


def test_leftovers_of_a_kill_do_not_matter(store, packed, tmp_path):
    shutil.copytree(packed, tmp_path / ".out.zarr.partial")
    archive.unpack(packed, tmp_path / "out.zarr")
    assert files(tmp_path / "out.zarr") == files(store)
    assert not (tmp_path / ".out.zarr.partial").exists()


def test_everything_is_synced_before_it_gets_its_place(store, packed, tmp_path, monkeypatch):
    synced, placed = set(), []

    def fsync(descriptor):
        synced.add(os.path.realpath(f"/proc/self/fd/{descriptor}"))

    def replace(source, target, real=os.replace):
        if Path(source).is_dir():
            folder = str(source)
            for path in Path(source).rglob("*"):
                assert str(path) in synced, path.relative_to(folder)
            placed.append(Path(target).name)
            synced.discard(str(tmp_path))
        real(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    archive.pack(store, tmp_path / "a.zarr")
    assert str(tmp_path) in synced
    archive.unpack(packed, tmp_path / "b.zarr")
    assert str(tmp_path) in synced
    assert placed == ["a.zarr", "b.zarr"]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """An archive of one block, for trying every byte."""
    monkeypatch.setattr(_format.Layout, "block_rows", 2)
    monkeypatch.setattr(_format.Layout, "chunk_rows", 1)
    with open_writer(tmp_path / "s.zarr", manifest(2), shape=(2,), windows=1) as writer:
        writer.done(0, rows(1, 1, (2,))[0], np.zeros(1), np.ones(1))
        writer.failed(1, "broken")
    archive.pack(tmp_path / "s.zarr", tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 17])
def test_every_flipped_byte_is_found(tiny, step):
    assert archive.problems(tiny) == archive.problems(tiny, fast=True) == []
    for name, data in files(tiny).items():
        for k in range(0, len(data), 1 if len(data) < 200 else step):
            (tiny / name).write_bytes(data[:k] + bytes([data[k] ^ (1 << k % 8)]) + data[k + 1 :])
            found = archive.problems(tiny)
            assert found, f"byte {k} of {name}"
            assert name == "SHA256SUMS" or len(found) == 1
        (tiny / name).write_bytes(data)


def test_flips_in_features_are_refused_with_the_block(store, packed):
    for name, data in files(packed).items():
        if not name.startswith("features/c/"):
            continue
        for k in range(0, len(data), 5):
            (packed / name).write_bytes(data[:k] + bytes([data[k] ^ 1]) + data[k + 1 :])
            block = name.split("/")[2]
            with pytest.raises(StoreError, match=rf"features/c/{block}/0/0/0 \(block {block}\) is damaged"):
                FeatureStore.open(packed).read()
        refused(packed, rf"\(block {block}\) is damaged")
        (packed / name).write_bytes(data)
    assert FeatureStore.open(packed).features.any()


@pytest.mark.slow
@pytest.mark.parametrize("fast", [False, True])
def test_missing_truncated_swapped_and_foreign_files_are_found(packed, fast):
    everything = files(packed)

    def found():
        return archive.problems(packed, fast=fast)

    for name, data in everything.items():
        for content in (None, b"", data[:-1], data + b"\0"):
            (packed / name).unlink()
            if content is not None:
                (packed / name).write_bytes(content)
            assert len(found()) == 1, (name, content)
            refused(packed, name.split("/")[0])
            (packed / name).write_bytes(data)
    shards = [packed / f"features/c/{b}/0/0/0" for b in (0, 1)]
    assert shards[0].read_bytes() != shards[1].read_bytes()
    shards[0].rename(packed / "x")
    shards[1].rename(shards[0])
    (packed / "x").rename(shards[1])
    if not fast:
        assert [text.split(" is")[0] for text in found()] == [f"features/c/{b}/0/0/0 (block {b})" for b in (0, 1)]
    refused(packed, "is damaged")
    for shard, name in zip(shards, ("features/c/0/0/0/0", "features/c/1/0/0/0"), strict=True):
        shard.write_bytes(everything[name])
    (packed / "notes.txt").write_text("mine")
    (packed / "journal").symlink_to(packed.parent)
    assert found() == [f"{name} does not belong to the archive" for name in ("journal", "notes.txt")]


def test_a_list_that_was_cut_at_a_line_is_found(packed):
    lines = (packed / "SHA256SUMS").read_text().splitlines(keepends=True)
    for k in range(len(lines)):
        (packed / "SHA256SUMS").write_text("".join(lines[:k] + lines[k + 1 :]))
        assert archive.problems(packed)
        refused(packed, "SHA256SUMS|not an archive")


def test_wrong_content_with_right_sums_is_refused(packed, tmp_path):
    """Somebody made the list anew over other features: the digest of the block knows."""
    import hashlib

    for name, other in (("features/c/0/0/0/0", "features/c/1/0/0/0"), ("state/c/0", "state/c/1")):
        broken = tmp_path / f"{name.split('/')[0]}.zarr"
        shutil.copytree(packed, broken)
        shutil.copy(packed / other, broken / name)
        digest = {n: hashlib.sha256((broken / n).read_bytes()).hexdigest() for n in files(broken) if n != "SHA256SUMS"}
        (broken / "SHA256SUMS").write_text("".join(f"{digest[n]}  {n}\n" for n in sorted(digest)))
        refused(broken, r"block 0 \(rows 0-3\) .*digest; `featcache check`")


def test_a_list_cannot_place_files_elsewhere(packed, tmp_path):
    (packed.parent / "evil").write_text("x")
    text = (packed / "SHA256SUMS").read_text()
    line = text.splitlines()[0].split("  ")[0] + "  ../evil\n"
    (packed / "SHA256SUMS").write_text(line + text)
    refused(packed, "lists other files")
    assert (tmp_path / "evil").read_text() == "x"


def test_url(store, packed, tmp_path):
    memory = fsspec.filesystem("memory")
    memory.put(str(packed), "/bucket/toy.zarr", recursive=True)
    try:
        archive.unpack("memory://bucket/toy.zarr/", tmp_path / "out.zarr")
        assert files(tmp_path / "out.zarr") == files(store)
        with pytest.raises(StoreError, match=r"no archive at memory://bucket/none"):
            archive.unpack("memory://bucket/none", tmp_path / "none.zarr")
        memory.rm("/bucket/toy.zarr/features/c/1", recursive=True)
        with pytest.raises(StoreError, match=r"features/c/1/0/0/0 \(block 1\) is missing"):
            archive.unpack("memory://bucket/toy.zarr", tmp_path / "half.zarr")
        assert not (tmp_path / "half.zarr").exists()
    finally:
        memory.rm("/bucket", recursive=True)


def test_storage_that_fails_is_one_sentence(tmp_path, monkeypatch):
    def refuse(self, path, start=None, end=None):
        raise RuntimeError("credentials expired")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", refuse)
    with pytest.raises(StoreError, match="memory://b/SHA256SUMS cannot be read: credentials expired"):
        archive.unpack("memory://b", tmp_path / "out.zarr")


def test_a_backend_that_lacks_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r"s3://b/a\.zarr needs obstore .*featcache\[s3\]"):
        archive.unpack("s3://b/a.zarr", tmp_path / "out.zarr")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(StoreError, match=r"gcs://b/a\.zarr needs a package that is not installed: .*gcsfs"):
        archive.unpack("gcs://b/a.zarr", tmp_path / "out.zarr")
    with pytest.raises(StoreError, match="what://b cannot be opened: .*what"):
        archive.unpack("what://b", tmp_path / "out.zarr")


def test_commands(store, packed, tmp_path):
    run = CliRunner()
    done = run.invoke(cli_archive.pack, [str(store), str(tmp_path / "p.zarr")])
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'p.zarr'}\n")
    assert files(tmp_path / "p.zarr") == files(packed)
    done = run.invoke(cli_archive.unpack, [str(tmp_path / "p.zarr"), str(tmp_path / "u.zarr")])
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'u.zarr'}\n")
    assert files(tmp_path / "u.zarr") == files(store)
