"""The contract of media files: each window shows its number, in every container and codec that PyAV can write here.

Pictures carry their number, and each half second of sound has a tone of its own. Windows are read at the start, in the
middle and at the end, one by one and all at once.
"""

import av
import numpy as np
import pytest

from featcache.media import probe
from featcache.media.source import open_source
from tests.helpers.media import Listener, Watcher, clip, number_of, take, write_sound, write_video

FRAMES, RATE = 75, 25
TONES, RAW = 6, 16000  #: half seconds of sound, samples per second
B = {"b_frames": 2, "options": {"g": "12", "q": "2"}}
Q = {"options": {"g": "12", "q": "2"}}
VPX = {"options": {"deadline": "realtime", "cpu-used": "8", "g": "12"}}
X265 = {"options": {"x265-params": "log-level=none:keyint=12"}}
AV1 = {"options": {"preset": "8", "g": "12", "crf": "8"}}
RGB = {"pixels": "rgb24"}
#: (file, codec of the pictures, how they are written, codec of the sound): those of `make test`
FAST = [
    ("v.mp4", "libx264", {}, "aac"),
    ("v.mkv", "mpeg4", B, "libopus"),
    ("v.avi", "mpeg4", B, "adpcm_ms"),
    ("v.avi", "mjpeg", {"pixels": "yuvj420p"}, "pcm_s16le"),
    ("v.ts", "libx264", {}, "mp2"),
    ("v.mpg", "mpeg1video", B, "mp2"),
    ("v.vob", "mpeg2video", B, "ac3"),
    ("v.webm", "libvpx", VPX, "libopus"),
    ("v.mov", "rawvideo", RGB, "alac"),
    ("v.wmv", "wmv2", Q, "libmp3lame"),
]
SLOW = [
    ("v.mp4", "libx265", X265, "alac"),
    ("v.mp4", "mpeg4", B, "libmp3lame"),
    ("v.mp4", "libvpx-vp9", VPX, "flac"),
    ("v.mp4", "libsvtav1", AV1, "ac3"),
    ("v.mov", "libx264", {}, "pcm_s16le"),
    ("v.mov", "prores_ks", {"pixels": "yuv422p10le"}, "pcm_s24le"),
    ("v.mov", "mjpeg", {"pixels": "yuvj420p"}, "aac"),
    ("v.mov", "qtrle", RGB, "pcm_s16be"),
    ("v.mov", "png", RGB, "adpcm_ima_qt"),
    ("v.mkv", "libx264", {}, "flac"),
    ("v.mkv", "libx265", X265, "aac"),
    ("v.mkv", "mpeg2video", B, "ac3"),
    ("v.mkv", "ffv1", {"options": {"g": "12"}}, "pcm_f32le"),
    ("v.nut", "huffyuv", {"pixels": "yuv422p"}, "flac"),
    ("v.avi", "utvideo", {}, "adpcm_yamaha"),
    ("v.nut", "rawvideo", RGB, "libmp3lame"),
    ("v.avi", "libx264", {}, "libmp3lame"),
    ("v.avi", "mpeg4", Q, "mp2"),
    ("v.avi", "msmpeg4", Q, "adpcm_ima_wav"),
    ("v.avi", "msmpeg4v2", Q, "pcm_u8"),
    ("v.avi", "huffyuv", {"pixels": "yuv422p"}, "ac3"),
    ("v.avi", "ffv1", {"options": {"g": "12"}}, "pcm_mulaw"),
    ("v.avi", "rawvideo", {"pixels": "bgr24"}, "pcm_alaw"),
    ("v.avi", "cinepak", RGB, "pcm_s16le"),
    ("v.avi", "magicyuv", {}, "pcm_s16le"),
    ("v.avi", "mpeg2video", B, "pcm_s16le"),
    ("v.avi", "h263p", Q, "mp2"),
    ("v.ts", "libx265", X265, "ac3"),
    ("v.ts", "mpeg2video", B, "aac"),
    ("v.ts", "mpeg4", B, "eac3"),
    ("v.m2ts", "libx264", {}, "ac3"),
    ("v.mpg", "mpeg2video", B, "mp2"),
    ("v.vob", "mpeg1video", B, "mp2"),
    ("v.flv", "libx264", {}, "aac"),
    ("v.flv", "flv", Q, "libmp3lame"),
    ("v.webm", "libvpx-vp9", VPX, "libopus"),
    ("v.webm", "libsvtav1", AV1, "libopus"),
    ("v.wmv", "wmv1", Q, "mp2"),
    ("v.asf", "msmpeg4", Q, "libmp3lame"),
    ("v.asf", "mpeg4", B, "mp2"),
    ("v.nut", "mpeg4", B, "libmp3lame"),
    ("v.nut", "libx264", {}, "flac"),
    ("v.3gp", "mpeg4", Q, "aac"),
    ("v.m4v", "libx264", {}, "aac"),
    ("v.mxf", "mpeg2video", {"options": {"g": "12", "b": "4M"}}, "pcm_s16le"),
    ("v.gif", "gif", {"pixels": "rgb8"}, None),
    ("v.ogv", "libvpx", VPX, "flac"),
]
SOUNDS = [
    ("s.wav", "pcm_s16le"),
    ("s.wav", "adpcm_ima_wav"),
    ("s.wav", "adpcm_yamaha"),
    ("s.mp3", "libmp3lame"),
    ("s.flac", "flac"),
]
SLOW_SOUNDS = [
    ("s.wav", "adpcm_ms"),
    ("s.wav", "g722"),
    ("s.wav", "pcm_mulaw"),
    ("s.wav", "libmp3lame"),
    ("s.w64", "pcm_s24le"),
    ("s.aiff", "pcm_s16be"),
    ("s.au", "pcm_s16be"),
    ("s.caf", "alac"),
    ("s.m4a", "aac"),
    ("s.m4a", "alac"),
    ("s.ogg", "libopus"),
    ("s.ogg", "flac"),
    ("s.tta", "tta"),
    ("s.wv", "wavpack"),
    ("s.ac3", "ac3"),
    ("s.aac", "aac"),
    ("s.mp2", "mp2"),
]


def marked(fast, slow):
    """The rows as parameters, named by their strings, those of the second list marked as slow."""
    marks = [()] * len(fast) + [pytest.mark.slow] * len(slow)
    for row, mark in zip([*fast, *slow], marks, strict=True):
        yield pytest.param(*row, id="-".join(cell for cell in row if isinstance(cell, str)), marks=mark)


def tones(rate):
    """Half second k is a tone of 400 + 100 k Hz."""
    times = np.arange(rate // 2) / rate
    return np.concatenate([0.4 * np.sin(2 * np.pi * (400 + 100 * k) * times) for k in range(TONES)]).astype(np.float32)


def heard(window):
    """The number of the tone in a quarter of a second."""
    spectrum = np.abs(np.fft.rfft(window * np.hanning(len(window)), 16000))
    return round((int(spectrum.argmax()) - 400) / 100) if np.abs(window).max() > 0.02 else None


def check_tones(path):
    every = take(path, Listener(0.25), clip(0.0, TONES / 2), plan=f"segments:{TONES}").windows
    assert [heard(window) for window in every] == list(range(TONES))
    for k in range(TONES):
        alone = take(path, Listener(0.25), clip(k / 2 + 0.125, k / 2 + 0.375)).windows[0]
        assert heard(alone) == k


def available(codec):
    try:
        av.Codec(codec, "w")
    except ValueError:
        pytest.skip(f"this PyAV has no encoder {codec}")


@pytest.mark.parametrize(("name", "codec", "written", "sound_codec"), [*marked(FAST, SLOW)])
def test_every_window_of_a_film_shows_its_number(tmp_path, name, codec, written, sound_codec):
    rate = 48000 if sound_codec in ("libopus", "pcm_s16le", "ac3", "eac3") else 44100
    for needed in filter(None, (codec, sound_codec)):
        available(needed)
    sound = {"sound": tones(rate), "sound_rate": rate, "sound_codec": sound_codec} if sound_codec else {}
    path = write_video(tmp_path / name, frames=FRAMES, codec=codec, **written, **sound)
    assert probe(path).frames == FRAMES
    reel = open_source(path).reel
    np.testing.assert_allclose(reel.times, np.arange(FRAMES) / RATE, atol=6e-4)
    assert reel.stop == pytest.approx(FRAMES / RATE, abs=0.045)
    everything = {number: number_of(picture) for number, picture in reel.decode(range(FRAMES))}
    assert everything == {number: number for number in range(FRAMES)}
    for first in (0, 11, 12, 37, FRAMES - 3):
        shown = take(path, Watcher(3, RATE), clip(first, first + 3, "frames")).windows[0]
        np.testing.assert_array_equal(shown, np.arange(first, first + 3))
    if sound_codec:
        check_tones(path)


@pytest.mark.parametrize(("name", "codec"), [*marked(SOUNDS, SLOW_SOUNDS)])
def test_every_window_of_a_sound_has_its_tone(tmp_path, name, codec):
    available(codec)
    rate = 48000 if codec == "libopus" else 16000 if codec == "g722" else 44100
    check_tones(write_sound(tmp_path / name, tones(rate), rate, codec=codec))
