"""Which picture is shown when: exact for every rate, container and entry point."""

import os
import threading
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Colorspace

from featcache.errors import MediaError
from featcache.media import container, images, probe, read_clip, source
from featcache.media.source import open_source
from featcache.windows import Plan
from tests.helpers.media import Eye, Listener, Watcher, clip, numbered, take, write_video

CONTAINERS = {
    "h264.mp4": {},
    "h265.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=12"}},
    "h264.mkv": {},
    "h264.ts": {},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"q": "2"}},
    "mpeg4_b_frames.avi": {"codec": "mpeg4", "b_frames": 2, "options": {"q": "2"}},
    "h264_b_frames.avi": {},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"b": "4M"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8", "g": "12"}},
    "vp8.webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8", "g": "12"}},
}


def on_screen(appear, times):
    """By the definition, one picture at a time: the last one to appear at or before t."""
    return [max(n for n, second in enumerate(appear) if second <= t + 1e-6) for t in times]


def all_pictures(path, numbers):
    return dict(open_source(path).reel.decode(numbers))


@pytest.mark.parametrize("name", CONTAINERS)
def test_seeking_gives_what_decoding_from_the_start_gives(tmp_path, name):
    path = write_video(tmp_path / name, frames=50, **CONTAINERS[name])
    everything = all_pictures(path, range(50))
    for numbers in ([49], [13], [12], [11], [0, 30, 49], [5, 6, 40, 41]):
        pictures = all_pictures(path, numbers)
        assert list(pictures) == numbers
        for number, picture in pictures.items():
            np.testing.assert_array_equal(picture, everything[number], err_msg=f"picture {number} of {numbers}")


@pytest.mark.parametrize("rate", ["25", "30000/1001", "12", "60"])
def test_sample_times_pick_the_picture_on_screen(tmp_path, rate):
    rate = Fraction(rate)
    path = write_video(tmp_path / "v.mp4", frames=70, rate=rate)
    for start, stop in ((None, None), (0.4, 1.1), (0.333, 1.0)):
        taken = take(path, Watcher(4, 8.0), clip(start, stop), plan="segments:3")
        begin, end = start or 0.0, stop or 70 / float(rate)
        for window, centre in zip(taken.windows, Plan("segments", 3).centres(begin, end), strict=True):
            middle = np.clip(centre, begin + 0.25, end - 0.25)
            times = middle + (np.arange(4) - 1.5) / 8
            np.testing.assert_array_equal(window, on_screen(np.arange(70) / float(rate), times))


def test_a_variable_rate_follows_the_presentation_times(tmp_path):
    ticks = [0, 40, 50, 200, 210, 700, 705, 900, 1500, 1540]
    path = write_video(tmp_path / "v.mp4", ticks=ticks, frames=10, rate=1000)
    appear = np.array(ticks) / 1000
    np.testing.assert_allclose(open_source(path).reel.times, appear, atol=1e-9)
    shown = take(path, Watcher(15, 10.0), clip(0, 1.5)).windows[0]
    np.testing.assert_array_equal(shown, on_screen(appear, np.arange(15) / 10 + 0.05))
    np.testing.assert_array_equal(shown, [2, 2, 4, 4, 4, 4, 4, 6, 6, 7, 7, 7, 7, 7, 7])


def test_the_first_picture_is_time_zero_wherever_the_container_starts(tmp_path):
    late = write_video(tmp_path / "late.mkv", ticks=[5000 + 40 * n for n in range(25)], frames=25)
    assert open_source(late).reel.times[0] == 0
    np.testing.assert_array_equal(take(late, Watcher(25, 25.0)).windows[0], np.arange(25))


@pytest.mark.parametrize("rate", ["25", "30000/1001"])
def test_bounds_in_frames_equal_bounds_in_seconds(tmp_path, rate):
    path = write_video(tmp_path / "v.mp4", frames=50, rate=Fraction(rate))
    by_frames = take(path, Watcher(4, 8.0), clip(10, 33, "frames"), plan="segments:5")
    step = 1 / float(Fraction(rate))
    by_seconds = take(path, Watcher(4, 8.0), clip(10 * step, 33 * step), plan="segments:5")
    np.testing.assert_array_equal(by_frames.windows, by_seconds.windows)
    np.testing.assert_allclose(by_frames.start, by_seconds.start, atol=1e-6)
    every = take(path, Watcher(200, 200.0), clip(10, 33, "frames")).windows
    assert set(every[0].tolist()) == set(range(10, 33))  # half-open: frame 33 is not part of it


def test_a_clip_of_frames_holds_each_of_them_once_at_the_files_own_rate(tmp_path):
    path = write_video(tmp_path / "v.mp4", frames=50)
    np.testing.assert_array_equal(take(path, Watcher(5, 25.0), clip(20, 25, "frames")).windows[0], range(20, 25))
    np.testing.assert_array_equal(take(path, Watcher(2, 25.0), clip(48, None, "frames")).windows[0], [48, 49])


def test_a_clip_shorter_than_the_window_repeats_its_edges(tmp_path):
    path = write_video(tmp_path / "v.mp4", frames=50)
    taken = take(path, Watcher(8, 8.0), clip(10, 14, "frames"))
    # around 0.48 s: 0.0425, 0.1675, 0.2925, 0.4175, 0.5425, 0.6675, ...; the clip is [0.4, 0.56)
    np.testing.assert_array_equal(taken.windows[0], [10, 10, 10, 10, 13, 13, 13, 13])
    assert taken.start[0] == pytest.approx(0.4)
    assert taken.stop[0] == pytest.approx(0.56)


def test_windows_say_which_seconds_they_show(tmp_path):
    path = write_video(tmp_path / "v.mp4", frames=50)
    taken = take(path, Watcher(4, 8.0), plan="segments:4")  # 0.5 s each, centres 0.25, 0.75, 1.25, 1.75
    np.testing.assert_allclose(taken.start, [0.0, 0.5, 1.0, 1.5])
    np.testing.assert_allclose(taken.stop, [0.5, 1.0, 1.5, 2.0])


def test_a_stop_beyond_the_end_means_the_end(tmp_path):
    path = write_video(tmp_path / "v.mp4", frames=50)
    for row in (clip(1.0, 99.0), clip(25, 99, "frames")):
        np.testing.assert_array_equal(take(path, Watcher(25, 25.0), row).windows[0], range(25, 50))


@pytest.mark.parametrize(
    ("turned", "undo"),
    [
        ((90,), lambda p: np.rot90(p, 1)),
        ((180,), lambda p: np.rot90(p, 2)),
        ((270,), lambda p: np.rot90(p, 3)),
        ((0, True), lambda p: p[:, ::-1]),
        ((90, True), lambda p: np.rot90(p, 1)[:, ::-1]),
    ],
)
def test_pictures_come_upright(tmp_path, turned, undo):
    """A stored picture whose display matrix turns it comes out as the player shows it."""
    stored = np.full((64, 128, 3), 30, np.uint8)
    stored[:32, :32] = (220, 40, 40)  # red: top left
    stored[:32, 96:] = (40, 220, 40)  # green: top right
    path = write_video(tmp_path / "v.mp4", pictures=[stored] * 3, turned=turned)
    picture = take(path, Eye(1, 25.0)).windows[0, 0]
    wanted = undo(stored)
    assert picture.shape == wanted.shape
    assert np.abs(picture.astype(int) - wanted).mean() < 12
    info = probe(path)
    assert (info.height, info.width) == wanted.shape[:2]


def test_the_colour_matrix_of_the_stream_is_used(tmp_path):
    """The same pixels, tagged BT.709: decoding them as BT.601 would shift this green by about 20."""
    colour = np.full((64, 128, 3), (40, 200, 60), np.uint8)
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        stream.codec_context.colorspace = 1  # BT.709
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(colour, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    picture = take(path, Eye(1, 25.0)).windows[0, 0]
    assert np.abs(picture.astype(int) - colour).max() <= 6


@pytest.mark.parametrize("pixels", ["yuv420p10le", "yuv444p", "yuv422p"])
def test_other_pixel_formats_become_eight_bit_rgb(tmp_path, pixels):
    path = write_video(tmp_path / "v.mp4", frames=6, pixels=pixels)
    picture = take(path, Eye(1, 25.0), clip(5, 6, "frames")).windows[0, 0]
    assert picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - numbered(5)).mean() < 6


def test_odd_sizes_are_kept(tmp_path):
    pictures = [np.full((61, 83, 3), 90, np.uint8)] * 3
    path = write_video(tmp_path / "v.mp4", pictures=pictures, pixels="yuv444p")
    assert take(path, Eye(1, 25.0)).windows.shape[2:] == (61, 83, 3)


def test_what_an_extractor_gets_does_not_depend_on_the_others(tmp_path):
    """An error in the code of one is recorded as its reason, and the rest get their windows."""

    class Faulty(Watcher):
        name = "faulty"

        def prepare(self, window):
            raise RuntimeError("no\nsuch luck")

    class Deaf(Listener):
        name = "deaf"

        def prepare(self, window):
            raise ZeroDivisionError("division by zero")

    path = write_video(tmp_path / "v.mp4", frames=50, sound=np.ones(96000, np.float32) / 2)
    taken = read_clip(path, clip(), Plan(), [Faulty(), Watcher(), Deaf(), Listener()])
    assert list(taken) == ["faulty", "watcher", "deaf", "listener"]
    assert isinstance(taken["faulty"], MediaError)
    assert str(taken["faulty"]) == f"{path}: unexpected RuntimeError: no such luck; please report it"
    assert str(taken["deaf"]) == f"{path}: unexpected ZeroDivisionError: division by zero; please report it"
    np.testing.assert_array_equal(taken["watcher"].windows, take(path, Watcher(), plan="segments:5").windows)
    np.testing.assert_array_equal(taken["listener"].windows, take(path, Listener(), plan="segments:5").windows)


def test_one_pass_serves_all_extractors_and_keeps_few_pictures(tmp_path, monkeypatch):
    path = write_video(tmp_path / "v.mp4", frames=100)
    opened, alive, most = [], set(), [0]
    reel_of = source.video.reel

    def counting(*args):
        reel = reel_of(*args)

        def decode(wanted):
            opened.append(len(wanted))
            for number, picture in reel.decode(wanted):
                alive.add(number)
                most[0] = max(most[0], len(alive))
                yield number, _Tracked(picture, number, alive)

        return type(reel)(reel.path, reel.times, reel.stop, decode)

    monkeypatch.setattr(source.video, "reel", counting)

    class Second(Watcher):
        name = "second"

    both = [Watcher(4, 8.0), Second(7, 10.0)]
    taken = read_clip(path, clip(), Plan("segments", 5), both)
    assert len(opened) == 1
    monkeypatch.undo()
    for extractor in both:
        np.testing.assert_array_equal(taken[extractor.name].windows, take(path, extractor, plan="segments:5").windows)
    assert most[0] <= 12  # of 55 wanted: those of the windows around one moment


class _Tracked(np.ndarray):
    """A picture that tells when it is let go."""

    def __new__(cls, picture, number, alive):
        self = np.asarray(picture).view(cls)
        self.number, self.alive = number, alive
        return self

    def __array_finalize__(self, parent):
        self.alive = None

    def __del__(self):
        if getattr(self, "alive", None) is not None:
            self.alive.discard(self.number)


def test_threads_do_not_disturb_each_other(tmp_path):
    path = write_video(tmp_path / "v.mp4", frames=60)
    rows = [clip(k, k + 20, "frames") for k in range(0, 40, 5)]
    alone = [take(path, Watcher(4, 8.0), row, "segments:3").windows for row in rows]
    together = [None] * len(rows)

    def work(k):
        together[k] = take(path, Watcher(4, 8.0), rows[k], "segments:3").windows

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(together, alone)


def test_a_file_that_changes_is_read_anew(tmp_path):
    path = write_video(tmp_path / "v.mp4", frames=10)
    assert probe(path).frames == 10
    write_video(path, frames=20)
    assert probe(path).frames == 20


# Images and folders of frames


def test_frames_of_a_folder_follow_their_numbers(tmp_path):
    for n in range(12):
        cv2.imwrite(str(tmp_path / f"frame_{n}.png"), numbered(n))
    (tmp_path / "notes.txt").write_text("not a frame")
    row = clip(2, 12, "frames", fps=10.0)
    np.testing.assert_array_equal(take(tmp_path, Watcher(10, 10.0), row).windows[0], range(2, 12))
    row = clip(0.2, 1.2, fps=10.0)
    np.testing.assert_array_equal(take(tmp_path, Watcher(10, 10.0), row).windows[0], range(2, 12))
    info = probe(tmp_path, fps=10.0)
    assert (info.kind, info.frames, info.fps, info.duration) == ("folder", 12, 10.0, 1.2)


def test_a_folder_that_changes_is_read_anew(tmp_path):
    for n in range(3):
        cv2.imwrite(str(tmp_path / f"{n}.png"), numbered(n))
    assert probe(tmp_path, fps=1.0).frames == 3
    cv2.imwrite(str(tmp_path / "3.png"), numbered(3))
    os.utime(tmp_path, ns=(0, 10**18))  # the clock of a file system may be coarse
    assert probe(tmp_path, fps=1.0).frames == 4


def test_a_folder_is_listed_once_for_all_its_clips(tmp_path, monkeypatch):
    for n in range(4):
        cv2.imwrite(str(tmp_path / f"{n}.png"), numbered(n))
    listed = []
    listdir = os.listdir
    monkeypatch.setattr(images.os, "listdir", lambda path: listed.append(path) or listdir(path))
    for n in range(4):
        np.testing.assert_array_equal(take(tmp_path, Watcher(1, 1.0), clip(n, n + 1, "frames", fps=1.0)).windows, [[n]])
    assert listed == [tmp_path]


def test_threads_that_want_one_file_scan_it_once(tmp_path, monkeypatch):
    path = write_video(tmp_path / "v.mp4", frames=50)
    opened, open_file = [], container.av.open
    monkeypatch.setattr(
        container.av, "open", lambda *args, **options: opened.append(args) or open_file(*args, **options)
    )
    threads = [threading.Thread(target=container.scan, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan")])
def test_a_folder_needs_a_frame_rate_above_zero(tmp_path, fps):
    cv2.imwrite(str(tmp_path / "1.png"), numbered(1))
    with pytest.raises(MediaError, match="correct its fps"):
        probe(tmp_path, fps=fps)


def test_a_folder_needs_its_frame_rate(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), numbered(1))
    with pytest.raises(MediaError, match="add an fps column"):
        take(tmp_path, Watcher())


def test_frames_of_unequal_size_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), numbered(1))
    cv2.imwrite(str(tmp_path / "2.png"), numbered(1, 64, 32))
    with pytest.raises(MediaError, match="128 x 64, 64 x 32"):
        take(tmp_path, Watcher(2, 2.0), clip(fps=2.0))


def test_a_still_image_is_on_screen_for_one_second(tmp_path):
    cv2.imwrite(str(tmp_path / "i.png"), numbered(77))
    taken = take(tmp_path / "i.png", Watcher(4, 8.0), plan="segments:2")
    np.testing.assert_array_equal(taken.windows, np.full((2, 4), 77))
    np.testing.assert_allclose(taken.stop, [0.5, 1.0])
    assert probe(tmp_path / "i.png").kind == "image"


def test_images_of_all_kinds_become_eight_bit_rgb(tmp_path):
    def seen(name, picture):
        cv2.imwrite(str(tmp_path / name), picture)
        return take(tmp_path / name, Eye(1, 1.0)).windows[0, 0]

    rgb = numbered(1)
    rgb[..., 0] = 200
    np.testing.assert_array_equal(seen("rgb.png", rgb[..., ::-1]), rgb)
    grey = seen("grey.png", rgb[..., 1])
    np.testing.assert_array_equal(grey, np.repeat(rgb[..., 1:2], 3, axis=2))
    deep = seen("deep.png", rgb[..., ::-1].astype(np.uint16) * 257)
    assert deep.dtype == np.uint8
    np.testing.assert_allclose(deep, rgb, atol=1)
    half = np.dstack([rgb[..., ::-1], np.full(rgb.shape[:2], 51, np.uint8)])  # a fifth opaque, over black
    np.testing.assert_allclose(seen("half.png", half), rgb / 5, atol=0.51)


def test_the_orientation_noted_by_a_camera_is_applied(tmp_path):
    """EXIF orientation 6: the stored picture is to be turned clockwise by a quarter."""
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8] = 255
    data = cv2.imencode(".jpg", stored)[1].tobytes()
    tag = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    exif = b"Exif\x00\x00" + tag
    (tmp_path / "i.jpg").write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    picture = take(tmp_path / "i.jpg", Eye(1, 1.0)).windows[0, 0]
    np.testing.assert_allclose(picture, np.rot90(stored, -1), atol=30)


def test_probe_describes_a_video_with_sound(tmp_path):
    path = write_video(tmp_path / "v.mp4", frames=50, sound=np.zeros(96000))
    info = probe(path)
    assert (info.kind, info.frames, info.width, info.height) == ("video", 50, 128, 64)
    assert info.duration == pytest.approx(2.0)
    assert info.fps == pytest.approx(25.0)
    assert (info.has_audio, info.audio_rate, info.audio_channels) == (True, 48000, 1)
    assert not probe(write_video(tmp_path / "silent.mp4", frames=5)).has_audio
    assert set(read_clip(path, clip(), Plan(), [])) == set()
    assert set(read_clip(path, clip(), Plan(), [Watcher(), Listener()])) == {"watcher", "listener"}
