"""The simulation of extraction gives the exact results of queues that have them, and its sizes are those of stores."""

import os
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from featcache.extractors import names
from featcache.media import probe
from pipelines.bench import scaling, simulation
from pipelines.bench.extraction import write_film
from pipelines.bench.queueing import Clock, Places, Shared
from pipelines.bench.rates import OPEN, Gpu, Rates, measurable
from pipelines.bench.scaling import Measured, Place, Plant, Prices
from pipelines.bench.simulation import Costs, Site, simulate
from pipelines.bench.store import write_store
from pipelines.extraction.on_ray import CHUNK, FEWEST, MOST
from tests.conftest import ROOT

RATES = Rates("net", (64,), (0.02, 0.04), 0.08, 1e10, (2, 4), 0, 0.0, 1e5)
FLOW = replace(RATES, name="flow", fields=4, pixels=256 * 341)
PLAIN = replace(RATES, name="plain", flops=0.0)


# ------------------------------------------------------------------------------------------------------------ the clock


def ends(capacity, jobs):
    """When each of these jobs (begin, work, pace) ends on shared hardware."""
    clock = Clock()
    shared, found = Shared(clock, capacity), {}

    def job(number, work, pace):
        yield shared.use(work, pace, "work")
        found[number] = clock.now

    for number, (begin, work, pace) in enumerate(jobs):
        clock.after(begin, lambda number=number, work=work, pace=pace: clock.start(job(number, work, pace)))
    clock.run()
    assert shared.used() == pytest.approx(sum(work for _, work, _ in jobs))
    return [found[number] for number in range(len(jobs))]


def test_users_of_shared_hardware_get_their_part():
    assert ends(2, [(0, 1, 1), (0, 1, 1)]) == pytest.approx([1, 1])
    assert ends(1, [(0, 1, 1), (0, 1, 1)]) == pytest.approx([2, 2])
    assert ends(1, [(0, 1, 1), (0.5, 1, 1)]) == pytest.approx([1.5, 2])
    assert ends(2, [(0, 2, 2), (0, 1, 1)]) == pytest.approx([1.5, 1.5])  # asks for two cores of the two; for one


def test_shared_hardware_agrees_with_small_steps_of_time():
    draw, step = random.Random(0), 1e-3
    jobs = [(draw.uniform(0, 3), draw.uniform(0.1, 1), draw.choice([1, 2, 4])) for _ in range(12)]
    left, expected, now = [work for _, work, _ in jobs], {}, 0.0
    while len(expected) < len(jobs):
        running = [k for k, (begin, _, _) in enumerate(jobs) if begin <= now and k not in expected]
        part = min(1.0, 3 / max(sum(jobs[k][2] for k in running), 1e-9))
        now += step
        for k in running:
            left[k] -= step * part * jobs[k][2]
            if left[k] <= 0:
                expected[k] = now
    assert ends(3, jobs) == pytest.approx([expected[k] for k in range(len(jobs))], abs=20 * step)


@pytest.mark.parametrize("rates", [(1.0, 1.0), (1.0, 1.7)])
def test_two_stages_with_few_jobs_have_the_exact_pace(rates):
    """K jobs go round between two exponential servers a and b: the pace is a b (a^K - b^K) / (a^(K+1) - b^(K+1))."""
    K, total, draw, clock = 3, 20_000, random.Random(1), Clock()
    stages, done = [Places(clock, 1), Places(clock, 1)], []

    def job():
        while len(done) < total:
            for stage, rate in zip(stages, rates, strict=True):
                yield stage.take
                yield lambda resume, rate=rate: clock.after(draw.expovariate(rate), resume)
                stage.give()
            done.append(clock.now)

    for _ in range(K):
        clock.start(job())
    clock.run()
    a, b = rates
    exact = a * K / (K + 1) if a == b else a * b * (a**K - b**K) / (a ** (K + 1) - b ** (K + 1))
    assert total / done[total - 1] == pytest.approx(exact, rel=0.025)


def test_littles_law_and_the_response_of_a_shared_server():
    """Poisson arrivals at a shared server: a response of 1 / (mu - lambda), jobs = arrivals a second x response."""
    arrive, serve, total, draw, clock = 0.6, 1.0, 20_000, random.Random(2), Clock()
    shared, responses, area, present, last = Shared(clock, 1), [], [0.0], [0], [0.0]

    def step(change):
        area[0] += present[0] * (clock.now - last[0])
        present[0], last[0] = present[0] + change, clock.now

    def job():
        began = clock.now
        step(+1)
        yield shared.use(draw.expovariate(serve), 1, "job")
        step(-1)
        responses.append(clock.now - began)

    def arrivals():
        for _ in range(total):
            yield lambda resume: clock.after(draw.expovariate(arrive), resume)
            clock.start(job())

    clock.start(arrivals())
    clock.run()
    response = sum(responses) / total
    assert len(responses) == total
    assert present == [0]
    assert response == pytest.approx(1 / (serve - arrive), rel=0.08)
    assert area[0] / clock.now == pytest.approx(total / clock.now * response)


def test_places_are_taken_in_the_order_of_asking():
    clock, order = Clock(), []
    places = Places(clock, 1)

    def user(name):
        yield places.take
        yield lambda resume: clock.after(1, resume)
        order.append((name, clock.now))
        places.give()

    for name in "abc":
        clock.start(user(name))
    clock.run()
    assert order == [("a", 1), ("b", 2), ("c", 3)]


# ----------------------------------------------------------------------------------------------------------- extraction

WIDE = Site(cores=64, decoders=4)  #: a site where only threads can bound


@pytest.mark.parametrize(
    ("costs", "site", "pace", "bound"),
    [
        (Costs((1.0,), 0.01), Site(cores=64, decoders=3), 3, "decoding threads"),
        (Costs((0.8, 1.2), 0.01), Site(cores=64, decoders=3), 3, "decoding threads"),
        (Costs((1.0,), 0.01, flow=0.2), Site(cores=64, decoders=3), 1.5, "decoding threads"),
        (Costs((1.0,), 0.01, flow=0.8), Site(cores=2, decoders=8), 2 / 5.05, "cores (flow)"),
        (Costs((1.0,), 0.01), Site(cores=2, decoders=8), 2 / 1.05, "cores (decoding)"),
        (Costs((0.1,), 0.2, cores=2), Site(cores=2, decoders=2), 2 / 1.1, "cores (network)"),
        (Costs((0.1,), 0.2), WIDE, 1, "computing threads"),
        (Costs((0.1,), 0.4, batch=2, size=2), WIDE, 1, "computing threads"),
        (Costs((0.1,), 0.4, batch=4, size=2), WIDE, 1, "computing threads"),
        (Costs((0.1,), 0.2), replace(WIDE, gpu=True, threads=2), 1, "GPU"),
        (Costs((0.1,), 0.1, flow=0.1, flow_on_gpu=True), replace(WIDE, gpu=True, threads=2), 1, "GPU"),
        (Costs((0.1,), 0.2), replace(WIDE, gpu=True, threads=2, workers=3), 3, "GPU"),
        (Costs((0.1,), 0.001, keeping=0.5), WIDE, 2, "the thread that keeps rows"),
        (Costs((0.1,), 0.001, media=10), replace(WIDE, disk=50, decoders=40), 5, "disk"),
        (Costs((0.01,), 0.0001, row=7, sent=10), replace(WIDE, home=50, machines=2, chunk=1), 5, "network"),
        (Costs((0.1,), 0.001, row=10), replace(WIDE, objects=50), 5, "object store"),
    ],
)
def test_the_slowest_stage_is_the_pace_and_the_bound(costs, site, pace, bound):
    found = simulate(costs, site, 400)
    assert found.pace == pytest.approx(pace, rel=0.02)
    assert found.bound == bound
    assert found.busy[bound.partition(" (")[0]] == pytest.approx(1, abs=0.02)


def test_everything_is_busy_for_pace_times_work():
    """The utilisation law, on a site where several things are half busy."""
    costs = Costs((0.2, 0.4), 0.04, batch=2, size=2, flow=0.01, keeping=0.01, media=10, row=5)
    site = Site(cores=6, decoders=2, workers=2, gpu=True, threads=2, disk=200, objects=100)
    found = simulate(costs, site, 800)
    work = {"cores": (0.3 + 5 * 0.01 + 0.01) / 6, "GPU": 5 * 0.02 / 2, "disk": 10 / 200, "object store": 5 / 100}
    for name, seconds in work.items():
        assert found.busy[name] == pytest.approx(found.pace * seconds, rel=0.03), name
    assert found.busy["the thread that keeps rows"] == pytest.approx(found.pace * 0.01, rel=0.03)


@pytest.mark.parametrize("site", [WIDE, replace(WIDE, gpu=True, workers=2, machines=2), replace(WIDE, chunk=CHUNK)])
@pytest.mark.parametrize("clips", [2, 13, 100])
def test_every_clip_is_kept_once(site, clips, monkeypatch):
    runs, run = [], simulation._Run.run
    monkeypatch.setattr(simulation._Run, "run", lambda self: (runs.append(self), run(self))[1])
    costs = Costs((0.1, 0.5, 2.0, 9.0, 30.0), 0.3, batch=4, size=4, keeping=0.01)
    found = simulate(costs, site, clips)
    assert len(found.kept) == clips
    assert found.kept == sorted(found.kept)
    assert runs[0].left == [0] * clips
    assert simulate(costs, site, clips).kept == found.kept  # a seed gives one order
    if clips == 100:
        assert simulate(costs, site, clips, seed=1).kept != found.kept


def test_queues_of_one_window_agree_with_a_plain_loop(monkeypatch):
    """One decoding and one computing thread, with room for one window: the times by their recurrence."""
    monkeypatch.setattr(simulation, "BOUND", 1)
    draw = random.Random(3)
    decoding = tuple(draw.choice([0.1, 1.0, 4.0]) for _ in range(60))
    runs, run = [], simulation._Run.run
    monkeypatch.setattr(simulation._Run, "run", lambda self: (runs.append(self), run(self))[1])
    found = simulate(Costs(decoding, 1.3, windows=1), Site(cores=9), len(decoding))
    put, taken, begun, ended = ([-1e9, -1e9] for _ in range(4))  # of each window, after two that never were
    for kind in runs[0].kinds:
        put.append(max(max(0.0, put[-1]) + decoding[kind], taken[-1]))  # the queue has one place
        taken.append(max(put[-1], begun[-1]))  # the one before is among the batches
        begun.append(max(taken[-1], ended[-2]))  # of which there are two
        ended.append(max(begun[-1], ended[-1]) + 1.3)
    assert found.kept == pytest.approx(ended[2:])


@pytest.mark.parametrize(("forward", "clips", "passes"), [(1.0, FEWEST, 1), (0.01, MOST, 5)])
def test_chunks_fill_up_their_last_batch(forward, clips, passes):
    """Four clips have 20 windows, so their pass of 32 windows is filled up; 32 clips have 160, which are five passes.

    Chunks have few clips where a pass takes long, as those of the engine.
    """
    costs, site = Costs((1e-4,), forward, batch=32, size=32), Site(cores=64, decoders=8, gpu=True, threads=2)
    assert simulate(costs, site, 2000).pace == pytest.approx(32 / 5 / forward, rel=0.02)
    assert simulate(costs, replace(site, chunk=CHUNK), 2000).pace == pytest.approx(clips / passes / forward, rel=0.02)


def test_other_work_is_found_by_the_share_of_a_core():
    costs, site = Costs((0.5,), 0.1, cores=2), Site(cores=2, decoders=2, others=7.0)
    beside = simulate(costs, site, 60)
    assert beside.share < 0.3
    assert beside.kept[-1] > 2 * simulate(costs, replace(site, others=0.0), 60).kept[-1]
    assert scaling.others_of(costs, replace(site, others=0.0), 60, beside.share) == pytest.approx(7, abs=0.1)
    assert scaling.others_of(costs, replace(site, others=0.0), 60, 1.0) == 0


def test_the_scheduler_counts_threads_of_children():
    busy = "import sys\nprint(sum(range(3_000_000)) and 1, flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", busy]
    before = scaling.scheduled()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "1\n"
        found = scaling.scheduled()
        child.stdin.close()
    assert f"{child.pid}/{child.pid}" in found.keys() - before.keys()
    assert found[f"{child.pid}/{child.pid}"][0] > 0
    assert f"{os.getpid()}/{os.getpid()}" in before


# ------------------------------------------------------------------------------------------------------------- forecast


def test_gigabytes_are_those_of_a_store(tmp_path):
    """A store that consists of one whole block: files of a block are not shorter for fewer rows."""
    rates, rows = replace(RATES, row_shape=(96, 64)), 512
    write_store(tmp_path / "s.zarr", np.ones((rows, 5, 96, 64), np.float16), rows, (5, 96, 64), "float16")
    size = sum(file.stat().st_size for file in (tmp_path / "s.zarr").rglob("*") if file.is_file())
    assert scaling.gigabytes(rates, rows) * 1e9 == pytest.approx(size, rel=0.002)


def test_costs_of_a_gpu_are_operations_over_its_pace():
    gpu = Gpu(flops=2e12, pairs=50)
    costs = FLOW.on_gpu(0.001, gpu, 0.3)
    assert (costs.forward, costs.batch, costs.flow) == pytest.approx((4 * 1e10 / 2e12, 4, 4 * 0.3))
    costs = FLOW.on_gpu(0.001, gpu, by_torch=True)
    assert (costs.flow, costs.flow_on_gpu) == (pytest.approx(4 / 50), True)
    assert FLOW.on_cpu(0.001, 8, 0.3).cores == 8
    assert PLAIN.on_cpu(0.001, 8).cores == 1


def test_shards_are_machines_that_share_nothing():
    plant = Plant(gpus=2, machines=3)
    *_, eight, ray, shards = scaling.places(plant, network=True)
    costs = RATES.on_gpu(1e-4, Gpu())
    assert (eight.gpus, ray.gpus, shards.gpus) == (2, 6, 6)
    assert scaling.simulated(shards, costs)[0] == pytest.approx(3 * scaling.simulated(eight, costs)[0], rel=0.02)
    assert scaling.dollars(3600, shards, Prices(gpu_hour=2)) == 12
    assert scaling.dollars(1800, Place("cpu", Site(), cores=16), Prices(core_hour=0.5)) == 4


SMALL = Plant(cores=4, cores_per_gpu=3, gpus=2, machines=3, disk=2e7, home=1e5, objects=2e4)


def capacities(costs, site):
    """The clips per second of each kind of hardware on a site, if it did nothing else than needed."""
    decoding, passes = sum(costs.decoding) / len(costs.decoding), costs.windows / costs.size * costs.forward
    flow = costs.windows * costs.flow
    core = decoding + costs.keeping + (0 if costs.flow_on_gpu else flow) + (0 if site.gpu else passes)
    gpu = (passes if site.gpu else 0) + (flow if costs.flow_on_gpu else 0)
    found = {"cores": site.cores * site.machines / core, "the thread that keeps rows": 1 / costs.keeping}
    found |= {"disk": site.disk / costs.media, "object store": site.objects / costs.row}
    if gpu:
        found["GPU"] = site.machines * site.workers / gpu
    if site.machines > 1:
        found["network"] = site.home / costs.sent
    return found


@pytest.mark.parametrize("decoding", [(0.02,), (0.3, 0.5, 0.9)])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_pace_exceeds_what_the_hardware_can_do(decoding, seed):
    """Every place and way to compute flow; chunks come home in waves."""
    found = Measured([], {"dis": 0.02, "tvl1": 0.5}, 1e-3, 2e-3)
    for rates in (replace(each, decoding=decoding) for each in (RATES, FLOW, PLAIN)):
        for place in scaling.places(SMALL, bool(rates.flops)):
            for name, costs in scaling.variants(found, rates, place, Gpu()):
                clips = 60 * len(decoding)  # all films as often as each other
                outcome, limits = simulate(costs, place.site, clips, seed), capacities(costs, place.site)
                slowest = min(limits, key=limits.get)
                assert 0 < outcome.pace <= limits[slowest] * (1 + 1e-6), (name, place.name, slowest)
                if not place.site.chunk and name.endswith(" TV-L1"):  # flow so slow that it never waits
                    assert outcome.pace >= 0.95 * limits["cores"], (name, place.name)


def test_rows_come_home_in_float32_and_are_kept_in_float16():
    costs = replace(RATES, row_shape=(1024,)).on_cpu(1e-4, 1)
    assert costs.row == np.zeros((5, 1024), np.float16).nbytes
    assert costs.sent == np.zeros((5, 1024), np.float32).nbytes + np.zeros((2, 5)).nbytes


def test_the_forecast_marks_what_was_not_measured(monkeypatch):
    scaling.simulated.cache_clear()
    monkeypatch.setattr(scaling, "LEAST", 40)
    monkeypatch.setattr(scaling, "MOST", 40)
    found = Measured([RATES, FLOW, PLAIN], {"dis": 0.01, "tvl1": 1.0}, 1e-4, 2e-4)
    lines = [line.split(" | ") for line in scaling._forecast(found, 1.5)]
    hours = [line for line in lines if len(line) == 10 and "clips/s" not in line]
    assert {line[1] for line in hours if "GPU" in line[1]} == {
        f"{name}, unmeasured" for name in ("1 GPU", "8 GPUs", "64 GPUs, Ray", "64 GPUs, shards")
    }
    assert {line[0][2:] for line in hours[1:]} == {"net", "flow DIS", "flow TV-L1", "flow TV-L1 by torch", "plain"}
    header, row = ([cell.strip() for cell in line.split("|")] for line in scaling._rates(found, Gpu())
                   if "GFLOP" in line or "| flow |" in line)  # fmt: skip
    cells = dict(zip(header, row, strict=True))
    assert cells["decoding cores of a GPU (assumed)"] == "6"
    assert cells["decoding and DIS cores of a GPU (assumed)"] == "46"  # 1,000 windows/s, 4 fields of 10 ms each
    text = "\n".join(scaling._forecast(found, 1.5))
    for assumed in (
        "gpu_hour 2",
        "core_hour 0.045",
        "flops 1e+13",
        "pairs 100",
        "load 1.5",
        "5 x 1,024",
        "start-up",
        "2%",
    ):
        assert assumed in text


def test_the_page_has_the_tables_of_the_command():
    found = Measured([replace(RATES, name=name) for name in measurable()], {"dis": 0.01, "tvl1": 1.0}, 1e-4, 2e-4)
    page = (ROOT / "docs" / "capacity.md").read_text()
    header = next(line for line in scaling._rates(found, Gpu()) if "GFLOP" in line)
    _, rates, hours, sizes, *_ = page.split("\n## ")[1:]
    assert header in rates
    listed = [
        {line.split()[1] for line in part.splitlines() if line.startswith("| ")} for part in (rates, hours, sizes)
    ]
    assert all(names_of == {*measurable(), "extractor", "---"} for names_of in listed)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in hours.splitlines() if line.startswith("| ")]
    assert {row[1] for row in rows} >= {place.name for network in (0, 1) for place in scaling.places(Plant(), network)}
    for name, on, pace, hour, *_ in rows[2:]:
        assert float(hour.replace(",", "")) == pytest.approx(1e6 / 3600 / float(pace.replace(",", "")), rel=0.11), (
            name,
            on,
        )


def test_every_extractor_of_videos_is_measured():
    assert set(measurable()) == set(names()) - {*OPEN, "skeleton"}
    assert {*scaling.CHECKED, *scaling.ON_TWO_NODES} <= set(measurable())


def test_films_have_sound_only_where_it_is_asked_for(tmp_path):
    for sound in (False, True):
        write_film(tmp_path / "film.mp4", 1, rate=5, keyframes=5, size=(64, 48), sound=sound)
        found = probe(tmp_path / "film.mp4")
        assert (found.has_audio, found.frames) == (sound, 5)
