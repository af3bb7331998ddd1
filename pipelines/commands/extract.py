"""Extraction by the names of extractors: the function of `featcache extract`, and `featcache.extract`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from featcache.arguments import Pairs, PathLike, manifest_of, numeric, one_of, several, some, worker_count
from featcache.extractors import Extractor, Runtime
from featcache.manifest import Manifest
from featcache.progress import Progress, reporting
from featcache.remote.urls import url_of
from featcache.store.pushing import working
from featcache.windows import Plan
from pipelines.extraction.extract import AUTO, Extraction
from pipelines.extraction.extract import extract as fill
from pipelines.extraction.extractors import load_extractors
from pipelines.settings import Words, as_words


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
    renew: bool = False,
    progress: Progress | bool = False,
) -> Extraction:
    """Run frozen extractors on the clips of a manifest; each fills one store, STORES/MANIFEST/EXTRACTOR.zarr.

    Finished clips are kept; clips that were added at the end of the manifest are appended. A clip that cannot be read
    is recorded as failed, with the reason, and does not stop the others.

    manifest: a manifest, or the path of its file. extractors: one or several names of `featcache list extractors`;
        NAME@VIEW reads another view of the pictures (`featcache.windows.VIEWS`). stores: folder of all stores, or its
        URL.
    windows: windows per clip: segments:T, uniform:T, inner:T or all:SECONDS, or a `Plan`.
    set: parameters of extractors, {"hog.cells": 4} or "hog.cells=4".
    dtype: float16, float32 or auto (float16, or float32 if a value is out of its range).
    weights: {"EXTRACTOR": a file or a name of weights}, or "untrained". weights_seed: of untrained weights.
    device, precision (fp32, bf16, fp16), channels_last, compile (off, on, graphs): of networks.
    workers: decoding threads (default: one per core). retry_failed: try failed clips again.
    renew: extract clips again whose files were replaced. progress: True for a bar, or a callback (clips done, all).

    Returns the stores, notes and time. Raises ConfigError for unknown names and parameters, WeightsError for missing
    weights, ManifestError for a manifest that cannot be read, StoreError for a store of other clips or another recipe.

    >>> featcache.extract("videos/videos.csv", ["hog", "i3d-rgb"], "stores")     # doctest: +SKIP
    """
    clips, names = manifest_of(manifest), several(extractors)
    some("extractors", names)
    numeric("weights_seed", weights_seed)
    one_of("dtype", dtype, ("auto", "float16", "float32"))
    one_of("precision", precision, ("fp32", "bf16", "fp16"))
    one_of("compile", compile, ("off", "on", "graphs"))
    runtime = Runtime("", weights_seed, device, precision, channels_last, compile)
    files = [f"{name}={file}" for name, file in weights.items()] if isinstance(weights, Mapping) else several(weights)
    frozen = load_extractors(names, as_words(set), files, runtime, clips)
    fixed: dict[str, Any] = {
        "plan": windows if isinstance(windows, Plan) else Plan.parse(windows),
        "dtype": dtype,
        "retry_failed": retry_failed,
        "renew": renew,
        "workers": worker_count(workers),
    }
    with reporting(progress, f"extract {', '.join(names)}", "clip") as report:
        return _into(stores, clips, frozen, partial(fill, **fixed, progress=report))


def _into(stores: PathLike, clips: Manifest, frozen: Sequence[Extractor], run: Callable[..., Extraction]) -> Extraction:
    """Run an extraction into a folder of all stores, or into the work folder of its URL, from which it is pushed."""
    with working(stores, clips.name, [extractor.store for extractor in frozen]) as folder:
        outcome = run(clips, frozen, folder)
    if url := url_of(stores):
        outcome.notes.append(f"pushed to {url}/{clips.name}; the local copy is a work folder")
    return outcome
