"""Files that are there whole or not at all, even after a kill or a power cut."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from featcache.errors import FormatError


def write_file(path: Path, data: bytes, *, shared: bool = False) -> None:
    """Put these bytes into a file as `replacing` does."""
    with replacing(path, shared=shared) as scratch:
        scratch.write_bytes(data)


@contextlib.contextmanager
def replacing(path: Path, *, shared: bool = True) -> Iterator[Path]:
    """A scratch file beside `path`, to be written; it is synced and renamed to `path` when all went well.

    Else nothing is left behind, and an older file stays as it was. FormatError when a folder stands there.
    shared: other processes may write this very file now, so each has a scratch file of its own. Otherwise its name is
    fixed, so that the next write replaces one that a kill has left behind.
    """
    if path.is_dir():
        raise FormatError(f"{path} is a folder; name a file")
    make_folder(path.parent)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.partial" if shared else f".{path.name}.partial")
    try:
        yield scratch
        with scratch.open("rb") as file:
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
