"""Features of whole sides -> an endless stream of batches.

A batch is one `index_select` per modality, from a tensor in memory or from a mapped store: there is no loader and no
worker. Each side and purpose has its own CPU generator, seeded by the run, so every method of a table, every device,
and the tiers `resident` and `mapped` draw the same rows. Features larger than memory are drawn in another order
(`Stream`): each row still comes once per pass, but rows are shuffled within blocks.

Shapes: N rows of a side, M rows of a tensor that holds them, B rows of a batch, T windows.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from heads.batch import Batch, Joint, Side, mapped, stack_sides
from pipelines.config import RunConfig, parse_draw
from pipelines.data.gathering import NO_VIEWS, Buffers, Chosen, Part, Views, adjacent
from pipelines.data.rows import Rows
from pipelines.data.seeds import generator

GROUP = 4  # number of blocks that are shuffled together


def draws(config: RunConfig, sides: dict[str, Rows]) -> dict[str, "Draw"]:
    """Return the endless iterators of a run, one per side of a batch. They reuse their memory, and share it."""
    sizes = {side: n for side, n in zip(("source", "target"), config.batch, strict=True) if side in sides}
    whole, total = Buffers(), sum(sizes.values())
    begins = dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))
    return {
        side: Draw(sides[side], n, config.seed, side, Part(whole, begins[side], n, total)) for side, n in sizes.items()
    }


def draw_batch(draws: Mapping[str, Iterator[Side]]) -> Batch:
    """Return the next batch. Its sides are `joint` if their features follow each other in memory."""
    sides = {side: next(draw) for side, draw in draws.items()}
    if sides.keys() == {"source", "target"} and sides["source"].x.keys() == sides["target"].x.keys():
        s, t = sides["source"], sides["target"]
        x = {m: both for m in s.x if (both := adjacent(s.x[m], t.x[m])) is not None}
        if len(x) == len(s.x):
            joint = Joint(x, s.x, t.x)
            sides = {"source": replace(s, joint=joint), "target": replace(t, joint=joint)}
    return Batch(**sides)


@contextmanager
def batches(draws: Mapping[str, Iterator[Side]], count: int, *, prefetch: bool = False) -> Iterator[Iterator[Batch]]:
    """Iterate over the next `count` batches; with `prefetch`, a thread draws each while the one before is in use.

    The thread draws exactly `count` batches, so later draws (from new pools, say) do not depend on it. Its errors are
    raised when the next batch is taken. The thread ends when the context is left, also by an error.
    """
    if not prefetch:
        yield (draw_batch(draws) for _ in range(count))
        return
    with ThreadPoolExecutor(1, "prefetch") as thread:
        yield _ahead(thread, partial(draw_batch, draws), count)


def _ahead(thread: ThreadPoolExecutor, draw: Callable[[], Batch], count: int) -> Iterator[Batch]:
    following = thread.submit(draw) if count else None
    for left in range(count, 0, -1):
        assert following is not None
        batch = following.result()
        following = thread.submit(draw) if left > 1 else None
        yield batch


class Draw:
    """An endless iterator over sides of `size` rows: equal parts of each pool, in the order of the pools.

    A pool is reshuffled when it is used up, and the rest of a pass is carried over, so no row is dropped or favoured.
    If the size does not divide evenly, the first pools give one row more. With buffers, the features of a side are
    valid until the next side is drawn or, if a thread draws ahead, until the next side is taken.
    """

    def __init__(self, table: Rows, size: int, seed: int, side: str, buffers: Buffers | None = None) -> None:
        self.table, self.size, self.side, self.buffers = table, size, side, buffers
        self.rows_generator = generator(seed, side, "rows")
        self.window_generators = {m: generator(seed, side, "windows", m) for m in table.feeds}
        self.shared_generator = generator(seed, side, "windows")
        self.caption_generator = generator(seed, side, "captions")
        self.text: Draw | None = None  # the draw of the captions' windows
        if table.captions:
            self.text = Draw(table.captions.table, size, seed, f"{side} captions", Buffers() if buffers else None)
        self.view_generators = {m: generator(seed, side, "views", m) for m in table.views}
        self.pools: list[_Pool] = []
        self.used: list[tuple[Tensor, Views]] = []  # rows of groups of blocks that wait for their release
        self.use(table.pools())

    def use(self, pools: list[Tensor]) -> None:
        """Draw from these pools of rows from now on."""
        for pool in pools:
            if len(pool) == 0 or int(pool.min()) < 0 or int(pool.max()) >= len(self.table):
                raise ValueError(f"a pool of the {self.side} must have one row or more, in [0, {len(self.table)})")
        if not 0 < len(pools) <= self.size:
            raise ValueError(f"{len(pools)} pools cannot fill a batch of {self.size} rows of the {self.side}")
        self.pools = [_Pool(self._passes(pool.cpu())) for pool in pools]
        self.shares = [len(part) for part in torch.arange(self.size).tensor_split(len(pools))]

    def __iter__(self) -> Iterator[Side]:
        return self

    def __next__(self) -> Side:
        return self.gather(self.picks())

    def picks(self) -> "Picks":
        """Draw the rows of the next side, and their windows, views and captions."""
        parts = [pool.take(share) for pool, share in zip(self.pools, self.shares, strict=True)]
        index, views = self._split(torch.cat(parts, 1))
        captions, text = self.table.captions, self.text
        if captions is None or text is None:
            return Picks(index, self.windows(index), views)
        chosen = captions.choose(index, self.caption_generator)
        return Picks(index, self.windows(index), views, Picks(chosen, text.windows(chosen), NO_VIEWS))

    def gather(self, picks: "Picks") -> Side:
        """Gather the features of a side."""
        side = self.table.side(picks.index, picks.windows, picks.views, self.buffers)
        while self.used and self.table.stream:  # not earlier: this batch may have the last rows of a group
            self.table.stream.release(*self.used.pop())
        return self._captioned(side, picks)

    def _captioned(self, side: Side, picks: "Picks") -> Side:
        """Add a random caption of each row, the same one in all caption feeds; zeros for a row without captions."""
        captions, text = self.table.captions, self.text
        if captions is None or text is None or picks.captions is None:
            return side
        added = captions.table.side(picks.captions.index, picks.captions.windows, NO_VIEWS, text.buffers)
        uncaptioned = captions.count[picks.index] == 0
        if uncaptioned.any():
            for m in added.x:
                added.x[m][uncaptioned.to(added.x[m].device)] = 0
                added.present[m][uncaptioned.to(added.x[m].device)] = False
        return replace(side, x=side.x | added.x, present=side.present | added.present)

    def windows(self, index: Tensor) -> dict[str, Chosen]:
        """Return modality -> the windows of a batch of these rows."""
        chosen: dict[str, Chosen] = {}
        feeds = self.table.feeds
        shared = [m for m, feed in feeds.items() if parse_draw(feed.train)[0] == "shared"]
        for m, feed in feeds.items():
            kind, k = parse_draw(feed.train)
            if kind == "random":
                chosen[m] = self._random((m,), index, k, self.window_generators[m])
            elif kind == "shared":
                chosen[m] = (
                    chosen[shared[0]] if m != shared[0] else self._random(shared, index, k, self.shared_generator)
                )
            else:
                chosen[m] = self.table.fixed(m, feed.train, index)
        return chosen

    def _random(self, modalities: "list[str] | tuple[str, ...]", index: Tensor, k: int, rng: torch.Generator) -> Tensor:
        """Draw k windows that a row has in all these modalities; only rows with fewer repeat some -> (B, k)."""
        T = self.table.x[modalities[0]].shape[1]
        lengths = [self.table.lengths(m, index) for m in modalities if m in self.table.ragged]
        order = torch.rand(self.size, T, generator=rng)
        if not lengths:
            return order.argsort(1)[:, :k].sort(1).values
        length_B1 = torch.stack([torch.as_tensor(length) for length in lengths]).amin(0)[:, None]
        order = order.masked_fill(torch.arange(T) >= length_B1, 2.0).argsort(1)  # drawn numbers are below 1
        return order.gather(1, torch.arange(k) % length_B1).sort(1).values  # TSN also repeats windows of short clips

    def _passes(self, pool: Tensor) -> Generator[Tensor, None, None]:
        """Yield shuffled rows of a pool with views, endlessly: a pass at a time, or a group of blocks read ahead."""
        stream, at = self.table.stream, self.table.at
        if stream is None or at is None:
            while True:
                yield self._with_views(pool[torch.randperm(len(pool), generator=self.rows_generator)])

        def reads(drawn: Tensor) -> tuple[Tensor, Views]:
            index, views = self._split(drawn)
            return at[index], views

        groups = map(self._with_views, _groups(pool, stream.block_rows, self.rows_generator))
        group = next(groups)
        try:
            while True:
                following = next(groups)
                stream.ready(*reads(group))
                stream.ahead(*reads(following))
                yield group
                self.used.append(reads(group))
                group = following
        finally:
            self.used.append(reads(group))

    def _with_views(self, rows: Tensor) -> Tensor:
        """Stack rows (n,) and a random view of each row, for every modality with views -> (1 + modalities, n)."""
        parts = zip(self.table.views.values(), self.view_generators.values(), strict=True)
        return torch.stack([rows, *(torch.randint(1 + len(views), rows.shape, generator=rng) for views, rng in parts)])

    def _split(self, drawn: Tensor) -> tuple[Tensor, Views]:
        """Split the rows and views that `_with_views` stacked."""
        index, *views = drawn
        return index, dict(zip(self.view_generators, views, strict=True))


@dataclass(frozen=True)
class Picks:
    """The rows of a side that were drawn (B,), and their windows, views and captions."""

    index: Tensor
    windows: dict[str, Chosen]
    views: Views
    captions: "Picks | None" = None

    def tensors(self) -> list[Tensor]:
        """Return all drawn numbers."""
        windows = [chosen for chosen in self.windows.values() if isinstance(chosen, Tensor)]
        return [self.index, *windows, *self.views.values(), *(self.captions.tensors() if self.captions else ())]


def interleaved(picks: Sequence[Picks]) -> Picks:
    """Return the rows of several draws of one table as those of one side: the first of each, then the second, ...

    Windows (K,) are those of all rows.
    """
    first = picks[0]
    windows = dict(first.windows)
    for m, chosen in first.windows.items():
        if isinstance(chosen, Tensor) and chosen.dim() > 1:
            windows[m] = _interleave([w for each in picks if isinstance(w := each.windows[m], Tensor)])
    views = {m: _interleave([each.views[m] for each in picks]) for m in first.views}
    captions = [each.captions for each in picks if each.captions]
    index = _interleave([each.index for each in picks])
    return Picks(index, windows, views, interleaved(captions) if captions else None)


def _interleave(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors, 1).flatten(0, 1)


class Together:
    """The draws of one side by K runs: the tensors of its sides are (B, K, ...).

    They are (B, ...) if all runs draw the same rows. Runs that share a table gather their rows at once.
    """

    def __init__(self, draws: Sequence[Draw]) -> None:
        self.draws = draws

    def __iter__(self) -> Iterator[Side]:
        return self

    def __next__(self) -> Side:
        first = self.draws[0]
        if any(draw.table is not first.table for draw in self.draws):
            return stack_sides([next(draw) for draw in self.draws])
        picks = [draw.picks() for draw in self.draws]
        if all(all(map(torch.equal, each.tensors(), picks[0].tensors())) for each in picks[1:]):
            return first.gather(picks[0])
        return mapped(lambda value: value.unflatten(0, (-1, len(picks))), first.gather(interleaved(picks)))


class _Pool:
    """A pool of rows and their views, which draws the next pass when its rows run out."""

    def __init__(self, passes: Generator[Tensor, None, None]) -> None:
        self.passes = passes
        self.left = torch.empty(1, 0, dtype=torch.int64)

    def take(self, count: int) -> Tensor:
        """Return the next `count` columns (1 + modalities, count)."""
        taken: list[Tensor] = []
        while count:
            if not self.left.shape[1]:
                self.left = next(self.passes)
            taken.append(self.left[:, :count])
            self.left = self.left[:, count:]
            count -= taken[-1].shape[1]
        return torch.cat(taken, 1)


def _groups(pool: Tensor, block_rows: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Yield endless passes over a pool: GROUP random blocks of neighbouring rows at a time, with their rows shuffled.

    A group is only as mixed as its blocks: if rows are sorted by class, batches have few classes. Shuffle the clips of
    a manifest before extracting features that will not fit into memory.
    """
    blocks = pool.sort().values.split(block_rows)
    while True:
        for part in torch.randperm(len(blocks), generator=rng).split(GROUP):
            rows = torch.cat([blocks[b] for b in part.tolist()])
            yield rows[torch.randperm(len(rows), generator=rng)]
