"""Stores are zarr: what other readers see is what we see, bit for bit."""

import json

import numpy as np
import pytest
import zarr

from featcache import Clip, FeatureStore, Manifest
from featcache.store import StoreWriter, _format

ARRAYS = ("features", "window_start", "window_stop", "length", "state", "digest")


@pytest.fixture(params=["float16", "float32"])
def store(tmp_path, request, monkeypatch):
    """Eleven rows in blocks of four; the last shard is part-filled, row 2 is zeros, 3 failed, 5 is short, 8-10 lack."""
    monkeypatch.setattr(_format.Layout, "block_rows", 4)
    monkeypatch.setattr(_format.Layout, "chunk_rows", 2)
    clips = Manifest("m", tuple(Clip(str(i), "d", "train", f"{i}.mp4") for i in range(11)))
    recipe = {"extractor": "toy", "modality": "rgb", "weights_sha256": "none", "dtype": request.param}
    rows = np.random.default_rng(0).standard_normal((11, 3, 2, 5)).astype(np.float32)
    rows[2] = 0
    with StoreWriter.open(
        tmp_path / "toy.zarr", Manifest("m", clips.clips[:7]), recipe, row_shape=(2, 5), windows=3, facts={}
    ) as writer:
        for row in range(7):
            t = 1 if row == 5 else 3
            if row == 3:
                writer.failed(row, "broken")
            else:
                writer.done(row, rows[row, :t], np.arange(float(t)), np.arange(1.0, t + 1))
    StoreWriter.open(tmp_path / "toy.zarr", clips, recipe, row_shape=(2, 5), windows=3, facts={}).close()
    return FeatureStore.open(tmp_path / "toy.zarr")


def ours(store, name):
    return store._digests if name == "digest" else getattr(store, name)


@pytest.mark.parametrize("name", ARRAYS)
def test_zarr_python(store, name):
    assert np.array_equal(zarr.open_group(store.path, mode="r")[name][:], ours(store, name))


@pytest.mark.parametrize("name", ARRAYS)
def test_zarrs(store, name):
    pytest.importorskip("zarrs")
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        array = zarr.open_array(store.path / name, mode="r")
        assert type(array.async_array.codec_pipeline).__name__ == "ZarrsCodecPipeline"
        assert np.array_equal(array[:], ours(store, name))


@pytest.mark.parametrize("name", ARRAYS)
def test_tensorstore(store, name):
    tensorstore = pytest.importorskip("tensorstore")
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store.path / name}/"}}
    array = tensorstore.open(spec, read=True).result()
    assert np.array_equal(array.read().result(), ours(store, name))
    assert np.array_equal(array[1:3].read().result(), ours(store, name)[1:3])


def test_the_metadata_is_what_the_layout_promises(store):
    """One sharding codec, no compressor, index at the end: the payload of a shard can be mapped."""
    metadata = json.loads((store.path / "features" / "zarr.json").read_text())
    (sharding,) = metadata["codecs"]
    assert sharding["name"] == "sharding_indexed"
    assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["bytes"]
    assert sharding["configuration"]["index_location"] == "end"
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [4, 3, 2, 5]
