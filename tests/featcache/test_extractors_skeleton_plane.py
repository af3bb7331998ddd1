"""Skeletons of pose estimators: OpenPose's and VIBE's JSON, and joints in the plane, against ST-GCN's rules by hand."""

import json

import numpy as np
import pytest

from featcache.errors import ConfigError, FeatcacheError, MediaError
from featcache.extractors.skeleton import Params, Skeletons
from featcache.joints import LAYOUTS
from featcache.media import poses, skeleton
from featcache.media.skeleton import Skeleton
from tests.helpers.bones import edges
from tests.helpers.media import clip

COCO, OPENPOSE = LAYOUTS["coco-17"].names, LAYOUTS["openpose-18"].names


def people(frames, joints=17, bodies=1, seed=0):
    """(M, T, V, 3) x y score, of 3 digits as in the files."""
    return np.random.default_rng(seed).uniform(0.1, 0.9, (bodies, frames, joints, 3)).round(3).astype(np.float32)


def openpose(path, frames):
    """ST-GCN's JSON of frames [[(18, 3), ...], ...], the first of which has number 1."""
    data = [
        {
            "frame_index": t,
            "skeleton": [
                {"pose": one[:, :2].astype(float).round(3).ravel().tolist(), "score": one[:, 2].tolist()}
                for one in found
            ],
        }
        for t, found in enumerate(frames, 1)
    ]
    path.write_text(json.dumps({"data": data, "label": "testifying", "label_index": 354}))
    return path


def vibe(path, tracks):
    """Skeletics-152's JSON of {track: {frame: (49, 3)}}."""
    content = {
        name: {"joints3d": [np.asarray(joints).tolist() for joints in of.values()], "frame_ids": list(of), "bboxes": []}
        for name, of in tracks.items()
    }
    path.write_text(json.dumps(content))
    return path


def row(joints, **params):
    """(C, frames, V, M) of (M, T, V, 3) in the plane."""
    made = Skeletons(Params(**({"layout": "coco-17", "rotate": False, "centre": False} | params)))
    prepared = made.prepare(Skeleton(np.asarray(joints, np.float32), 30.0))
    assert prepared.shape == made.row_shape
    return prepared


# --- files -----------------------------------------------------------------------------------------------------------


def test_openpose_comes_back_to_the_digit(tmp_path):
    a = people(4, 18)
    found = skeleton.read(openpose(tmp_path / "s.json", [[one] for one in a[0]]), clip()).joints
    assert np.isnan(found[:, 0]).all()  # the file's frames begin at 1
    np.testing.assert_array_equal(found[:, 1:], a)


def test_people_are_sorted_by_score_in_each_frame_after_the_first_five_are_taken(tmp_path):
    a = people(3, 18, bodies=7)
    a[..., 2] = np.array([0.3, 0.5, 0.2, 0.7, 0.1, 0.9, 0.8])[:, None, None]
    a[4, 1, :, 2] = 0.6
    found = skeleton.read(openpose(tmp_path / "s.json", [a[:, 0], a[:, 1], a[:1, 2]]), clip()).joints
    assert found.shape == (5, 4, 18, 3)
    np.testing.assert_array_equal(found[:, 1], a[[3, 1, 0, 2, 4], 0])
    np.testing.assert_array_equal(found[:, 2], a[[3, 4, 1, 0, 2], 1])
    np.testing.assert_array_equal(found[0, 3], a[0, 2])
    assert np.isnan(found[1:, 3]).all()


def test_rows_are_those_of_st_gcns_program(tmp_path):
    """Its arithmetic in a loop: x and y - 1/2, 0 where the score is 0, the two best people of each frame."""
    a = people(6, 18, bodies=3)
    a[1, 2, 7, 2] = a[0, :, 9, 2] = 0  # not found: once, and in the whole clip
    frames = [a[:, 0], a[:2, 1], a[:, 2], a[2:, 3], a[:, 4], a[:1, 5]]
    expected = np.zeros((3, 6, 17, 2))
    places = [OPENPOSE.index(name) for name in COCO]
    for t, found in enumerate(frames):
        best = sorted(found, key=lambda one: -one[:, 2].sum())[:2]
        for m, one in enumerate(best):
            for v, (x, y, score) in enumerate(one[places]):
                expected[:, t, v, m] = (x - 0.5, y - 0.5, score) if score else 0
    read = skeleton.read(openpose(tmp_path / "s.json", frames), clip())
    for source in ("", "openpose-18"):
        np.testing.assert_allclose(row(read.joints, source=source, frames=6), expected, atol=1e-7)


def test_vibe_comes_back_on_the_frames_of_its_tracks(tmp_path):
    a = np.random.default_rng(0).normal(size=(2, 9, 49, 3)).astype(np.float32)
    tracks = {"7": {t: a[0, t] for t in (5, 6, 8)}, "2": {t: a[1, t] for t in (1, 2, 3, 4, 5)}}
    found = skeleton.read(vibe(tmp_path / "s.json", tracks), clip()).joints
    assert found.shape == (2, 9, 15, 3)
    for body, m in ((0, 1), (1, 0)):  # by appearance
        there = [1, 2, 3, 4, 5] if m else [5, 6, 8]
        np.testing.assert_array_equal(found[body, there], a[m, there, :15] * np.float32([1, -1, -1]))  # upright
        assert np.isnan(np.delete(found[body], there, axis=0)).all()
    made = Skeletons(Params(layout="shared-15")).prepare(Skeleton(found, 30.0))
    assert made[..., 0].any()
    assert np.isfinite(made).all()


def test_the_joints_of_vibe_are_openposes():
    """VIBE's first 15 are those of BODY_25: nose, neck, right arm, left arm, middle hip, right leg, left leg."""
    names = LAYOUTS["shared-15"].names
    assert names[:5] == ("head", "shoulder centre", "right shoulder", "right elbow", "right wrist")
    assert (names[8], names[9], names[14]) == ("hip centre", "right hip", "left ankle")
    assert len(names) == poses.SHARED


def test_of_many_tracks_the_longest_are_kept(tmp_path):
    a = np.random.default_rng(0).normal(size=(49, 3)).astype(np.float32)
    tracks = {str(k): dict.fromkeys(range(k + 1), a + k) for k in range(9)}
    found = skeleton.read(vibe(tmp_path / "s.json", tracks), clip()).joints
    assert sorted(np.isfinite(found[..., 0, 0]).sum(1)) == [4, 5, 6, 7, 8, 9]


def test_bounds_and_changed_files(tmp_path):
    path = tmp_path / "s.json"
    for frames in (5, 7):
        a = people(frames, 18)
        openpose(path, [[one] for one in a[0]])
        np.testing.assert_array_equal(skeleton.read(path, clip(2, 4, "frames")).joints, a[:, 1:3])


BODY = {"pose": [0.5] * 36, "score": [0.5] * 18}
BAD = {  # what is in the file, and what is said of it
    "truncated": (json.dumps({"data": [{"frame_index": 1, "skeleton": [BODY]}]})[:-9], "s.json: .*not JSON .*copy or"),
    "empty": ("", "s.json: .*not JSON"),
    "too deep": ("[" * 100_000, "s.json: .*deep"),
    "a list": ([1, 2], "s.json .* OpenPose or VIBE"),
    "a number": (3, "s.json .* OpenPose or VIBE"),
    "other keys": ({"1": {"verts": []}}, "s.json lacks .*'joints3d' .* OpenPose or VIBE"),
    "no score": ({"data": [{"frame_index": 1, "skeleton": [{"pose": [0.5] * 36}]}]}, "s.json lacks .*'score'"),
    "17 joints": (
        {"data": [{"frame_index": 1, "skeleton": [{"pose": [0.5] * 34, "score": [0.5] * 17}]}]},
        "a body has 34 coordinates and 17 scores; 36 and 18 are expected",
    ),
    "words": ({"data": [{"frame_index": 1, "skeleton": [BODY | {"score": ["a"] * 18}]}]}, "could not convert string"),
    "a frame far away": ({"data": [{"frame_index": 10**9, "skeleton": []}]}, "'1000000000' is not a frame number"),
    "before the first": ({"data": [{"frame_index": -1, "skeleton": []}]}, "'-1' is not a frame number from 0"),
    "24 joints": (
        {"1": {"joints3d": np.ones((2, 24, 3)).tolist(), "frame_ids": [0, 1]}},
        r"track 1 has 2 frame_ids and joints3d \(2, 24, 3\); \(frames, 49, 3\) is expected",
    ),
    "fewer frames": ({"1": {"joints3d": np.ones((2, 49, 3)).tolist(), "frame_ids": [0]}}, "track 1 has 1 frame_ids"),
    "nobody": ({"data": [{"frame_index": 1, "skeleton": []}]}, "s.json: nobody is in frames 0 to 1"),
    "no tracks": ({}, "s.json: nobody is in frames 0 to 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_damaged_files_say_what_is_wrong(name, tmp_path):
    content, message = BAD[name]
    (tmp_path / "s.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(MediaError, match=message):
        skeleton.read(tmp_path / "s.json", clip())


def test_of_a_long_array_only_the_clips_frames_are_read(tmp_path, monkeypatch):
    a = people(40, bodies=2)
    np.save(tmp_path / "s.npy", a.transpose(1, 0, 2, 3))
    read = []
    cut = skeleton.arrays._cut
    monkeypatch.setattr(skeleton.arrays, "_cut", lambda array, rows: read.append(rows) or cut(array, rows))
    np.testing.assert_array_equal(skeleton.read(tmp_path / "s.npy", clip(7, 12, "frames")).joints, a[:, 7:12])
    assert read == [slice(0), slice(7, 12)]


# --- layouts and rows ------------------------------------------------------------------------------------------------


def test_the_joints_of_coco_and_openpose_stand_in_their_order():
    assert COCO[0] == "nose"
    assert " ".join(name.split()[-1] for name in COCO[1::2]) == "eye ear shoulder elbow wrist hip knee ankle"
    assert all(name.startswith("left") for name in COCO[1::2])
    assert all(name.startswith("right") for name in COCO[2::2])
    assert OPENPOSE[2:5] == ("right shoulder", "right elbow", "right wrist")
    assert OPENPOSE[11:] == ("left hip", "left knee", "left ankle", "right eye", "left eye", "right ear", "left ear")
    assert set(OPENPOSE) - set(COCO) == {"shoulder centre"}
    assert set(COCO) < set(OPENPOSE)


def test_the_bones_are_those_of_pyskl_and_st_gcn():
    """As their graphs print them, from a joint to its neighbour on the way to the centre."""
    coco = "15-13 13-11 16-14 14-12 11-5 12-6 9-7 7-5 10-8 8-6 5-0 6-0 1-0 3-1 2-0 4-2"
    openpose = "4-3 3-2 7-6 6-5 13-12 12-11 10-9 9-8 11-5 8-2 5-1 2-1 0-1 15-0 14-0 17-15 16-14"
    for name, printed in (("coco-17", coco), ("openpose-18", openpose)):
        assert {f"{far}-{near}" for far, near in edges(name)} == set(printed.split())


def test_x_and_y_count_from_the_middle_and_joints_that_were_not_found_are_there():
    a = people(50, bodies=2)
    a[0, :, 4, 2] = 0
    a[1, 7:9] = np.nan
    found = row(a).transpose(3, 1, 2, 0)
    expected = a - np.float32([0.5, 0.5, 0])
    expected[0, :, 4] = expected[1, 7:9] = 0  # nothing is interpolated
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_resizing_is_as_in_space_scores_too():
    a = people(9)
    a[0, :, :, 2] = np.linspace(0.1, 0.9, 9)[:, None]
    plane = row(a, frames=20)
    space = Skeletons(Params(layout="kinect-20", rotate=False, centre=False, frames=20))
    same = space.prepare(
        Skeleton(np.pad(a - np.float32([0.5, 0.5, 0]), ((0, 0), (0, 0), (0, 3), (0, 0)), "edge"), 30.0)
    )
    np.testing.assert_allclose(plane, same[:, :, :17], atol=1e-6)


@pytest.mark.parametrize("field", ["rotate", "centre"])
def test_what_is_done_in_space_is_refused_in_the_plane(field):
    with pytest.raises(ConfigError, match=r"coco-17 .* skeleton.centre and skeleton.rotate .*; set both to false"):
        Skeletons(Params(layout="coco-17", **({"rotate": False, "centre": False} | {field: True})))


def test_joints_of_something_else_are_refused():
    with pytest.raises(MediaError, match=r"body 0 \(from 0\) has no scores: .* coco-17 .*; save x, y, score"):
        row(people(5) * [1, 1, 0])
    with pytest.raises(MediaError, match="body 0 .* has no scores"):
        row(people(5) * [1, 1, -1])
    with pytest.raises(MediaError, match=r"body 1 .* x or y of .* picture's .*; divide pixels by them"):
        row(np.concatenate([people(5), people(5) * [1920, 1080, 1]]))


@pytest.mark.parametrize(
    ("layout", "source"),
    [("shared-15", "openpose-18"), ("ntu-25", "coco-17"), ("coco-17", "ntu-25"), ("coco-17", "shared-15")],
)
def test_the_plane_and_space_share_no_layout(layout, source):
    with pytest.raises(FeatcacheError, match=f"skeleton.layout is '{layout}', but {source} has no joint"):
        Skeletons(Params(layout=layout, source=source, rotate=False, centre=False))
