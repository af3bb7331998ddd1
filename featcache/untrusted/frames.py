"""A reader of pickled pandas tables that does not import pandas and calls nothing that the file names.

A pickled DataFrame is a manager of blocks; a block holds the values of some columns of one type, (columns, rows), and
their positions. Managers of pandas 0.20 to 1.2 are created empty and then receive their state; later managers contain
it. Columns of numbers, plain values, text (also Arrow's, the default of pandas 3) and categories are read; other types,
such as times, are a FormatError.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from featcache.budget import Allowance
from featcache.errors import FormatError
from featcache.untrusted import pickles, reading

TEXT = 64  #: bytes of a text in memory, besides its content
WIDTHS = {"string": "<i4", "utf8": "<i4", "large_string": "<i8", "large_utf8": "<i8"}  #: Arrow's texts -> their ends


@dataclass(frozen=True, eq=False)
class _Index:
    """The labels of an axis."""

    labels: Any
    name: str | None


@dataclass(frozen=True, eq=False)
class _Categories:
    """The type of a column of categories."""

    labels: Any


@dataclass(frozen=True, eq=False)
class _Coded:
    """A column of categories."""

    kind: _Categories
    codes: NDArray[Any]


@dataclass(frozen=True, eq=False)
class _Texts:
    """Arrow's texts: where each ends, the bytes of all, and which are there (None: all)."""

    ends: NDArray[Any]
    data: bytes | bytearray
    there: NDArray[np.uint8] | None


@dataclass(frozen=True, eq=False)
class _Manager:
    """The content of a table: its two axes, and (values, positions) of each block."""

    axes: list[_Index]
    blocks: list[tuple[Any, Any]]


@dataclass(frozen=True, eq=False)
class _Frame:
    """A pickled table."""

    manager: _Manager


def rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a pickled DataFrame as text; a named index becomes the first column. Lists are left out.

    FormatError if the file is not a pickled table, or names anything that a table does not need.
    """
    frame = pickles.load(path, MAKERS)
    if not isinstance(frame, _Frame):
        raise FormatError(f"{path} holds {pickles.describe(frame)}; a pandas table is expected")
    columns = _columns(frame, path)
    return [dict(zip(columns, map(_text, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def load(path: Path) -> Any:
    """Read a pickle: a DataFrame as column -> list of values, anything else as `pickles.load` does."""
    content = pickles.load(path, MAKERS)
    return _columns(content, path) if isinstance(content, _Frame) else content


def _columns(frame: _Frame, path: Path) -> dict[str, list[Any]]:
    """Return the columns of a table, with a named index as the first one."""
    with reading(path, "a pickled table"):
        allowance = Allowance(path.stat().st_size, str(path))
        items, index = frame.manager.axes
        names = list(map(str, _values(items.labels, allowance)))
        columns = {} if index.name is None else {str(index.name): _values(index.labels, allowance)}
        for values, places in frame.manager.blocks:
            positions = range(len(names))[places] if isinstance(places, slice) else places.tolist()
            parts = list(values) if isinstance(values, np.ndarray) and values.ndim == 2 else [values]
            for place, column in zip(positions, parts, strict=True):
                columns[names[place]] = _values(column, allowance)
        first = [] if index.name is None else [str(index.name)]
        return {name: columns[name] for name in dict.fromkeys([*first, *names])}


def _text(cell: Any) -> str:
    """A number or text as text; "" for lists and other values, whose text may be endless."""
    return str(cell) if isinstance(cell, str | int | float) else ""


def _index(_: Any, state: dict[str, Any]) -> _Index:
    if "data" in state:
        return _Index(state["data"], state["name"])
    return _Index(range(state["start"], state["stop"], state["step"]), state["name"])


def _manager(*content: Any) -> Any:
    """Make a manager from its blocks and axes, or an unfinished one that will receive its state."""
    return _Manager(content[1], list(content[0])) if content else pickles.Unfinished(_manager_state)


def _manager_state(*state: Any) -> _Manager:
    content = state[3]["0.14.1"]
    return _Manager(content["axes"], [(block["values"], block["mgr_locs"]) for block in content["blocks"]])


def _frame(*_: Any) -> Any:
    return pickles.Unfinished(_frame_state)


def _frame_state(state: dict[str, Any]) -> _Frame:
    manager = state.get("_mgr", state.get("_data"))  # pandas 1.1 renamed it
    if not isinstance(manager, _Manager) or not all(isinstance(axis, _Index) for axis in manager.axes):
        raise ValueError("a table without blocks and axes")
    return _Frame(manager)


def _block(values: Any, places: Any, _: Any) -> tuple[Any, Any]:
    return values, places


def _nothing(*_: Any) -> None:
    raise ValueError("an index or array that is made without its content")


def _arrow_text(content: Any) -> _Texts:
    kind, length, _, first, (present, ends, data), *_ = content
    places = np.frombuffer(ends or b"", WIDTHS[kind])[first : first + length + 1]
    if len(places) != length + 1 or (np.diff(places) < 0).any() or not 0 <= places[0] <= places[-1] <= len(data or b""):
        raise ValueError("texts that lie outside of their bytes")
    bits = None if present is None else np.frombuffer(present, np.uint8)[: (first + length + 7) // 8]
    there = None if bits is None else np.unpackbits(bits, bitorder="little")[first : first + length]
    return _Texts(places, data or b"", there)


def _chunks(chunks: Any, *_: Any) -> list[Any]:
    if type(chunks) is not list:
        raise ValueError(f"{pickles.describe(chunks)} instead of the parts of a column")
    return chunks


def _buffer(content: Any) -> bytes | bytearray:
    if type(content) not in (bytes, bytearray):
        raise ValueError(f"{pickles.describe(content)} instead of bytes")
    return cast(bytes, content)


def _array(*_: Any) -> Any:
    """Begin an array of pandas' own type, whose state follows."""
    return pickles.Unfinished(_array_state)


def _array_state(*state: Any) -> Any:
    """Finish texts of Arrow, {"_pa_array": ...}; or texts or categories, (type, values or codes, attributes)."""
    if len(state) == 1:
        return state[0]["_pa_array"]
    kind, values, *_ = state
    return _Coded(kind, values) if isinstance(kind, _Categories) else values


def _values(column: Any, allowance: Allowance) -> list[Any]:
    """Return the values of one column. allowance: the bytes that all columns of the file may take."""
    if isinstance(column, list):
        return [value for part in column for value in _values(part, allowance)]
    if isinstance(column, _Coded):
        labels = [*_values(column.kind.labels, allowance), None]  # the code -1 is no category
        return [labels[code] for code in _values(column.codes, allowance)]
    if isinstance(column, _Texts):
        allowance.take(int(column.ends[-1] - column.ends[0]) + TEXT * len(column.ends))
        texts = [bytes(column.data[start:stop]).decode() for start, stop in pairwise(column.ends.tolist())]
        there = [True] * len(texts) if column.there is None else column.there
        return [text if is_there else None for text, is_there in zip(texts, there, strict=True)]
    if isinstance(column, range) or (isinstance(column, np.ndarray) and column.ndim == 1):
        allowance.take(8 * len(column))
        if isinstance(column, range) or column.dtype.kind in "mM":  # tolist would make numbers of times
            return list(column)
        return cast(list[Any], column.tolist())
    raise ValueError(f"{pickles.describe(column)} instead of the values of a column")


def _categories(*_: Any) -> Any:
    """Begin the type of a column of categories, whose state follows."""
    return pickles.Unfinished(lambda state: _Categories(state["categories"].labels))


MAKERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("pandas._libs.internals", "_unpickle_block"): _block,
    ("builtins", "slice"): slice,
    ("__builtin__", "slice"): slice,
    ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"): _array,
    ("pyarrow.lib", "_restore_array"): _arrow_text,
    ("pyarrow.lib", "chunked_array"): _chunks,
    ("pyarrow.lib", "type_for_alias"): lambda kind: kind,
    ("pyarrow.lib", "py_buffer"): _buffer,
}
for _module in ("pandas", "pandas.arrays", "pandas.core.arrays.string_arrow"):
    MAKERS[_module, "ArrowStringArray"] = _array
for _module in ("pandas", "pandas.core.dtypes.dtypes"):
    MAKERS[_module, "CategoricalDtype"] = _categories
for _module in ("pandas", "pandas.core.arrays.string_"):
    MAKERS[_module, "StringDtype"] = lambda *_: None
for _name in ("StringArray", "Categorical", "NA"):  # files pass these, but never call them
    for _module in ("pandas", "pandas.arrays", "pandas.core.arrays.string_", "pandas.core.arrays.categorical"):
        MAKERS[_module, _name] = _nothing
for _module in ("pandas", "pandas.core.frame"):
    MAKERS[_module, "DataFrame"] = _frame
for _module in ("pandas.core.internals", "pandas.core.internals.managers"):
    MAKERS[_module, "BlockManager"] = _manager
for _module in ("pandas.indexes.base", "pandas.core.indexes.base"):
    MAKERS[_module, "_new_Index"] = _index
for _kind, _home in (("Index", "base"), ("RangeIndex", "range"), ("Int64Index", "numeric")):
    for _module in ("pandas", f"pandas.indexes.{_home}", f"pandas.core.indexes.{_home}"):
        MAKERS[_module, _kind] = _nothing  # files pass these classes to _new_Index, but never call them
