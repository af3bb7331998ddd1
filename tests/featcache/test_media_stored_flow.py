"""Stored pictures of flow as a source: layouts, next to frames or a video, errors, and every flow extractor."""

import shutil

import cv2
import numpy as np
import pytest

from featcache import FeatureStore
from featcache.errors import ConfigError, MediaAbsentError, MediaError
from featcache.extractors import Extractor, hof, hog, i3d_flow, tbn_flow
from featcache.manifest import Clip, Manifest
from featcache.media import probe, read_clip
from featcache.media.flow import STORED
from featcache.media.source import open_source
from featcache.scanning import scan
from featcache.windows import Flow, Plan
from pipelines.extraction.extract import extract
from tests.helpers.media import Watcher, clip, numbered, take, write_video

LAYOUTS = {
    "u and v": ("u/frame_{:010}.jpg", "v/frame_{:010}.jpg"),
    "x and y": ("x/{}.png", "y/{}.png"),
    "flow_x and flow_y": ("flow_x/{}.png", "flow_y/{}.jpg"),
    "flow_x_": ("flow_x_{:05}.jpg", "flow_y_{:05}.jpg"),
    "u_": ("u_{}.png", "v_{}.png"),
}
RIGHT, DOWN = 130, 100  #: grey of the first field; the next ones are 1 lighter each


def write_flow(folder, count=30, layout="u and v", size=(64, 96)):
    """Fields without structure: motion is RIGHT + k and DOWN + k in field k."""
    for k in range(count):
        for name, value in zip(LAYOUTS[layout], (RIGHT + k, DOWN + k), strict=True):
            path = folder / name.format(k + 1)
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full(size, value, np.uint8))
    return folder


def write_frames(folder, count, name="img_{:05}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        cv2.imwrite(str(folder / name.format(k + 1)), numbered(k))
    return folder


class Fields(Extractor):
    """The fields of flow."""

    name = "fields"
    modality = "flow"

    def __init__(self, count=4, **window):
        super().__init__(None)
        self.window = Flow(count, method=STORED, **window)

    def prepare(self, window):
        return np.stack(window)


def greys(windows, bound=20.0):
    """(T, count, H, W, 2) fields -> (T, count, 2) of the grey values that they came from; they have no structure."""
    values = windows * (127.5 / bound) + 128
    assert np.ptp(values, axis=(2, 3)).max() < 1e-3
    return values[:, :, 0, 0].round(3)


def expected(numbers):
    return np.stack([RIGHT + np.asarray(numbers), DOWN + np.asarray(numbers)], -1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_its_fields_in_order(tmp_path, layout):
    found = take(write_flow(tmp_path / "a", layout=layout), Fields(), clip(fps=10.0), plan="segments:3")
    np.testing.assert_array_equal(greys(found.windows), expected([[3, 4, 5, 6], [13, 14, 15, 16], [23, 24, 25, 26]]))
    np.testing.assert_allclose(found.start, [0.3, 1.3, 2.3])
    np.testing.assert_allclose(found.stop, [0.7, 1.7, 2.7])


def test_networks_see_the_stored_bytes(tmp_path):
    """At the size 256 nothing is resized, and eight bits are eight bits again."""
    folder = tmp_path / "a"
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (9, 2, 256, 300), dtype=np.uint8)
    for k, (right, down) in enumerate(pixels):
        for name, picture in (("u", right), ("v", down)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / name / f"{k}.png"), picture)
    middle = pixels[:, :, 16:240, 38:262]
    for bound in (20.0, 15.0):
        i3d = i3d_flow.I3DFlow(i3d_flow.Params(count=9, method=STORED, bound=bound))
        found = take(folder, i3d, clip(fps=30.0)).windows[0]
        np.testing.assert_array_equal(found, middle.transpose(0, 2, 3, 1))
    tbn = take(folder, tbn_flow.TbnFlow(tbn_flow.Params(method=STORED)), clip(fps=30.0)).windows[0]
    np.testing.assert_array_equal(tbn, middle[2:7].transpose(0, 2, 3, 1))


def test_motion_is_scaled_with_the_size_and_mirrored_with_the_view(tmp_path):
    folder = write_flow(tmp_path / "a", count=1, size=(64, 96))
    plain, wide, flipped = (
        take(folder, Fields(1, **window), clip(fps=10.0)).windows[0, 0, 0, 0]
        for window in ({}, {"side": 128}, {"view": "flip"})
    )
    np.testing.assert_allclose(plain, [2 * 20 / 127.5, -28 * 20 / 127.5], rtol=1e-6)
    np.testing.assert_allclose(wide, 2 * plain, rtol=1e-6)
    np.testing.assert_allclose(flipped, [-1, 1] * plain, rtol=1e-6)


def test_a_stride_skips_fields_and_a_rate_scales_their_motion(tmp_path):
    folder = write_flow(tmp_path / "a")
    found = take(folder, Fields(4, stride=3), clip(fps=10.0)).windows
    assert np.diff(greys(found)[0, :, 0]).tolist() == [3, 3, 3]
    found = take(folder, Fields(4, rate=5.0), clip(fps=10.0)).windows
    numbers = (greys(found, bound=40.0) - [RIGHT, DOWN])[0]  # twice the motion, in twice the time
    np.testing.assert_allclose(found[0, :, 0, 0, 0] * (127.5 / 20) / 2 + 128 - RIGHT, numbers[:, 0], atol=1e-3)
    assert np.diff(numbers[:, 0]).tolist() == [2, 2, 2]


def test_hof_counts_stored_motion_in_shorter_sides_per_second(tmp_path):
    """Motion of 3 pixels of 64 in each of 25 fields per second."""
    folder = tmp_path / "a"
    for name, value in (("u", 128 + 3 * 127.5 / 20), ("v", 128)):
        (folder / name).mkdir(parents=True)
        for k in range(50):
            cv2.imwrite(str(folder / name / f"{k}.png"), np.full((64, 80), round(value), np.uint8))
    params = hof.Params(flow=STORED, count=5)
    extractor = hof.Hof(params)
    row = extractor(take(folder, extractor, clip(fps=25.0)).windows)[0]
    field = np.zeros((96, 120, 2), np.float32)
    field[..., 0] = 19 * 20 / 127.5 / 64 * 25
    half = hof.histograms(field, params).ravel()
    np.testing.assert_allclose(row, np.concatenate([half, half]), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------- next to frames, or to a video


@pytest.mark.parametrize("layout", ["u and v", "flow_x_"])
def test_frames_and_flow_of_one_folder_are_told_apart(tmp_path, layout):
    folder = write_flow(write_frames(tmp_path / "a", 31), 30, layout)
    found = read_clip(folder, clip(fps=10.0), Plan("segments", 1), [Watcher(4, 10.0), Fields()])
    assert found["watcher"].windows[0].tolist() == [14, 15, 16, 17]
    np.testing.assert_array_equal(greys(found["fields"].windows), expected([[13, 14, 15, 16]]))
    info = probe(folder, 10.0)
    assert (info.kind, info.frames, info.width) == ("folder", 31, 128)


@pytest.mark.parametrize(
    ("fields", "numbers"), [(50, [23, 24, 25, 26]), (25, [10, 11, 12, 13]), (24, [10, 11, 12, 13])]
)
def test_flow_next_to_a_video_is_on_its_clock(tmp_path, fields, numbers):
    """One field for each picture, or for every second one, as those of EPIC-KITCHENS."""
    film = write_video(tmp_path / "P01_01.mp4", frames=50)
    write_flow(tmp_path / "P01_01", fields)
    found = read_clip(film, clip(), Plan("segments", 1), [Watcher(), Fields()])
    np.testing.assert_array_equal(greys(found["fields"].windows), expected([numbers]))
    assert len(found["watcher"].windows) == 1
    step = round(50 / fields)
    np.testing.assert_allclose(found["fields"].start, [numbers[0] * step / 25])
    np.testing.assert_allclose(found["fields"].stop, [(numbers[-1] + 1) * step / 25])


def test_a_folder_of_flow_without_frames_has_a_length_and_no_pictures(tmp_path):
    folder = write_flow(tmp_path / "a", 20)
    info = probe(folder, 10.0)
    assert (info.kind, info.frames, info.fps, info.duration, info.width) == ("folder", 20, 10.0, 2.0, 96)
    assert open_source(folder, 10.0).interval(clip(5, 15, unit="frames")) == (0.5, 1.5)
    found = read_clip(folder, clip(fps=10.0), Plan("segments", 1), [Watcher(), Fields()])
    assert isinstance(found["watcher"], MediaAbsentError)
    assert "EXTRACTOR.method=pictures" in str(found["watcher"])
    assert "hof.flow=pictures" in str(found["watcher"])
    assert len(found["fields"].windows) == 1


# ------------------------------------------------------------------------------------------------------------- errors


def without(folder, name):
    (folder / name).unlink()


@pytest.mark.parametrize(
    ("break_", "says"),
    [
        (
            lambda a: [path.unlink() for path in (a / "v").iterdir()],
            r"30 pictures of flow to the right and 0 downwards",
        ),
        (lambda a: without(a, "v/frame_0000000004.jpg"), r"30 .*right and 29 downwards: u/frame_0000000004.jpg has no"),
        (lambda a: without(a, "u/frame_0000000009.jpg"), r"29 .*right and 30 downwards: v/frame_0000000009.jpg has no"),
        (
            lambda a: cv2.imwrite(str(a / "v/frame_0000000015.jpg"), np.zeros((9, 8))),
            r"15.jpg is 96 x 64, but .* 8 x 9",
        ),
        (lambda a: cv2.imwrite(str(a / "u/frame_0000000015.jpg"), numbered(1) * [1, 0, 1]), "15.jpg is in colour"),
        (lambda a: (a / "u/frame_0000000015.jpg").write_bytes(b"\xff\xd8"), "u/frame_0000000015.jpg stops before"),
    ],
)
def test_incomplete_flow_is_named(tmp_path, break_, says):
    folder = write_flow(tmp_path / "a")
    break_(folder)
    with pytest.raises(MediaError, match=says):
        take(folder, Fields(), clip(fps=10.0))


def test_flow_that_is_not_there_or_of_another_length_is_named(tmp_path):
    film = write_video(tmp_path / "a.mp4", frames=50)
    with pytest.raises(
        MediaError, match=r"a has no pictures of flow .*u/ and v/.*EXTRACTOR.method=pictures.*hof.flow=pictures"
    ):
        take(film, Fields())
    write_flow(tmp_path / "a", 35)  # neither 50, nor 25
    with pytest.raises(MediaError, match=r"a has 35 fields of flow for 50 pictures"):
        take(film, Fields())
    with pytest.raises(MediaError, match="add an fps column"):
        take(tmp_path / "a", Fields())
    with pytest.raises(MediaError, match=r"b has no pictures of flow"):
        take(write_frames(tmp_path / "b", 4), Fields(), clip(fps=10.0))


# ---------------------------------------------------------------------------------------------- fields that are missing


def named_flow(folder, names, value=RIGHT):
    """Fields of flow to the right and downwards with these names; motion grows with the name's place."""
    for k, name in enumerate(names):
        for way, first in (("u", value), ("v", DOWN)):
            (folder / way).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / way / name), np.full((16, 24), first + k, np.uint8))
    return folder


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [
        ([1, 2, 3, 5, 6, 7], "u/frame_0004.png"),
        ([1, 2, 3, 7, 8, 9], "u/frame_0004.png"),
        ([0, 2, 4, 8, 10], "u/frame_0006.png"),
        ([1, 3, 4, 5, 6], "u/frame_0002.png"),
        ([98, 99, 101], "u/frame_0100.png"),
    ],
)
def test_a_field_that_both_directions_lack_is_named(tmp_path, numbers, missing):
    folder = named_flow(tmp_path / "a", [f"frame_{n:04}.png" for n in numbers])
    with pytest.raises(MediaError, match=rf"a has no {missing}: after u/frame_.* comes u/frame_.*restore"):
        take(folder, Fields(1), clip(fps=10.0))
    write_video(tmp_path / "a.mp4", frames=len(numbers) + 1)
    with pytest.raises(MediaError, match=rf"a has no {missing}"):
        take(tmp_path / "a.mp4", Fields(1))


def test_the_name_of_a_missing_field_has_its_layout(tmp_path):
    folder = write_flow(tmp_path / "a", 12, "flow_x_")
    for way in "xy":
        without(folder, f"flow_{way}_00007.jpg")
    with pytest.raises(MediaError, match="a has no flow_x_00007.jpg: after flow_x_00006.jpg comes flow_x_00008.jpg"):
        take(folder, Fields(), clip(fps=10.0))


@pytest.mark.parametrize(
    "names",
    [
        [f"{n}.png" for n in range(8, 12)],  # 9 before 10
        [f"{n}.png" for n in range(0, 12, 3)],
        [f"frame_{n}.png" for n in (5, 9)],
        ["a.png", "c.png", "h.png"],
        ["a1.png", "a9.png", "b4.png", "b5.png"],
    ],
)
def test_names_with_a_constant_step_or_without_a_series_of_numbers_are_taken_in_order(tmp_path, names):
    folder = named_flow(tmp_path / "a", names)
    found = take(folder, Fields(len(names)), clip(fps=10.0)).windows
    assert greys(found)[0, :, 0].tolist() == [RIGHT + k for k in range(len(names))]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["1.png", "2.png", "02.png", "3.png"], "have the same number"),
        (["1.png", "2.bmp", "2.png"], "are the same field"),
        (["a.bmp", "a.png", "b.png"], "are the same field"),
    ],
)
def test_two_pictures_of_one_field_are_named(tmp_path, names, says):
    with pytest.raises(MediaError, match=rf"u/0?[2a]\S+ and u/0?[2a]\S+ {says}; remove one"):
        take(named_flow(tmp_path / "a", names), Fields(1), clip(fps=10.0))


@pytest.mark.parametrize(
    ("of", "count", "step"),
    [(9, 9, 1), (9, 8, 1), (3, 2, 1), (9, 5, 2), (9, 4, 2), (10, 5, 2), (10, 4, 2), (9, 3, 3), (12, 3, 3)],
)
@pytest.mark.parametrize("name", ["frame_{:03}.png", "frame_{:03}x.png"])
def test_fields_are_of_every_first_second_or_third_picture(tmp_path, of, count, step, name):
    film = write_video(tmp_path / "a.mp4", frames=of)
    named_flow(tmp_path / "a", [name.format(k) for k in range(count)])
    np.testing.assert_allclose(open_source(film).flow().times, np.arange(count) * step / 25, atol=1e-6)


def test_numbered_fields_may_end_early_as_those_of_epic_kitchens_and_others_by_one(tmp_path):
    """EPIC-KITCHENS computed each second field over three pictures or more, so up to three fields lack at the end."""
    film = write_video(tmp_path / "a.mp4", frames=40)
    for name, most in (("{:03}.png", 3), ("{:03}x.png", 1)):
        for step, whole in ((1, 40), (2, 20)):
            for lacking in range(5):
                folder = tmp_path / "a"
                shutil.rmtree(folder, ignore_errors=True)
                named_flow(folder, [name.format(k + 1) for k in range(whole - lacking)])
                if lacking <= most:
                    assert open_source(film).flow().times[-1] == pytest.approx((whole - lacking - 1) * step / 25)
                else:
                    with pytest.raises(MediaError, match=rf"a has {whole - lacking} fields of flow for 40 pictures"):
                        open_source(film).flow()


def test_fields_that_lack_at_the_start_are_found_next_to_pictures(tmp_path):
    film = write_video(tmp_path / "a.mp4", frames=8)
    named_flow(tmp_path / "a", [f"{n:03}.png" for n in range(2, 9)])
    with pytest.raises(MediaError, match=r"a: the first field of flow is u/002.png.*begin with 0 or 1"):
        take(film, Fields())
    frames = write_frames(tmp_path / "b", 0)
    for n in range(300, 309):
        cv2.imwrite(str(frames / f"img_{n}.png"), numbered(n - 300))
    named_flow(frames, [f"{n:05}.png" for n in range(300, 308)])
    found = take(frames, Fields(), clip(fps=10.0)).windows
    assert greys(found)[0, :, 0].tolist() == [RIGHT + k for k in range(2, 6)]
    without(frames, "u/00300.png")
    without(frames, "v/00300.png")
    with pytest.raises(MediaError, match=r"u/00301.png.*begin with 0 or 1 or 300"):
        take(frames, Fields(), clip(fps=10.0))


def test_fields_of_another_size_are_named_although_networks_resize_them(tmp_path):
    folder = write_flow(tmp_path / "a", 12)
    for way in "uv":
        cv2.imwrite(str(folder / way / "frame_0000000006.jpg"), np.full((32, 48), 128, np.uint8))
    for extractor in (
        Fields(9),
        i3d_flow.I3DFlow(i3d_flow.Params(count=9, method=STORED)),
        hof.Hof(hof.Params(flow=STORED)),
    ):
        with pytest.raises(MediaError, match=r"a: u/frame_0000000006.jpg is 48 x 32, but u/frame_\d+.jpg is 96 x 64"):
            take(folder, extractor, clip(fps=10.0))


# -------------------------------------------------------------------------------------- letters that are not directions


def coloured(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((16, 24, 3), (10 * k, 50, 200), np.uint8))
    return folder


def scanned(folder):
    return scan(folder, "{clip_id}", domain="d", labelled=False, fps=30.0)


def test_frames_whose_names_begin_with_a_letter_are_frames(tmp_path):
    names = [f"{way}_{k}.png" for way in "xy" for k in range(4)]
    assert len(open_source(coloured(tmp_path / "a", names), 10.0).reel.times) == 8
    with pytest.raises(MediaError, match=r"a/x_\d.png is in colour"):
        take(tmp_path / "a", Fields(1), clip(fps=10.0))
    grey = write_flow(tmp_path / "b", 4, "u_")
    assert isinstance(open_source(grey, 10.0).reel, MediaAbsentError)
    without(grey, "v_3.png")  # both directions of flow have the same fields
    assert len(open_source(grey, 10.0).reel.times) == 7
    with pytest.raises(MediaError, match=r"u_3.png has no counterpart"):
        take(grey, Fields(1), clip(fps=10.0))
    for path in write_flow(tmp_path / "c", 2, "flow_x_").glob("flow_x_*"):  # no frame is called so
        coloured(tmp_path / "c", [path.name])
    assert isinstance(open_source(tmp_path / "c", 10.0).reel, MediaAbsentError)


def test_a_scan_does_not_join_folders_of_frames_that_are_called_by_letters(tmp_path):
    for letter in "uvw":
        coloured(tmp_path / "sign" / letter, ["1.png", "2.png"])
    found = scanned(tmp_path / "sign")
    assert ([c.source for c in found.manifest], found.unmatched, found.joined) == (["u", "v", "w"], [], ())
    grey = write_flow(tmp_path / "grey", 3, "x and y")
    without(grey, "x/2.png")  # two grey films of different lengths
    assert [c.source for c in scanned(grey).manifest] == ["x", "y"]
    with pytest.raises(MediaError, match="folder .*sign has no image"):
        open_source(tmp_path / "sign", 10.0)


def test_folders_of_flow_by_their_long_names_are_joined_whatever_they_hold(tmp_path):
    without(write_flow(tmp_path / "a", 3, "flow_x and flow_y"), "flow_x/2.png")
    assert [c.source for c in scanned(tmp_path).manifest] == ["a"]


# -------------------------------------------------------------------------------------------------------------- stores


def test_stores_of_stored_flow_record_it(tmp_path):
    """Windows are counted by the length of the flow; extractors of frames find none, by nature."""
    write_flow(tmp_path / "v" / "a", 20)
    manifest = Manifest("m", (Clip("a", "d", "test", "a", fps=10.0),), tmp_path / "v")
    flow = hof.Hof(hof.Params(flow=STORED, bound=16.0))
    outcome = extract(manifest, [flow, hog.Hog(hog.Params())], tmp_path / "s", plan=Plan("all", 0.5))
    store = FeatureStore.open(tmp_path / "s" / "m" / "hof.zarr")
    assert store.read().shape[:2] == (1, 4)
    assert store.recipe["params"]["flow"] == "pictures"
    assert store.recipe["params"]["bound"] == 16
    assert store.recipe["window"]["method"] == "pictures"
    assert store.recipe["window"]["bound"] == 16
    assert outcome.stores["hog"].counts()["absent"] == 1


def test_hof_refuses_a_scale_of_pictures_that_it_does_not_read():
    for flow in ("dis", "tvl1"):
        with pytest.raises(ConfigError, match=rf"hof.bound is 15.*hof.flow is '{flow}'.*hof.flow=pictures"):
            hof.Hof(hof.Params(flow=flow, bound=15.0))
        assert "bound" not in hof.Hof(hof.Params(flow=flow)).recipe["params"]
    assert "bound" not in hof.Hof(hof.Params(flow=STORED)).recipe["params"]


def test_a_scan_makes_one_clip_of_two_folders_of_flow(tmp_path):
    write_flow(tmp_path / "P01_01", 3)
    write_flow(tmp_path / "P01_02", 3, "flow_x_")
    write_frames(tmp_path / "P01_03" / "u", 2)
    found = scan(tmp_path, "{clip_id}", domain="d", labelled=False, fps=30.0)
    assert [c.source for c in found.manifest] == ["P01_01", "P01_02"]
    assert found.unmatched == ["P01_03/u"]
    assert found.joined == ("P01_01",)
