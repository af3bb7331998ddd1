"""Which sound is heard when: on the clock of the pictures, at any rate and sample format."""

import av
import numpy as np
import pytest

from featcache.errors import MediaAbsentError, MediaError
from featcache.media import audio, probe
from featcache.media.container import scan
from tests.helpers.media import Listener, Watcher, clip, numbered, take, write_sound, write_video


def click(seconds, rate, *times):
    """Silence with a short loud tick at each time: half a millisecond of full swing."""
    sound = np.zeros(round(seconds * rate), np.float32)
    for time in times:
        begin = round(time * rate)
        sound[begin : begin + max(1, rate // 2000)] = 0.9
    return sound


def noise(count, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, count).astype(np.float32)


def tone(seconds, rate, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def test_samples_come_back_exactly_where_they_were(tmp_path):
    sound = noise(16000)
    path = write_sound(tmp_path / "s.wav", sound, 16000)
    taken = take(path, Listener(0.5), clip(0.2, 0.8))  # centre 0.5 s: samples 4000 to 12000
    assert taken.windows.dtype == np.float32
    np.testing.assert_allclose(taken.windows[0], sound[4000:12000], atol=1 / 32000)
    assert (taken.start[0], taken.stop[0]) == (0.25, 0.75)


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
def test_every_sample_format_means_the_same_sound(tmp_path, codec):
    sound = tone(1.0, 16000)
    heard = take(write_sound(tmp_path / "s.wav", sound, 16000, codec=codec), Listener(1.0)).windows[0]
    np.testing.assert_allclose(heard, sound, atol=0.01 if codec == "pcm_u8" else 1e-4)


@pytest.mark.parametrize(("name", "codec"), [("s.wav", "pcm_s16le"), ("s.flac", "flac"), ("s.mka", "pcm_f32le")])
def test_channels_are_averaged(tmp_path, name, codec):
    left, right = noise(16000, 1), noise(16000, 2)
    path = write_sound(tmp_path / name, np.stack([left, right]), 16000, codec=codec, channels=2)
    np.testing.assert_allclose(take(path, Listener(1.0)).windows[0], (left + right) / 2, atol=2e-4)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_other_rates_are_resampled_in_place(tmp_path, rate):
    """A tone keeps its phase: the windows of a 440 Hz tone are that tone at 16 kHz, wherever they lie."""
    path = write_sound(tmp_path / "s.wav", tone(2.0, rate), rate)
    taken = take(path, Listener(0.5), clip(0.3, 1.7), plan="segments:3")
    for window, start in zip(taken.windows, taken.start, strict=True):
        times = (round(start * 16000) + np.arange(8000)) / 16000
        np.testing.assert_allclose(window, 0.5 * np.sin(2 * np.pi * 440 * times), atol=2e-3)


@pytest.mark.parametrize(
    ("name", "codec", "tolerance"), [("v.mkv", "pcm_s16le", 8), ("v.mp4", "aac", 1), ("v.mov", "pcm_s16le", 0)]
)
def test_a_click_is_heard_when_its_picture_is_shown(tmp_path, name, codec, tolerance):
    """Sound and pictures share one clock: the tick at 1.2 s lies on the flash of frame 30 of 25 per second."""
    sound = click(2.0, 16000, 1.2)
    path = write_video(tmp_path / name, frames=50, sound=sound, sound_rate=16000, sound_codec=codec)
    heard = take(path, Listener(0.5), clip(30, 31, "frames"))
    assert take(path, Watcher(1, 25.0), clip(30, 31, "frames")).windows[0, 0] == 30
    loudest = np.flatnonzero(np.abs(heard.windows[0]) > 0.4)[0]
    assert abs(round(heard.start[0] * 16000) + loudest - 1.2 * 16000) <= tolerance


@pytest.mark.parametrize("name", ["v.mov", "v.mkv"])
def test_sound_that_starts_after_the_pictures_is_placed_later(tmp_path, name):
    sound = click(0.5, 16000, 0.1)
    path = write_video(tmp_path / name, frames=50, sound=sound, sound_rate=16000, sound_codec="pcm_s16le", sound_at=1.0)
    taken = take(path, Listener(2.0))  # centred on 1 s, it begins at 0 s and holds all of the sound
    loudest = np.flatnonzero(taken.windows[0] > 0.4)[0]
    assert loudest / 16000 == pytest.approx(1.1, abs=2e-3)
    assert not taken.windows[0][: round(0.99 * 16000)].any()
    assert (taken.start[0], taken.stop[0]) == pytest.approx((0.0, 2.0))


def test_a_gap_between_packets_is_silence(tmp_path):
    rate, piece = 16000, np.full(1024, 0.5, np.float32)
    path = tmp_path / "gap.mka"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for begin in (0, 1024, 8192, 9216):
            frame = av.AudioFrame.from_ndarray((piece[None] * 32767).astype(np.int16), "s16", "mono")
            frame.rate, frame.pts = rate, begin
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    heard = take(path, Listener(10240 / rate)).windows[0]
    np.testing.assert_allclose(heard[:2048], 0.5, atol=1e-3)
    assert not heard[2064:8176].any()
    np.testing.assert_allclose(heard[8208:10224], 0.5, atol=1e-3)


def test_windows_lie_inside_the_clip_as_those_of_pictures_do(tmp_path):
    sound = noise(32000)
    path = write_sound(tmp_path / "s.wav", sound, 16000)
    taken = take(path, Listener(0.5), clip(0.5, 1.5), plan="segments:5")  # centres 0.6, 0.8, ..., 1.4
    np.testing.assert_allclose(taken.start, [0.5, 0.55, 0.75, 0.95, 1.0])
    np.testing.assert_allclose(taken.stop, taken.start + 0.5)
    for window, start in zip(taken.windows, taken.start, strict=True):
        begin = round(start * 16000)
        np.testing.assert_allclose(window, sound[begin : begin + 8000], atol=1e-4)


def test_a_clip_of_pictures_and_its_sound_show_the_same_seconds(tmp_path):
    """Windows of one length: wherever the plan puts them, both are moved alike."""
    path = write_video(tmp_path / "v.mkv", frames=50, sound=noise(32000), sound_rate=16000, sound_codec="pcm_s16le")
    for row in (clip(), clip(0.4, 1.7), clip(1.0, None)):
        seen = take(path, Watcher(4, 8.0), row, "segments:7")
        heard = take(path, Listener(0.5), row, "segments:7")
        np.testing.assert_allclose(heard.start, seen.start, atol=2e-3)
        np.testing.assert_allclose(heard.stop, seen.stop, atol=2e-3)


def test_a_clip_shorter_than_the_window_hears_the_file_around_it_and_silence_beyond(tmp_path):
    sound = noise(16000)
    path = write_sound(tmp_path / "s.wav", sound, 16000)
    inside = take(path, Listener(0.5), clip(0.4, 0.5))  # around 0.45 s
    np.testing.assert_allclose(inside.windows[0], sound[3200:11200], atol=1e-4)
    edge = take(path, Listener(0.5), clip(0.9, 1.0), plan="segments:3")  # around 0.95 s, but the sound ends at 1 s
    for window in edge.windows:
        np.testing.assert_allclose(window[:4800], sound[11200:], atol=1e-4)
        assert not window[4800:].any()
    np.testing.assert_allclose(edge.start, 0.7)
    np.testing.assert_allclose(edge.stop, 1.0)


@pytest.mark.parametrize(
    ("name", "codec", "tolerance"),
    [("s.wav", "pcm_s16le", 0), ("s.flac", "flac", 0), ("s.mp3", "libmp3lame", 1e-3), ("s.m4a", "aac", 0.1)],
)
def test_seeking_gives_what_decoding_from_the_start_gives(tmp_path, name, codec, tolerance):
    """AAC fills bands with random noise of its own, so it is only nearly equal."""
    rate = 44100
    path = write_sound(tmp_path / name, tone(6.0, rate) + 0.1 * noise(6 * rate), rate, codec=codec)
    found = scan(path)
    (whole,) = audio.read(found, found.audio, [0.0], 6.0, 16000)
    starts = [0.0, 0.3, 1.7, 4.9]
    together = list(audio.read(found, found.audio, starts, 0.5, 16000))
    for start, window in zip(starts, together, strict=True):
        begin = round(start * 16000)
        (alone,) = audio.read(found, found.audio, [start], 0.5, 16000)
        for part in (alone, window):
            assert np.abs(part - whole[begin : begin + 8000]).max() <= tolerance


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("s.mka", "libopus", 48000),
        ("s.mkv", "flac", 44100),
        ("s.mka", "libmp3lame", 44100),
        ("s.asf", "libmp3lame", 44100),
        ("s.ts", "mp2", 44100),
        ("s.flv", "libmp3lame", 44100),
    ],
)
def test_where_containers_round_times_a_window_is_the_same_with_and_without_others(tmp_path, name, codec, rate):
    path = write_sound(tmp_path / name, tone(6.0, rate) + 0.1 * noise(6 * rate), rate, codec=codec)
    found = scan(path)
    starts = [0.0, 0.013, 0.35, 0.7, 1.0, 2.013, 2.4, 3.3, 4.9]
    for start, window in zip(starts, audio.read(found, found.audio, starts, 0.5, 16000), strict=True):
        (alone,) = audio.read(found, found.audio, [start], 0.5, 16000)
        np.testing.assert_array_equal(window, alone, err_msg=f"{start} s")


def test_a_video_without_a_sound_track_is_absent_not_broken(tmp_path):
    path = write_video(tmp_path / "v.mp4", frames=5)
    with pytest.raises(MediaAbsentError, match="no audio track"):
        take(path, Listener())


def test_sound_that_ended_before_the_clip_is_absent(tmp_path):
    sound = noise(8000)
    path = write_video(tmp_path / "v.mov", frames=50, sound=sound, sound_rate=16000, sound_codec="pcm_s16le")
    first, second, third = take(path, Listener(), clip(0.3, 1.8), "segments:3").windows  # from 0.3, 0.8 and 1.3 s
    np.testing.assert_allclose(first[:3200], sound[4800:], atol=1e-4)
    assert not first[3200:].any()
    assert not second.any()
    assert not third.any()
    says = r"silent in all windows of the clip \[1\.00, 2\.00\) s: its sound lies on \[0\.00, 0\.50\) s"
    with pytest.raises(MediaAbsentError, match=says):
        take(path, Listener(), clip(1.0, 2.0))
    with pytest.raises(MediaAbsentError, match="silent in all windows"):
        take(path, Listener(), clip(0.4, 2.0))  # its one window begins at 0.95 s
    with pytest.raises(MediaAbsentError, match="silent in all windows"):
        take(path, Listener(1.5), clip(0.6, 1.2))  # the window reaches back to 0.15 s, but the clip itself is silent


def test_a_sound_file_has_no_pictures_even_with_a_cover(tmp_path):
    path = tmp_path / "s.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 128, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(3), format="rgb24")))
        container.mux(cover.encode())
        frame = av.AudioFrame.from_ndarray(noise(16000)[None], "fltp", "mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(MediaAbsentError, match="sound file"):
        take(path, Watcher())
    assert probe(path).kind == "sound"
    assert take(path, Listener()).windows.any()


def test_bounds_in_frames_need_pictures(tmp_path):
    path = write_sound(tmp_path / "s.wav", noise(16000), 16000)
    with pytest.raises(MediaError, match="use start_seconds"):
        take(path, Listener(), clip(3, 9, "frames"))
