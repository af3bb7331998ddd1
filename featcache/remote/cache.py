"""Stores below a URL -> the same files in a local folder, fetched once.

    ~/.cache/featcache/stores/          or the folder that FEATCACHE_STORES names
      SHA256/                 a store or a manifest, whole; named by the SHA-256 of the names, sizes and versions of its
                              objects, so an object that changes leads to another folder. Its time is that of its
                              last use
      .SHA256.files           the record of the media files of a store, as the object .NAME.zarr.files next to it has it
      SHA256.record           the version of that object
      SHA256.boot             the boot of the machine in which the folder was last verified; files of the cache are not
                              synced, so they are verified again after a boot, and fetched again if they are damaged
      views/SHA256/NAME/      the folder that commands read: links to the folders above, as they are below the URL
      urls/SHA256.json        the last listing of a URL, for FEATCACHE_OFFLINE

One listing is one request for 1,000 objects. It is enough to know whether everything is here. What is not here is
fetched as whole objects, several at a time, into a scratch folder that is renamed when all of it is verified.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from featcache import schema, sums
from featcache.errors import StoreError
from featcache.files import FULL, locked, making_folder, remove_folder, write_file
from featcache.remote.bucket import OFFLINE, Entry, room
from featcache.remote.opening import Objects, opened
from featcache.remote.urls import beside, fetching, is_copy

VARIABLE = "FEATCACHE_STORES"
AT_ONCE = 8  #: whole objects that are fetched at a time
PIECE = 1 << 20  #: bytes of an object that are written to the disk at a time; larger writes wait for the disk
STORE = re.compile(r"((?:[^/]+/)?[^/]+\.zarr)/.+")  #: objects of a store: [MANIFEST/]NAME.zarr/...
MANIFEST = re.compile(r"(?:[^/]+/)?manifest\.csv")
BOOT = Path("/proc/sys/kernel/random/boot_id")  #: a text that differs from boot to boot
RECORD = "files"  #: ending of the object .NAME.zarr.files with the record of a store
JOURNAL = "journal/"  #: objects of a store that readers do not need

Listing = dict[str, Entry]
Checksums = Mapping[str, int]  #: file -> its crc32c
#: the folder of a fetched store, and checksums of files that need not be read -> the damage to its files, as text
Verify = Callable[[Path, Checksums], list[str]]
Keep = Callable[[Path, bytes], None]  #: keeps the content of a record with the folder of a fetched store


class NothingThereError(StoreError):
    """There are no stores below a URL."""


@dataclass(frozen=True)
class _Recorded:
    """The last listing of a URL."""

    url: str
    entries: dict[str, Entry]


def home() -> Path:
    """The folder of the cache: $FEATCACHE_STORES or ~/.cache/featcache/stores."""
    return Path(os.environ.get(VARIABLE) or "~/.cache/featcache/stores").expanduser()


def fetched(url: str, verify: Verify, wanted: Collection[str] | None = None, keep: Keep | None = None) -> Path:
    """Return a local folder with the stores and manifests below a URL, as they are now.

    wanted: the stores and manifests that are needed, such as {"kitchens/hog.zarr", "kitchens/manifest.csv"}; the others
    are not fetched. None: all of them. keep: receives the records of the stores; None: they are not fetched.
    With FEATCACHE_OFFLINE, no request is made, and the last listing counts. StoreError if there are no stores, if an
    object cannot be read, changes while it is read or is damaged, or if the disk of the cache is full.
    """
    offline = os.environ.get(OFFLINE, "") not in ("", "0")
    bucket = None if offline else opened(url)
    listing = bucket.listing() if bucket else _recorded(url)
    parts = _parts(listing)
    if not parts:
        raise NothingThereError(
            f"no stores at {url}; name the URL of a store (NAME.zarr), of a folder STORES/MANIFEST or of STORES"
        )
    chosen = {name: part for name, part in parts.items() if wanted is None or not name or name in wanted}
    used = {f"{name}/{inner}": entry for name, part in parts.items() for inner, entry in part.items()}
    view = home() / "views" / _key({f"{url}/{name}": entry for name, entry in used.items()}) / Path(url).name
    missing = {
        name: part
        for name, part in chosen.items()
        if not (view / name).exists() or not _verified_now(home() / _key(part))
    }
    if missing and bucket:
        _check_room(url, missing)
    for name, part in missing.items():
        _link(view / name, _part(bucket, url, name, part, verify))
    for part in chosen.values():
        with suppress(OSError):  # the folder of another user
            os.utime(home() / _key(part))
    for name, part in chosen.items():
        if bucket and keep and (record := listing.get(beside(name, RECORD))):
            _keep_record(bucket, beside(name, RECORD), record, home() / _key(part), keep)
    if bucket:
        _record(url, listing)
    is_copy(view, url)
    return view


def below(listing: Listing, name: str) -> Listing:
    """The objects of a store in a listing, by their names in the store, without its journals."""
    inner = {key.removeprefix(f"{name}/"): entry for key, entry in listing.items() if key.startswith(f"{name}/")}
    return {key: entry for key, entry in inner.items() if not key.startswith(JOURNAL)}


def _parts(listing: Listing) -> dict[str, Listing]:
    """Name of each store and manifest -> its objects, by their names in it; "" is the name of a URL that is a store."""
    if "zarr.json" in listing or (sums.NAME in listing and not any(map(STORE.fullmatch, listing))):
        return {"": {name: entry for name, entry in listing.items() if not name.startswith(JOURNAL)}}
    parts = dict[str, Listing]()
    for name, entry in listing.items():
        if name.startswith("."):
            continue
        if found := STORE.fullmatch(name):
            inner = name.removeprefix(f"{found[1]}/")
            if not inner.startswith(JOURNAL):
                parts.setdefault(found[1], {})[inner] = entry
        elif MANIFEST.fullmatch(name):
            parts[name] = {Path(name).name: entry}
    return dict(sorted(parts.items()))


def _part(bucket: Objects | None, url: str, name: str, part: Listing, verify: Verify) -> Path:
    """Return the path of a store or manifest in the cache; fetch it if it is not there. bucket: None when offline."""
    own = Path(name).name if name.endswith(".csv") else ""
    folder, verify = home() / _key(part), _readable if own else verify
    with locked(folder.with_name(f"{folder.name}.lock")):  # another process may be fetching it
        if not _is_whole(folder, verify):
            if bucket is None:
                raise StoreError(f"{OFFLINE} is set, and {name or url} of {url} is not in the cache; unset it once")
            try:
                fetch(bucket, name, part, folder, verify, durable=False)
                _mark(folder)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                total, free = sum(entry.size for entry in part.values()), shutil.disk_usage(home()).free
                raise StoreError(room(f"{bucket.url}/{name}", total, free, home(), VARIABLE)) from error
    return folder / own


def _keep_record(bucket: Objects, name: str, entry: Entry, folder: Path, keep: Keep) -> None:
    """Fetch the record of a store in the cache if it has changed."""
    mark = folder.with_name(f"{folder.name}.record")
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not mark.exists() or mark.read_text(encoding="utf-8") != entry.version:
            keep(folder, bytes(bucket.get(name, entry)))
            write_file(mark, entry.version.encode(), shared=True)


def _readable(folder: Path, _: Checksums) -> list[str]:
    """The damage to a folder with a manifest: a file that a power cut has left empty."""
    return [f"{path.name} is empty" for path in folder.iterdir() if not path.stat().st_size]


def _is_whole(folder: Path, verify: Verify) -> bool:
    """Return whether a folder of the cache is there; after a boot it is verified, and removed if it is damaged."""
    if not folder.exists():
        return False
    if _verified_now(folder):
        return True
    if verify(folder, {}):
        remove_folder(folder)
        return False
    _mark(folder)
    return True


def _verified_now(folder: Path) -> bool:
    """Return whether a folder was verified in this boot of the machine."""
    try:
        return folder.with_name(f"{folder.name}.boot").read_text(encoding="ascii") == BOOT.read_text(encoding="ascii")
    except OSError:  # it was not, or the system has no number of the boot
        return False


def _mark(folder: Path) -> None:
    with suppress(OSError):
        folder.with_name(f"{folder.name}.boot").write_text(BOOT.read_text(encoding="ascii"), encoding="ascii")


def fetch(bucket: Objects, name: str, part: Listing, folder: Path, verify: Verify, *, durable: bool = True) -> None:
    """Fetch all objects of a store or manifest, verify them, and rename their folder. durable: sync them before."""
    prefix = f"{name}/" if name and not name.endswith(".csv") else name.removesuffix(Path(name).name)

    with making_folder(folder, durable=durable) as scratch:
        checksums = dict[str, int]()
        for place in {(scratch / inner).parent for inner in part}:
            place.mkdir(parents=True, exist_ok=True)

        def get(inner: str) -> None:
            data = bucket.get(prefix + inner, part[inner])
            with (scratch / inner).open("xb") as file:
                for start in range(0, len(data), PIECE):
                    file.write(data[start : start + PIECE])
            checksums[inner] = google_crc32c.value(np.frombuffer(data, np.uint8))  # while others are on their way

        largest_first = sorted(part, key=lambda inner: -part[inner].size)
        sizes = np.cumsum([0, *(part[inner].size for inner in largest_first)]) // 1_000_000
        with (
            fetching(f"{bucket.url}/{name}".rstrip("/")) as progress,
            ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch") as pool,
        ):
            try:
                for number, _ in enumerate(pool.map(get, largest_first)):
                    progress(int(sizes[number + 1]), int(sizes[-1]))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        if damage := verify(scratch, checksums):
            raise StoreError(f"{bucket.url}/{name}".rstrip("/") + f" is damaged: {damage[0]}")


def _link(place: Path, target: Path) -> None:
    """Make a link, or leave one that another process has just made."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        place.symlink_to(os.path.relpath(target, place.parent), target_is_directory=target.is_dir())


def _check_room(url: str, missing: dict[str, Listing]) -> None:
    """Raise StoreError if the disk of the cache has no room for these objects."""
    home().mkdir(parents=True, exist_ok=True)
    parts = [part for part in missing.values() if not (home() / _key(part)).exists()]
    total = sum(entry.size for part in parts for entry in part.values())
    if total > (free := shutil.disk_usage(home()).free):
        raise StoreError(room(url, total, free, home(), VARIABLE))


def _key(listing: Listing) -> str:
    """The SHA-256 of names, sizes and versions of objects."""
    lines = [json.dumps([name, entry.size, entry.version]) for name, entry in sorted(listing.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _place(url: str) -> Path:
    return home() / "urls" / f"{hashlib.sha256(url.encode()).hexdigest()}.json"


def _record(url: str, listing: Listing) -> None:
    """Write the listing of a URL, unless it is the recorded one or the disk cannot be written to. It is not synced."""
    data, place = json.dumps(asdict(_Recorded(url, listing))).encode(), _place(url)
    with suppress(OSError):
        if not place.exists() or place.read_bytes() != data:
            place.parent.mkdir(parents=True, exist_ok=True)
            scratch = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
            scratch.write_bytes(data)
            scratch.replace(place)


def _recorded(url: str) -> Listing:
    """Read the last listing of a URL."""
    place = _place(url)
    if not place.exists():
        raise StoreError(f"{OFFLINE} is set, and {url} is not in the cache {home()}; unset it once")
    fix = f"unset {OFFLINE} once, or delete the file"
    return schema.read(place, _Recorded, error=StoreError, fix=fix).entries
