"""What readers of numbers share: one array of a .npy, .npz or HDF5 file, and which of its rows a clip has.

Objects (pickles) are never loaded, and what an HDF5 file keeps in other files is not read.
"""

import zipfile
from collections.abc import Callable, Iterable, Sequence
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import FormatError, MediaError
from featcache.files import remembered
from featcache.manifest import Clip
from featcache.media.reel import EPSILON
from featcache.untrusted import check_growth, check_numbers, reading
from featcache.untrusted.hdf5 import child
from featcache.untrusted.npy import npy_header, parse_npy
from featcache.wording import first

Part = tuple[NDArray[Any], tuple[int, ...]]  #: some rows of an array, and the shape of all of it


def load(path: Path, key: str = "", usual: Sequence[str] = (), rows: slice = slice(None)) -> Part:
    """These rows of the array called `key`, and the shape of all of it; an array of one axis comes whole.

    Without a key it is the only array of numbers, or else the first of `usual` that is there. MediaError where there
    is no such array, or none of numbers, or the file is damaged.
    """
    kind, read = READERS[path.suffix.lower()]
    try:
        with reading(path, kind):
            return read(path, key, usual, rows)
    except FormatError as error:
        raise MediaError(str(error)) from None


def span(clip: Clip, rate: float | None, path: Path) -> slice:
    """The clip's rows in a source of `rate` rows per second, which start at row / rate; the stop may be None.

    A row belongs to a clip in seconds when some of it lies inside. MediaError for seconds without a rate.
    """
    if clip.start is None and clip.stop is None:
        return slice(0, None)
    if clip.unit == "frames":
        return slice(int(clip.start or 0), None if clip.stop is None else int(clip.stop))
    if rate is None:
        raise MediaError(
            f"{path} has rows without a rate, so bounds cannot be in seconds; give rows per second as fps, "
            "or bounds as start_frame and stop_frame"
        )
    first = floor(((clip.start or 0.0) + EPSILON) * rate)
    return slice(first, None if clip.stop is None else max(first + 1, ceil((clip.stop - EPSILON) * rate)))


def check_start(rows: slice, count: int, path: Path, what: str) -> None:
    """MediaError unless the rows start before the end; `what` they are, such as frames."""
    if not count:
        raise MediaError(f"{path} has no {what}; replace it")
    if rows.start >= count:
        raise MediaError(f"{path} has {count} {what}, but the clip starts at {rows.start}; correct start and stop")


def _npy(path: Path, key: str, usual: Sequence[str], rows: slice) -> Part:
    if key:
        raise FormatError(f"{path} holds one array without a name; leave the key {key!r} out")
    with path.open("rb") as file:
        shape, dtype = npy_header(file, path.stat().st_size, str(path))
    check_numbers(dtype, str(path))
    if 0 in shape:  # which cannot be mapped
        return np.zeros(shape, dtype), shape
    return _cut(np.lib.format.open_memmap(path, mode="r"), rows), shape


def _npz(path: Path, key: str, usual: Sequence[str], rows: slice) -> Part:
    array = _unzipped(path, key, tuple(usual))
    return _cut(array, rows), array.shape


@remembered(1)
def _unzipped(path: Path, key: str, usual: tuple[str, ...]) -> NDArray[Any]:
    """All rows, kept: parts of a zip archive cannot be read alone, and clips of one file follow each other."""
    with zipfile.ZipFile(path) as archive:
        found: dict[str, zipfile.ZipInfo] = {}
        numbers = []
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name == info.filename or name in found:
                raise FormatError(f"{path}: {info.filename!r} is no array (.npy), or is in it twice")
            found[name] = info
            with archive.open(info) as file:
                _, dtype = npy_header(file, info.file_size, f"{path}: {name}", objects=True)
            numbers += [name] * (dtype.kind in "fiu")
        info = found[_pick(path, key or _only(path, numbers, usual), found)]
        check_growth(info.file_size, info.compress_size, f"{path}: {info.filename}")
        array = parse_npy(archive.read(info), f"{path}: {info.filename}")
    check_numbers(array.dtype, f"{path}: {info.filename}")
    array.setflags(write=False)
    return array


def _hdf5(path: Path, key: str, usual: Sequence[str], rows: slice) -> Part:
    import h5py

    with h5py.File(path, "r") as file:
        found: dict[str, Any] = {}
        file.visititems(lambda name, part: found.update({name: part} if isinstance(part, h5py.Dataset) else {}))
        numbers = [name for name, part in found.items() if part.dtype.kind in "fiu"]
        node = file
        for name in _pick(path, key.strip("/") or _only(path, numbers, usual), found).split("/"):
            node = child(node, name, path)
        check_numbers(node.dtype, f"{path}: {node.name}")
        if node.shape is None:
            raise FormatError(f"{path}: {node.name} is empty")
        return _cut(node, rows), node.shape


READERS: dict[str, tuple[str, Callable[[Path, str, Sequence[str], slice], Part]]] = {
    ".npy": ("npy", _npy),
    ".npz": ("npz", _npz),
    ".h5": ("HDF5", _hdf5),
    ".hdf5": ("HDF5", _hdf5),
}


def _cut(array: Any, rows: slice) -> NDArray[Any]:
    return np.array(array[rows] if len(array.shape) > 1 else array[()])


def _only(path: Path, numbers: Sequence[str], usual: Sequence[str]) -> str:
    if not numbers:
        raise FormatError(f"{path} holds no array of numbers")
    name = numbers[0] if len(numbers) == 1 else next((name for name in usual if name in numbers), None)
    if name is None:
        fix = f"call the one that counts {' or '.join(usual)}" if usual else "name one of them by its key"
        raise FormatError(f"{path} holds several arrays: {first(numbers)}; {fix}")
    return name


def _pick(path: Path, key: str, found: Iterable[str]) -> str:
    if key not in found:
        raise FormatError(f"{path} holds no array {key!r}; it has: {first(found)}")
    return key
