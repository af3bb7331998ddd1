"""The rows of one side of a run, in memory or in mapped stores, and the functions that read them."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import prod

import torch
from torch import Tensor

from heads.batch import Side
from heads.units import Prepare
from pipelines.config import Feed, parse_draw
from pipelines.data.gathering import (
    NO_VIEWS,
    Buffers,
    Chosen,
    Views,
    as_float,
    centres,
    gather,
    gather_views,
    mean,
    new_memory,
)
from pipelines.data.tiers import Features, Stream

SWEEP_ROWS = 512  # most rows per Side of a sweep; results do not depend on it
SWEEP_BYTES = 24 << 20  # most bytes per Side: malloc reuses such pieces; pages of larger ones cost more than reading


@dataclass(frozen=True)
class Rows:
    """All rows of one side, on the device or in mapped stores."""

    rows: list[int]  #: N row numbers in the manifest
    x: dict[str, Tensor]  #: modality -> (M, T, *row_shape): float32 on the device, or as stored
    present: dict[str, Tensor]  #: modality -> (N, T) bool
    y: dict[str, Tensor]  #: label -> (N,) int64; {} where hidden
    domain: Tensor  #: (N,) int64
    feeds: dict[str, Feed]  #: modality -> feed, whose draws take windows of x
    at: Tensor | None = None  #: (N,) position of each row in x, on its device, if x has more rows; None: row i is x[i]
    swept: "Rows | None" = None  #: the same rows for sweeps, if x has only the windows of training
    stream: Stream | None = None  #: only for stores larger than memory
    sweep_rows: int = SWEEP_ROWS  #: rows per Side of a sweep
    views: dict[str, list[Tensor]] = field(default_factory=dict)  #: modality -> tensors like its x, one per view
    captions: "Captions | None" = None  #: in retrieval, for all sides except the target
    prepare: Prepare | None = None  #: prepares the features of every side; None: they are as in the store

    def __len__(self) -> int:
        return len(self.rows)

    def pools(self) -> list[Tensor]:
        """Return the rows of each domain, in the order of the run's domains."""
        return [torch.nonzero(self.domain == d).squeeze(1).cpu() for d in self.domain.unique(sorted=True)]

    @cached_property
    def ragged(self) -> dict[str, Tensor]:
        """Modality -> number of windows of each row (N,), for the modalities in which that number differs."""
        lengths = {m: present.sum(1).cpu() for m, present in self.present.items()}
        return {m: n for m, n in lengths.items() if ((n > 0) & (n < self.x[m].shape[1])).any()}

    def lengths(self, modality: str, index: Tensor) -> int | Tensor:
        """Return the number of windows of these rows: T, or (B,) if it differs; T for rows without the modality."""
        T = self.x[modality].shape[1]
        if modality not in self.ragged:
            return T
        lengths: Tensor = self.ragged[modality][index]
        return lengths.where(lengths > 0, T)

    def side(self, index: Tensor, windows: dict[str, Chosen], views: Views, buffers: Buffers | None = None) -> Side:
        """Gather these rows (B,), with these windows and views of each modality; float32 on the device."""
        row, new = index.to(self.domain.device), buffers.get if buffers else new_memory
        domain = self.domain.index_select(0, row)
        x, present = {}, {}
        for m, values in self.x.items():
            chosen = windows[m]
            at = row if self.at is None else self.at[index]
            positions = chosen.to(at.device) if isinstance(chosen, Tensor) else None
            present[m] = self.present[m].index_select(0, row)
            if isinstance(chosen, Tensor):
                present[m] = present[m].gather(1, chosen.to(row.device).expand(len(row), -1))
            if m in views:
                x[m] = new(f"{m} as float32", present[m].shape + values.shape[2:], torch.float32, row.device)
                gather_views(x[m], [values, *self.views[m]], views[m], at, positions)
            else:
                x[m] = as_float(gather(values, at, positions, m, new), m, row.device, new)
            if chosen == "mean":
                x[m], present[m] = mean(x[m], present[m])
            if self.prepare:
                x[m] = self.prepare(m, x[m], present[m], domain)
        if buffers:
            buffers.turn += 1
        y = {label: y_N.index_select(0, row) for label, y_N in self.y.items()}
        return Side(x, present, y, domain, row)

    def sweep(self) -> Iterator[Side]:
        """Yield every row once, in order, with its test windows; `each` takes all windows here."""
        table = self.swept or self
        pieces = torch.arange(len(table)).split(table.sweep_rows)
        for index, after in zip(pieces, [*pieces[1:], None], strict=True):
            if table.stream and table.at is not None:
                table.stream.ready(table.at[index])
                if after is not None:
                    table.stream.ahead(table.at[after])
            yield table.side(index, {m: table.fixed(m, feed.test, index) for m, feed in table.feeds.items()}, NO_VIEWS)
            if table.stream and table.at is not None:
                table.stream.release(table.at[index])

    def prepared(self, prepare: Prepare | None) -> "Rows":
        """Return the same rows, with features that are prepared in this way; in retrieval also those of captions."""
        swept = self.swept.prepared(prepare) if self.swept else None
        captions = self.captions and replace(self.captions, table=self.captions.table.prepared(prepare))
        return replace(self, prepare=prepare, swept=swept, captions=captions)

    def fixed(self, modality: str, draw: str, index: Tensor) -> Chosen:
        """Return the windows that `all`, `each`, `mean` or `segments:k` take of these rows."""
        if draw == "mean":
            return "mean"
        positions = centres(draw, self.lengths(modality, index))
        return "all" if positions is None else positions


@dataclass(frozen=True)
class Captions:
    """The captions of a side's rows: all captions of row 0, then all of row 1, ..."""

    table: Rows  #: a row per caption
    count: Tensor  #: (N,) int64: number of captions of each row of the side

    @cached_property
    def row(self) -> Tensor:
        """The row of the side that each caption describes (captions,)."""
        return torch.repeat_interleave(self.count)

    def sweep(self) -> Iterator[Side]:
        """Yield every caption once, in order; `index` is the row of the side that it describes."""
        for side in self.table.sweep():
            yield replace(side, index=self.row.to(side.index.device)[side.index])

    def choose(self, index: Tensor, rng: torch.Generator) -> Tensor:
        """Draw a caption of each of these rows (B,), all equally likely; an arbitrary one for a row without any."""
        first, count = self.count.cumsum(0) - self.count, self.count[index]
        return (first[index] + (torch.rand(len(index), generator=rng) * count).long()).clamp_max(len(self.table) - 1)


def sweep_rows(count: int) -> int:
    """Return the rows per Side of a sweep that reads `count` numbers of each row."""
    return max(1, min(SWEEP_ROWS, SWEEP_BYTES // (4 * count)))


def load(
    features: Features,
    feeds: dict[str, Feed],
    rows: list[int],
    y: dict[str, Tensor],
    domain: Tensor,
    *,
    trained: bool,
    among: list[int] | None = None,
) -> Rows:
    """Load rows for training and sweeps, or for sweeps only, to the memory of the tier.

    among: rows that include these; runs that take different ones of them share the memory.
    """
    table = partial(_table, features, feeds, rows, y, domain, among)
    resident = features.tier == "resident"
    loaded = table("train" if trained else "test", whole_store=not resident)
    if resident and trained and sweeps_others(feeds):
        return replace(loaded, swept=table("test", whole_store=bool(features.maps)))
    return loaded


def sweeps_others(feeds: dict[str, Feed]) -> bool:
    """Return True if sweeps need other windows than the ones that are in memory for training."""
    return any(_takes_fixed_part(feed.train) and feed.train != feed.test for feed in feeds.values())


def _table(
    features: Features,
    feeds: dict[str, Feed],
    rows: list[int],
    y: dict[str, Tensor],
    domain: Tensor,
    among: list[int] | None,
    when: str,
    *,
    whole_store: bool,
) -> Rows:
    """Load rows for training ("train") or sweeps ("test").

    x is the whole mapped store, or else only the windows that the draws take of these rows, or of `among`; these draws
    then become `all` in the feeds.
    """
    stores = features.stores
    swept = {m: parse_draw(feed.test)[1] or stores[m].windows for m, feed in feeds.items()}  # `mean` also reads all
    count = sum(windows * prod(stores[m].row_shape) for m, windows in swept.items())
    names = {m: list(feed.stores(m)) if when == "train" else [m] for m, feed in feeds.items()}
    if whole_store:
        loaded = {m: [features.mapped(name, rows) for name in names[m]] for m in feeds}
        at: Tensor | None = torch.tensor(rows)
    else:
        draws = {m: getattr(feed, when) for m, feed in feeds.items()}
        loaded = {m: [features.resident(name, among or rows, draws[m]) for name in names[m]] for m in feeds}
        feeds = {m: _applied(feed, draws[m]) for m, feed in feeds.items()}
        position = {row: k for k, row in enumerate(among or ())}
        at = torch.tensor([position[row] for row in rows], device=features.device) if among else None
    x, present = ({m: pairs[0][k] for m, pairs in loaded.items()} for k in (0, 1))
    if not whole_store and at is not None:
        present = {m: of_all[at] for m, of_all in present.items()}
    views = {m: [x for x, _ in pairs[1:]] for m, pairs in loaded.items() if len(pairs) > 1}
    return Rows(
        rows, x, present, y, domain, feeds, at, stream=features.stream, sweep_rows=sweep_rows(count), views=views
    )


def _takes_fixed_part(draw: str) -> bool:
    """Return True if a draw takes the same part of a row each time, and not all of it."""
    return parse_draw(draw)[0] in ("segments", "mean")


def _applied(feed: Feed, draw: str) -> Feed:
    """Return the feed after a draw is applied: a draw of a fixed part becomes `all` of that part."""
    if not _takes_fixed_part(draw):
        return feed
    train, test = ("all" if each == draw else each for each in (feed.train, feed.test))
    return replace(feed, train=train, test=test)
