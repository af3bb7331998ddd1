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
    """Return the state of a file or folder of frames; None if there is none, or it cannot be read."""
    try:
        found = [state for _, state in _frames(path)] if path.is_dir() else [path.stat()]
    except (OSError, ValueError):
        return None
    if not found:
        return None
    sizes, modified, changed = zip(*((s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in found), strict=True)
    return State(sum(sizes), max(modified), max(changed))


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
        frames = sorted((name, state.st_size) for name, state in _frames(path))
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


def _frames(folder: Path) -> list[tuple[str, os.stat_result]]:
    """Return the name and state of each image in a folder. pathlib takes ten times as long for many frames."""
    with os.scandir(folder) as entries:
        images = (entry for entry in entries if entry.name[entry.name.rfind(".") :].lower() in IMAGE)
        return [(entry.name, entry.stat()) for entry in images if entry.is_file()]
