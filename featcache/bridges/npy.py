"""One NumPy .npy array of all clips, (n, D) or (n, T, ...), with their ids in a text file beside it.

The ids of NAME.npy are in NAME.npy.ids.txt, one per line, in the order of the rows, unless they are given. The key is
called `features`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bridges import External
from featcache.bridges._arrays import (
    ONE,
    as_windows,
    check_numbers,
    choose_ids,
    ids_file,
    npy_header,
    own_ids,
    reading,
    replacing_with_ids,
    survey,
    the_only,
)
from featcache.errors import FormatError

KEEPS = frozenset({"windows", "shape", "dtype"})


def companions(path: Path) -> list[Path]:
    """Files beside `path` that a write replaces, too."""
    return [ids_file(path)]


def read(path: Path, ids: Sequence[str] | None = None) -> dict[str, External]:
    """{"features": ...}; ids: of the rows, where there is no file of ids beside it, or instead of it."""
    with reading(path, "npy"):
        with path.open("rb") as file:
            shape, _, dtype = npy_header(file, str(path))
        check_numbers(dtype, str(path))
        if len(shape) < 2 or 0 in shape:
            raise FormatError(f"{path} has shape {shape}; (n, D) or (n, T, ...) is expected")
        array = np.lib.format.open_memmap(path, mode="r")
    own = own_ids(path) if ids is None else None

    def row(k: int) -> NDArray[Any]:
        return as_windows(np.array(array[k]))

    hint = f"{path} (no file {ids_file(path).name} beside it)" if own is None and ids is None else str(path)
    return {ONE: External(choose_ids(own, ids, shape[0], hint), row)}


def write(path: Path, tables: dict[str, External]) -> None:
    """Write the array and the file of ids; clips must have equally many windows."""
    key, table = the_only(tables, path, "npy")
    found = survey(key, table)
    if found.ragged:
        raise FormatError(
            f"npy holds equally many windows per clip, {key} has {min(found.lengths)} to {max(found.lengths)}; "
            "write npz or hdf5"
        )
    with replacing_with_ids(path, table.ids) as scratch, scratch.open("wb") as file:
        descr = np.lib.format.dtype_to_descr(found.dtype)
        header = {"descr": descr, "fortran_order": False, "shape": found.stacked()}
        np.lib.format.write_array_header_2_0(file, header)
        for k in range(len(table.ids)):
            file.write(np.ascontiguousarray(table.row(k).astype(found.dtype)).tobytes())
