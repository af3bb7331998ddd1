"""WebDataset tar shard: a member CLIP.KEY.npy per clip and key.

The id is the part of a member's name before the first dot, so . / and % in ids are written as %2E %2F and %25.
CLIP.KEY.times.npy (2, T) holds start and stop of the windows, and __featcache__/KEY.json the recipe (WebDataset readers
skip names in double underscores). Other members (pictures, labels) are ignored. Nothing is ever extracted to disk.
"""

import io
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bridges import External, Times
from featcache.bridges._arrays import as_recipe, as_windows, checked_times, escaped, renamed, survey, unescaped, union
from featcache.errors import FormatError
from featcache.files import regular, replacing
from featcache.untrusted import reading
from featcache.untrusted.npy import parse_npy

KEEPS = frozenset({"several", "windows", "ragged", "shape", "dtype", "ids", "times", "recipe"})
META = "__featcache__/"  #: folder of members that describe all clips
SPECIAL = "./"  #: characters that are escaped in ids
Members = dict[str, tuple[int, int]]  #: clip id -> offset and size of its array in the shard


def read(path: Path, ids: Sequence[str] | None = None) -> dict[str, External]:
    """Read key -> features; `ids` replaces the ids, in the order of the file."""
    rows: dict[str, Members] = {}
    times: dict[str, Members] = {}
    recipes: dict[str, dict[str, Any]] = {}
    clips: dict[str, None] = {}  # in the order of the file
    others: dict[str, None] = {}  # endings of members that are not features
    with reading(path, "a tar file"), tarfile.open(path, "r:", encoding="utf-8") as shard:
        for member in shard:
            if member.isdir():
                continue
            if not member.isreg() or member.issparse() or member.size < 0:
                raise FormatError(f"{path}: {member.name} is a link or device; only plain files are read")
            place = (member.offset_data, member.size)
            if member.name.startswith(META):
                recipes[member.name.removeprefix(META).removesuffix(".json")] = as_recipe(
                    _bytes(path, place), str(path)
                )
                continue
            folder, _, name = member.name.rpartition("/")
            clip, *words = name.split(".")
            members = {2: rows, 3: times}.get(len(words)) if words[-1:] == ["npy"] else None
            if members is None or (len(words) == 3 and words[1] != "times"):
                others[".".join(words)] = None
                continue
            clip_id = unescaped(f"{folder}/{clip}" if folder else clip, SPECIAL)
            if clip_id in members.setdefault(words[0], {}):
                raise FormatError(f"{path} holds {member.name} twice")
            members[words[0]][clip_id] = place
            if members is rows:
                clips[clip_id] = None
        if _bytes(path, (shard.offset, tarfile.BLOCKSIZE)).strip(b"\0"):
            raise FormatError(f"{path} is cut off: the empty block at the end of a tar file is missing")
    if not rows:
        raise FormatError(f"{path} has no member CLIP.KEY.npy")
    tables = {
        key: replace(_table(path, key, rows[key], times.get(key, {}), recipes.get(key, {})), left_out=list(others))
        for key in rows
    }
    return renamed(tables, list(clips), ids, path)


def write(path: Path, tables: dict[str, External]) -> None:
    """Write the members clip by clip, so that all keys of a clip are adjacent."""
    for key, table in tables.items():
        if not key or set(key) & set("./") or key == "times":
            raise FormatError(f"key {key!r} cannot be part of a member's name; rename it, using letters, digits and _")
        survey(key, table)
    places = {key: {clip_id: k for k, clip_id in enumerate(table.ids)} for key, table in tables.items()}
    with replacing(path) as scratch, tarfile.open(scratch, "w", format=tarfile.PAX_FORMAT, encoding="utf-8") as shard:
        for key, table in tables.items():
            if table.recipe:
                _add(shard, f"{META}{key}.json", json.dumps(table.recipe).encode())
        for clip_id in union(tables):
            for key, table in tables.items():
                if clip_id in places[key]:
                    k, name = places[key][clip_id], f"{escaped(clip_id, SPECIAL)}.{key}"
                    row = table.row(k)
                    _add(shard, f"{name}.npy", _npy(row if row.dtype == np.float16 else row.astype(np.float32)))
                    if table.times is not None:
                        _add(shard, f"{name}.times.npy", _npy(np.stack(table.times(k))))


def _table(path: Path, key: str, rows: Members, times: Members, recipe: dict[str, Any]) -> External:
    names = list(rows)

    def load(place: tuple[int, int]) -> NDArray[Any]:
        with reading(path, f"a shard ({key})"):
            return parse_npy(_bytes(path, place), f"{path}: {key}")

    def times_of(k: int) -> Times:
        both = load(times[names[k]])
        if both.ndim != 2 or len(both) != 2:
            raise FormatError(f"{path}: times of {names[k]!r} have shape {both.shape}; (2, T) is expected")
        return checked_times(both[0], both[1], f"{path}: {names[k]}")

    timed = times.keys() >= rows.keys()
    return External(names, lambda k: as_windows(load(rows[names[k]])), times_of if timed else None, recipe)


def _bytes(path: Path, place: tuple[int, int]) -> bytes:
    with regular(path).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(place[0])
        data = file.read(min(place[1], size))
    if len(data) != place[1]:
        raise FormatError(f"{path} is cut off: a member needs byte {place[0] + place[1]}")
    return data


def _npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=False)
    return stream.getvalue()


def _add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    shard.addfile(member, io.BytesIO(data))
