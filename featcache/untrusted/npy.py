"""NumPy's .npy format; the size that a header claims is compared with the number of bytes."""

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.budget import check_growth
from featcache.errors import FormatError
from featcache.untrusted import reading

LONGEST = 1 << 16  #: bytes of a header; numpy parses 10,000 at most


def parse_npy(data: bytes, place: str) -> NDArray[Any]:
    """Parse the bytes of a .npy file; FormatError for arrays of objects, or when header and bytes differ in size."""
    stream = io.BytesIO(data)
    npy_header(stream, len(data), place)
    stream.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def check_npz(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return shape and dtype of each member .npy of an archive.

    FormatError if arrays differ from their headers, or would unpack to many times the bytes of the archive.
    """
    with reading(path, "npz"), zipfile.ZipFile(path) as archive:
        check_growth(sum(entry.file_size for entry in archive.infolist()), path.stat().st_size, str(path))
        headers = {}
        for entry in archive.infolist():
            if entry.filename.endswith(".npy"):
                with archive.open(entry) as file:
                    place = f"{path}: {entry.filename}"
                    headers[entry.filename] = npy_header(file, entry.file_size, place, objects=True)
        return headers


def npy_header(stream: Any, size: int, place: str, *, objects: bool = False) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read shape and dtype from the header of a .npy stream, which must fit its `size` bytes exactly.

    objects: allow arrays of objects, whose size is not checked.
    """
    version = np.lib.format.read_magic(stream)
    field = stream.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(field, "little")
    if length > LONGEST:
        raise FormatError(f"{place}: its header has {length} bytes, more than {LONGEST}; save the array again")
    head = io.BytesIO(field + stream.read(length))
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise FormatError(f"{place}: .npy version {version} is not one of {', '.join(map(str, readers))}")
    shape, _, dtype = readers[version](head)
    if dtype.hasobject and not objects:
        raise FormatError(f"{place} holds Python objects (pickles), which are never loaded; save numbers instead")
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != size - stream.tell():
        raise FormatError(f"{place}: {shape} of {dtype} do not fit into {size} bytes")
    return shape, dtype
