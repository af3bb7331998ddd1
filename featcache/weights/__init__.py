"""Weights of the frozen networks: where they come from, under which licence, and how they get here unharmed.

They lie in $FEATCACHE_WEIGHTS, or else in ~/.cache/featcache/weights, each beside a small JSON file with the SHA-256
that it had when it came. A hash that is published, in full or as the 8 digits in a file's name, is compared with, too.

FEATCACHE_MIRROR=PREFIX: fetch https://HOST/PATH from PREFIX/HOST/PATH, and from nowhere else. `wget -x` makes such a
tree; PREFIX may be a folder's file:// URL. FEATCACHE_OFFLINE=1: use no network.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from featcache.errors import WeightsError
from featcache.files import file_sha256, locked, sync_folder, write_file
from featcache.progress import Progress, silent
from featcache.weights.catalogue import CATALOGUE, Weights, entry
from featcache.weights.checkpoints import read
from featcache.weights.download import check_scheme, discard, fill, finish
from featcache.wording import nearest, size

__all__ = [
    "CATALOGUE",
    "Verified",
    "Weights",
    "digest",
    "entry",
    "fetch",
    "find",
    "folder",
    "place",
    "read",
    "state",
    "verify",
]


@dataclass(frozen=True)
class Verified:
    """A file's SHA-256, and what it was compared with: a published hash, the one of its first time here, or nothing."""

    sha256: str
    against: Literal["published", "recorded", "nothing"]


def folder() -> Path:
    """Where weights lie: $FEATCACHE_WEIGHTS or ~/.cache/featcache/weights."""
    return Path(os.environ.get("FEATCACHE_WEIGHTS") or "~/.cache/featcache/weights").expanduser()


def place(known: Weights) -> Path:
    """Where its file is, or will be."""
    return folder() / known.file


def state(known: Weights) -> str:
    """Whether its file is here, in words; its content is not looked at."""
    path = place(known)
    if path.is_file():
        return "here"
    if _partial(path).is_file():
        return f"partly here, {size(_partial(path).stat().st_size)}"
    return "not here" if known.urls else "not here, to be fetched by hand"


def find(name: str | Path) -> Path:
    """The file of weights that were fetched, by their name, or a user's own file; WeightsError says how to get it."""
    if str(name) in CATALOGUE:
        known = CATALOGUE[str(name)]
        if place(known).is_file():
            return place(known)
        missing = f"the weights {name} are not in {folder()}"
        get = (
            f"get them with `featcache weights fetch {name}`"
            if known.urls
            else f"{known.note}; save it as {place(known)}"
        )
    else:
        path = Path(name).expanduser()
        if path.is_file():
            return path
        missing = f"no file {path}, and no weights of this name in the catalogue"
        get = f"get what is there with `featcache weights fetch {nearest(str(name), CATALOGUE) or 'NAME'}`"
    raise WeightsError(
        f"{missing}; {get}, or name a file of yours with --weights EXTRACTOR=FILE, or take random ones, which only"
        " prove that things run, with --weights untrained"
    )


_digests: dict[tuple[int, int, int, int], str] = {}


def digest(path: Path) -> str:
    """SHA-256 of a file, 64 digits. A file that did not change is read once per process."""
    about = path.stat()
    key = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
    if key not in _digests:
        _digests[key] = file_sha256(path)
    return _digests[key]


def fetch(name: str, progress: Progress = silent, *, timeout: float = 30.0) -> Path:
    """Get a file of the catalogue, unless it is here, and return its path.

    It gets its name when it is complete and its size and hash are right; what an interruption leaves is gone on with.
    Two processes do not fetch the same file: the second waits for the first. progress: called with (bytes there, bytes
    in all or 0). timeout: seconds without a byte. WeightsError names each URL, what happened there and what to do.
    """
    known = entry(name)
    path = place(known)
    if path.is_file():
        return path
    if not known.urls:
        raise WeightsError(f"{name} cannot be fetched by a program; {known.note}; save it as {path}")
    urls = [_source(url, path) for url in known.urls]
    with locked(path.with_name(f".{path.name}.lock")):
        if path.is_file():  # another process has just got it
            return path
        failures = []
        for url in urls:
            try:
                _fetch(known, url, path, progress, timeout)
                return path
            except WeightsError as error:
                failures.append(str(error))
    raise WeightsError(f"{name} could not be fetched. {' -- '.join(failures)}. By hand: save it as {path}")


def verify(name: str) -> Verified:
    """Compare a file that is here with the published hash, and with the one that was recorded when it came.

    A file that was put here by hand is recorded now if nothing is published. WeightsError if it is not what it was.
    """
    known = entry(name)
    path = find(name)
    sha256 = digest(path)
    recorded = _recorded(path)
    try:
        _compare(known, path, recorded)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}; remove the file and fetch it again") from None
    if recorded is None:
        _record(path, sha256, "by hand")
    return Verified(sha256, "published" if known.sha256 else "recorded" if recorded else "nothing")


def _fetch(known: Weights, url: str, path: Path, progress: Progress, timeout: float) -> None:
    partial = _partial(path)
    recorded = _recorded(path)
    sure = known.sha256 is not None
    fill(url, partial, size=known.size, digest_known=sure, progress=progress, timeout=timeout)
    try:
        _compare(known, partial, recorded)
    except WeightsError as error:
        discard(partial)
        again = "" if sure else f" (if the new one is right, remove {_sidecar(path)})"
        raise WeightsError(f"{url}: {error}; what came was removed, try again or set FEATCACHE_MIRROR{again}") from None
    _record(path, digest(partial), url)
    finish(partial, path)
    sync_folder(path.parent)


def _compare(known: Weights, path: Path, recorded: str | None) -> None:
    """WeightsError unless the size and the hash of the file are the published ones and the recorded one."""
    size = path.stat().st_size
    if known.size is not None and size != known.size:
        raise WeightsError(f"it has {size} bytes where {known.size} are published")
    for expected, whose in ((known.sha256, "published"), (recorded, "recorded when it came first")):
        if expected is not None and not digest(path).startswith(expected):
            raise WeightsError(f"its SHA-256 is {digest(path)}, and not {expected}, which was {whose}")


def _source(url: str, path: Path) -> str:
    """The URL to ask, given the mirror; WeightsError if that needs the network and it is not to be used."""
    mirror = os.environ.get("FEATCACHE_MIRROR", "")
    if mirror:
        check_scheme(mirror)
        url = f"{mirror.rstrip('/')}/{url.split('://', 1)[1]}"
    if os.environ.get("FEATCACHE_OFFLINE", "0") not in ("", "0") and urlsplit(url).scheme != "file":
        raise WeightsError(
            f"FEATCACHE_OFFLINE is set, so {url} is not fetched; fetch it on another machine and save it as {path}, or"
            " set FEATCACHE_MIRROR to a file:// URL, or unset FEATCACHE_OFFLINE"
        )
    return url


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _record(path: Path, sha256: str, origin: str) -> None:
    write_file(_sidecar(path), json.dumps({"sha256": sha256, "from": origin}, indent=1).encode(), shared=True)


def _recorded(path: Path) -> str | None:
    try:
        return str(json.loads(_sidecar(path).read_bytes())["sha256"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise WeightsError(f"{_sidecar(path)} is damaged; remove it, and the hash is recorded anew") from None
