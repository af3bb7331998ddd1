"""Stores below a URL -> the same files in a local folder, fetched once.

    ~/.cache/featcache/stores/          or the folder that FEATCACHE_STORES names
      SHA256/                 a store or a manifest, whole; named by the SHA-256 of the names, sizes and versions of its
                              objects, so an object that changes leads to another folder. Its time is that of its
                              last use
      .SHA256.files           the record of the media files of a store, as the object .NAME.zarr.files next to it has it
      SHA256.record           the version of that object
      SHA256.boot             the boots of machines in which the folder was verified, a line each; files of the cache
                              are not synced, so they are verified again after a boot, and fetched again if damaged
      views/SHA256/NAME/      the folder that commands read: links to the folders above, as they are below the URL
      urls/SHA256.json        the last listing of a URL, for FEATCACHE_OFFLINE

One listing is one request for 1,000 objects. It is enough to know whether everything is here. What is not here is
fetched as whole objects, several at a time, into a scratch folder that is renamed when all of it is verified.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import google_crc32c
import numpy as np

from featcache import schema, sums
from featcache.errors import StoreError
from featcache.files import FULL, locked, making_folder, remove_abandoned, remove_folder, write_file
from featcache.remote.bucket import OFFLINE, Entry, folders_of, no_room
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
FEATURES = "features/c/"  #: objects of a store that need not be there to describe it
SCRATCH = re.compile(r"\.([0-9a-f]{64})\..*partial")  #: what a fetch that was killed has left
BOOTS = 100  #: machines, or boots of one machine, that are remembered
LOCKED = (errno.EACCES, errno.EPERM, errno.EROFS)  #: errors of a folder that cannot be written to

Listing = dict[str, Entry]
Checksums = Mapping[str, int]  #: file -> its crc32c
#: the folder of a fetched store, and checksums of files that need not be read -> the damage to its files, as text
Verify = Callable[[Path, Checksums], list[str]]
Keep = Callable[[Path, bytes], None]  #: keeps the content of a record with the folder of a fetched store


_verified: set[tuple[Path, str]] = set()  #: folder and boot, of folders that this process has verified


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


def fetched(
    url: str,
    verify: Verify,
    wanted: Collection[str] | None = None,
    keep: Keep | None = None,
    *,
    features: bool = True,
) -> Path:
    """Return a local folder with the stores and manifests below a URL, as they are now.

    wanted: the stores and manifests that are needed, such as {"kitchens/hog.zarr", "kitchens/manifest.csv"}; the others
    are not fetched. None: all of them. keep: receives the records of the stores; None: they are not fetched. features:
    False for a folder in which the stores lack their features, which are most of the bytes.
    With FEATCACHE_OFFLINE, no request is made, and the last listing counts. StoreError if there are no stores, if an
    object cannot be read, changes while it is read or is damaged, or if the disk of the cache is full.
    """
    offline = os.environ.get(OFFLINE, "") not in ("", "0")
    bucket = None if offline else opened(url)
    listing = bucket.listing() if bucket else _recorded(url)
    parts = _parts(listing)
    if not features:
        parts = {name: _without_features(part) for name, part in parts.items()}
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
        if not _leads(view / name, _target(name, part)) or not _verified_now(home() / _key(part))
    }
    with _writable(url):
        if missing and bucket:
            _check_room(url, missing)
            _remove_scratch()
        for name, part in missing.items():
            _link(view / name, _part(bucket, url, name, part, verify))
        for name, part in chosen.items():
            if bucket and keep and (record := listing.get(beside(name, RECORD))):
                _keep_record(bucket, beside(name, RECORD), record, home() / _key(part), keep)
    for part in chosen.values():
        with suppress(OSError):  # the folder of another user
            os.utime(home() / _key(part))
    if bucket:
        _record(url, listing)
    is_copy(view, url)
    return view


def below(listing: Listing, name: str) -> Listing:
    """The objects of a store in a listing, by their names in the store, without its journals."""
    start = f"{name}/" if name else ""
    inner = {key.removeprefix(start): entry for key, entry in listing.items() if key.startswith(start)}
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


def _without_features(part: Listing) -> Listing:
    return {name: entry for name, entry in part.items() if not name.startswith(FEATURES)}


def _target(name: str, part: Listing) -> Path:
    """The path of a store or manifest in the cache."""
    return home() / _key(part) / (Path(name).name if name.endswith(".csv") else "")


def _part(bucket: Objects | None, url: str, name: str, part: Listing, verify: Verify) -> Path:
    """Return the path of a store or manifest in the cache; fetch it if it is not there. bucket: None when offline."""
    folder, verify = home() / _key(part), _readable if name.endswith(".csv") else verify
    if _is_whole(folder, verify):  # without a lock: the cache may be read-only
        return _target(name, part)
    with locked(folder.with_name(f"{folder.name}.lock")):  # another process may be fetching it
        if not _is_whole(folder, verify):
            if folder.exists():
                remove_folder(folder)
            if bucket is None:
                raise StoreError(f"{OFFLINE} is set, and {name or url} of {url} is not in the cache; unset it once")
            try:
                fetch(bucket, name, part, folder, verify, durable=False)
                _mark(folder)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                total, free = sum(entry.size for entry in part.values()), shutil.disk_usage(home()).free
                raise StoreError(no_room(f"{bucket.url}/{name}", total, free, home(), VARIABLE)) from error
    return _target(name, part)


def _keep_record(bucket: Objects, name: str, entry: Entry, folder: Path, keep: Keep) -> None:
    """Fetch the record of a store in the cache if it has changed."""
    mark = folder.with_name(f"{folder.name}.record")

    def kept() -> bool:
        return mark.exists() and mark.read_text(encoding="utf-8") == entry.version

    if kept():
        return
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not kept():
            keep(folder, bytes(bucket.get(name, entry)))
            write_file(mark, entry.version.encode(), shared=True)


def _readable(folder: Path, _: Checksums) -> list[str]:
    """The damage to a folder with a manifest: a file that a power cut has left empty."""
    return [f"{path.name} is empty" for path in folder.iterdir() if not path.stat().st_size]


def _is_whole(folder: Path, verify: Verify) -> bool:
    """Return whether a folder of the cache is there; after a boot, also whether it is undamaged."""
    if not folder.exists():
        return False
    if _verified_now(folder):
        return True
    try:
        damaged = bool(verify(folder, {}))
    except StoreError:
        damaged = True
    if not damaged:
        _mark(folder)
    return not damaged


def _verified_now(folder: Path) -> bool:
    """Return whether a folder was verified in this boot of the machine."""
    try:
        boot = BOOT.read_text(encoding="ascii").strip()
    except OSError:  # the system has no number of the boot
        return False
    return (folder, boot) in _verified or boot in _boots(folder)


def _boots(folder: Path) -> list[str]:
    """The boots in which a folder was verified, the latest last: machines may share the cache."""
    try:
        return folder.with_name(f"{folder.name}.boot").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _mark(folder: Path) -> None:
    """Record that a folder was verified in this boot; only in this process if the cache is read-only."""
    with suppress(OSError):
        boot, boots = BOOT.read_text(encoding="ascii").strip(), _boots(folder)
        _verified.add((folder, boot))
        if boot not in boots:
            text = "".join(f"{each}\n" for each in [*boots, boot][-BOOTS:])
            folder.with_name(f"{folder.name}.boot").write_text(text, encoding="ascii")


def _remove_scratch() -> None:
    """Remove what fetches that were killed have left, whatever they fetched."""
    for left in home().iterdir():
        if found := SCRATCH.fullmatch(left.name):
            remove_abandoned(home() / found[1])


@contextmanager
def _writable(url: str) -> Iterator[None]:
    """Name the variable of the cache if its folder cannot be written to."""
    try:
        yield
    except OSError as error:
        if error.errno not in LOCKED:
            raise
        raise StoreError(
            f"{url} cannot be fetched into the cache: {error.strerror}: {error.filename or home()}; set {VARIABLE} to "
            "a folder that can be written to"
        ) from error


def fetch(bucket: Objects, name: str, part: Listing, folder: Path, verify: Verify, *, durable: bool = True) -> None:
    """Fetch all objects of a store or manifest, verify them, and rename their folder. durable: sync them before."""
    prefix = f"{name}/" if name and not name.endswith(".csv") else name.removesuffix(Path(name).name)
    if both := sorted(folders_of(part) & {*part}):
        raise StoreError(f"{bucket.url}/{prefix}{both[0]} is an object, and others are below it; remove that object")

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
        _check(bucket, name, part, scratch, partial(verify, scratch, checksums))


def _check(bucket: Objects, name: str, part: Listing, scratch: Path, verify: Callable[[], list[str]]) -> None:
    """Raise StoreError if what was fetched is damaged. It may also be older and newer objects of a store."""
    try:
        damage = verify()
    except StoreError as error:
        damage = [str(error)]
    if not damage:
        return
    url = f"{bucket.url}/{name}".rstrip("/")
    now = bucket.listing()
    present = {Path(name).name: now[name]} if name in now else below(now, name)
    if any(present.get(key) != entry for key, entry in part.items()) or {*_without_features(present)} - {*part}:
        raise StoreError(f"{url} is being written; run the same command again")
    raise StoreError(f"{url} is damaged: {damage[0].replace(str(scratch), url)}")


def _link(place: Path, target: Path) -> None:
    """Make a link, or leave one that another process has just made; one that leads elsewhere is replaced."""
    if _leads(place, target):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    scratch.symlink_to(os.path.relpath(target, place.parent), target_is_directory=target.is_dir())
    scratch.replace(place)


def _leads(place: Path, target: Path) -> bool:
    """Return whether a link leads to a path that exists."""
    try:
        return os.readlink(place) == os.path.relpath(target, place.parent) and target.exists()
    except OSError:
        return False


def _check_room(url: str, missing: dict[str, Listing]) -> None:
    """Raise StoreError if the disk of the cache has no room for these objects."""
    home().mkdir(parents=True, exist_ok=True)
    parts = [part for part in missing.values() if not (home() / _key(part)).exists()]
    total = sum(entry.size for part in parts for entry in part.values())
    if total > (free := shutil.disk_usage(home()).free):
        raise StoreError(no_room(url, total, free, home(), VARIABLE))


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
