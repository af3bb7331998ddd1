"""The formats that are pickles: what their own code writes and reads, and what is refused."""

import os
import pickle

import numpy as np
import pytest
import torch

from featcache.bridges import External, ego, epic100, mmaction2
from featcache.errors import FormatError
from tests.helpers.formats import refused, rows


def write_pickle(path, value):
    path.write_bytes(pickle.dumps(value))
    return path


RGB = np.zeros((2, 5, 4), np.float32)


def test_epic100_as_the_challenge_has_it(tmp_path):
    features = {key: np.random.default_rng(0).normal(size=(3, 25, 8)).astype("f4") for key in ("RGB", "Flow", "Audio")}
    for ids in (["P01_11_0", "P01_11_1", "P22_9"], np.array(["P01_11_0", "P01_11_1", "P22_9"], object)):
        path = write_pickle(tmp_path / "f.pkl", {"narration_ids": ids, "features": features})
        found = epic100.read(path, None)
        assert list(found) == ["RGB", "Flow", "Audio"]
        for key, table in found.items():
            assert list(table.ids) == list(ids)
            np.testing.assert_array_equal(table.row(2), features[key][2])


def test_epic100_pooled_features_are_one_window(tmp_path):
    path = write_pickle(tmp_path / "f", {"narration_ids": ["a", "b"], "features": {"RGB": RGB[:, 0]}})
    assert epic100.read(path, None)["RGB"].row(0).shape == (1, 4)


def test_epic100_is_read_by_the_challenges_code(tmp_path):
    """dict(zip(narration_ids, features[modality])), and all modalities side by side."""
    tables = {"RGB": External(["b", "a"], rows(2, 2).__getitem__), "Flow": External(["a", "b"], rows(2, 2).__getitem__)}
    epic100.write(tmp_path / "f", tables)
    content = pickle.loads((tmp_path / "f").read_bytes())
    both = dict(zip(content["narration_ids"], np.concatenate(list(content["features"].values()), -1), strict=True))
    for clip_id in "ab":
        parts = [table.row(table.ids.index(clip_id)) for table in tables.values()]
        np.testing.assert_array_equal(both[clip_id], np.concatenate(parts, -1))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1], "a list; .*narration_ids"),
        ({"narration_ids": ["a", "b"]}, "a dict with narration_ids; .*features"),
        ({"features": RGB}, "features"),
        ({"features": {"RGB": RGB}}, "no narration_ids.*text file"),
        ({"narration_ids": ["a", "b"], "features": {}}, "no modality"),
        ({"narration_ids": ["a", "b", "c"], "features": {"RGB": RGB}}, "2 clips.*3 ids"),
        ({"narration_ids": ["a", "b"], "features": {"RGB": RGB, "Flow": RGB[:1]}}, "'Flow'.*1 clips.*2 ids"),
        ({"narration_ids": ["a", "a"], "features": {"RGB": RGB}}, "'a'.* twice"),
        ({"narration_ids": ["a", ["b"]], "features": {"RGB": RGB}}, "holds a list; a clip id"),
        ({"narration_ids": ["a", None], "features": {"RGB": RGB}}, "None.*; a clip id"),
        ({"narration_ids": ["a", 1.5], "features": {"RGB": RGB}}, "1.5 is .*clip id"),
        ({"narration_ids": "ab", "features": {"RGB": RGB}}, "is a str; a list of clip ids"),
        (
            {"narration_ids": np.array([["a", "b"]]), "features": {"RGB": RGB}},
            r"array \(1, 2\) of <U1; a list of",
        ),
        ({"narration_ids": ["a", "b"], "features": {"RGB": RGB.tolist()}}, r"'RGB' is a list; an array \(n, T, D\)"),
        ({"narration_ids": ["a", "b"], "features": {"RGB": RGB[:, 0, 0]}}, r"array \(2,\) of float32; an array"),
        ({"narration_ids": ["a", "b"], "features": {"RGB": RGB[:, :0]}}, r"array \(2, 0, 4\)"),
        ({"narration_ids": ["a", "b"], "features": {"RGB": RGB.astype("U3")}}, "<U3; features are floats"),
        (
            {"narration_ids": ["a", "b"], "features": {"RGB": np.array([[None, 1], [2, 3]])}},
            "object; features are floats",
        ),
        ({"narration_ids": ["a", "b"], "features": {3: RGB.tolist()}}, "3 is a list"),
    ],
)
def test_epic100_malformed(tmp_path, content, words):
    refused(epic100, write_pickle(tmp_path / "f.pkl", content), words)


def test_epic100_holds_the_same_clips_in_all_modalities(tmp_path):
    tables = {"RGB": External(["a", "b"], rows(2, 2).__getitem__), "Flow": External(["a", "c"], rows(2, 2).__getitem__)}
    with pytest.raises(FormatError, match="2 .*RGB.* Flow, such as 'b'"):
        epic100.write(tmp_path / "f", tables)
    with pytest.raises(FormatError, match="equally many windows.*1 to 2"):
        epic100.write(tmp_path / "f", {"RGB": External(["a", "b"], rows(1, 2).__getitem__)})
    assert list(tmp_path.iterdir()) == []


def test_ego_as_its_code_saves_it(tmp_path):
    """Two modalities, one of which a clip lacks; uid is a whole number, of Python's or numpy's."""
    a, b, c = rows(5, 5, 5)
    samples = [
        {"uid": 7, "video_name": "P08_01", "features_RGB": a, "features_EMG": b},
        {"uid": np.int64(3), "video_name": "P08_01", "features_RGB": c, "features_EMG": None},
        {"uid": "x", "video_name": "P08_02", "features_RGB": torch.from_numpy(a[0]), "label": 3},
    ]
    found = ego.read(write_pickle(tmp_path / "f.pkl", {"features": samples}), None)
    assert {key: list(table.ids) for key, table in found.items()} == {"RGB": ["7", "3", "x"], "EMG": ["7"]}
    np.testing.assert_array_equal(found["RGB"].row(1), c)
    np.testing.assert_array_equal(found["EMG"].row(0), b)
    assert found["RGB"].row(2).shape == (1, 3)


@pytest.mark.parametrize(
    ("ids", "uids"),
    [(["7", "12"], [7, 12]), (["7", "012"], ["7", "012"]), (["7", "²"], ["7", "²"]), (["7", "-1"], ["7", "-1"])],
)
def test_ego_numbers_are_written_as_numbers(tmp_path, ids, uids):
    """Its loader looks for int(uid); but ids come back as they were."""
    ego.write(tmp_path / "f", {"RGB": External(ids, rows(2, 3).__getitem__)})
    content = pickle.loads((tmp_path / "f").read_bytes())
    assert [sample["uid"] for sample in content["features"]] == uids
    assert list(ego.read(tmp_path / "f", None)["RGB"].ids) == ids


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1], "a list; a dict"),
        ({"a": 1}, 'a dict with a; a dict .*"features"'),
        ({"features": []}, "features"),
        ({"features": {"uid": 1}}, "features"),
        ({"features": [1]}, "clip 0 is a int; a dict"),
        ({"features": [{"features_RGB": RGB[0]}]}, "clip 0 is a dict with features_RGB; .*uid"),
        ({"features": [{"uid": 1, "video_name": "a"}]}, "no clip has .*features_RGB"),
        ({"features": [{"uid": 1, "features_RGB": [1.0]}]}, r"features_RGB of clip 0 is a list; an array \(clips, D\)"),
        ({"features": [{"uid": 1, "features_RGB": np.float32(1)}]}, "clip 0"),
        ({"features": [{"uid": 1, "features_RGB": np.zeros((0, 4))}]}, r"\(0, 4\)"),
        ({"features": [{"uid": 1, "features_RGB": np.array(["a"])}]}, "<U1; features are floats"),
        ({"features": [{"uid": 1, "features_RGB": RGB[0]}, {"uid": "1", "features_RGB": RGB[0]}]}, "'1'.* twice"),
        ({"features": [{"uid": True, "features_RGB": RGB[0]}]}, "True is .*clip id"),
    ],
)
def test_ego_malformed(tmp_path, content, words):
    refused(ego, write_pickle(tmp_path / "f.pkl", content), words)


def test_ids_that_are_given_replace_those_of_the_file(tmp_path):
    path = write_pickle(tmp_path / "f", {"features": [{"features_RGB": row} for row in rows(1, 2)]})
    assert list(ego.read(path, ["x", "y"])["RGB"].ids) == ["x", "y"]
    path = write_pickle(tmp_path / "f", {"features": {"RGB": RGB}})
    assert list(epic100.read(path, ["x", "y"])["RGB"].ids) == ["x", "y"]
    refused(epic100, path, "2 clips.*3 ids", ["x", "y", "z"])


@pytest.mark.parametrize("kind", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_mmaction2_list(tmp_path, kind):
    a, b, c = rows(2, 4, 3)
    path = write_pickle(tmp_path / "f.pkl", [kind(a), kind(b), kind(c[0])])
    refused(mmaction2, path, "3 features and no clip ids.*f.pkl.ids.txt.*in the order of FILE")
    refused(mmaction2, path, "3 clips.*2 ids", ["x", "y"])
    table = mmaction2.read(path, ["x", "y", "z"])["features"]
    for k, row in enumerate((a, b, c[:1])):
        np.testing.assert_array_equal(table.row(k), row)


def test_mmaction2_ids_of_another_file_are_noticed(tmp_path):
    mmaction2.write(tmp_path / "f.pkl", {"rgb": External(["a", "b"], rows(1, 2).__getitem__)})
    write_pickle(tmp_path / "f.pkl", rows(1, 2, 3))
    refused(mmaction2, tmp_path / "f.pkl", "3 clips.*2 ids")


def test_mmaction2_folder(tmp_path):
    """As version 1 leaves it: a file per video, called after it."""
    (tmp_path / "f" / "b").mkdir(parents=True)
    for name, row in zip(("a.mp4", "b/c.mp4"), rows(1, 2), strict=True):
        write_pickle(tmp_path / "f" / f"{name}.pkl", torch.from_numpy(row))
    table = mmaction2.read(tmp_path / "f", None)["features"]
    assert list(table.ids) == ["a.mp4", "b/c.mp4"]
    np.testing.assert_array_equal(table.row(1), rows(1, 2)[1])
    os.mkfifo(tmp_path / "f" / "z.pkl")
    with pytest.raises(FormatError, match=r"z.pkl is (not|a named pipe)"):
        mmaction2.read(tmp_path / "f", None)["features"].row(2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": RGB}, "a dict with a; a list"),
        ([], "a list; a list of arrays"),
        ([[1.0]], r"entry 0 is a list; an array \(D,\) or \(T, D\)"),
        ([{"pred_scores": RGB}], "a dict with pred_scores"),
        ([np.zeros((0, 3))], r"\(0, 3\)"),
        ([np.array(3.0)], r"array \(\)"),
        ([np.array([None, 1])], "object; features are floats"),
    ],
)
def test_mmaction2_malformed(tmp_path, content, words):
    refused(mmaction2, write_pickle(tmp_path / "f.pkl", content), words, ["x"])


def test_pandas_is_named_in_what_to_do(tmp_path):
    pandas = pytest.importorskip("pandas")
    path = write_pickle(tmp_path / "f.pkl", {"narration_ids": pandas.Index(["a", "b"]), "features": {"RGB": RGB}})
    refused(epic100, path, "pandas.*ids as a list")
