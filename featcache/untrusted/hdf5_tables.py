"""Tables in HDF5 files from unknown sources: a data set per column, one of named fields, or a pandas frame.

/video (n,), /label (n,)              columns, at the top or in the only group
/labels (n,) of (video, label)        one data set of named fields
/key/table, /key/block0_values, ...   `DataFrame.to_hdf`, as a table or fixed; its pickled texts are read as data
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import FormatError
from featcache.untrusted import pickles, reading
from featcache.untrusted.hdf5 import attribute, child

Columns = dict[str, list[Any]]
DEEPEST = 8  #: groups inside of groups
INDEX = "axis1"  #: data set of the row labels of a fixed pandas frame
UNNAMED = ("", "N.")  #: names of axes that have none


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
        sets = {name: child(group, name, path) for name in group if not name.startswith("_i_")}
        sets = {name: part for name, part in sets.items() if isinstance(part, h5py.Dataset)}
        if len(sets) == 1 and (only := next(iter(sets.values()))).dtype.names:
            return _fields(only, path)
        columns = {name: _list(part[()]) for name, part in sets.items() if part.ndim == 1 and not part.dtype.names}
        if len({len(column) for column in columns.values()}) > 1:
            lengths = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
            raise FormatError(
                f"{path}: the data sets are no columns of one table, because their lengths differ: {lengths}"
            )
        return columns


def _fixed(group: Any, path: Path) -> Columns:
    """Read a pandas frame of blocks of columns."""
    columns: Columns = {}
    index = child(group, INDEX, path)
    name = _word(attribute(index, "name"))
    if name not in UNNAMED:
        columns[name] = _list(index[()])
    blocks = [part.removesuffix("_values") for part in group if part.startswith("block") and part.endswith("_values")]
    for block in sorted(blocks):
        items, data = child(group, f"{block}_items", path)[()], child(group, f"{block}_values", path)
        values = data[()]
        if data.dtype.hasobject:  # a pickle in a list of bytes
            values = pickles.loads(np.asarray(values[0], np.uint8).tobytes(), f"{path}: {data.name}")
        values = np.asarray(values)
        if values.ndim == 2 and values.shape[0] == len(items) != values.shape[1]:
            values = values.T
        for place, column in enumerate(_list(items)):
            columns[column] = _list(values[:, place] if values.ndim == 2 else values)
    order = _list(child(group, "axis0", path)[()])
    return {name: columns[name] for name in dict.fromkeys([*columns, *order]) if name in columns}


def _fields(table: Any, path: Path) -> Columns:
    """Read a data set of named fields; a field of a pandas table holds some columns, which an attribute names."""
    rows, columns = table[()], Columns()
    for field in table.dtype.names:
        values, kind = rows[field], attribute(table, f"{field}_kind")
        names = [field]
        if field == "index" and kind is not None:
            names = [_index_name(table.parent, path)]
        elif kind is not None:
            names = [str(name) for name in pickles.loads(bytes(kind), f"{path}: {field}")]
        for place, name in enumerate(names):
            columns[name] = _list(values[:, place] if values.ndim == 2 else values)
    return {name: column for name, column in columns.items() if name not in UNNAMED}


def _index_name(group: Any, path: Path) -> str:
    info = attribute(group, "info")
    content = pickles.loads(bytes(info), f"{path}: info") if info is not None else {}
    return str((content.get("index") or {}).get("index_name") or "")


def _word(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _list(values: NDArray[Any]) -> list[Any]:
    """Return values as a list; bytes are text in UTF-8."""
    return [value.decode() if isinstance(value, bytes) else value for value in np.asarray(values).tolist()]
