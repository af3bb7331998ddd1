"""Builders of skeleton data sets, on small files in their layouts and, where they are, on the real ones."""

import json
import pickle
import re
import shutil
import warnings

import numpy as np
import pytest

from featcache import Manifest, builders
from featcache.builders import _ntu, _pkummd
from featcache.errors import FormatError, ManifestError
from featcache.extractors.skeleton import Params, Skeletons
from featcache.joining import join
from featcache.media import skeleton
from tests.conftest import ROOT
from tests.featcache.test_extractors_skeleton_plane import openpose, people, vibe

FILES = {"utk": "utkinect", "msr": "msraction3d", "florence": "florence3d"}


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def build(name, folder):
    """The manifest; numbers of clips that are too small are no matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return builders.load(name).build(folder)


def row(manifest, clip, **params):
    return Skeletons(Params(**({"centre": False} | params))).prepare(skeleton.read(manifest.path(clip), clip))


def kinect_actions(folder):
    """In each data set a clip of 2 frames of the first subject, one of 3 of the second; frame t is at x = t."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, joints in (("utkinect", 20), ("msraction3d", 20), ("florence3d", 15)):
        frames = np.random.default_rng(0).uniform(1, 2, (5, joints, 3)).astype(np.float32)
        frames[..., 0] = np.arange(5)[:, None]
        if name == "florence3d":
            frames *= 1000  # its unit
        np.savez(
            folder / f"{name}.npz",
            frames=frames,
            offset=np.array([0, 2, 5]),
            label=np.array([1, 0]),
            subject=np.array([1, 2]),
            trial=np.array([1, 1]),
            class_names=np.array(["walk", "sit down"]),
        )


def ntu(folder, *names):
    """Files of 2 frames with one body, in two folders."""
    names = names or [
        *("S001C001P001R001A001", "S001C002P003R002A060", "S002C003P008R001A007"),
        *("S018C001P045R001A061", "S019C002P044R001A120", "S020C003P106R002A100"),
    ]
    body = ["72057594037931101 0 1 1 1 1 0 0.02 -0.31 2", "25", *(f"{k / 8} {k % 3} 3 0 0" for k in range(25))]
    for name in names:
        write(folder / f"setups_{name[1] + name[2]}" / f"{name}.skeleton", "2", *["1", *body] * 2)


def pkummd(folder):
    """A recording to train with two actions, one to test with one; alone before frame 20.

    Frame t is at x = t + 1, joint v is at y = v / 8 of the first body, v / 16 of the second.
    """
    for name in ("cross-subject.txt", "cross-view.txt"):
        write(folder / "Split" / name, "Training videos: ", "0002-L, ", "", "Validataion videos: ", "0003-R")
    write(folder / "Label" / "Train_Label_PKU_final" / "0002-L.txt", "1,5,9,2", "51,20,30,1")
    write(folder / "Label" / "Train_Label_PKU_final" / "0003-R.txt", "8,0,40,2")
    for name in ("0002-L", "0003-R"):
        there = [
            (
                "".join(f"{t + 1} {v / 8} 3 " for v in range(25)),
                "".join(f"{t + 1} {v / 16} 2 " for v in range(25)) if t >= 20 else "0 " * 75,
            )
            for t in range(40)
        ]
        write(folder / "Data" / "PKU_Skeleton_Renew" / f"{name}.txt", *(first + second for first, second in there))


def pose(name, label, frames, joints=17, bodies=1, dims=2, seed=0):
    """An annotation of PYSKL's; of the joints in the plane pixels of a picture of 200 x 100."""
    most = 99 if dims == 2 else 2
    keypoint = np.random.default_rng(seed).uniform(1, most, (bodies, frames, joints, dims)).astype(np.float16)
    size = {"img_shape": (100, 200), "original_shape": (100, 200)} if dims == 2 else {}
    scores = {"keypoint_score": (keypoint[..., 0] / 100).astype(np.float16)} if dims == 2 else {}
    return {"frame_dir": name, "label": label, "total_frames": frames, "keypoint": keypoint, **size, **scores}


def pickled(path, split, annotations):
    with path.open("wb") as file:
        pickle.dump({"split": split, "annotations": annotations}, file, protocol=4)


def ntu60_hrnet(folder):
    """Clips of 4, 9 and 5 frames, the second with two bodies; one that no split across views names."""
    annotations = [
        pose("S001C002P003R002A060", 59, 4, seed=1),
        pose("S001C001P001R001A001", 0, 9, bodies=2, seed=2),
        pose("S001C003P001R001A002", 1, 5, seed=3),
    ]
    split = {
        "xsub_train": ["S001C002P003R002A060"],
        "xview_train": ["S001C003P001R001A002", "S001C002P003R002A060"],
        "xview_val": ["S001C001P001R001A001"],
    }
    pickled(folder / "ntu60_hrnet.pkl", split, annotations)


def gym_vibe(folder):
    annotations = [pose(f"A0xAXXysHUo_002184_00223{k}", 49 * k, 6 + k, 49, dims=3, seed=k) for k in range(3)]
    names = [one["frame_dir"] for one in annotations]
    pickled(folder / "gym_vibe.pkl", {"train": names[:2], "val": names[2:]}, annotations)


def kinetics_skeleton(folder):
    """Two clips to train on, in one of which nobody was found, and one to test."""
    for split, names in (("train", ["---QUuC4vJs", "zzzzE0ncP1Y"]), ("val", ["0-abc_d"])):
        of = {name: {"has_skeleton": name[0] != "z", "label": "testifying", "label_index": 354} for name in names}
        write(folder / f"kinetics_{split}_label.json", json.dumps(of))
        for name in names:
            (folder / f"kinetics_{split}").mkdir(exist_ok=True)
            openpose(folder / f"kinetics_{split}" / f"{name}.json", [people(1, 18)[0]] * 3)


def skeletics(folder):
    """Two classes to train on and to test; in one file nobody was found."""
    for split in ("train", "val"):
        for name in ("tai chi", "clapping"):
            home = folder / f"vibe_results_{split}" / name
            home.mkdir(parents=True)
            vibe(home / f"{split}_000014_000024.json", {"1": dict.fromkeys(range(3), np.eye(49, 3) + 1)})
    write(folder / "vibe_results_train" / "tai chi" / "nobody_000000_000010.json", "{}")


WRITERS = {
    "kinect_actions": kinect_actions,
    **dict.fromkeys(("ntu60_xsub", "ntu60_xview", "ntu60plus_xsub", "ntu120_xsub", "ntu120_xset"), ntu),
    **dict.fromkeys(("pkummd_xsub", "pkummd_xview"), pkummd),
    "ntu60_hrnet": ntu60_hrnet,
    "gym_vibe": gym_vibe,
    "kinetics_skeleton": kinetics_skeleton,
    "skeletics": skeletics,
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_manifest_is_written_and_read_back(name, tmp_path):
    WRITERS[name](tmp_path)
    calls = []
    with pytest.warns(UserWarning, match=f"^{name}: ") as said:
        built = builders.load(name).build(tmp_path, progress=lambda *call: calls.append(call))
    assert all(str(w.message).startswith(f"{name}: ") for w in said)
    assert Manifest.read(tmp_path / f"{name}.csv").clips == built.clips
    assert calls == [(len(built), len(built))]
    assert {clip.split for clip in built} == {"train", "test"}
    for clip in built:
        assert built.path(clip).is_file()
        prefix, colon, _ = clip.labels["label"].partition(":")
        assert colon
        assert prefix in clip.domain  # classes of a domain are its own
    card = (ROOT / "data_manifests" / f"{name}.md").read_text()
    assert f"featcache manifest build {name} " in card
    assert all(f"`{domain}`" in card for domain in built.domains)


CODT = {  # Table 1 of CoDT's supplement: clips to train, and of targets clips to test
    "ntu60_xview": (37_646, None),
    "skeletics": (24_265, 2_341),
    "pkummd_xview": (14_357, 7_188),
    "ntu60plus_xsub": (22_935, None),
    "pkummd_xsub": (18_841, 2_704),
}


@pytest.mark.parametrize("name", CODT)
def test_other_numbers_than_those_of_codts_table_are_told(name, tmp_path):
    WRITERS[name](tmp_path)
    with pytest.warns(UserWarning, match=f"^{name}: ") as said:
        builders.load(name).build(tmp_path)
    told = [int(number) for w in said for number in re.findall(r"\d+", str(w.message).replace(",", ""))]
    assert {count for count in CODT[name] if count} <= set(told)


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_without_any_file_is_an_error(name, tmp_path):
    with pytest.raises(ManifestError, match=str(tmp_path)):
        build(name, tmp_path)


# UTKinect, MSR-Action3D, Florence3D


def test_clips_of_the_three_are_intervals_with_classes_of_their_own(tmp_path):
    kinect_actions(tmp_path)
    built = build("kinect_actions", tmp_path)
    assert built.domains == ("florence", "msr", "utk")
    first, second = built.select(domain="florence").clips
    assert (first.clip_id, first.split, first.labels) == (
        "florence/s01_a01_t1",
        "train",
        {"label": "florence:sit down"},
    )
    assert (second.start, second.stop, second.unit, second.split) == (2, 5, "frames", "test")
    for clip in built:
        found = row(built, clip, layout="kinect-15", resize=False, rotate=False)
        expected = np.arange(clip.start, clip.stop)
        np.testing.assert_allclose(found[0, : len(expected), :, 0], np.repeat(expected[:, None], 15, 1), rtol=1e-6)


def test_some_of_the_three_are_enough(tmp_path):
    kinect_actions(tmp_path)
    (tmp_path / "florence3d.npz").unlink()
    with pytest.warns(UserWarning, match="^kinect_actions: ") as said:
        built = builders.load("kinect_actions").build(tmp_path)
    texts = [str(w.message) for w in said]
    assert any(re.fullmatch(r"kinect_actions: florence train has 0 clips\D+109", text) for text in texts)
    assert built.domains == ("msr", "utk")
    assert row(built, built.clips[0], layout="kinect-20").shape == (3, 50, 20, 2)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("frames", np.zeros((4, 20, 3)), "utkinect.npz .*4 frames.*offset.* 5$"),
        ("label", np.zeros(3, int), "subject and trial must .*, and offset one"),
        ("label", np.full(2, 2), "label must be from 0 to 1"),
        ("trial", None, "has no array trial"),
    ],
)
def test_arrays_that_do_not_fit_are_errors(tmp_path, name, value, said):
    kinect_actions(tmp_path)
    path = tmp_path / "utkinect.npz"
    with np.load(path) as file:
        arrays = dict(file) | {name: value}
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    with pytest.raises(ManifestError, match=said):
        build("kinect_actions", tmp_path)
    path.write_text("no archive")
    with pytest.raises(ManifestError, match=r"utkinect.npz .*npz file of plain arrays"):
        build("kinect_actions", tmp_path)


@pytest.mark.realdata
def test_the_real_three_have_their_numbers_and_people(realdata, tmp_path):
    for name in FILES.values():
        shutil.copy(realdata / "skeleton_kinect" / f"{name}.npz", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built = builders.load("kinect_actions").build(tmp_path)
    assert {domain: len(built.rows(domain=domain)) for domain in FILES} == {"utk": 199, "msr": 557, "florence": 215}
    classes = {domain: len(built.select(domain=domain).classes["label"]) for domain in FILES}
    assert classes == {"utk": 10, "msr": 20, "florence": 9}
    place = {name: k for k, name in enumerate(Skeletons(Params(layout="kinect-15")).layout.names)}
    for domain, name in FILES.items():
        some = built.select(domain=domain).clips[:40:8]
        x, y, z = np.concatenate([row(built, clip, layout="kinect-15")[..., 0] for clip in some], axis=1)  # (50 n, 15)
        shoulders = x[:, place["right shoulder"]] - x[:, place["left shoulder"]]
        assert 0.2 < np.median(shoulders) < 0.5  # metres
        height = {joint: np.median(y[:, k]) for joint, k in place.items()}
        assert height["head"] > height["shoulder centre"] > height["spine"] > height["left hip"] > height["left ankle"]
        assert 1 < np.median(z) < 5  # from the camera
        if domain != "florence":
            with np.load(tmp_path / f"{name}.npz") as file:
                frames = file["frames"][int(some[1].start) : int(some[1].stop)]
            found = row(built, some[1], layout="kinect-20", resize=False, rotate=False, frames=len(frames), bodies=1)
            np.testing.assert_array_equal(found[..., 0].transpose(1, 2, 0), frames)


# NTU RGB+D


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("ntu60_xsub", ["S001C001P001R001A001", "S002C003P008R001A007"], ["S001C002P003R002A060"]),
        ("ntu60_xview", ["S001C002P003R002A060", "S002C003P008R001A007"], ["S001C001P001R001A001"]),
        ("ntu60plus_xsub", ["S018C001P045R001A061"], ["S019C002P044R001A120", "S020C003P106R002A100"]),
    ],
)
def test_the_protocols_of_ntu_60(tmp_path, name, train, test):
    ntu(tmp_path)
    built = build(name, tmp_path)
    assert {s: [c.clip_id for c in built.select(split=s)] for s in ("train", "test")} == {"train": train, "test": test}


def test_the_protocols_of_ntu_120(tmp_path):
    ntu(tmp_path)
    people = {clip.clip_id[8:12] for clip in build("ntu120_xsub", tmp_path).select(split="train")}
    assert people == {"P001", "P008", "P045"}
    setups = {clip.clip_id[:4] for clip in build("ntu120_xset", tmp_path).select(split="train")}
    assert setups == {"S002", "S018", "S020"}


def test_half_of_the_people_train():
    assert (len(_ntu.SUBJECTS), sum(_ntu.SUBJECTS)) == (53, 2795)
    assert len([person for person in _ntu.SUBJECTS if person <= 40]) == 20


def test_classes_have_the_names_of_their_data_sets():
    assert (_ntu.CLASSES[1], _ntu.CLASSES[60]) == ("drink water", "walking apart from each other")
    assert (_ntu.CLASSES[61], _ntu.CLASSES[120][:21]) == ("put on headphone", "finger-guessing game ")
    assert len(set(_ntu.CLASSES.values())) == len(_ntu.CLASSES) == 120
    names = list(_pkummd.CLASSES.values())
    assert names == sorted(set(names))  # as in its table
    assert len(names) == 51


def test_a_file_of_ntu_is_a_clip(tmp_path):
    ntu(tmp_path)
    clip = build("ntu60_xsub", tmp_path).clips[1]
    assert (clip.source, clip.domain) == ("setups_00/S001C002P003R002A060.skeleton", "ntu60")
    assert clip.labels == {"label": "ntu:walking apart from each other"}
    found = row(build("ntu60_xsub", tmp_path), clip, rotate=False)
    np.testing.assert_array_equal(found[0, 7, :, 0], np.arange(25) / 8)


def test_files_on_the_list_of_missing_skeletons_are_left_out(tmp_path):
    ntu(tmp_path)
    preface = 'two of the captured samples in the "NTU RGB+D" dataset have missing skeleton data.'
    write(
        tmp_path / "NTU_RGBD_samples_with_missing_skeletons.txt",
        preface,
        "",
        "S001C002P003R002A060",
        "S009C001P001R001A001",
    )
    assert [clip.clip_id for clip in build("ntu60_xsub", tmp_path)] == ["S001C001P001R001A001", "S002C003P008R001A007"]
    assert len(build("ntu120_xsub", tmp_path)) == 5


def test_files_of_other_names_are_told(tmp_path):
    ntu(tmp_path, "S001C001P001R001A001", "S001C001P001R001A001_copy")
    with pytest.warns(UserWarning, match="^ntu60_xsub: ") as said:
        built = builders.load("ntu60_xsub").build(tmp_path)
    assert len(built) == 1
    assert "S001C001P001R001A001_copy.skeleton is not named like" in str(said[0].message)
    with pytest.raises(ManifestError, match=r"no file such as S001C001P001R001A061.skeleton is in .*ntu60plus_xsub.md"):
        build("ntu60plus_xsub", tmp_path)


# PKU-MMD


def test_an_action_of_pku_mmd_is_an_interval_of_its_recording(tmp_path):
    pkummd(tmp_path)
    built = build("pkummd_xsub", tmp_path)
    found = [(c.clip_id, c.split, c.start, c.stop, c.unit, c.labels["label"]) for c in built]
    assert found == [
        ("0002-L/00", "train", 5, 9, "frames", "pku:bow"),
        ("0002-L/01", "train", 20, 30, "frames", "pku:writing"),
        ("0003-R/00", "test", 0, 40, "frames", "pku:drink water"),
    ]
    assert {clip.source for clip in built} == {f"Data/PKU_Skeleton_Renew/{name}.txt" for name in ("0002-L", "0003-R")}
    assert build("pkummd_xview", tmp_path).clips == built.clips
    params = {"resize": False, "rotate": False, "frames": 40}
    one, two, both = (row(built, clip, **params) for clip in built)
    np.testing.assert_array_equal(one[0, :5, 3, 0], [6, 7, 8, 9, 0])
    assert not one[..., 1].any()
    np.testing.assert_array_equal(two[:, 0, 3], [[21, 21], [3 / 8, 3 / 16], [3, 2]])
    assert np.flatnonzero(both[0, :, 0, 1])[0] == 20  # who comes later


@pytest.mark.parametrize(
    ("file", "lines", "said"),
    [
        ("Split/cross-subject.txt", ["0002-L", "0003-R"], "cross-subject.txt does not list recordings such as 0002-L"),
        ("Label/Train_Label_PKU_final/0002-L.txt", ["1,5,9,2", "1,5"], "0002-L.txt line 2: '1,5' is not action,first"),
        ("Label/Train_Label_PKU_final/0002-L.txt", ["52,5,9,2"], "0002-L.txt line 1: '52' .*class.*: 1, 2, 3"),
        ("Label/Train_Label_PKU_final/0002-L.txt", ["1,9,5,2"], "starts at 9 and stops at 5 frames"),
    ],
)
def test_damaged_annotations_of_pku_mmd_are_errors(tmp_path, file, lines, said):
    pkummd(tmp_path)
    write(tmp_path / file, *lines)
    with pytest.raises(ManifestError, match=said):
        build("pkummd_xsub", tmp_path)


def test_missing_annotations_of_pku_mmd_are_named(tmp_path):
    pkummd(tmp_path)
    (tmp_path / "Label/Train_Label_PKU_final/0003-R.txt").unlink()
    with pytest.raises(ManifestError, match=r"no Train_Label_PKU_final/0003-R.txt .*; get it from .*ECHO960/PKU-MMD"):
        build("pkummd_xsub", tmp_path)
    (tmp_path / "Split/cross-view.txt").unlink()
    with pytest.raises(ManifestError, match=r"no cross-view.txt \(nor Split/cross-view.txt\)"):
        build("pkummd_xview", tmp_path)


# skeletons of pose estimators


def annotation(folder, name="ntu60_hrnet", **changes):
    """One of three annotations of the pickle changed; None: left out."""
    WRITERS[name](folder)
    with (folder / f"{name}.pkl").open("rb") as file:
        content = pickle.load(file)
    of = content["annotations"][1]
    of |= changes
    content["annotations"][1] = {key: value for key, value in of.items() if value is not None}
    pickled(folder / f"{name}.pkl", content["split"], content["annotations"])


def test_clips_of_hrnets_pickle_are_intervals_of_one_array_in_pictures(tmp_path):
    ntu60_hrnet(tmp_path)
    built = build("ntu60_hrnet", tmp_path)
    found = [(c.clip_id, c.split, c.start, c.stop, c.unit, c.labels["label"]) for c in built]
    assert found == [
        ("S001C003P001R001A002", "train", 0, 5, "frames", "ntu:eat meal/snack"),
        ("S001C002P003R002A060", "train", 5, 9, "frames", "ntu:walking apart from each other"),
        ("S001C001P001R001A001", "test", 9, 18, "frames", "ntu:drink water"),
    ]
    assert {clip.source for clip in built} == {"ntu60_hrnet.npy"}
    assert np.load(tmp_path / "ntu60_hrnet.npy").shape == (18, 2, 17, 3)
    assert not (tmp_path / "ntu60_hrnet.partial").exists()
    for clip, seed, bodies in zip(built, (3, 1, 2), (1, 1, 2), strict=True):
        of = pose(clip.clip_id, 0, int(clip.stop - clip.start), bodies=bodies, seed=seed)
        x_y = of["keypoint"].astype(np.float32) / [200, 100]
        read = skeleton.read(built.path(clip), clip).joints
        np.testing.assert_allclose(read, np.concatenate([x_y, of["keypoint_score"][..., None]], 3), rtol=1e-6)
        made = row(built, clip, layout="coco-17", rotate=False, resize=False)
        np.testing.assert_allclose(made[:2, : x_y.shape[1], :, 0], x_y[0].transpose(2, 0, 1) - 0.5, atol=1e-6)
        assert made[..., 1].any() == (bodies == 2)
    (tmp_path / "ntu60_hrnet.pkl").rename(tmp_path / "ntu60_2d.pkl")
    assert len(build("ntu60_hrnet", tmp_path)) == 3


@pytest.mark.parametrize("joints", [49, 25])
def test_of_vibes_joints_the_shared_ones_are_kept(joints, tmp_path):
    gym_vibe(tmp_path)
    with (tmp_path / "gym_vibe.pkl").open("rb") as file:
        content = pickle.load(file)
    for one in content["annotations"]:
        one["keypoint"] = one["keypoint"][:, :, :joints]
    pickled(tmp_path / "gym_vibe.pkl", content["split"], content["annotations"])
    built = build("gym_vibe", tmp_path)
    assert [c.labels["label"] for c in built] == ["gym:00", "gym:49", "gym:98"]
    for clip, one in zip(built, content["annotations"], strict=True):
        read = skeleton.read(built.path(clip), clip).joints
        np.testing.assert_array_equal(read, one["keypoint"][:, :, :15].astype(np.float32) * np.float32([1, -1, -1]))
        assert row(built, clip, layout="shared-15").shape == (3, 50, 15, 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"keypoint": np.ones((1, 9, 18, 2))},
            r"keypoint of 'S001C001P001R001A001' is an array \(1, 9, 18, 2\) of .*17, 2",
        ),
        ({"keypoint": np.ones((7, 9, 17, 2))}, "at most 6 bodies"),
        ({"keypoint": np.ones((1, 0, 17, 2))}, "at most 6 bodies, frames, 17, 2"),
        ({"keypoint": np.ones((1, 9, 17, 2), int)}, "keypoint of"),
        ({"keypoint": None}, r"keypoint of 'S001C001P001R001A001' is nothing \(None\)"),
        ({"keypoint_score": None}, r"keypoint_score of .* is nothing .*an array \(2, 9, 17\) is expected"),
        ({"img_shape": (100, 0)}, r"img_shape of .*; \(height, width\) is expected"),
        ({"img_shape": None}, r"img_shape of .*; \(height, width\) is expected"),
        ({"label": "drink"}, "label of 'S001C001P001R001A001' is a str; a number is expected"),
        ({"label": 5}, "'S001C001P001R001A001' with label 5 .*NTU-60's 60 actions"),
        (
            {"frame_dir": "S001C001P001R001A002"},
            "split 'xview_val' .*'S001C001P001R001A001', which has no annotation",
        ),
        ({"frame_dir": None}, "annotation 1 is a dict with .*; .*frame_dir is expected"),
    ],
)
def test_damaged_pickles_of_poses_are_errors_before_anything_is_written(tmp_path, changes, said):
    annotation(tmp_path, **changes)
    with pytest.raises(ManifestError, match=said):
        build("ntu60_hrnet", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ntu60_hrnet.pkl"]


def test_other_pickles_are_errors(tmp_path):
    path = tmp_path / "ntu60_hrnet.pkl"
    pickled(path, {"train": ["a"]}, [])
    with pytest.raises(ManifestError, match=r"has no split 'xview_train'; it has: train"):
        build("ntu60_hrnet", tmp_path)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ManifestError, match="is a list; a dict of split and annotations is expected"):
        build("ntu60_hrnet", tmp_path)
    path.write_bytes(pickle.dumps(shutil.rmtree))
    with pytest.raises(FormatError, match=r"requires shutil.*; nothing was run"):
        build("ntu60_hrnet", tmp_path)
    ntu60_hrnet(tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FormatError, match=r"ntu60_hrnet.pkl"):
        build("ntu60_hrnet", tmp_path)
    annotation(tmp_path, "gym_vibe", label=99)
    with pytest.raises(ManifestError, match="gym_vibe.pkl: label of .*: '99' .*class.*: 0, 1"):
        build("gym_vibe", tmp_path)


def test_clips_of_kinetics_are_those_in_which_somebody_was_found(tmp_path):
    kinetics_skeleton(tmp_path)
    built = build("kinetics_skeleton", tmp_path)
    assert [(c.clip_id, c.split, c.source) for c in built] == [
        ("---QUuC4vJs", "train", "kinetics_train/---QUuC4vJs.json"),
        ("0-abc_d", "test", "kinetics_val/0-abc_d.json"),
    ]
    assert built.clips[0].labels == {"label": "kinetics:testifying"}
    assert row(built, built.clips[0], layout="coco-17", rotate=False)[..., 0].any()
    below = tmp_path / "below"
    below.mkdir()
    (below / "kinetics-skeleton").mkdir()
    kinetics_skeleton(below / "kinetics-skeleton")
    assert build("kinetics_skeleton", below).clips[1].source == "kinetics-skeleton/kinetics_val/0-abc_d.json"


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"a": 3}', '{"a": {"label": "x"}}', '{"a": {"has_skeleton": 1, "label": 3}}']
)
def test_damaged_labels_of_kinetics_are_errors(tmp_path, content):
    kinetics_skeleton(tmp_path)
    write(tmp_path / "kinetics_val_label.json", content)
    with pytest.raises(ManifestError, match=r"kinetics_val_label.json.*(has_skeleton|JSON.*again)"):
        build("kinetics_skeleton", tmp_path)
    (tmp_path / "kinetics_val_label.json").unlink()
    with pytest.raises(ManifestError, match=r"no kinetics_val_label.json .* get it from .*github.com/yysijie/st-gcn"):
        build("kinetics_skeleton", tmp_path)


def test_classes_of_skeletics_are_its_folders_or_those_of_a_list(tmp_path):
    skeletics(tmp_path)
    built = build("skeletics", tmp_path)
    assert [(c.clip_id.split("/")[0], c.split, c.labels["label"]) for c in built] == [
        (name, split, f"skeletics:{name}") for split in ("train", "test") for name in ("clapping", "tai chi")
    ]
    assert row(built, built.clips[0], layout="shared-15")[..., 0].any()
    write(tmp_path / "classes.txt", "tai chi", "")
    assert {c.labels["label"] for c in build("skeletics", tmp_path)} == {"skeletics:tai chi"}
    write(tmp_path / "classes.txt", "tai chi", "taichi")
    with pytest.raises(ManifestError, match=r"classes.txt: 'taichi' .*class.*: clapping, tai chi$"):
        build("skeletics", tmp_path)
    shutil.rmtree(tmp_path / "vibe_results_val")
    with pytest.raises(ManifestError, match="no folder vibe_results_val or validation or val in .*skelemoa/quovadis"):
        build("skeletics", tmp_path)


@pytest.mark.parametrize(
    ("parts", "layout"), [(("kinetics_skeleton", "ntu60_hrnet"), "coco-17"), (("gym_vibe", "skeletics"), "shared-15")]
)
def test_both_data_sets_of_a_task_make_rows_of_one_manifest(parts, layout, tmp_path):
    for name in parts:
        WRITERS[name](tmp_path)
        build(name, tmp_path)
    out = tmp_path / "both.csv"
    both = join([tmp_path / f"{name}.csv" for name in parts], out)[out]
    assert len(both.domains) == 2
    assert len({row(both, clip, layout=layout, rotate=False).shape for clip in both}) == 1
    classes = [both.select(domain=domain).classes["label"] for domain in both.domains]
    assert not set(classes[0]) & set(classes[1])
