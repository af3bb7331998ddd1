"""Progress reports of long work."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

Progress = Callable[[int, int], None]  #: called with (done, total); total is 0 where it is unknown

Bars = Callable[[str, str], AbstractContextManager[Progress]]  #: (title, unit) -> a callback inside a `with` block


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
        if done == total:
            self.bar.close()


def reported(progress: Progress | bool, title: str, unit: str) -> Progress:
    """Return the callback that the argument `progress` of a public function asks for.

    True: a bar in the notebook or terminal, which appears with the first report. False: nothing.
    """
    return progress if callable(progress) else _OwnBar(title, unit) if progress else silent


def bars(progress: "Bars | bool") -> Bars:
    """Return the bars that the argument `progress` of a function with several of them asks for; see `reported`."""
    return progress if callable(progress) else lambda title, unit: nullcontext(reported(progress, title, unit))
