"""Tables that pandas has pickled, read as data: pandas is not asked, and nothing that the file names is called.

A pickled DataFrame is a manager of blocks; a block holds the values of some columns of one kind, (columns, rows), and
their places. Managers of pandas 0.20 to 1.2 are made empty and then given their state, later ones come with it. Read
are columns of numbers, text and plain values; those of pandas' own kinds (Arrow text, categories) are a FormatError.
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
    """What a table holds: its two axes, and (values, places) of each block."""

    axes: list[_Index]
    blocks: list[tuple[Any, Any]]


@dataclass(frozen=True, eq=False)
class _Frame:
    """A table."""

    manager: _Manager


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a pickled DataFrame as text; an index that has a name is a column, the first one. Lists are left out.

    FormatError where the file is no pickled table, or asks for more than a table needs.
    """
    frame = pickles.load(path, MAKERS)
    if not isinstance(frame, _Frame):
        raise FormatError(f"{path} holds {pickles.describe(frame)}; a pandas table is expected")
    with reading(path, "a pickled table"):
        items, index = frame.manager.axes
        columns: dict[str, Sequence[Any]] = {} if index.name is None else {str(index.name): index.labels}
        for values, places in frame.manager.blocks:
            where = range(len(items.labels))[places] if isinstance(places, slice) else places.tolist()
            for place, column in zip(where, values, strict=True):
                columns[str(items.labels[place])] = column.tolist()
        order = [name for name in map(str, items.labels) if name != index.name]
        names = [*([] if index.name is None else [str(index.name)]), *order]
        cells = zip(*(columns[name] for name in names), strict=True)
        return [dict(zip(names, map(_text, row), strict=True)) for row in cells]


def _text(cell: Any) -> str:
    """A number or text as text; nothing for lists and the like, whose text may be endless."""
    return str(cell) if isinstance(cell, str | int | float) else ""


def _index(_: Any, state: dict[str, Any]) -> _Index:
    if "data" in state:
        return _Index(state["data"].tolist(), state["name"])
    return _Index(range(state["start"], state["stop"], state["step"]), state["name"])


def _manager(*content: Any) -> Any:
    """A manager out of its blocks and axes, or an empty one that waits for its state."""
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
        raise ValueError(f"{pickles.describe(values)} where the values of columns are expected")
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
        MAKERS[_module, _kind] = _nothing  # only named, for _new_Index
