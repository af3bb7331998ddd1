"""NumPy .npy array over all clips, (n, D) or (n, T, ...), with the ids in a text file next to it.

The ids of NAME.npy are in NAME.npy.ids.txt, one per line, in the order of the rows, unless they are given. The key is
`features`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bridges import External, ids_file
from featcache.bridges._arrays import (
    ONE,
    as_windows,
    ids_beside,
    replacing_with_ids,
    rows_of,
    survey,
    the_only,
    write_npy,
)
from featcache.errors import FormatError
from featcache.untrusted import check_numbers, reading
from featcache.untrusted.npy import npy_header

KEEPS = frozenset({"windows", "shape", "dtype"})


def companions(path: Path) -> list[Path]:
    """The files next to `path` that `write` also replaces."""
    return [ids_file(path)]


def read(path: Path, ids: Sequence[str] | None = None) -> dict[str, External]:
    """Read {"features": ...}; `ids` gives the ids of the rows, instead of the file of ids."""
    with reading(path, "npy"):
        with path.open("rb") as file:
            shape, dtype = npy_header(file, path.stat().st_size, str(path))
        check_numbers(dtype, str(path))
        if len(shape) < 2 or 0 in shape:
            raise FormatError(f"{path} has shape {shape}; (n, D) or (n, T, ...) is expected")
        array = np.lib.format.open_memmap(path, mode="r")

    def row(k: int) -> NDArray[Any]:
        return as_windows(np.array(array[k]))

    return {ONE: External(ids_beside(path, ids, shape[0]), row)}


def write(path: Path, tables: dict[str, External]) -> None:
    """Write the array and the file of ids; all clips need the same number of windows."""
    key, table = the_only(tables, path, "npy")
    summary = survey(key, table)
    summary.check_even(key, "npy")
    with replacing_with_ids(path, table.ids) as scratch, scratch.open("wb") as file:
        write_npy(file, summary.stacked(), summary.dtype, rows_of(table, summary.dtype))
