"""Progress reports of long work."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

Progress = Callable[[int, int], None]  #: called with (done, total); total is 0 where it is unknown

Opens = Callable[[str, str], AbstractContextManager[Progress]]  #: (title, unit) -> a callback inside a `with` block


@dataclass(frozen=True)
class Bars:
    """A `progress` argument that opens a bar for each part of the work: of commands with several bars."""

    opens: Opens


def silent(done: int, total: int) -> None:
    """Report nothing: the default."""


class Bar:
    """A progress callback that moves a bar of tqdm, and can show words next to it."""

    before = "{desc}: {percentage:3.0f}%|{bar}| "  #: of the words

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def __call__(self, done: int, total: int) -> None:
        """Move the bar."""
        self.bar.total = total or None
        self.bar.update(done - self.bar.n)

    def show(self, done: int, total: int, words: str, state: str = "", left: str = "{remaining}") -> None:
        """Move the bar, with words before and after the time; left: the time left, by default that of tqdm."""
        spelled = state.replace("{", "{{").replace("}", "}}")
        self.bar.bar_format = f"{self.before}{words} [{{elapsed}}<{left}] {spelled}".rstrip()
        Bar.__call__(self, done, total)


class _OwnBar(Bar):
    """The bar of progress=True: it appears with the first report, and is closed by the last one."""

    def __init__(self, title: str, unit: str) -> None:
        self._title, self._unit = title, unit

    @cached_property
    def bar(self) -> Any:
        """The bar in the notebook or terminal."""
        from tqdm.auto import tqdm

        return tqdm(desc=self._title, unit=self._unit, dynamic_ncols=True)

    def __call__(self, done: int, total: int) -> None:
        """Move the bar."""
        super().__call__(done, total)
        if total and done == total:
            self.close()

    def close(self) -> None:
        """Close the bar if it has appeared."""
        if "bar" in vars(self):
            self.bar.close()


@contextmanager
def reporting(progress: Progress | bool, title: str, unit: str) -> Iterator[Progress]:
    """Yield the callback for the argument `progress` of a public function.

    True: a bar in the notebook or terminal. It appears with the first report, and is closed at the end, also after an
    error. False: nothing.
    """
    if callable(progress):
        yield progress
    elif not progress:
        yield silent
    else:
        bar = _OwnBar(title, unit)
        try:
            yield bar
        finally:
            bar.close()


def bars(progress: Progress | Bars | bool) -> Opens:
    """Return a function that opens the bars of a function with several of them, one after another."""
    return progress.opens if isinstance(progress, Bars) else partial(reporting, progress)
