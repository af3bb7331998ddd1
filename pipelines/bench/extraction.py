"""Benchmarks of extraction: descriptors, networks and their options, memory and seeking in long videos."""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from featcache.builders import kitchens
from featcache.extractors import UNTRAINED, Extractor, Runtime, load
from featcache.extractors.i3d_rgb import I3DRgb, Params
from featcache.machine import cores
from featcache.manifest import Clip, Manifest
from featcache.media import Piece, read_clip, windows_of
from featcache.windows import Plan
from pipelines.bench._lines import Line, alternate, peak_bytes, run_apart
from pipelines.extraction.extract import extract
from pipelines.extraction.extractors import load_extractors

WORKERS = cores()
DESCRIPTORS = ("hog", "hof", "logmel")
THREADS = torch.get_num_threads()  #: torch's default; other benchmarks change it
LOOP = 60  #: seconds after which a film shows the same pictures again
SEGMENTS, SEGMENT = 100, 3  #: segments that are read from an hour of video, and their seconds
SOUND = 48_000  #: samples per second of a film's sound
FILM_WINDOWS, REAL = 2000, 8  #: windows of the film of two hours, and the number that the network computes


def descriptors(folder: Path) -> Iterator[Line]:
    """Extraction of descriptors against decoding and preparing only, on all cores."""
    manifest = kitchens.build(folder / "videos", every=4)
    extractors = load_extractors(DESCRIPTORS)

    def decode_only(n: int) -> None:
        with ThreadPoolExecutor(WORKERS) as pool:
            for _ in pool.map(lambda clip: read_clip(manifest.path(clip), clip, Plan(), extractors), manifest):
                pass

    def extract_all(n: int) -> None:
        extract(manifest, extractors, folder / f"s{n}", plan=Plan(), workers=WORKERS)

    ours, plain = alternate(extract_all, decode_only, rounds=3)
    measured = f"extract {' + '.join(DESCRIPTORS)}"
    yield measured, "decode + prepare", ours, plain, lambda s: f"{len(manifest) / s:.1f} clips/s"


def networks(folder: Path) -> Iterator[Line]:
    """Extraction of `kitchens` against its two halves, decoding and the network, each of them on all cores."""
    torch.set_num_threads(THREADS)
    videos = kitchens.build(folder / "videos", every=4)
    for name, settings, clips, plan, rounds in (
        ("i3d-rgb", (), 2, Plan(), 3),
        ("i3d-flow", ("method=dis",), 2, Plan(), 3),
        ("i3d-flow", ("method=tvl1", "count=9"), 4, Plan("segments", 1), 1),  # a field takes a second
    ):
        (extractor,) = load_extractors([name], [f"{name}.{setting}" for setting in settings], [UNTRAINED])
        measured = " ".join(["extract", name, *settings])
        yield from _pace(measured, _few(videos, clips), extractor, plan, rounds)


def _few(videos: Manifest, clips: int) -> Manifest:
    """`clips` of the videos, spread over actions and kitchens."""
    return replace(videos, clips=videos.clips[:: len(videos) // clips][:clips])


def _pace(measured: str, videos: Manifest, extractor: Extractor, plan: Plan, rounds: int) -> Iterator[Line]:
    seconds: list[tuple[float, float]] = []

    def together(_: int) -> None:
        with tempfile.TemporaryDirectory() as stores:
            extract(videos, [extractor], Path(stores), plan=plan, workers=WORKERS)

    def apart(_: int) -> None:
        began = time.perf_counter()
        windows = np.stack(_windows(videos, extractor, plan))
        decoded = time.perf_counter()
        extractor(windows)
        seconds.append((decoded - began, time.perf_counter() - decoded))

    ours, both = alternate(together, apart, rounds=rounds)
    decoding, forward = (statistics.median(column) for column in zip(*seconds[1:], strict=True))
    slower = "decode + prepare" if decoding > forward else "the network"
    count = len(videos) * plan.count(0, 1)
    for against, plain in ((f"only {slower}, the slower half", max(decoding, forward)), ("one after the other", both)):
        yield measured, against, ours, plain, lambda s: f"{count / s:.2f} windows/s"


def _windows(videos: Manifest, extractor: Extractor, plan: Plan) -> list[NDArray[np.generic]]:
    """All windows of all clips, prepared; clips are decoded in parallel."""

    def drain(clip: Clip) -> list[NDArray[np.generic]]:
        return [p.window for p in windows_of(videos.path(clip), clip, plan, [extractor]) if isinstance(p, Piece)]

    with ThreadPoolExecutor(WORKERS) as pool:
        return [window for windows in pool.map(drain, videos) for window in windows]


def _memory(folder: Path) -> Iterator[Line]:
    """Peak memory of extracting i3d-rgb from two hours of video: as many clips, and as one."""
    film = folder / "two hours.mp4"
    write_film(film, 7200, rate=5, keyframes=10, size=(160, 120))
    for segments, clips in ((FILM_WINDOWS, f"{FILM_WINDOWS} segments of two hours"), (1, "two hours as one clip")):
        code = "import sys; from pipelines.bench.extraction import *; extract_film(Path(sys.argv[1]), int(sys.argv[2]))"
        measured = json.loads(run_apart(code, str(film), str(segments)))
        name = (
            f"peak memory, i3d-rgb on {clips} ({measured['windows']} windows of 2.4 MB; {measured['computed']} through "
            "the network, then zeros once decoding is as far ahead as it goes)"
        )
        yield name, "2 GiB", measured["peak_bytes"], float(2 << 30), lambda size: f"{size / 2**30:.2f} GiB"


def extract_film(film: Path, segments: int) -> None:
    """Extract i3d-rgb from a film of two hours, as one clip or as many; print the peak memory of this process."""
    extractor, step = _Hasty(Params()).ready(Runtime(UNTRAINED)), 7200 / FILM_WINDOWS
    bounds = [(k * step, (k + 1) * step) for k in range(segments)] if segments > 1 else [(None, None)]
    clips = (Clip(str(k), "d", "test", film.name, start, stop) for k, (start, stop) in enumerate(bounds))
    manifest, plan = Manifest("film", tuple(clips), film.parent), Plan("all", step)
    with tempfile.TemporaryDirectory() as stores:
        store = extract(manifest, [extractor], Path(stores), plan=plan, workers=WORKERS).stores[extractor.name]
        rows, done = store.read(), store.counts()["done"]
    print(json.dumps({"clips": done, "windows": rows.shape[0] * rows.shape[1], "computed": int(rows.any(2).sum()),
                      "ahead": extractor.ahead, "peak_bytes": peak_bytes()}))  # fmt: skip


class _Hasty(I3DRgb):
    """I3D on the first windows; then it waits until decoding is as far ahead as it goes, and returns zeros."""

    prepared = 0
    called = 0
    ahead = 0  #: windows that were decoded, but not computed, at the end of that wait

    def prepare(self, window: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Count the window, and prepare it as I3D does."""
        self.prepared += 1
        return super().prepare(window)

    def __call__(self, windows: NDArray[Any]) -> NDArray[np.float32]:
        """(n, 16, 224, 224, 3) -> (n, 1024)."""
        self.called += len(windows)
        if self.called <= REAL:
            return super().__call__(windows)
        while not self.ahead:
            before = self.prepared
            time.sleep(2)
            if self.prepared == before:
                self.ahead = self.prepared - self.called
        return np.zeros((len(windows), *self.row_shape), np.float32)


def _seeking(folder: Path) -> Iterator[Line]:
    """Segments of an hour of video against one file per segment; both are read as if for the first time."""
    clip, rate, size = Clip("clip", "d", "test", "an hour.mp4"), 25, (320, 240)
    begins = [round((k + 0.3) * 3600 / SEGMENTS * rate) for k in range(SEGMENTS)]
    segments = [replace(clip, start=begin / rate, stop=begin / rate + SEGMENT) for begin in begins]
    cut = [replace(clip, source=f"{begin}.mp4") for begin in begins]
    extractors = load_extractors(["hog"])

    def read(clips: list[Clip]) -> None:
        for source in {clip.source for clip in clips}:
            os.utime(folder / source)  # a new time stamp makes the reader's cached facts of the file invalid
        for clip in clips:
            read_clip(folder / clip.source, clip, Plan(), extractors)

    for keyframes in (50, 250):
        write_film(folder / clip.source, 3600, rate=rate, keyframes=keyframes, size=size)
        for begin, part in zip(begins, cut, strict=True):
            write_film(folder / part.source, SEGMENT, rate=rate, keyframes=keyframes, size=size, first=begin)
        ours, plain = alternate(lambda _: read(segments), lambda _: read(cut), rounds=3)
        measured = f"read {SEGMENTS} segments of an hour for hog, a keyframe every {keyframes} pictures"
        yield measured, "as many files", ours, plain, lambda s: f"{SEGMENTS / s:.1f} segments/s"


def long_videos(folder: Path) -> Iterator[Line]:
    """Memory of extraction from a long video, and seeking in it."""
    yield from _memory(folder)
    yield from _seeking(folder)


def options(folder: Path) -> Iterator[Line]:
    """Options of a network against the default, on the same windows, with the least cosine of a row to the default's.

    A CPU without bf16 support in oneDNN computes bf16 hundreds of times slower than float32, so bf16 is left out there.
    """
    torch.set_num_threads(THREADS)
    videos = kitchens.build(folder / "videos", every=4)
    runtimes = {"channels first": Runtime(UNTRAINED, channels_last=False)}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        runtimes["bf16"] = Runtime(UNTRAINED, precision="bf16")
    for name, count, more in (
        ("i3d-rgb", 4, {}),
        ("resnext101", 4, {}),
        ("tbn-rgb", 32, {"compiled": Runtime(UNTRAINED, compile="on")}),
    ):
        default = load(name).ready(Runtime(UNTRAINED))
        windows = np.stack(_windows(_few(videos, 8), default, Plan())[:count])
        for option, runtime in (runtimes | more).items():
            yield from _option(load(name).ready(runtime), option, default, windows)


def _option(extractor: Extractor, option: str, default: Extractor, windows: NDArray[np.generic]) -> Iterator[Line]:
    began = time.perf_counter()
    rows = extractor(windows)
    first = time.perf_counter() - began
    expected = default(windows)
    cosine = (rows * expected).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(expected, axis=1)
    ours, plain = alternate(lambda _: extractor(windows), lambda _: default(windows))
    measured = f"{extractor.name}, {option} (cosine {cosine.min():.7f}; first call {first:.1f} s)"
    yield measured, "the default", ours, plain, lambda s: f"{len(windows) / s:.2f} windows/s"


def write_film(
    path: Path,
    seconds: int,
    *,
    rate: int,
    keyframes: int,
    size: tuple[int, int],
    first: int = 0,
    sound: bool = False,
) -> None:
    """Write H.264 of a view that wanders over a texture, from picture `first` on. sound: with noise in AAC, too.

    A longer film repeats the packets of its first LOOP seconds: this is fast, and costs a reader the same.
    """
    width, height = size
    noise = np.random.default_rng(0).integers(0, 256, (2 * height, 2 * width), np.uint8)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    encoded = []
    with av.open(os.fspath(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"g": str(keyframes), "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        track = container.add_stream("aac", rate=SOUND, layout="mono") if sound else None
        for n in range(first, first + min(seconds, LOOP) * rate):
            turn = 2 * np.pi * n / (LOOP * rate)
            y, x = (int(length / 2 * (1 + np.sin(k * turn))) for length, k in ((height, 7), (width, 5)))
            planes = np.full((height * 3 // 2, width), 128, np.uint8)
            planes[:height] = texture[y : y + height, x : x + width]
            encoded += stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p"))
        encoded += stream.encode()
        base = Fraction(1, rate)
        stamps = [(packet.pts or 0, packet.dts or 0, packet.duration) for packet in encoded]
        for loop in range(max(1, seconds // LOOP)):
            for packet, (pts, dts, duration) in zip(encoded, stamps, strict=True):
                packet.time_base, packet.duration = base, duration  # muxing counts them in the stream's ticks
                packet.pts, packet.dts = (stamp + round(loop * LOOP / base) for stamp in (pts, dts))
                container.mux(packet)
        if track:
            samples = np.random.default_rng(0).integers(-9000, 9000, (1, seconds * SOUND), np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate = SOUND
            for heard in [*track.encode(frame), *track.encode()]:
                container.mux(heard)


BENCHMARKS = {"extraction": descriptors, "networks": networks, "options": options, "long_videos": long_videos}
