"""Helpers of the bridges to array and table formats: clip ids, window times, recipes, atomic writing."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featcache import schema
from featcache.bridges import GIVE_IDS, ID_NAMES, External, Times, ids_file, read_ids
from featcache.errors import ConfigError, FormatError
from featcache.files import replacing
from featcache.untrusted.pickles import describe

OFFSET_NAMES = ("offset", "offsets")  #: arrays (n + 1,) of the start of each clip's windows, for clips end to end
START, STOP, RECIPE = "window_start", "window_stop", "recipe"
ONE = "features"  #: the key for formats that do not name one
LONGEST = 200  #: maximum number of characters of a key or an id


class Arraylike(Protocol):
    """An array in memory or in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""

    def __getitem__(self, place: Any) -> Any:
        """Read a part of the array; [()] reads all of it."""


@dataclass(frozen=True)
class Survey:
    """The lengths, row shape and dtype of the clips of a table."""

    lengths: list[int]  #: number of windows of each clip
    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]  #: float16 if all clips are, else float32

    @property
    def ragged(self) -> bool:
        """True if the number of windows differs between clips."""
        return len(set(self.lengths)) > 1

    def check_even(self, key: str, format: str) -> None:
        """Raise FormatError if the number of windows differs; for formats with one T."""
        if self.ragged:
            raise FormatError(
                f"{format} needs equally many windows per clip, but {key} has {min(self.lengths)} to"
                f" {max(self.lengths)}; write hdf5 or npz"
            )

    def stacked(self) -> tuple[int, ...]:
        """The shape of all clips in one array: (n, T, *row_shape), or (sum of T, *row_shape) if T differs."""
        first = (sum(self.lengths),) if self.ragged else (len(self.lengths), self.lengths[0])
        return (*first, *self.row_shape)


def ids_beside(path: Path, given: Sequence[str] | None, count: int) -> list[str]:
    """The ids of `count` clips of a file that cannot hold them: `given`, or those in the text file next to it."""
    if given is None and not ids_file(path).exists():
        raise FormatError(
            f"{path} holds {count} features and no clip ids, and there is no file {ids_file(path).name} next to it;"
            f" {GIVE_IDS}"
        )
    return choose_ids(read_ids(ids_file(path)) if given is None else None, given, count, str(path))


@contextlib.contextmanager
def replacing_with_ids(path: Path, ids: Sequence[str]) -> Iterator[Path]:
    """`replacing` with a file of ids next to it. A kill leaves features without ids, never with wrong ids."""
    for clip_id in ids:
        if "\n" in clip_id or "\r" in clip_id:
            raise FormatError(
                f"clip id {clip_id!r} has a line break, which a list of ids cannot hold; write npz or hdf5"
            )
    with replacing(ids_file(path)) as ids_scratch:
        ids_scratch.write_bytes("".join(f"{clip_id}\n" for clip_id in ids).encode())
        with replacing(path) as scratch:
            yield scratch
            with scratch.open("rb") as file:
                os.fsync(file.fileno())  # every step that can fail is done before the old ids are removed
            ids_file(path).unlink(missing_ok=True)


def clip_ids(values: Any, place: str) -> list[str]:
    """Ids as text, from text, bytes (UTF-8) or whole numbers. FormatError for other values and duplicates."""
    ids = []
    for value in np.asarray(values, dtype=object).reshape(-1).tolist():
        if isinstance(value, bytes):
            value = value.decode()
        if isinstance(value, float) and value.is_integer():  # MATLAB stores whole numbers as floats
            value = int(value)
        if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
            raise FormatError(f"{place}: {value!r} is not a clip id; text or a whole number is expected")
        ids.append(str(value))
    row_of: dict[str, int] = {}
    for row, name in enumerate(ids):
        if name in row_of:
            raise FormatError(f"{place}: clip id {name!r} occurs twice, in rows {row_of[name]} and {row}")
        row_of[name] = row
    return ids


def ids_of(values: Any, place: str) -> list[str]:
    """The clip ids in a list or an array."""
    if isinstance(values, np.ndarray) and values.ndim == 1:
        values = values.tolist()
    if not isinstance(values, list | tuple):
        raise FormatError(f"{place} is {describe(values)}; a list of clip ids is expected")
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    for value in values:
        if not isinstance(value, str | bytes | int | float):
            raise FormatError(f"{place} holds {describe(value)}; a clip id is expected")
    return clip_ids(values, place)


def choose_ids(own: Sequence[str] | None, given: Sequence[str] | None, count: int, place: str) -> list[str]:
    """The ids of `count` clips: `given`, or the file's own; FormatError if there are none or a wrong number."""
    ids = own if given is None else given
    if ids is None:
        raise FormatError(f"{place} has no clip ids (looked for {', '.join(ID_NAMES)}); {GIVE_IDS}")
    if len(ids) != count:
        origin = "it names" if given is None else "there are"
        raise FormatError(f"{place} has features of {count} clips, but {origin} {len(ids)} ids")
    return clip_ids(ids, "the ids" if given is not None else place)


def renamed(
    tables: Mapping[str, External], own: Sequence[str], ids: Sequence[str] | None, path: Path
) -> dict[str, External]:
    """The tables with `ids` in place of `own`, which are the ids of all keys in the order of the file."""
    new = dict(zip(own, choose_ids(own, ids, len(own), str(path)), strict=True))
    return {key: replace(table, ids=[new[clip_id] for clip_id in table.ids]) for key, table in tables.items()}


def union(tables: Mapping[str, External]) -> list[str]:
    """The ids of all tables, each once."""
    return list(dict.fromkeys(clip_id for table in tables.values() for clip_id in table.ids))


def as_windows(row: NDArray[Any]) -> NDArray[Any]:
    """Make (D,) one window, (1, D); return (T, ...) unchanged."""
    return row[None] if row.ndim == 1 else row


def checked_times(start: Any, stop: Any, place: str) -> Times:
    """Start and stop of windows as float64, of one shape; FormatError unless start <= stop < infinity, or NaN."""
    both = np.asarray(start), np.asarray(stop)
    if both[0].shape != both[1].shape or any(values.dtype.kind not in "fiu" for values in both):
        kinds = " and ".join(f"{values.dtype} {values.shape}" for values in both)
        raise FormatError(f"{place}: {START} and {STOP} must be numbers of one shape, not {kinds}")
    first, last = (values.astype(np.float64) for values in both)
    if np.isinf(first).any() or np.isinf(last).any() or (first > last).any():
        raise FormatError(f"{place}: a window stops before it starts, or has an infinite time ({START}, {STOP})")
    return first, last


def as_recipe(text: Any, place: str) -> dict[str, Any]:
    """Parse a recipe from JSON text (possibly in an array of one); {} for None."""
    if text is None:
        return {}
    text, place = np.asarray(text).reshape(-1)[0], f"the recipe of {place}"
    fix = "export the file again, or remove the recipe from it"
    content = schema.loads(text if isinstance(text, bytes) else str(text), place, error=FormatError, fix=fix)
    try:
        recipe: dict[str, Any] = schema.from_json(content, dict[str, Any])
    except ConfigError as error:
        raise FormatError(f"{place}: {error}; {fix}") from None
    return recipe


def survey(key: str, table: External) -> Survey:
    """Read a table once before it is written; FormatError names two clips whose rows differ in shape."""
    if not table.ids:
        raise FormatError(f"{key} has no clips to write")
    for kind, name in [("key", key), *(("clip id", clip_id) for clip_id in table.ids)]:
        if not name or len(name) > LONGEST or re.search("[\0\ud800-\udfff]", name):
            raise FormatError(
                f"{kind} {name[:LONGEST]!r} cannot be written: 1 to {LONGEST} characters are expected, without null"
                " characters and unpaired surrogates"
            )
    lengths, row_shape, halves = [], None, True
    for k, clip_id in enumerate(table.ids):
        row = table.row(k)
        if row_shape is None:
            row_shape = row.shape[1:]
        if row.shape[1:] != row_shape or not row.size:
            raise FormatError(
                f"{key}: rows differ in shape: {row_shape} in clip {table.ids[0]!r}, {row.shape[1:]} in {clip_id!r}"
            )
        lengths.append(len(row))
        halves &= row.dtype == np.float16
    assert row_shape is not None
    return Survey(lengths, row_shape, np.dtype("float16" if halves else "float32"))


def the_only(tables: Mapping[str, External], path: Path, format: str) -> tuple[str, External]:
    """The key and table for a format that holds one key; FormatError if there are several."""
    if len(tables) != 1:
        raise FormatError(f"{format} holds one key, not {', '.join(tables)}; write one file per key instead of {path}")
    return next(iter(tables.items()))


def write_npy(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], parts: Iterable[NDArray[Any]]) -> None:
    """Write an array in the .npy format from consecutive parts."""
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_2_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    for part in parts:
        file.write(np.ascontiguousarray(part, dtype).tobytes())


def rows_of(table: External, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """Yield the rows of the clips in this dtype."""
    return (table.row(k).astype(dtype) for k in range(len(table.ids)))


def escaped(text: str, characters: str) -> str:
    """Replace these ASCII characters, and %, by % and two hexadecimal digits."""
    return "".join(f"%{ord(c):02X}" if c in characters or c == "%" else c for c in text)


def unescaped(text: str, characters: str) -> str:
    """Undo `escaped`; a % before anything else stays.

    >>> escaped("a.b%", "./"), unescaped("a%2Eb%25", "./"), unescaped("a%41", "./")
    ('a%2Eb%25', 'a.b%', 'a%41')
    """
    return re.sub("%([0-9A-F]{2})", lambda m: c if (c := chr(int(m[1], 16))) in characters + "%" else m[0], text)
