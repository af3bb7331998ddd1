"""Benchmarks of optical flow: TV-L1 by torch, on a GPU where there is one, against OpenCV on one core."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from featcache.builders import kitchens
from featcache.manifest import Manifest
from featcache.media.flow import flows
from featcache.media.pictures import made
from featcache.media.reel import Reel
from featcache.media.source import open_source
from pipelines.bench._lines import Line, alternate

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
SIDE = 256  #: shorter side of the pictures, as I3D and TBN take them
PAIRS = {"cpu": 8, "cuda": 256}  #: pairs that torch solves, by device
BY_OPENCV = 8  #: pairs that OpenCV solves; its seconds are per pair
LIMIT = 0.03  #: pixels, the mean distance to OpenCV that the tests allow


def flow(folder: Path) -> Iterator[Line]:
    """Pairs per second of TV-L1, and the distance between both solvers."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        videos = kitchens.build(folder / "videos", every=4)
        yield from _solvers(_pairs(videos, PAIRS[device]), device)
    finally:
        torch.set_num_threads(before)


def _pairs(videos: Manifest, count: int) -> list[Pair]:
    """Pairs of neighbouring pictures, spread over the clips; each pass over the clips takes later pictures."""
    pairs: list[Pair] = []
    for k in range(count):
        source = open_source(videos.path(videos.clips[k % len(videos)]))
        number = 5 + 2 * (k // len(videos))
        assert isinstance(source.reel, Reel)
        first, second = (made(picture, SIDE, grey=True) for _, picture in source.reel.decode([number, number + 1]))
        pairs.append((first, second))
    return pairs


def _solvers(pairs: list[Pair], device: str) -> Iterator[Line]:
    found: dict[str, list[NDArray[np.float32]]] = {}

    def by_torch(_: int) -> None:
        found["torch"] = flows(pairs, "tvl1", "torch", device)

    def by_opencv(_: int) -> None:
        found["opencv"] = flows(pairs[:BY_OPENCV], "tvl1")

    clock = time.thread_time if device == "cpu" else time.perf_counter  # a GPU works outside the thread
    ours, plain = alternate(by_torch, by_opencv, rounds=3, clock=clock)
    height, width = pairs[0][0].shape
    measured = f"TV-L1 of {len(pairs)} pairs of {height} x {width} by torch on {_called(device)}"
    yield measured, "OpenCV, one core", ours / len(pairs), plain / BY_OPENCV, lambda s: f"{1 / s:.2f} pairs/s"
    distances = [
        np.hypot(*np.moveaxis(a - b, -1, 0)).mean() for a, b in zip(found["torch"], found["opencv"], strict=False)
    ]
    distance = statistics.mean(map(float, distances))
    yield f"mean distance to OpenCV {cv2.__version__}", "the limit", distance, LIMIT, lambda x: f"{x:.4f} pixels"


def _called(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "one core"


BENCHMARKS = {"flow": flow}
