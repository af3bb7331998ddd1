"""Parquet table (with pyarrow): a row per clip, its id in `clip_id`, its features in a column of lists.

    clip_id text; rgb list<fixed_size_list<halffloat or float>[D]>; window_start, window_stop list<double>

is written, with KEY as the column's name and the recipe (JSON) in the schema's metadata under `featcache`. Any nested
or fixed-size list of numbers is read, each such column as a key: (D,) or (T, D) or deeper. An empty cell is a clip
without this key.
"""

import importlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bridges import ID_NAMES, External, Times
from featcache.bridges._arrays import (
    START,
    STOP,
    as_recipe,
    as_windows,
    checked_times,
    choose_ids,
    clip_ids,
    survey,
    the_only,
)
from featcache.errors import FormatError
from featcache.files import replacing
from featcache.untrusted import reading

KEEPS = frozenset({"windows", "ragged", "shape", "dtype", "ids", "times", "recipe"})
GROUP_BYTES = 32 << 20  #: about what is held in memory at a time
OLDEST = (14, 0, 1)  #: pyarrow
MARK = b"featcache"  #: key of the recipe in the schema's metadata


def read(path: Path, ids: Sequence[str] | None = None) -> dict[str, External]:
    """Column -> features; ids: of the rows, where there is no column of ids, or instead of it."""
    pa, pq = _pyarrow()
    with reading(path, "parquet"):
        file = pq.ParquetFile(path)
        schema, count = file.schema_arrow, file.metadata.num_rows
        name = next((name for name in ID_NAMES if name in schema.names), None)
        own = clip_ids(file.read([name])[name].to_pylist(), f"{path}: {name}") if name and ids is None else None
        keys = [field.name for field in schema if field.name not in (START, STOP) and _is_features(pa, field.type)]
        if not keys:
            raise FormatError(f"{path} has no column of lists of numbers; it has: {', '.join(schema.names)}")
        chosen = choose_ids(own, ids, count, str(path))
        recipe = as_recipe((schema.metadata or {}).get(MARK), str(path))
        left_out = [column for column in schema.names if column not in (*keys, name, START, STOP)]
        tables = {key: _table(pa, file, path, key, chosen, recipe) for key in keys}
        return {key: replace(table, left_out=left_out) for key, table in tables.items()}


def write(path: Path, tables: dict[str, External]) -> None:
    """Write the table in groups of about 32 MB."""
    pa, pq = _pyarrow()
    key, table = the_only(tables, path, "parquet")
    if key in (*ID_NAMES, START, STOP):
        raise FormatError(f"key {key!r} is the name of another column; rename it")
    found = survey(key, table)
    kind = pa.float16() if found.dtype == np.float16 else pa.float32()
    for size in reversed(found.row_shape):
        kind = pa.list_(kind, size)
    fields = [pa.field("clip_id", pa.string()), pa.field(key, pa.list_(kind))]
    if table.times is not None:
        fields += [pa.field(name, pa.list_(pa.float64())) for name in (START, STOP)]
    schema = pa.schema(fields, {MARK: json.dumps(table.recipe).encode()})
    largest = max(found.lengths) * int(np.prod(found.row_shape)) * found.dtype.itemsize
    step = max(1, GROUP_BYTES // largest)
    with replacing(path) as scratch, pq.ParquetWriter(scratch, schema) as file:
        for first in range(0, len(table.ids), step):
            part = range(first, min(first + step, len(table.ids)))
            rows = [table.row(k).astype(found.dtype) for k in part]
            values = pa.array(np.concatenate(rows).reshape(-1))
            for size in reversed(found.row_shape):
                values = pa.FixedSizeListArray.from_arrays(values, size)
            offsets = pa.array(np.cumsum([0, *map(len, rows)]), pa.int32())
            columns = [pa.array([table.ids[k] for k in part]), pa.ListArray.from_arrays(offsets, values)]
            if table.times is not None:
                for times in zip(*(table.times(k) for k in part), strict=True):
                    columns.append(pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(times))))
            file.write_table(pa.Table.from_arrays(columns, schema=schema))


def _pyarrow() -> Any:
    try:
        pa, pq = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise FormatError("parquet needs pyarrow; install it with `pip install pyarrow`") from None
    if tuple(int(part) for part in re.findall(r"\d+", pa.__version__)[:3]) < OLDEST:
        raise FormatError(
            f"parquet needs pyarrow 14.0.1 or later, not {pa.__version__}, which runs code that a file brings"
            " (CVE-2023-47248); install it with `pip install -U pyarrow`"
        )
    return pa, pq


def _is_list(pa: Any, kind: Any) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_features(pa: Any, kind: Any) -> bool:
    if not _is_list(pa, kind):
        return False
    while _is_list(pa, kind):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _table(pa: Any, file: Any, path: Path, key: str, ids: list[str], recipe: dict[str, Any]) -> External:
    """A column as features; one row group is held in memory, so rows are to be asked for in the file's order."""
    ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
    names = [name for name in (key, START, STOP) if name in file.schema_arrow.names]

    @lru_cache(maxsize=1)
    def group(number: int) -> Any:
        return file.read_row_group(number, columns=names)

    def cell(k: int, name: str) -> NDArray[Any]:
        with reading(path, f"parquet ({name} of clip {ids[k]!r})"):
            number = int(np.searchsorted(ends, k, side="right"))
            return _array(pa, group(number)[name][k - (int(ends[number - 1]) if number else 0)].values)

    def times(place: int) -> Times:
        k = there[place]
        return checked_times(cell(k, START), cell(k, STOP), f"{path}: clip {ids[k]!r}")

    def filled() -> Iterator[int]:
        first = 0
        for number in range(file.num_row_groups):
            valid = file.read_row_group(number, columns=[key])[key].is_valid().to_numpy()
            yield from (first + np.flatnonzero(valid)).tolist()
            first += len(valid)

    there = list(filled())
    return External(
        [ids[k] for k in there],
        lambda place: as_windows(cell(there[place], key)),
        times if len(names) == 3 else None,
        recipe,
    )


def _array(pa: Any, values: Any) -> NDArray[Any]:
    """A nested list as an array; FormatError when its parts differ in length, or one is empty."""
    shape = [len(values)]
    while _is_list(pa, values.type):
        sizes = set(values.value_lengths().to_pylist())
        if len(sizes) != 1 or None in sizes:
            raise FormatError(f"lists within a cell have different lengths: {sizes}")
        shape.append(sizes.pop())
        values = values.flatten()
    if values.null_count:
        raise FormatError("an empty value stands among numbers")
    array: NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(shape)
    return array
