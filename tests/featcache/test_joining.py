"""Joins against naive loops; data sets against the stores they come from."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from featcache import Clip, FeatureStore, Manifest
from featcache.errors import StoreError
from featcache.store import FeatureDataset, StoreWriter, _format, archive, dataset, join

SHAPES = {"rgb": (3,), "emg": (2, 2), "flow": ()}
WINDOWS = {"rgb": 2, "emg": 3, "flow": 1}


def write(folder, modality, clips, name="m"):
    """A store of these clips. Modality and id decide the features. Ids with f: failed; with s: short."""
    recipe = {"extractor": modality, "modality": modality, "weights_sha256": "none", "dtype": "float16"}
    path, T = folder / f"{modality}.zarr", WINDOWS[modality]
    manifest = Manifest(name, tuple(clips))
    with StoreWriter.open(path, manifest, recipe, row_shape=SHAPES[modality], windows=T, facts={}) as writer:
        for row, clip in enumerate(clips):
            x, _ = truth(modality, clip.clip_id)
            if "f" in clip.clip_id:
                writer.failed(row, "broken")
            else:
                x = x[: 1 if "s" in clip.clip_id else T]
                writer.done(row, x, np.zeros(len(x)), np.ones(len(x)))
    return FeatureStore.open(path)


def truth(modality, clip_id, in_store=True):
    """Features (T, *row_shape) and the mask of the present windows (T,)."""
    T = WINDOWS[modality]
    present = np.arange(T) < (0 if "f" in clip_id or not in_store else 1 if "s" in clip_id else T)
    rng = np.random.default_rng([len(modality), *clip_id.encode()])
    x = rng.standard_normal((T, *SHAPES[modality])).astype(np.float16)
    x[~present] = 0
    return x, present


def clips(ids, **bounds):
    return [Clip(i, "d", "train", f"{i}.mp4", **bounds) for i in ids]


@pytest.fixture
def two(tmp_path):
    """rgb has a, bf, c, ds, x; emg has y, c, a, ds."""
    return {
        "rgb": write(tmp_path, "rgb", clips(["a", "bf", "c", "ds", "x"])),
        "emg": write(tmp_path, "emg", clips(["y", "c", "a", "ds"])),
    }


def check(joined, expected_ids):
    """Check the features, rows and missing clips of a join against `truth`."""
    assert joined.ids == expected_ids
    features, present = joined.to_torch()
    assert list(features) == list(present) == list(joined.stores)
    for name, store in joined.stores.items():
        assert joined.rows[name].dtype == np.int64
        for k, clip_id in enumerate(joined.ids):
            in_store = clip_id in store.clip_ids
            assert joined.rows[name][k] == (store.clip_ids.index(clip_id) if in_store else -1)
            x, p = truth(name, clip_id, in_store)
            assert np.array_equal(features[name][k].numpy(), x.astype(np.float32))
            assert present[name][k].tolist() == joined.present[name][k].tolist() == p.tolist()
        assert features[name].dtype == torch.float32
        left = [clip_id for clip_id in store.clip_ids if clip_id not in joined.ids]
        assert joined.fell_out[name] == left


def test_inner_and_outer(two):
    check(join(two), ["a", "c", "ds"])
    check(join(two, how="outer"), ["a", "bf", "c", "ds", "x", "y"])
    check(join(dict(reversed(two.items()))), ["c", "a", "ds"])


def test_clips_that_fall_out_are_listed(two):
    assert join(two).fell_out == {"rgb": ["bf", "x"], "emg": ["y"]}
    assert join(two).summary().splitlines() == [
        "3 clips in rgb, emg",
        "2 clips of rgb fell out: 'bf', 'x'",
        "1 clips of emg fell out: 'y'",
    ]
    assert join(two, how="outer").summary().splitlines() == [
        "6 clips in rgb, emg",
        "rgb lacks 1 clips: 'y'",
        "emg lacks 2 clips: 'bf', 'x'",
    ]


def test_one_manifest_needs_no_matching(tmp_path, monkeypatch):
    same = clips(["a", "bf", "ds"])
    stores = {m: write(tmp_path, m, same, name=m) for m in SHAPES}
    monkeypatch.setattr(FeatureStore, "_row", None)
    for how in ("inner", "outer"):
        joined = join(stores, how=how)
        check(joined, ["a", "bf", "ds"])
        assert all(rows.tolist() == [0, 1, 2] for rows in joined.rows.values())
    check(join({"emg": stores["emg"]}), ["a", "bf", "ds"])


any_ids = given(
    st.lists(st.lists(st.sampled_from("abcdefgs"), min_size=1, unique=True), min_size=1, max_size=3), st.data()
)


def equals_a_naive_one(tmp_path_factory, ids, data):
    folder = tmp_path_factory.mktemp("joins")
    stores = {m: write(folder, m, clips(own_ids)) for m, own_ids in zip(SHAPES, ids, strict=False)}
    how = data.draw(st.sampled_from(["inner", "outer"]))
    if how == "inner":
        expected = [i for i in ids[0] if all(i in own_ids for own_ids in ids)]
    else:
        expected = []
        for own_ids in ids:
            expected += [i for i in own_ids if i not in expected]
    if expected:
        check(join(stores, how), expected)
    else:
        with pytest.raises(StoreError, match="no clip is in all .*: rgb has '"):
            join(stores, how)


test_joins_equal_naive_ones = settings(deadline=None, max_examples=7)(any_ids(equals_a_naive_one))
test_many_joins_equal_naive_ones = pytest.mark.slow(
    settings(deadline=None, max_examples=70)(any_ids(equals_a_naive_one))
)


@pytest.mark.parametrize(
    ("rgb", "emg", "wrong"),
    [
        (
            {"start": 1.0, "stop": 2.0},
            {"start": 1.0, "stop": 3.0},
            "stop 2 seconds of a.mp4 in rgb, 3 seconds of a.npz",
        ),
        ({"start": 1.0, "stop": 2.0}, {"start": 0.5, "stop": 2.0}, "start 1 seconds of a.mp4 in rgb, 0.5 seconds"),
        ({"start": 1.0, "unit": "frames"}, {"start": 1.0}, "start 1 frames of a.mp4 in rgb, 1 seconds of a.npz"),
        ({"start": 1.0, "source": "v/a.npz"}, {}, "start 1 seconds of a.npz in rgb, 0 seconds of a.npz in emg"),
        ({"start": 1.0, "stop": 2.0}, {"start": 1.0, "stop": 2.0}, ""),
        ({"start": 1.0, "stop": 2.0}, {}, ""),  # the .npz was cut to the clip
        ({"start": 0.0, "unit": "frames"}, {"start": 0.0}, ""),  # 0 is 0
        ({"start": 0.0, "source": "v/a.npz"}, {}, ""),
        ({"stop": 9.0, "source": "v/a.npz"}, {}, ""),  # may be the file's own end
        ({"start": 2.0, "unit": "frames"}, {"stop": 2.0}, ""),  # not the same bound
        ({"fps": 30.0, "caption": "chop"}, {"caption": "Hacken"}, ""),
    ],
)
def test_bounds_must_agree_where_both_stores_record_them(tmp_path, rgb, emg, wrong):
    one = Clip("a", "d", "train", **({"source": "a.mp4"} | rgb))
    stores = {
        "rgb": write(tmp_path, "rgb", [one, *clips("b")]),
        "emg": write(tmp_path, "emg", [Clip("a", "d", "train", "a.npz", **emg)]),
    }
    if not wrong:
        check(join(stores), ["a"])
        return
    for how in ("inner", "outer"):
        with pytest.raises(StoreError, match=f"different intervals:\n  'a': {wrong}"):
            join(stores, how)


def test_many_conflicts_are_counted(tmp_path):
    ids = [f"{k}" for k in range(9)]
    stores = {
        "rgb": write(tmp_path, "rgb", clips(ids, start=1.0)),
        "emg": write(tmp_path, "emg", clips(ids, start=2.0)),
    }
    with pytest.raises(StoreError, match="and 6 more\n.*different ids"):
        join(stores)


def test_wrong_arguments(two):
    with pytest.raises(StoreError, match="no join 'left'; choose from inner, outer"):
        join(two, how="left")
    with pytest.raises(StoreError, match="at least one store"):
        join({})


def manifest(*labels):
    """A manifest of clips (id, labels)."""
    return Manifest("m", tuple(Clip(i, "d", "train", "x", labels=clip_labels) for i, clip_labels in labels))


LABELS = manifest(("a", {"verb": "peel", "noun": "egg"}), ("c", {"verb": "chop"}), ("q", {"verb": "stir"}))


@pytest.mark.parametrize("mapped", [True, False])
def test_items(two, monkeypatch, mapped):
    if not mapped:
        monkeypatch.setattr(dataset, "why_not", lambda store: "for a test")
    data = FeatureDataset(join(two, how="outer"))
    assert len(data) == 6
    for k, clip_id in enumerate(["a", "bf", "c", "ds", "x", "y"]):
        for place in (k, k - 6):
            features, present, given_id = data[place]
            assert given_id == clip_id
            for name, store in two.items():
                x, p = truth(name, clip_id, clip_id in store.clip_ids)
                assert features[name].dtype == torch.float32
                assert np.array_equal(features[name], x.astype(np.float32))
                assert present[name].tolist() == p.tolist()
    for k in (6, -7):
        with pytest.raises(IndexError):
            data[k]
    assert [item[2] for item in data] == data.ids
    assert data.__getitems__([]) == []


def test_labels(two):
    data = FeatureDataset(join(two, how="outer"), manifest=LABELS)
    labels = {clip_id: labels_of_clip for _, _, clip_id, labels_of_clip in data}
    unlabelled = {"noun": -1, "verb": -1}
    assert LABELS.classes["verb"] == ("chop", "peel", "stir")
    assert labels == {
        **dict.fromkeys(data.ids, unlabelled),
        "a": {"noun": 0, "verb": 1},
        "c": {"noun": -1, "verb": 0},
    }
    with pytest.raises(StoreError, match="manifest 'm' has none of the 6 clips.*'a'"):
        FeatureDataset(join(two, how="outer"), manifest=manifest(("z", {})))


def test_chosen_rows(two):
    data = FeatureDataset(join(two), rows=[2, 0, 2], manifest=LABELS)
    assert [(clip_id, labels["verb"]) for _, _, clip_id, labels in data] == [("ds", -1), ("a", 1), ("ds", -1)]
    assert np.array_equal(data[1][0]["emg"], truth("emg", "a")[0].astype(np.float32))
    assert len(FeatureDataset(join(two), rows=[])) == 0
    for rows in ([3], [-4]):
        with pytest.raises(IndexError, match="outside the 3"):
            FeatureDataset(join(two), rows=rows)


@pytest.mark.parametrize(
    ("workers", "context"), [(0, None), (2, "fork"), pytest.param(1, "spawn", marks=pytest.mark.slow)]
)
def test_loader(two, workers, context):
    joined = join(two, how="outer")
    data = FeatureDataset(joined, manifest=LABELS)
    assert data[0][2] == "a"  # the mappings exist when workers begin
    loader = DataLoader(data, batch_size=4, num_workers=workers, multiprocessing_context=context)
    all_features, all_present = joined.to_torch()
    done = 0
    for features, present, ids, labels in loader:
        part = slice(done, done + len(ids))
        for name in two:
            assert torch.equal(features[name], all_features[name][part])
            assert torch.equal(present[name], all_present[name][part])
        assert list(ids) == joined.ids[part]
        assert labels["verb"].dtype == torch.int64
        assert labels["verb"].tolist() == data.labels["verb"][part].tolist()
        done += len(ids)
    assert done == 6


def test_pickles_hold_neither_mappings_nor_features(tmp_path, monkeypatch):
    monkeypatch.setattr(_format.Layout, "block_rows", 512)
    monkeypatch.setitem(SHAPES, "rgb", (2048,))
    data = FeatureDataset(join({"rgb": write(tmp_path, "rgb", clips(["a", "c"]))}))
    before = len(pickle.dumps(data))
    assert data[0][0]["rgb"].any()
    assert data._maps
    assert len(pickle.dumps(data)) == before < 3000
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again[1][0]["rgb"], data[1][0]["rgb"])


def test_batches_never_go_through_zarr(two, monkeypatch):
    import zarr

    data = FeatureDataset(join(two))
    monkeypatch.setattr(zarr, "open_array", None)
    monkeypatch.setattr(zarr, "open_group", None)
    assert [item[2] for item in data.__getitems__([2, 0])] == ["ds", "a"]


def test_archives_join_as_their_stores_do(two, tmp_path):
    archive.pack(two["emg"].path, tmp_path / "packed.zarr")
    stores = two | {"emg": FeatureStore.open(tmp_path / "packed.zarr")}
    check(join(stores), ["a", "c", "ds"])
    for plain, packed in zip(FeatureDataset(join(two)), FeatureDataset(join(stores)), strict=True):
        assert torch.equal(plain[0]["emg"], packed[0]["emg"])
