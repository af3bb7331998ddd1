"""Extraction by the names of extractors: the function of `featcache extract`, and `featcache.extract`."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from featcache.arguments import Pairs, PathLike, manifest_of, one_of, several, some, worker_count
from featcache.extractors import Runtime, store_of
from featcache.manifest import Manifest
from featcache.progress import Progress, reporting
from featcache.windows import Plan
from pipelines.extraction.devices import Devices
from pipelines.extraction.extract import AUTO, Extraction
from pipelines.extraction.extract import extract as fill
from pipelines.extraction.extractors import load_extractors, order_of
from pipelines.extraction.merging import merge as merge_parts
from pipelines.extraction.shards import Shard, part_of
from pipelines.settings import Words, as_words

CHOICES = {
    "dtype": ("auto", "float16", "float32"),
    "precision": ("fp32", "bf16", "fp16"),
    "compile": ("off", "on", "graphs"),
}


def extract(
    manifest: Manifest | PathLike,
    extractors: str | Iterable[str],
    stores: PathLike = "stores",
    *,
    windows: str | Plan = "segments:5",
    set: Words = (),
    dtype: str = AUTO,
    weights: Pairs = (),
    weights_seed: int = 0,
    device: str = "cpu",
    precision: str = "fp32",
    channels_last: bool = True,
    compile: str = "off",
    workers: int | None = None,
    retry_failed: bool = False,
    shards: str = "",
    progress: Progress | bool = False,
) -> Extraction:
    """Run frozen extractors on the clips of a manifest; each fills one store, STORES/MANIFEST/EXTRACTOR.zarr.

    Finished clips are kept, and clips that were added at the end of the manifest are appended. A clip that cannot be
    read is recorded as failed, with the reason, and does not stop the others.

    manifest: a manifest, or the path of its file. extractors: one or several names of `featcache list extractors`;
        NAME@VIEW reads another view of the pictures (`featcache.windows.VIEWS`). stores: folder of all stores.
    windows: windows per clip: segments:T, uniform:T, inner:T or all:SECONDS, or a `Plan`.
    set: parameters of extractors, {"hog.cells": 4} or "hog.cells=4".
    dtype: float16, float32 or auto (float16, or float32 if a value is out of its range).
    weights: {"EXTRACTOR": a file or a name of weights}, or "untrained" for random weights.
    weights_seed: seed of random weights.
    device: of networks; several, as "cuda:0,cuda:1", have a worker process each.
    precision (fp32, bf16, fp16), channels_last, compile (off, on, graphs): of networks.
    workers: decoding threads (default: one per core). retry_failed: try failed clips again.
    shards: "i/n" to extract only part i of n of the clips, 0 <= i < n, for `merge`; every job has a part of its own.
    progress: True for a bar, or a callback (clips done, all).

    Returns the stores, notes and time. Raises ConfigError for unknown names and parameters, WeightsError for weights
    that are not available, ManifestError for a manifest that cannot be read, and StoreError if a store was made from
    other clips or by another recipe.

    >>> featcache.extract("videos/videos.csv", ["hog", "i3d-rgb"], "stores")     # doctest: +SKIP
    """
    clips, names = manifest_of(manifest), several(extractors)
    some("extractors", names)
    for option, value in {"dtype": dtype, "precision": precision, "compile": compile}.items():
        one_of(option, value, CHOICES[option])
    plan = windows if isinstance(windows, Plan) else Plan.parse(windows)
    shard, devices, threads = Shard.parse(shards) if shards else None, device.split(","), worker_count(workers)
    runtime = Runtime("", weights_seed, devices[0], precision, channels_last, compile)
    words = names, as_words(set), _chosen(weights), runtime, clips
    frozen, order = load_extractors(*words), order_of(*words)
    engines = partial(Devices, order=order, devices=devices, workers=threads) if devices[1:] else None
    part = part_of(clips, frozen, Path(stores) / clips.name, shard, plan, dtype)
    run = partial(fill, plan=plan, dtype=part.dtype, retry_failed=retry_failed, workers=threads, engines=engines)
    with reporting(progress, f"extract {', '.join(names)}", "clip") as report:
        return run(part.clips, frozen, Path(stores), progress=report, folder=part.folder)


def _chosen(weights: Pairs) -> Sequence[str]:
    """Return weights as words "EXTRACTOR=FILE"."""
    return [f"{name}={file}" for name, file in weights.items()] if isinstance(weights, Mapping) else several(weights)


def merge(
    manifest: Manifest | PathLike,
    extractors: str | Iterable[str] = (),
    stores: PathLike = "stores",
    *,
    progress: Progress | bool = False,
) -> Extraction:
    """Make whole stores of the parts that `extract` with `shards` has made, as if one process had extracted them.

    The parts are in STORES/MANIFEST/.shards, and stay there: when clips are appended to the manifest, only these are
    extracted. A repeated merge does what is left.

    manifest: a manifest, or the path of its file. extractors: one or several names (default: all that have parts).
    stores: folder of all stores. progress: True for a bar, or a callback (rows done, all).

    Returns the stores and notes. Raises StoreError if parts are missing, unfinished, damaged, or do not fit each other
    or the manifest; nothing is written then.
    """
    clips, names = manifest_of(manifest), [store_of(name) for name in several(extractors)]
    with reporting(progress, f"merge {', '.join(names)}".strip(), "clip") as report:
        return merge_parts(clips, names, Path(stores), report)
