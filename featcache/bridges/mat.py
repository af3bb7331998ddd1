"""MATLAB .mat file: arrays over all clips, or cells with one array per clip, and a variable of ids.

    rgb (n, D) or (n, T, D), clip_id {n} or char      `ids`, `uid`, `video_id` and the like are read, too
    rgb {n} of (T, D), clip_id {n}                    T may differ
    left (sum T, 8), offset (n+1)                     clips end to end, offsets from 0

Versions 5 to 7.3 are read. Version 5 is written, with float16 as single, because MATLAB has no half: KEY, `clip_id` as
cells (KEY_clip_id if the keys have different clips), KEY_offset if T differs, KEY_window_start, KEY_window_stop,
KEY_recipe.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from featcache.bridges import External
from featcache.bridges._arrays import as_windows, rows_of, survey
from featcache.bridges._layouts import descriptions, is_ids, tables_of
from featcache.budget import Allowance
from featcache.errors import FormatError
from featcache.files import replacing
from featcache.untrusted import mat5, reading
from featcache.untrusted.hdf5 import attribute, child, referenced

KEEPS = frozenset({"several", "windows", "ragged", "shape", "ids", "times", "recipe"})
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,40}")  #: MATLAB reads 63 characters, and endings are added
LETTER, CELL, MANY = 16, 64, 1 << 16  #: bytes of a letter while it is read, and of a cell in the file; few cells
MOST_BYTES = (1 << 31) - 1024  #: maximum size of a variable in version 5


def read(path: Path, ids: Sequence[str] | None = None) -> dict[str, External]:
    """Read key -> features; `ids` gives or replaces the ids, in the order of the file."""
    with reading(path, "MATLAB"):
        with path.open("rb") as file:
            is_7_3 = b"\x89HDF" in (file.read(4), file.read(512)[508:])  # with or without MATLAB's own header
        variables = _version_7_3(path) if is_7_3 else mat5.variables(path.read_bytes(), str(path))
        arrays: dict[str, Any] = {}
        text: list[str] = []
        for name, value in variables.items():
            if value.dtype == object and is_ids(name, "_"):
                value = np.array([_text(cell, f"{path}: {name}") for cell in value], object)
            if value.dtype != object or is_ids(name, "_"):
                arrays[name] = value
                continue
            cells = [as_windows(np.asarray(cell)) for cell in value]
            if not cells or any(cell.dtype.kind not in "fiu" for cell in cells):
                text.append(name)  # class names and the like
                continue
            for number, cell in enumerate(cells):
                if cell.shape[1:] != cells[0].shape[1:]:
                    raise FormatError(
                        f"{path}: {name}{{{number + 1}}} is {cell.shape}, but {name}{{1}} is {cells[0].shape}"
                    )
            arrays[name] = np.concatenate(cells)  # end to end
            arrays[f"{name}_offset"] = np.cumsum([0, *map(len, cells)])
        tables = tables_of(arrays, ids, path, "_")
        return {key: replace(table, left_out=[*table.left_out, *text]) for key, table in tables.items()}


def write(path: Path, tables: dict[str, External]) -> None:
    """Write all tables."""
    from scipy.io import savemat

    surveys = {key: survey(key, table) for key, table in tables.items()}
    variables: dict[str, Any] = {}
    for name, array in descriptions(tables, surveys, "_").items():
        text = array.dtype.kind == "U"
        variables[name] = str(array) if text and not array.ndim else array.astype(object) if text else array
    for key, table in tables.items():
        if not NAME.fullmatch(key):
            raise FormatError(
                f"{key!r} is not a MATLAB variable name; use letters, digits and _, starting with a letter"
            )
        shape = surveys[key].stacked()
        if 4 * np.prod(shape, dtype=float) > MOST_BYTES:
            raise FormatError(f"{key} {shape} is larger than 2 GB, the limit of a MATLAB variable; write hdf5")
        rows = list(rows_of(table, np.dtype(np.float32)))
        variables[key] = np.concatenate(rows) if surveys[key].ragged else np.stack(rows)
    with replacing(path) as scratch, scratch.open("wb") as file:
        savemat(file, variables, do_compression=False, long_field_names=True)
        file.seek(0)
        # SciPy writes the time of day, so that equal features would give different files.
        file.write(b"MATLAB 5.0 MAT-file, written by featcache".ljust(116))


def _text(cell: Any, place: str) -> Any:
    """The text or number in a cell of ids."""
    cell = np.asarray(cell).reshape(-1)
    if cell.size != 1:
        raise FormatError(f"{place}: a cell holds {cell.size} values; a single text or number is expected")
    return cell[0].item() if isinstance(cell[0], np.generic) else cell[0]


class _Reversed:
    """A data set of version 7.3, with its axes reversed to MATLAB's order."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self.shape = data.shape[::-1]
        self.dtype = data.dtype

    def __getitem__(self, place: Any) -> Any:
        return np.asarray(self._data[()] if place == () else self._data[..., place]).T


def _version_7_3(path: Path) -> dict[str, Any]:
    """Read the variables of an HDF5-based file; cells become object arrays."""
    import h5py

    def value(data: Any, *, in_cell: bool = False) -> Any:
        kind = attribute(data, "MATLAB_class")
        if in_cell or kind == b"char":  # all cells are held in memory, and many may refer to one data set
            allowance.take(data.size * (LETTER if kind == b"char" else data.dtype.itemsize))
        if kind == b"char":
            return np.array(["".join(map(chr, line)).rstrip(" ") for line in np.atleast_2d(data[()].T)])
        if kind != b"cell":
            return data[()].T if in_cell else _Reversed(data)
        if in_cell:
            raise FormatError(f"{path}: {data.name} is a cell inside a cell; save it as a cell of arrays")
        if data.size > MANY + path.stat().st_size // CELL:
            raise FormatError(
                f"{path}: {data.name} claims {data.size} cells, more than the file can hold; save it again"
            )
        cells = np.empty(data.size, object)
        for place, reference in enumerate(data[()].T.reshape(-1)):
            cell = referenced(file, reference, path, f"{path}: {data.name}{{{place + 1}}}")
            cells[place] = value(cell, in_cell=True)
        return cells

    file = h5py.File(path, "r")
    allowance = Allowance(path.stat().st_size, f"{path}: its cells")
    parts = {name: child(file, name, path) for name in file}
    return {name: value(part) for name, part in parts.items() if isinstance(part, h5py.Dataset)}
