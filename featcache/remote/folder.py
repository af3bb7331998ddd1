"""A local folder, with the methods of a place of objects."""

import os
from pathlib import Path

from featcache.errors import StoreError
from featcache.files import read_bytes, write_file
from featcache.remote.bucket import Entry


class Folder:
    """The files in a folder, by their paths in it. Names that begin with a dot are left out."""

    def __init__(self, path: Path) -> None:
        self.path, self.url = path, str(path)

    def listing(self) -> dict[str, Entry]:
        """Path in the folder -> entry of each file, in order of the paths; {} if there is no folder."""
        entries = {}
        for place, folders, names in os.walk(self.path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(place, name)
                if not name.startswith(".") and path.is_file():
                    entries[path.relative_to(self.path).as_posix()] = Entry(path.stat().st_size, "")
        return dict(sorted(entries.items()))

    def begin(self) -> dict[str, Entry]:
        """Return the listing."""
        return self.listing()

    def get(self, name: str, entry: Entry | None = None) -> memoryview:
        """Return the content of a file; FileNotFoundError if there is none."""
        return memoryview(read_bytes(self.path / name, StoreError))

    def holds(self, name: str, entry: Entry, data: bytes | memoryview) -> bool:
        """Return True if a file has this content."""
        return len(data) == entry.size and self.get(name) == data

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Write a file, whole or not at all; an older one is replaced."""
        write_file(self.path / name, bytes(data))

    def delete(self, *names: str) -> None:
        """Delete files, and folders that become empty."""
        for name in names:
            path = self.path / name
            path.unlink(missing_ok=True)
            for folder in list(path.parents)[: len(Path(name).parts) - 1]:
                if any(folder.iterdir()):
                    break
                folder.rmdir()

    def commit(self, message: str) -> None:
        """Nothing is left to do: every file has been written."""
