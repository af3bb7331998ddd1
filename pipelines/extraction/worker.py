"""A worker of an engine that computes in other processes: it loads the extractors of an order, and computes clips."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from featcache import plugins
from featcache.errors import FeatcacheError, MediaAbsentError, MediaError
from featcache.extractors import Extractor
from featcache.manifest import Manifest
from featcache.windows import Plan
from featcache.wording import first_line
from pipelines.extraction.assembly import Part, compute_pool
from pipelines.extraction.engine import Job, Local
from pipelines.extraction.extract import recipe_of, versions
from pipelines.extraction.extractors import Order


@dataclass(frozen=True)
class Task:
    """An extraction as plain values, for workers."""

    order: Order
    manifest: Manifest
    plan: Plan
    folder: str  #: current folder of the caller, from which relative paths start
    plugged: str | None  #: the caller's plug-ins, see `plugins.described`

    @classmethod
    def here(cls, order: Order, manifest: Manifest, plan: Plan) -> "Task":
        """Return the extraction for workers that have the same folders as this process."""
        return cls(order, manifest, plan, os.getcwd(), plugins.described())


class Report(NamedTuple):
    """The readiness of a worker."""

    error: str = ""  #: reason why it cannot compute
    made: dict[str, Any] = {}  # noqa: RUF012  #: what its extractors are, see `made_of`
    facts: dict[str, dict[str, str]] = {}  # noqa: RUF012  #: extractor -> facts that a store records
    found: dict[str, int] = {}  # noqa: RUF012  #: source -> its bytes, of the sources that it can read


class Computed(NamedTuple):
    """The parts of a few clips."""

    parts: list[Part]
    unread: dict[int, str]  #: row -> its source, of clips that have failed because the file cannot be opened here
    busy: float  #: seconds in which extractors computed


class Worker:
    """The extractors of a task in this process. `report` comes first; `compute` may run in several threads."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._extractors: list[Extractor] = []
        self._pool: ThreadPoolExecutor | None = None
        self._threads = 1

    def report(self, sources: Sequence[str], threads: int) -> Report:
        """Load the extractors, and look for these sources. threads: decoding threads of each call of `compute`."""
        with suppress(OSError):  # absolute paths do not need it
            os.chdir(self.task.folder)
        self._threads = threads
        try:
            plugins.take(self.task.plugged)
            self._extractors = self.task.order.load()
            self._pool = compute_pool(self._extractors)
            made = made_of(self._extractors, self.task.plan)
        except Exception as error:  # of any library: the caller names it with the node
            kind = "" if isinstance(error, FeatcacheError) else f"{type(error).__name__}: "
            return Report(f"{kind}{first_line(error)}")
        facts = {extractor.name: extractor.facts for extractor in self._extractors}
        return Report("", made, facts, found(self.task.manifest, sources))

    def compute(self, jobs: Sequence[Job]) -> Computed:
        """Compute the parts of these clips."""
        task = self.task
        engine = Local(task.manifest, self._extractors, task.plan, self._threads, self._pool)
        parts = [part._replace(reason=_plain(part.reason)) for part in engine.parts(iter(jobs))]
        failed = {part.row for part in parts if isinstance(part.reason, MediaError)}
        sources = {row: task.manifest.clips[row].source for row in sorted(failed)}
        readable = found(task.manifest, [*filter(None, sources.values())])
        unread = {row: source for row, source in sources.items() if source and source not in readable}
        return Computed(parts, unread, engine.busy)


def made_of(extractors: Sequence[Extractor], plan: Plan) -> dict[str, Any]:
    """Return everything that determines the rows of these extractors: recipes, and versions of libraries."""
    return {"versions": versions(), **{each.name: recipe_of(each, plan, "") for each in extractors}}


def found(manifest: Manifest, sources: Sequence[str]) -> dict[str, int]:
    """Return source -> its bytes, of the files and folders that this process can open."""
    sizes = {}
    for source in sources:
        path: Path = manifest.root / source
        with suppress(OSError):
            if path.is_dir():
                sizes[source] = len(os.listdir(path))
            else:
                with path.open("rb") as file:
                    sizes[source] = os.fstat(file.fileno()).st_size
    return sizes


def _plain(reason: FeatcacheError | None) -> FeatcacheError | None:
    """Return the reason as an error that every process can unpickle, without the objects that it refers to."""
    if reason is None:
        return None
    return (MediaAbsentError if isinstance(reason, MediaAbsentError) else MediaError)(str(reason))
