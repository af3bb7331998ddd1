"""URLs of object stores on the command line and in Python, as text or folded into a path.

>>> url_of("s3://bucket/stores/"), url_of(Path("s3://bucket/stores")), url_of("stores")
('s3://bucket/stores', 's3://bucket/stores', '')
"""

import os
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from urllib.parse import unquote

from featcache.arguments import PathLike
from featcache.errors import ArgumentsError
from featcache.progress import Opens, Progress, silent

_bars: list[Opens] = []  #: opens the progress bar of a store that is fetched; none without a command line
_copies: dict[str, str] = {}  #: folder of the cache -> the URL whose copy it is, in this process
HUB = "hf"  #: scheme of the Hugging Face Hub
#: scheme -> its environment variables with credentials; obstore reads all but the hub, with conditional writes
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "GOOGLE_SERVICE_ACCOUNT to the path of a key file",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    HUB: "HF_TOKEN",
}
SCHEMES = tuple(CREDENTIALS)
#: a text that is meant as a URL; pathlib folds two slashes into one, and removes those of a URL without a bucket
_URL = re.compile(rf"([A-Za-z][\w+.-]*):/{{1,2}}|({'|'.join(SCHEMES)}):$")


def scheme_of(given: PathLike) -> str:
    """Return the scheme of a text that is meant as a URL, in lower case; "" for a local path."""
    found = _URL.match(os.fspath(given))
    return (found[1] or found[2]).lower() if found else ""


def url_of(given: PathLike) -> str:
    """Return the URL of an object store or of the hub, without a slash at its end; "" for a local path.

    ArgumentsError for a text that is nearly such a URL, so that it never names a local folder. Its message has no
    password.
    """
    text = os.fspath(given)
    if not (found := _URL.match(text)):
        return ""
    written, rest = found[1] or found[2], text[found.end() :].rstrip("/")
    scheme, start = written.lower(), written + "://"
    place, _, path = rest.partition("/")
    if re.search("[@:]", place):
        fix = f"write {_form(scheme)}, and set {CREDENTIALS[scheme]}" if scheme in SCHEMES else "leave it out"
        raise ArgumentsError(f"the URL {start}... has a name, a password or a port before its first slash; {fix}")
    shown_url = start + re.split("[?#]", rest)[0]
    if scheme in ("http", "https"):
        dataset = re.search(r"/(datasets/[^/?#]+/[^/?#]+)", rest)
        fix = f"{HUB}://{dataset[1]}" if dataset else f"{_form(HUB)} or another URL ({_choices()})"
        raise ArgumentsError(f"{shown_url} is the address of a page; write {fix}, or name a folder")
    if written not in SCHEMES:
        known = f"write {scheme}:// in small letters" if scheme in SCHEMES else f"URLs begin with {_choices()}"
        raise ArgumentsError(f"{shown_url} is not supported; {known}; of a local folder, write the whole path")
    if not place:
        raise ArgumentsError(f"{text} names no bucket; write {_form(scheme)}")
    if re.search(r"[?#\x00-\x1f\x7f]", rest):
        raise ArgumentsError(f"{shown_url} is followed by ?, # or a control character; write {_form(scheme)}")
    if {"", ".", ".."} & {*unquote(f"{place}/{path}" if path else place).split("/")}:
        raise ArgumentsError(f"{shown_url} has a part '', '.' or '..'; write the URL of the folder without it")
    return start + rest


def _choices() -> str:
    return ", ".join(f"{scheme}://" for scheme in SCHEMES)


def _form(scheme: str) -> str:
    return f"{scheme}://datasets/OWNER/NAME" if scheme == HUB else f"{scheme}://BUCKET/PATH"


def is_hub(url: str) -> bool:
    """Return whether a URL is one of the Hugging Face Hub."""
    return url.startswith(f"{HUB}://")


def parent(url: str) -> str:
    """Return the URL of the folder that a folder is in; "" for a whole bucket or dataset.

    >>> parent("s3://bucket/stores/kitchens"), parent("s3://bucket")
    ('s3://bucket/stores', '')
    """
    above, _, _ = url.rpartition("/")
    return above if above.count("/") >= (4 if is_hub(url) else 2) else ""


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
