"""URLs of object stores on the command line and in Python, as text or folded into a path.

>>> url_of("s3://bucket/stores/"), url_of(Path("s3://bucket/stores")), url_of("stores")
('s3://bucket/stores', 's3://bucket/stores', '')
"""

import os
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from featcache.arguments import PathLike
from featcache.errors import ArgumentsError
from featcache.progress import Opens, Progress, silent

_bars: list[Opens] = []  #: opens the progress bar of a store that is fetched; none without a command line
_copies: dict[str, str] = {}  #: folder of the cache -> the URL whose copy it is, in this process
HUB = "hf"  #: scheme of the Hugging Face Hub
SCHEMES = ("s3", "gs", "az", HUB)  #: the first three are read by obstore, and their stores have conditional writes
_URL = re.compile(rf"({'|'.join(SCHEMES)}):/{{1,2}}(?=[^/])")  # pathlib folds two slashes into one


def url_of(given: PathLike) -> str:
    """Return the URL of an object store without a slash at its end; "" for anything else, such as a local path."""
    text = os.fspath(given)
    found = _URL.match(text)
    return f"{found[1]}://{text[found.end() :].rstrip('/')}" if found else ""


def is_hub(url: str) -> bool:
    """Return whether a URL is one of the Hugging Face Hub."""
    return url.startswith(f"{HUB}://")


def on_disk(given: PathLike, option: str) -> Path:
    """Return a local path; ArgumentsError for a URL, which this option does not take."""
    if url := url_of(given):
        raise ArgumentsError(f"{option} {url} is a URL, and a local folder is needed here; name a folder")
    return Path(given)


def beside(name: str, ending: str) -> str:
    """Return the name of an object that belongs to a store and is next to it: .NAME.zarr and an ending.

    >>> beside("kitchens/hog.zarr", "files")
    'kitchens/.hog.zarr.files'
    """
    folder, slash, own = name.rpartition("/")
    return f"{folder}{slash}.{own}.{ending}"


def shown(given: PathLike) -> str:
    """Return a URL as a user writes it, or a path as text."""
    return url_of(given) or str(Path(given))


def show_fetching(opens: Opens) -> None:
    """Open progress bars by this function for stores that are fetched from now on."""
    _bars[:] = [opens]


def fetching(url: str) -> AbstractContextManager[Progress]:
    """Open the progress bar of a store that is fetched; nothing is shown without `show_fetching`."""
    return _bars[0](f"fetch {url}", "megabyte") if _bars else nullcontext(silent)


def is_copy(folder: Path, url: str) -> None:
    """Remember that a folder of the cache is the copy of a URL, for `with_urls`."""
    _copies[str(folder)] = url


def with_urls(text: str) -> str:
    """Return a message with the URLs that users have named, instead of the folders of their copies."""
    for folder, url in _copies.items():
        text = text.replace(folder, url)
    return text
