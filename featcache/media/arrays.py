"""Arrays of numbers: one array of a .npy, .npz or HDF5 file, and the rows of it that belong to a clip.

Objects (pickles) are never loaded, and data that an HDF5 file keeps in other files is not read.
"""

import zipfile
from collections.abc import Callable, Iterable, Sequence
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.budget import check_growth
from featcache.columns import features_of
from featcache.errors import FormatError, MediaError
from featcache.files import remembered
from featcache.manifest import Clip
from featcache.media.reel import EPSILON
from featcache.untrusted import check_numbers, reading
from featcache.untrusted.hdf5 import child
from featcache.untrusted.npy import npy_header, parse_npy
from featcache.wording import first

BEYOND = 2.0**62  #: a row that no file has
Part = tuple[NDArray[Any], tuple[int, ...]]  #: some rows of an array, and the shape of the whole array


def load(path: Path, key: str = "", usual: Sequence[str] = (), rows: slice = slice(None)) -> Part:
    """Read these rows of the array called `key`, and the shape of the whole array; an array of one axis comes whole.

    Without a key the array is the only one of numbers that does not describe clips by its name (`featcache.columns`),
    or else the first of the names `usual` that exists. Raises
    MediaError if there is no such array, if it has no numbers, or if the file is damaged.
    """
    kind, read = READERS[path.suffix.lower()]
    try:
        with reading(path, kind):
            return read(path, key, usual, rows)
    except FormatError as error:
        raise MediaError(str(error)) from None


def numeric(path: Path) -> list[str]:
    """Return the names of all arrays of numbers in a .npz or HDF5 file; [] for other files."""
    kind, _ = READERS[path.suffix.lower()]
    with reading(path, kind):
        if kind == "npz":
            with zipfile.ZipFile(path) as archive:
                return [name for name, dtype in _members(archive, path).items() if dtype.kind in "fiu"]
        if kind == "HDF5":
            import h5py

            with h5py.File(path, "r") as file:
                return [name for name, part in _data_sets(file).items() if part.dtype.kind in "fiu"]
    return []


def span(clip: Clip, rate: float | None, path: Path) -> slice:
    """Return the clip's rows in a source of `rate` rows per second, as a slice whose stop may be None.

    Row k covers [k, k + 1) / rate seconds and belongs to a clip in seconds if some of it lies inside. Raises
    MediaError for bounds in seconds without a rate.
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
    first = floor(min(((clip.start or 0.0) + EPSILON) * rate, BEYOND))
    return slice(first, None if clip.stop is None else max(first + 1, ceil(min((clip.stop - EPSILON) * rate, BEYOND))))


def check_start(rows: slice, count: int, path: Path, unit: str) -> None:
    """Raise MediaError unless the rows start before the end; `unit` names them: rows or frames."""
    if not count:
        raise MediaError(f"{path} has no {unit}; replace it")
    if rows.start >= count:
        raise MediaError(f"{path} has {count} {unit}, but the clip starts at {rows.start}; correct start and stop")


def _npy(path: Path, key: str, usual: Sequence[str], rows: slice) -> Part:
    if key:
        raise FormatError(f"{path} holds one array without a name; leave the key {key!r} out")
    with path.open("rb") as file:
        shape, dtype = npy_header(file, path.stat().st_size, str(path))
    check_numbers(dtype, str(path))
    if 0 in shape:  # an empty array cannot be mapped
        return np.zeros(shape, dtype), shape
    return _cut(np.lib.format.open_memmap(path, mode="r"), rows), shape


def _npz(path: Path, key: str, usual: Sequence[str], rows: slice) -> Part:
    array = _unzipped(path, key, tuple(usual))
    return _cut(array, rows), array.shape


@remembered(1)
def _unzipped(path: Path, key: str, usual: tuple[str, ...]) -> NDArray[Any]:
    """Read all rows. They are remembered: an archive member is read whole, and clips of one file follow each other."""
    with zipfile.ZipFile(path) as archive:
        dtypes = _members(archive, path)
        numbers = [name for name, dtype in dtypes.items() if dtype.kind in "fiu"]
        info = archive.getinfo(f"{_pick(path, key or _only(path, numbers, usual), dtypes)}.npy")
        stored = min(info.compress_size, path.stat().st_size)  # the archive may exaggerate
        check_growth(info.file_size, stored, f"{path}: {info.filename}")
        array = parse_npy(archive.read(info), f"{path}: {info.filename}")
    check_numbers(array.dtype, f"{path}: {info.filename}")
    array.setflags(write=False)
    return array


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, np.dtype[Any]]:
    """Return the dtype of each array of an archive."""
    dtypes: dict[str, np.dtype[Any]] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename or name in dtypes:
            raise FormatError(f"{path}: {info.filename!r} is not an array (.npy) or occurs twice; save it again")
        with archive.open(info) as file:
            _, dtypes[name] = npy_header(file, info.file_size, f"{path}: {name}", objects=True)
    return dtypes


def _data_sets(file: Any) -> dict[str, Any]:
    """Return path -> data set of an HDF5 file."""
    import h5py

    arrays: dict[str, Any] = {}
    file.visititems(lambda name, part: arrays.update({name: part} if isinstance(part, h5py.Dataset) else {}))
    return arrays


def _hdf5(path: Path, key: str, usual: Sequence[str], rows: slice) -> Part:
    import h5py

    with h5py.File(path, "r") as file:
        arrays = _data_sets(file)
        numbers = [name for name, part in arrays.items() if part.dtype.kind in "fiu"]
        node = file
        for name in _pick(path, key.strip("/") or _only(path, numbers, usual), arrays).split("/"):
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
    features = features_of(numbers) if not usual else numbers  # an array that describes clips is read by name only
    if not features:
        raise FormatError(f"{path} holds only {first(numbers)}, which describes clips; name an array by its key")
    name = features[0] if len(features) == 1 else next((name for name in usual if name in numbers), None)
    if name is None:
        fix = f"rename the one to read to {' or '.join(usual)}" if usual else "name one of them by its key"
        raise FormatError(f"{path} holds several arrays: {first(numbers)}; {fix}")
    return name


def _pick(path: Path, key: str, names: Iterable[str]) -> str:
    if key not in names:
        raise FormatError(f"{path} holds no array {key!r}; it has: {first(names)}")
    return key
