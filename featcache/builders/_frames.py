"""A reader of pickled pandas tables that does not import pandas and calls nothing that the file names.

A pickled DataFrame is a manager of blocks; a block holds the values of some columns of one type, (columns, rows), and
their positions. Managers of pandas 0.20 to 1.2 are created empty and then receive their state; later managers contain
it. Columns of numbers, text and plain values are read; pandas' own types (Arrow text, categories) are a FormatError.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featcache.errors import FormatError
from featcache.untrusted import pickles, reading


@dataclass(frozen=True, eq=False)
class _Index:
    """The labels of an axis."""

    labels: Sequence[Any]
    name: str | None


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
    with reading(path, "a pickled table"):
        items, index = frame.manager.axes
        columns: dict[str, Sequence[Any]] = {} if index.name is None else {str(index.name): index.labels}
        for values, places in frame.manager.blocks:
            positions = range(len(items.labels))[places] if isinstance(places, slice) else places.tolist()
            for place, column in zip(positions, values, strict=True):
                columns[str(items.labels[place])] = column.tolist()
        order = [name for name in map(str, items.labels) if name != index.name]
        names = [*([] if index.name is None else [str(index.name)]), *order]
        cells = zip(*(columns[name] for name in names), strict=True)
        return [dict(zip(names, map(_text, row), strict=True)) for row in cells]


def _text(cell: Any) -> str:
    """A number or text as text; "" for lists and other values, whose text may be endless."""
    return str(cell) if isinstance(cell, str | int | float) else ""


def _index(_: Any, state: dict[str, Any]) -> _Index:
    if "data" in state:
        return _Index(state["data"].tolist(), state["name"])
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
    if not isinstance(values, np.ndarray) or values.ndim != 2:
        raise ValueError(f"{pickles.describe(values)} instead of the values of columns")
    return values, places


def _nothing(*_: Any) -> None:
    raise ValueError("an index that is made without labels")


MAKERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("pandas._libs.internals", "_unpickle_block"): _block,
    ("builtins", "slice"): slice,
    ("__builtin__", "slice"): slice,
}
for _module in ("pandas", "pandas.core.frame"):
    MAKERS[_module, "DataFrame"] = _frame
for _module in ("pandas.core.internals", "pandas.core.internals.managers"):
    MAKERS[_module, "BlockManager"] = _manager
for _module in ("pandas.indexes.base", "pandas.core.indexes.base"):
    MAKERS[_module, "_new_Index"] = _index
for _kind, _home in (("Index", "base"), ("RangeIndex", "range"), ("Int64Index", "numeric")):
    for _module in ("pandas", f"pandas.indexes.{_home}", f"pandas.core.indexes.{_home}"):
        MAKERS[_module, _kind] = _nothing  # files pass these classes to _new_Index, but never call them
