"""A place of objects, whatever is behind it: a service of object storage, the Hugging Face Hub or a local folder."""

from pathlib import Path
from typing import Protocol

from featcache.arguments import PathLike
from featcache.files import file_sha256
from featcache.remote.bucket import Bucket, Entry
from featcache.remote.folder import Folder
from featcache.remote.hub import Hub
from featcache.remote.urls import is_hub, url_of

#: the address of a page, whose slashes pathlib folds, and the dataset of the hub that it shows
SHA256 = 64  #: digits of such a digest; those of git have 40


class Objects(Protocol):
    """The objects below a URL, or the files in a folder."""

    url: str  #: for messages

    def listing(self) -> dict[str, Entry]:
        """Name -> entry of each object, in order of the names."""

    def begin(self) -> dict[str, Entry]:
        """Make ready for writing, and return the listing; {} for a place that has just been made."""

    def get(self, name: str, entry: Entry | None = None) -> memoryview:
        """Return the content of an object; FileNotFoundError if there is none, and no entry of a listing."""

    def holds(self, name: str, entry: Entry, data: bytes | memoryview) -> bool:
        """Return True if an object surely has this content, without reading it where that is possible."""

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Write an object; an older one is replaced. Others may see it only after `commit`."""

    def delete(self, *names: str) -> None:
        """Delete objects; others may see that only after `commit`."""

    def commit(self, message: str) -> None:
        """Make everything visible that was written and deleted."""


def opened(place: PathLike) -> Objects:
    """Open a URL or a folder; no request is made. ConfigError that names the extra if a client is missing."""
    url = url_of(place)
    if not url:
        return Folder(Path(place))
    return Hub(url) if is_hub(url) else Bucket(url)


def sha256(place: Objects, name: str, entry: Entry) -> str:
    """Return the SHA-256 of an object; "" if it would have to be transferred for that."""
    if isinstance(place, Folder):
        return file_sha256(place.path / name)
    return entry.version if isinstance(place, Hub) and len(entry.version) == SHA256 else ""
