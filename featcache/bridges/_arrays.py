"""What the bridges to array and table formats share: ids, layouts of named arrays, safe reading, whole writing."""

import contextlib
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featcache._files import sync_folder
from featcache.bridges import External, Times
from featcache.errors import FormatError

ID_NAMES = ("clip_id", "clip_ids", "ids", "uid", "narration_ids", "names")  #: arrays that hold the clips' ids
OFFSET_NAMES = ("offset", "offsets")  #: (n + 1,) where each clip's windows begin, when clips stand end to end
START, STOP, RECIPE = "window_start", "window_stop", "recipe"
COMPANIONS = (*ID_NAMES, *OFFSET_NAMES, START, STOP, RECIPE)  #: names of arrays that describe others
ONE = "features"  #: the key where the file has no name for it


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

    def stacked(self) -> tuple[int, ...]:
        """Shape of all clips in one array: (n, T, *row_shape), or (sum of T, *row_shape) where T differs."""
        first = (sum(self.lengths),) if self.ragged else (len(self.lengths), self.lengths[0])
        return (*first, *self.row_shape)


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a parser makes of a foreign file into one FormatError."""
    try:
        yield
    except FormatError:
        raise
    except FileNotFoundError:
        raise FormatError(f"no {what} file {path}") from None
    except (IsADirectoryError, PermissionError) as error:
        raise FormatError(f"{path} cannot be read as {what}: {error.strerror}") from None
    except Exception as error:  # parsers of foreign bytes raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FormatError(f"{path} is not {what} as it should be, or it is damaged: {reason}") from None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A scratch file beside `path` that takes its place when all went well; else what stands there stays as it was."""
    if path.is_dir():
        raise FormatError(f"{path} is a folder; name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.partial")
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


def check_numbers(dtype: np.dtype[Any], place: str) -> None:
    """FormatError unless values are real numbers."""
    if dtype.kind not in "fiu":
        raise FormatError(f"{place} holds {dtype}; features are floats or integers")


def as_windows(row: NDArray[Any]) -> NDArray[Any]:
    """(D,) -> (1, D), one window; (T, ...) stays as it is."""
    return row[None] if row.ndim == 1 else row


def tables_of(arrays: Mapping[str, Arraylike], ids: Sequence[str] | None, path: Path, join: str) -> dict[str, External]:
    """The tables in a file of named arrays, in whichever of three layouts it has.

    Arrays over all clips, (n, D) or (n, T, ...), beside an array of ids; arrays over the windows of all clips end to
    end, (sum of T, ...), beside an `offset` (n + 1,); or one array (D,) or (T, ...) per clip, under its id. An array
    that describes only one other is called after it: KEY, `join`, and one of COMPANIONS.
    """
    described = any(_described(name, join) for name in arrays)
    tables = {}
    for key, array in arrays.items():
        if not _described(key, join) and array.dtype.kind in "fiu" and len(array.shape) > 1:
            table = _column(key, array, arrays, ids, path, join)
            if table is not None:
                tables[key] = table
    if ids is not None and not described and len(tables) == len(ids):
        raise FormatError(
            f"{path}: {len(ids)} arrays of {len(ids)} rows are as many clips or as many keys; add an array clip_id"
        )
    if tables:
        return tables
    if described:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise FormatError(f"{path}: no array has as many rows as there are ids, or windows in `offset`: {shapes}")
    return {ONE: one_per_clip(arrays, ids, path)}


def one_per_clip(
    arrays: Mapping[str, Arraylike],
    ids: Sequence[str] | None,
    path: Path,
    times: Callable[[str], Times] | None = None,
    recipe: dict[str, Any] | None = None,
) -> External:
    """The table of arrays that are a clip each. Where some have two axes or more, those with fewer are no features."""
    numeric = {name: array for name, array in arrays.items() if array.dtype.kind in "fiu" and array.shape}
    most = {name: array for name, array in numeric.items() if len(array.shape) > 1} or numeric
    if not most:
        raise FormatError(f"{path} holds no array of numbers; it has: {', '.join(arrays) or 'nothing'}")
    names = list(most)

    def row(k: int) -> NDArray[Any]:
        with reading(path, f"an array ({names[k]})"):
            return as_windows(np.asarray(most[names[k]][()]))

    return External(
        choose_ids(names, ids, len(names), str(path)),
        row,
        None if times is None else lambda k: times(names[k]),
        recipe or {},
    )


def _described(name: str, join: str) -> bool:
    return name in COMPANIONS or name.endswith(tuple(join + companion for companion in COMPANIONS))


def _column(
    key: str, array: Arraylike, arrays: Mapping[str, Arraylike], ids: Sequence[str] | None, path: Path, join: str
) -> External | None:
    """The table of one array over all clips; None if its length is neither that of the ids nor of the offset."""

    def companion(*names: str) -> NDArray[Any] | None:
        for name in (*(key + join + name for name in names), *names):
            if name in arrays:
                return np.asarray(arrays[name][()])
        return None

    place = f"{path}: {key}"
    names = companion(*ID_NAMES)
    own = None if names is None else clip_ids(names, f"{path}: ids")
    offset = companion(*OFFSET_NAMES)
    if offset is not None:
        offset = _checked_offset(offset, f"{path}: offset")
        if offset[-1] != array.shape[0]:
            return None
        count = len(offset) - 1
    else:
        count = array.shape[0]
        if count not in [len(found) for found in (ids, own) if found is not None]:
            return None
    chosen = choose_ids(own, ids, count, place)
    start, stop, recipe = companion(START), companion(STOP), companion(RECIPE)

    def part(k: int) -> Any:
        return k if offset is None else slice(int(offset[k]), int(offset[k + 1]))

    def row(k: int) -> NDArray[Any]:
        with reading(path, f"an array ({key})"):
            return as_windows(np.asarray(array[part(k)]))

    def times(k: int) -> Times:
        assert start is not None
        assert stop is not None
        both = [values.reshape(-1) if offset is not None else values.reshape(count, -1) for values in (start, stop)]
        return both[0][part(k)], both[1][part(k)]

    return External(chosen, row, None if start is None or stop is None else times, as_recipe(recipe, place))


def _checked_offset(values: NDArray[Any], place: str) -> NDArray[np.int64]:
    offset = values.reshape(-1)
    rising = len(offset) > 1 and offset.dtype.kind in "iu" and offset[0] == 0 and (np.diff(offset.astype(float)) > 0)
    if not np.all(rising):
        raise FormatError(f"{place} must be whole numbers that rise from 0, one more than there are clips")
    return offset.astype(np.int64)


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
    lengths, row_shape, halves = [], None, True
    for k, clip_id in enumerate(table.ids):
        if "\0" in clip_id:
            raise FormatError(f"clip id {clip_id!r} has a zero character, which no file format can hold")
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


def companions(tables: Mapping[str, External], surveys: Mapping[str, Survey], join: str) -> dict[str, NDArray[Any]]:
    """The arrays that describe the others, as `tables_of` reads them back."""
    for key in tables:
        if _described(key, join):
            raise FormatError(f"key {key!r} would be taken for a description of another; rename it")
    ids = [list(table.ids) for table in tables.values()]
    shared = all(other == ids[0] for other in ids)
    out: dict[str, NDArray[Any]] = {"clip_id": np.array(ids[0])} if shared else {}
    for key, table in tables.items():
        lengths = surveys[key].lengths
        if not shared:
            out[f"{key}{join}clip_id"] = np.array(table.ids)
        if surveys[key].ragged:
            out[f"{key}{join}offset"] = np.concatenate([[0], np.cumsum(lengths)])
        if table.times is not None:
            both = [table.times(k) for k in range(len(lengths))]
            for name, values in zip((START, STOP), zip(*both, strict=True), strict=True):
                out[f"{key}{join}{name}"] = np.concatenate(values) if surveys[key].ragged else np.stack(values)
        if table.recipe:
            out[f"{key}{join}recipe"] = np.array(json.dumps(table.recipe))
    return out


def parse_npy(data: bytes, place: str) -> NDArray[Any]:
    """The array in the bytes of a .npy file. Objects are refused, and a size that the bytes do not have."""
    stream = io.BytesIO(data)
    shape, _, dtype = npy_header(stream, place)
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise FormatError(f"{place}: {shape} of {dtype} do not fit into {len(data)} bytes")
    stream.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def npy_header(stream: Any, place: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and dtype at the head of a .npy stream."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise FormatError(f"{place}: .npy version {version} is none of {', '.join(map(str, readers))}")
    shape, fortran, dtype = readers[version](stream)
    if dtype.hasobject:
        raise FormatError(f"{place} holds Python objects (pickles), which are never loaded; save numbers instead")
    return shape, fortran, dtype


def escaped(text: str, characters: str) -> str:
    """These ASCII characters, and %, as % and two hexadecimal digits."""
    return "".join(f"%{ord(c):02X}" if c in characters or c == "%" else c for c in text)


def unescaped(text: str, characters: str) -> str:
    """The text that `escaped` was given; a % before anything else stays.

    >>> escaped("a.b%", "./"), unescaped("a%2Eb%25", "./"), unescaped("a%41", "./")
    ('a%2Eb%25', 'a.b%', 'a%41')
    """
    return re.sub("%([0-9A-F]{2})", lambda m: c if (c := chr(int(m[1], 16))) in characters + "%" else m[0], text)
