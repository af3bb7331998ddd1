"""The progress of a page that is being written: loops over shifts and parts count their steps."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from featcache.progress import Progress, silent

T = TypeVar("T")
_page: ContextVar[tuple[Progress, list[int]]] = ContextVar("_page", default=(silent, [0, 0]))  # callback; done, total


@contextmanager
def counting(progress: Progress) -> Iterator[None]:
    """Call `progress` with (done, total) after each step inside the block."""
    token = _page.set((progress, [0, 0]))
    try:
        yield
    finally:
        _page.reset(token)


def steps(items: Collection[T]) -> Iterator[T]:
    """Yield the items; each is a step, and the total grows by their number. Steps may contain steps."""
    progress, counts = _page.get()
    counts[1] += len(items)
    for item in items:
        yield item
        counts[0] += 1
        progress(*counts)
