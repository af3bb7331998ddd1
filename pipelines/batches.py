"""Whole sides as tensors on the device -> an endless stream of batches.

Features are small: UCF-HMDB has 66 MB per modality. So a side is loaded once and a batch is an indexing operation; no
loader, no workers. All random draws come from CPU generators of their own, one per side and purpose, seeded by the run:
every method of a table, and every device, sees the same rows.

Shapes: N rows of a side, B rows of a batch, T windows.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from heads.batch import Side
from pipelines.config import Feed, RunConfig, plan

SWEEP_ROWS = 512  # rows per Side of a sweep; answers do not depend on it


@dataclass(frozen=True)
class Rows:
    """All rows of one side, on the device."""

    rows: list[int]  #: manifest row of each
    x: dict[str, Tensor]  #: modality -> (N, T, *row_shape) float32, all windows of the store
    present: dict[str, Tensor]  #: modality -> (N, T) bool
    y: dict[str, Tensor]  #: task -> (N,) int64; {} where hidden
    domain: Tensor  #: (N,) int64
    feeds: dict[str, Feed]  #: modality -> how its windows are drawn

    def __len__(self) -> int:
        return len(self.rows)

    def pools(self) -> list[Tensor]:
        """Rows of each domain, in the order of the run's domains."""
        return [torch.nonzero(self.domain == d).squeeze(1).cpu() for d in self.domain.unique(sorted=True)]

    def side(self, index: Tensor, windows: dict[str, Tensor | None]) -> Side:
        """These rows (B,) with these windows: modality -> (K,) or (B, K) positions, None for all."""

        def take(values: Tensor, at: Tensor | None) -> Tensor:
            return values[index] if at is None else values[index[:, None], at.to(index.device)]

        return Side(
            x={m: take(x, windows[m]) for m, x in self.x.items()},
            present={m: take(present, windows[m]) for m, present in self.present.items()},
            y={task: y[index] for task, y in self.y.items()},
            domain=self.domain[index],
            index=index,
        )

    def sweep(self) -> Iterator[Side]:
        """Every row once, in order, with its test windows (`each` means all of them here)."""
        windows = {m: centres(feed.test, self.x[m].shape[1]) for m, feed in self.feeds.items()}
        for index in torch.arange(len(self), device=self.domain.device).split(SWEEP_ROWS):
            yield self.side(index, windows)


def draws(config: RunConfig, sides: dict[str, Rows]) -> dict[str, "Draw"]:
    """The endless iterators of a run: one per side that batches are made of."""
    sizes = dict(zip(("source", "target"), config.batch, strict=True))
    return {side: Draw(sides[side], sizes[side], config.seed, side) for side in sizes if side in sides}


class Draw:
    """Endless sides of `size` rows: equal parts of each pool, in the order of the pools.

    A pool is reshuffled when used up, and what is left of it is carried over, so no row is dropped or favoured. Where
    the size does not divide, the first pools give one row more.
    """

    def __init__(self, table: Rows, size: int, seed: int, side: str) -> None:
        self.table, self.size, self.side = table, size, side
        self.rows_generator = generator(seed, side, "rows")
        self.window_generators = {m: generator(seed, side, "windows", m) for m in table.feeds}
        self.shared_generator = generator(seed, side, "windows")
        self.use(table.pools())

    def use(self, pools: list[Tensor]) -> None:
        """Draw from these pools of rows from now on."""
        for pool in pools:
            if len(pool) == 0 or int(pool.min()) < 0 or int(pool.max()) >= len(self.table):
                raise ValueError(f"a pool of the {self.side} must be rows in [0, {len(self.table)}), and not empty")
        if not 0 < len(pools) <= self.size:
            raise ValueError(f"{len(pools)} pools cannot fill a batch of {self.size} rows of the {self.side}")
        self.pools = [_endless(pool.cpu(), self.rows_generator) for pool in pools]
        self.shares = [len(part) for part in torch.arange(self.size).tensor_split(len(pools))]

    def __iter__(self) -> Iterator[Side]:
        return self

    def __next__(self) -> Side:
        rows = [next(pool) for pool, share in zip(self.pools, self.shares, strict=True) for _ in range(share)]
        index = torch.tensor(rows, device=self.table.domain.device)
        return self.table.side(index, self.windows())

    def windows(self) -> dict[str, Tensor | None]:
        """Modality -> the windows of one batch: None (all), (K,) centres or (B, K) random ones, in order of time."""
        chosen: dict[str, Tensor | None] = {}
        shared: Tensor | None = None
        for m, feed in self.table.feeds.items():
            (kind, k), T = plan(feed.train), self.table.x[m].shape[1]
            if kind == "random":
                chosen[m] = _random_windows(self.size, T, k, self.window_generators[m])
            elif kind == "shared":
                shared = _random_windows(self.size, T, k, self.shared_generator) if shared is None else shared
                chosen[m] = shared
            else:
                chosen[m] = centres(feed.train, T)
        return chosen


def centres(draw: str, T: int) -> Tensor | None:
    """Centres of k equal segments of T windows for `segments:k`, None (all windows) otherwise.

    >>> centres("segments:5", 25)
    tensor([ 2,  7, 12, 17, 22])
    """
    kind, k = plan(draw)
    return ((torch.arange(k) + 0.5) * T / k).long() if kind == "segments" else None


def _random_windows(B: int, T: int, k: int, generator: torch.Generator) -> Tensor:
    """K different windows of T for each of B rows, in order of time -> (B, k)."""
    return torch.rand(B, T, generator=generator).argsort(1)[:, :k].sort(1).values


def _endless(pool: Tensor, generator: torch.Generator) -> Iterator[int]:
    while True:
        yield from pool[torch.randperm(len(pool), generator=generator)].tolist()


def generator(seed: int, *purpose: str) -> torch.Generator:
    """A CPU generator of its own for each purpose, so that one draw more here moves nothing there."""
    digest = hashlib.sha256("/".join((str(seed), *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
