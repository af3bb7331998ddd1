"""Who may write: one lock per store, one lease per block. Both are advisory locks of the kernel (flock).

The kernel lets go of them when their holder dies, so that a lease is free exactly when its owner is finished or dead:
no heartbeat to miss, nothing to take over by mistake. They hold between the processes of one machine, and on file
systems that pass locks on (NFS version 4 does).

The store's lock is a file beside it, `.NAME.zarr.lock`: writers share it, whoever changes the store as a whole
(creates, extends, repairs) has it alone. A block's lease is its journal, `journal/B.log`.
"""

import fcntl
import os
from pathlib import Path
from typing import BinaryIO


def lock(path: Path, *, alone: bool) -> BinaryIO | None:
    """The lock of the store at `path`, shared with other writers or alone; None while others are in the way."""
    path = path.resolve()  # a link and its target have one lock
    file = path.with_name(f".{path.name}.lock").open("ab")
    if _taken(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
        return file
    file.close()
    return None


def is_locked(path: Path) -> bool:
    """Whether a writer is at work on the store; nothing is written to find out."""
    path = path.resolve()
    try:
        with path.with_name(f".{path.name}.lock").open("r+b") as file:
            return not _taken(file, fcntl.LOCK_EX)
    except OSError:  # no lock, or one that nobody here may write: no writer
        return False


def free(file: BinaryIO) -> None:
    """Let go of a lock or lease, also where a forked child has inherited the open file."""
    fcntl.flock(file, fcntl.LOCK_UN)
    file.close()


def lease(path: Path) -> BinaryIO | None:
    """The file, made if need be, open for appending and reading and ours alone; None while somebody else has it.

    Its owner removes the file before letting go, so one that was opened just before is a lease of nothing: look again.
    """
    while True:
        file = path.open("a+b")
        if not _taken(file, fcntl.LOCK_EX):
            file.close()
            return None
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()


def _taken(file: BinaryIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
