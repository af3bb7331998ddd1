"""Engines compute an extraction: they take rows of a manifest and yield whole parts, in any order.

The caller chooses the rows and keeps the parts (`extract.py`), so an engine has no stores, and may compute anywhere.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple, Protocol

from featcache.extractors import Extractor
from featcache.manifest import Manifest
from featcache.media import Pieces, windows_of
from featcache.windows import Plan
from pipelines.extraction.assembly import Assembly, Gathering, Part
from pipelines.extraction.interleaved import interleaved

BOUND = 64  #: decoded windows that may wait, whatever the length of the clips


class Job(NamedTuple):
    """A clip that is still to be computed, and the extractors that need it."""

    row: int  #: row of the clip in the manifest
    extractors: tuple[str, ...]


class Engine(Protocol):
    """Jobs in, parts out: one part for each job and extractor, or an error that ends the extraction."""

    busy: float  #: seconds in which extractors computed for the last `parts`; the mean of those that work side by side
    notes: list[str]  #: remarks for the user on the engine itself, which the caller takes out

    def parts(self, jobs: Iterator[Job]) -> Generator[Part | list[Part], None, None]:
        """Yield the part of each job and extractor as soon as it is whole, or a list of parts that come together.

        `jobs` is advanced in the caller's thread, and only a little ahead: a job that was taken is a promise to the
        other processes that share the work. The caller closes the generator, and everything then stops.
        """


#: makes the engine of a manifest, extractors and a window plan
Engines = Callable[[Manifest, Sequence[Extractor], Plan], Engine]


class Local:
    """The engine of this process: threads decode ahead of the extractors, which compute in threads of their own.

    workers: decoding threads. pool: the threads that compute, which several engines may share.
    """

    def __init__(
        self,
        manifest: Manifest,
        extractors: Sequence[Extractor],
        plan: Plan,
        workers: int = 2,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self.busy, self.notes = 0.0, list[str]()
        self._pool = pool
        self._manifest, self._plan, self._workers = manifest, plan, workers
        self._extractors = {extractor.name: extractor for extractor in extractors}

    def parts(self, jobs: Iterator[Job]) -> Generator[Part, None, None]:
        """Yield the part of each job and extractor as soon as it is whole."""
        flying: dict[int, dict[str, Gathering]] = {}  # clips being decoded or computed: row -> extractor -> its rows
        whole: list[Part] = []

        def rows() -> Iterator[int]:
            for row, names in jobs:
                flying[row] = {name: Gathering(row, self._extractors[name]) for name in names}
                yield row

        def read(row: int) -> Pieces:
            clip, wanted = self._manifest.clips[row], [part.extractor for part in list(flying[row].values())]
            return windows_of(self._manifest.path(clip), clip, self._plan, wanted)

        with (
            Assembly([*self._extractors.values()], whole.append, self._pool) as assembly,
            closing(interleaved(rows(), read, workers=self._workers, bound=BOUND)) as pieces,
        ):
            for row, piece in pieces:
                parts = [flying[row][piece.extractor]] if piece else list(flying.pop(row).values())
                for part in parts:
                    try:
                        assembly.add(part, piece)
                    finally:  # parts that were whole before an error are kept
                        yield from _taken(whole)
            try:
                assembly.end()
            finally:
                yield from _taken(whole)
        self.busy = assembly.busy


def _taken(whole: list[Part]) -> Iterator[Part]:
    """Yield the parts, and leave the list empty."""
    while whole:
        yield whole.pop(0)
