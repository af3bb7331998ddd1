"""`make bench`: what featcache's parts cost, as ratios inside one run against the plainest way to do the same.

Machines are noisy and differ, so a line is a ratio of medians, measured alternately; absolute figures stand behind it
to give an idea only. docs/benchmarks.md keeps the figures of named machines. Some of the benchmarks run with
`python -m pipelines.bench NAME ...`, where NAME is a function below.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.builders import kitchens
from featcache.manifest import Manifest
from featcache.media import read_clip
from featcache.store import FeatureStore
from featcache.windows import Plan
from pipelines.bench import clustering, extraction, retrieval, store, training
from pipelines.bench.store import Line, write_store
from pipelines.extraction.extract import extract
from pipelines.extraction.extractors import load_extractors

ROUNDS = 5
ROWS, WINDOWS, WIDTH = 2048, 5, 3072  #: 30 KB rows, two shards
DESCRIPTORS = ("hog", "hof", "logmel")


def main(names: Sequence[str] = ()) -> None:
    """Run the benchmarks of these names, or every one, and print a Markdown table."""
    benchmarks = {
        "store_write": store_write,
        "store_read": store_read,
        "reading": reading,
        "extraction": extracting,
        "networks": networks,
        "options": options,
        "long_videos": long_videos,
        "training": training_heads,
        "retrieval": ranking,
        "clustering": clusters,
    }
    if unknown := [name for name in names if name not in benchmarks]:
        raise SystemExit(f"no benchmark {unknown[0]!r}; choose from {', '.join(benchmarks)}")
    print("| what | against | ratio (1.00 = as fast) | figures |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name in names or benchmarks:
            for what, against, ours, plain, unit in benchmarks[name](Path(folder)):
                ratio = plain / ours
                print(f"| {what} | {against} | {ratio:.2f} | {unit(ours)}, plain {unit(plain)} |", flush=True)


def store_write(folder: Path) -> Iterator[Line]:
    """Writing rows with journal, digests and syncs against writing the same bytes once and syncing them."""
    rows = np.random.default_rng(0).standard_normal((ROWS, WINDOWS, WIDTH)).astype(np.float16)
    ours, plain = alternate(
        lambda n: _write_store(folder / f"w{n}", rows), lambda n: _write_plain(folder / f"p{n}", rows)
    )
    yield "write a store of 30 KB rows", "write + fsync", ours, plain, lambda s: f"{ROWS / s:,.0f} rows/s"


def store_read(folder: Path) -> Iterator[Line]:
    """Reading a whole store into memory against reading one raw file of the same bytes."""
    rows = np.random.default_rng(0).standard_normal((ROWS, WINDOWS, WIDTH)).astype(np.float16)
    _write_store(folder / "r", rows)
    _write_plain(folder / "raw", rows)
    ours, plain = alternate(
        lambda n: FeatureStore.open(folder / "r").features, lambda n: np.fromfile(folder / "raw", np.float16)
    )
    yield "open and read a store", "numpy.fromfile", ours, plain, lambda s: f"{rows.nbytes / s / 1e9:.2f} GB/s"


def reading(folder: Path) -> Iterator[Line]:
    """Mapping, gathering, training and streaming."""
    yield from store.reading(folder, alternate)


def extracting(folder: Path) -> Iterator[Line]:
    """End-to-end extraction against decoding and preparing alone, on all cores."""
    from concurrent.futures import ThreadPoolExecutor

    manifest = kitchens.build(folder / "videos", every=4)
    extractors, workers = load_extractors(DESCRIPTORS), os.cpu_count() or 1

    def decode_only(n: int) -> None:
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(lambda clip: read_clip(manifest.path(clip), clip, Plan(), extractors), manifest):
                pass

    ours, plain = alternate(
        lambda n: extract(manifest, extractors, folder / f"s{n}", plan=Plan(), workers=workers), decode_only, rounds=3
    )
    yield (
        f"extract {' + '.join(DESCRIPTORS)}",
        "decode + prepare",
        ours,
        plain,
        lambda s: f"{len(manifest) / s:.1f} clips/s",
    )


def networks(folder: Path) -> Iterator[Line]:
    """End-to-end extraction with networks."""
    yield from extraction.pace(folder, alternate)


def options(folder: Path) -> Iterator[Line]:
    """Memory order, precision and compilation of networks."""
    yield from extraction.options(folder, alternate)


def long_videos(folder: Path) -> Iterator[Line]:
    """Memory and seeking."""
    yield from extraction.memory(folder)
    yield from extraction.seeking(folder, alternate)


def training_heads(folder: Path) -> Iterator[Line]:
    """The training loop, and a paper's table."""
    yield from training.heads(folder / "heads_stores", alternate)


def ranking(folder: Path) -> Iterator[Line]:
    """Ranks of captions and clips: their pace and their memory."""
    yield from retrieval.pace(alternate)
    yield from retrieval.memory()


def clusters(folder: Path) -> Iterator[Line]:
    """Pseudo-labels by optimal transport, and graph convolutions."""
    yield from clustering.graph(alternate)
    yield from clustering.sinkhorn(alternate)


def alternate(
    ours: Callable[[int], object], plain: Callable[[int], object], rounds: int = ROUNDS
) -> tuple[float, float]:
    """Median seconds of both, run in turns after a warm-up, so that a slow moment of the machine hits both."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for run, times in zip((ours, plain), seconds, strict=True):
            began = time.perf_counter()
            run(number)
            times.append(time.perf_counter() - began)
    return statistics.median(seconds[0][1:]), statistics.median(seconds[1][1:])


def _write_store(path: Path, rows: NDArray[np.float16]) -> Manifest:
    return write_store(path, rows, len(rows), rows.shape[1:], "float16")


def _write_plain(path: Path, rows: NDArray[np.float16]) -> None:
    with path.open("wb") as file:
        file.write(rows.data)
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    main(sys.argv[1:])
