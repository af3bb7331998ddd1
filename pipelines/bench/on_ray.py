"""Benchmarks of extraction on Ray: the process that keeps the features, and the pace of two workers."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from featcache.builders import kitchens
from featcache.cluster import connected
from featcache.errors import ConfigError
from featcache.machine import cores
from featcache.manifest import Clip, Manifest
from featcache.windows import Plan
from pipelines.bench._lines import Line, run_apart
from pipelines.extraction.assembly import Part
from pipelines.extraction.engine import Job
from pipelines.extraction.extract import extract
from pipelines.extraction.extractors import order_of
from pipelines.extraction.on_ray import OnRay, Placed
from pipelines.extraction.worker import Computed, Task

CLIPS, WINDOWS = 100_000, 5  #: clips that are not there, each of WINDOWS rows of 1,024 numbers
GROWTH = 100e6  #: bytes by which the memory of the process that keeps them may grow
PACE = 5000.0  #: clips a second that it should keep
NAMES = ("hog", "logmel")


class _Zeros(Placed):
    """A worker that returns zeros at once."""

    def compute(self, jobs: Sequence[Job]) -> Computed:
        """Return zeros in the shape of I3D's rows."""
        times = np.zeros((2, WINDOWS))
        return Computed(
            [Part(row, "i3d-rgb", np.zeros((WINDOWS, 1024), np.float32), times) for row, _ in jobs], {}, 0.0
        )


class _OnZeros(OnRay):
    worker = _Zeros


def keep_zeros(folder: Path, count: int) -> None:
    """Keep the rows of workers that return zeros; print the seconds, CPU seconds and growth of memory."""
    clips = tuple(Clip(str(row), "d", "train", "no.mp4") for row in range(count))
    manifest, plan, order = (
        Manifest("zeros", clips, folder),
        Plan("segments", WINDOWS),
        order_of(["i3d-rgb"], (), ["untrained"]),
    )
    extractors, seen = order.load(), list[tuple[float, float, int]]()

    def note(done: int, total: int) -> None:
        if done in (count // 20, total):
            seen.append((time.perf_counter(), time.process_time(), _resident()))

    with (
        connected(None, cores()) as ray,
        _OnZeros(ray, Task.here(order, manifest, plan), extractors, workers=2) as engine,
    ):
        extract(manifest, extractors, folder, plan=plan, engines=lambda *_: engine, progress=note)
    (began, cpu, before), (ended, last, after) = seen[0], seen[-1]
    print(
        json.dumps({"seconds": ended - began, "cpu": last - cpu, "rows": count - count // 20, "growth": after - before})
    )


def _resident() -> int:
    """Memory of this process now, shared memory included."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def keeping(folder: Path) -> Iterator[Line]:
    """The process that keeps the features: its pace and memory with workers that return zeros at once."""
    code = "import sys; from pipelines.bench.on_ray import *; keep_zeros(Path(sys.argv[1]), int(sys.argv[2]))"
    with tempfile.TemporaryDirectory(dir=folder) as stores:
        found = json.loads(run_apart(code, stores, str(CLIPS)))
    rows = found["rows"]
    name = f"Ray: clips of {WINDOWS} x 1,024 kept by one process while two workers return zeros"
    yield name, f"{PACE:,.0f} clips/s", found["seconds"] / rows, 1 / PACE, lambda s: f"{1 / s:,.0f} clips/s"
    yield f"{name}, CPU", f"{PACE:,.0f} clips/s", found["cpu"] / rows, 1 / PACE, lambda s: f"{s * 1e6:.0f} us/clip"
    growth = max(1.0, float(found["growth"]))
    yield f"Ray: growth of that process over {rows:,} clips", "100 MB", growth, GROWTH, lambda n: f"{n / 1e6:.0f} MB"


def pace(folder: Path) -> Iterator[Line]:
    """Two workers on a cluster of this machine against one process with two decoding threads, start-up excluded."""
    manifest = kitchens.build(folder / "videos")
    order, plan = order_of(NAMES), Plan()
    extractors, seconds = order.load(), dict[str, list[float]](ours=[], plain=[])
    with (
        connected(None, 2) as ray,
        OnRay(ray, Task.here(order, manifest, plan), extractors, workers=2) as engine,
    ):
        engine.wait(2)
        for _ in range(4):
            for kind, engines in (("ours", lambda *_: engine), ("plain", None)):
                began = time.perf_counter()
                with tempfile.TemporaryDirectory(dir=folder) as stores:
                    extract(manifest, extractors, Path(stores), plan=plan, workers=2, engines=engines)
                seconds[kind].append(time.perf_counter() - began)
    ours, plain = (sorted(times[1:])[1] for times in seconds.values())
    name = f"Ray: extract {' + '.join(NAMES)}, {len(manifest)} clips, two workers"
    yield name, "one process, two decoding threads", ours, plain, lambda s: f"{len(manifest) / s:.1f} clips/s"


def on_ray(folder: Path) -> Iterator[Line]:
    """Both, where Ray is installed."""
    try:
        yield from keeping(folder)
        yield from pace(folder)
    except ConfigError as error:
        print(f"left out: {error}", file=sys.stderr)


BENCHMARKS = {"ray": on_ray}
