"""Read a foreign HDF5 file without leaving it: its links and data sets may name other files, which are never read.

libhdf5 itself reads the bytes, in this process. It never ends for some damage of texts, which is looked for beforehand.
"""

import math
import mmap
from pathlib import Path
from typing import Any

import numpy as np

from featcache.budget import SMALL, Allowance, check_growth
from featcache.errors import FormatError
from featcache.files import remembered

OBJECT = 64  #: bytes of a value of varying length in memory, besides its content
HEAP, LEAST = b"GCOL\1", 4096  #: beginning of a heap, which holds values of varying length, and its smallest size


def child(group: Any, name: str, path: Path) -> Any:
    """A group or data set whose values are in the file itself; FormatError for anything that points elsewhere."""
    import h5py

    place = f"{path}: {group.name.rstrip('/')}/{name}"
    if name not in group:
        raise FormatError(f"{place} is missing; write the file again")
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise FormatError(f"{place} is a link; only data in the file itself is read: save it there")
    return inside(group[name], path, place)


def referenced(file: Any, reference: Any, path: Path, place: str) -> Any:
    """The data set that a reference in the file names, checked like a child; FormatError for anything else."""
    import h5py

    if not isinstance(reference, h5py.Reference) or isinstance(reference, h5py.RegionReference) or not reference:
        raise FormatError(f"{place} is not a reference to a data set; save the data itself there")
    item = inside(file[reference], path, place)
    if not isinstance(item, h5py.Dataset):
        raise FormatError(f"{place} refers to a group; save a data set in its place")
    return item


def inside(item: Any, path: Path, place: str) -> Any:
    """Return a group or data set; FormatError if its values are elsewhere or would grow beyond reason."""
    import h5py

    if isinstance(item, h5py.Dataset):
        if item.is_virtual or item.external:
            raise FormatError(f"{place} lies in another file; only data in the file itself is read: save it there")
        stored = item.id.get_storage_size()
        if item.size and not stored:
            raise FormatError(f"{place} was never written; write or remove it")
        stored = min(stored, path.stat().st_size)  # the file may exaggerate
        count = max(item.size or 0, math.prod(item.chunks or (0,)))  # reading a value unpacks its whole chunk
        check_growth(count * item.dtype.itemsize, stored, place)
        if item.dtype.hasobject:
            _check_lengths(item, path, place)
    elif not isinstance(item, h5py.Group):
        raise FormatError(f"{place} is a {type(item).__name__}, neither group nor data set")
    return item


def attribute(item: Any, name: str) -> Any:
    """An attribute with values of a fixed length; None if there is no such attribute.

    Values of other lengths are elsewhere in the file, where many may share one, and so unpack to any size.
    """
    if name not in item.attrs or item.attrs.get_id(name).dtype.hasobject:
        return None
    return item.attrs[name]


def _check_lengths(item: Any, path: Path, place: str) -> None:
    """Raise FormatError if values of varying length take many times the file's bytes: they may share their bytes."""
    import h5py

    if h5py.check_ref_dtype(item.dtype) or not item.size:
        return
    longest = _longest(path, item.file.id.get_create_plist().get_sizes()[1])
    size = path.stat().st_size
    step = max(1, min(1024, SMALL // max(1, longest))) if item.ndim == 1 else 1  # no part takes more than 64 MiB
    allowance = Allowance(size, place)
    allowance.take(OBJECT * item.size)
    for first in np.ndindex(-(-item.shape[0] // step), *item.shape[1:]) if item.ndim else [()]:
        values = item[first] if step == 1 else item[first[0] * step : (first[0] + 1) * step]
        for value in np.ravel(np.asarray(values, object)).tolist():
            allowance.take(len(value) if hasattr(value, "__len__") else 0)


@remembered(1 << 10, settled=True)
def _longest(path: Path, width: int) -> int:
    """Return the bytes of the longest value in the heaps of a file.

    A heap is its name, its size, and its values: each a number, 6 bytes, its size, and its bytes, up to a multiple of
    8. The number 0 is the free rest, whose size includes that of this head. FormatError for a value that is longer than
    the rest of its heap, or for a rest without a size, at which libhdf5 never ends. width: bytes of a size.
    """
    head, longest = _padded(8 + width), 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        heap = data.find(HEAP)
        while heap >= 0:
            place, end = heap + head, heap + _number(data, heap, width)
            while LEAST <= end - heap <= len(data) - heap and place + head <= end:
                size = _number(data, place, width)
                if any(data[place : place + 2]):
                    longest = max(longest, size)
                    size = head + _padded(size)
                if not head <= size <= end - place:
                    raise FormatError(f"{path} is damaged: its heap at byte {heap} has a value of a wrong size")
                place += size
            heap = data.find(HEAP, heap + 1)
    return longest


def _number(data: mmap.mmap, place: int, width: int) -> int:
    """Return the size in a head."""
    return int.from_bytes(data[place + 8 : place + 8 + width], "little")


def _padded(size: int) -> int:
    """Return the next multiple of 8."""
    return -(-size // 8) * 8
