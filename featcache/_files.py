"""Files that are there whole or not at all, even after a kill or a power cut."""

import contextlib
import os
from pathlib import Path


def write_file(path: Path, data: bytes, *, shared: bool = False) -> None:
    """Write, sync and rename. Nothing is left behind when that fails, and an older file stays as it was.

    shared: other processes may write this very file now, so each has a scratch file of its own. Otherwise its name is
    fixed, so that the next write replaces one that a kill has left behind.
    """
    make_folder(path.parent)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.partial" if shared else f".{path.name}.partial")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, durably."""
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for part in missing:
        sync_folder(part.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
