"""Mapped stores against zarr-python, tensorstore and the plain reader; and everything that must not be mapped."""

import ctypes
import json
import mmap
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import zarr

from featcache import Clip, FeatureStore, Manifest
from featcache.errors import StoreError
from featcache.store import StoreWriter, _format
from featcache.store.mapped import Mapped, why_not
from tests.conftest import ROOT

PAGE = mmap.PAGESIZE


def write(path, n, *, windows=2, shape=(256,), dtype="float16", missing=(), zero=()):
    """Rows of random numbers; those of `missing` failed, those of `zero` are all zeros. -> what was written."""
    rng = np.random.default_rng(0)
    clips = Manifest("m", tuple(Clip(f"{i:03}", "d", "train", f"{i}.mp4") for i in range(n)))
    recipe = {"extractor": "toy", "modality": "rgb", "weights_sha256": "none", "dtype": dtype}
    x = rng.standard_normal((n, windows, *shape)).astype(dtype)
    x[list(missing) + list(zero)] = 0
    with StoreWriter.open(path, clips, recipe, row_shape=shape, windows=windows, facts={}) as writer:
        for row in writer.pending:
            if row in missing:
                writer.failed(row, "broken")
            else:
                writer.done(row, x[row], np.arange(windows), np.arange(windows) + 1.0)
    return x


@pytest.fixture
def blocks(monkeypatch):
    """Sets rows per block and per inner chunk."""

    def patch(rows, chunk=1):
        monkeypatch.setattr(_format.Layout, "block_rows", rows)
        monkeypatch.setattr(_format.Layout, "chunk_rows", chunk)

    return patch


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("n", [1, 5, 8, 11])
@pytest.mark.parametrize(("windows", "shape", "dtype"), [(2, (256,), "float16"), (1, (2, 5, 64), "float32")])
def test_equals_zarr_bit_for_bit(n, chunk, windows, shape, dtype, blocks, tmp_path):
    """A part-filled last shard, a row of zeros and a failed one included; several shards where n > 8."""
    blocks(8, chunk)
    x = write(tmp_path / "s.zarr", n, windows=windows, shape=shape, dtype=dtype, missing=[n // 2][: n > 1], zero=[0])
    store = FeatureStore.open(tmp_path / "s.zarr")
    array = Mapped(store).array
    assert (array.shape, array.dtype) == ((n, windows, *shape), np.dtype(dtype))
    assert array.tobytes() == x.tobytes() == store.features.tobytes()
    assert array.tobytes() == zarr.open_array(tmp_path / "s.zarr" / "features", mode="r")[:].tobytes()


def test_equals_tensorstore(blocks, tmp_path):
    tensorstore = pytest.importorskip("tensorstore")
    blocks(4)
    write(tmp_path / "s.zarr", 11)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(tmp_path / "s.zarr" / "features")}}
    theirs = tensorstore.open(spec).result().read().result()
    assert Mapped(FeatureStore.open(tmp_path / "s.zarr")).array.tobytes() == theirs.tobytes()


def test_behind_the_last_row_there_are_zeros_and_not_the_index(blocks, tmp_path):
    blocks(8)
    write(tmp_path / "s.zarr", 9)
    array = Mapped(FeatureStore.open(tmp_path / "s.zarr")).array
    behind = ctypes.string_at(array.ctypes.data + array.nbytes, -array.nbytes % PAGE)
    assert len(behind) == PAGE - 1024
    assert not any(behind)


def test_a_store_of_one_block_may_have_rows_of_any_size(blocks, tmp_path):
    blocks(8, 2)
    x = write(tmp_path / "s.zarr", 7, shape=(37,))
    assert np.array_equal(Mapped(FeatureStore.open(tmp_path / "s.zarr")).array, x)


def test_blocks_that_are_not_committed_are_zeros(blocks, tmp_path):
    blocks(4)
    x = write(tmp_path / "s.zarr", 12)
    (tmp_path / "s.zarr" / "state/c/1").unlink()  # its shard is there, but nobody vouches for it
    x[4:8] = 0
    assert np.array_equal(Mapped(FeatureStore.open(tmp_path / "s.zarr")).array, x)


def test_read_only(blocks, tmp_path, recwarn):
    blocks(4)
    x = write(tmp_path / "s.zarr", 4)
    mapped = Mapped(FeatureStore.open(tmp_path / "s.zarr"))
    with pytest.raises(ValueError, match="read-only"):
        mapped.array[0] = 1
    assert torch.equal(mapped.tensor(), torch.from_numpy(x))
    assert not recwarn.list


def test_the_array_keeps_the_mapping_and_nothing_else_does(blocks, tmp_path):
    blocks(4)
    x = write(tmp_path / "s.zarr", 8)

    def mapped_files():
        with open("/proc/self/maps") as file:
            return sum(str(tmp_path) in line for line in file)

    part = Mapped(FeatureStore.open(tmp_path / "s.zarr")).tensor()[5:]
    assert mapped_files() == 2
    assert np.array_equal(part.numpy(), x[5:])
    del part
    assert mapped_files() == 0


def test_a_replaced_shard_leaves_an_open_mapping_as_it_was(blocks, tmp_path):
    blocks(4)
    x = write(tmp_path / "s.zarr", 4)
    array = Mapped(FeatureStore.open(tmp_path / "s.zarr")).array
    shard = tmp_path / "s.zarr" / "features/c/0/0/0"
    (tmp_path / "new").write_bytes(bytes(shard.stat().st_size))
    os.replace(tmp_path / "new", shard)
    assert np.array_equal(array, x)


@pytest.mark.parametrize("rows", [[], [0], [8], [3, 1, 1, 2], range(9)])
def test_advice_changes_no_value(rows, blocks, tmp_path):
    """The last page is a copy: letting go of it would lose its row."""
    blocks(4)
    x = write(tmp_path / "s.zarr", 9)
    mapped = Mapped(FeatureStore.open(tmp_path / "s.zarr"))
    for advise in (mapped.ahead, mapped.populate, mapped.release):
        advise(np.asarray(rows, dtype=np.int64))
        assert np.array_equal(mapped.array, x)


def test_populating_maps_and_releasing_unmaps(tmp_path):
    """Measured in another process, by what is mapped of the files of a store of 8 MB."""
    write(tmp_path / "s.zarr", 32, shape=(1 << 16,))
    code = f"""
        import numpy as np
        from featcache import FeatureStore
        from featcache.store.mapped import Mapped
        mapped = Mapped(FeatureStore.open({str(tmp_path / "s.zarr")!r}))
        def resident():
            maps = open("/proc/self/smaps").read().split({str(tmp_path)!r})[1:]
            return sum(int(part.split("Rss:")[1].split()[0]) for part in maps)
        first = resident()
        mapped.populate(np.arange(8, 32))
        populated = resident()
        mapped.release(np.arange(16, 32))
        print(first, populated, resident())
    """
    said = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, check=True)
    first, populated, released = map(int, said.stdout.split())
    assert first < 64
    assert populated >= 24 * 256  # 256 KB per row
    assert 8 * 256 <= released < 9 * 256


# ------------------------------------------------------------------------------------------------------------ refusals


def changed(change, name="features/zarr.json"):
    def damage(path):
        meta = json.loads((path / name).read_text())
        change(meta)
        (path / name).write_text(json.dumps(meta))

    return damage


def sharding(meta):
    return meta["codecs"][0]["configuration"]


def rewritten(change):
    """Change the index of shard 1, and give it a right checksum again."""

    def damage(path):
        shard = path / "features/c/1/0/0"
        data, entries = bytearray(shard.read_bytes()), 4
        index = np.frombuffer(bytes(data[-(16 * entries + 4) : -4]), "<u8").reshape(entries, 2).copy()
        change(index)
        data[-(16 * entries + 4) :] = index.tobytes() + _format.crc(index.tobytes()).to_bytes(4, "little")
        shard.write_bytes(data)

    return damage


def swap(index):
    index[[0, 1]] = index[[1, 0]]


def hole(index):
    index[2] = 2**64 - 1


def edit(change):
    """Change the bytes of shard 1."""

    def damage(path):
        shard = path / "features/c/1/0/0"
        shard.write_bytes(change(shard.read_bytes()))

    return damage


METADATA = {
    "compressed": lambda meta: sharding(meta)["codecs"].append({"name": "zstd", "configuration": {"level": 1}}),
    "checksummed": lambda meta: sharding(meta)["codecs"].append({"name": "crc32c"}),
    "index at the start": lambda meta: sharding(meta).update(index_location="start"),
    "index without checksum": lambda meta: sharding(meta)["index_codecs"].pop(),
    "big-endian": lambda meta: sharding(meta)["codecs"][0].update(configuration={"endian": "big"}),
    "not sharded": lambda meta: meta.update(codecs=[{"name": "bytes"}]),
    "chunks of half rows": lambda meta: sharding(meta).update(chunk_shape=[1, 1, 512]),
    "chunks of two rows": lambda meta: sharding(meta).update(chunk_shape=[2, 2, 256]),
    "no codecs": lambda meta: meta.pop("codecs"),
}
SHARD = {
    "rows out of order": rewritten(swap),
    "a row left out": rewritten(hole),
    "flipped index": edit(lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]),
    "flipped checksum": edit(lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "cut": edit(lambda data: data[:-1]),
    "empty": edit(lambda data: b""),
    "longer": edit(lambda data: data + b"\0"),
}


@pytest.mark.parametrize("what", METADATA)
def test_features_that_are_not_rows_in_order_are_not_read_at_all(what, blocks, tmp_path):
    """Neither mapped nor copied: the bytes of a shard would be other numbers."""
    blocks(4)
    write(tmp_path / "s.zarr", 12)
    changed(METADATA[what])(tmp_path / "s.zarr")
    with pytest.raises(StoreError, match="features in .*s.zarr have other shards|codecs"):
        FeatureStore.open(tmp_path / "s.zarr")


@pytest.mark.parametrize("what", SHARD)
def test_shards_that_are_not_rows_in_order_are_not_mapped(what, blocks, tmp_path):
    blocks(4)
    write(tmp_path / "s.zarr", 12)
    SHARD[what](tmp_path / "s.zarr")
    with pytest.raises(StoreError, match="1/0/0 is not 4 rows and their index; .*`featcache check"):
        Mapped(FeatureStore.open(tmp_path / "s.zarr"))


def test_a_shard_that_is_gone_is_not_mapped(blocks, tmp_path):
    blocks(4)
    write(tmp_path / "s.zarr", 12)
    (tmp_path / "s.zarr" / "features/c/1/0/0").unlink()
    with pytest.raises(StoreError, match=r"1/0/0 cannot be read \(No such file or directory\)"):
        Mapped(FeatureStore.open(tmp_path / "s.zarr"))


def test_a_last_block_that_has_grown_is_mapped_as_far_as_it_goes(blocks, tmp_path):
    """Clips were appended and not computed yet: their rows are zeros, not the shard's index."""
    blocks(8)
    x = write(tmp_path / "s.zarr", 5)
    store = FeatureStore.open(tmp_path / "s.zarr")
    more = Manifest("m", tuple(Clip(str(k), "d", "train", f"{k}.mp4") for k in range(5, 7)))
    clips = Manifest("m", (*(_clip(row) for row in store.rows), *more.clips))
    StoreWriter.open(
        tmp_path / "s.zarr", clips, store.recipe, row_shape=store.row_shape, windows=store.windows, facts={}
    ).close()
    array = Mapped(FeatureStore.open(tmp_path / "s.zarr")).array
    assert len(array) == 7
    assert np.array_equal(array[:5], x)
    assert not array[5:].any()


def _clip(row):
    return Clip(row["clip_id"], "d", "train", row["source"])


def test_shards_that_are_not_whole_pages_are_not_mapped(blocks, tmp_path):
    blocks(4)
    x = write(tmp_path / "s.zarr", 7, shape=(200,))
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert why_not(store) == f"the shards of {store.path} have 3200 bytes, not whole pages of {PAGE}"
    assert np.array_equal(store.features, x)  # the fallback


def test_other_systems_are_told(blocks, tmp_path, monkeypatch):
    blocks(4)
    write(tmp_path / "s.zarr", 4)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert why_not(FeatureStore.open(tmp_path / "s.zarr")) == "mapping needs Linux on a little-endian machine"
