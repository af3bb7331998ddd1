"""The engine that computes on a Ray cluster: actors compute clips, and their parts come home to this process.

Each actor is a `Worker` with a network of its own. It gets a few clips at a time, and at most two such chunks wait for
it, so little is computed twice when it is killed, and little waits in memory. An actor that is killed is replaced, and
its clips are given to others; clips that were lost twice are computed one by one, so that one which kills its actor is
found. A node that makes other features, or cannot read files that others read, is left out.
"""

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Self

from featcache.cluster import LOOK_SECONDS, PATIENCE, elsewhere, node_name, room, room_for_one, unable
from featcache.errors import ConfigError, FeatcacheError
from featcache.extractors import Extractor
from featcache.store.reader import recipe_differences
from featcache.wording import amount, first, first_line, quoted
from pipelines.extraction.assembly import Part
from pipelines.extraction.engine import Job
from pipelines.extraction.worker import Report, Task, Worker, found, made_of

CHUNK = 8  #: clips that an actor gets at a time at first
FEWEST, MOST = 4, 32  #: clips that it gets later on: as many as take CHUNK_SECONDS
CHUNK_SECONDS = 1.0
IN_FLIGHT = 2  #: chunks that an actor has: it computes one while it decodes the next
PROBED = 8  #: sources that each node looks for before its first clip
SUSPECT = 2  #: losses of a chunk with its actor after which its clips are computed one by one, each alone in an actor
KILLS = 5  #: losses of a clip, the last ones alone in an actor, after which it is the cause
DEATHS = 5  #: actors, besides one for each worker, that may be lost one after another without a chunk that comes home
KEPT = "the rows computed so far are kept: run the same command again"
SECOND_LOOK = 60.0  #: seconds that a clip whose file was not found waits for a worker of another node


def next_size(size: int, clips: int, seconds: float) -> int:
    """Return the size of the next chunks after one of so many clips took so long; it doubles at most."""
    return max(FEWEST, min(int(clips * CHUNK_SECONDS / max(seconds, 1e-3)), MOST, 2 * size))


class Placed(Worker):
    """A worker that reports its node, too."""

    def placed(self, sources: Sequence[str], gpus: float) -> tuple[str, Report]:
        """Return the node, and the report."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        resources: dict[str, float] = next((facts["Resources"] for facts in ray.nodes() if facts["NodeID"] == node), {})
        share = resources.get("CPU", 1.0) * gpus / resources.get("GPU", 1.0) if gpus else 1.0
        return node, self.report(sources, max(1, int(share)))


@dataclass(eq=False)
class _Chunk:
    """A few clips on their way through the cluster."""

    jobs: tuple[Job, ...]
    lost: int = 0  #: actors that were lost with it
    avoid: str = ""  #: node that could not read its sources
    held: tuple[Part, ...] = ()  #: parts of that node, for the case that no other node can read them either
    since: float = field(default_factory=time.monotonic)  #: time when it was made

    @property
    def suspect(self) -> bool:
        """True if it may have killed its actors."""
        return self.lost >= SUSPECT

    def pieces(self) -> "list[_Chunk]":
        """Return the chunk, or if it is suspect a chunk for each of its clips."""
        return [replace(self, jobs=(job,)) for job in self.jobs] if self.suspect else [self]


@dataclass(eq=False)
class _Actor:
    """A worker on some node."""

    handle: Any
    reporting: Any  #: reference of its report
    node: str = ""  #: "" until it has reported
    chunks: dict[Any, _Chunk] = field(default_factory=dict)  #: reference of the parts -> the clips that it computes


class OnRay:
    """An engine whose actors live as long as its `with` block; `facts` are the extractors' facts on their nodes.

    ray: a connected Ray. extractors: those of the task in this process, with which the actors' are compared.
    workers: actors. gpus: GPUs of each, or a share of one.
    Raises ConfigError, with the reason of each node, if no node can compute.
    """

    worker: type[Placed] = Placed

    def __init__(
        self, ray: Any, task: Task, extractors: Sequence[Extractor], *, workers: int, gpus: float = 0.0
    ) -> None:
        self.busy, self.notes = 0.0, list[str]()
        self.facts: dict[str, dict[str, str]] = {}
        self._ray, self._task, self._workers, self._gpus = ray, task, workers, gpus
        self._made = made_of(extractors, task.plan)
        self._sources = [*islice(dict.fromkeys(clip.source for clip in task.manifest if clip.source), PROBED)]
        self._found = {"": found(task.manifest, self._sources)}  # node -> the sources that it can read; "": this one
        self._faulty: dict[str, str] = {}  # node -> reason
        self._names: dict[str, str] = {}  # node -> its name
        self._actors: list[_Actor] = []
        self._again: deque[_Chunk] = deque()
        self._size = CHUNK
        self._failures = 0  # actors that were lost since the last chunk came home
        self._replaced: list[str] = []  # the reasons of all that were lost
        self._repeated = 0  # clips that they had
        self._killers: list[Job] = []  # clips that killed their actors
        self._alone = time.monotonic()  # time since which no actor can compute

    def __enter__(self) -> Self:
        self._task_there = self._ray.put(self._task)
        room_for_one(self._ray, self._gpus)
        try:
            self._replace()
            self.wait(1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            self._ray.kill(actor.handle)
        self._actors.clear()

    def wait(self, workers: int) -> None:
        """Wait until so many workers can compute; nothing may have been sent to them yet."""
        while sum(bool(actor.node) for actor in self._actors) < workers:
            deque(self._arrived(), maxlen=0)

    def parts(self, jobs: Iterator[Job]) -> Generator[list[Part], None, None]:
        """Yield the parts of each chunk as they come home."""
        self.busy = 0.0
        while True:
            yield from self._unseconded()
            self._send(jobs)
            if not self._again and not any(actor.chunks for actor in self._actors):
                break
            yield from self._arrived()
        if self._killers:
            raise FeatcacheError(self._advice())
        if self._replaced:
            again = f"; {amount(self._repeated, 'clip')} that they had were computed again" if self._repeated else ""
            lost = f"{amount(len(self._replaced), 'worker')} lost and replaced"
            self.notes.append(f"{lost}{again} ({self._replaced[-1]})")
            self._replaced.clear()
            self._repeated = 0

    # -------------------------------------------------------------------------------------------------------- chunks

    def _send(self, jobs: Iterator[Job]) -> None:
        """Give every actor that is ready its next chunks, one each before two each."""
        for count in range(1, IN_FLIGHT + 1):
            for actor in [each for each in self._actors if each.node and len(each.chunks) < count]:
                if any(chunk.suspect for chunk in actor.chunks.values()):
                    continue
                if not (chunk := self._next(actor, jobs)):
                    continue
                actor.chunks[actor.handle.compute.remote(chunk.jobs)] = chunk

    def _next(self, actor: _Actor, jobs: Iterator[Job]) -> _Chunk | None:
        """Return the next chunk for an actor; a suspect one only if the actor has no other."""
        for chunk in self._again:
            if chunk.avoid != actor.node and not (chunk.suspect and actor.chunks):
                self._again.remove(chunk)
                return chunk
        new = tuple(islice(jobs, self._size))
        return _Chunk(new) if new else None

    def _measure(self, chunk: _Chunk) -> None:
        """Choose the size of the next chunks: many clips if they are fast, few clips to compute again if not."""
        if not (chunk.lost or chunk.avoid):
            self._size = next_size(self._size, len(chunk.jobs), time.monotonic() - chunk.since)

    def _arrived(self) -> Iterator[list[Part]]:
        """Wait for reports and parts, and yield the parts; replace actors that were lost meanwhile."""
        owners = {ref: actor for actor in self._actors for ref in (*actor.chunks, actor.reporting) if ref is not None}
        first, rest = self._ray.wait([*owners], num_returns=1, timeout=LOOK_SECONDS)
        more = self._ray.wait(rest, num_returns=len(rest), timeout=0)[0] if first and rest else []
        for ref in (*first, *more):
            actor = owners[ref]
            if actor not in self._actors:  # it was lost with another reference
                continue
            try:
                answer = self._ray.get(ref)
            except self._ray.exceptions.RayError as error:
                self._lost(actor, first_line(getattr(error, "cause", None) or error))
                continue
            self._alone = time.monotonic()
            if ref is actor.reporting:
                self._reported(actor, *answer)
                continue
            chunk = actor.chunks.pop(ref)
            self._failures = 0
            self._measure(chunk)
            self.busy += answer.busy / sum(bool(each.node) for each in self._actors)
            yield from self._home(actor.node, chunk, answer.parts, answer.unread)
        self._replace()
        if not first:
            self._look()

    def _home(self, node: str, chunk: _Chunk, parts: Sequence[Part], unread: dict[int, str]) -> Iterator[list[Part]]:
        """Yield the parts of a chunk; those whose files this node cannot read go to another node, once."""
        if chunk.avoid:
            rows = {job.row for job in chunk.jobs} - unread.keys()
            if rows and chunk.avoid not in self._faulty:
                source = self._task.manifest.clips[min(rows)].source
                self._blame(chunk.avoid, f"cannot read {source!r}, which {self._name(node)} reads")
            yield [*parts]
            return
        yield [part for part in parts if part.row not in unread]
        if here := found(self._task.manifest, [*unread.values()]):
            self._again.extend(_Chunk((job,)) for job in chunk.jobs if job.row in unread)
            if node not in self._faulty:
                source = next(iter(here))
                self._blame(node, f"cannot read {source!r}, which this machine reads; is the folder mounted there?")
            return
        for job in chunk.jobs:
            if job.row in unread:
                held = tuple(part for part in parts if part.row == job.row)
                self._again.append(_Chunk((job,), avoid=node, held=held))

    def _unseconded(self) -> Iterator[list[Part]]:
        """Yield the parts of clips whose files one node cannot read, where no other node can be asked."""
        now = time.monotonic()
        for chunk in [each for each in self._again if each.avoid]:
            others = [each for each in self._actors if each.node != chunk.avoid]
            if chunk.avoid in self._faulty:
                chunk.avoid, chunk.held = "", ()  # that node's word does not count
            elif not any(each.node for each in others) and (not others or now - chunk.since > SECOND_LOOK):
                self._again.remove(chunk)
                yield [*chunk.held]

    # -------------------------------------------------------------------------------------------------------- actors

    def _replace(self) -> None:
        """Start actors until there are as many as wanted, on nodes without a fault."""
        options = {"num_cpus": 1, "num_gpus": self._gpus, "max_concurrency": IN_FLIGHT} | elsewhere(self._faulty)
        while len(self._actors) < self._workers:
            handle = self._ray.remote(self.worker).options(**options).remote(self._task_there)
            self._actors.append(_Actor(handle, handle.placed.remote(self._sources, self._gpus)))

    def _reported(self, actor: _Actor, node: str, report: Report) -> None:
        """Take an actor among those that compute, or blame its node."""
        actor.reporting, actor.node = None, node
        if node in self._faulty:  # it was started before the fault was known
            self._drop(actor)
        elif report.error:
            self._blame(node, report.error)
        elif differences := recipe_differences(self._made, report.made):
            key, ours, theirs = differences[0]
            self._blame(node, f"would make other features: {key} is {theirs!r} there and {ours!r} here")
        elif differences := recipe_differences(self.facts or report.facts, report.facts):
            key, first_kind, its_kind = differences[0]
            there = f"{key} is {its_kind!r} there and {first_kind!r} on the first node"
            self._blame(node, f"is of another kind, so its rows would have other last digits: {there}")
        else:
            self._found[node] = report.found
            for other in [each for each in self._found if each and each not in self._faulty]:
                self._compare(other)
            self.facts = self.facts or report.facts

    def _compare(self, node: str) -> None:
        """Blame a node that lacks a source which another one has, or that has another file in its place."""
        for other, sizes in self._found.items():
            for source, size in sizes.items():
                here = self._found[node].get(source)
                if here is None or (not other and here != size):
                    name = self._name(other) if other else "this machine"
                    fault = "cannot read" if here is None else "has another file as"
                    return self._blame(node, f"{fault} {source!r}, which {name} reads; is the folder mounted there?")
        return None

    def _blame(self, node: str, reason: str) -> None:
        """Leave a node out, and name it once; ConfigError if no other is left."""
        self._faulty[node] = reason
        self.notes.append(f"{self._name(node)} is left out: it {reason}")
        for actor in [each for each in self._actors if each.node == node]:
            self._drop(actor)
        if not room(self._ray, self._gpus, without=self._faulty):
            raise ConfigError(f"no node of the cluster can compute: {self._reasons()}")

    def _lost(self, actor: _Actor, reason: str) -> None:
        """Give the clips of an actor to others; FeatcacheError if actors are lost one after another."""
        self._failures += 1
        self._replaced.append(reason)
        chunks = [*actor.chunks.values()]
        for ref, chunk in [*actor.chunks.items()]:
            chunk.lost += 1
            self._repeated += len(chunk.jobs)
            if chunk.lost >= KILLS:
                self._killers += chunk.jobs
                self._repeated -= len(chunk.jobs)
                del actor.chunks[ref]
        self._drop(actor)
        if not actor.node:
            suspects = {facts["NodeID"] for facts in self._ray.nodes() if facts["Alive"]}
            suspects -= self._found.keys() | self._faulty.keys()
            for node, why in unable(self._ray, suspects, __name__).items():
                self._failures = 0
                self._blame(node, why)
        if self._failures >= DEATHS + self._workers:
            ids = quoted(self._task.manifest.clips[job.row].clip_id for chunk in chunks for job in chunk.jobs)
            clips = f", the last one with the clips {ids}" if ids else ""
            raise FeatcacheError(f"{self._failures} workers were lost one after another ({reason}){clips}; {KEPT}")

    def _advice(self) -> str:
        """Return the error of clips that killed their actors."""
        clips = [self._task.manifest.clips[job.row] for job in self._killers]
        ids = quoted(dict.fromkeys(clip.clip_id for clip in clips))
        files = first(dict.fromkeys(clip.source for clip in clips if clip.source), 3)
        return (
            f"{amount(len(clips), 'clip')} without features, because each was lost with {KILLS} workers, at last as "
            f"their only clip: {ids} ({self._replaced[-1]}); all other clips are kept. Give workers more memory (fewer "
            f"--workers on a node), or move {files} away so that it is recorded as failed; then run the same command "
            "again"
        )

    def _drop(self, actor: _Actor) -> None:
        """End an actor; its clips are computed again."""
        self._actors.remove(actor)
        self._again.extendleft(piece for chunk in actor.chunks.values() for piece in chunk.pieces())
        self._ray.kill(actor.handle)

    def _look(self) -> None:
        """Raise FeatcacheError if the cluster has had no place for an actor for a long time."""
        if any(actor.node for actor in self._actors):
            self._alone = time.monotonic()
        elif time.monotonic() - self._alone > PATIENCE:
            faults = f"; {self._reasons()}" if self._faulty else ""
            raise FeatcacheError(f"no node of the cluster had room for {PATIENCE:.0f} s{faults}; {KEPT}")

    def _name(self, node: str) -> str:
        """Return the name of a node, which may be gone."""
        self._names.setdefault(node, node_name(self._ray, node))
        return self._names[node]

    def _reasons(self) -> str:
        return "; ".join(f"{self._name(node)} {reason}" for node, reason in self._faulty.items())
