"""Tiny media files for tests, and extractors that hand back what they were shown.

Every picture carries its number as eight black or white blocks, so a test reads which picture it was given.
"""

from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import av
import numpy as np

from featcache.extractors import Extractor
from featcache.manifest import Clip
from featcache.media import Take, read_clip
from featcache.windows import Pictures, Plan, Sound

WIDTH, HEIGHT = 128, 64


def numbered(number, width=WIDTH, height=HEIGHT):
    """The picture of a number below 256: its bits, highest first, in two rows of four blocks."""
    bits = np.array([number >> k & 1 for k in range(7, -1, -1)], np.uint8).reshape(2, 4)
    grey = np.where(bits, 220, 30).astype(np.uint8).repeat(height // 2, 0).repeat(width // 4, 1)
    return np.repeat(grey[..., None], 3, axis=2)


def number_of(picture):
    height, width, _ = picture.shape
    cells = picture[..., 1].reshape(2, height // 2, 4, width // 4).mean(axis=(1, 3))
    return int("".join("1" if cell > 125 else "0" for cell in cells.ravel()), 2)


def write_video(
    path,
    *,
    frames=50,
    rate=25,
    ticks=None,
    codec="libx264",
    options=None,
    b_frames=None,
    pictures=None,
    pixels="yuv420p",
    turned=None,
    sound=None,
    sound_rate=48000,
    sound_codec="aac",
    sound_at=0.0,
):
    """Numbered pictures (or `pictures`) at `rate`, or at `ticks` thousandths of a second, with `sound` (samples,)."""
    pictures = [numbered(n) for n in range(frames)] if pictures is None else pictures
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=rate, options=options or {"g": "12"})
        video.height, video.width, _ = pictures[0].shape
        video.pix_fmt = pixels
        if b_frames is not None:
            video.codec_context.max_b_frames = b_frames
        if ticks is not None:
            video.codec_context.time_base = Fraction(1, 1000)
        if turned is not None:
            video.set_display_rotation(*turned)
        audio = container.add_stream(sound_codec, rate=sound_rate, layout="mono") if sound is not None else None
        for n, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = ticks[n], Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None:
            mux_sound(container, audio, sound, sound_rate, sound_at)
    return path


def write_sound(path, sound, rate, *, codec="pcm_s16le", channels=1, at=0.0):
    """A sound file of (samples,) or (channels, samples)."""
    with av.open(str(path), "w") as container:
        audio = container.add_stream(codec, rate=rate, layout={1: "mono", 2: "stereo"}[channels])
        mux_sound(container, audio, sound, rate, at)
    return path


def mux_sound(container, audio, sound, rate, at):
    """Encode in pieces of 1024 samples, the first at `at` seconds."""
    sound = np.atleast_2d(sound).astype(np.float32)
    layout = {1: "mono", 2: "stereo"}[len(sound)]
    resampler = av.AudioResampler(format=audio.format, layout=layout, rate=rate)
    for begin in range(0, sound.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[:, begin : begin + 1024]), "fltp", layout)
        frame.rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(at * rate) + begin
        for part in resampler.resample(frame):
            container.mux(audio.encode(part))
    container.mux(audio.encode())


class Watcher(Extractor):
    """Rows are the numbers of the pictures shown."""

    name: ClassVar[str] = "watcher"
    modality: ClassVar[str] = "rgb"

    def __init__(self, count=4, rate=8.0):
        super().__init__(None)
        self.window = Pictures(count, rate)
        self.row_shape = (count,)

    def prepare(self, window):
        return np.array([number_of(picture) for picture in window])


class Eye(Watcher):
    """Rows are the pictures themselves."""

    name: ClassVar[str] = "eye"

    def prepare(self, window):
        return np.stack(window)


class Listener(Extractor):
    """Rows are the samples heard."""

    name: ClassVar[str] = "listener"
    modality: ClassVar[str] = "audio"

    def __init__(self, seconds=0.5, rate=16000):
        super().__init__(None)
        self.window = Sound(rate, seconds)
        self.row_shape = (round(seconds * rate),)

    def prepare(self, window):
        return window


def clip(start=None, stop=None, unit="seconds", **cells):
    return Clip("c", "d", "train", "unused", start=start, stop=stop, unit=unit, **cells)


def take(path, extractor, row=None, plan="segments:1"):
    """The extractor's windows of one clip; its error is raised."""
    taken = read_clip(Path(path), row or clip(), Plan.parse(plan), [extractor])[extractor.name]
    if not isinstance(taken, Take):
        raise taken
    return taken
