"""Read a foreign HDF5 file without leaving it: its links and data sets may name other files, which are never read."""

from pathlib import Path
from typing import Any

from featcache.errors import FormatError
from featcache.untrusted import check_growth


def child(group: Any, name: str, path: Path) -> Any:
    """A group or data set whose values are in the file itself; FormatError for anything that points elsewhere."""
    import h5py

    place = f"{path}: {group.name.rstrip('/')}/{name}"
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise FormatError(f"{place} is a link; only data in the file itself is read")
    item = group[name]
    if isinstance(item, h5py.Dataset):
        if item.is_virtual or item.external:
            raise FormatError(f"{place} lies in another file; only data in the file itself is read")
        if item.size and not item.id.get_storage_size():
            raise FormatError(f"{place} was never written")
        check_growth(item.size * item.dtype.itemsize, item.id.get_storage_size(), place)
    elif not isinstance(item, h5py.Group):
        raise FormatError(f"{place} is a {type(item).__name__}, neither group nor data set")
    return item
