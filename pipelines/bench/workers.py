"""Benchmark of worker processes: the memory that several of them take on one store."""

import sys
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np
import torch

from featcache.parallel import import_first, in_parallel
from heads.methods import source_only
from heads.nets import adapter
from pipelines.bench._lines import Line, run_apart
from pipelines.bench.store import write_store
from pipelines.config import Feed, RunConfig
from pipelines.data.opening import open_run
from pipelines.data.sharing import Place, join, meeting_place
from pipelines.training.runs import build
from pipelines.training.train import fit

WIDTH, WINDOWS = 1024, 25
WORKERS = 8
PATIENCE = 600  #: most seconds that a worker waits for the others


def workers(folder: Path) -> Iterator[Line]:
    """Eight workers that train on all windows of one store, against one, with all that Python and torch take."""
    write(folder / "workers", 1 << 30)
    many, one = (memory_of(folder / "workers", count) for count in (WORKERS, 1))
    text = lambda size: f"{size / 2**30:.2f} GiB"  # noqa: E731
    yield f"memory of {WORKERS} workers on a store of 1 GiB in float32", "of one worker", many, one, text


def write(stores: Path, size: int) -> None:
    """Write a store whose features take so many bytes in float32."""
    row = np.ones((WINDOWS, WIDTH), np.float16)
    N = size // (4 * row.size)
    (stores / "bench").mkdir(parents=True)
    manifest = write_store(stores / "bench" / "rgb.zarr", repeat(row, N), N, row.shape, "float16")
    manifest.write(stores / "bench" / "manifest.csv")


def memory_of(stores: Path, count: int) -> int:
    """Bytes that so many workers have in memory together; shared ones count once."""
    return int(run_apart("from pipelines.bench.workers import print_memory; print_memory()", str(stores), str(count)))


def print_memory() -> None:
    """Print the memory of the workers that the arguments of this process describe."""
    stores, count = Path(sys.argv[1]), int(sys.argv[2])
    import_first("torch._dynamo", "zarr")  # as the workers that train a table do
    with meeting_place(count, 1) as place:
        one = partial(trained, stores=stores, count=count, place=place)
        sizes = [size for _, size in in_parallel(one, deque(range(count)), count)]
        print(sum(own for own, _ in sizes) + max(files for _, files in sizes))


def trained(number: int, stores: Path, count: int, place: Place | None) -> tuple[int, int]:
    """Train a few steps, and return the `memory` of this process while all workers have the features."""
    torch.set_num_threads(1)
    join(place)
    feed = Feed("rgb", train="random:3", test="mean")
    config = RunConfig(
        "bench", source_only.Params(), adapter.Params(dim=64), {"rgb": feed}, source=("d",), test="d",
        steps=5, epoch="source", batch=(64, 0), seed=number,
    )  # fmt: skip
    opened = open_run(config, stores, workers=count)
    if opened.features.tier != "resident":
        raise RuntimeError(f"the tier is {opened.features.tier}, {opened.features.why}")
    _ = fit(build(config, opened.spec), config, opened, opened.test())
    _wait_for_all(stores / f"{count}-trained", number, count)
    size = memory()
    _wait_for_all(stores / f"{count}-measured", number, count)
    return size


def memory() -> tuple[int, int]:
    """Memory of this process in bytes, and that of the files that it maps, such as libraries.

    Of memory that several processes share, the first counts their part (PSS of Linux). The second is whole: its share
    would depend on other programs that use the same libraries.
    """
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8")
    files = Path("/proc/self/status").read_text(encoding="utf-8").split("\nRssFile:")[1].split()[0]
    own = (rollup.split(f"\n{name}:")[1].split()[0] for name in ("Pss_Anon", "Pss_Shmem"))
    return sum(map(int, own)) << 10, int(files) << 10


def _wait_for_all(folder: Path, number: int, count: int) -> None:
    """Wait until all workers have called this."""
    folder.mkdir(exist_ok=True)
    (folder / str(number)).touch()
    began = time.monotonic()
    while len(list(folder.iterdir())) < count:
        if time.monotonic() - began > PATIENCE:
            raise RuntimeError(f"a worker is missing in {folder}")
        time.sleep(0.05)


BENCHMARKS = {"workers": workers}
