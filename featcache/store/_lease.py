"""Locks for writers: one lock per store, one lease per block. Both are advisory locks of the kernel (flock).

The kernel releases them when their holder dies, so a lease is free exactly when its owner has finished or died: there
is no heartbeat to miss, and no lease is taken over by mistake. They hold between the processes of one machine, and
between machines on file systems that pass locks on (NFS version 4 does).

The store's lock is a file next to it, `.NAME.zarr.lock`. Writers share it; a process that creates, extends or repairs
the store holds it exclusively. A block's lease is a lock on its journal, `journal/B.log`.
"""

import fcntl
from pathlib import Path
from typing import BinaryIO

from featcache.errors import FeatcacheError, StoreError
from featcache.files import flock, is_file_of, regular


def lock(path: Path, *, alone: bool) -> BinaryIO | None:
    """Take the lock of the store at `path`, shared with other writers or alone; None while others hold it."""
    path = path.resolve()  # a link and its target have one lock
    file = regular(path.with_name(f".{path.name}.lock"), StoreError).open("ab")
    if _taken(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
        return file
    file.close()
    return None


def is_locked(path: Path) -> bool:
    """Return whether a writer is at work on the store, without writing anything."""
    path = path.resolve()
    try:
        with path.with_name(f".{path.name}.lock").open("r+b") as file:
            return not _taken(file, fcntl.LOCK_EX)
    except (OSError, FeatcacheError):  # no lock file, no permission to write it, or no locks there: no writer
        return False


def free(file: BinaryIO) -> None:
    """Release a lock or lease, even if a forked child has inherited the open file."""
    flock(file, fcntl.LOCK_UN)
    file.close()


def lease(path: Path) -> BinaryIO | None:
    """Open the file for appending and reading, and lock it exclusively; None while another process holds it.

    The owner removes the file before releasing it. A file opened just before that is locked but no longer in the
    folder, so it is opened again.
    """
    while True:
        file = regular(path, StoreError).open("a+b")
        if not _taken(file, fcntl.LOCK_EX):
            file.close()
            return None
        if is_file_of(file, path):
            return file
        file.close()


def _taken(file: BinaryIO, kind: int) -> bool:
    try:
        flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
