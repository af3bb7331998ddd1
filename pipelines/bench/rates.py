"""The rates that the simulation of extraction needs, measured on this machine in seconds of one core.

Other work of the machine makes these seconds longer, because it takes caches and memory. Rates of GPUs cannot be
measured here: `Gpu` has what is assumed in their place.
"""

import json
import statistics
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from featcache.extractors import UNTRAINED, Extractor, load, names
from featcache.manifest import Clip, Manifest
from featcache.media import Piece, windows_of
from featcache.media.flow import flows
from featcache.media.pictures import made
from featcache.media.reel import Reel
from featcache.media.source import open_source
from featcache.windows import Flow, Joints, Pictures, Plan
from pipelines.bench._lines import run_apart
from pipelines.bench.extraction import write_film
from pipelines.bench.simulation import Costs
from pipelines.extraction.assembly import Part
from pipelines.extraction.engine import Job
from pipelines.extraction.extract import extract
from pipelines.extraction.extractors import load_extractors

PLAN = Plan("segments", 5)
SECONDS = (6, 8, 10, 10, 12, 14)  #: lengths of the films
SIZE, RATE, KEYFRAMES = (456, 256), 25, 50  #: of the films: pixels, pictures per second, pictures from key to key
OPEN = ("hf", "sentence-bert", "vector")  #: extractors whose network or numbers are those of the user
KEPT = 400  #: clips whose rows are kept, for the rate of the process that keeps them
ON_RAY = 3000  #: the same, where they come from workers of Ray


@dataclass(frozen=True)
class Gpu:
    """A GPU as it is assumed to be; nothing of it was measured."""

    name: str = "A100, 80 GB"
    #: floating-point operations per second that a network sustains, a product and a sum being two: 6 % of the 156e12 of
    #: TF32, in which PyTorch computes convolutions
    flops: float = 10e12
    pairs: float = 100.0  #: pairs of pictures of 256 x 341 per second of which `solver=torch` computes TV-L1


@dataclass(frozen=True)
class Rates:
    """The measured rates of an extractor."""

    name: str
    row_shape: tuple[int, ...]
    decoding: tuple[float, ...]  #: core-seconds to read, decode and prepare a clip, of each film
    forward: float  #: core-seconds of a forward pass on a CPU
    flops: float  #: floating-point operations of a window's forward pass; 0 without a network
    sizes: tuple[int, int]  #: windows of a forward pass on a CPU and on a GPU
    fields: int  #: fields of flow of a window; 0 without flow
    pixels: float  #: of a picture between which flow is computed
    media: float  #: bytes of a clip's file
    windows: int = PLAN.count(0, 1)

    @property
    def row_bytes(self) -> int:
        """Bytes of a clip's features in a store, in float16."""
        return 2 * self.windows * int(np.prod(self.row_shape))

    @property
    def sent_bytes(self) -> int:
        """Bytes of a clip's features as workers return them, in float32, and of the times of its windows."""
        return 2 * self.row_bytes + 16 * self.windows

    def on_cpu(self, keeping: float, cores: int, pair: float = 0.0) -> Costs:
        """Return the costs on a machine without a GPU. pair: core-seconds of a field of flow."""
        size = self.sizes[0]
        return Costs(
            self.decoding, self.forward, self.windows, size, size, cores if self.flops else 1, self.fields * pair,
            keeping=keeping, media=self.media, row=self.row_bytes, sent=self.sent_bytes,
        )  # fmt: skip

    def on_gpu(self, keeping: float, gpu: Gpu, pair: float = 0.0, *, by_torch: bool = False) -> Costs:
        """Return the costs on machines with GPUs. by_torch: the GPU computes the flow, too."""
        size = self.sizes[1]
        costs = replace(self.on_cpu(keeping, 1, pair), forward=size * self.flops / gpu.flops, batch=size, size=size)
        if not by_torch:
            return costs
        return replace(costs, flow=self.fields / gpu.pairs * self.pixels / (256 * 341), flow_on_gpu=True)


def written(folder: Path, copies: int = 1) -> Manifest:
    """Write the films, so many times each, and return their manifest: all films, then all again."""
    clips = []
    for copy in range(copies):
        for number, seconds in enumerate(SECONDS):
            clip = Clip(f"{copy}-{number}", "d", "test", f"{copy}-{number}.mp4")
            first = folder / f"0-{number}.mp4"
            if copy:
                (folder / clip.source).write_bytes(first.read_bytes())
            elif not first.exists():
                write_film(first, seconds, rate=RATE, keyframes=KEYFRAMES, size=SIZE, first=9 * number, sound=True)
            clips.append(clip)
    return Manifest("films", tuple(clips), folder)


def measurable() -> list[str]:
    """Return the extractors of the registry that read videos, and whose network is known."""
    return [name for name in names() if name not in OPEN and not isinstance(load(name).window, Joints)]


def rates_of(name: str, films: Manifest) -> Rates:
    """Measure an extractor with untrained weights; its flow is left out."""
    settings = [f"{name}.method=dis"] if isinstance(load(name).window, Flow) else []
    (extractor,) = load_extractors([name], settings, [UNTRAINED])
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        windows = list[NDArray[np.generic]]()
        decoding = [_seconds(lambda clip=clip: windows.extend(_windows(films, clip, extractor))) for clip in films]  # type: ignore[misc]
        batch = np.stack(windows[: extractor.batch])
        with FlopCounterMode(display=False) as counted:
            extractor(batch)
        forward = _seconds(lambda: extractor(batch))
    finally:
        torch.set_num_threads(before)
    window = extractor.window
    fields = window.count if isinstance(window, Flow) else 0
    height = window.side if isinstance(window, Pictures) and window.side else SIZE[1]
    pixels = height * height * SIZE[0] / SIZE[1]
    dis = pair_seconds(films, "dis", height) if fields else 0.0
    bare = tuple(max(0.0, seconds - fields * dis * PLAN.count(0, 1)) for seconds in decoding)
    sizes = getattr(extractor, "sizes", (extractor.batch, extractor.batch))
    flops = counted.get_total_flops() / len(batch)
    media = statistics.mean(films.path(clip).stat().st_size for clip in films)
    return Rates(name, extractor.row_shape, bare, forward, flops, sizes, fields, pixels, media)


def pair_seconds(films: Manifest, method: str, side: int = 256, pairs: int = 2) -> float:
    """Return the core-seconds of a field of flow by OpenCV."""
    found = []
    for clip in films.clips[:pairs]:
        reel = open_source(films.path(clip)).reel
        assert isinstance(reel, Reel)
        first, second = (made(picture, side, grey=True) for _, picture in reel.decode([20, 21]))
        found.append(_seconds(lambda: flows([(first, second)], method)))  # noqa: B023
    return statistics.mean(found)


def _windows(films: Manifest, clip: Clip, extractor: Extractor) -> Iterator[NDArray[np.generic]]:
    for piece in windows_of(films.path(clip), clip, PLAN, [extractor]):
        assert isinstance(piece, Piece), piece.reason
        yield piece.window


def _seconds(job: Callable[[], object]) -> float:
    """Return the seconds of this thread that a job takes."""
    began = time.thread_time()
    job()
    return time.thread_time() - began


class _Zeros:
    """An engine that returns zeros at once."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.busy, self.notes = 0.0, list[str]()
        self._name, self._shape = name, shape

    def parts(self, jobs: Iterator[Job]) -> Generator[Part, None, None]:
        """Yield the parts."""
        for job in jobs:
            yield Part(job.row, self._name, np.zeros(self._shape, np.float32), np.zeros((2, self._shape[0])))


def keeping_seconds(films: Manifest) -> float:
    """Return the core-seconds that one process takes to keep a clip of 5 x 1,024 numbers, whatever the extractor."""
    clips = tuple(replace(films.clips[k % len(films)], clip_id=str(k)) for k in range(KEPT))
    (extractor,) = load_extractors(["tbn-rgb"], [], [UNTRAINED])
    seen: list[float] = []

    def note(done: int, total: int) -> None:
        if done in (0, total):
            seen.append(time.process_time())

    zeros: Any = lambda *_: _Zeros(extractor.name, (PLAN.count(0, 1), *extractor.row_shape))  # noqa: E731
    with TemporaryDirectory() as stores:
        extract(replace(films, clips=clips), [extractor], Path(stores), plan=PLAN, engines=zeros, progress=note)
    return (seen[-1] - seen[0]) / KEPT


def keeping_on_ray(folder: Path) -> float:
    """Return the same where the rows come from workers of Ray."""
    code = "import sys; from pipelines.bench.on_ray import *; keep_zeros(Path(sys.argv[1]), int(sys.argv[2]))"
    with TemporaryDirectory(dir=folder) as stores:
        found = json.loads(run_apart(code, stores, str(ON_RAY)))
    return float(found["cpu"] / found["rows"])
