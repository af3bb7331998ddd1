"""Helpers of the bridges to folders of files: atomic replacement of a folder, and a record of the clips' order."""

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featcache import schema
from featcache.bridges import External
from featcache.bridges._arrays import choose_ids, union
from featcache.errors import FormatError
from featcache.files import making_folder, remove_abandoned

MARK = ".featcache.json"  #: file in folders that a bridge has written; other tools ignore it


@contextlib.contextmanager
def replacing_folder(path: Path, tables: Mapping[str, External]) -> Iterator[Path]:
    """Yield a scratch folder that replaces `path` on success; after an error `path` is unchanged.

    Only an empty folder or one that a bridge has written is replaced; FormatError for any other.
    """
    path = Path(os.path.abspath(path))  # "." has no name
    remove_abandoned(path)
    if path.exists() and not path.is_dir():
        raise FormatError(f"{path} is a file; name a folder")
    if path.exists() and any(path.iterdir()) and not (path / MARK).is_file():
        raise FormatError(f"{path} has files that featcache did not write; name a new folder or remove this one")
    if path.exists():
        for name in sorted(_files(path) - set(_mark(path).files)):
            raise FormatError(f"{path} has {name}, which featcache did not write; move it away, or name a new folder")
    with making_folder(path, replace=True) as scratch:
        scratch.mkdir()
        yield scratch
        mark = {"keys": list(tables), "ids": union(tables), "files": sorted(_files(scratch))}
        (scratch / MARK).write_text(json.dumps(mark), encoding="utf-8")


def _files(path: Path) -> set[str]:
    """The relative paths of all files and links in the folder, except our own mark."""
    parts = (part for part in path.rglob("*") if part.is_symlink() or not part.is_dir())
    return {part.relative_to(path).as_posix() for part in parts} - {MARK}


@dataclass(frozen=True)
class _Mark:
    """The content of MARK: what a bridge has written into a folder."""

    keys: tuple[str, ...]
    ids: tuple[str, ...]
    files: tuple[str, ...]


def _mark(path: Path) -> _Mark:
    """The keys, ids and files that a bridge has written into this folder; empty if another tool wrote it."""
    if not (path / MARK).is_file():
        return _Mark((), (), ())
    return schema.read(path / MARK, _Mark, error=FormatError, fix="remove it, or export the folder again")


def order(path: Path) -> tuple[list[str], list[str]]:
    """The keys and ids in the order in which a bridge has written them; empty if another tool wrote the folder."""
    mark = _mark(path)
    return list(mark.keys), list(mark.ids)


def named(
    names_by_key: Mapping[str, Collection[str]], ids: Sequence[str] | None, path: Path
) -> dict[str, dict[str, str]]:
    """Map each key to {clip's name in the folder: its id}, in order; the id is the name or, if given, one of `ids`."""
    first_keys, first_ids = order(path)
    names = _arranged({name for part in names_by_key.values() for name in part}, first_ids)
    chosen = dict(zip(names, choose_ids(names, ids, len(names), str(path)), strict=True))
    keys = _arranged({key for key in names_by_key if names_by_key[key]}, first_keys)
    return {key: {name: chosen[name] for name in names if name in names_by_key[key]} for key in keys}


def _arranged(names: set[str], first: list[str]) -> list[str]:
    """Sort names: those in `first` in its order, then the others alphabetically."""
    place = {name: k for k, name in enumerate(first)}
    return sorted(names, key=lambda name: (place.get(name, len(place)), name))


def check_folder(path: Path, format: str) -> None:
    """Raise FormatError unless `path` is a folder."""
    if not path.is_dir():
        raise FormatError(f"{path} is a file; {format} needs a folder" if path.exists() else f"no folder {path}")
