"""Extraction by the names of extractors: the function of `featcache extract`, and `featcache.extract`."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from featcache.arguments import Pairs, PathLike, manifest_of, one_of, several, some, worker_count
from featcache.cluster import ENGINES, check_engine, connected, gpus_of, room
from featcache.extractors import Extractor, Runtime
from featcache.machine import cores
from featcache.manifest import Manifest
from featcache.progress import Progress, reporting
from featcache.windows import Plan
from pipelines.extraction.engine import Engines
from pipelines.extraction.extract import AUTO, Extraction
from pipelines.extraction.extract import extract as fill
from pipelines.extraction.extractors import Order, order_of
from pipelines.settings import Words, as_words

CHOICES = {
    "dtype": ("auto", "float16", "float32"),
    "precision": ("fp32", "bf16", "fp16"),
    "compile": ("off", "on", "graphs"),
    "engine": ENGINES,
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
    engine: str = "local",
    address: str | None = None,
    gpus: float | None = None,
    retry_failed: bool = False,
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
    weights: {"EXTRACTOR": a file or a name of weights}, or "untrained" for random weights. weights_seed: their seed.
    device, precision (fp32, bf16, fp16), channels_last, compile (off, on, graphs): of networks.
    workers: decoding threads (default: one per core), or with engine="ray" processes (default: all that have room).
    engine: "local" computes in this process, "ray" on a Ray cluster, whose nodes have the media under the same paths;
        this process keeps the features. address: HOST:PORT of its head, or "auto" for that of RAY_ADDRESS (default: a
        cluster of this machine). gpus: GPUs of each process, or a share of one (default: 1 with device "cuda").
    retry_failed: try failed clips again. progress: True for a bar, or a callback (clips done, all).

    Returns the stores, notes and time. Raises ConfigError for unknown names and parameters, WeightsError for weights
    that are not available, ManifestError for a manifest that cannot be read, and StoreError if a store was made from
    other clips or by another recipe.

    >>> featcache.extract("videos/videos.csv", ["hog", "i3d-rgb"], "stores")     # doctest: +SKIP
    """
    clips, names = manifest_of(manifest), several(extractors)
    some("extractors", names)
    for option, value in {"dtype": dtype, "precision": precision, "compile": compile, "engine": engine}.items():
        one_of(option, value, CHOICES[option])
    check_engine(engine, device, address, gpus)
    plan = windows if isinstance(windows, Plan) else Plan.parse(windows)
    runtime = Runtime("", weights_seed, device, precision, channels_last, compile)
    files = [f"{name}={file}" for name, file in weights.items()] if isinstance(weights, Mapping) else several(weights)
    order = order_of(names, as_words(set), files, runtime, clips)
    place = _loaded(order, clips, plan, engine, address, gpus, workers)
    options = partial(fill, dtype=dtype, retry_failed=retry_failed, workers=worker_count(workers))
    with reporting(progress, f"extract {', '.join(names)}", "clip") as report, place as (frozen, engines, facts):
        return options(clips, frozen, Path(stores), plan=plan, engines=engines, facts=facts, progress=report)


@contextmanager
def _loaded(
    order: Order,
    clips: Manifest,
    plan: Plan,
    engine: str,
    address: str | None,
    gpus: float | None,
    workers: int | None,
) -> Iterator[tuple[list[Extractor], Engines | None, Mapping[str, Mapping[str, str]]]]:
    """Yield the extractors, and where they compute: the engines, None for this process, and the facts of extractors."""
    if engine == "local":
        yield order.load(), None, {}
        return
    from pipelines.extraction.on_ray import OnRay
    from pipelines.extraction.worker import Task

    runtime, count = order.runtime, worker_count(workers)
    share = gpus_of(gpus, runtime.device)
    here = replace(order, runtime=replace(runtime, device="cpu", compile="off")).load()  # only their recipes are used
    with connected(address, max(count, cores())) as ray:
        actors = count if workers else max(1, room(ray, share))
        with OnRay(ray, Task.here(order, clips, plan), here, workers=actors, gpus=share) as on_ray:
            yield here, lambda *_: on_ray, on_ray.facts
