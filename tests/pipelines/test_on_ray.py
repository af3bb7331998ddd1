"""Extraction on Ray keeps the bytes that one process keeps, whatever dies on the way.

The first tests drive the engine with a stand-in for Ray, whose nodes do as they are told; the last ones use real
clusters of several nodes on this machine.
"""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import featcache
import pipelines
from featcache import Clip, FeatureStore, Manifest, checking, cluster
from featcache.errors import ArgumentsError, ConfigError, FeatcacheError, MediaError
from featcache.extractors import Runtime
from featcache.parallel import WorkerEnded, tell
from featcache.store import StoreWriter
from featcache.windows import Plan
from pipelines.commands import train
from pipelines.extraction import on_ray
from pipelines.extraction.assembly import Part
from pipelines.extraction.engine import Job
from pipelines.extraction.extract import extract as fill
from pipelines.extraction.extractors import load_extractors, order_of
from pipelines.extraction.on_ray import CHUNK, DEATHS, FEWEST, IN_FLIGHT, KILLS, MOST, PATIENCE, SUSPECT, OnRay
from pipelines.extraction.worker import Computed, Report, Task, Worker, found, made_of
from pipelines.training import engine as training
from tests.conftest import ROOT
from tests.helpers.folders import content
from tests.helpers.processes import command, descendants, gone, stopped, wait_for
from tests.helpers.stores import run, write_all
from tests.pipelines.test_devices import EXTRACTOR

PLAN = Plan("segments", 2)


# --------------------------------------------------------------------------------------------------- a stand-in for Ray


class RayError(Exception):
    pass


class StandIn:
    """Ray with nodes of one CPU each: every actor goes to the next node; `wait` does one call."""

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self, nodes):
        self.alive, self.turn, self.numbers = nodes, count(), count()
        self.calls, self.killed, self.log, self.options_seen = {}, set(), [], []

    def nodes(self):
        return [
            {"NodeID": n, "Alive": True, "Resources": {"CPU": 1.0}, "NodeManagerHostname": n, "NodeManagerAddress": n}
            for n in self.alive
        ]

    def put(self, value):
        return value

    def remote(self, kind):
        def options(**given):
            self.options_seen.append(given)
            return SimpleNamespace(remote=lambda task: self.actor(kind, task, given.get("label_selector", {})))

        return SimpleNamespace(options=options)

    def actor(self, kind, task, selector):
        barred = selector.get("ray.io/node-id", "!in()")[4:-1].split(",")
        free = [node for node in self.alive if node not in barred]
        worker = kind(task, free[next(self.turn) % len(free)])

        def method(name):
            def remote(*words):
                ref = next(self.numbers)
                self.calls[ref] = (worker, name, words)
                return ref

            return SimpleNamespace(remote=remote)

        return SimpleNamespace(worker=worker, placed=method("placed"), compute=method("compute"))

    def wait(self, refs, num_returns, timeout):
        assert refs
        oldest = min(refs)
        return ([], refs) if timeout == 0 else ([oldest], [ref for ref in refs if ref != oldest])

    def get(self, ref):
        worker, name, words = self.calls.pop(ref)
        self.log.append((worker.node, name, words))
        return getattr(worker, name)(*words)

    def kill(self, handle):
        self.killed.add(handle.worker)


CLIPS = Manifest("m", tuple(Clip(str(k), "d", "train", f"{k}.mp4") for k in range(40)))


class Scripted:
    """A worker whose node decides: `lacks` sources, `fault` as its report, `dies` while it computes or, for rows of
    `killers`, always; `other` versions, another `kind` of device, `broken`: it has no featcache."""

    lacks, fault, dies, other, kind, broken, killers = {}, {}, {}, {}, {}, (), ()

    def __init__(self, task, node):
        self.task, self.node = task, node

    def placed(self, sources, gpus):
        made = made_of(load_extractors(["hog"]), PLAN)
        if self.node in self.broken:
            raise RayError("the actor died in its creation")
        if self.node in self.fault:
            return self.node, Report(self.fault[self.node])
        if self.node in self.other:
            made = made | {"versions": {**made["versions"], "numpy": "0.1"}}
        facts = {"hog": {"device": self.kind.get(self.node, "A100")}}
        return self.node, Report("", made, facts, {s: 1 for s in sources if self.reads(s)})

    def reads(self, source):
        return source not in self.lacks.get(self.node, ())

    def compute(self, jobs):
        if self.dies.get(self.node, 0):
            self.dies[self.node] -= 1
            raise RayError("it died")
        if any(row in self.killers for row, _ in jobs):
            raise RayError("out of memory")
        parts, unread = [], {}
        for row, _ in jobs:
            source = CLIPS.clips[row].source
            if self.reads(source):
                parts.append(Part(row, "hog", np.full((2, 1), row, np.float32), np.zeros((2, 2))))
            else:
                parts.append(Part(row, "hog", reason=MediaError(f"{source}: no such file")))
                unread[row] = source
        return Computed(parts, unread, 0.5)


@pytest.fixture
def script(monkeypatch):
    """Set what the nodes do."""
    for name in ("lacks", "fault", "dies", "other", "kind", "broken", "killers"):
        monkeypatch.setattr(Scripted, name, {})
    monkeypatch.setattr(OnRay, "worker", Scripted)
    why = "cannot import featcache (ModuleNotFoundError)"
    monkeypatch.setattr(on_ray, "unable", lambda ray, nodes, module: {n: why for n in nodes if n in Scripted.broken})
    return Scripted


def engine_of(ray, workers=2):
    task = Task(order_of(["hog"], (), (), Runtime()), CLIPS, PLAN, ".", None)
    return OnRay(ray, task, load_extractors(["hog"]), workers=workers)


JOBS = [Job(row, ("hog",)) for row in range(40)]


def computed(engine, rows=range(40)):
    """Row -> its part; each must come once."""
    parts = [part for chunk in engine.parts(iter([JOBS[row] for row in rows])) for part in chunk]
    assert sorted(part.row for part in parts) == list(rows)
    return {part.row: part for part in parts}


def test_every_clip_comes_home_once_from_both_nodes(script):
    ray = StandIn(["one", "two"])
    with engine_of(ray) as engine:
        parts = computed(engine)
        assert engine.facts == {"hog": {"device": "A100"}}
    assert {row: float(part.features[0, 0]) for row, part in parts.items()} == {row: row for row in range(40)}
    chunks = [(node, len(jobs)) for node, name, (jobs, *_) in ray.log if name == "compute"]
    assert {node for node, _ in chunks} == {"one", "two"}
    assert CHUNK <= max(size for _, size in chunks) <= MOST
    assert engine.notes == []
    assert len(ray.killed) == 2  # at the end


@pytest.mark.parametrize(("seconds", "size"), [(1e-9, FEWEST), (1e9, MOST)])
def test_chunks_have_fewer_clips_of_slow_extractors(script, monkeypatch, seconds, size):
    """The first chunks of two nodes have CHUNK clips, as the speed is not known yet, and the size doubles at most."""
    monkeypatch.setattr(on_ray, "CHUNK_SECONDS", seconds)
    ray = StandIn(["one", "two"])
    with engine_of(ray) as engine:
        computed(engine, range(40))
        computed(engine, range(40))
    sizes = [len(words[0]) for _, name, words in ray.log if name == "compute"]
    assert set(sizes[: 2 * IN_FLIGHT]) == {CHUNK}
    assert size in sizes
    assert all(FEWEST <= each <= MOST for each in sizes)


def test_jobs_are_taken_only_for_chunks_in_flight(script):
    ray, taken = StandIn(["one", "two"]), []

    def jobs():
        for row in range(40):
            taken.append(row)
            yield Job(row, ("hog",))

    with engine_of(ray) as engine:
        parts = engine.parts(jobs())
        next(parts)
        assert len(taken) <= 2 * IN_FLIGHT * CHUNK
        parts.close()


def test_clips_of_a_lost_worker_are_computed_again(script):
    script.dies = {"one": 1}
    ray = StandIn(["one", "two"])
    with engine_of(ray) as engine:
        computed(engine)
    (note,) = engine.notes
    rows = Counter(row for _, name, words in ray.log if name == "compute" for row, _ in words[0])
    twice = sum(times > 1 for times in rows.values())
    lost = re.search(r"1 worker lost and replaced; (\d+) clips .* again \(it died\)", note)
    assert twice <= int(lost[1]) <= IN_FLIGHT * CHUNK  # a chunk that had not been begun is counted, too


def test_a_worker_that_is_lost_before_it_has_clips_loses_none(script):
    script.broken = ("two",)
    with engine_of(StandIn(["one", "two"])) as engine:
        computed(engine)
    assert not any("again" in note for note in engine.notes)


def test_workers_that_are_all_lost_are_one_sentence(script):
    script.dies = {"one": 99, "two": 99}
    words = r"workers were lost.*it died.*with the clips '\d+'.*kept.*again"
    with pytest.raises(FeatcacheError, match=words), engine_of(StandIn(["one", "two"])) as engine:
        computed(engine, range(CHUNK))
    assert 99 - script.dies["one"] + 99 - script.dies["two"] <= DEATHS + 2


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_clip_that_kills_every_worker_is_found_and_named(script, workers):
    """All other clips are kept before the error; those next to it were never alone with a worker that died."""
    script.killers = (12, 27)
    ray, kept = StandIn([*"abc"[:workers]]), []
    words = "2 clips.*'(12', '27|27', '12)'.*out of memory.*memory.*move .*12.mp4.* away.*failed.*again"
    with engine_of(ray, workers) as engine, pytest.raises(FeatcacheError, match=words):
        kept.extend(part.row for parts in engine.parts(iter(JOBS)) for part in parts)
    assert sorted(kept) == sorted({*range(40)} - {12, 27})
    tries = [[row for row, _ in words[0]] for _, name, words in ray.log if name == "compute"]
    for killer in script.killers:
        own = [rows for rows in tries if killer in rows]
        assert own[-(KILLS - SUSPECT) :] == [[killer]] * (KILLS - SUSPECT)
        assert len(own) <= KILLS


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"lacks": {"two": {"3.mp4"}}}, "cannot read '3.mp4'"),
        ({"fault": {"two": "no weights here"}}, "no weights here"),
        ({"other": {"two": True}}, "versions.numpy is '0.1' there"),
        ({"kind": {"two": "T4"}}, "of another kind.*hog.device is 'T4' there and 'A100'"),
        ({"broken": ("two",)}, "cannot import featcache"),
    ],
)
def test_a_node_at_fault_is_left_out_and_named_once(script, what, words):
    """The file that it lacks is among those that every node looks for at first."""
    for name, value in what.items():
        setattr(script, name, value)
    ray = StandIn(["one", "two"])
    with engine_of(ray) as engine:
        parts = computed(engine)
    assert all(part.reason is None for part in parts.values())
    (note,) = [note for note in engine.notes if "lost" not in note]
    assert note.startswith("node two")
    assert re.search(words, note)
    assert {node for node, name, _ in ray.log if name == "compute"} == {"one"}


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("nodes", ["12", "123", "213", "132"])
def test_files_that_nodes_cannot_find_later_are_their_fault(here, nodes, script, monkeypatch):
    """Those beyond the ones that are looked for at first; without the files here, another node is asked."""
    lacking = {"2", "3"} if here else {"2"}
    script.lacks = {node: {f"{k}.mp4" for k in range(8, 40)} for node in lacking}
    if here:
        monkeypatch.setattr(on_ray, "found", lambda manifest, sources: dict.fromkeys(sources, 1))
    with engine_of(StandIn([*nodes]), len(nodes)) as engine:
        parts = computed(engine)
        assert engine._faulty.keys() == lacking & {*nodes}
    assert all(part.reason is None for part in parts.values())
    assert sorted(note.split()[1] for note in engine.notes) == sorted(lacking & {*nodes})
    for note in engine.notes:
        assert re.search(r"cannot read '\d+\.mp4', which (this machine|node \d.*) reads", note)


def test_only_a_long_wait_without_workers_is_given_up(script, monkeypatch):
    """The time counts from the last answer of a worker."""
    now = [0.0]
    monkeypatch.setattr(on_ray, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with engine_of(StandIn(["one", "two"])) as engine:
        parts = engine.parts(iter([Job(row, ("hog",)) for row in range(40)]))
        next(parts)
        now[0] = 5 * PATIENCE
        next(parts)
        for actor in engine._actors:
            actor.node = ""
        engine._look()
        now[0] += PATIENCE + 1
        with pytest.raises(FeatcacheError, match=r"no node .* had room for 600 s.*kept.*again"):
            engine._look()
        parts.close()


@pytest.mark.parametrize("nodes", [["one"], ["one", "two"]])
def test_a_file_that_no_node_finds_is_a_failure_of_its_clip(script, nodes):
    script.lacks = {node: {"3.mp4", "33.mp4"} for node in nodes}
    with engine_of(StandIn(nodes)) as engine:
        parts = computed(engine)
    assert {row for row, part in parts.items() if part.reason} == {3, 33}
    assert engine.notes == []


def test_without_a_node_that_can_compute_all_reasons_are_named(script):
    script.fault = {"one": "no weights here", "two": "no torch here"}
    reasons = r"node one.*no weights here.*node two.*no torch here"
    with pytest.raises(ConfigError, match=reasons), engine_of(StandIn(["one", "two"])):
        pass
    with pytest.raises(ConfigError, match="no node .* room"), engine_of(StandIn([])):
        pass


# ------------------------------------------------------------------------------------------------------------- a worker


def test_a_worker_computes_what_a_process_computes_and_names_files_it_cannot_open(videos):
    manifest = Manifest.read(videos / "kitchens.csv")
    gone = replace(manifest.clips[0], clip_id="gone", source="gone.mp4")
    manifest = replace(manifest, clips=(*manifest.clips, gone))
    worker = Worker(Task.here(order_of(["hog"]), manifest, PLAN))
    report = worker.report([manifest.clips[0].source, "gone.mp4"], 1)
    assert report.error == ""
    assert report.made == made_of(load_extractors(["hog"]), PLAN)
    assert report.found == found(manifest, [manifest.clips[0].source])
    done = worker.compute([Job(0, ("hog",)), Job(8, ("hog",))])
    assert done.unread == {8: "gone.mp4"}
    assert {part.row: part.reason is None for part in done.parts} == {0: True, 8: False}


def test_a_worker_reports_what_keeps_it_from_computing():
    order = order_of(["i3d-rgb"], (), ["i3d-rgb=/nowhere/weights.pt"])
    report = Worker(Task.here(order, CLIPS, PLAN)).report([], 1)
    assert "/nowhere/weights.pt" in report.error


# ------------------------------------------------------------------------------------------------------------- writing


class Together:
    """An engine whose parts come in lists of a few, or one by one; two clips fail, and one has fewer windows."""

    def __init__(self, size):
        self.size, self.busy, self.notes = size, 0.0, []

    def parts(self, jobs):
        rng, waiting = np.random.default_rng(0), []
        for row, _ in jobs:
            count = 1 if row == 13 else 2
            features = rng.normal(size=(count, 1764)).astype(np.float32)
            reason = MediaError("broken") if row in (5, 30) else None
            part = Part(row, "hog", None if reason else features, None if reason else np.ones((2, count)), reason)
            waiting.append(part._replace(note="first stream" if row == 7 else ""))
            if len(waiting) == self.size:
                yield waiting if self.size > 1 else waiting[0]
                waiting = []
        if waiting:
            yield waiting


def test_parts_that_come_together_are_kept_as_one_by_one(tmp_path, monkeypatch):
    (hog,) = load_extractors(["hog"])
    hog.row_shape = (1764,)
    runs, real = [], StoreWriter.done_many
    monkeypatch.setattr(StoreWriter, "done_many", lambda *args: (runs.append(len(args[1])), real(*args)))
    for size in (1, 8):
        made = fill(CLIPS, [hog], tmp_path / str(size), plan=PLAN, engines=lambda *_, size=size: Together(size))
        assert made.stores["hog"].counts() == {"done": 38, "failed": 2, "absent": 0, "not tried": 0}
        assert max(runs) == size
    assert same(tmp_path / "1", tmp_path / "8")


class Here(Worker):
    """A real worker, in this process, on a node of the stand-in."""

    def __init__(self, task, node):
        super().__init__(task)
        self.node = node

    def placed(self, sources, gpus):
        return self.node, self.report(sources, 1)


def test_files_that_were_replaced_are_computed_again(tmp_path, monkeypatch):
    """Only these; the store and the record of its files are those of one process."""
    monkeypatch.setattr(OnRay, "worker", Here)
    for k in range(20):
        np.save(tmp_path / f"{k}.npy", np.arange(k, k + 3.0))
    manifest = Manifest("m", tuple(Clip(str(k), "d", "train", f"{k}.npy") for k in range(20)), tmp_path)
    vector = load_extractors(["vector"], manifest=manifest)
    task, ray = Task(order_of(["vector"], (), (), Runtime(), manifest), manifest, PLAN, ".", None), StandIn(["a", "b"])

    def extract(stores, **options):
        return fill(manifest, vector, tmp_path / stores, plan=PLAN, **options)

    with OnRay(ray, task, vector, workers=2) as engine:
        extract("ray", engines=lambda *_: engine)
        for k in (3, 14):
            np.save(tmp_path / f"{k}.npy", np.full(3, 7.0))
        ray.log.clear()
        (note,) = extract("ray", engines=lambda *_: engine).notes
        assert re.search(r"2 clips .*'3', '14'.*--renew", note)
        assert ray.log == []
        assert checking.problems(tmp_path / "ray" / "m" / "vector.zarr")
        assert extract("ray", engines=lambda *_: engine, renew=True).notes == []
        assert [job.row for _, _, (jobs,) in ray.log for job in jobs] == [3, 14]
        assert extract("ray", engines=lambda *_: engine).notes == []
    assert checking.problems(tmp_path / "ray" / "m" / "vector.zarr") == []
    extract("local")
    assert same(tmp_path / "ray", tmp_path / "local")


# ------------------------------------------------------------------------------------------------------------- options


def test_without_ray_its_option_names_the_extra(videos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"--engine ray .*featcache\[ray\]"):
        featcache.extract(videos / "kitchens.csv", "hog", tmp_path, engine="ray")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"address": "head:6379"}, "--address head:6379 .*--engine ray"),
        ({"gpus": 0.5}, "--gpus 0.5 .*--engine ray"),
        ({"engine": "ray", "device": "cuda:1"}, "--device cuda:1.*--device cuda"),
        ({"engine": "ray", "gpus": -1.0}, "--gpus is -1"),
        ({"engine": "ray", "gpus": float("nan")}, "--gpus is nan"),
        ({"engine": "ray", "gpus": 1e-5}, "--gpus is 1e-05.* 0.0001 or more"),
        ({"engine": "ray", "address": ""}, "--address is empty"),
    ],
)
def test_options_that_do_not_fit_are_named(options, words, videos, tmp_path):
    with pytest.raises(ArgumentsError, match=words):
        featcache.extract(videos / "kitchens.csv", "hog", tmp_path, **options)
    with pytest.raises(ArgumentsError, match=words):
        pipelines.train("pairs", tmp_path, tmp_path, **options)
    with pytest.raises(ArgumentsError, match=words):
        pipelines.sweep("pairs", tmp_path, tmp_path, grid="optim.lr=0.1", **options)


def test_an_engine_that_is_unknown_lists_the_others(videos, tmp_path):
    with pytest.raises(ConfigError, match="'rays'.*local.*ray"):
        featcache.extract(videos / "kitchens.csv", "hog", tmp_path, engine="rays")


def test_local_work_imports_no_ray(videos, tmp_path):
    code = (
        "import sys, featcache; featcache.extract(*sys.argv[1:3], sys.argv[3], windows='segments:1');"
        "import pipelines; from pathlib import Path; from tests.helpers.stores import run, write_all;"
        "import pipelines.commands.sweep; top = Path(sys.argv[3]);"
        "pipelines.train([run()], write_all(top / 'toy'), top / 'runs');"
        "print([name for name in ('ray', 'obstore', 'huggingface_hub') if name in sys.modules])"
    )
    words = [sys.executable, "-c", code, videos / "kitchens.csv", "logmel", tmp_path]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def closed_port():
    """A port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ray://head:1", r"--address ray://head:1: .*HOST:PORT"),
        ("head", r"--address head: .*HOST:PORT"),
        ("head:99999", r"--address head:99999: .*HOST:PORT"),
        ("nowhere.invalid:6379", r"--address nowhere.invalid:6379: nothing can be reached.*ray start"),
        ("127.0.0.1:{}", r"--address 127.0.0.1:\d+: nothing can be reached.*refused.*ray start"),
        ("auto", r"--address auto: RAY_ADDRESS is 127.0.0.1:\d+: nothing can be reached"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_sentence(address, words, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed_port()}")
    address, began = address.format(closed_port()), time.monotonic()
    with pytest.raises(ConfigError, match=words), cluster.connected(address, 1):
        pass
    assert time.monotonic() - began < 20  # on a busy machine; Ray itself waits for minutes


def test_training_without_a_node_that_has_room_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "connected", lambda *_: nullcontext(StandIn(["one"])))
    stores = write_all(tmp_path / "stores")
    with pytest.raises(ConfigError, match="no node .* room.* 1 GPU"):
        pipelines.train([run()], stores, tmp_path / "runs", engine="ray", gpus=1.0)


def lost_at(killers):
    """A stand-in for `in_tasks`, whose workers die with the runs of these seeds."""

    def pool(function, jobs, workers, hear=None):
        while jobs:
            group, wait = jobs.popleft()
            if any(config.seed in killers for config in group):
                yield (group, wait), WorkerEnded("its worker was lost 3 times (out of memory)")
            else:
                yield (group, wait), function((group, wait))

    return pool


@pytest.mark.parametrize("batch", ["off", "auto"])
def test_a_run_that_kills_its_workers_fails_alone(tmp_path, monkeypatch, batch):
    """The others of its group are trained one by one."""
    monkeypatch.setattr(training, "groups", lambda configs, *_: [tuple(configs)])
    stores, configs = write_all(tmp_path / "stores"), [run(seed=seed) for seed in range(3)]
    outcomes = training.run_all(configs, stores, tmp_path / "runs", workers=2, batch=batch, pool=lost_at({1}))
    assert {each.config.seed: each.status for each in outcomes} == {0: "trained", 1: "failed", 2: "trained"}
    (note,) = [each.note for each in outcomes if each.note]
    assert re.search("lost 3 times .*out of memory.*again", note)


def test_training_on_this_machine_measures_its_memory(tmp_path, monkeypatch):
    """So that runs side by side do not take it all; other machines are measured by their runs."""
    measured, free_memory = [], training.free_memory
    monkeypatch.setattr(training, "free_memory", lambda: measured.append(free_memory()) or measured[-1])
    pipelines.train([run()], write_all(tmp_path / "stores"), tmp_path / "runs", workers=1)
    assert measured


def test_a_cluster_of_this_machine_does_not_change_later_ones():
    constants = pytest.importorskip("ray._private.ray_constants")
    usual = constants.ENABLE_RAY_CLUSTER
    with cluster._on_loopback():
        assert constants.ENABLE_RAY_CLUSTER is False
    assert usual == constants.ENABLE_RAY_CLUSTER


@pytest.mark.parametrize(("address", "given"), [(None, "local"), ("auto", "auto"), ("head:6379", "head:6379")])
def test_the_cluster_of_the_environment_is_used_only_when_it_is_asked_for(address, given, monkeypatch):
    monkeypatch.setattr(cluster, "_check_reachable", lambda address: None)
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    seen = {}
    cluster._connect(SimpleNamespace(init=lambda **options: seen.update(options)), address, 3)
    assert seen["address"] == given
    assert (seen.get("num_cpus"), seen.get("include_dashboard")) == ((None, None) if address else (3, False))


# -------------------------------------------------------------------------------------------------------- real clusters


def same(one, other):
    """True if two folders of stores have the same files with the same bytes."""
    return content(one) == content(other)


def many(videos, times):
    """The clips of the videos several times, under other ids."""
    manifest = Manifest.read(videos / "kitchens.csv")
    clips = [replace(clip, clip_id=f"{clip.clip_id}-{k}") for k in range(times) for clip in manifest]
    return replace(manifest, clips=tuple(clips))


@pytest.fixture(scope="module")
def nodes():
    """A cluster of two nodes with a CPU each, as `ray start` makes them on two machines."""
    utils = pytest.importorskip("ray.cluster_utils")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.second = made.add_node(num_cpus=1)
    yield made
    made.shutdown()


@pytest.fixture
def engines(monkeypatch):
    """The engines that are entered, in order."""
    entered, enter = [], OnRay.__enter__
    monkeypatch.setattr(OnRay, "__enter__", lambda self: (entered.append(self), enter(self))[1])
    return entered


def test_two_nodes_make_the_bytes_of_one_process(videos, tmp_path, nodes, engines, monkeypatch):
    manifest, took = many(videos, 5), set()
    home = OnRay._home
    monkeypatch.setattr(OnRay, "_home", lambda self, node, *rest: (took.add(node), home(self, node, *rest))[1])
    featcache.extract(manifest, ["hog", "logmel"], tmp_path / "local", windows="segments:2")
    made = featcache.extract(
        manifest, ["hog", "logmel"], tmp_path / "ray", windows="segments:2", engine="ray", address=nodes.address
    )
    assert made.notes == []
    assert len(took) == 2
    assert same(tmp_path / "local", tmp_path / "ray")


def sent(monkeypatch):
    """The rows of each chunk that is given to an actor, as they are given."""
    chunks, following = [], OnRay._next

    def spied(self, actor, jobs):
        if chunk := following(self, actor, jobs):
            chunks.append([job.row for job in chunk.jobs])
        return chunk

    monkeypatch.setattr(OnRay, "_next", spied)
    return chunks


def process_of(ray, actor):
    """The process of an actor."""
    return ray.get(actor.handle.__ray_call__.remote(lambda self: os.getpid()))


@pytest.mark.slow
def test_workers_killed_at_random_moments_leave_the_bytes_of_one_process(videos, tmp_path, nodes, engines, monkeypatch):
    """Five kills, and a node that goes for good and another that comes, in six extractions."""
    manifest, chunks, draw, repeated = many(videos, 16), sent(monkeypatch), random.Random(21), 0
    options = {"windows": "segments:2", "engine": "ray", "address": nodes.address}
    featcache.extract(manifest, ["hog", "logmel"], tmp_path / "local", windows="segments:2")
    for number in range(6):
        chunks.clear()
        moment = draw.randrange(1, len(manifest) // 2)  # most workers have chunks then

        def hurt(done, total, number=number, moment=moment):
            if done != moment:
                return
            if number == 5:
                nodes.remove_node(nodes.second, allow_graceful=False)
                nodes.second = nodes.add_node(num_cpus=1)
                return
            ready = [actor for actor in engines[-1]._actors if actor.node]
            os.kill(process_of(engines[-1]._ray, draw.choice(ready)), signal.SIGKILL)

        made = featcache.extract(manifest, ["hog", "logmel"], tmp_path / str(number), progress=hurt, **options)
        assert same(tmp_path / "local", tmp_path / str(number)), (number, moment)
        counts = Counter(map(tuple, chunks))
        twice = [chunk for chunk, times in counts.items() if times > 1]
        assert len(twice) <= IN_FLIGHT, (number, moment)
        assert max(counts.values()) <= 2, (number, moment)
        assert sum(map(len, counts)) == len(manifest)
        if twice:
            assert any("lost and replaced" in note for note in made.notes)
        repeated += len(twice)
    assert repeated


@pytest.mark.slow
def test_a_command_that_was_killed_resumes_and_a_node_of_other_versions_is_left_out(videos, tmp_path, nodes, engines):
    manifest = many(videos, 12)
    featcache.extract(manifest, ["hog", "logmel"], tmp_path / "local", windows="segments:2")
    (tmp_path / "manifest").mkdir()
    manifest.write(tmp_path / "manifest" / "kitchens.csv")
    words = ["extract", tmp_path / "manifest" / "kitchens.csv", "hog", "logmel", "--windows", "segments:2"]
    words += ["--stores", tmp_path / "ray", "--engine", "ray", "--address", nodes.address]
    process = command(*words)
    log = tmp_path / "ray" / "kitchens" / "logmel.zarr" / "journal" / "0.log"
    assert wait_for(lambda: log.exists() and log.stat().st_size > 0)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert FeatureStore.open(tmp_path / "ray" / "kitchens" / "logmel.zarr").counts()["done"] < len(manifest)
    (tmp_path / "other" / "numpy-0.1.dist-info").mkdir(parents=True)
    (tmp_path / "other" / "numpy-0.1.dist-info" / "METADATA").write_text("Name: numpy\nVersion: 0.1\n")
    path = os.pathsep.join([str(tmp_path / "other"), os.environ.get("PYTHONPATH", "")])
    third = nodes.add_node(num_cpus=1, env_vars={"PYTHONPATH": path})
    made = featcache.extract(
        manifest,
        ["hog", "logmel"],
        tmp_path / "ray",
        windows="segments:2",
        engine="ray",
        address=nodes.address,
        workers=3,
    )
    nodes.remove_node(third)
    assert [("0.1" in note, note.count("left out")) for note in made.notes] == [(True, 1)]
    assert same(tmp_path / "local", tmp_path / "ray")


@pytest.mark.slow
def test_extractors_of_plug_ins_compute_on_the_nodes(tmp_path, nodes, monkeypatch):
    (tmp_path / "plugins" / "extractors").mkdir(parents=True)
    (tmp_path / "plugins" / "extractors" / "where.py").write_text(EXTRACTOR)
    (tmp_path / "used").mkdir()
    monkeypatch.setenv("FEATCACHE_PLUGINS", str(tmp_path / "plugins"))  # which the nodes do not have
    for k in range(30):
        np.save(tmp_path / f"{k}.npy", np.arange(k, k + 3.0))
    manifest = Manifest("m", tuple(Clip(str(k), "d", "train", f"{k}.npy") for k in range(30)), tmp_path)
    options = {"set": {"where.folder": str(tmp_path / "used")}}
    featcache.extract(manifest, "where", tmp_path / "ray", engine="ray", address=nodes.address, **options)
    used = {path.name.split()[-1] for path in (tmp_path / "used").iterdir()}
    assert used
    assert str(os.getpid()) not in used
    featcache.extract(manifest, "where", tmp_path / "local", **options)
    assert same(tmp_path / "local", tmp_path / "ray")


def listening_at(processes):
    """The addresses at which processes listen, in hexadecimal digits."""
    sockets = set()
    for process in processes:
        for entry in Path(f"/proc/{process}/fd").glob("*"):
            try:
                sockets |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(entry)))
            except OSError:  # it has just been closed
                continue
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and inode in sockets:
                found.add(local.partition(":")[0])
    return found


LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


def content_of(process, name):
    """The text that the system has of a process: "cmdline", "environ"; "" if it has ended."""
    try:
        return Path(f"/proc/{process}/{name}").read_bytes().decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [("SIGINT to all", 130), ("SIGTERM", 143), ("SIGKILL", -9)])
def test_a_cluster_for_one_command_is_private_and_ends_with_it(videos, tmp_path, how, code):
    """Its processes listen on loopback only and report nothing; none is left, whatever ends the command."""
    manifest = many(videos, 40)
    (tmp_path / "manifest").mkdir()
    manifest.write(tmp_path / "manifest" / "kitchens.csv")
    words = ["extract", tmp_path / "manifest" / "kitchens.csv", "hog", "logmel", "--stores", tmp_path / "ray"]
    words += ["--engine", "ray", "--workers", "2"]
    process = command(*words, env=os.environ | {"RAY_ADDRESS": "192.0.2.1:6379"})
    log = tmp_path / "ray" / "kitchens" / "logmel.zarr" / "journal" / "0.log"
    assert wait_for(lambda: process.poll() is not None or (log.exists() and log.stat().st_size > 0), 120)
    cluster_of = descendants(process.pid)
    names = " ".join(content_of(each, "cmdline") for each in cluster_of)
    assert "raylet" in names, process.communicate()
    assert "dashboard/dashboard.py" not in names or "--disable-frontend" in names
    servers = [each for each in cluster_of if "ray/core/src" in content_of(each, "cmdline")]  # others change theirs
    environments = [*filter(None, (content_of(each, "environ") for each in servers))]
    assert len(environments) == 2
    assert all("RAY_USAGE_STATS_ENABLED=0" in each.split("\0") for each in environments)
    assert listening_at([process.pid, *cluster_of]) <= LOOPBACK
    returncode, seconds, stderr = stopped(process, how)
    assert returncode == code, stderr
    assert gone(cluster_of), [content_of(each, "cmdline") for each in cluster_of]
    if how != "SIGKILL":
        assert re.search(r"Stopped by \S+ after \d+ of 320 clips; finished work is kept, .*same command", stderr)
        assert "Traceback" not in stderr
        assert "logging.cc" not in stderr
        assert seconds < 10  # on a busy machine; 1.1 s on an idle one


@pytest.mark.slow
def test_runs_trained_on_a_cluster_are_those_of_one_process(tmp_path, nodes):
    """The heads are equal to the bit; a sweep's result rows come from this process."""
    stores, configs = write_all(tmp_path / "stores"), [run(seed=seed) for seed in range(2)]
    configs += [run(seed=2, init_from=configs[0].id)]
    here = pipelines.train(configs, stores, tmp_path / "local", batch="off")
    news = []
    options = {"batch": "off", "engine": "ray", "address": nodes.address}
    there = pipelines.train(configs, stores, tmp_path / "ray", progress=lambda *at: news.append(at), **options)
    assert [outcome.status for outcome in (*here, *there)] == ["trained"] * 6
    assert news[-1] == (3 * 12, 3 * 12)
    for outcome in here:
        head = tmp_path / "ray" / outcome.folder.name / "head.safetensors"
        assert head.read_bytes() == (outcome.folder / "head.safetensors").read_bytes()
    swept = pipelines.sweep(configs[:1], stores, tmp_path / "ray", grid="optim.lr=0.1,0.01", **options)
    assert swept.whole
    assert {row.run for row in swept.results} == set(swept.experiment.by_id)


def halved(job):
    """Half of a number; kills its process when it is 3, but only the first time, and fails for 5."""
    folder, number = job
    if number == 3 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 5:
        raise ConfigError("5 is odd")
    tell(f"half of {number}, {os.environ.get('FEATCACHE_NO_LOCKS')}")
    return number / 2


@pytest.mark.slow
def test_jobs_on_a_cluster_send_messages_and_errors_and_come_again_when_they_are_lost(tmp_path, nodes, monkeypatch):
    heard = []
    monkeypatch.setenv("FEATCACHE_NO_LOCKS", "1")  # the nodes have no such variable
    with cluster.connected(nodes.address, 1) as ray:
        jobs = deque((tmp_path, number) for number in range(1, 5))
        done = dict(cluster.in_tasks(ray, 0.0, halved, jobs, 2, heard.append))
        assert {job[1]: half for job, half in done.items()} == {1: 0.5, 2: 1.0, 3: 1.5, 4: 2.0}
        assert sorted(heard) == [f"half of {number}, 1" for number in range(1, 5)]
        with pytest.raises(ConfigError, match="5 is odd"):
            list(cluster.in_tasks(ray, 0.0, halved, deque([(tmp_path, 5)]), 2))
