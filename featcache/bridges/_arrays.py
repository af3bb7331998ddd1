"""What the bridges to array and table formats share: ids, safe reading, whole writing."""

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featcache.bridges import ID_NAMES, External, Times, read_ids
from featcache.errors import FormatError
from featcache.files import replacing
from featcache.untrusted import reading
from featcache.untrusted.pickles import describe

OFFSET_NAMES = ("offset", "offsets")  #: (n + 1,) where each clip's windows begin, when clips stand end to end
START, STOP, RECIPE = "window_start", "window_stop", "recipe"
ONE = "features"  #: the key where the file has no name for it
LONGEST = 200  #: characters of a key or an id


class Arraylike(Protocol):
    """An array that is perhaps still in its file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its values."""

    def __getitem__(self, place: Any) -> Any:
        """A part of it; [()] is all."""


@dataclass(frozen=True)
class Survey:
    """What the clips of a table have in common."""

    lengths: list[int]  #: windows of each clip
    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]  #: float16 if all clips are, else float32

    @property
    def ragged(self) -> bool:
        """Whether the number of windows differs."""
        return len(set(self.lengths)) > 1

    def check_even(self, key: str, format: str) -> None:
        """FormatError, for a format that has one T, where the number of windows differs."""
        if self.ragged:
            raise FormatError(
                f"{format} holds equally many windows per clip, {key} has {min(self.lengths)} to {max(self.lengths)};"
                " write hdf5 or npz"
            )

    def stacked(self) -> tuple[int, ...]:
        """Shape of all clips in one array: (n, T, *row_shape), or (sum of T, *row_shape) where T differs."""
        first = (sum(self.lengths),) if self.ragged else (len(self.lengths), self.lengths[0])
        return (*first, *self.row_shape)


def ids_file(path: Path) -> Path:
    """Where the ids of a file stand that cannot hold them."""
    return path.with_name(f"{path.name}.ids.txt")


def ids_beside(path: Path, given: Sequence[str] | None, count: int) -> list[str]:
    """The ids of `count` clips of a file that cannot hold them: those given, else those in the file beside it."""
    if given is None and not ids_file(path).exists():
        raise FormatError(
            f"{path} holds {count} features and no clip ids, and there is no file {ids_file(path).name} beside it; give"
            " the ids in a text file with --ids, one per line, in the order of the file"
        )
    return choose_ids(read_ids(ids_file(path)) if given is None else None, given, count, str(path))


@contextlib.contextmanager
def replacing_with_ids(path: Path, ids: Sequence[str]) -> Iterator[Path]:
    """As `replacing`, with a file of ids beside it. A kill leaves features without ids, never with wrong ones."""
    for clip_id in ids:
        if "\n" in clip_id or "\r" in clip_id:
            raise FormatError(
                f"clip id {clip_id!r} has a line break, which a list of ids cannot hold; write npz or hdf5"
            )
    with replacing(ids_file(path)) as names:
        names.write_bytes("".join(f"{clip_id}\n" for clip_id in ids).encode())
        with replacing(path) as scratch:
            yield scratch
            with scratch.open("rb") as file:
                os.fsync(file.fileno())  # what can fail has been done when the old ids go
            ids_file(path).unlink(missing_ok=True)


def clip_ids(values: Any, place: str) -> list[str]:
    """Ids as text: from text, bytes (UTF-8) or whole numbers. FormatError names an id that is none, or stands twice."""
    ids = []
    for value in np.asarray(values, dtype=object).reshape(-1).tolist():
        if isinstance(value, bytes):
            value = value.decode()
        if isinstance(value, float) and value.is_integer():  # MATLAB has no other numbers
            value = int(value)
        if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
            raise FormatError(f"{place}: {value!r} is no clip id; text or a whole number is expected")
        ids.append(str(value))
    seen: dict[str, int] = {}
    for row, name in enumerate(ids):
        if name in seen:
            raise FormatError(f"{place}: clip id {name!r} stands twice, in rows {seen[name]} and {row}")
        seen[name] = row
    return ids


def ids_of(values: Any, place: str) -> list[str]:
    """Clip ids out of a list or an array."""
    if isinstance(values, np.ndarray) and values.ndim == 1:
        values = values.tolist()
    if not isinstance(values, list | tuple):
        raise FormatError(f"{place}: {describe(values)} where a list of clip ids is expected")
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    for value in values:
        if not isinstance(value, str | bytes | int | float):
            raise FormatError(f"{place}: {describe(value)} where a clip id is expected")
    return clip_ids(values, place)


def choose_ids(own: Sequence[str] | None, given: Sequence[str] | None, count: int, place: str) -> list[str]:
    """The ids of `count` clips: those given, else the file's own; FormatError when there are none, or too many."""
    ids = own if given is None else given
    if ids is None:
        raise FormatError(
            f"{place} has no clip ids (looked for {', '.join(ID_NAMES)}); give them in a text file, one per line"
        )
    if len(ids) != count:
        origin = "it names" if given is None else "there are"
        raise FormatError(f"{place} has features of {count} clips, but {origin} {len(ids)} ids")
    return clip_ids(ids, "the ids" if given is not None else place)


def renamed(
    tables: Mapping[str, External], own: Sequence[str], ids: Sequence[str] | None, path: Path
) -> dict[str, External]:
    """The tables with `ids` in place of `own`, the ids of all keys together in the order of the file."""
    new = dict(zip(own, choose_ids(own, ids, len(own), str(path)), strict=True))
    return {key: replace(table, ids=[new[clip_id] for clip_id in table.ids]) for key, table in tables.items()}


def union(tables: Mapping[str, External]) -> list[str]:
    """The ids of all tables, each once."""
    return list(dict.fromkeys(clip_id for table in tables.values() for clip_id in table.ids))


def as_windows(row: NDArray[Any]) -> NDArray[Any]:
    """(D,) -> (1, D), one window; (T, ...) stays as it is."""
    return row[None] if row.ndim == 1 else row


def checked_times(start: Any, stop: Any, place: str) -> Times:
    """Start and stop of windows, of one shape; FormatError unless they are numbers (or NaN) that do not run back."""
    both = np.asarray(start), np.asarray(stop)
    if both[0].shape != both[1].shape or any(values.dtype.kind not in "fiu" for values in both):
        found = " and ".join(f"{values.dtype} {values.shape}" for values in both)
        raise FormatError(f"{place}: {START} and {STOP} must be numbers of one shape, not {found}")
    first, last = (values.astype(np.float64) for values in both)
    if np.isinf(first).any() or np.isinf(last).any() or (first > last).any():
        raise FormatError(f"{place}: a window stops before it starts, or never ({START}, {STOP})")
    return first, last


def as_recipe(text: Any, place: str) -> dict[str, Any]:
    """A recipe kept as JSON text (possibly in an array of one); {} if there is none."""
    if text is None:
        return {}
    text = np.asarray(text).reshape(-1)[0]
    with reading(Path(place), "JSON of a recipe"):
        recipe = json.loads(text.decode() if isinstance(text, bytes) else str(text))
    if not isinstance(recipe, dict):
        raise FormatError(f"{place}: the recipe is {type(recipe).__name__}, not a JSON object")
    return recipe


def survey(key: str, table: External) -> Survey:
    """Read a table through once before it is written; FormatError names two clips whose rows differ in shape."""
    if not table.ids:
        raise FormatError(f"{key} has no clips to write")
    for what, name in [("key", key), *(("clip id", clip_id) for clip_id in table.ids)]:
        if not name or len(name) > LONGEST or re.search("[\0\ud800-\udfff]", name):
            raise FormatError(
                f"{what} {name[:LONGEST]!r} cannot be written: 1 to {LONGEST} characters are expected, without zero"
                " characters and halves of surrogate pairs"
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


def the_only(tables: Mapping[str, External], path: Path, what: str) -> tuple[str, External]:
    """The one table for a format that holds one; FormatError when there are several."""
    if len(tables) != 1:
        raise FormatError(f"{what} holds one key, not {', '.join(tables)}; write one file for each, not all to {path}")
    return next(iter(tables.items()))


def write_npy(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], parts: Iterable[NDArray[Any]]) -> None:
    """Write an array in the .npy format whose values come in parts."""
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_2_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    for part in parts:
        file.write(np.ascontiguousarray(part, dtype).tobytes())


def rows_of(table: External, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """The clips' rows in this dtype, one after the other."""
    return (table.row(k).astype(dtype) for k in range(len(table.ids)))


def escaped(text: str, characters: str) -> str:
    """These ASCII characters, and %, as % and two hexadecimal digits."""
    return "".join(f"%{ord(c):02X}" if c in characters or c == "%" else c for c in text)


def unescaped(text: str, characters: str) -> str:
    """The text that `escaped` was given; a % before anything else stays.

    >>> escaped("a.b%", "./"), unescaped("a%2Eb%25", "./"), unescaped("a%41", "./")
    ('a%2Eb%25', 'a.b%', 'a%41')
    """
    return re.sub("%([0-9A-F]{2})", lambda m: c if (c := chr(int(m[1], 16))) in characters + "%" else m[0], text)
