"""All rows of one side of a run, in memory or in mapped stores, and how they are read."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import prod

import torch
from torch import Tensor

from heads.batch import Side
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

SWEEP_ROWS = 512  # most rows per Side of a sweep; answers do not depend on it
SWEEP_BYTES = 24 << 20  # of them at most: malloc reuses such pieces, the pages of larger ones cost more than reading


@dataclass(frozen=True)
class Rows:
    """All rows of one side: on the device, or in mapped stores."""

    rows: list[int]  #: manifest row of each
    x: dict[str, Tensor]  #: modality -> (M, T, *row_shape), float32 on the device, or as stored
    present: dict[str, Tensor]  #: modality -> (N, T) bool
    y: dict[str, Tensor]  #: task -> (N,) int64; {} where hidden
    domain: Tensor  #: (N,) int64
    feeds: dict[str, Feed]  #: modality -> how the windows of x are drawn
    at: Tensor | None = None  #: (N,) row of x of each row, where x is a whole store; None: row i is x[i]
    swept: "Rows | None" = None  #: the same rows for sweeps, where x has but the windows of training
    stream: Stream | None = None  #: where the stores are larger than memory
    sweep_rows: int = SWEEP_ROWS  #: per Side of a sweep
    views: dict[str, list[Tensor]] = field(default_factory=dict)  #: modality -> tensors like its x, one per view
    captions: "Captions | None" = None  #: in retrieval, of all sides but the target

    def __len__(self) -> int:
        return len(self.rows)

    def pools(self) -> list[Tensor]:
        """Rows of each domain, in the order of the run's domains."""
        return [torch.nonzero(self.domain == d).squeeze(1).cpu() for d in self.domain.unique(sorted=True)]

    @cached_property
    def ragged(self) -> dict[str, Tensor]:
        """Modality -> windows of each row (N,), of the modalities whose rows have different numbers of them."""
        lengths = {m: present.sum(1).cpu() for m, present in self.present.items()}
        return {m: n for m, n in lengths.items() if ((n > 0) & (n < self.x[m].shape[1])).any()}

    def lengths(self, modality: str, index: Tensor) -> int | Tensor:
        """Windows of these rows: T, or (B,) where they differ; T also for rows that lack the modality."""
        T = self.x[modality].shape[1]
        if modality not in self.ragged:
            return T
        lengths: Tensor = self.ragged[modality][index]
        return lengths.where(lengths > 0, T)

    def side(self, index: Tensor, windows: dict[str, Chosen], views: Views, buffers: Buffers | None = None) -> Side:
        """These rows (B,), with these windows of each modality, of these views; float32 on the device."""
        here, new = index.to(self.domain.device), buffers.get if buffers else new_memory
        x, present = {}, {}
        for m, values in self.x.items():
            chosen = windows[m]
            at = here if self.at is None else self.at[index]
            positions = chosen.to(at.device) if isinstance(chosen, Tensor) else None
            present[m] = self.present[m].index_select(0, here)
            if isinstance(chosen, Tensor):
                present[m] = present[m].gather(1, chosen.to(here.device).expand(len(here), -1))
            if m in views:
                x[m] = new(f"{m} as float32", present[m].shape + values.shape[2:], torch.float32, here.device)
                gather_views(x[m], [values, *self.views[m]], views[m], at, positions)
            else:
                x[m] = as_float(gather(values, at, positions, m, new), m, here.device, new)
            if chosen == "mean":
                x[m], present[m] = mean(x[m], present[m])
        if buffers:
            buffers.turn += 1
        y = {task: of.index_select(0, here) for task, of in self.y.items()}
        return Side(x, present, y, self.domain.index_select(0, here), here)

    def sweep(self) -> Iterator[Side]:
        """Every row once, in order, with its test windows (`each` means all of them here)."""
        table = self.swept or self
        pieces = torch.arange(len(table)).split(table.sweep_rows)
        for index, after in zip(pieces, [*pieces[1:], None], strict=True):
            if table.stream and table.at is not None and after is not None:
                table.stream.ahead(table.at[after])
            yield table.side(index, {m: table.fixed(m, feed.test, index) for m, feed in table.feeds.items()}, NO_VIEWS)
            if table.stream and table.at is not None:
                table.stream.release(table.at[index])

    def fixed(self, modality: str, draw: str, index: Tensor) -> Chosen:
        """Windows that `all`, `each`, `mean` or `segments:k` choose of these rows."""
        if draw == "mean":
            return "mean"
        found = centres(draw, self.lengths(modality, index))
        return "all" if found is None else found


@dataclass(frozen=True)
class Captions:
    """The captions of a side's rows: those of row 0, then those of row 1, ..."""

    table: Rows  #: a row per caption
    count: Tensor  #: (N,) int64: captions of each row of the side

    @cached_property
    def row(self) -> Tensor:
        """Row of the side that each is a caption of (captions,)."""
        return torch.repeat_interleave(self.count)

    def sweep(self) -> Iterator[Side]:
        """Every caption once, in order; `index` is the row of the side that it is a caption of."""
        for side in self.table.sweep():
            yield replace(side, index=self.row.to(side.index.device)[side.index])

    def choose(self, index: Tensor, rng: torch.Generator) -> Tensor:
        """A caption of each of these rows (B,), each as probable as another; any at all where a row has none."""
        first, count = self.count.cumsum(0) - self.count, self.count[index]
        return (first[index] + (torch.rand(len(index), generator=rng) * count).long()).clamp_max(len(self.table) - 1)


def sweep_rows(count: int) -> int:
    """Rows per Side of a sweep that reads `count` numbers of each row."""
    return max(1, min(SWEEP_ROWS, SWEEP_BYTES // (4 * count)))


def load(
    features: Features, feeds: dict[str, Feed], rows: list[int], y: dict[str, Tensor], domain: Tensor, *, trained: bool
) -> Rows:
    """Rows for training and for sweeps, or for sweeps alone, where the tier has their features."""
    table = partial(_table, features, feeds, rows, y, domain)
    resident = features.tier == "resident"
    loaded = table("train" if trained else "test", mapped=not resident)
    if resident and trained and sweeps_others(feeds):
        return replace(loaded, swept=table("test", mapped=bool(features.maps)))
    return loaded


def sweeps_others(feeds: dict[str, Feed]) -> bool:
    """Whether sweeps need other windows than those that are kept for training."""
    return any(_is_kept(feed.train) and feed.train != feed.test for feed in feeds.values())


def _table(
    features: Features,
    feeds: dict[str, Feed],
    rows: list[int],
    y: dict[str, Tensor],
    domain: Tensor,
    when: str,
    *,
    mapped: bool,
) -> Rows:
    """Rows for training ("train") or sweeps ("test") only; draws that are applied here read `all` in the feeds."""
    stores = features.stores
    swept = {m: parse_draw(feed.test)[1] or stores[m].windows for m, feed in feeds.items()}  # `mean` reads all, too
    numbers = sum(windows * prod(stores[m].row_shape) for m, windows in swept.items())
    names = {m: list(feed.stores(m)) if when == "train" else [m] for m, feed in feeds.items()}
    if mapped:
        found = {m: [features.mapped(name, rows) for name in names[m]] for m in feeds}
    else:
        draws = {m: getattr(feed, when) for m, feed in feeds.items()}
        found = {m: [features.resident(name, rows, draws[m]) for name in names[m]] for m in feeds}
        feeds = {m: _applied(feed, draws[m]) for m, feed in feeds.items()}
    x, present = ({m: pairs[0][k] for m, pairs in found.items()} for k in (0, 1))
    views = {m: [x for x, _ in pairs[1:]] for m, pairs in found.items() if len(pairs) > 1}
    at = torch.tensor(rows) if mapped else None
    return Rows(
        rows, x, present, y, domain, feeds, at, stream=features.stream, sweep_rows=sweep_rows(numbers), views=views
    )


def _is_kept(draw: str) -> bool:
    """Whether a draw takes the same of a row at each time, and less than all."""
    return parse_draw(draw)[0] in ("segments", "mean")


def _applied(feed: Feed, draw: str) -> Feed:
    """The feed after this draw: where it is kept, all that there is now."""
    if not _is_kept(draw):
        return feed
    train, test = ("all" if of == draw else of for of in (feed.train, feed.test))
    return replace(feed, train=train, test=test)
