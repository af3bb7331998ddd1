"""The content of media files, as far as features of it may differ: for noticing another file in the place of one."""

import hashlib
import os
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO, NamedTuple

from featcache.endings import IMAGE

PIECE, PIECES = 1 << 16, 8  #: bytes, and number, of the pieces of a file that are read


class State(NamedTuple):
    """Size and times of a file; of a folder of frames, the sum and the latest times of its frames."""

    size: int
    modified: int  #: ns; the content was written
    changed: int  #: ns; the content was written, or the file was moved to its place

    def __str__(self) -> str:
        return f"{self.size} {self.modified}"


def state_of(path: Path) -> State | None:
    """Return the state of a file or folder of frames; None if it is not there, or cannot be read."""
    try:
        found = [entry.stat() for entry in _frames(path)] if path.is_dir() else [path.stat()]
    except (OSError, ValueError):
        return None
    modified, changed = (
        max(times, default=0) for times in ([s.st_mtime_ns for s in found], [s.st_ctime_ns for s in found])
    )
    return State(sum(s.st_size for s in found), modified, changed)


def digest_of(path: Path) -> str:
    """Return a digest of the content that `same_content` compares; "" if it cannot be read."""
    digest = hashlib.sha256()
    try:
        for piece in _content(path):
            digest.update(piece)
    except (OSError, ValueError):
        return ""
    return digest.hexdigest()[:16]


def same_content(one: Path, other: Path) -> bool:
    """Return whether two files are equal in size and in eight pieces, or two folders in their frames' names and sizes.

    Eight frames of a folder are compared as files are. Features of videos differ where a piece differs, so whole files,
    which may be large, are not read.
    """
    return all(a == b for a, b in zip_longest(_content(one), _content(other)))


def _content(path: Path) -> Iterator[bytes]:
    """Yield the size and eight pieces of a file; of a folder the names and sizes of its frames, and eight frames."""
    if path.is_dir():
        frames = sorted((entry.name, entry.stat().st_size) for entry in _frames(path))
        yield repr(frames).encode(errors="surrogateescape")
        for name, _ in frames[:: max(1, len(frames) // PIECES)]:
            yield from _content(path / name)
        return
    size = path.stat().st_size
    yield str(size).encode()
    places = range(0, size, PIECE) if size <= PIECE * PIECES else range(0, size, (size - PIECE) // (PIECES - 1))
    with path.open("rb") as file:
        for place in places:
            yield _piece(file, place)


def _piece(file: BinaryIO, place: int) -> bytes:
    file.seek(place)
    return file.read(PIECE)


def _frames(folder: Path) -> list["os.DirEntry[str]"]:
    """Return the images in a folder; pathlib takes ten times as long for large folders."""
    with os.scandir(folder) as entries:
        return [entry for entry in entries if os.path.splitext(entry.name)[1].lower() in IMAGE and entry.is_file()]
