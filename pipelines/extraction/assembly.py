"""Windows of many clips, as they come -> batches -> rows -> whole clips.

A batch has windows of several clips: a network is fast at a size of its own, whatever the clips' number of windows.
Rows do not depend on what else is in their batch, so they do not depend on the order in which windows come.
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
DEVICE = ("OutOfMemoryError", "AcceleratorError")  #: of torch, for which no clip is to blame


@dataclass(eq=False)
class Part:
    """One clip as one extractor has it so far."""

    row: int  #: of the manifest
    extractor: Extractor
    of: int = 0  #: windows that there will be, as the first says
    pieces: dict[int, tuple[float, float]] = field(default_factory=dict)  #: windows that have come: start and stop
    rows: dict[int, Row] = field(default_factory=dict)  #: those of them that are computed
    tokens: int = 0  #: of a caption each of whose tokens is a row
    read: bool = False  #: whether the source has given all that it has
    reason: FeatcacheError | None = None  #: why there will be no rows
    kept: bool = False  #: whether it has been handed on

    def features(self) -> Row:
        """(T, *row_shape), in order of the windows, or of the tokens."""
        if self.tokens:
            return self.rows[0][: self.tokens]
        return np.stack([self.rows[number] for number in sorted(self.rows)])

    def times(self) -> NDArray[np.float64]:
        """(2, T): start and stop of the windows; tokens have no place in time."""
        if self.tokens:
            return np.full((2, self.tokens), np.nan)
        return np.array([self.pieces[number] for number in sorted(self.pieces)]).T


class _Batch(NamedTuple):
    places: list[tuple[Part, int]]  #: whose windows they are, and their numbers
    computed: Future[tuple[list[Row | Exception], float, float]]


class Assembly:
    """Gathers windows into batches, has them computed in threads of its own, and hands whole parts to `keep`."""

    def __init__(self, extractors: Sequence[Extractor], keep: Callable[[Part], None]) -> None:
        self.keep = keep
        self.busy = 0.0  #: seconds in which at least one batch was being computed
        self.remarks: dict[tuple[str, str], set[int]] = {}  #: extractor and what it remarks -> rows
        self._until = 0.0
        self._gathering: dict[str, list[tuple[Part, Piece]]] = {extractor.name: [] for extractor in extractors}
        self._batches: deque[_Batch] = deque()
        threads = max(extractor.threads for extractor in extractors)
        self._ahead = threads + 1  # one batch more than are computed is stacked and waits
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="compute")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, part: Part, piece: Piece | Nothing | None) -> None:
        """A window of this part, or the reason why there is none, or the end of its source."""
        if piece is None:
            part.read = True
            if part.reason is None and not 0 < len(part.pieces) == part.of:
                part.reason = FeatcacheError(f"only {len(part.pieces)} of {part.of} windows came; please report it")
            self._finish(part)
        elif isinstance(piece, Nothing):
            part.reason = piece.reason
        elif part.reason is None and piece.number not in part.pieces:
            part.of = piece.of
            part.pieces[piece.number] = piece.start, piece.stop
            part.tokens = part.extractor.tokens(piece.window)
            if remark := part.extractor.remark(piece.window):
                self.remarks.setdefault((part.extractor.name, remark), set()).add(part.row)
            gathered = self._gathering[part.extractor.name]
            gathered.append((part, piece))
            if len(gathered) == part.extractor.batch:
                self._submit(part.extractor)

    def end(self) -> None:
        """Compute what is still gathered, and keep the last parts."""
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
        """Take the oldest batch."""
        places, computed = self._batches.popleft()
        rows, began, ended = computed.result()
        self.busy += max(0.0, ended - max(began, self._until))
        self._until = max(self._until, ended)
        for (part, number), row in zip(places, rows, strict=True):
            if isinstance(row, Exception):
                words = f"{part.extractor.name} stopped with {type(row).__name__}: {' '.join(str(row).split())}"
                part.reason = part.reason or FeatcacheError(words)
            else:
                part.rows[number] = row
        for part in {id(part): part for part, _ in places}.values():
            self._finish(part)

    def _finish(self, part: Part) -> None:
        whole = part.read and (part.reason is not None or len(part.rows) == len(part.pieces))
        if whole and not part.kept:
            part.kept = True
            self.keep(part)


def _timed(extractor: Extractor, windows: list[NDArray[np.generic]]) -> tuple[list[Row | Exception], float, float]:
    began = time.monotonic()
    return _computed(extractor, windows), began, time.monotonic()


def _computed(extractor: Extractor, windows: list[NDArray[np.generic]]) -> list[Row | Exception]:
    """A row for each window. Where a batch fails, each of its windows is tried alone: the others are not to blame."""
    try:
        rows = extractor(np.stack(windows))
        if len(rows) != len(windows):
            raise ValueError(f"{len(rows)} rows for {len(windows)} windows")
        return list(rows)
    except Exception as error:  # whatever it is, the other clips are finished and this one says why
        if isinstance(error, MemoryError) or type(error).__name__ in DEVICE or "CUDA error" in str(error):
            words = f"{extractor.name} cannot go on: {type(error).__name__}: {' '.join(str(error).split())}"
            raise FeatcacheError(f"{words}; what is computed is kept, so start it again") from error
        if len(windows) == 1:
            return [error]
    return [row for window in windows for row in _computed(extractor, [window])]
