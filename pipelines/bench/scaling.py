"""Benchmark of scaling: the simulation of extraction against real runs, and its forecast for machines of other sizes.

After the lines of the comparison it prints Markdown tables: what was measured, what is assumed, hours, gigabytes and
money of up to a million clips, and the bound of each extractor. Change `Gpu`, `Prices` and `Plant` for your own.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from featcache.cluster import QUIET, connected
from featcache.cluster import needed as ray_needed
from featcache.errors import ConfigError
from featcache.extractors import UNTRAINED
from featcache.machine import cores
from featcache.manifest import Manifest
from pipelines.bench._lines import Line
from pipelines.bench.extraction import THREADS
from pipelines.bench.rates import (
    PLAN,
    RATE,
    SECONDS,
    SIZE,
    Gpu,
    Rates,
    keeping_on_ray,
    keeping_seconds,
    measurable,
    pair_seconds,
    rates_of,
    written,
)
from pipelines.bench.simulation import Costs, Outcome, Site, simulate
from pipelines.extraction.engine import Engines
from pipelines.extraction.extract import extract
from pipelines.extraction.extractors import Order, order_of
from pipelines.extraction.on_ray import CHUNK, OnRay
from pipelines.extraction.worker import Task

CHECKED = {"hog": 10, "tbn-rgb": 4, "tbn-flow": 4, "i3d-rgb": 1}  #: extractors of real runs -> copies of the films
ON_TWO_NODES = {"hog": 16, "tbn-rgb": 8}  #: the same on Ray; the flow of tbn-flow is DIS everywhere
COUNTS = (1_000, 100_000, 1_000_000)
LEFT_OUT = "start-up (seconds to minutes: weights, Ray), failures, copying the media, weights and licences"
SCATTER = 0.02  #: part by which a simulated pace differs between orders of the clips
EACH, LEAST, MOST = 400, 1600, 12800  #: simulated clips of a worker, and of all workers


@dataclass(frozen=True)
class Prices:
    """Prices in dollars, as assumed at the end of 2026; list prices of clouds differ by a factor of three."""

    gpu_hour: float = 2.0  #: of a GPU with the cores of `Plant`
    core_hour: float = 0.045  #: of a core without a GPU
    gb_month: float = 0.023  #: of a GB in an object store
    thousand_puts: float = 0.005  #: of 1,000 objects that are pushed


@dataclass(frozen=True)
class Plant:
    """Machines as they are assumed to be."""

    cores: int = 16  #: of a machine without GPUs
    cores_per_gpu: int = 12
    gpus: int = 8  #: of a machine
    machines: int = 8
    disk: float = 2e9  #: bytes per second at which media are read, by all machines together
    home: float = 1.25e9  #: bytes per second into the process that keeps the rows
    objects: float = 1e8  #: bytes per second into the object store


class Place(NamedTuple):
    """Machines with a name, and how the work is divided."""

    name: str
    site: Site
    gpus: int = 0
    cores: int = 0  #: that are paid for, where there is no GPU
    shards: int = 1  #: equal machines without a connection to each other


class Measured(NamedTuple):
    """All that was measured."""

    rates: list[Rates]
    pairs: dict[str, float]  #: method of flow -> core-seconds of a field
    keeping: float  #: core-seconds to keep a clip
    on_ray: float  #: the same on Ray


def scaling(folder: Path) -> Iterator[Line]:
    """The simulation against real runs; then the forecast is printed."""
    (folder / "films").mkdir(exist_ok=True)
    films, load = written(folder / "films"), os.getloadavg()[0]
    keeping = keeping_seconds(films)
    pairs = {method: pair_seconds(films, method) for method in ("tvl1", "dis")}
    rates = [rates_of(name, films) for name in measurable()]
    found = Measured(rates, pairs, keeping, _on_ray(folder) or keeping)
    named = {each.name: each for each in rates}
    for name, copies in CHECKED.items():
        for workers in (1, 2):
            costs = named[name].on_cpu(keeping, cores(), pairs["dis"])
            site = Site(cores=cores(), decoders=workers)
            yield _compared(name, f"--workers {workers}", costs, site, written(folder / "films", copies), workers)
    if found.on_ray != keeping:
        yield from _two_nodes(folder, named, found)
    print("\n".join(_forecast(found, load)))


# ------------------------------------------------------------------------------------------------------------ real runs


def _compared(
    name: str, where: str, costs: Costs, site: Site, clips: Manifest, workers: int, engines: Engines | None = None
) -> Line:
    """The simulated seconds of an extraction, and those of a real one; both beside the same other work."""
    torch.set_num_threads(THREADS)
    seen: list[tuple[float, dict[str, tuple[int, int]]]] = []

    def note(done: int, total: int) -> None:
        if done % (total // 6) == 0:  # often, because decoding threads end before the last clip
            seen.append((time.perf_counter(), (seen[-1][1] if done else {}) | scheduled()))

    with tempfile.TemporaryDirectory() as stores:
        extract(clips, _order(name).load(), Path(stores), plan=PLAN, workers=workers, engines=engines, progress=note)
    (began, before), (ended, after) = seen[0], seen[-1]
    shares = [(run - before.get(thread, (0, 0))[0], run + waited - sum(before.get(thread, (0, 0))))
              for thread, (run, waited) in after.items()]  # fmt: skip
    run = sum(mine for mine, _ in shares)
    share = sum(mine * mine / wanted for mine, wanted in shares if wanted > 0) / run  # of the threads that do the work
    site = replace(site, others=others_of(costs, site, len(clips), share))
    measured = f"simulated: {name}, {len(clips)} clips, {where}, beside {site.others:.1f} threads of other work"
    simulated = simulate(costs, site, len(clips)).kept[-1]
    return measured, "the real run", simulated, ended - began, lambda s: f"{len(clips) / s:.2f} clips/s"


def scheduled() -> dict[str, tuple[int, int]]:
    """Return each thread of this process and its descendants -> its time on a core and in wait for one (Linux)."""
    parents, found = dict[str, str](), dict[str, tuple[int, int]]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[stat.parent.name] = stat.read_text(encoding="utf-8").rpartition(")")[2].split()[1]
    family, new = set[str](), {str(os.getpid())}
    while new:
        family |= new
        new = {process for process, parent in parents.items() if parent in family} - family
    for process in family:
        for file in Path(f"/proc/{process}/task").glob("*/schedstat"):
            with suppress(OSError):
                run, waited, _ = map(int, file.read_text(encoding="utf-8").split())
                found[f"{process}/{file.parent.name}"] = run, waited
    return found


def others_of(costs: Costs, site: Site, clips: int, share: float) -> float:
    """Return the number of other threads beside which a simulated thread has this share of a core."""
    low, high = 0.0, 100.0
    if simulate(costs, site, clips).share <= share:
        return low
    for _ in range(20):
        middle = (low + high) / 2
        found = simulate(costs, replace(site, others=middle), clips).share
        low, high = (middle, high) if found > share else (low, middle)
    return (low + high) / 2


def _order(name: str) -> Order:
    return order_of([name], [f"{name}.method=dis"] if "flow" in name else [], [UNTRAINED])


def _on_ray(folder: Path) -> float:
    """Return the core-seconds to keep a clip on Ray; 0 if Ray is not installed."""
    try:
        ray_needed()
    except ConfigError as error:
        print(f"left out: {error}", file=sys.stderr)
        return 0.0
    return keeping_on_ray(folder)


def _two_nodes(folder: Path, named: Mapping[str, Rates], found: Measured) -> Iterator[Line]:
    """Two nodes of one core each, which this machine plays."""
    with _cluster() as address, connected(address, 2) as ray:
        for name, copies in ON_TWO_NODES.items():
            clips, order = written(folder / "films", copies), _order(name)
            costs = named[name].on_cpu(found.on_ray, 1)
            site = Site(cores=cores(), workers=2, chunk=CHUNK)
            with OnRay(ray, Task.here(order, clips, PLAN), order.load(), workers=2) as engine:
                engine.wait(2)
                yield _compared(name, "Ray, two nodes", costs, site, clips, 2, lambda *_: engine)


@contextmanager
def _cluster() -> Iterator[str]:
    """Start a cluster of two nodes, and yield its address."""
    os.environ |= QUIET
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        made.add_node(num_cpus=1)
        yield made.address
    finally:
        made.shutdown()


# ------------------------------------------------------------------------------------------------------------- forecast


def places(plant: Plant, network: bool) -> list[Place]:
    """Return the machines of the forecast; an extractor without a network uses no GPU."""
    shared: dict[str, Any] = {"disk": plant.disk, "home": plant.home, "objects": plant.objects}
    own: dict[str, Any] = {name: value / plant.machines for name, value in shared.items()}
    alone = Site(cores=plant.cores, decoders=plant.cores, **shared)
    apart = replace(alone, machines=plant.machines, workers=plant.cores, decoders=1, chunk=CHUNK)
    N, all_cores = plant.gpus * plant.machines, plant.cores * plant.machines
    if not network:
        return [
            Place(f"{plant.cores} cores", alone, cores=plant.cores),
            Place(f"{all_cores} cores, Ray", apart, cores=all_cores),
        ]
    one = Site(cores=plant.cores_per_gpu, decoders=plant.cores_per_gpu, gpu=True, threads=2, **shared)
    eight = replace(one, cores=plant.gpus * plant.cores_per_gpu, workers=plant.gpus)
    return [
        Place(f"{plant.cores} cores", alone, cores=plant.cores),
        Place("1 GPU", one, gpus=1),
        Place(f"{plant.gpus} GPUs", eight, gpus=plant.gpus),
        Place(f"{N} GPUs, Ray", replace(eight, machines=plant.machines, chunk=CHUNK), gpus=N),
        Place(f"{N} GPUs, shards", replace(eight, **own), gpus=N, shards=plant.machines),
    ]


def variants(found: Measured, rates: Rates, place: Place, gpu: Gpu) -> Iterator[tuple[str, Costs]]:
    """Yield the names and costs of an extractor on these machines, once for each way to compute its flow."""
    keeping = found.on_ray if place.site.chunk else found.keeping
    one_core = place.site.workers > 1 and not place.gpus
    flows = {" DIS": found.pairs["dis"], " TV-L1": found.pairs["tvl1"]} if rates.fields else {"": 0.0}
    for suffix, pair in flows.items():
        if place.gpus:
            yield rates.name + suffix, rates.on_gpu(keeping, gpu, pair)
        else:
            yield rates.name + suffix, rates.on_cpu(keeping, 1 if one_core else int(place.site.cores), pair)
    if rates.fields and place.gpus:
        yield f"{rates.name} TV-L1 by torch", rates.on_gpu(keeping, gpu, by_torch=True)


@cache
def simulated(place: Place, costs: Costs) -> tuple[float, Outcome]:
    """Return the clips per second on all these machines, and the outcome on those that share something."""
    clips = min(MOST, max(LEAST, EACH * place.site.machines * place.site.workers))
    outcome = simulate(costs, place.site, clips)
    return outcome.pace * place.shards, outcome


def dollars(seconds: float, place: Place, prices: Prices) -> float:
    """Return the price of these machines for so many seconds."""
    return seconds / 3600 * (place.gpus * prices.gpu_hour or place.cores * prices.core_hour)


def gigabytes(rates: Rates, clips: int) -> float:
    """Return the GB of a store: features and their index, start and stop of windows, length and state of rows."""
    return clips * (rates.row_bytes + 16 + 16 * rates.windows + 5) / 1e9


def _forecast(found: Measured, load: float) -> Iterator[str]:
    gpu, prices, plant = Gpu(), Prices(), Plant()
    yield from _assumptions(found, load, (gpu, prices, plant))
    yield from _rates(found, gpu)
    yield from _hours(found, gpu, prices, plant)
    yield from _sizes(found, prices)
    yield from _bounds(found, gpu, plant)


def _assumptions(found: Measured, load: float, assumed: Sequence[object]) -> Iterator[str]:
    lengths = f"{min(SECONDS)} to {max(SECONDS)} s"
    yield f"\nMeasured here (load {load:.1f}, seconds of one core):\n"
    yield f"- clips of {lengths}, {SIZE[0]} x {SIZE[1]} H.264 of {RATE} pictures/s, {PLAN} windows, in the page cache"
    yield f"- one field of flow: TV-L1 {found.pairs['tvl1']:.2f} s, DIS {found.pairs['dis']:.3f} s, by OpenCV"
    yield f"- keeping a clip of 5 x 1,024 numbers: {found.keeping * 1e6:.0f} us, from Ray {found.on_ray * 1e6:.0f} us"
    yield "\nAssumed, and measured nowhere:\n"
    for each in assumed:
        values = ", ".join(f"{field.name} {_value(getattr(each, field.name))}" for field in fields(each))  # type: ignore[arg-type]
        yield f"- {type(each).__name__}: {values}"
    yield "- a core of those machines is one of this machine's; a pass on a CPU uses all cores of its process"
    yield "- every extractor's rows take as long to keep as 5 x 1,024 numbers"
    yield f"\nLeft out: {LEFT_OUT}. Paces scatter by {SCATTER:.0%}; other work lengthens the seconds of a core."


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else repr(value)


def _rates(found: Measured, gpu: Gpu) -> Iterator[str]:
    yield from _head("extractor", "decode, core-ms a clip", "network, core-ms a window", "GFLOP a window",
                     "windows/s of a GPU (assumed)", "decoding cores of a GPU (assumed)",
                     "decoding and DIS cores of a GPU (assumed)")  # fmt: skip
    for each in found.rates:
        decoding, forward = sum(each.decoding) / len(each.decoding), each.forward / each.sizes[0]
        cells = [each.name, f"{1e3 * decoding:.0f}", _number(1e3 * forward), _number(each.flops / 1e9)]
        pace = gpu.flops / each.flops if each.flops else 0.0
        feed = pace * decoding / each.windows
        both = feed + pace * each.fields * found.pairs["dis"] if each.fields else 0.0
        yield _row(*cells, *(_number(value) if value else "" for value in (pace, feed, both)))


def _hours(found: Measured, gpu: Gpu, prices: Prices, plant: Plant) -> Iterator[str]:
    counts = [f"{count:,}" for count in COUNTS]
    yield from _head("extractor", "on", "clips/s", *(f"hours of {n}" for n in counts), *(f"$ of {n}" for n in counts),
                     "bound by")  # fmt: skip
    for rates in found.rates:
        for place in places(plant, bool(rates.flops)):
            for name, costs in variants(found, rates, place, gpu):
                pace, outcome = simulated(place, costs)
                hours = [_number(count / pace / 3600) for count in COUNTS]
                money = [_number(dollars(count / pace, place, prices)) for count in COUNTS]
                on = f"{place.name}, unmeasured" if place.gpus else place.name
                yield _row(name, on, _number(pace), *hours, *money, outcome.bound)


def _sizes(found: Measured, prices: Prices) -> Iterator[str]:
    counts = [f"GB of {count:,}" for count in COUNTS]
    yield from _head("extractor", "row of a window", *counts, "$ a month of the last", "$ to push it (at most)")
    for each in found.rates:
        sizes = [gigabytes(each, count) for count in COUNTS]
        objects = 7 * (sizes[-1] * 1e9 // (24 << 20) + 1)  # seven files of a block, which has 24 MB or more
        month, push = sizes[-1] * prices.gb_month, objects / 1000 * prices.thousand_puts
        shape = " x ".join(f"{length:,}" for length in each.row_shape)
        yield _row(each.name, shape, *(_number(size) for size in sizes), f"{month:.2f}", f"{push:.2f}")


def _bounds(found: Measured, gpu: Gpu, plant: Plant) -> Iterator[str]:
    """The busy part of everything on the largest sites."""
    columns: list[str] = []
    for rates in found.rates:
        for place in places(plant, network=True)[-2:] if rates.flops else ():
            *_, (name, costs) = variants(found, rates, place, gpu)
            pace, outcome = simulated(place, costs)
            if not columns:
                columns = [*outcome.busy]
                yield from _head("extractor", "on", "clips/s", *(f"{column}, %" for column in columns))
            busy = [f"{100 * outcome.busy[column]:.0f}" for column in columns]
            yield _row(name, f"{place.name}, unmeasured", _number(pace), *busy)


def _head(*names: str) -> Iterator[str]:
    yield ""
    yield _row(*names)
    yield _row(*["---"] * len(names))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    """Return two digits, or all of a whole number."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}" if value >= 0.01 else "< 0.01"


BENCHMARKS = {"scaling": scaling}
