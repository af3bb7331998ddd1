"""Import and export: features join by clip id, reports name every clip that falls out, bytes survive the round trip."""

import csv as plain_csv
import dataclasses
import os
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from featcache import Clip, FeatureStore, Manifest, bridges
from featcache.bridges import External
from featcache.errors import BusyError, ConfigError, FeatcacheError, FormatError, StoreError
from featcache.exporting import export_features
from featcache.files import claimed
from featcache.importing import import_features
from featcache.store import StoreWriter
from featcache.store.check import problems
from featcache.store.info import info
from pipelines.cli._shared import Commands
from pipelines.cli.exchange import export, import_
from tests.conftest import ROOT
from tests.helpers.stores import manifest as toy
from tests.helpers.stores import write_all

RNG = np.random.default_rng(0)
ROWS = {"c": RNG.normal(size=(2, 4)), "a": RNG.normal(size=(3, 4)), "zz": RNG.normal(size=(1, 4))}


def clips(*ids, name="m"):
    return Manifest(name, tuple(Clip(clip_id, "d", "train", f"{clip_id}.mp4") for clip_id in ids))


def external(rows, dtype=np.float16, times=None, recipe=None):
    arrays = [np.asarray(row, dtype) for row in rows.values()]
    return External(list(rows), arrays.__getitem__, times, recipe or {})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "others.npz"
    bridges.load("npz").write(path, {"RGB": external(ROWS)})
    return path


def states(store):
    return dict(zip(store.frame()["clip_id"], store.frame()["state"], strict=True))


def test_clips_are_joined_by_id_never_by_position(file, tmp_path):
    (report,) = import_features([file], "npz", clips("a", "b", "c"), tmp_path / "stores")
    assert (report.key, report.path) == ("RGB", tmp_path / "stores" / "m" / "rgb.zarr")
    assert (report.matched, report.missing, report.extra) == (["a", "c"], ["b"], ["zz"])
    assert (report.failed, report.edited, report.notes) == ([], [], [])
    store = FeatureStore.open(report.path)
    assert states(store) == {"a": "done", "b": "absent", "c": "done"}
    assert store.failures[1] == "not in others.npz"
    assert store.length.tolist() == [3, 0, 2]
    for clip_id in ("a", "c"):
        mine = store[clip_id][: store.length[store.clip_ids.index(clip_id)]]
        assert mine.tobytes() == ROWS[clip_id].astype(np.float16).tobytes()
    assert np.isnan(store.window_start[0]).all()
    assert problems(report.path) == []
    assert Manifest.read(tmp_path / "stores" / "m" / "manifest.csv").sha256 == clips("a", "b", "c").sha256


def test_the_recipe_says_where_features_come_from(file, tmp_path):
    import hashlib

    (report,) = import_features([file], "npz", clips("a"), tmp_path, key={"RGB": "tbn"}, modality={"RGB": "rgb"})
    recipe = FeatureStore.open(report.path).recipe
    assert recipe["external"]["files"][0].pop("ids_sha256") == hashlib.sha256(b'["c", "a", "zz"]').hexdigest()
    assert recipe == {
        "recipe": "external",
        "extractor": "tbn",
        "version": 1,
        "modality": "rgb",
        "weights_sha256": "external",
        "external": {
            "format": "npz",
            "key": "RGB",
            "files": [{"file": "others.npz", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}],
        },
        "plan": "external",
        "dtype": "float16",
    }


def test_what_the_file_says_of_itself_is_kept(tmp_path):
    recipe = {"extractor": "i3d", "modality": "rgb", "weights_sha256": "abc"}
    bridges.load("hdf5").write(tmp_path / "f.h5", {"features": external(ROWS, recipe=recipe)})
    (report,) = import_features([tmp_path / "f.h5"], "hdf5", clips("a"), tmp_path)
    store = FeatureStore.open(report.path)
    assert store.recipe["external"]["files"][0]["recipe"] == recipe
    assert (store.modality, store.weights_sha256) == ("rgb", "external")


@pytest.mark.parametrize(
    "recipe",
    [
        {"a": [float("nan"), float("inf"), 10**30]},
        {"weights_sha256": 5},
        {"external": {"files": ["x"]}},
        {"external": {"files": {"a": 1}}},
        {"external": [1], "window": None},
    ],
)
def test_a_store_opens_whatever_recipe_its_file_has(tmp_path, recipe):
    bridges.load("npz").write(tmp_path / "f.npz", {"features": external(ROWS, recipe=recipe)})
    for _ in range(2):
        (report,) = import_features([tmp_path / "f.npz"], "npz", clips("a"), tmp_path)
    assert repr(info(report.path)["recipe"]["external"]["files"][0]["recipe"]) == repr(recipe)
    assert info(report.path)["trained_on"] is None


@pytest.mark.parametrize("recipe", [{"a": "\ud800"}, {"\0": 1}, ["a"]])
def test_a_recipe_that_no_store_can_hold_is_named_before_anything_is_written(tmp_path, recipe):
    bridges.load("npz").write(tmp_path / "f.npz", {"features": external(ROWS, recipe=recipe)})
    with pytest.raises(FormatError, match="the recipe of .*f.npz.*remove the recipe"):
        import_features([tmp_path / "f.npz"], "npz", clips("a"), tmp_path)
    assert not (tmp_path / "m").exists()


def test_the_same_import_twice_does_nothing_another_file_is_refused(file, tmp_path):
    def content():
        return {p: p.read_bytes() for p in (tmp_path / "m").rglob("*") if p.is_file()}

    first = import_features([file], "npz", clips("a", "b"), tmp_path)
    before = content()
    assert import_features([file], "npz", clips("a", "b"), tmp_path) == first
    assert content() == before
    bridges.load("npz").write(file, {"RGB": external({"a": ROWS["a"] + 1})})
    with pytest.raises(
        StoreError,
        match=r"external\.files\.0\.sha256: '\w+' in the store(?s:.*)another store with --key KEY=NAME, or remove",
    ):
        import_features([file], "npz", clips("a", "b"), tmp_path)
    with pytest.raises(StoreError, match="made from other clips than manifest 'm'(?s:.*), or remove that store"):
        import_features([file], "npz", clips("a", "c"), tmp_path, key={"RGB": "other"})
    assert content() == before


def test_a_parquet_file_in_another_order_is_read_group_by_group(tmp_path, monkeypatch):
    """Not a row group for each of its rows: once for each pass, and for each 2 blocks that are filled at a time."""
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("featcache.bridges.parquet.GROUP_BYTES", 4 * 2 * 4 * 4)
    monkeypatch.setattr("featcache.store._format.Layout.block_rows", 8)
    monkeypatch.setattr("featcache.importing.BLOCKS", 2)
    monkeypatch.setattr("featcache.importing.RUN_BYTES", 3 * 2 * 4 * 4)  # three rows
    ids = [f"c{k:02}" for k in range(40)]  # 5 blocks, in 3 parts
    rows = {ids[k]: RNG.normal(size=(2, 4)) for k in np.random.default_rng(0).permutation(40)}
    bridges.load("parquet").write(tmp_path / "f", {"x": external(rows, np.float32)})
    reads, open_blocks, blocks = [], [], set()
    real_read, real_done = pq.ParquetFile.read_row_group, StoreWriter.done_many

    def read(file, number, **options):
        reads.append(number)
        return real_read(file, number, **options)

    def done(writer, rows, *values):
        real_done(writer, rows, *values)
        blocks.update(row // 8 for row in rows)
        open_blocks.append(len(writer._blocks))

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read)
    monkeypatch.setattr(StoreWriter, "done_many", done)
    (report,) = import_features([tmp_path / "f"], "parquet", clips(*ids), tmp_path)
    groups = pq.ParquetFile(tmp_path / "f").num_row_groups
    assert groups == 10
    assert set(reads) == set(range(groups))
    assert len(reads) <= (2 + 3) * groups  # to see which cells are empty, to survey, and 3 parts of the store
    assert len(blocks) == 5
    assert max(open_blocks) == 2
    store = FeatureStore.open(report.path)
    assert problems(report.path) == []
    for clip_id in ids:
        assert store[clip_id].tobytes() == rows[clip_id].astype(np.float32).tobytes()


def test_other_ids_are_another_recipe(file, tmp_path):
    """Else a second call with corrected ids would leave the first one's rows in place."""
    import_features([file], "npz", clips("a", "b", "c"), tmp_path, ids=["a", "b", "c"])
    with pytest.raises(StoreError, match="ids_sha256"):
        import_features([file], "npz", clips("a", "b", "c"), tmp_path, ids=["b", "a", "c"])


def test_nothing_matches(file, tmp_path):
    with pytest.raises(FormatError, match="no clip of RGB is in manifest 'm'") as caught:
        import_features([file], "npz", clips("x1", "x2", "x3", "x4"), tmp_path / "stores")
    for clip_id in ("'c'", "'a'", "'zz'", "'x1'", "'x2'", "'x3'", "1 more"):
        assert clip_id in str(caught.value)
    assert "x4" not in str(caught.value)
    assert not (tmp_path / "stores").exists()


def test_keys_and_names(tmp_path):
    path = tmp_path / "f.npz"
    bridges.load("npz").write(path, {"RGB 2": external(ROWS), "Flow": external({"a": ROWS["c"][:, :2]})})
    first, second = import_features([path], "npz", clips("a", "c"), tmp_path / "all")
    assert (first.path.name, second.path.name) == ("rgb_2.zarr", "flow.zarr")
    assert second.missing == ["c"]
    (report,) = import_features([path], "npz", clips("a"), tmp_path / "one", key={"Flow": "tvl1"})
    assert FeatureStore.open(report.path).row_shape == (2,)
    for names, message in (
        ({"flow": "x"}, "no key 'flow'; it has: RGB 2, Flow"),
        ({"Flow": "../x"}, "Flow=../x: a store's name .*only letters"),
        ({"Flow": "x", "RGB 2": "x"}, "two keys would become the store 'x'"),
    ):
        with pytest.raises(ConfigError, match=message):
            import_features([path], "npz", clips("a"), tmp_path / "bad", key=names)
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    ("dtype", "asked", "stored", "notes"),
    [
        ("float16", None, "float16", []),
        ("float32", None, "float32", []),
        ("float64", None, "float32", ["float64 becomes float32"]),
        ("int64", None, "float32", ["int64 becomes float32"]),
        (">f4", None, "float32", []),
        (">f2", None, "float16", []),
        ("float32", "float16", "float16", ["float32 becomes float16"]),
        ("float16", "float32", "float32", []),
        ("float64", "float16", "float16", ["float64 becomes float16"]),
    ],
)
def test_dtypes(tmp_path, dtype, asked, stored, notes):
    rows = (100 * np.stack([ROWS["c"], ROWS["c"] + 1])).astype(dtype)
    np.savez(tmp_path / "f.npz", rgb=rows, uid=["a", "b"])
    (report,) = import_features([tmp_path / "f.npz"], "npz", clips("b", "a"), tmp_path, dtype=asked)
    store = FeatureStore.open(report.path)
    assert (store.layout.dtype, report.notes) == (stored, notes)
    assert store["b"].tobytes() == rows[1].astype(stored).tobytes()


def test_bad_clips_fail_with_their_reason_and_the_rest_comes_in(tmp_path):
    rows = {name: ROWS["a"].copy() for name in ("good", "nan", "inf", "large")}
    rows["nan"][1, 2], rows["inf"][0, 0], rows["large"][0, 0] = np.nan, -np.inf, 70000
    bridges.load("npz").write(tmp_path / "f.npz", {"x": external(rows, np.float32)})
    (report,) = import_features([tmp_path / "f.npz"], "npz", clips(*rows), tmp_path, dtype="float16")
    assert dict(report.failed).keys() == {"nan", "inf", "large"}
    assert "not finite" in dict(report.failed)["nan"]
    assert "7e+04, beyond float16" in dict(report.failed)["large"]
    assert states(FeatureStore.open(report.path)) == dict.fromkeys(rows, "failed") | {"good": "done"}


def test_a_clip_that_cannot_be_read_fails_alone(tmp_path, monkeypatch):
    def row(k):
        if k == 1:
            raise FormatError("member 1 is damaged")
        return np.zeros((0, 4), np.float32) if k == 2 else ROWS["a"].astype(np.float32)

    npz = bridges.load("npz")
    (tmp_path / "f").write_bytes(b"")
    monkeypatch.setattr(npz, "read", lambda path, ids: {"x": External(["a", "b", "c"], row)})
    (report,) = import_features([tmp_path / "f"], "npz", clips("a", "b", "c"), tmp_path)
    assert dict(report.failed) == {"b": "member 1 is damaged", "c": "has float32 (0, 4), not numbers (T, D)"}
    assert states(FeatureStore.open(report.path))["a"] == "done"


def test_rows_of_different_shape_name_two_clips(tmp_path):
    bridges.load("hdf5")
    import h5py

    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["rgb/a"], file["rgb/b"], file["rgb/c"] = np.ones((2, 4)), np.ones((2, 4)), np.ones((2, 5))
    with pytest.raises(FormatError, match=r"shape .*\(4,\) in clip 'a', \(5,\) in clip 'c'"):
        import_features([tmp_path / "f.h5"], "hdf5", clips("a", "b", "c"), tmp_path / "stores")
    assert not (tmp_path / "stores").exists()
    (report,) = import_features([tmp_path / "f.h5"], "hdf5", clips("a", "b"), tmp_path / "stores")
    assert report.extra == ["c"], "what the manifest lacks does not matter"


def test_times_are_kept(tmp_path):
    start = np.array([0.5, 2.0, 4.0])
    table = external({"a": ROWS["a"]}, times=lambda k: (start, start + 1))
    bridges.load("npz").write(tmp_path / "f.npz", {"x": table})
    (report,) = import_features([tmp_path / "f.npz"], "npz", clips("a"), tmp_path)
    store = FeatureStore.open(report.path)
    np.testing.assert_array_equal(store.window_start[0], start)
    np.testing.assert_array_equal(store.window_stop[0], start + 1)


def edited(manifest, row, **changes):
    altered = list(manifest.clips)
    altered[row] = dataclasses.replace(altered[row], **changes)
    return altered


def test_rows_of_a_store_of_ours_move_to_an_edited_manifest(tmp_path):
    old = toy(train=1, test=1)
    write_all(tmp_path / "old", old, states={3: "failed", 4: "absent"})
    source = FeatureStore.open(tmp_path / "old" / "toy" / "hog.zarr")
    new = edited(old, 1, start=1.0)[::-1][:-1]  # row 0 gone, row 1 cut elsewhere, the order turned round
    new = Manifest("toy", (*new, Clip("fresh", "day", "train", "fresh.mp4")))
    (report,) = import_features([source.path], "store", new, tmp_path / "new")
    store = FeatureStore.open(report.path)
    ids = source.clip_ids
    assert report.extra == ids[:1]
    assert report.missing == ["fresh"]
    assert report.edited == [(ids[1], "start '' then, '1' now")]
    assert report.failed == [(ids[3], "moov atom not found")]
    assert store.recipe == source.recipe
    assert states(store) == dict.fromkeys(ids[1:], "done") | {
        ids[1]: "failed",
        ids[3]: "failed",
        ids[4]: "absent",
        "fresh": "failed",
    }
    assert store.failures[store.clip_ids.index(ids[1])] == "edited since hog.zarr was made: start '' then, '1' now"
    for clip_id in (ids[2], *ids[5:]):
        assert store[clip_id].tobytes() == source[clip_id].tobytes()
        row, other = store.clip_ids.index(clip_id), ids.index(clip_id)
        np.testing.assert_array_equal(store.window_start[row], source.window_start[other])
    with StoreWriter.open(
        report.path, new, source.recipe, row_shape=source.row_shape, windows=source.windows, facts={}
    ) as writer:
        writer.retry_failed()  # as `featcache extract --retry-failed` does
        assert [new.clips[row].clip_id for row in writer.pending] == [ids[3], ids[1], "fresh"]


def test_wrong_uses_of_a_store(tmp_path):
    write_all(tmp_path, toy(train=1, test=1))
    path = tmp_path / "toy" / "hog.zarr"
    for options, message in (
        ({"ids": ["a"]}, "hog.zarr is a store.* remove these options"),
        ({"dtype": "float16"}, "hog.zarr is a store.* remove these options"),
        ({"modality": {"rgb": "x"}}, "hog.zarr is a store.* remove these options"),
        ({"key": {"x": "y"}}, "no key 'x'; .*modality, rgb"),
        ({}, "imported into itself"),
    ):
        with pytest.raises(ConfigError, match=message):
            import_features([path], "store", toy(train=1, test=1), tmp_path, **options)
    with pytest.raises(FormatError, match="no clip .*done .*manifest 'm'.*store has .*manifest has 'a'"):
        import_features([path], "store", clips("a"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("format", bridges.names())
def test_export_and_import_give_the_same_bytes_or_say_why_not(format, tmp_path):
    """Every format with a store that uses all that a store can be: it comes back, or is refused by name."""
    if format == "parquet":
        pytest.importorskip("pyarrow")
    write_all(tmp_path / "old", toy(train=1, test=1), states={3: "failed"})
    path, keeps = tmp_path / "old" / "toy" / "hog.zarr", bridges.load(format).KEEPS
    try:
        exported = export_features([path], format, tmp_path / "f")
    except FormatError as error:
        assert "windows" not in keeps, error
        return
    source = FeatureStore.open(path)
    assert exported.left_out == [("rgb", source.clip_ids[3], "failed: moov atom not found")]
    assert exported.clips == {"rgb": len(source) - 1}
    assert ("the recipe" in exported.lost) == ("recipe" not in keeps)
    assert ("start and stop of the windows" in exported.lost) == ("times" not in keeps)
    (report,) = import_features([tmp_path / "f"], format, toy(train=1, test=1), tmp_path / "new")
    store = FeatureStore.open(report.path)
    assert (report.missing, report.extra, report.failed) == ([source.clip_ids[3]], [], [])
    assert store.layout.dtype == "float32"
    if "windows" in keeps:
        assert store.features.tobytes() == source.features.tobytes()
    if "times" in keeps:
        np.testing.assert_array_equal(store.window_stop, source.window_stop)
    if "recipe" in keeps:
        assert store.recipe["external"]["files"][0]["recipe"] == source.recipe


@pytest.mark.parametrize("format", ["npz", "npy", "video_features"])
def test_a_file_that_another_process_exports_is_refused(tmp_path, format):
    hog = write_all(tmp_path) / "toy" / "hog.zarr"
    with claimed(tmp_path / "f"), pytest.raises(BusyError, match=f"{tmp_path / 'f'} .*process [0-9]+"):
        export_features([hog], format, tmp_path / "f", overwrite=True)
    assert not (tmp_path / "f").exists()
    export_features([hog], format, tmp_path / "f")
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_export_of_several_stores(tmp_path):
    write_all(tmp_path, toy(train=1, test=1))
    hog, hof = (tmp_path / "toy" / f"{name}.zarr" for name in ("hog", "hof"))
    export_features([hog, hof], "npz", tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as file:
        assert {"rgb", "flow", "clip_id"} <= set(file.files)
        assert file["clip_id"].tolist() == FeatureStore.open(hog).clip_ids
    with pytest.raises(FormatError, match="npy .* only one store; export these 2 stores one by one"):
        export_features([hog, hof], "npy", tmp_path / "f.npy")
    shutil.copytree(hog, tmp_path / "toy" / "hog2.zarr")
    two = export_features([hog, tmp_path / "toy" / "hog2.zarr"], "npz", tmp_path / "g.npz")
    assert list(two.clips) == ["hog", "hog2"]
    write_all(tmp_path / "other", toy(train=1, test=2))
    with pytest.raises(StoreError, match="hof.zarr and .*hog.zarr .*different clips; export them one by one"):
        export_features([hog, tmp_path / "other" / "toy" / "hof.zarr"], "npz", tmp_path / "h.npz")


def test_export_replaces_nothing_unasked(tmp_path):
    write_all(tmp_path, toy(train=1, test=1))
    hog, out = tmp_path / "toy" / "hog.zarr", tmp_path / "f.npz"
    out.write_bytes(b"mine")
    with pytest.raises(FormatError, match="exists; name another file, or replace it with --overwrite"):
        export_features([hog], "npz", out)
    assert out.read_bytes() == b"mine"
    export_features([hog], "npz", out, overwrite=True)
    assert "rgb" in bridges.load("npz").read(out, None)
    for place in (hog, tmp_path / "toy"):
        with pytest.raises(FormatError, match="holds a store that is to be exported"):
            export_features([hog], "npz", place, overwrite=True)


def test_what_a_format_loses_is_named_only_when_it_matters(tmp_path):
    np.savez(tmp_path / "f.npz", rgb=ROWS["c"].astype(np.float16), uid=["a", "b"])
    (report,) = import_features([tmp_path / "f.npz"], "npz", clips("a", "b"), tmp_path)
    assert export_features([report.path], "npz", tmp_path / "g.npz").lost == []
    lost = export_features([report.path], "csv", tmp_path / "g.csv").lost
    assert lost == ["float16, which becomes float32", "the recipe"], "it has no times, one window, and flat rows"


def test_one_store_from_several_files(tmp_path):
    """Train and test files of a domain fill one manifest; their order does not matter, nor that one lacks a key."""
    epic = bridges.load("epic100")
    rows = {name: RNG.normal(size=(2, 4)) for name in "abcd"}
    train, test = tmp_path / "train.pkl", tmp_path / "test.pkl"
    two = {name: rows[name] for name in "ca"}
    epic.write(train, {"RGB": external(two), "Flow": external(two)})
    epic.write(test, {"RGB": external({name: rows[name] for name in "db"})})
    manifest = clips("a", "b", "c", "d", "e")
    reports = import_features([train, test], "epic100", manifest, tmp_path / "s")
    rgb, flow = (FeatureStore.open(report.path) for report in reports)
    assert [report.missing for report in reports] == [["e"], ["b", "d", "e"]]
    assert rgb.failures[4] == "not in test.pkl or train.pkl"
    for name, row in rows.items():
        assert rgb[name].tobytes() == row.astype(np.float16).tobytes()
    entries = rgb.recipe["external"]["files"]
    assert [entry["file"] for entry in entries] == ["test.pkl", "train.pkl"]
    assert all(len(entry[word]) == 64 for entry in entries for word in ("sha256", "ids_sha256"))
    assert [entry["file"] for entry in flow.recipe["external"]["files"]] == ["train.pkl"]
    assert import_features([test, train], "epic100", manifest, tmp_path / "s")[0].matched == list("abcd")
    with pytest.raises(ConfigError, match="--ids .* 3 times for 2 files; .* once per file"):
        import_features([train, test], "epic100", manifest, tmp_path / "x", ids=[["a"], ["b"], ["c"]])
    epic.write(test, {"RGB": external({"d": rows["d"], "a": rows["a"]})})
    with pytest.raises(FormatError, match=r"clip 'a' of RGB is in \S+train.pkl and in \S+test.pkl; import one"):
        import_features([train, test], "epic100", manifest, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def write_without_ids(format, path, rows, key="features"):
    """A file of (n, D) and no ids."""
    if format == "npy":
        with path.open("wb") as stream:
            np.save(stream, rows)
    elif format == "npz":
        with path.open("wb") as stream:
            np.savez(stream, **{key: rows})
    elif format == "mat":
        pytest.importorskip("scipy.io").savemat(path, {key: rows}, appendmat=False)
    elif format == "hdf5":
        with pytest.importorskip("h5py").File(path, "w") as hdf5:
            hdf5[key] = rows
    else:
        bridges.load("epic100").write(path, {key: external({str(k): row[None] for k, row in enumerate(rows)})})


@pytest.mark.parametrize("source", ["next to each file", "once per file"])
@pytest.mark.parametrize("format", ["npy", "npz", "mat", "hdf5", "epic100"])
def test_files_without_ids_fill_one_store(format, source, tmp_path):
    rows, ids = RNG.normal(size=(5, 4)).astype(np.float16), (["d", "a"], ["c", "b", "e"])
    paths = tmp_path / "x.data", tmp_path / "y.data"
    for path, names, part in zip(paths, ids, (rows[:2], rows[2:]), strict=True):
        write_without_ids(format, path, part)
        if source == "next to each file":
            bridges.ids_file(path).write_text("".join(f"{name}\n" for name in names))
    given = ids if source == "once per file" else None
    (report,) = import_features(paths, format, clips(*"abcde"), tmp_path / "s", ids=given)
    store = FeatureStore.open(report.path)
    for clip_id, row in zip("dacbe", rows, strict=True):
        assert np.allclose(store[clip_id][0], row, atol=1e-3)
    with pytest.raises(FeatcacheError, match="once per file, in their order|is in .*x.data and in .*y.data"):
        import_features(paths, format, clips(*"abcde"), tmp_path / "t", ids=ids[0])


def test_one_list_of_ids_may_serve_files_of_several_keys(tmp_path):
    rows = RNG.normal(size=(3, 4)).astype(np.float32)
    for key in ("rgb", "flow"):
        write_without_ids("npz", tmp_path / f"{key}.npz", rows, key)
    paths = [tmp_path / "rgb.npz", tmp_path / "flow.npz"]
    for report in import_features(paths, "npz", clips(*"abc"), tmp_path / "s", ids=["c", "a", "b"]):
        assert FeatureStore.open(report.path)["a"].tobytes() == rows[1].tobytes()


@pytest.mark.parametrize("format", ["npz", "csv"])
def test_ids_next_to_a_file_that_has_ids_are_used_unless_the_two_contradict(format, tmp_path, monkeypatch):
    path = tmp_path / f"f.{format}"
    bridges.load(format).write(path, {"features": external({"0": ROWS["a"][:1], "1": ROWS["c"][:1]})})
    beside = bridges.ids_file(path)
    beside.write_text("b\na\n")
    (report,) = import_features([path], format, clips("a", "b"), tmp_path / "s")  # no clip is called 0 or 1
    assert np.allclose(FeatureStore.open(report.path)["b"][0], ROWS["a"][0], atol=1e-2)
    with pytest.raises(FormatError, match=f"f.{format} has ids of its own, '0', '1', .*{beside.name} .*'b', 'a'"):
        import_features([path], format, clips("a", "b", "1"), tmp_path / "t")
    beside.write_text("a\n")
    with pytest.raises(FormatError, match=f"{beside.name}: correct"):
        import_features([path], format, clips("a", "b"), tmp_path / "t")
    beside.write_text("0\n1\n")
    bridge, reads = bridges.load(format), []
    read = bridge.read
    monkeypatch.setattr(bridge, "read", lambda *given: reads.append(given) or read(*given))
    (report,) = import_features([path], format, clips("0", "1"), tmp_path / "u")
    assert report.matched == ["0", "1"]
    assert len(reads) == 1


def test_a_further_file_for_a_store_names_the_command_with_all_files(tmp_path):
    for name in ("a", "b c"):
        bridges.load("npz").write(tmp_path / f"{name}.npz", {"RGB": external({name: ROWS["a"]})})
    import_features([tmp_path / "a.npz"], "npz", clips("a", "b c"), tmp_path / "s")
    command = r"remove \S+rgb.zarr, then `featcache import npz a.npz 'b c.npz' MANIFEST`"
    for files in (["b c.npz"], ["a.npz", "b c.npz"]):
        with pytest.raises(StoreError, match=command):
            import_features([tmp_path / file for file in files], "npz", clips("a", "b c"), tmp_path / "s")


def test_several_files_keep_the_times_that_they_have(tmp_path):
    start, npz = np.array([0.5, 2.0, 4.0]), bridges.load("npz")
    npz.write(tmp_path / "1.npz", {"x": external({"a": ROWS["a"]}, times=lambda k: (start, start + 1))})
    npz.write(tmp_path / "2.npz", {"x": external({"c": ROWS["c"]})})
    files = [tmp_path / "2.npz", tmp_path / "1.npz"]
    (report,) = import_features(files, "npz", clips("a", "c"), tmp_path / "s")
    store = FeatureStore.open(report.path)
    np.testing.assert_array_equal(store.window_start[0], start)
    assert np.isnan(store.window_start[1, :2]).all()


def test_files_that_name_different_modalities(tmp_path):
    for k, modality in enumerate(("rgb", "flow")):
        table = external({"ac"[k]: ROWS["a"]}, recipe={"modality": modality})
        bridges.load("npz").write(tmp_path / f"{k}.npz", {"x": table})
    files = [tmp_path / "0.npz", tmp_path / "1.npz"]
    with pytest.raises(ConfigError, match="x .*(rgb.*flow|flow.*rgb).*; .*--modality x=NAME"):
        import_features(files, "npz", clips("a", "c"), tmp_path / "s")
    (report,) = import_features(files, "npz", clips("a", "c"), tmp_path / "s", modality={"x": "rgb"})
    assert FeatureStore.open(report.path).modality == "rgb"


def test_no_store_is_begun_when_one_is_refused(tmp_path):
    path = tmp_path / "f.npz"
    bridges.load("npz").write(path, {"flow": external(ROWS), "rgb": external(ROWS)})
    import_features([path], "npz", clips("a"), tmp_path / "s", key={"rgb": "rgb"})
    bridges.load("npz").write(path, {"flow": external(ROWS), "rgb": external({"a": ROWS["a"] + 1})})
    with pytest.raises(StoreError, match="made by another recipe"):
        import_features([path], "npz", clips("a"), tmp_path / "s")
    assert not (tmp_path / "s" / "m" / "flow.zarr").exists()
    (tmp_path / "s" / "m" / "flow.zarr").mkdir()
    (tmp_path / "s" / "m" / "flow.zarr" / "mine").touch()
    with pytest.raises(StoreError, match="no feature store at"):
        import_features([path], "npz", clips("a"), tmp_path / "s", key={"rgb": "new", "flow": "flow"})
    assert not (tmp_path / "s" / "m" / "new.zarr").exists()


def test_new_clips_that_are_too_long_for_the_store(file, tmp_path):
    import_features([file], "npz", clips("c"), tmp_path)
    with pytest.raises(StoreError, match=r"up to 2 windows of \(4,\); new clips have up to 3 of \(4,\)"):
        import_features([file], "npz", clips("c", "a"), tmp_path)
    (report,) = import_features([file], "npz", clips("c", "zz"), tmp_path)
    assert states(FeatureStore.open(report.path)) == {"c": "done", "zz": "done"}


def test_importing_again_tries_failed_clips_again(tmp_path, monkeypatch):
    """What could not be read for a passing reason comes in; what is no good stays failed."""
    broken = {"b"}

    def row(k):
        if "abc"[k] in broken:
            raise FormatError(f"{'abc'[k]} cannot be read now")
        return ROWS["a"].astype(np.float32) * (np.nan if k == 2 else 1)

    monkeypatch.setattr(bridges.load("npz"), "read", lambda path, ids: {"x": External(["a", "b", "c"], row)})
    (tmp_path / "f").write_bytes(b"")
    for failed in (["b", "c"], ["b", "c"], ["c"], ["c"]):
        if failed == ["c"]:
            broken.clear()
        (report,) = import_features([tmp_path / "f"], "npz", clips("a", "b", "c"), tmp_path / "s")
        assert [clip_id for clip_id, _ in report.failed] == failed
        assert all("failed" in problem for problem in problems(report.path))
    assert states(FeatureStore.open(report.path)) == {"a": "done", "b": "done", "c": "failed"}


def test_times_of_another_shape_and_clips_lost_on_the_way_fail_alone(tmp_path, monkeypatch):
    read = []

    def row(k):
        read.append(k)
        if k == 1 and read.count(1) > 1:
            raise FormatError("b went away")
        return ROWS["a"].astype(np.float32)

    def times(k):
        return np.zeros(2 if k == 2 else 3), np.zeros(2 if k in (2, 3) else 3)

    monkeypatch.setattr(bridges.load("npz"), "read", lambda path, ids: {"x": External(list("abcd"), row, times)})
    (tmp_path / "f").write_bytes(b"")
    (report,) = import_features([tmp_path / "f"], "npz", clips(*"abcd"), tmp_path / "s")
    assert report.failed == [
        ("b", "b went away"),
        ("c", "3 windows with times of (2,) and (2,)"),
        ("d", "3 windows with times of (3,) and (2,)"),
    ]


def test_progress_counts_both_passes(file, tmp_path):
    seen = []
    import_features([file], "npz", clips("a", "b", "c"), tmp_path, progress=lambda *pair: seen.append(pair))
    assert seen == [(k, 5) for k in range(6)] + [(5, 5)], "two clips are looked at, then three rows are written"


def test_exported_keys(tmp_path):
    epic = bridges.load("epic100")
    rows = dict.fromkeys("ab", ROWS["a"])
    epic.write(tmp_path / "f.pkl", {"RGB": external(rows), "Flow": external(rows)})
    reports = import_features([tmp_path / "f.pkl"], "epic100", clips("a", "b"), tmp_path)
    stores = [report.path for report in reports]
    export_features(stores, "epic100", tmp_path / "g.pkl")
    assert (tmp_path / "g.pkl").read_bytes() == (tmp_path / "f.pkl").read_bytes()
    exported = export_features(stores, "npz", tmp_path / "g.npz", key={"flow": "motion"})
    assert list(exported.clips) == ["RGB", "motion"]
    with pytest.raises(ConfigError, match="no store 'Flow' to give a key; the stores are: rgb, flow"):
        export_features(stores, "npz", tmp_path / "h.npz", key={"Flow": "motion"})
    with pytest.raises(ConfigError, match=r"\['x', 'x'\]; export them one by one, or .*different keys"):
        export_features(stores, "npz", tmp_path / "h.npz", key={"flow": "x", "rgb": "x"})


def test_stores_of_one_name(tmp_path):
    for place in ("one", "two"):
        write_all(tmp_path / place, toy(train=1, test=1))
    with pytest.raises(ConfigError, match=r"two of the stores .*\['hog', 'hog'\]; export them one by one"):
        export_features([tmp_path / place / "toy" / "hog.zarr" for place in ("one", "two")], "npz", tmp_path / "f")


def test_export_never_writes_into_a_store(tmp_path):
    write_all(tmp_path, toy(train=1, test=1))
    hog, hof = (tmp_path / "toy" / f"{name}.zarr" for name in ("hog", "hof"))
    for out in (hof, hof / "f.npz", hof / "features" / "new" / "f.npz", hog / "f.npz"):
        with pytest.raises(FormatError, match="is in the store .*damage.*; name another file"):
            export_features([hog], "npz", out, overwrite=True)
    assert problems(hog) + problems(hof) == []


@pytest.mark.parametrize("format", [name for name in bridges.names() if name in ("npy", "mmaction2")])
def test_export_replaces_no_companion_unasked(format, tmp_path, monkeypatch):
    write_all(tmp_path, toy(train=1, test=1))
    beside = tmp_path / "f.ids.txt"
    monkeypatch.setattr(bridges.load(format), "companions", lambda path: [beside], raising=False)
    beside.write_text("mine")
    with pytest.raises(FormatError, match=r"f.ids.txt exists; name another file, or replace it with --overwrite"):
        export_features([tmp_path / "toy" / "hog.zarr"], format, tmp_path / "f.x")
    assert beside.read_text() == "mine"


def test_neither_a_file_nor_a_folder(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="pipe is neither a file nor a folder"):
        import_features([tmp_path / "pipe"], "npz", clips("a"), tmp_path / "s")


def test_a_folder_of_stores_is_no_store(tmp_path):
    write_all(tmp_path, toy(train=1, test=1))
    with pytest.raises(ConfigError, match=r"toy is a folder of stores; name .*, such as \S+hof.zarr"):
        export_features([tmp_path / "toy"], "npz", tmp_path / "f.npz")


main = Commands("main")
main.add_command(import_)
main.add_command(export)


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_commands(file, tmp_path):
    clips("a", "b", "c").write(tmp_path / "m.csv")
    result = run("import", "npz", file, tmp_path / "m.csv", "--stores", tmp_path / "stores", "--key", "RGB=tbn")
    assert result.exit_code == 0, result.output
    store = tmp_path / "stores" / "m" / "tbn.zarr"
    assert result.stdout == f"{store}\t2 done, 1 absent, 2 to 3 windows of (4,) float16\n"
    for line in (
        "RGB: 2 clips matched, 1 missing in others.npz, 1 extra (not in the manifest)",
        "RGB: missing: b",
        "RGB: extra: zz",
    ):
        assert line in result.stderr.splitlines()
    result = run("export", store, "--format", "csv", "--out", tmp_path / "out.csv")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'out.csv'}\t2 clips of RGB\n"
    assert "csv does not keep the recipe" in result.stderr
    assert "left out: RGB: b: absent: not in others.npz" in result.stderr
    with (tmp_path / "out.csv").open(newline="") as text:
        lines = list(plain_csv.reader(text))
    assert [line[:2] for line in lines[1:]] == [["a", "0"], ["a", "1"], ["a", "2"], ["c", "0"], ["c", "1"]]
    assert np.float16(lines[1][2]) == np.float16(ROWS["a"][0, 0])


def test_long_lists_are_cut(tmp_path):
    rows = {f"clip{k}": ROWS["a"] for k in range(30)}
    bridges.load("npz").write(tmp_path / "f.npz", {"x": external(rows)})
    clips("clip7").write(tmp_path / "m.csv")
    result = run("import", "npz", tmp_path / "f.npz", tmp_path / "m.csv", "--stores", tmp_path / "s")
    assert result.stderr.count("x: extra:") == 10
    assert "and 19 more" in result.stderr


def test_a_failed_clip_is_an_exit_code(tmp_path):
    bridges.load("npz").write(tmp_path / "f.npz", {"x": external({"a": ROWS["a"], "b": ROWS["a"] * np.nan})})
    clips("a", "b").write(tmp_path / "m.csv")
    result = run("import", "npz", tmp_path / "f.npz", tmp_path / "m.csv", "--stores", tmp_path / "s")
    assert result.exit_code == 1
    assert "x: failed: b: has values that are not finite" in result.stderr
    assert result.stdout.endswith("1 done, 1 failed, 3 windows of (4,) float16\n")


def test_ids_from_a_file(tmp_path):
    np.save(tmp_path / "f.npy", ROWS["a"].astype(np.float32))
    (tmp_path / "ids.txt").write_text("c\n007\na\n")
    clips("a", "007").write(tmp_path / "m.csv")
    arguments = ("import", "npy", tmp_path / "f.npy", tmp_path / "m.csv", "--stores", tmp_path / "s")
    result = run(*arguments, "--ids", tmp_path / "ids.txt", "--modality", "features=rgb")
    assert result.exit_code == 0, result.output
    store = FeatureStore.open(tmp_path / "s" / "m" / "features.zarr")
    assert (store.modality, store.row_shape, store.windows) == ("rgb", (4,), 1)
    assert store["007"].tobytes() == ROWS["a"][1].astype(np.float32).tobytes()


def test_ids_on_the_command_line_once_per_file(tmp_path):
    for name, rows in (("f", ROWS["a"][:1]), ("g", ROWS["c"])):
        write_without_ids("npz", tmp_path / f"{name}.npz", rows)
    (tmp_path / "f.txt").write_text("c\n")
    (tmp_path / "g.txt").write_text("a\nb\n")
    clips(*"abc").write(tmp_path / "m.csv")
    files = [tmp_path / "f.npz", tmp_path / "g.npz", tmp_path / "m.csv", "--stores", tmp_path / "s"]
    result = run("import", "npz", *files, "--ids", tmp_path / "f.txt", "--ids", tmp_path / "g.txt")
    assert result.exit_code == 0, result.output
    assert "3 done" in result.stdout
    result = run("import", "npz", *files)
    assert result.exit_code == 1
    assert "--ids" in result.stderr
    assert "FILE.ids.txt" in result.stderr


def test_several_files_and_keys_on_the_command_line(tmp_path):
    for name in "ac":
        bridges.load("npz").write(tmp_path / f"{name}.npz", {"RGB": external({name: ROWS[name]})})
    clips("a", "c").write(tmp_path / "m.csv")
    files = (tmp_path / "a.npz", tmp_path / "c.npz")
    result = run("import", "npz", *files, tmp_path / "m.csv", "--stores", tmp_path / "s", "--key", "RGB=tbn")
    store = tmp_path / "s" / "m" / "tbn.zarr"
    assert result.stdout == f"{store}\t2 done, 2 to 3 windows of (4,) float16\n", result.output
    assert "RGB: 2 clips matched, 0 missing in a.npz and c.npz, 0 extra (not in the manifest)" in result.stderr
    result = run("export", store, "--format", "npz", "--out", tmp_path / "o.npz", "--key", "tbn=video")
    assert result.stdout == f"{tmp_path / 'o.npz'}\t2 clips of video\n", result.output
    result = run("export", store, "--format", "npz", "--out", tmp_path / "p.npz", "--key", "tbn")
    assert "--key tbn: write --key STORE=NAME" in result.stderr


def test_an_import_without_a_clip_done_is_an_exit_code(tmp_path, monkeypatch):
    """Clips that were edited are named; the others that came in make it good, and none at all does not."""
    old = toy(train=1, test=1)
    write_all(tmp_path / "old", old)
    altered = Manifest("toy", (*edited(old, 0, start=1.0)[:2],))
    altered.write(tmp_path / "m.csv")
    result = run("import", "store", tmp_path / "old" / "toy" / "hog.zarr", tmp_path / "m.csv", "--stores", tmp_path)
    assert result.exit_code == 0, result.output
    clip_id = old.clips[0].clip_id
    assert f"rgb: edited, not imported: {clip_id}: start '' then, '1' now" in result.stderr.splitlines()
    monkeypatch.setattr(FeatureStore, "counts", lambda store: {"done": 0, "failed": 0, "absent": 2})
    result = run("import", "store", tmp_path / "old" / "toy" / "hog.zarr", tmp_path / "m.csv", "--stores", tmp_path)
    assert result.exit_code == 1


def test_the_documentation_lists_the_formats():
    """docs/formats.md has one line per bridge, with all words of its KEEPS."""
    text = (ROOT / "docs" / "formats.md").read_text()
    table = text.partition("\n| format")[2].partition("\n\n")[0]
    lines = [line.split(" | ") for line in table.splitlines() if line.startswith("| `")]
    assert [cells[0].strip("| `") for cells in lines] == bridges.names()
    for cells in lines:
        name = cells[0].strip("| `")
        assert set(cells[3].split(", ")) == bridges.load(name).KEEPS, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "pkl", "others.npz", "m.csv"], "no format 'pkl'"),
        (["import", "npz", "none.npz", "m.csv"], "no npz file none.npz"),
        (["import", "npz", "others.npz", "none.csv"], "no manifest none.csv"),
        (["import", "npz", "m.csv", "m.csv"], "m.csv is not npz as it should be"),
        (["import", "npz", "others.npz", "m.csv", "--key", "x=y"], "no key 'x'; it has: RGB"),
        (["import", "npz", "others.npz", "m.csv", "--key", "RGB="], "write --key KEY=NAME"),
        (["import", "npz", "others.npz", "m.csv", "--modality", "RGB"], "write --modality KEY=NAME"),
        (["import", "npz", "others.npz", "m.csv", "--ids", "none.txt"], "no file of ids none.txt; "),
        (["import", "npz", "others.npz", "m.csv", "--ids", "ids.txt"], "features of 3 clips, but there are 2 ids"),
        (["import", "store", "others.npz", "m.csv"], "no feature store at others.npz"),
        (["export", "none.zarr", "--format", "npz", "--out", "o"], "no feature store at none.zarr"),
        (["export", "none.zarr", "--format", "pkl", "--out", "o"], "no format 'pkl'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_wrong_input_is_one_sentence(file, monkeypatch, arguments, message):
    monkeypatch.chdir(file.parent)
    clips("a", "b", "c").write("m.csv")
    (file.parent / "ids.txt").write_text("a\nb\n")
    before = sorted(os.listdir())
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert isinstance(result.exception, SystemExit)
    assert sorted(os.listdir()) == before


@pytest.mark.slow
@pytest.mark.realdata
def test_real_emg_through_every_step(realdata, tmp_path):
    """1,994 segments of two arms: npz -> stores -> hdf5 -> stores, with equal bytes; ids from its own columns."""
    with np.load(realdata / "actionsense_emg" / "emg_all_subjects.npz", allow_pickle=False) as file:
        left, right, offset = file["left"], file["right"], file["offset"]
        keys = zip(file["session"], file["action_id"], file["segment"], strict=True)
        ids = [f"{session}_{action}_{segment}" for session, action, segment in keys]
    chosen = [*range(0, 1994, 10), 3]
    manifest = clips(*(ids[k] for k in chosen), "nobody", name="emg")
    npz = realdata / "actionsense_emg" / "emg_all_subjects.npz"
    first = import_features([npz], "npz", manifest, tmp_path / "one", ids=ids)
    assert [report.key for report in first] == ["left", "right"]
    assert all(report.missing == ["nobody"] and len(report.extra) == 1994 - len(chosen) for report in first)
    stores = [FeatureStore.open(report.path) for report in first]
    for store, flat in zip(stores, (left, right), strict=True):
        assert store.windows == max(np.diff(offset)[chosen])
        for row, k in enumerate(chosen):
            assert store.read([row])[0, : store.length[row]].tobytes() == flat[offset[k] : offset[k + 1]].tobytes()
    export_features([store.path for store in stores], "hdf5", tmp_path / "emg.h5")
    second = import_features([tmp_path / "emg.h5"], "hdf5", manifest, tmp_path / "two")
    for store, report in zip(stores, second, strict=True):
        again = FeatureStore.open(report.path)
        assert again.modality == store.modality
        for name in ("features", "length", "state"):
            shards = [sorted((path / name).rglob("c/*")) for path in (store.path, again.path)]
            for mine, theirs in zip(*shards, strict=True):
                assert mine.is_dir() or mine.read_bytes() == theirs.read_bytes()


def test_errors_are_ours():
    with pytest.raises(FeatcacheError, match="no store to export"):
        export_features([], "npz", "x.npz")
