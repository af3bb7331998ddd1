"""Columns of Parquet files and Arrow streams from unknown sources, read by pyarrow after checks of what they declare.

Columns of text, numbers, truth values, dates, times and bytes are read, and of structures the part `path`, as in the
data sets of Hugging Face, whose pictures and videos are such structures. Numbers of classes become their names where
the file has them. Columns of other types, such as lists, are left out.
"""

import importlib
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from featcache.budget import Allowance
from featcache.errors import FormatError
from featcache.untrusted import LeftOut, reading
from featcache.untrusted.parquet import check_pages

OLDEST = (14, 0, 1)  #: oldest version of pyarrow that is safe
CLASSES = b"huggingface"  #: key of the features in the metadata of a schema
RECORDS, DICTIONARY = 3, 2  #: kinds of messages in an Arrow stream

Columns = dict[str, list[Any] | LeftOut]
#: types whose values are read; not bytes of a fixed length, of which Parquet can store one for a million rows
KINDS = (
    *("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "null", "boolean"),
    *("integer", "floating", "decimal", "date", "time", "timestamp", "duration"),
)
LONG = KINDS[:6]  #: those whose values may have any length


def pyarrow() -> Any:
    """Return the modules pyarrow and pyarrow.parquet; FormatError if they are missing or not safe."""
    try:
        pa, pq = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise FormatError("parquet needs pyarrow; install it with `pip install pyarrow`") from None
    if tuple(int(part) for part in re.findall(r"\d+", pa.__version__)[:3]) < OLDEST:
        raise FormatError(
            f"parquet needs pyarrow 14.0.1 or later, not {pa.__version__}, which runs code from files"
            " (CVE-2023-47248); update it with `pip install -U pyarrow`"
        )
    return pa, pq


def parquet(path: Path) -> Columns:
    """Read the columns of a Parquet file."""
    pa, pq = pyarrow()
    with reading(path, "parquet"):
        schema = pq.ParquetFile(path).schema_arrow
        names = [field.name for field in schema if _is_read(pa, field.type)]
        allowance = Allowance(path.stat().st_size, str(path))
        check_pages(path, {part for name in names for part in (name, "path")}, allowance)
        texts = [name for name in names if _is(pa, schema.field(name).type, LONG)]
        table = pq.ParquetFile(path, read_dictionary=texts).read(names)
        return _named(schema, _left_out(schema, names) | {k: _values(pa, table[k], allowance) for k in names})


def stream(path: Path) -> Columns:
    """Read the columns of an Arrow stream, as `datasets.save_to_disk` writes them."""
    pa, _ = pyarrow()
    with reading(path, "an Arrow stream"), pa.memory_map(str(path)) as file:
        for message in pa.ipc.MessageReader.open_stream(file):
            if _is_compressed(message.metadata.to_pybytes()):
                raise FormatError(f"{path} is compressed; save the data set as Parquet, or without compression")
    with reading(path, "an Arrow stream"), pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as batches:
        names = [field.name for field in batches.schema if _is_read(pa, field.type)]
        allowance = Allowance(path.stat().st_size, str(path))
        parts: dict[str, list[list[Any] | LeftOut]] = {name: [] for name in names}
        for batch in batches:
            batch.validate(full=True)
            for name in names:
                parts[name].append(_values(pa, pa.chunked_array([batch.column(name)]), allowance))
        return _named(batches.schema, _left_out(batches.schema, names) | {k: _whole(part) for k, part in parts.items()})


def values(column: Any, allowance: Allowance) -> list[Any]:
    """Return the values of an Arrow column. Equal texts are stored once, so their lengths are added up beforehand."""
    for part in column.chunks if hasattr(column.type, "value_type") else []:
        lengths = np.array([_length(value) for value in part.dictionary.to_pylist()], np.int64)
        places = part.indices.drop_null().to_numpy(zero_copy_only=False)
        allowance.take(int(lengths[places].sum()) if len(places) else 0)
    return list(column.to_pylist())


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes) else 0


def _values(pa: Any, column: Any, allowance: Allowance) -> list[Any] | LeftOut:
    kind = column.type
    if pa.types.is_dictionary(kind) and not _is(pa, kind.value_type, LONG):
        kind = kind.value_type
        column = column.cast(kind)
    if pa.types.is_struct(kind):
        path = kind.field("path").type
        column = pa.chunked_array([part.flatten()[kind.get_field_index("path")] for part in column.chunks], path)
    if not _is(pa, kind, ("date", "time", "timestamp", "duration")):
        return values(column, allowance)
    try:
        if getattr(kind, "unit", "") == "ns":  # Python's times have microseconds
            own = pa.timestamp("us", kind.tz) if pa.types.is_timestamp(kind) else None
            own = own or (pa.duration("us") if pa.types.is_duration(kind) else pa.time64("us"))
            column = column.cast(own, safe=False)
        return values(column, allowance)
    except (ArithmeticError, LookupError, ValueError):  # a year beyond 9999, or an unknown time zone
        return LeftOut(f"{kind} with values that are no dates or times")


def _whole(parts: list[list[Any] | LeftOut]) -> list[Any] | LeftOut:
    """Return the values of a column from those of its parts."""
    for part in parts:
        if isinstance(part, LeftOut):
            return part
    return [value for part in parts for value in part]  # type: ignore[union-attr]


def _is(pa: Any, kind: Any, names: tuple[str, ...]) -> bool:
    """Return True if an Arrow type is one of these; a type that an old pyarrow does not have is none."""
    return any(getattr(pa.types, f"is_{name}", lambda _: False)(kind) for name in names)


def _is_read(pa: Any, kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(part.name == "path" and _is(pa, part.type, LONG) for part in kind)
    return _is(pa, kind.value_type if pa.types.is_dictionary(kind) else kind, KINDS)


def _left_out(schema: Any, names: list[str]) -> Columns:
    """Return the columns of a schema that are not read."""
    return {field.name: LeftOut(str(field.type)[:200]) for field in schema if field.name not in names}


def _named(schema: Any, columns: Columns) -> Columns:
    """Replace numbers of classes by the names that the metadata of Hugging Face gives."""
    content = json.loads((schema.metadata or {}).get(CLASSES, b"{}"))
    features = content.get("info", {}).get("features", {}) if isinstance(content, dict) else {}
    for name, feature in features.items():
        classes = feature.get("names") if isinstance(feature, dict) else None
        if isinstance(classes, list) and isinstance(column := columns.get(name), list):
            numbers = [number if isinstance(number, int) and 0 <= number < len(classes) else None for number in column]
            columns[name] = [None if number is None else str(classes[number]) for number in numbers]
    return columns


def _is_compressed(metadata: bytes) -> bool:
    """Return True if a message of a stream has compressed content, which could unpack to any size."""
    message = struct.unpack_from("<I", metadata)[0]
    kind = _field(metadata, message, 1)
    if not kind or metadata[kind] not in (RECORDS, DICTIONARY):
        return False
    records = _table(metadata, message, 2)
    if metadata[kind] == DICTIONARY:
        records = _table(metadata, records, 1)
    return bool(_field(metadata, records, 3))


def _field(data: bytes, table: int, number: int) -> int:
    """Return the place of a field of a table, a flatbuffer; 0 if the table lacks it."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    size = struct.unpack_from("<H", data, fields)[0]
    offset = struct.unpack_from("<H", data, fields + 4 + 2 * number)[0] if 4 + 2 * number < size else 0
    return table + offset if offset else 0


def _table(data: bytes, table: int, number: int) -> int:
    """Return the place of the table that a field of a table refers to."""
    place = _field(data, table, number)
    return int(place + struct.unpack_from("<I", data, place)[0])
