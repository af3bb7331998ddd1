"""Progress reports of long work."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Progress = Callable[[int, int], None]  #: called with (done, total); total is 0 where it is unknown

Bars = Callable[[str, str], AbstractContextManager[Progress]]  #: (title, unit) -> a callback inside a `with` block


def silent(done: int, total: int) -> None:
    """Report nothing: the default."""


def reported(progress: Progress | bool, title: str, unit: str) -> Progress:
    """Return the callback that the argument `progress` of a public function asks for.

    True: a bar in the notebook or terminal, which appears with the first report. False: nothing.
    """
    return progress if callable(progress) else _bar(title, unit) if progress else silent


def bars(progress: "Bars | bool") -> Bars:
    """Return the bars that the argument `progress` of a function with several of them asks for; see `reported`."""
    return progress if callable(progress) else lambda title, unit: nullcontext(reported(progress, title, unit))


def _bar(title: str, unit: str) -> Progress:
    """Return a callback that moves a bar of tqdm, and closes it at the end."""
    from tqdm.auto import tqdm

    bars: list[tqdm] = []

    def progress(done: int, total: int) -> None:
        bar = bars[0] if bars else tqdm(desc=title, unit=unit, dynamic_ncols=True)
        bars[:] = [bar]
        bar.total = total or None
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return progress
