"""Features of mmaction2's clip_feature_extraction.py: a pickled list in the order of the videos, without ids.

Each entry is an array or tensor (D,), one window, or (T, D). The ids are given (the lines of the `--video-list` of the
extraction, in its order), or are in NAME.pkl.ids.txt next to NAME.pkl, one per line. They are never guessed: if the
extraction dropped a video, the numbers differ and the file is refused. mmaction2 1.x splits the list at the end into
a folder with one pickle per video; this folder is read, too, and its file names are the ids. The key is `features`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from featcache.bridges import External, ids_file
from featcache.bridges._arrays import (
    ONE,
    as_windows,
    choose_ids,
    ids_beside,
    replacing_with_ids,
    rows_of,
    survey,
    the_only,
)
from featcache.errors import FormatError
from featcache.untrusted import pickles, reading

KEEPS = frozenset({"windows", "ragged", "shape", "dtype"})
KIND = "a feature file of mmaction2"


def companions(path: Path) -> list[Path]:
    """The files next to `path` that `write` also replaces."""
    return [ids_file(path)]


def read(path: Path, ids: Sequence[str] | None = None) -> dict[str, External]:
    """Read {"features": ...}; `ids` are those of the entries. A list is held in memory, a folder is not."""
    if path.is_dir():
        return {ONE: _folder(path, ids)}
    content = pickles.load(path)
    with reading(path, KIND):
        if not isinstance(content, list) or not content:
            raise FormatError(f"{path} holds {pickles.describe(content)}; a list of arrays, one per video, is expected")
        rows = [_checked(entry, f"{path}: entry {k}") for k, entry in enumerate(content)]
        return {ONE: External(ids_beside(path, ids, len(rows)), rows.__getitem__)}


def _folder(path: Path, ids: Sequence[str] | None) -> External:
    files = sorted(path.rglob("*.pkl"))
    if not files:
        raise FormatError(f"{path} has no *.pkl files; mmaction2 writes one per video")
    own = [file.relative_to(path).as_posix().removesuffix(".pkl") for file in files]

    def row(k: int) -> NDArray[Any]:
        with reading(files[k], KIND):
            return _checked(pickles.load(files[k]), str(files[k]))

    return External(choose_ids(own, ids, len(files), str(path)), row)


def _checked(entry: Any, place: str) -> NDArray[Any]:
    return as_windows(pickles.checked(entry, place, "(D,) or (T, D)"))


def write(path: Path, tables: dict[str, External]) -> None:
    """Write one table, each clip as (T, D), and the file of ids. All features are held in memory."""
    key, table = the_only(tables, path, "mmaction2")
    rows = list(rows_of(table, survey(key, table).dtype))
    with replacing_with_ids(path, table.ids) as scratch, scratch.open("wb") as file:
        pickles.dump(rows, file)
