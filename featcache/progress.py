"""Progress reports of long work."""

from collections.abc import Callable

Progress = Callable[[int, int], None]  #: called with (done, total); total is 0 where it is unknown


def silent(done: int, total: int) -> None:
    """Report nothing: the default."""
