"""Rows of stores -> the table that a side is drawn from: which of their windows lie in memory, for what use."""

from dataclasses import replace
from functools import partial
from math import prod

import torch
from torch import Tensor

from pipelines.batches import Rows, sweep_rows
from pipelines.config import Feed, plan
from pipelines.tiers import Features

DONE, NOT_TRIED = 1, 0  # values of store.state


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
    swept = {m: plan(feed.test)[1] or stores[m].windows for m, feed in feeds.items()}  # `mean` reads all, too
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
    return plan(draw)[0] in ("segments", "mean")


def _applied(feed: Feed, draw: str) -> Feed:
    """The feed after this draw: where it is kept, all that there is now."""
    if not _is_kept(draw):
        return feed
    train, test = ("all" if of == draw else of for of in (feed.train, feed.test))
    return replace(feed, train=train, test=test)
