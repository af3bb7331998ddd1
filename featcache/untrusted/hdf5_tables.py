"""Tables in HDF5 files from unknown sources: a data set per column, one of named fields, or a pandas frame.

/video (n,), /label (n,)              columns, at the top or in the only group
/labels (n,) of (video, label)        one data set of named fields
/key/table, /key/block0_values, ...   `DataFrame.to_hdf`, as a table or fixed; its pickled texts are read as data

Attributes describe columns that pandas stores as numbers: dates, truth values, and categories, whose names are in
another table, /key/meta/FIELD/meta/table.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import FormatError
from featcache.untrusted import LeftOut, pickles, reading
from featcache.untrusted.hdf5 import attribute, child

Columns = dict[str, list[Any] | LeftOut]
DEEPEST = 8  #: groups inside of groups
INDEX = "axis1"  #: data set of the row labels of a fixed pandas frame
UNNAMED = ("", "N.")  #: names of axes that have none
ZONED = "with a time zone"
TIMES = re.compile(r"(datetime64|timedelta64)(?:\[(s|ms|us|ns)\])?")  #: types of dates and times


def load(path: Path) -> Columns:
    """Read the columns of the only table of an HDF5 file."""
    import h5py

    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        group = file
        for _ in range(DEEPEST):  # a group may contain itself
            if len(group) == 1 and isinstance(inner := child(group, next(iter(group)), path), h5py.Group):
                group = inner
        if "block0_values" in group:
            return _fixed(group, path)
        parts = {name: child(group, name, path) for name in group if not name.startswith("_i_")}
        sets = [part for part in parts.values() if isinstance(part, h5py.Dataset)]
        if len(sets) == 1 and sets[0].dtype.names:
            return _fields(sets[0], path)
        columns = {name: _column(part) for name, part in parts.items()}
        counts = {name: len(column) for name, column in columns.items() if isinstance(column, list)}
        if len(set(counts.values())) > 1:
            lengths = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise FormatError(
                f"{path}: the data sets are no columns of one table, because their lengths differ: {lengths}"
            )
        return columns


def _column(part: Any) -> list[Any] | LeftOut:
    """Return the values of a data set with one axis; numbers of an enumeration become their names."""
    import h5py

    if not isinstance(part, h5py.Dataset):
        return LeftOut("a group")
    if part.ndim != 1 or part.dtype.names:
        return LeftOut(f"an array {part.shape} of {part.dtype}"[:200])
    names = {number: name for name, number in (h5py.check_enum_dtype(part.dtype) or {}).items()}
    values = _list(part[()])
    return [names.get(value, value) for value in values] if names and isinstance(values, list) else values


def _fixed(group: Any, path: Path) -> Columns:
    """Read a pandas frame of blocks of columns."""
    columns: Columns = {}
    if INDEX not in group:
        raise FormatError(f"{path} has an index of several columns; save the frame again with reset_index()")
    index = child(group, INDEX, path)
    name = _word(attribute(index, "name"))
    if name not in UNNAMED:
        columns[name] = _list(index[()], _word(attribute(index, "kind")))
    blocks = [part.removesuffix("_values") for part in group if part.startswith("block") and part.endswith("_values")]
    for block in sorted(blocks):
        items, data = child(group, f"{block}_items", path)[()], child(group, f"{block}_values", path)
        values = data[()]
        if data.dtype.hasobject:  # a pickle in a list of bytes
            values = pickles.loads(np.asarray(values[0], np.uint8).tobytes(), f"{path}: {data.name}")
        values = np.asarray(values)
        if values.ndim == 2 and values.shape[0] == len(items) != values.shape[1]:
            values = values.T
        kind = ZONED if "tz" in data.attrs else _word(attribute(data, "value_type"))
        for place, column in enumerate(_texts(items)):
            columns[column] = _list(values[:, place] if values.ndim == 2 else values, kind)
    order = _texts(child(group, "axis0", path)[()])
    return {name: columns[name] for name in dict.fromkeys([*columns, *order]) if name in columns}


def _fields(table: Any, path: Path) -> Columns:
    """Read a data set of named fields; a field of a pandas table holds some columns, which an attribute names."""
    rows, columns, info = table[()], Columns(), attribute(table.parent, "info")
    about = pickles.loads(bytes(info), f"{path}: info") if info is not None else {}
    for field in table.dtype.names:
        values, listed, own = rows[field], attribute(table, f"{field}_kind"), about.get(field) or {}
        if listed is None:  # no table of pandas
            columns[field] = _list(values)
            continue
        names, kind = [str(own.get("index_name") or "")], listed
        if field != "index":
            names = [str(name) for name in pickles.loads(bytes(listed), f"{path}: {field}")]
            kind = attribute(table, f"{field}_dtype")
        change = _categories(table, field, path) or _missing(table.parent)
        for place, name in enumerate(names):
            column = _list(values[:, place] if values.ndim == 2 else values, ZONED if own.get("tz") else _word(kind))
            columns[name] = column if isinstance(column, LeftOut) else [change.get(value, value) for value in column]
    return {name: column for name, column in columns.items() if name not in UNNAMED}


def _categories(table: Any, field: str, path: Path) -> dict[Any, Any]:
    """Return the category of each code of a field; {} if the field has no categories."""
    if _word(attribute(table, f"{field}_meta")) != "category":
        return {}
    inner = table.parent
    for name in ("meta", field, "meta", "table"):
        inner = child(inner, name, path)
    labels = _fields(inner, path)["values"]
    if isinstance(labels, LeftOut):
        raise FormatError(f"{path}: the categories of {field} are {labels.kind}; save them as text")
    return {-1: None, **dict(enumerate(labels))}


def _missing(group: Any) -> dict[Any, Any]:
    """Return the text for a missing text in a table of pandas, as a change to None."""
    text = _word(attribute(group, "nan_rep"))
    return {("nan" if text in UNNAMED else text).encode(): None}


def _word(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _list(values: NDArray[Any], kind: str = "") -> list[Any] | LeftOut:
    """Return values as a list. kind: the type that an attribute of pandas names; it stores dates as numbers."""
    values = np.asarray(values)
    if kind == ZONED:
        return LeftOut("times with a time zone, which pandas stores as numbers")
    if kind == "bool":
        return [bool(value) for value in values.tolist()]
    if found := TIMES.fullmatch(kind):
        values = values.astype(f"{found[1]}[{found[2] or 'ns'}]")
    if values.dtype.kind not in "mM":
        return list(values.tolist())
    times = values.astype(f"{values.dtype.kind}8[us]").tolist()  # Python's times have microseconds
    return LeftOut("times beyond the year 9999") if any(isinstance(time, int) for time in times) else list(times)


def _texts(values: NDArray[Any]) -> list[str]:
    """Return the names of columns."""
    return [value.decode() if isinstance(value, bytes) else str(value) for value in np.asarray(values).tolist()]
