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
from featcache.errors import ConfigError, FeatcacheError, FormatError, StoreError
from featcache.exchange import export_features, import_features
from featcache.store import StoreWriter
from featcache.store.check import problems
from pipelines._commands import Commands
from pipelines.cli_bridges import export, import_
from tests._stores import manifest as toy
from tests._stores import write_all

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
    (report,) = import_features(file, "npz", clips("a", "b", "c"), tmp_path / "stores")
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

    (report,) = import_features(file, "npz", clips("a"), tmp_path, names={"RGB": "tbn"}, modalities={"RGB": "rgb"})
    recipe = FeatureStore.open(report.path).recipe
    assert recipe["external"].pop("ids_sha256") == hashlib.sha256(b'["c", "a", "zz"]').hexdigest()
    assert recipe == {
        "recipe": "external",
        "extractor": "tbn",
        "version": 1,
        "modality": "rgb",
        "weights_sha256": "external",
        "external": {
            "format": "npz",
            "file": "others.npz",
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "key": "RGB",
        },
        "plan": "external",
        "dtype": "float16",
    }


def test_what_the_file_says_of_itself_is_kept(tmp_path):
    recipe = {"extractor": "i3d", "modality": "rgb", "weights_sha256": "abc"}
    bridges.load("hdf5").write(tmp_path / "f.h5", {"features": external(ROWS, recipe=recipe)})
    (report,) = import_features(tmp_path / "f.h5", "hdf5", clips("a"), tmp_path)
    store = FeatureStore.open(report.path)
    assert store.recipe["external"]["recipe"] == recipe
    assert (store.modality, store.weights_sha256) == ("rgb", "external")


def test_the_same_import_twice_does_nothing_another_file_is_refused(file, tmp_path):
    def content():
        return {p: p.read_bytes() for p in (tmp_path / "m").rglob("*") if p.is_file()}

    first = import_features(file, "npz", clips("a", "b"), tmp_path)
    before = content()
    assert import_features(file, "npz", clips("a", "b"), tmp_path) == first
    assert content() == before
    bridges.load("npz").write(file, {"RGB": external({"a": ROWS["a"] + 1})})
    with pytest.raises(StoreError, match=r"made by another recipe(?s:.*)external\.sha256"):
        import_features(file, "npz", clips("a", "b"), tmp_path)
    with pytest.raises(StoreError, match="made from other clips than manifest 'm'"):
        import_features(file, "npz", clips("a", "c"), tmp_path, names={"RGB": "other"})
    assert content() == before


def test_other_ids_are_another_recipe(file, tmp_path):
    """Else a second call with corrected ids would leave the first one's rows in place."""
    import_features(file, "npz", clips("a", "b", "c"), tmp_path, ids=["a", "b", "c"])
    with pytest.raises(StoreError, match="ids_sha256"):
        import_features(file, "npz", clips("a", "b", "c"), tmp_path, ids=["b", "a", "c"])


def test_nothing_matches(file, tmp_path):
    with pytest.raises(FormatError, match="no clip of RGB is in manifest 'm'") as caught:
        import_features(file, "npz", clips("x1", "x2", "x3", "x4"), tmp_path / "stores")
    for clip_id in ("'c'", "'a'", "'zz'", "'x1'", "'x2'", "'x3'", "(4)"):
        assert clip_id in str(caught.value)
    assert "x4" not in str(caught.value)
    assert not (tmp_path / "stores").exists()


def test_keys_and_names(tmp_path):
    path = tmp_path / "f.npz"
    bridges.load("npz").write(path, {"RGB 2": external(ROWS), "Flow": external({"a": ROWS["c"][:, :2]})})
    first, second = import_features(path, "npz", clips("a", "c"), tmp_path / "all")
    assert (first.path.name, second.path.name) == ("rgb_2.zarr", "flow.zarr")
    assert second.missing == ["c"]
    (report,) = import_features(path, "npz", clips("a"), tmp_path / "one", names={"Flow": "tvl1"})
    assert FeatureStore.open(report.path).row_shape == (2,)
    for names, message in (
        ({"flow": "x"}, "no key 'flow'; it has: RGB 2, Flow"),
        ({"Flow": "../x"}, "Flow=../x: a store's name has letters"),
        ({"Flow": "x", "RGB 2": "x"}, "two keys would become the store 'x'"),
    ):
        with pytest.raises(ConfigError, match=message):
            import_features(path, "npz", clips("a"), tmp_path / "bad", names=names)
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
    (report,) = import_features(tmp_path / "f.npz", "npz", clips("b", "a"), tmp_path, dtype=asked)
    store = FeatureStore.open(report.path)
    assert (store.layout.dtype, report.notes) == (stored, notes)
    assert store["b"].tobytes() == rows[1].astype(stored).tobytes()


def test_bad_clips_fail_with_their_reason_and_the_rest_comes_in(tmp_path):
    rows = {name: ROWS["a"].copy() for name in ("good", "nan", "inf", "large")}
    rows["nan"][1, 2], rows["inf"][0, 0], rows["large"][0, 0] = np.nan, -np.inf, 70000
    bridges.load("npz").write(tmp_path / "f.npz", {"x": external(rows, np.float32)})
    (report,) = import_features(tmp_path / "f.npz", "npz", clips(*rows), tmp_path, dtype="float16")
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
    (report,) = import_features(tmp_path / "f", "npz", clips("a", "b", "c"), tmp_path)
    assert dict(report.failed) == {"b": "member 1 is damaged", "c": "has float32 (0, 4), not numbers (T, D)"}
    assert states(FeatureStore.open(report.path))["a"] == "done"


def test_rows_of_different_shape_name_two_clips(tmp_path):
    bridges.load("hdf5")
    import h5py

    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["rgb/a"], file["rgb/b"], file["rgb/c"] = np.ones((2, 4)), np.ones((2, 4)), np.ones((2, 5))
    with pytest.raises(FormatError, match=r"a window is \(4,\) in clip 'a', \(5,\) in clip 'c'"):
        import_features(tmp_path / "f.h5", "hdf5", clips("a", "b", "c"), tmp_path / "stores")
    assert not (tmp_path / "stores").exists()
    (report,) = import_features(tmp_path / "f.h5", "hdf5", clips("a", "b"), tmp_path / "stores")
    assert report.extra == ["c"], "what the manifest lacks does not matter"


def test_times_are_kept(tmp_path):
    start = np.array([0.5, 2.0, 4.0])
    table = external({"a": ROWS["a"]}, times=lambda k: (start, start + 1))
    bridges.load("npz").write(tmp_path / "f.npz", {"x": table})
    (report,) = import_features(tmp_path / "f.npz", "npz", clips("a"), tmp_path)
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
    (report,) = import_features(source.path, "store", new, tmp_path / "new")
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
        ({"ids": ["a"]}, "taken over with its recipe"),
        ({"dtype": "float16"}, "taken over with its recipe"),
        ({"modalities": {"rgb": "x"}}, "taken over with its recipe"),
        ({"names": {"x": "y"}}, "its only one is its modality, rgb"),
        ({}, "imported into itself"),
    ):
        with pytest.raises(ConfigError, match=message):
            import_features(path, "store", toy(train=1, test=1), tmp_path, **options)
    with pytest.raises(FormatError, match="no clip is done and in manifest"):
        import_features(path, "store", clips("a"), tmp_path / "new")
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
    (report,) = import_features(tmp_path / "f", format, toy(train=1, test=1), tmp_path / "new")
    store = FeatureStore.open(report.path)
    assert (report.missing, report.extra, report.failed) == ([source.clip_ids[3]], [], [])
    assert store.layout.dtype == "float32"
    if "windows" in keeps:
        assert store.features.tobytes() == source.features.tobytes()
    if "times" in keeps:
        np.testing.assert_array_equal(store.window_stop, source.window_stop)
    if "recipe" in keeps:
        assert store.recipe["external"]["recipe"] == source.recipe


def test_export_of_several_stores(tmp_path):
    write_all(tmp_path, toy(train=1, test=1))
    hog, hof = (tmp_path / "toy" / f"{name}.zarr" for name in ("hog", "hof"))
    export_features([hog, hof], "npz", tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as file:
        assert {"rgb", "flow", "clip_id"} <= set(file.files)
        assert file["clip_id"].tolist() == FeatureStore.open(hog).clip_ids
    with pytest.raises(FormatError, match="npy holds one key; export these 2 stores one by one"):
        export_features([hog, hof], "npy", tmp_path / "f.npy")
    shutil.copytree(hog, tmp_path / "toy" / "hog2.zarr")
    two = export_features([hog, tmp_path / "toy" / "hog2.zarr"], "npz", tmp_path / "g.npz")
    assert list(two.clips) == ["hog", "hog2"]
    write_all(tmp_path / "other", toy(train=1, test=2))
    with pytest.raises(StoreError, match="are of different clips; export them one by one"):
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
    (report,) = import_features(tmp_path / "f.npz", "npz", clips("a", "b"), tmp_path)
    assert export_features([report.path], "npz", tmp_path / "g.npz").lost == []
    lost = export_features([report.path], "csv", tmp_path / "g.csv").lost
    assert lost == ["float16, which becomes float32", "the recipe"], "it has no times, one window, and flat rows"


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
    assert result.stdout == f"{store}\t2 done, 1 absent\n"
    for line in (
        "RGB: 2 clips matched, 1 missing in others.npz, 1 extra in it",
        "RGB: missing: b",
        "RGB: extra: zz",
    ):
        assert line in result.stderr.splitlines()
    result = run("export", store, "--format", "csv", "--out", tmp_path / "out.csv")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'out.csv'}\t2 clips of rgb\n"
    assert "csv does not keep the recipe" in result.stderr
    assert "left out: rgb: b: absent: not in others.npz" in result.stderr
    with (tmp_path / "out.csv").open(newline="") as text:
        lines = list(plain_csv.reader(text))
    assert [line[:2] for line in lines[1:]] == [["a", "0"], ["a", "1"], ["a", "2"], ["c", "0"], ["c", "1"]]
    assert np.float16(lines[1][2]) == np.float16(ROWS["a"][0, 0])


def test_long_lists_are_cut(tmp_path):
    rows = {f"clip{k}": ROWS["a"] for k in range(30)}
    bridges.load("npz").write(tmp_path / "f.npz", {"x": external(rows)})
    clips("clip7").write(tmp_path / "m.csv")
    result = run("import", "npz", tmp_path / "f.npz", tmp_path / "m.csv", "--stores", tmp_path / "s")
    assert result.stderr.count("x: extra:") == 11
    assert "x: extra: ... and 19 more" in result.stderr


def test_a_failed_clip_is_an_exit_code(tmp_path):
    bridges.load("npz").write(tmp_path / "f.npz", {"x": external({"a": ROWS["a"], "b": ROWS["a"] * np.nan})})
    clips("a", "b").write(tmp_path / "m.csv")
    result = run("import", "npz", tmp_path / "f.npz", tmp_path / "m.csv", "--stores", tmp_path / "s")
    assert result.exit_code == 1
    assert "x: failed: b: has values that are not finite" in result.stderr
    assert result.stdout.endswith("1 done, 1 failed\n")


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
        (["import", "npz", "others.npz", "m.csv", "--ids", "none.txt"], "none.txt cannot be read"),
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
    first = import_features(npz, "npz", manifest, tmp_path / "one", ids=ids)
    assert [report.key for report in first] == ["left", "right"]
    assert all(report.missing == ["nobody"] and len(report.extra) == 1994 - len(chosen) for report in first)
    stores = [FeatureStore.open(report.path) for report in first]
    for store, flat in zip(stores, (left, right), strict=True):
        assert store.windows == max(np.diff(offset)[chosen])
        for row, k in enumerate(chosen):
            assert store.read([row])[0, : store.length[row]].tobytes() == flat[offset[k] : offset[k + 1]].tobytes()
    export_features([store.path for store in stores], "hdf5", tmp_path / "emg.h5")
    second = import_features(tmp_path / "emg.h5", "hdf5", manifest, tmp_path / "two")
    for store, report in zip(stores, second, strict=True):
        again = FeatureStore.open(report.path)
        assert again.modality == store.modality
        for name in ("features", "length", "state"):
            shards = [sorted((path / name).rglob("c/*")) for path in (store.path, again.path)]
            for mine, theirs in zip(*shards, strict=True):
                assert mine.is_dir() or mine.read_bytes() == theirs.read_bytes()


def test_errors_are_ours():
    with pytest.raises(FeatcacheError, match="no store to export"):
        export_features([], "npz", None)
