"""Work that takes long reports how far it is."""

from collections.abc import Callable

Progress = Callable[[int, int], None]  #: called with (done, in all); in all is 0 where nobody knows


def silent(done: int, total: int) -> None:
    """Report nothing: the default."""
