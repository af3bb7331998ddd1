"""Weights of the frozen networks: their sources and licences, and safe downloads.

The folder of weights is $FEATCACHE_WEIGHTS, or else ~/.cache/featcache/weights. Next to each file is a small JSON file
with the SHA-256 at its download. A file is also checked against its published hash, if there is one: the full hash, or
the 8 digits in the file's name.

FEATCACHE_MIRROR=PREFIX: fetch https://HOST/PATH only from PREFIX/HOST/PATH. `wget -x` makes such a tree; PREFIX may be
the file:// URL of a folder. FEATCACHE_OFFLINE=1: use no network.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from featcache import schema
from featcache.errors import WeightsError
from featcache.files import (
    claim_of,
    file_sha256,
    locked,
    remembered,
    remove_abandoned,
    sync_folder,
    write_file,
)
from featcache.progress import Progress, reporting
from featcache.weights.catalogue import CATALOGUE, Weights, entry
from featcache.weights.checkpoints import read
from featcache.weights.download import check_scheme, discard, fill, finish, is_begun
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
    "listed",
    "named",
    "place",
    "read",
    "recognised",
    "state",
    "verify",
]


@dataclass(frozen=True)
class Verified:
    """A file's SHA-256, and the hash it was compared with: a published one, one recorded at its arrival, or none."""

    sha256: str
    against: Literal["published", "recorded", "nothing"]


def folder() -> Path:
    """The folder of weights: $FEATCACHE_WEIGHTS or ~/.cache/featcache/weights."""
    return Path(os.environ.get("FEATCACHE_WEIGHTS") or "~/.cache/featcache/weights").expanduser()


def place(weights: Weights) -> Path:
    """The path of the weights' file, whether it exists or not."""
    return folder() / weights.file


def state(weights: Weights) -> str:
    """Describe whether the weights' file is here, without reading its content."""
    path = place(weights)
    if path.is_file():
        return "here"
    if _partial(path).is_file():
        return f"partly here, {size(_partial(path).stat().st_size)}"
    return "not here" if weights.urls else "not here, to be fetched by hand"


def listed() -> dict[str, str]:
    """Name of all weights of the catalogue -> their state on this machine; `CATALOGUE[name]` has all else."""
    return {name: state(weights) for name, weights in CATALOGUE.items()}


def find(name: str | Path) -> Path:
    """The file of fetched weights, by their name, or a user's own file; WeightsError explains how to get it."""
    if str(name) in CATALOGUE:
        weights = CATALOGUE[str(name)]
        if place(weights).is_file():
            return place(weights)
        missing = f"the weights {name} are not in {folder()}"
        get = (
            f"get them with `featcache weights fetch {name}`"
            if weights.urls
            else f"{weights.note}; save the file as {place(weights)}"
        )
    else:
        path = Path(name).expanduser()
        if path.is_file():
            return path
        missing = f"no file {path}, and no weights of this name in the catalogue"
        get = f"get weights of the catalogue with `featcache weights fetch {nearest(str(name), CATALOGUE) or 'NAME'}`"
    raise WeightsError(
        f"{missing}; {get}, or name your own file with --weights EXTRACTOR=FILE, or use --weights untrained for random"
        " weights, whose features are only good for testing"
    )


def recognised(path: Path) -> Weights | None:
    """The catalogue's entry of a user's own file: one with its published hash, or whose fetched file is the same."""
    size = path.stat().st_size
    for weights in CATALOGUE.values():
        fetched = place(weights)
        if weights.sha256 and digest(path).startswith(weights.sha256):
            return weights
        if fetched.is_file() and fetched.stat().st_size == size and digest(fetched) == digest(path):
            return weights
    return None


def named(sha256: str) -> str:
    """The name in the catalogue of the weights with this SHA-256, as published or as the file is here; or ""."""
    for name, weights in CATALOGUE.items():
        if weights.sha256 and sha256.startswith(weights.sha256):
            return name
    here = ((name, place(weights)) for name, weights in CATALOGUE.items())
    return next((name for name, path in here if path.is_file() and digest(path) == sha256), "")


@remembered(64)
def digest(path: Path) -> str:
    """SHA-256 of a file, 64 digits. An unchanged file is read once per process."""
    return file_sha256(path)


def fetch(name: str, progress: Progress | bool = False, *, timeout: float = 30.0) -> Path:
    """Fetch a file of the catalogue, unless it is here, and return its path.

    The file gets its name once it is complete and its size and hash are right. An interrupted download is continued.
    When two processes fetch the same file, the second waits for the first. progress: True for a bar, or a callback
    (bytes received, all or 0). timeout: seconds without a byte. WeightsError names each URL, the failure and the fix.
    """
    weights = entry(name)
    path = place(weights)
    if path.is_file():
        if is_begun(_partial(path)):  # by a process that was killed, and then the file was saved by hand or completed
            with locked(claim_of(path)):
                discard(_partial(path))
        return path
    if not weights.urls:
        raise WeightsError(f"{name} cannot be fetched by a program; {weights.note}; save the file as {path}")
    urls = [_source(url, path) for url in weights.urls]
    with locked(claim_of(path)):
        if path.is_file():  # another process has just got it
            return path
        failures = []
        for url in urls:
            try:
                with reporting(progress, f"fetch {name}", "B") as report:
                    _fetch(weights, url, path, report, timeout)
                return path
            except WeightsError as error:
                failures.append(str(error))
    raise WeightsError(f"{name} could not be fetched. {' -- '.join(failures)}. To fetch it by hand, save it as {path}")


def verify(name: str) -> Verified:
    """Compare a file that is here with its published hash, and with the hash recorded at its arrival.

    The hash of a file that was saved by hand is recorded now. WeightsError when the file has changed.
    """
    weights = entry(name)
    path = find(name)
    sha256 = digest(path)
    remove_abandoned(_sidecar(path))
    recorded = _recorded(path)
    try:
        _compare(weights, path, recorded)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}; remove the file and fetch it again") from None
    if recorded is None:
        _record(path, sha256, "by hand")
    return Verified(sha256, "published" if weights.sha256 else "recorded" if recorded else "nothing")


def _fetch(weights: Weights, url: str, path: Path, progress: Progress, timeout: float) -> None:
    partial = _partial(path)
    recorded = _recorded(path)
    digest_known = weights.sha256 is not None
    fill(url, partial, size=weights.size, digest_known=digest_known, progress=progress, timeout=timeout)
    try:
        _compare(weights, partial, recorded)
    except WeightsError as error:
        discard(partial)
        hint = "" if digest_known else f" (if the new file is right, remove {_sidecar(path)})"
        raise WeightsError(
            f"{url}: {error}; the download was removed, try again or set FEATCACHE_MIRROR{hint}"
        ) from None
    _record(path, digest(partial), url)
    finish(partial, path)
    sync_folder(path.parent)


def _compare(weights: Weights, path: Path, recorded: str | None) -> None:
    """Raise WeightsError unless the file has the published size and hash, and the recorded hash."""
    size = path.stat().st_size
    if weights.size is not None and size != weights.size:
        raise WeightsError(f"it has {size} bytes, but the published size is {weights.size}")
    for expected, origin in ((weights.sha256, "the published one"), (recorded, "the one recorded at its arrival")):
        if expected is not None and not digest(path).startswith(expected):
            raise WeightsError(f"its SHA-256 is {digest(path)}, not {expected}, {origin}")


def _source(url: str, path: Path) -> str:
    """The URL to fetch, or its place in the mirror; WeightsError if FEATCACHE_OFFLINE forbids the network it needs."""
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


@dataclass(frozen=True)
class _Sidecar:
    """The part that is read of the file next to weights."""

    sha256: str


def _recorded(path: Path) -> str | None:
    try:
        fix = "remove it, and the hash is recorded again"
        return schema.read(_sidecar(path), _Sidecar, error=WeightsError, fix=fix, newer=True).sha256
    except FileNotFoundError:
        return None
