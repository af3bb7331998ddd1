"""Walking a foreign HDF5 file without leaving it: links and data sets may name other files, which are not read."""

from pathlib import Path
from typing import Any

from featcache.errors import FormatError
from featcache.untrusted import check_growth


def child(group: Any, name: str, path: Path) -> Any:
    """A group or data set whose values lie in this very file; FormatError for anything that points elsewhere."""
    import h5py

    place = f"{path}: {group.name.rstrip('/')}/{name}"
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise FormatError(f"{place} is a link; only data in the file itself is read")
    found = group[name]
    if isinstance(found, h5py.Dataset):
        if found.is_virtual or found.external:
            raise FormatError(f"{place} lies in another file; only data in the file itself is read")
        if found.size and not found.id.get_storage_size():
            raise FormatError(f"{place} was never written")
        check_growth(found.size * found.dtype.itemsize, found.id.get_storage_size(), place)
    elif not isinstance(found, h5py.Group):
        raise FormatError(f"{place} is a {type(found).__name__}, neither group nor data set")
    return found
