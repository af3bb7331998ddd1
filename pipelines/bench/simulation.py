"""A simulation of extraction by queues: its pace on machines that we do not have, and its bound there.

A clip is read and decoded window by window, with its flow. Windows wait for a batch, and a network computes them. Rows
go home, one process keeps them, and blocks may be pushed to an object store. Threads, batches and the room between them
are those of `pipelines/extraction`. Cores, GPUs, disks and networks are shared: when users ask for more than there is,
each gets the same part of what it asked for. Caches, Python's lock, failures and start-up are left out.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from random import Random

from pipelines.bench.queueing import Clock, Places, Process, Shared
from pipelines.extraction.engine import BOUND
from pipelines.extraction.on_ray import IN_FLIGHT, next_size

SHORT = 1e-9  #: seconds, for clips that are all kept at one moment
BUSY = 0.95  #: part of the time; hardware that is busy for longer is the bound, whatever threads are busy


@dataclass(frozen=True)
class Costs:
    """The costs of a clip for an extractor."""

    decoding: tuple[float, ...]  #: core-seconds to read, decode and prepare a clip, of several clips that differ
    forward: float  #: seconds of a forward pass: core-seconds, or seconds of a GPU
    windows: int = 5  #: windows of a clip
    batch: int = 1  #: windows that are computed together
    size: int = 1  #: windows of a forward pass; the last pass of a batch is filled up
    cores: int = 1  #: cores that a forward pass on a CPU can use
    flow: float = 0.0  #: seconds of a window's flow: core-seconds, or seconds of a GPU
    flow_on_gpu: bool = False
    keeping: float = 0.0  #: core-seconds of the process that keeps the rows of a clip
    media: float = 0.0  #: bytes of a clip's file
    row: float = 0.0  #: bytes of a clip's features in a store
    sent: float = 0.0  #: bytes of a clip's features as they come home


@dataclass(frozen=True)
class Site:
    """Machines: `workers` processes on each, with `decoders` decoding threads and, if `gpu`, a GPU each."""

    machines: int = 1
    cores: float = 1  #: cores of a machine
    others: float = 0.0  #: threads of other work that want the cores of a machine, too
    workers: int = 1
    decoders: int = 1
    gpu: bool = False
    threads: int = 1  #: threads of a process that compute batches
    chunk: int = 0  #: clips that a worker gets at a time at first, as with Ray; 0: it takes one whenever it can
    disk: float = 1e12  #: bytes per second at which media are read, by all machines together
    home: float = 1e12  #: bytes per second into the process that keeps the rows
    objects: float = 1e12  #: bytes per second into the object store


@dataclass
class Outcome:
    """A simulated extraction. What counts is its middle half, so that filling and draining do not.

    Chunks come home in waves, so the clips that are kept in that time are a few too many or too few. The pace is taken
    from the work that was done in it.
    """

    kept: list[float] = field(default_factory=list)  #: seconds at which each clip was kept, and pushed
    pace: float = 0.0  #: clips per second
    busy: dict[str, float] = field(default_factory=dict)  #: hardware, or a kind of threads -> part of the time
    spent: dict[str, float] = field(default_factory=dict)  #: kind of work -> its core-seconds
    share: float = 1.0  #: part of a core that a thread with work had, on average over all machines and clips

    @property
    def bound(self) -> str:
        """The hardware that is always busy, or else the busiest of all."""
        hardware = _hardware(self.busy)
        found = max(hardware, key=lambda name: hardware[name])
        if hardware[found] < BUSY:
            found = max(self.busy, key=lambda name: self.busy[name])
        return f"cores ({max(self.spent, key=lambda kind: self.spent[kind])})" if found == "cores" else found


def _hardware(values: dict[str, float]) -> dict[str, float]:
    """Return the values of hardware and of the one thread that keeps rows, without those of other threads."""
    return {name: value for name, value in values.items() if "threads" not in name}


class _Stream:
    """Clips on their way through one engine: a queue of decoded windows, and batches that are computed."""

    def __init__(self, clock: Clock, clips: Iterator[int], decoders: int, threads: int) -> None:
        self.since = clock.now
        self.clips, self.decoders = clips, decoders
        self.waiting = deque[int | None]()
        self.room, self.filled = Places(clock, BOUND), Places(clock, 0)
        self.ahead = Places(clock, threads + 1)

    def put(self, clip: int | None) -> None:
        self.waiting.append(clip)
        self.filled.give()


class _Worker:
    """A process with its threads; `cores` are those of its machine."""

    def __init__(self, clock: Clock, site: Site, cores: Shared) -> None:
        self.cores, self.gpu = cores, Shared(clock, 1.0)
        self.threads = Places(clock, site.threads)
        self.decoding = self.computing = 0.0  # seconds of its threads, without those of waiting for room or for work


class _Run:
    def __init__(self, costs: Costs, site: Site, clips: int, seed: int) -> None:
        self.costs, self.site, self.clock = costs, site, Clock()
        self.outcome, self.clips = Outcome(), clips
        self.middle = (clips // 4, max(clips // 4 + 1, 3 * clips // 4))  # the first and the last clip that counts
        self.engines, self.size = IN_FLIGHT if site.chunk else 1, site.chunk
        draw, order = Random(seed), range(len(costs.decoding))
        self.kinds = [kind for _ in range(-(-clips // len(order))) for kind in draw.sample(order, len(order))]
        self.left, self.todo = [costs.windows] * clips, iter(range(clips))
        self.cores = [Shared(self.clock, site.cores, site.others) for _ in range(site.machines)]
        self.workers = [_Worker(self.clock, site, cores) for cores in self.cores for _ in range(site.workers)]
        self.disk, self.home, self.objects = (Shared(self.clock, s) for s in (site.disk, site.home, site.objects))
        self.keeper, self.pusher, self.keeping = Places(self.clock, 1), Places(self.clock, 1), 0.0
        self.before = dict[str, float]()

    def run(self) -> Outcome:
        """Simulate all clips."""
        for worker in self.workers:
            for _ in range(self.engines):
                self.begin(worker)
        self.clock.run()
        total = _hardware(self.used())
        slowest = max(total, key=lambda name: total[name])  # the hardware that a clip keeps busy for longest
        busy = self.outcome.busy[slowest] or total[slowest] / self.clock.now  # 0: the site held all clips at a time
        self.outcome.pace = busy / max(SHORT, total[slowest] / self.clips)
        self.outcome.share = sum(each.share() for each in self.cores) / len(self.cores)
        return self.outcome

    def used(self) -> dict[str, float]:
        """Hardware, or a kind of threads -> seconds in which all of it was busy, so far."""
        share = lambda found: sum(each.used() / each.capacity for each in found) / len(found)  # noqa: E731
        N = len(self.workers)
        return {
            "decoding threads": sum(each.decoding for each in self.workers) / N / self.site.decoders / self.engines,
            "computing threads": sum(each.computing for each in self.workers) / N / self.site.threads,
            "the thread that keeps rows": self.keeping,
            "cores": share(self.cores),
            "GPU": share([each.gpu for each in self.workers]),
            "disk": share([self.disk]),
            "network": share([self.home]),
            "object store": share([self.objects]),
        }

    def begin(self, worker: _Worker) -> None:
        """Start an engine: on the clips of a chunk, or on all that are left."""
        chunk = [*islice(self.todo, self.size)]
        if self.site.chunk and not chunk:
            return
        stream = _Stream(self.clock, iter(chunk) if chunk else self.todo, self.site.decoders, self.site.threads)
        for _ in range(self.site.decoders):
            self.clock.start(self.decode(worker, stream))
        self.clock.start(self.gather(worker, stream, len(chunk)))

    def decode(self, worker: _Worker, stream: _Stream) -> Process:
        """Decode clip after clip, in one thread."""
        for clip in stream.clips:
            began = self.clock.now
            yield self.disk.use(self.costs.media, self.site.disk, "media")
            work = self.costs.decoding[self.kinds[clip]] / self.costs.windows
            for _ in range(self.costs.windows):
                yield worker.cores.use(work, 1, "decoding")
                if self.costs.flow:
                    place = worker.gpu if self.costs.flow_on_gpu else worker.cores
                    yield place.use(self.costs.flow, 1, "flow")
                worker.decoding += self.clock.now - began
                yield stream.room.take
                began = self.clock.now
                stream.put(clip)
        stream.decoders -= 1
        if not stream.decoders:
            stream.put(None)

    def gather(self, worker: _Worker, stream: _Stream, chunk: int) -> Process:
        """Gather windows into batches; the rows of a chunk go home together."""
        whole: list[int] = []
        gathered: list[int] = []
        clip: int | None = 0
        while clip is not None:
            yield stream.filled.take
            clip = stream.waiting.popleft()
            if clip is not None:
                stream.room.give()
                gathered.append(clip)
            if gathered and (clip is None or len(gathered) == self.costs.batch):
                yield stream.ahead.take
                self.clock.start(self.compute(worker, stream, gathered, chunk, whole))
                gathered = []

    def compute(self, worker: _Worker, stream: _Stream, batch: list[int], chunk: int, whole: list[int]) -> Process:
        """Compute a batch; whole clips go home."""
        yield worker.threads.take
        began, work = self.clock.now, -(-len(batch) // self.costs.size) * self.costs.forward
        place, pace = (worker.gpu, 1.0) if self.site.gpu else (worker.cores, float(self.costs.cores))
        yield place.use(work, pace, "network")
        worker.computing += self.clock.now - began
        worker.threads.give()
        stream.ahead.give()
        for clip in batch:
            self.left[clip] -= 1
            if not self.left[clip]:
                whole.append(clip)
                if not chunk:
                    self.clock.start(self.keep(worker, stream, 1, chunk))
        if chunk and len(whole) == chunk:
            self.clock.start(self.keep(worker, stream, chunk, chunk))

    def keep(self, worker: _Worker, stream: _Stream, clips: int, chunk: int) -> Process:
        """Bring clips home, keep and push them; the worker then gets its next chunk, which takes about a second."""
        if self.site.machines > 1:
            yield self.home.use(clips * self.costs.sent, self.site.home, "rows")
        yield self.keeper.take
        if chunk:
            self.size = next_size(self.size, chunk, self.clock.now - stream.since)
        for _ in range(clips):
            began = self.clock.now
            yield self.cores[0].use(self.costs.keeping, 1, "keeping")
            self.keeping += self.clock.now - began
        self.keeper.give()
        if chunk:
            self.begin(worker)
        yield self.pusher.take
        for _ in range(clips):
            yield self.objects.use(self.costs.row, self.site.objects, "blocks")
            self.note()
        self.pusher.give()

    def note(self) -> None:
        """Note that a clip is kept, and pushed."""
        self.outcome.kept.append(self.clock.now)
        first, last = self.middle
        if len(self.outcome.kept) == first + 1:
            self.before = self.used()
        elif len(self.outcome.kept) == last + 1:
            took = max(SHORT, self.clock.now - self.outcome.kept[first])
            passed = {name: value - self.before[name] for name, value in self.used().items()}
            # work of threads counts when it ends, so its part may be a little above 1
            self.outcome.busy = {name: min(1.0, seconds / took) for name, seconds in passed.items()}
            kinds = {kind for each in self.cores for kind in each.spent}
            self.outcome.spent = {kind: sum(each.spent[kind] for each in self.cores) for kind in kinds}


def simulate(costs: Costs, site: Site, clips: int, seed: int = 0) -> Outcome:
    """Simulate an extraction of at least two clips. seed: of the order of clips that differ."""
    return _Run(costs, site, clips, seed).run()
