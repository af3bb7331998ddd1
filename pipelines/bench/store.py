"""Benchmarks of stores: writing, reading, opening, cold loading, gathering, training, streaming."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from google_crc32c import value as crc32c
from numpy.typing import NDArray
from torch import Tensor

from featcache import sums
from featcache.manifest import Clip, Manifest
from featcache.store import DONE, FeatureStore, StoreWriter
from featcache.store.digests import digest_row, file_crc, fixed_sums
from featcache.store.mapped import Mapped
from featcache.store.reader import rows_csv
from heads.batch import Batch
from heads.methods import source_only
from heads.nets import adapter
from pipelines.bench._lines import ROUNDS, Line, alternate, peak_bytes, run_apart
from pipelines.config import Feed, RunConfig
from pipelines.data.draws import Draw, batches, draws
from pipelines.data.gathering import TURNS, Buffers, gather
from pipelines.data.opening import Opened, open_run
from pipelines.data.rows import Rows
from pipelines.data.tiers import Stream, Wanted, open_features
from pipelines.training.runs import build

ROWS, WINDOWS, WIDTH = 2048, 5, 3072  #: shape of a store that is read: 30 KB rows, two shards
WRITTEN = 4  #: times the rows of such a store that are written: 252 MB, eight shards
RUN = 256  #: rows that are written at once
ROW_TARGET = 60e-6  #: seconds of all threads, for a row of 30 KB
SMALL, SMALL_BYTES, SMALL_TARGET = 65_536, 768, 45_000  #: small rows, their bytes, and the rows in a second
BATCH = 128
OPEN_TARGET = 0.020  #: seconds, for 20 shards
STEPS = 100
SPARSE_WIDTH = 1 << 19  #: numbers of a row of the sparse store: 1 MiB


def store_write(folder: Path) -> Iterator[Line]:
    """Writing rows with journal, digests and syncs against writing the same bytes once and syncing them."""
    part = np.random.default_rng(0).standard_normal((ROWS, WINDOWS, WIDTH)).astype(np.float16)
    rows, cpu = np.concatenate([part] * WRITTEN), []

    def ours(n: int) -> None:
        began = time.process_time()
        _write_rows(folder / "w", rows)
        cpu.append(time.process_time() - began)

    def plain(n: int) -> None:
        _write_plain(folder / "p", rows)

    written, bare = alternate(_anew(folder / "w", ours), _anew(folder / "p", plain))
    N, size = len(rows), rows.nbytes
    yield "write a store of 30 KB rows", "write + fsync", written, bare, lambda s: f"{size / s / 1e6:.0f} MB/s"
    used, target = sorted(cpu[1:])[ROUNDS // 2], N * ROW_TARGET
    yield "CPU time of writing a row of 30 KB", "target", used, target, lambda s: f"{s / N * 1e6:.0f} µs"
    small = np.random.default_rng(0).standard_normal((SMALL, 1, SMALL_BYTES // 2)).astype(np.float16)
    seconds, _ = alternate(_anew(folder / "w", lambda n: _write_rows(folder / "w", small)), lambda n: None)
    target = SMALL / SMALL_TARGET
    yield f"write a store of {SMALL_BYTES}-byte rows", "target", seconds, target, lambda s: f"{SMALL / s:,.0f} rows/s"


def _anew(path: Path, write: Callable[[int], None]) -> Callable[[int], None]:
    """A function that first removes what the previous call has written."""

    def call(n: int) -> None:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        write(n)

    return call


def store_read(folder: Path) -> Iterator[Line]:
    """Reading a whole store into memory against reading one raw file of the same bytes."""
    rows = np.random.default_rng(0).standard_normal((ROWS, WINDOWS, WIDTH)).astype(np.float16)
    _write_rows(folder / "r", rows)
    _write_plain(folder / "raw", rows)
    ours, plain = alternate(
        lambda n: FeatureStore.open(folder / "r").features, lambda n: np.fromfile(folder / "raw", np.float16)
    )
    yield "open and read a store", "numpy.fromfile", ours, plain, lambda s: f"{rows.nbytes / s / 1e9:.2f} GB/s"


def store_verify(folder: Path) -> Iterator[Line]:
    """The first read of a store, which compares its blocks with their digests, against the later ones."""
    rows = np.random.default_rng(0).standard_normal((ROWS, WINDOWS, WIDTH)).astype(np.float16)
    for n in range(ROUNDS + 1):
        _write_rows(folder / f"v{n}", rows)

    def train_side(n: int) -> None:
        """Read as training does, in the tier `resident`."""
        store, index = FeatureStore.open(folder / f"v{n}"), list(range(ROWS))
        open_features({"m": store}, [Wanted(ROWS, {"m": "all"})], tier="resident").resident("m", index, "all")

    def rate(s: float) -> str:
        return f"{rows.nbytes / s / 1e9:.2f} GB/s"

    def read(n: int) -> None:
        _ = FeatureStore.open(folder / f"v{n}").features

    ours, plain = alternate(read, read)
    yield "open and read a store for the first time", "again, already verified", ours, plain, rate
    for n in range(ROUNDS + 1):
        _touch_shards(folder / f"v{n}")
    ours, plain = alternate(train_side, train_side)
    yield "load a store for training for the first time", "again, already verified", ours, plain, rate
    ours, plain = alternate(
        lambda n: [file_crc(path) for path in _shards(folder / f"v{n}")],
        lambda n: [np.fromfile(path, np.uint8) for path in _shards(folder / f"v{n}")],
    )
    yield "checksums of its shards", "numpy.fromfile", ours, plain, rate


def _shards(path: Path) -> list[Path]:
    return [file for file in (path / "features" / "c").rglob("*") if file.is_file()]


def _touch_shards(path: Path) -> None:
    """Give the shards another time, so that they are verified again."""
    for shard in _shards(path):
        shard.touch()


def _write_rows(path: Path, rows: NDArray[np.float16]) -> None:
    write_store(path, rows, len(rows), rows.shape[1:], "float16")


def _write_plain(path: Path, rows: NDArray[np.float16]) -> None:
    with path.open("wb") as file:
        file.write(rows.data)
        file.flush()
        os.fsync(file.fileno())


def reading(folder: Path) -> Iterator[Line]:
    """Mapping, gathering, training and streaming."""
    torch.set_num_threads(1)
    yield from _large_store(folder)
    skeletons = np.random.default_rng(0).standard_normal((4096, 1, 2, 25, 3, 50)).astype(np.float32)
    write_store(folder / "skeleton.zarr", skeletons, 4096, skeletons.shape[1:], "float32")
    yield from _gather(folder / "skeleton.zarr", "30 KB skeleton rows, just written")
    yield from _training(folder)
    yield from _streaming(folder)
    yield from _balance()


def _large_store(folder: Path) -> Iterator[Line]:
    """Opening, cold loading and gathering of 20 shards, 630 MB."""
    N, path, raw = 20 * 1024, folder / "large.zarr", folder / "raw"
    part = np.random.default_rng(0).standard_normal((1024, 5, 3072)).astype(np.float16)
    write_store(path, (part[row % len(part)] for row in range(N)), N, part.shape[1:], "float16")
    yield from _gather(path, "30 KB rows, just written")
    Mapped(FeatureStore.open(path)).array.tofile(raw)
    opened = [_seconds(lambda: Mapped(FeatureStore.open(path))) for _ in range(7)]
    yield "open and map 20 shards", "target", sorted(opened)[3], OPEN_TARGET, lambda s: f"{s * 1e3:.1f} ms"

    def cold(read: Callable[[], object]) -> float:
        for file in (raw, *(p for p in (path / "features").rglob("*") if p.is_file())):
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
        return _seconds(read)

    seconds = []
    for _ in range(5):
        plain = cold(lambda: np.fromfile(raw, np.uint8))
        seconds.append((cold(lambda: Mapped(FeatureStore.open(path)).populate(np.arange(N))), plain))
    ours, bare = (sorted(column)[2] for column in zip(*seconds, strict=True))
    size = raw.stat().st_size
    yield "cold: open, map and read 20 shards", "numpy.fromfile", ours, bare, lambda s: f"{size / s / 1e9:.2f} GB/s"
    raw.unlink()
    yield from _gather(path, "30 KB rows, read from disk")


def _gather(path: Path, rows_name: str) -> Iterator[Line]:
    """Batches of random rows, and a first epoch with its mapping, against a bare index_select in memory."""
    store = FeatureStore.open(path)
    N = len(store)
    index = [torch.randperm(N, generator=torch.Generator().manual_seed(k)) for k in range(20)]
    ram = torch.from_numpy(store.read()).clone()  # in memory that torch allocated

    def plain(values: Tensor) -> Callable[[int], None]:
        flat = values.flatten(1)
        out = [torch.empty(BATCH, flat.shape[1], dtype=values.dtype) for _ in range(TURNS)]

        def epoch(n: int) -> None:
            for k, rows in enumerate(index[n].split(BATCH)):
                torch.index_select(flat, 0, rows, out=out[k % TURNS])

        return epoch

    def gathering(x: Tensor, at: Tensor | None) -> Callable[[int], None]:
        """Gather as training does, but keep the stored type: the cast is measured with the training steps."""
        buffers = Buffers()

        def epoch(n: int) -> None:
            for rows in index[n].split(BATCH):
                gather(x, rows if at is None else at[rows], None, "x", buffers.get)
                buffers.turn += 1

        return epoch

    def first_epoch(n: int) -> None:
        mapped = Mapped(store)
        mapped.populate(np.arange(N))
        gathering(mapped.tensor(), torch.arange(N))(n)

    def rate(s: float) -> str:
        return f"{N / s / 1e3:.0f}k rows/s"

    against = "torch.index_select(out=) in memory"
    mapped = Mapped(store)
    mapped.populate(np.arange(N))
    ours, bare = alternate(gathering(mapped.tensor(), torch.arange(N)), plain(ram))
    yield f"gather {rows_name}, mapped", against, ours, bare, rate
    ours, bare = alternate(first_epoch, lambda n: plain(ram)(n))
    yield f"map, populate and gather {rows_name}, first epoch", against, ours, bare, rate
    ram = ram[: 8 * 1024].float()
    N = len(ram)
    index = [torch.randperm(N, generator=torch.Generator().manual_seed(k)) for k in range(20)]
    wanted = [Wanted(N, {"m": "all"})]
    resident, _ = open_features({"m": store}, wanted, tier="resident").resident("m", list(range(N)), "all")
    ours, bare = alternate(gathering(resident, None), plain(ram))
    yield f"gather {rows_name}, resident", against, ours, bare, rate


def _training(folder: Path) -> Iterator[Line]:
    """Steps on three modalities of (5, 1024) float16 against the same steps on one batch that is drawn once."""
    N, modalities = 4096, ("rgb", "flow", "audio")
    rng = np.random.default_rng(0)
    for m in modalities:
        x = rng.standard_normal((N, 5, 1024)).astype(np.float16)
        manifest = write_store(folder / "three" / "bench" / f"{m}.zarr", x, N, (5, 1024), "float16")
    manifest.write(folder / "three" / "bench" / "manifest.csv")

    def config(train: str, net: adapter.Params) -> RunConfig:
        feeds = {m: Feed(m, train=train) for m in modalities}
        return RunConfig(
            "bench", source_only.Params(), net, feeds, source=("d",), test="d", epoch="source", batch=(BATCH, 0)
        )

    mlp, linear = adapter.Params(dim=256, dropout=0.0), adapter.Params(dim=12, act="none", dropout=0.0)
    run = config("all", mlp)
    for tier in ("resident", "mapped"):
        opened = open_run(run, folder / "three", tier=tier)
        batch = Batch(source=next(draws(run, opened.sides)["source"]))
        for prefetch in (False, True):
            ours, bare = alternate(_steps(run, opened, prefetch=prefetch), _steps(run, opened, held=batch))
            measured = f"train 3 MLPs (1024-256-8, batch 128), {tier}{', prefetched' if prefetch else ''}"
            yield measured, "steps on one held batch", ours, bare, lambda s: f"{STEPS / s:.0f} steps/s"
    pooled, whole = (config(draw, linear) for draw in ("mean", "all"))
    means, windows = (_steps(run, open_run(run, folder / "three", tier="resident")) for run in (pooled, whole))
    ours, bare = alternate(means, windows)
    yield "3 linear probes on mean windows", "on all windows", ours, bare, lambda s: f"{STEPS / s:.0f} steps/s"


def _steps(
    config: RunConfig, opened: Opened, *, prefetch: bool = False, held: Batch | None = None
) -> Callable[[int], None]:
    """STEPS training steps: on batches of the run, or always on the batch `held`."""
    sides = draws(config, opened.sides)

    def run(_: int) -> None:
        method = build(config, opened.spec).train()
        optimizer = torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        with batches(sides, STEPS, prefetch=prefetch) as stream:
            for batch in stream if held is None else [held] * STEPS:
                optimizer.zero_grad()
                torch.stack(list(method.losses(batch, 0.0).values())).sum().backward()
                optimizer.step()

    return run


def _streaming(folder: Path) -> Iterator[Line]:
    """Batches of a warm store by block shuffle against random batches from memory, and peak memory of reading."""
    store = FeatureStore.open(folder / "large.zarr")
    mapped, N = Mapped(store), len(store)
    streamed = _table(mapped.tensor(), torch.arange(N), Stream([mapped], store.layout.block_rows))
    in_memory = _table(torch.from_numpy(store.read()), None)

    def epoch(table: Rows) -> Callable[[int], None]:
        draw = Draw(table, BATCH, 0, "source", Buffers())

        def run(_: int) -> None:
            for _ in range(N // BATCH):
                next(draw)

        return run

    ours, bare = alternate(epoch(streamed), epoch(in_memory))
    yield "draw batches, streaming", "from memory", ours, bare, lambda s: f"{N / s / 1e3:.0f}k rows/s"

    gib = 8
    sparse_store(folder / "sparse" / "bench", gib << 10)
    code = (
        "import sys; from pipelines.bench.store import stream_all; stream_all(sys.argv[1], int(sys.argv[2]), 4 << 30)"
    )
    peak = json.loads(run_apart(code, str(folder / "sparse"), "60"))["peak_bytes"]
    measured = f"peak memory while {gib} GiB are swept and drawn from, streaming"
    yield measured, "2 GiB", peak, float(2 << 30), lambda size: f"{size / 2**30:.2f} GiB"


def stream_all(stores: str, drawn: int, memory: int) -> None:
    """Sweep a sparse store and draw batches from it in the tier `streaming`; print the peak memory of this process."""
    torch.set_num_threads(1)
    run = RunConfig(
        "bench", source_only.Params(), adapter.Params(dim=8), {"rgb": Feed("sparse")}, source=("d",), test="d",
        epoch="source", batch=(32, 0),
    )  # fmt: skip
    opened = open_run(run, Path(stores), memory=memory)
    began = time.perf_counter()
    swept = sum(len(side.index) for side in opened.sweep("source"))
    sweep_seconds, draw = time.perf_counter() - began, draws(run, opened.sides)["source"]
    rows = {row for _ in range(drawn) for row in next(draw).index.tolist()}
    print(json.dumps({"tier": opened.features.tier, "swept": swept, "drawn": len(rows), "peak_bytes": peak_bytes(),
                      "sweep_seconds": sweep_seconds, "seconds": time.perf_counter() - began}))  # fmt: skip


def sparse_store(folder: Path, rows: int) -> None:
    """Write a finished store `sparse` of 1 MiB rows whose shards are holes with a valid index: almost no disk."""
    clips = tuple(
        Clip(str(row), "d", "test" if row % 64 == 0 else "train", "v", labels={"label": "x"}) for row in range(rows)
    )
    manifest = Manifest("bench", clips)
    folder.mkdir(parents=True)
    manifest.write(folder / "manifest.csv")
    recipe = {"extractor": "sparse", "modality": "rgb", "weights_sha256": "none", "dtype": "float16"}
    path = folder / "sparse.zarr"
    with StoreWriter.open(path, manifest, recipe, row_shape=(SPARSE_WIDTH,), windows=1, facts={}):
        pass
    if not path.exists():  # no row was written, so the writer may have deleted the store
        raise RuntimeError(f"{path} was not kept")
    layout = FeatureStore.open(path).layout
    (path / "rows.csv").write_bytes(rows_csv(manifest))
    (path / sums.NAME).write_bytes(fixed_sums(path))
    for block in range(layout.blocks):
        n, files = len(layout.span(block)), layout.files(block)
        payload, index = layout.shard_index(n)
        times = layout.padded(np.zeros((n, 1)), "float64")
        content: dict[str, bytes] = {
            "window_start": times, "window_stop": times,
            "length": layout.padded(np.ones(n), "uint32"), "state": layout.padded(np.full(n, DONE), "uint8"),
        }  # fmt: skip
        checksums = {name: crc32c(data) for name, data in content.items()}
        checksums |= {"failures": crc32c(b""), "features": crc32c(bytes(payload) + index)}
        content["digest"] = digest_row(path, block, checksums)
        for name, data in content.items():
            (path / files[name]).parent.mkdir(parents=True, exist_ok=True)
            (path / files[name]).write_bytes(data)
        shard = path / files["features"]
        shard.parent.mkdir(parents=True)
        with shard.open("wb") as file:
            file.truncate(payload)
            file.seek(payload)
            file.write(index)


def _balance() -> Iterator[Line]:
    """Class balance of batches: block shuffle against a true shuffle, for clips in two orders."""
    N, classes = 50_000, 50
    for order, y in (
        ("in random order", torch.randperm(N, generator=torch.Generator().manual_seed(0)) % classes),
        ("sorted by class", torch.arange(N) * classes // N),
    ):
        deviations: list[float] = []
        for stream in (Stream([], 1024), None):
            draw = Draw(_table(torch.zeros(N, 1, 1), torch.arange(N), stream), BATCH, 0, "source")
            counts = torch.stack(
                [torch.bincount(y[next(draw).index], minlength=classes) for _ in range(2 * N // BATCH)]
            )
            deviations.append(float((counts - BATCH / classes).abs().mean()))
        measured = f"class balance of batches by block shuffle, clips {order}"
        yield measured, "a true shuffle", deviations[0], deviations[1], lambda off: f"{off:.2f} clips off per class"


def _table(x: Tensor, at: Tensor | None, stream: Stream | None = None) -> Rows:
    """A table of one modality `m` in which no row is absent."""
    N = len(x)
    present = {"m": torch.ones(N, x.shape[1], dtype=torch.bool)}
    return Rows(
        list(range(N)), {"m": x}, present, {}, torch.zeros(N, dtype=torch.int64), {"m": Feed("m")}, at, None, stream
    )


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def write_store(
    path: Path,
    rows: "Iterator[NDArray[np.floating]] | NDArray[np.floating]",
    N: int,
    shape: tuple[int, ...],
    dtype: str,
) -> Manifest:
    """Write a store of N rows (T, *row_shape) of domain d, a quarter of them test, 8 labels; return its manifest."""
    clips = tuple(
        Clip(str(row), "d", "test" if row % 4 == 0 else "train", "v", labels={"label": str(row % 8)})
        for row in range(N)
    )
    manifest, times = Manifest("bench", clips, path.parent), np.arange(float(shape[0]))
    recipe = {"extractor": path.stem, "modality": "rgb", "weights_sha256": "none", "dtype": dtype}
    with StoreWriter.open(path, manifest, recipe, row_shape=shape[1:], windows=shape[0], facts={}) as writer:
        for begin in range(0, N, RUN):
            run = range(begin, min(N, begin + RUN))
            whole = rows[begin : run.stop] if isinstance(rows, np.ndarray) else [*islice(rows, len(run))]
            start = np.broadcast_to(times, (len(run), len(times)))
            writer.done_many(run, whole, start, start + 1)
    return manifest


BENCHMARKS = {"store_write": store_write, "store_read": store_read, "store_verify": store_verify, "reading": reading}
