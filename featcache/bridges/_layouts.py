"""The layouts of files of named arrays that NumPy, HDF5 and MATLAB files have in common."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bridges import ID_NAMES, External, Times
from featcache.bridges._arrays import (
    OFFSET_NAMES,
    ONE,
    RECIPE,
    START,
    STOP,
    Arraylike,
    Survey,
    as_recipe,
    as_windows,
    checked_times,
    choose_ids,
    clip_ids,
    renamed,
    union,
)
from featcache.errors import FormatError
from featcache.untrusted import reading

ENDINGS = ("clip_id", *OFFSET_NAMES, START, STOP, RECIPE)  #: endings of names of arrays that describe one other array


def tables_of(arrays: Mapping[str, Arraylike], ids: Sequence[str] | None, path: Path, join: str) -> dict[str, External]:
    """Find the tables in a file of named arrays, which has one of three layouts.

    1. Arrays over all clips, (n, D) or (n, T, ...), and an array of ids.
    2. Arrays over the windows of all clips end to end, (sum of T, ...), and an `offset` (n + 1,).
    3. One array (D,) or (T, ...) per clip; its name is the clip's id.

    An array that describes one other array is named KEY, `join`, and one of ENDINGS. Vectors may be labels and are left
    out, and so are (n, 1) and (1, n), MATLAB's vectors. Any other array of numbers that does not fit is refused.
    """
    described = any(_described(name, join) and (array.shape or name not in ID_NAMES) for name, array in arrays.items())
    per_key = any(is_ids(name, join) and name not in ID_NAMES for name in arrays)
    wide = [
        key
        for key, array in arrays.items()
        if not _described(key, join) and array.dtype.kind in "fiu" and len(array.shape) > 1
    ]
    columns = {key: _column(key, arrays[key], arrays, None if per_key else ids, path, join) for key in wide}
    tables = {key: table for key, table in columns.items() if table is not None}
    if ids is not None and not described and 1 < len(wide) == len(ids):  # one id: both are the same
        if len(tables) < len(ids):
            return {ONE: one_per_clip(arrays, ids, path)}
        raise FormatError(
            f"{path}: {len(ids)} arrays of {len(ids)} rows may be one per clip or one per key; add an array clip_id"
        )
    for key, table in columns.items():
        shape = arrays[key].shape
        if tables and table is None and math.prod(shape) != max(shape):
            raise FormatError(
                f"{path}: {key} {shape} has neither one row per clip nor one row per window of `offset`; remove it or"
                " save it to a separate file"
            )
    if tables:
        left_out = [name for name in arrays if name not in tables and not _described(name, join)]
        tables = {key: replace(table, left_out=left_out) for key, table in tables.items()}
        return renamed(tables, union(tables), ids, path) if per_key else tables
    for name, array in arrays.items():
        if array.dtype.kind == "O" and not _described(name, join):
            array[()]  # an npz raises an error that gives the reason
    if described:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise FormatError(f"{path}: no array has one row per id, or one row per window of `offset`; it has: {shapes}")
    return {ONE: one_per_clip(arrays, ids, path)}


def one_per_clip(
    arrays: Mapping[str, Arraylike],
    ids: Sequence[str] | None,
    path: Path,
    times: Callable[[str], Times] | None = None,
    recipe: dict[str, Any] | None = None,
) -> External:
    """The table of a file with one array per clip. If any array has two axes or more, vectors are left out."""
    numeric = {name: array for name, array in arrays.items() if array.dtype.kind in "fiu" and array.shape}
    features = {name: array for name, array in numeric.items() if len(array.shape) > 1} or numeric
    if not features:
        raise FormatError(f"{path} holds no array of numbers; it has: {', '.join(arrays) or 'nothing'}")
    names = list(features)

    def row(k: int) -> NDArray[Any]:
        with reading(path, f"an array ({names[k]})"):
            return as_windows(np.asarray(features[names[k]][()]))

    return External(
        choose_ids(names, ids, len(names), str(path)),
        row,
        None if times is None else lambda k: times(names[k]),
        recipe or {},
        left_out=[name for name in arrays if name not in features and name not in ID_NAMES],
    )


def is_ids(name: str, join: str) -> bool:
    """True if an array has one of the names of ids."""
    return name in ID_NAMES or name.endswith(f"{join}clip_id")


def _described(name: str, join: str) -> bool:
    return name in (*ID_NAMES, *ENDINGS) or name.endswith(tuple(join + ending for ending in ENDINGS))


def _column(
    key: str, array: Arraylike, arrays: Mapping[str, Arraylike], ids: Sequence[str] | None, path: Path, join: str
) -> External | None:
    """The table of one array over all clips; None if its length fits neither the ids nor the offset."""

    def companion(*names: str) -> NDArray[Any] | None:
        for name in (*(key + join + name for name in names), *names):
            if name in arrays and (arrays[name].shape or names is not ID_NAMES):
                return np.asarray(arrays[name][()])
        return None

    place = f"{path}: {key}"
    names = companion(*ID_NAMES) if ids is None else None  # ids that are replaced may have any type
    own = None if names is None else clip_ids(names, f"{path}: ids")
    clips = ids if own is None else own
    offset = companion(*OFFSET_NAMES)
    count = array.shape[0]
    if offset is not None:
        offset = _checked_offset(offset, f"{path}: offset")
        if offset[-1] == count:
            count = len(offset) - 1
        elif clips is not None and len(clips) == count:
            offset = None  # it belongs to other arrays
    shared = [arrays[name].shape for name in ID_NAMES if name in arrays]
    counts = [len(clips)] if clips is not None else []
    if offset is None and count not in counts + [math.prod(shape) for shape in shared]:
        return None
    if offset is not None and offset[-1] != array.shape[0]:
        return None
    chosen = choose_ids(own, ids, count, place)
    start, stop, recipe = companion(START), companion(STOP), companion(RECIPE)
    if (start is None) != (stop is None):
        raise FormatError(f"{place} has only one of {START} and {STOP}; both or neither are expected")
    timed = start is not None
    if timed:
        windows = array.shape[0] if offset is not None else count * (array.shape[1] if len(array.shape) > 2 else 1)
        start, stop = checked_times(start, stop, place)
        if start.size != windows:
            raise FormatError(f"{place} has {windows} windows, but {start.size} window times")

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

    return External(chosen, row, times if timed else None, as_recipe(recipe, place))


def _checked_offset(values: NDArray[Any], place: str) -> NDArray[np.int64]:
    offset = values.reshape(-1)
    rising = len(offset) > 1 and offset.dtype.kind in "iu" and offset[0] == 0 and (np.diff(offset.astype(float)) > 0)
    if not np.all(rising):
        raise FormatError(f"{place} must hold whole numbers that increase from 0, one more than there are clips")
    return offset.astype(np.int64)


def descriptions(tables: Mapping[str, External], surveys: Mapping[str, Survey], join: str) -> dict[str, NDArray[Any]]:
    """The arrays of ids, offsets, times and recipes that `tables_of` reads back."""
    for key in tables:
        if _described(key, join):
            raise FormatError(f"key {key!r} would be read as a description of another array; rename it")
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
