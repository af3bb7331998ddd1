"""Bad files: one clear sentence that names the file and the fix, and no other kind of error."""

import dataclasses
import random

import av
import cv2
import numpy as np
import pytest

from featcache import extractors
from featcache.errors import FeatcacheError, MediaAbsentError, MediaError
from featcache.extractors import hof
from featcache.media import Take, audio, probe, read_clip, source
from featcache.media.source import open_source
from featcache.windows import Plan
from tests.helpers.media import Listener, Watcher, clip, number_of, numbered, take, write_sound, write_video


def spoil(path, make):
    """A broken file of one kind at the path."""
    BROKEN[make](path)
    return path


def _missing(path):
    pass


def _truncated(path):
    write_video(path, frames=50)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _truncated_but_streamable(path):
    """The index comes first, so the file opens; half of the pictures are not there."""
    write_video(path.with_name("whole.mp4"), frames=100)
    with (
        av.open(str(path.with_name("whole.mp4"))) as whole,
        av.open(str(path), "w", options={"movflags": "faststart"}) as copy,
    ):
        stream = copy.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _damaged(path):
    """Bytes of the pictures in the middle are replaced; header and index are whole."""
    write_video(path, frames=50)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for place, size in places[20:30]:
        data[place + 4 : place + size] = random.Random(0).randbytes(size - 4)
    path.write_bytes(data)


def _subtitles(path):
    path.write_bytes(b"1\n00:00:01,000 --> 00:00:02,000\nnothing to see\n\n")


def _sound_only(path):
    write_sound(path, np.zeros(16000), 16000, codec="aac")


BROKEN = {
    "missing": _missing,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("this is not a video\n" * 100),
    "noise": lambda path: path.write_bytes(random.Random(1).randbytes(20000)),
    "truncated": _truncated,
    "truncated but streamable": _truncated_but_streamable,
    "damaged": _damaged,
    "subtitles": _subtitles,
    "sound only": _sound_only,
}
SAYS = {
    "missing": "does not exist",
    "empty": r"is empty \(0 bytes\)",
    "text": "cannot be decoded",
    "noise": "cannot be decoded",
    "truncated": "cannot be decoded",
    "truncated but streamable": r"stops at .* but its header announces 4.00 s",
    "damaged": "is damaged near",
    "subtitles": "neither a video nor an audio stream",
    "sound only": "no video stream",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_video_is_one_sentence(tmp_path, kind):
    path = spoil(tmp_path / "v.mp4", kind)
    with pytest.raises(MediaError, match=SAYS[kind]) as error:
        take(path, Watcher(), plan="segments:5")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", BROKEN)
def test_errors_are_values_and_reading_never_raises(tmp_path, kind):
    path = spoil(tmp_path / "v.mp4", kind)
    taken = read_clip(path, clip(), Plan(), [Watcher(), Listener()])
    assert isinstance(taken["watcher"], MediaError)
    if kind == "sound only":
        assert isinstance(taken["listener"], Take)
    elif kind == "damaged":
        assert isinstance(taken["listener"], MediaAbsentError)
    else:
        assert isinstance(taken["listener"], MediaError)


@pytest.mark.parametrize("kind", [kind for kind in BROKEN if kind not in ("damaged", "truncated but streamable")])
def test_probe_says_the_same(tmp_path, kind):
    with pytest.raises(MediaError, match=SAYS[kind]):
        probe(spoil(tmp_path / "v.mp4", kind))


def test_only_clips_that_need_a_damaged_part_fail(tmp_path):
    path = spoil(tmp_path / "v.mp4", "damaged")  # the ten packets from number 20 of 50 on
    np.testing.assert_array_equal(take(path, Watcher(10, 25.0), clip(0, 10, "frames")).windows[0], range(10))
    np.testing.assert_array_equal(take(path, Watcher(10, 25.0), clip(38, 48, "frames")).windows[0], range(38, 48))
    with pytest.raises(MediaError, match="damaged near 0.[89]"):
        take(path, Watcher(10, 25.0), clip(20, 30, "frames"))


def test_a_call_does_not_decode_what_lies_between_its_windows(tmp_path):
    """Were the damage in between decoded, this would fail."""
    reel = open_source(spoil(tmp_path / "v.mp4", "damaged")).reel
    wanted = [*range(10), *range(38, 48)]
    assert [number_of(picture) for _, picture in reel.decode(wanted)] == wanted


def test_pictures_that_the_decoder_patched_up_are_refused(tmp_path):
    """A single wrong byte often leaves a picture that FFmpeg conceals and marks as corrupt, without an error."""
    whole = write_video(tmp_path / "whole.mp4", frames=50).read_bytes()
    path, patched = tmp_path / "v.mp4", 0
    for place in range(whole.index(b"mdat") + 1000, whole.index(b"moov"), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with av.open(str(path)) as container:
            try:
                corrupt = [frame.is_corrupt for frame in container.decode(video=0)]
            except av.FFmpegError:
                continue
        if any(corrupt):
            patched += 1
            with pytest.raises(MediaError, match="is damaged near"):
                take(path, Watcher(50, 25.0))
        if patched == 3:
            return
    assert patched, "no such byte found: this test has lost its object"


def test_a_truncated_file_still_gives_the_clips_that_are_there(tmp_path):
    path = spoil(tmp_path / "v.mp4", "truncated but streamable")
    np.testing.assert_array_equal(take(path, Watcher(6, 25.0), clip(0, 6, "frames")).windows[0], range(6))
    with pytest.raises(MediaError, match="announces"):
        take(path, Watcher(10, 25.0), clip(90, 95, "frames"))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (clip(2.0, 3.0), r"lasts 2.00 s \(50 frames\), but the clip starts at 2 seconds"),
        (clip(50, 60, "frames"), r"lasts 2.00 s \(50 frames\), but the clip starts at 50 frames"),
        (clip(1e9, None), "starts at 1e\\+09 seconds"),
    ],
)
def test_a_clip_after_the_end_is_told_how_long_the_source_is(tmp_path, row, says):
    with pytest.raises(MediaError, match=says):
        take(write_video(tmp_path / "v.mp4", frames=50), Watcher(), row)


def test_a_codec_that_is_not_known_is_named_as_undecodable(tmp_path):
    path = write_video(tmp_path / "v.avi", frames=5, codec="mpeg4")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"FMP4", b"ZZZ9").replace(b"fmp4", b"zzz9"))
    with pytest.raises(MediaError, match=r"v\.avi"):
        take(path, Watcher())


def test_text_with_a_text_name_is_not_a_film_of_a_terminal(tmp_path):
    (tmp_path / "notes.txt").write_text("hello\n" * 200)
    with pytest.raises(MediaError, match="is text"):
        take(tmp_path / "notes.txt", Watcher())


@pytest.mark.parametrize("name", ["i.jpg", "i.png"])
@pytest.mark.parametrize("kind", ["empty", "text", "noise", "half", "end", "missing"])
def test_broken_images_are_one_sentence(tmp_path, name, kind):
    """OpenCV 4 fills the rest of a picture that was cut off; here that is an error, in our own words."""
    path = tmp_path / name
    if kind in ("half", "end"):
        rough = np.random.default_rng(0).integers(0, 255, (64, 128, 3), dtype=np.uint8)
        data = cv2.imencode(path.suffix, rough)[1].tobytes()
        path.write_bytes(data[: len(data) // 2] if kind == "half" else data[:-10])
    else:
        BROKEN[kind](path)
    says = "stops before the end of the image" if kind in ("half", "end") else None
    with pytest.raises(MediaError, match=says) as error:
        take(path, Watcher())
    assert str(path) in str(error.value)


def test_a_sound_whose_rate_ffmpeg_cannot_tell(tmp_path):
    """Recordings laid end to end: the sound of the last begins after what FFmpeg looks at."""
    silent = write_video(tmp_path / "silent.ts", frames=50).read_bytes()
    with_sound = write_video(tmp_path / "sound.ts", frames=50, sound=np.ones(96000, np.float32) / 2).read_bytes()
    path = tmp_path / "v.ts"
    path.write_bytes(silent * 40 + with_sound)
    taken = read_clip(path, clip(0.0, 1.0), Plan(), [Watcher(), Listener()])
    assert isinstance(taken["watcher"], Take)
    assert isinstance(taken["listener"], MediaError | Take)
    if isinstance(taken["listener"], MediaError):
        assert "0 samples per second as far as FFmpeg can tell" in str(taken["listener"])
    assert probe(path).kind == "video"


def test_a_stream_that_appears_while_reading_is_left_out(tmp_path, monkeypatch):
    """PyAV has no place for it and ends with an IndexError after the last packet."""

    class Later:
        def __init__(self, container):
            self.container = container

        def __getattr__(self, name):
            return getattr(self.container, name)

        def __enter__(self):
            self.container.__enter__()
            return self

        def __exit__(self, *error):
            return self.container.__exit__(*error)

        def demux(self, *streams):
            yield from self.container.demux(*streams)
            raise IndexError("list index out of range")

    path = write_video(tmp_path / "v.ts", frames=50, sound=np.ones(96000, np.float32) / 2)
    open_file = av.open
    monkeypatch.setattr(av, "open", lambda *args, **options: Later(open_file(*args, **options)))
    taken = read_clip(path, clip(), Plan("segments", 1), [Watcher(50, 25.0), Listener()])
    np.testing.assert_array_equal(taken["watcher"].windows[0], range(50))
    assert taken["listener"].windows.any()


def test_a_file_that_lasts_no_time_is_one_sentence(tmp_path, monkeypatch):
    path = write_sound(tmp_path / "s.wav", np.ones(16000) / 2, 16000)
    found = source.scan(path)
    for end in (0.0, -3.0):
        track = dataclasses.replace(found.audio, stop=end)
        monkeypatch.setattr(source, "scan", lambda path, track=track: dataclasses.replace(found, audio=track))
        with pytest.raises(MediaError, match=r"lasts -?\d\.00 s.*replace it"):
            take(path, Listener())
        with pytest.raises(MediaError, match="nothing to see or hear"):
            probe(path)


def test_what_was_not_foreseen_is_recorded_too(tmp_path, monkeypatch):
    path = write_video(tmp_path / "v.mp4", frames=5, sound=np.ones(9600, np.float32) / 2)

    def broken(*args):
        raise KeyError("what")

    monkeypatch.setattr(audio, "read", broken)
    taken = read_clip(path, clip(), Plan(), [Watcher(), Listener()])
    assert isinstance(taken["watcher"], Take)
    assert str(taken["listener"]) == f"{path}: unexpected KeyError: 'what'; please report it"
    monkeypatch.setattr(source, "scan", broken)
    for error in read_clip(path, clip(), Plan(), [Watcher(), Listener()]).values():
        assert str(error) == f"{path}: unexpected KeyError: 'what'; please report it"
    with pytest.raises(MediaError, match="unexpected KeyError"):
        probe(path)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 1000, 3), (1000, 2, 3), (1, 1, 3)])
def test_pictures_of_any_shape_have_features(tmp_path, shape):
    cv2.imwrite(str(tmp_path / "i.png"), np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    for extractor in (extractors.load("hog"), hof.Hof(hof.Params(count=3))):
        assert np.isfinite(extractor(take(tmp_path / "i.png", extractor).windows)).all()


@pytest.mark.parametrize("name", ["v.mp4", "v.ts", "v.avi", "s.wav", "s.flac", "s.mp3", "i.png", "i.jpg"])
def test_no_file_raises_anything_else(tmp_path, name):
    """Bytes are changed at random, most of them in headers; whatever comes out is windows or one sentence."""
    path = tmp_path / name
    if name[0] == "v":
        write_video(path, frames=10, codec="mpeg4", sound=np.ones(19200, np.float32) / 2, sound_codec="mp2")
    elif name[0] == "s":
        codec = {".wav": "pcm_s16le", ".flac": "flac", ".mp3": "libmp3lame"}[path.suffix]
        write_sound(path, np.ones(8000) / 2, 16000, codec=codec)
    else:
        cv2.imwrite(str(path), numbered(7))
    whole = path.read_bytes()
    for seed in range(25):
        chance, data = random.Random(seed), bytearray(whole)
        for _ in range(chance.choice([1, 3, 10, 100])):
            place = chance.randrange(chance.choice([min(600, len(data)), len(data)]))
            data[place] = chance.choice([0, 255, chance.randrange(256)])
        path.write_bytes(data)
        for found in read_clip(path, clip(), Plan("segments", 2), [Watcher(), Listener()]).values():
            assert isinstance(found, Take | FeatcacheError)
            assert "unexpected" not in str(found), f"{name} with seed {seed}: {found}"
        try:
            probe(path)
        except FeatcacheError as error:
            assert "unexpected" not in str(error)


def test_one_bad_frame_of_a_folder_is_named(tmp_path):
    for n in range(5):
        cv2.imwrite(str(tmp_path / f"{n}.png"), numbered(n))
    (tmp_path / "3.png").write_bytes(b"")
    with pytest.raises(MediaError, match=r"3\.png is empty"):
        take(tmp_path, Watcher(5, 5.0), clip(fps=5.0))
    np.testing.assert_array_equal(take(tmp_path, Watcher(3, 5.0), clip(0, 3, "frames", fps=5.0)).windows[0], range(3))


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(MediaError, match="has no image .*add images"):
        take(tmp_path, Watcher())


def test_what_a_source_cannot_have_is_absent(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), numbered(0))
    wav = write_sound(tmp_path / "s.wav", np.ones(16000) / 2, 16000)
    with pytest.raises(MediaAbsentError, match="image: no sound"):
        take(tmp_path / "0.png", Listener())
    with pytest.raises(MediaAbsentError, match="folder of frames: no sound"):
        take(tmp_path, Listener(), clip(fps=1.0))
    with pytest.raises(MediaAbsentError, match="sound file: no pictures"):
        take(wav, Watcher())
