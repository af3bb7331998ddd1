"""Windows of many clips, in any order -> batches -> rows -> whole clips.

A batch mixes windows of several clips, because each network has a batch size at which it is fast, whatever the number
of windows of a clip. A row does not depend on the rest of its batch, so the order of the windows does not matter.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from featcache.errors import FeatcacheError
from featcache.extractors import Extractor
from featcache.media import Nothing, Piece

Row = NDArray[np.float32]
DEVICE = ("OutOfMemoryError", "AcceleratorError")  #: errors of torch that are not the fault of a clip


class Part(NamedTuple):
    """A clip as one extractor has computed it, on any machine: its rows, or the reason for having none."""

    row: int  #: row of the clip in the manifest
    extractor: str
    features: Row | None = None  #: (T, *row_shape), in order of the windows or tokens
    times: NDArray[np.float64] | None = None  #: start and stop of the windows (2, T); NaN for tokens
    reason: FeatcacheError | None = None  #: reason for having no rows
    note: str = ""  #: note on the source, such as which of several streams is taken
    remarks: tuple[str, ...] = ()  #: remarks for the user, which are counted over all clips


@dataclass(eq=False)
class Gathering:
    """The rows of one clip that one extractor has computed so far."""

    row: int  #: row of the clip in the manifest
    extractor: Extractor
    expected: int = 0  #: number of windows of the clip, taken from the first one
    #: start and stop of the windows that have arrived
    pieces: dict[int, tuple[float, float]] = field(default_factory=dict)
    rows: dict[int, Row] = field(default_factory=dict)  #: rows that are computed, by number of the window
    tokens: int = 0  #: number of tokens, where each token of a caption has a row
    read: bool = False  #: True when the source has no more windows
    reason: FeatcacheError | None = None  #: reason for having no rows
    note: str = ""  #: note on the source
    remarks: dict[str, None] = field(default_factory=dict)  #: remarks in order, each once
    kept: bool = False  #: True when the part was passed to `keep`

    def part(self) -> Part:
        """Return the whole part."""
        features, times = (None, None) if self.reason else (self._features(), self._times())
        return Part(self.row, self.extractor.name, features, times, self.reason, self.note, tuple(self.remarks))

    def _features(self) -> Row:
        if self.tokens:
            return self.rows[0][: self.tokens]
        return np.stack([self.rows[number] for number in sorted(self.rows)])

    def _times(self) -> NDArray[np.float64]:
        if self.tokens:
            return np.full((2, self.tokens), np.nan)
        return np.array([self.pieces[number] for number in sorted(self.pieces)]).T


class _Batch(NamedTuple):
    places: list[tuple[Gathering, int]]  #: the part and the number of each window
    computed: Future[tuple[list[Row | Exception], float, float]]


def compute_pool(extractors: Sequence[Extractor]) -> ThreadPoolExecutor:
    """Return the threads that compute batches: as many as the extractors use efficiently."""
    return ThreadPoolExecutor(max(extractor.threads for extractor in extractors), thread_name_prefix="compute")


class Assembly:
    """A queue that gathers windows into batches, computes them in threads, and passes whole parts to `keep`.

    pool: the threads, which several assemblies may share (default: its own).
    """

    def __init__(
        self, extractors: Sequence[Extractor], keep: Callable[[Part], None], pool: ThreadPoolExecutor | None = None
    ) -> None:
        self.keep = keep
        self.busy = 0.0  #: seconds in which at least one batch was being computed
        self._until = 0.0
        self._gathering: dict[str, list[tuple[Gathering, Piece]]] = {extractor.name: [] for extractor in extractors}
        self._batches: deque[_Batch] = deque()
        self._ahead = max(extractor.threads for extractor in extractors) + 1  # one batch more than the threads compute
        self._shared = pool is not None
        self._pool = pool or compute_pool(extractors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for batch in self._batches:
            batch.computed.cancel()
        if not self._shared:
            self._pool.shutdown()

    def add(self, part: Gathering, piece: Piece | Nothing | None) -> None:
        """Add a window of this part, or the reason for having none, or None at the end of its source."""
        if piece is None:
            part.read = True
            if part.reason is None and not 0 < len(part.pieces) == part.expected:
                part.reason = FeatcacheError(
                    f"only {len(part.pieces)} of {part.expected} windows came; please report it"
                )
            self._finish(part)
        elif isinstance(piece, Nothing):
            part.reason = piece.reason
        elif part.reason is None and piece.number not in part.pieces:
            part.expected, part.note = piece.of, piece.note
            part.pieces[piece.number] = piece.start, piece.stop
            part.tokens = part.extractor.tokens(piece.window)
            part.remarks |= dict.fromkeys(filter(None, (part.extractor.remark(piece.window), piece.note)))
            gathered = self._gathering[part.extractor.name]
            gathered.append((part, piece))
            if len(gathered) == part.extractor.batch:
                self._submit(part.extractor)

    def end(self) -> None:
        """Compute the windows that are still gathered, and keep the last parts."""
        for gathered in self._gathering.values():
            if gathered:
                self._submit(gathered[0][0].extractor)
        while self._batches:
            self._collect()

    def _submit(self, extractor: Extractor) -> None:
        gathered, self._gathering[extractor.name] = self._gathering[extractor.name], []
        places = [(part, piece.number) for part, piece in gathered]
        windows = [piece.window for _, piece in gathered]
        self._batches.append(_Batch(places, self._pool.submit(_timed, extractor, windows)))
        while len(self._batches) > self._ahead or (self._batches and self._batches[0].computed.done()):
            self._collect()

    def _collect(self) -> None:
        """Wait for the oldest batch, and give its rows to their parts."""
        places, computed = self._batches.popleft()
        rows, began, ended = computed.result()
        self.busy += max(0.0, ended - max(began, self._until))
        self._until = max(self._until, ended)
        for (part, number), row in zip(places, rows, strict=True):
            if isinstance(row, Exception):
                failure = f"{part.extractor.name} stopped with {type(row).__name__}: {' '.join(str(row).split())}"
                part.reason = part.reason or FeatcacheError(failure)
            else:
                part.rows[number] = row
        for part in {id(part): part for part, _ in places}.values():
            self._finish(part)

    def _finish(self, part: Gathering) -> None:
        whole = part.read and (part.reason is not None or len(part.rows) == len(part.pieces))
        if whole and not part.kept:
            part.kept = True
            self.keep(part.part())


def _timed(extractor: Extractor, windows: list[NDArray[np.generic]]) -> tuple[list[Row | Exception], float, float]:
    began = time.monotonic()
    return _computed(extractor, windows), began, time.monotonic()


def _computed(extractor: Extractor, windows: list[NDArray[np.generic]]) -> list[Row | Exception]:
    """A row or an error for each window. If a batch fails, each of its windows is tried alone."""
    try:
        rows = extractor(np.stack(windows))
        if len(rows) != len(windows):
            raise ValueError(f"{len(rows)} rows for {len(windows)} windows")
        return list(rows)
    except Exception as error:  # any error: the other clips continue, and this one is recorded with the reason
        if isinstance(error, MemoryError) or type(error).__name__ in DEVICE or "CUDA error" in str(error):
            failure = f"{extractor.name} cannot continue: {type(error).__name__}: {' '.join(str(error).split())}"
            raise FeatcacheError(f"{failure}; the rows computed so far are kept: run the same command again") from error
        if len(windows) == 1:
            return [error]
    return [row for window in windows for row in _computed(extractor, [window])]
