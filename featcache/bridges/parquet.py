"""Parquet table (needs pyarrow): a table row per clip, with its id in `clip_id` and its features in a column of lists.

    clip_id text; rgb list<fixed_size_list<halffloat or float>[D]>; window_start, window_stop list<double>

`write` names the column of features KEY, and puts the recipe (JSON) into the schema's metadata under `featcache`.
`read` makes every column of nested or fixed-size lists of numbers a key: (D,), (T, D) or deeper. An empty cell is a
clip without this key.
"""

import json
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
from featcache.budget import Allowance
from featcache.errors import FormatError
from featcache.files import replacing
from featcache.untrusted import reading
from featcache.untrusted.arrow import pyarrow, values
from featcache.untrusted.parquet import check_pages

KEEPS = frozenset({"windows", "ragged", "shape", "dtype", "ids", "times", "recipe"})
GROUP_BYTES = 32 << 20  #: approximate size of the rows that are held in memory
MARK = b"featcache"  #: key of the recipe in the schema's metadata


def read(path: Path, ids: Sequence[str] | None = None) -> dict[str, External]:
    """Read column -> features; `ids` gives the ids of the rows, instead of the column of ids."""
    pa, pq = pyarrow()
    with reading(path, "parquet"):
        file = pq.ParquetFile(path)
        schema, count = file.schema_arrow, file.metadata.num_rows
        name = next((name for name in ID_NAMES if name in schema.names), None)
        allowance = Allowance(path.stat().st_size, str(path))
        keys = [field.name for field in schema if field.name not in (START, STOP) and _is_features(pa, field.type)]
        if not keys:
            raise FormatError(f"{path} has no column of lists of numbers; it has: {', '.join(schema.names)}")
        check_pages(path, {*keys, name or "", START, STOP}, allowance)
        allowance.take(count * sum(_cell_bytes(pa, schema.field(key).type) for key in keys))
        own = clip_ids(_ids(pq, path, name, allowance), f"{path}: {name}") if name and ids is None else None
        chosen = choose_ids(own, ids, count, str(path))
        recipe = as_recipe((schema.metadata or {}).get(MARK), str(path))
        left_out = [column for column in schema.names if column not in (*keys, name, START, STOP)]
        tables = {key: _table(pa, file, path, key, chosen, recipe) for key in keys}
        return {key: replace(table, left_out=left_out) for key, table in tables.items()}


def write(path: Path, tables: dict[str, External]) -> None:
    """Write the table in groups of about 32 MB."""
    pa, pq = pyarrow()
    key, table = the_only(tables, path, "parquet")
    if key in (*ID_NAMES, START, STOP):
        raise FormatError(f"key {key!r} is the name of another column; rename it")
    summary = survey(key, table)
    kind = pa.float16() if summary.dtype == np.float16 else pa.float32()
    for size in reversed(summary.row_shape):
        kind = pa.list_(kind, size)
    fields = [pa.field("clip_id", pa.string()), pa.field(key, pa.list_(kind))]
    if table.times is not None:
        fields += [pa.field(name, pa.list_(pa.float64())) for name in (START, STOP)]
    schema = pa.schema(fields, {MARK: json.dumps(table.recipe).encode()})
    largest = max(summary.lengths) * int(np.prod(summary.row_shape)) * summary.dtype.itemsize
    step = max(1, GROUP_BYTES // largest)
    with replacing(path) as scratch, pq.ParquetWriter(scratch, schema) as file:
        for first in range(0, len(table.ids), step):
            part = range(first, min(first + step, len(table.ids)))
            rows = [table.row(k).astype(summary.dtype) for k in part]
            values = pa.array(np.concatenate(rows).reshape(-1))
            for size in reversed(summary.row_shape):
                values = pa.FixedSizeListArray.from_arrays(values, size)
            offsets = pa.array(np.cumsum([0, *map(len, rows)]), pa.int32())
            columns = [pa.array([table.ids[k] for k in part]), pa.ListArray.from_arrays(offsets, values)]
            if table.times is not None:
                for times in zip(*(table.times(k) for k in part), strict=True):
                    columns.append(pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(times))))
            file.write_table(pa.Table.from_arrays(columns, schema=schema))


def _cell_bytes(pa: Any, kind: Any) -> int:
    """The bytes that a cell of fixed-size lists takes even if it is empty; 0 for other types."""
    size = 1
    while pa.types.is_fixed_size_list(kind):
        size, kind = size * kind.list_size, kind.value_type
    return 0 if size == 1 else 4 * size


def _ids(pq: Any, path: Path, name: str, allowance: Allowance) -> list[Any]:
    return values(pq.ParquetFile(path, read_dictionary=[name]).read([name])[name], allowance)


def _is_list(pa: Any, kind: Any) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_features(pa: Any, kind: Any) -> bool:
    if not _is_list(pa, kind):
        return False
    while _is_list(pa, kind):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _table(pa: Any, file: Any, path: Path, key: str, ids: list[str], recipe: dict[str, Any]) -> External:
    """The features in a column. One row group is held in memory, so reading in the order of the file is fast."""
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
        k = filled_rows[place]
        return checked_times(cell(k, START), cell(k, STOP), f"{path}: clip {ids[k]!r}")

    def filled() -> Iterator[int]:
        first = 0
        for number in range(file.num_row_groups):
            valid = file.read_row_group(number, columns=[key])[key].is_valid().to_numpy()
            yield from (first + np.flatnonzero(valid)).tolist()
            first += len(valid)

    filled_rows = list(filled())
    return External(
        [ids[k] for k in filled_rows],
        lambda place: as_windows(cell(filled_rows[place], key)),
        times if len(names) == 3 else None,
        recipe,
    )


def _array(pa: Any, values: Any) -> NDArray[Any]:
    """Convert a nested list to an array; FormatError if parts differ in length or a value is empty."""
    shape = [len(values)]
    while _is_list(pa, values.type):
        sizes = set(values.value_lengths().to_pylist())
        if len(sizes) != 1 or None in sizes:
            raise FormatError(f"lists within a cell have different lengths: {sizes}")
        shape.append(sizes.pop())
        values = values.flatten()
    if values.null_count:
        raise FormatError("a list of numbers contains an empty value")
    array: NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(shape)
    return array
