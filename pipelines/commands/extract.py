"""Extraction by the names of extractors: the function of `featcache extract`, and `featcache.extract`."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from featcache.arguments import Pairs, PathLike, manifest_of, numeric, one_of, several, some, worker_count
from featcache.cluster import check_engine, connected, gpus_of, room_for_one
from featcache.errors import ArgumentsError, StoreError
from featcache.extractors import Extractor, Runtime, store_of
from featcache.machine import cores
from featcache.manifest import Manifest
from featcache.progress import Progress, reporting
from featcache.remote.cache import NothingThereError
from featcache.remote.urls import url_of
from featcache.store.places import local
from featcache.store.pushing import working
from featcache.windows import Plan
from pipelines.extraction.devices import Devices
from pipelines.extraction.engine import Engines
from pipelines.extraction.extract import AUTO, Extraction
from pipelines.extraction.extract import extract as fill
from pipelines.extraction.extractors import Order, order_of
from pipelines.extraction.merging import merge as merge_parts
from pipelines.extraction.shards import PARTS, Shard, part_of, stores_of_parts
from pipelines.settings import Words, as_words

PUSHED = "pushed to {}; the local copy is a work folder"
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
    engine: str = "local",
    address: str | None = None,
    gpus: float | None = None,
    retry_failed: bool = False,
    renew: bool = False,
    shards: str | None = None,
    progress: Progress | bool = False,
) -> Extraction:
    """Run frozen extractors on the clips of a manifest; each fills one store, STORES/MANIFEST/EXTRACTOR.zarr.

    Finished clips are kept; clips that were added at the end of the manifest are appended. A clip that cannot be read
    is recorded as failed, with the reason, and does not stop the others.

    manifest: a manifest, or the path of its file. extractors: one or several names of `featcache list extractors`;
        NAME@VIEW is another view of the pictures (`featcache.windows.VIEWS`). stores: folder of all stores, or its URL.
    windows: windows per clip: segments:T, uniform:T, inner:T or all:SECONDS, or a `Plan`.
    set: parameters, {"hog.cells": 4} or "hog.cells=4". dtype: float16, float32 or auto (float32 if a value needs it).
    weights: {"EXTRACTOR": a file or a name of weights}, or "untrained" for random weights. weights_seed: their seed.
    device: of networks; several, as "cuda:0,cuda:1", have a worker process each.
    precision (fp32, bf16, fp16), channels_last, compile (off, on, graphs): of networks.
    workers: decoding threads (default: one per core), or with engine="ray" processes (default: all that have room).
    engine: "local" computes in this process, "ray" on a Ray cluster, whose nodes have the media under the same paths;
        this process keeps the features. address: HOST:PORT of its head, or "auto" for that of RAY_ADDRESS (default: a
        cluster of this machine). gpus: GPUs of each process, or a share of one (default: 1 with device "cuda").
    retry_failed: try failed clips again. renew: extract clips again whose files were replaced. shards: "i/n" for part i
        of n of the clips, from 0 on, see `merge`. progress: True for a bar, or a callback (clips done, all).

    Returns the stores, notes and time. Raises ConfigError for unknown names and parameters, WeightsError for missing
    weights, ManifestError for a manifest that cannot be read, StoreError for a store of other clips or another recipe.

    >>> featcache.extract("videos/videos.csv", ["hog", "i3d-rgb"], "stores")     # doctest: +SKIP
    """
    for option, value in {"dtype": dtype, "precision": precision, "compile": compile}.items():
        one_of(option, value, CHOICES[option])
    check_engine(engine, device, address, gpus)
    names, devices, shard = several(extractors), _devices(device), None if shards is None else Shard.parse(shards)
    some("extractors", names)
    numeric("weights_seed", weights_seed)
    clips, plan = manifest_of(manifest), windows if isinstance(windows, Plan) else Plan.parse(windows)
    runtime = Runtime("", weights_seed, devices[0], precision, channels_last, compile)
    order = order_of(names, as_words(set), _chosen(weights), runtime, clips)
    place = partial(_loaded, engine=engine, devices=devices, address=address, gpus=gpus, workers=workers)
    options = partial(fill, retry_failed=retry_failed, renew=renew, workers=worker_count(workers))
    with reporting(progress, f"extract {', '.join(names)}", "clip") as report:
        return _extracted(clips, order, plan, stores, shard, dtype, place, partial(options, progress=report))


#: the extractors, where they compute (None for this process), and their facts there
Loaded = tuple[list[Extractor], Engines | None, Mapping[str, Mapping[str, str]]]


def _extracted(
    clips: Manifest,
    order: Order,
    plan: Plan,
    stores: PathLike,
    shard: Shard | None,
    dtype: str,
    place: Callable[[Order, Manifest, Plan], AbstractContextManager[Loaded]],
    run: Callable[..., Extraction],
) -> Extraction:
    """Extract the clips of a shard, or all clips. place: yields where they are computed. run: fills the stores."""
    ours = shard.clips(clips) if shard else clips
    if not ours.clips:
        return Extraction(notes=[f"part {shard} has none of the clips"])
    with place(order, ours, plan) as (frozen, engines, facts):
        url, home = url_of(stores), Path(clips.name)
        place_of_part = str(shard.folder(home) if shard else home)
        with working(stores, place_of_part, [extractor.store for extractor in frozen]) as folder:
            part = part_of(clips, frozen, folder / home, shard, plan, dtype, url and f"{url}/{home}")
            options = {"dtype": part.dtype, "engines": engines, "facts": facts, "folder": part.folder}
            outcome = run(part.clips, frozen, folder, plan=plan, **options)
    if url:
        outcome.notes.append(PUSHED.format(f"{url}/{place_of_part}"))
    return outcome


@contextmanager
def _loaded(
    order: Order,
    clips: Manifest,
    plan: Plan,
    *,
    engine: str,
    devices: Sequence[str],
    address: str | None,
    gpus: float | None,
    workers: int | None,
) -> Iterator[Loaded]:
    """Yield the extractors, where they compute, and their facts there."""
    runtime, count = order.runtime, worker_count(workers)
    if engine == "local":
        several_devices = partial(Devices, order=order, devices=devices, workers=count)
        yield order.load(), several_devices if len(devices) > 1 else None, {}
        return
    from pipelines.extraction.on_ray import OnRay
    from pipelines.extraction.worker import Task

    share = gpus_of(gpus, runtime.device)
    here = replace(order, runtime=replace(runtime, device="cpu", compile="off")).load()  # only their recipes are used
    with connected(address, max(count, cores())) as ray:
        most = room_for_one(ray, share)
        actors = count if workers else most
        with OnRay(ray, Task.here(order, clips, plan), here, workers=actors, gpus=share) as on_ray:
            yield here, lambda *_: on_ray, on_ray.facts


def _devices(text: str) -> list[str]:
    """Return the devices of "cuda:0,cuda:1"; ArgumentsError for one of another form, and for one that comes twice."""
    devices = text.split(",")
    for device in devices:
        if not re.fullmatch(r"cpu|mps|(cuda|xpu)(:(0|[1-9]\d{0,3}))?", device, re.ASCII):
            raise ArgumentsError(
                f"--device {text}: no device {device!r}; write cpu, cuda, cuda:N, or cuda:0,cuda:1,..."
            )
    twice = [device for device in devices if devices.count(device) > 1]
    if twice or (len(devices) > 1 and {"cuda", "cuda:0"} <= {*devices}):
        raise ArgumentsError(f"--device {text}: {(twice or ['cuda:0'])[0]} comes twice; name each device once")
    return devices


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
    stores: folder of all stores, or its URL. progress: True for a bar, or a callback (rows done, all).

    Returns the stores and notes. Raises StoreError if parts are missing, unfinished, damaged, or do not fit each other
    or the manifest; nothing is written then.
    """
    clips, names = manifest_of(manifest), [store_of(name) for name in several(extractors)]
    url = url_of(stores)
    there = _parts_below(f"{url}/{clips.name}") if url else None
    with (
        working(stores, clips.name, names or (stores_of_parts(there) if there else [])) as folder,
        reporting(progress, f"merge {', '.join(names)}".strip(), "clip") as report,
    ):
        outcome = merge_parts(clips, names, folder, report, there)
    if url:
        outcome.notes.append(PUSHED.format(f"{url}/{clips.name}"))
    return outcome


def _parts_below(url: str) -> Path:
    """Fetch the parts below a URL, and return the folder that has them."""
    try:
        return local(f"{url}/{PARTS}").parent
    except NothingThereError:
        raise StoreError(f"{url} has no parts; `featcache extract` with --shards i/n makes them") from None
