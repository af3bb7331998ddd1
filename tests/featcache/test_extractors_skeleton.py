"""Skeleton files to joints, and joints to rows, against loops and numbers worked by hand."""

import warnings

import cv2
import numpy as np
import pytest

from featcache.errors import ConfigError, FeatcacheError, MediaError
from featcache.extractors import skeleton as extractor
from featcache.extractors.skeleton import Params, Skeletons
from featcache.joints import LAYOUTS, ROWS
from featcache.media import skeleton
from featcache.media.skeleton import Skeleton
from tests.helpers.bones import BONES, edges
from tests.helpers.media import clip

NTU = LAYOUTS["ntu-25"].names


def points(frames, joints=25, bodies=1, seed=0):
    """(M, T, V, 3) that are nowhere zero."""
    return np.random.default_rng(seed).uniform(0.5, 2, (bodies, frames, joints, 3)).astype(np.float32)


def kinect(path, frames):
    """An NTU file of frames [{id: (V, 3)}], with the numbers that we do not read beside x y z."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for body, joints in bodies.items():
            lines += [f"{body} 0 1 1 1 1 0 0.02 -0.31 2", str(len(joints))]
            lines += [
                f"{x!r} {y!r} {z!r} 277.1 191.2 1036.2 519.1 -inf 0.05 0.9 -0.03 2" for x, y, z in joints.tolist()
            ]
    path.write_text("\r\n".join(lines) + "\r\n")
    return path


def saved(path, array, **others):
    if path.suffix == ".npz":
        np.savez(path, array, **others)
    else:
        np.save(path, array)
    return path


def row(joints, fps=30.0, **params):
    """(C, frames, V, M) of (M, T, V, 3); nothing moved or turned unless it is asked for."""
    made = Skeletons(Params(**({"rotate": False, "centre": False} | params)))
    prepared = made.prepare(Skeleton(np.asarray(joints, np.float32), fps))
    assert prepared.shape == made.row_shape
    assert prepared.dtype == np.float32
    np.testing.assert_array_equal(made(prepared[None])[0], prepared)
    return prepared


# --- reading ---------------------------------------------------------------------------------------------------------


def test_kinect_text_comes_back_to_the_digit(tmp_path):
    a = points(4)[0]
    found = skeleton.read(kinect(tmp_path / "s.skeleton", [{"72057594037931101": frame} for frame in a]), clip())
    np.testing.assert_array_equal(found.joints, a[None])
    assert (found.fps, found.start, found.stop) == (30, 0, 4 / 30)


def test_bodies_are_told_apart_by_their_id_and_may_come_and_go(tmp_path):
    """Whoever stands first in a frame; the file lists body b before a from frame 2 on."""
    a, b = points(5, bodies=2)
    frames = [{}, {"a": a[1]}, {"b": b[2], "a": a[2]}, {"b": b[3]}, {"b": b[4], "a": a[4]}]
    found = skeleton.read(kinect(tmp_path / "s.skeleton", frames), clip()).joints
    assert found.shape == (2, 5, 25, 3)
    for number, (body, times) in enumerate([(a, [1, 2, 4]), (b, [2, 3, 4])]):
        for t in range(5):
            np.testing.assert_array_equal(found[number, t], body[t] if t in times else np.full((25, 3), np.nan))


def test_bodies_that_are_not_in_the_clip_are_left_out(tmp_path):
    a, b = points(4, bodies=2)
    path = kinect(tmp_path / "s.skeleton", [{"a": a[0]}, {"a": a[1]}, {"b": b[2]}, {"b": b[3], "a": a[3]}])
    np.testing.assert_array_equal(skeleton.read(path, clip(0, 2, "frames")).joints, a[None, :2])
    found = skeleton.read(path, clip(2, None, "frames")).joints
    np.testing.assert_array_equal(found[0], b[2:])
    assert np.isnan(found[1, 0]).all()
    np.testing.assert_array_equal(found[1, 1], a[3])


A = points(7, bodies=2)
LAYOUTS_OF_FILES = [
    (A[0], A[:1]),  # (T, V, C)
    (A, A),  # (M, T, V, C)
    (A[:1], A[:1]),
    (A.transpose(1, 0, 2, 3), A),  # (T, M, V, C)
    (A.transpose(3, 1, 2, 0), A),  # (C, T, V, M)
    (A[:1].transpose(3, 1, 2, 0), A[:1]),
    (A.astype(np.float64), A),
    (np.asfortranarray(A), A),
    (A[:1, ..., :2], A[:1] * [1, 1, 0]),
    (np.concatenate([A, A])[..., :2].transpose(1, 0, 2, 3), np.concatenate([A, A]) * [1, 1, 0]),
    (np.concatenate([A, A])[..., :2].transpose(3, 1, 2, 0), np.concatenate([A, A]) * [1, 1, 0]),
]


@pytest.mark.parametrize("ending", ["npy", "npz"])
@pytest.mark.parametrize(("array", "joints"), LAYOUTS_OF_FILES, ids=lambda array: "x".join(map(str, array.shape)))
def test_arrays_in_every_layout(tmp_path, ending, array, joints):
    path = saved(tmp_path / f"s.{ending}", array)
    np.testing.assert_array_equal(skeleton.read(path, clip()).joints, joints)


AMBIGUOUS = [(3, 9, 25, 3), (2, 9, 25, 2), (2, 5, 25, 3), (6, 6, 25, 2)]


@pytest.mark.parametrize("shape", [*AMBIGUOUS, (9, 25, 4), (25, 9), (7, 9, 25, 3), (1, 2, 9, 25, 3), (9, 75), ()])
def test_other_shapes_are_refused_with_the_accepted_ones(tmp_path, shape):
    accepted = r"accepted: \(T, V, C\), \(M, T, V, C\), \(T, M, V, C\), \(C, T, V, M\), with C of 2 or 3"
    reason = "could be " if shape in AMBIGUOUS else "is none of them"
    with pytest.raises(MediaError, match=rf"s.npy has shape \({str(shape)[1:-1]}\), which {reason}.*{accepted}"):
        skeleton.read(saved(tmp_path / "s.npy", np.ones(shape)), clip())


def test_the_array_of_an_npz_is_the_only_one_or_goes_by_a_usual_name(tmp_path):
    path = tmp_path / "s.npz"
    np.savez(path, joints=A[0], label=np.array(["wave"]))
    np.testing.assert_array_equal(skeleton.read(path, clip()).joints, A[:1])
    np.savez(path, keypoint_score=np.ones((2, 7, 25)), keypoint=A)
    np.testing.assert_array_equal(skeleton.read(path, clip()).joints, A)
    np.savez(path, one=A, two=A)
    with pytest.raises(MediaError, match=r"s.npz .*: one, two; rename .* keypoint or joints or frames"):
        skeleton.read(path, clip())
    np.savez(path, label=np.array(["wave"]))
    with pytest.raises(MediaError, match=r"s.npz holds no array of numbers"):
        skeleton.read(path, clip())


def test_pickles_are_never_loaded(tmp_path):
    for name, save in (("s.npy", np.save), ("s.npz", np.savez)):
        save(tmp_path / name, np.array([{"a": 1}], object))
        with pytest.raises(MediaError, match=f"{name}.* (never loaded|no array of numbers)"):
            skeleton.read(tmp_path / name, clip())


def test_a_body_that_is_all_zero_and_a_joint_that_is_not_finite_are_missing(tmp_path):
    a = points(8, bodies=3)
    a[1, 2:] = 0
    a[2] = 0
    a[0, 1, 5, 1] = np.inf
    a[0, 2, 6, 0] = np.nan
    a[0, 3, 7] = 0  # a joint at 0 may be the centre
    found = skeleton.read(saved(tmp_path / "s.npy", a.transpose(3, 1, 2, 0)[:, :, :, :2]), clip()).joints
    expected = a[:2].copy()
    expected[1, 2:] = np.nan
    expected[0, 1, 5] = expected[0, 2, 6] = np.nan
    np.testing.assert_array_equal(found, expected)
    assert len(skeleton.read(saved(tmp_path / "s.npy", a.transpose(1, 0, 2, 3)), clip()).joints) == 2


@pytest.mark.parametrize("ending", ["skeleton", "npy"])
@pytest.mark.parametrize(
    ("bounds", "first", "stop"),
    [
        (clip(2, 5, "frames"), 2, 5),
        (clip(None, 3, "frames"), 0, 3),
        (clip(8, 99, "frames"), 8, 12),  # beyond the end is the end
        (clip(0.1, 0.2), 3, 6),  # at 30 per second, to the frame in spite of 0.1 * 30 = 3.0000000000000004
        (clip(0.3, None), 9, 12),
        (clip(0.11, 0.12), 3, 4),  # what is on screen
        (clip(1, 2, fps=4.0), 4, 8),
        (clip(2, 4, "frames", fps=10.0), 2, 4),
    ],
)
def test_bounds_in_frames_and_seconds(tmp_path, ending, bounds, first, stop):
    a = points(12)
    path = tmp_path / f"s.{ending}"
    path = saved(path, a) if ending == "npy" else kinect(path, [{"1": frame} for frame in a[0]])
    found = skeleton.read(path, bounds)
    np.testing.assert_array_equal(found.joints, a[:, first:stop])
    rate = bounds.fps or 30
    assert (found.fps, found.start) == (rate, first / rate)
    assert found.stop == pytest.approx(stop / rate)


def test_a_clip_after_the_end_is_refused(tmp_path):
    path = saved(tmp_path / "s.npy", points(12))
    for bounds in (clip(12, 15, "frames"), clip(0.4, 2.0)):
        with pytest.raises(MediaError, match=r"s.npy has 12 frames, but the clip starts at 12; correct start and stop"):
            skeleton.read(path, bounds)


def test_a_file_that_has_changed_is_read_again(tmp_path):
    path = tmp_path / "s.skeleton"
    for frames in (3, 4):
        kinect(path, [{"1": frame} for frame in points(frames)[0]])
        assert skeleton.read(path, clip()).joints.shape[1] == frames


JOINT = "1 1 1 0 0 0 0 0 0 0 0 2"
DAMAGE = {  # lines from, to, what stands there instead; a good file has 1; 2, 3, 4, 5-7; 8, 9, 10, 11-13
    "truncated between joints": (
        12,
        13,
        [],
        "stops after line 11, where the joint 1 of body 1 in frame 1 should follow",
    ),
    "truncated in a joint": (13, 13, ["0.5 0.7"], "line 13: joint 2 has 2 numbers, 12 are expected"),
    "truncated between frames": (8, 13, [], "stops after line 7, where the number of bodies in frame 1 should follow"),
    "too many joints": (10, 10, ["4"], "line 10: body 1 has 4 joints in frame 1, 3 are expected"),
    "no joints": (4, 4, ["0"], "line 4: body 1 has 0 joints in frame 0, more are expected"),
    "a word": (6, 6, [f"a{JOINT}"], "line 6: 'a1 1 1' are not the numbers x y z of joint 1"),
    "no count": (2, 2, ["-1"], "line 2: '-1' is not the number of bodies in frame 0"),
    "another format": (1, 1, ["<xml>"], "line 1: '<xml>' is not the number of frames"),
    "more than announced": (1, 1, ["1"], "line 8: the file continues after"),
    "far less than announced": (1, 1, ["1" + 12 * "0"], "stops after line 13, where the number of bodies in frame 2"),
    "no frames": (1, 13, ["0"], "has no frames; replace it"),
    "no bodies": (1, 13, ["2", "0", "0"], "nobody is in frames 0 to 1: there is no body with a joint"),
    "empty": (1, 13, [], "is empty; copy or download it again"),
    "one body twice": (2, 7, ["2", *2 * ["1 0", "3", *3 * [JOINT]]], "line 8: body 1 occurs twice in frame 0"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_text_says_where(tmp_path, damage):
    path = kinect(tmp_path / "s.skeleton", [{"1": frame} for frame in points(2, joints=3)[0]])
    lines = path.read_text().splitlines()
    first, last, instead, message = DAMAGE[damage]
    lines[first - 1 : last] = instead
    path.write_text("\n".join(lines))
    with pytest.raises(MediaError) as caught:
        skeleton.read(path, clip())
    assert str(caught.value).removeprefix(str(path)).lstrip(": ").startswith(message)


@pytest.mark.parametrize("ending", ["skeleton", "npy", "npz"])
def test_files_that_are_something_else(tmp_path, ending):
    path = tmp_path / f"s.{ending}"
    with pytest.raises(MediaError, match=f"s.{ending}"):
        skeleton.read(path, clip())
    for content in (b"", b"\xff\xfe\x00PK", b"2\n1\n", saved(tmp_path / "whole.npy", A).read_bytes()[:-1]):
        path.write_bytes(content)
        with pytest.raises(MediaError, match=f"s.{ending}"):
            skeleton.read(path, clip())


@pytest.mark.parametrize("value", [np.nan, 0, -np.inf])
def test_nobody_at_all(tmp_path, value):
    path = saved(tmp_path / "s.npy", np.full((1, 9, 25, 3), value))
    with pytest.raises(MediaError, match=r"s.npy: nobody is in frames 4 to 8: there is no body with a joint"):
        skeleton.read(path, clip(4, None, "frames"))


def test_arrays_without_frames_joints_or_bodies(tmp_path):
    for shape, message in [((0, 25, 3), "has no frames"), ((1, 9, 0, 3), "nobody"), ((0, 9, 25, 3), "nobody")]:
        with pytest.raises(MediaError, match=message):
            skeleton.read(saved(tmp_path / "s.npy", np.ones(shape)), clip())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "s.txt is empty; copy or download it again"),
        ("\n\n", "s.txt is empty; copy or download it again"),
        ("1 2 3\n", "s.txt has 3 numbers in a line; a frame of PKU-MMD has 150"),
        ("1 " * 150 + "\n1 2\n", "s.txt .* line of numbers per frame"),
        ("my notes\n", "s.txt .* line of numbers per frame"),
    ],
)
def test_text_of_lines_that_is_not_pku_mmds(tmp_path, text, said):
    (tmp_path / "s.txt").write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MediaError, match=said):
            skeleton.read(tmp_path / "s.txt", clip())


def test_another_ending(tmp_path):
    with pytest.raises(MediaError, match=r"s.mat .* skeletons; .* \.npy, \.npz, \.skeleton"):
        skeleton.read(tmp_path / "s.mat", clip())


# --- layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS)
def test_bones_make_one_tree_that_leads_to_the_centre(name):
    layout = LAYOUTS[name]
    assert len(layout.names) == int(name.split("-")[1]) == len(set(layout.names)) == len(BONES[name]) + 1
    towards = dict(BONES[name])
    assert towards.keys() == set(layout.names) - {layout.centre}
    for joint in layout.names:
        steps = 0
        while joint != layout.centre:
            joint, steps = towards[joint], steps + 1
            assert steps < 10


def test_the_shared_joints_are_numbered_as_the_papers_graph():
    """METHODS 7.4: the edges of CoDT's layout `skeletics`, centre 1."""
    published = "(0,1)(2,1)(3,2)(4,3)(5,1)(6,5)(7,6)(8,1)(9,8)(10,9)(11,10)(12,8)(13,12)(14,13)"
    layout = LAYOUTS["shared-15"]
    assert "".join(f"({a},{b})" for a, b in edges("shared-15")) == published
    assert layout.names.index(layout.centre) == 1


def test_both_layouts_of_15_have_one_graph():
    """So that nets, which see the number of joints, take either."""
    assert edges("kinect-15") == edges("shared-15")
    differ = set(LAYOUTS["kinect-15"].names) ^ set(LAYOUTS["shared-15"].names)
    assert differ == {"spine", "hip centre"}


def test_the_bones_of_ntu_are_those_of_its_paper():
    """Joints from 1, as printed: (1,2)(2,21)(3,21)... in ST-GCN."""
    near = [2, 21, 21, 3, 21, 5, 6, 7, 21, 9, 10, 11, 1, 13, 14, 15, 1, 17, 18, 19, 0, 23, 8, 25, 12]
    expected = {frozenset((k, n - 1)) for k, n in enumerate(near) if n}
    assert {frozenset(edge) for edge in edges("ntu-25")} == expected


@pytest.mark.parametrize(
    ("source", "layout", "places"),
    [
        ("ntu-25", "ntu-25", list(range(25))),
        ("ntu-25", "kinect-20", [0, 1, 20, 3, *range(4, 20)]),
        ("ntu-25", "shared-15", [3, 20, 8, 9, 10, 4, 5, 6, 0, 16, 17, 18, 12, 13, 14]),
        ("kinect-20", "shared-15", [3, 2, 8, 9, 10, 4, 5, 6, 0, 16, 17, 18, 12, 13, 14]),
        ("shared-15", "shared-15", list(range(15))),
        ("ntu-25", "kinect-15", [3, 20, 8, 9, 10, 4, 5, 6, 1, 16, 17, 18, 12, 13, 14]),
        ("kinect-20", "kinect-15", [3, 2, 8, 9, 10, 4, 5, 6, 1, 16, 17, 18, 12, 13, 14]),
        ("florence-15", "kinect-15", [0, 1, 6, 7, 8, 3, 4, 5, 2, 12, 13, 14, 9, 10, 11]),
    ],
)
def test_joints_keep_their_names_from_layout_to_layout(source, layout, places):
    a = points(1, joints=len(LAYOUTS[source].names))
    for given in ("", source):
        found = row(a / LAYOUTS[source].metres, layout=layout, source=given, frames=1, bodies=1)
        np.testing.assert_allclose(found[:, 0, :, 0].T, a[0, 0, places], rtol=1e-6)


@pytest.mark.parametrize(
    ("file", "layout", "taken"),
    [
        ("florence-15", "shared-15", "shared-15 in metres, joints are farther than 5 m"),
        ("shared-15", "kinect-15", "florence-15 in millimetres, joints are nearer than 0.05 m"),
    ],
)
def test_of_two_layouts_of_15_joints_the_wrong_one_is_told_by_the_size_of_people(file, layout, taken):
    a = points(3, joints=15) / LAYOUTS[file].metres
    with pytest.raises(MediaError, match=rf"read as {taken} .*skeleton.source .*\(shared-15, florence-15\)"):
        row(a, layout=layout)
    said = "shared-15" if layout == "shared-15" else "florence-15"
    np.testing.assert_allclose(row(a, layout=layout, source=said).max(), (a * LAYOUTS[said].metres).max(), rtol=1e-6)


@pytest.mark.parametrize("scale", [1000, 0.01])
def test_joints_in_another_unit_are_refused_until_the_source_is_named(scale):
    a = points(3) * scale
    with pytest.raises(MediaError, match="ntu-25 in metres.*skeleton.source"):
        row(a)
    assert row(a, source="ntu-25").max() == a.max()


def test_one_person_in_files_of_two_sensors_makes_one_row():
    """Joints of 20 in metres, and those of Florence3D among them in millimetres."""
    a = points(9, joints=20)
    of_florence = [3, 2, 1, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 17, 18]
    made = [row(file, layout="kinect-15", rotate=True) for file in (a, a[:, :, of_florence] * 1000)]
    np.testing.assert_allclose(*made, atol=1e-4)  # files are float32


def test_layouts_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"skeleton.layout is 'coco'; allowed: ntu-25, kinect-20, shared-15"):
        Skeletons(Params(layout="coco"))
    with pytest.raises(ConfigError, match=r'skeleton.source is \'coco\'; allowed: "", ntu-25'):
        Skeletons(Params(source="coco"))
    with pytest.raises(
        ConfigError, match=r"'ntu-25', but kinect-20 has no joint 'neck'; .* kinect-20, shared-15, kinect-15$"
    ):
        Skeletons(Params(source="kinect-20"))
    either = "shared-15 has no joint 'spine' and florence-15 has no joint 'hip centre'; .*: shared-15, kinect-15$"
    with pytest.raises(FeatcacheError, match=f"'ntu-25', but {either}"):
        row(points(3, joints=15))
    with pytest.raises(ConfigError, match=r"'shared-15', but florence-15 has no joint 'hip centre'; .*: kinect-15$"):
        Skeletons(Params(layout="shared-15", source="florence-15"))
    with pytest.raises(
        ConfigError, match="skeleton.layout is 'florence-15'; allowed: ntu-25, kinect-20, shared-15, kinect-15, coco-17"
    ):
        Skeletons(Params(layout="florence-15"))
    with pytest.raises(MediaError, match=r"have 21 joints, .*: ntu-25 \(25\), kinect-20 \(20\), shared-15"):
        row(points(3, joints=21))
    with pytest.raises(MediaError, match=r"have 20 joints, but skeleton.source, 'ntu-25', has 25"):
        row(points(3, joints=20), source="ntu-25")


# --- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "count"), [(1, 50), (2, 5), (7, 7), (50, 50), (33, 50), (120, 50), (9, 1), (3, 8)])
def test_resizing_is_linear_interpolation_and_opencvs(length, count):
    a = points(length, bodies=2)
    found = row(a, frames=count)
    for m in range(2):
        image = cv2.resize(a[m], (25, count), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(found[..., m].transpose(1, 2, 0), image, rtol=1e-5)
    for k in range(count):
        moment = min(max((k + 0.5) * length / count - 0.5, 0), length - 1)
        early = int(moment)
        late, share = min(early + 1, length - 1), moment - early
        for m in range(2):
            expected = (1 - share) * a[m, early].astype(float) + share * a[m, late]
            np.testing.assert_allclose(found[:, k, :, m].T, expected, rtol=1e-6)


def test_without_resizing_the_first_frames_are_kept_and_zeros_follow():
    a = points(8)
    np.testing.assert_array_equal(row(a, resize=False, frames=5)[..., 0].transpose(1, 2, 0), a[0, :5])
    found = row(a, resize=False, frames=11)[..., 0].transpose(1, 2, 0)
    np.testing.assert_array_equal(found[:8], a[0])
    assert not found[8:].any()


def turned(a, angles):
    """Each frame of (T, V, 3) turned about y by its angle: x towards z."""
    out = np.empty_like(a)
    for t, angle in enumerate(angles):
        for v, (x, y, z) in enumerate(a[t]):
            out[t, v] = (np.cos(angle) * x - np.sin(angle) * z, y, np.sin(angle) * x + np.cos(angle) * z)
    return out


def test_a_known_rotation_comes_out():
    """A body that faces the camera, turned by another angle in every frame, faces it again in all of them."""
    a = points(12)[0].astype(np.float64)
    a[:, 8, 2] = a[:, 4, 2]  # shoulders parallel to x,
    a[:, 8, 0] = a[:, 4, 0] + 0.4  # the right one further along
    angles = np.linspace(-3, 3, 12)  # the sense changes within the clip
    found = row([turned(a, angles), a], frames=12, rotate=True)
    for m in range(2):
        np.testing.assert_allclose(found[..., m].transpose(1, 2, 0), a, atol=1e-5)


@pytest.mark.parametrize("frames", [50, 20])
def test_shoulders_are_parallel_to_x_in_every_frame_and_lengths_stay(frames):
    a = points(31, bodies=2)
    still, found = row(a, frames=frames), row(a, frames=frames, rotate=True)
    across = found[:, :, 8] - found[:, :, 4]  # right minus left
    np.testing.assert_allclose(across[2], 0, atol=1e-6)
    assert (across[0] > 0).all()
    np.testing.assert_array_equal(found[1], still[1])
    np.testing.assert_allclose(np.hypot(found[0], found[2]), np.hypot(still[0], still[2]), rtol=1e-5)


def test_shoulders_in_one_place_turn_nothing():
    a = points(3)
    a[:, :, 8] = a[:, :, 4]
    np.testing.assert_array_equal(row(a, rotate=True), row(a))


@pytest.mark.parametrize("layout", [name for name in ROWS if not LAYOUTS[name].plane])
def test_shoulders_are_found_in_every_layout(layout):
    source = "florence-15" if layout == "kinect-15" else layout
    a = points(6, joints=len(LAYOUTS[layout].names)) / LAYOUTS[source].metres
    found = row(a, layout=layout, rotate=True)
    left, right = (LAYOUTS[layout].names.index(f"{side} shoulder") for side in ("left", "right"))
    np.testing.assert_allclose(found[2, :, right, 0], found[2, :, left, 0], atol=1e-6)


def test_joints_without_depth_cannot_be_turned():
    a = points(4) * [1, 1, 0]
    with pytest.raises(MediaError, match=r"no depth .* set skeleton.rotate=false"):
        row(a, rotate=True)
    assert not row(a)[2].any()


def test_centring_takes_the_shoulder_centre_from_every_frame():
    a = points(50, bodies=2)
    found = row(a, centre=True)
    np.testing.assert_allclose(found.transpose(3, 1, 2, 0), a - a[:, :, 20:21], atol=1e-6)
    assert Params().centre, "CoDT's loss of the decoded joints grows without bound where people stand far away"


def test_a_missing_second_body_is_zero():
    found = row(points(9), rotate=True, centre=True)
    assert found[..., 0].any()
    assert not found[..., 1].any()


def test_a_body_is_zero_before_it_comes_and_after_it_leaves():
    a = points(20, bodies=2)
    a[1, :5] = a[1, 12:] = np.nan
    found = row(a, frames=40)
    assert found[..., 0].all()
    inside = [k for k in range(40) if 5 <= (k + 0.5) / 2 - 0.5 + 0.5 < 12]  # frame k shows the moment k / 2 - 1/4
    np.testing.assert_array_equal(np.flatnonzero(found[..., 1].any((0, 2))), inside)
    ends = a[1, [5, 11]]  # held, not mixed with zeros
    np.testing.assert_allclose(found[..., 1].transpose(1, 2, 0)[[inside[0], inside[-1]]], ends, rtol=1e-6)


def test_frames_without_anybody_at_the_ends_do_not_count():
    a = points(30, bodies=2)
    a[:, :6] = a[:, 26:] = np.nan
    a[1, :9] = np.nan
    np.testing.assert_array_equal(row(a), row(a[:, 6:26]))


def test_missing_joints_are_interpolated_in_time_within_their_body():
    a = points(50, bodies=2)
    holes = a.copy()
    holes[0, 10:13, 3] = np.nan  # between 9 and 13
    holes[0, :2, 7] = np.nan  # held from 2
    holes[0, 48:, 7] = np.nan  # held from 47
    holes[1, 20] = np.nan  # the whole body for a frame
    expected = a.copy()
    for t in (10, 11, 12):
        expected[0, t, 3] = a[0, 9, 3] + (a[0, 13, 3] - a[0, 9, 3]) * (t - 9) / 4
    expected[0, :2, 7], expected[0, 48:, 7] = a[0, 2, 7], a[0, 47, 7]
    expected[1, 20] = (a[1, 19] + a[1, 21]) / 2
    np.testing.assert_allclose(row(holes), row(expected), rtol=1e-6)


def test_a_joint_that_is_never_there_matters_only_where_it_is_asked_for():
    a = points(9)
    a[:, :, NTU.index("left thumb")] = np.nan
    with pytest.raises(MediaError, match=r"joint 'left thumb' of body 0 \(from 0\) is missing in all frames"):
        row(a)
    assert np.isfinite(row(a, layout="shared-15")).all()


def test_of_three_bodies_the_two_that_are_seen_longest_stay_in_their_order():
    a = points(50, bodies=3)
    a[0, 10:] = np.nan
    a[1, 30:] = np.nan
    found = row(a)
    np.testing.assert_array_equal(found[:, :30, :, 0].transpose(1, 2, 0), a[1, :30])
    np.testing.assert_array_equal(found[..., 1].transpose(1, 2, 0), a[2])
    np.testing.assert_array_equal(row(points(50, bodies=3)), row(points(50, bodies=3)[:2]))  # the first of equals
    assert row(a, bodies=4).shape == (3, 50, 25, 4)


def test_rows_do_not_depend_on_what_was_prepared_before():
    a = points(9)
    np.testing.assert_array_equal(row(a), row(a.copy()))
    assert Skeletons(Params()).recipe["weights_sha256"] == "none"
    assert extractor.EXTRACTOR is Skeletons


# --- real recordings -------------------------------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "count"), [("utkinect", 199), ("msraction3d", 557)])
def test_real_recordings_become_rows(realdata, tmp_path, name, count):
    """Every tenth sequence: heads stay above feet, shoulders parallel, all is finite."""
    data = np.load(realdata / "skeleton_kinect" / f"{name}.npz", allow_pickle=False)
    frames, offset = data["frames"], data["offset"]
    assert len(offset) == count + 1
    made = Skeletons(Params(layout="shared-15"))
    head, ankle, left, right = made.layout.places(("head", "left ankle", "left shoulder", "right shoulder"))
    upright = 0
    numbers = range(0, count, 10)
    for k in numbers:
        path = saved(tmp_path / "s.npy", frames[offset[k] : offset[k + 1]])
        found = made(made.prepare(skeleton.read(path, clip()))[None])[0]
        assert np.isfinite(found).all()
        assert not found[..., 1].any()
        np.testing.assert_allclose(found[2, :, left, 0], found[2, :, right, 0], atol=1e-5)
        assert (found[0, :, right, 0] > found[0, :, left, 0]).all()
        upright += np.median(found[1, :, head, 0] - found[1, :, ankle, 0]) > 0.5
    assert upright > 0.9 * len(numbers)


@pytest.mark.realdata
def test_the_frames_that_kinect_lost_in_msr_action_are_filled(realdata, tmp_path):
    """252 frames of 13 sequences are all zero, some in the middle, some at the end."""
    data = np.load(realdata / "skeleton_kinect" / "msraction3d.npz", allow_pickle=False)
    frames, offset = data["frames"], data["offset"]
    made = Skeletons(Params(layout="kinect-20", bodies=1))
    lost = [k for k in range(len(offset) - 1) if not frames[offset[k] : offset[k + 1]].any((1, 2)).all()]
    assert len(lost) == 13
    for k in lost:
        whole = skeleton.read(saved(tmp_path / "s.npy", frames[offset[k] : offset[k + 1]]), clip())
        assert np.isnan(whole.joints).any()
        assert made.prepare(whole).any((0, 2, 3)).all()


@pytest.mark.realdata
def test_one_frame_of_a_recording_in_every_layout_of_files(realdata, tmp_path):
    data = np.load(realdata / "skeleton_kinect" / "utkinect.npz", allow_pickle=False)
    a = data["frames"][: data["offset"][1]]
    made = Skeletons(Params(layout="shared-15", bodies=1))
    files = [
        kinect(tmp_path / "s.skeleton", [{"1": frame} for frame in a]),
        saved(tmp_path / "tvc.npy", a),
        saved(tmp_path / "mtvc.npz", a[None]),
        saved(tmp_path / "ctvm.npy", np.stack([a, 0 * a], -1).transpose(2, 0, 1, 3)),
    ]
    rows = [made.prepare(skeleton.read(path, clip(2, 12, "frames"))) for path in files]
    for other in rows[1:]:
        np.testing.assert_array_equal(other, rows[0])
