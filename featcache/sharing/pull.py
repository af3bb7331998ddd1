"""A shared folder at a URL or in a local folder -> a folder of stores: `featcache pull`.

Each file is compared with SHA256SUMS when it arrives, and written whole below FOLDER/.pull. When all files of an
archive are there, its store is restored and appears in FOLDER in one step. So a pull that was killed continues with the
stores and files that are missing.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from featcache import sums
from featcache.arguments import PathLike
from featcache.errors import StoreError
from featcache.files import claimed, disk_errors, file_sha256, make_folder, remove_folder, write_file
from featcache.progress import Progress, reporting
from featcache.remote.bucket import Entry
from featcache.remote.opening import Objects
from featcache.remote.opening import opened as opened_place
from featcache.remote.urls import on_disk, url_of
from featcache.sharing import CARD, MANIFEST
from featcache.store import archive
from featcache.store.check import damage
from featcache.wording import size, visible

AT_ONCE = 6  #: whole files that are fetched at a time
LARGEST = 1 << 30  #: bytes of a file, which is held in memory; those of stores have at most 64 MiB, or one row
STAGE = ".pull"  #: folder of the archives that are being fetched


@dataclass
class Pulled:
    """The outcome of a pull."""

    folder: Path
    stores: list[Path]  #: all stores of the shared folder
    fetched: int = 0  #: files of archives that were fetched now; the others were there
    bytes: int = 0  #: size of the files that were fetched now


def pull(source: PathLike, folder: PathLike, *, progress: Progress | bool = False) -> Pulled:
    """Fetch the stores of a shared folder, verify them, and write them to a folder of stores.

    The stores equal those that were pushed, byte for byte. Stores that are there and equal are not fetched again.

    source: a URL or folder that `push` has written. folder: folder of all stores to write to; it is made if it does not
    exist. progress: True for a bar, or a callback (files done, all).

    Raises StoreError if `source` cannot be read, is damaged or has not been pushed whole, and if `folder` has a damaged
    store, or another store or manifest, of the same name.
    """
    place, root = opened_place(source), on_disk(folder, "pull to")
    listing = place.listing()
    if not listing:
        raise StoreError(f"{place.url} does not exist or has no files; name a place that `featcache push` has written")
    listed = _listed(place, listing)
    archives, manifests = _archives(place, listed)
    with claimed(root / STAGE):
        wanted = [name for name, files in archives.items() if not _is_there(root / name, files)]
        for name in manifests:
            _check_manifest(root / name, listed[name])
        outcome = Pulled(root, [root / name for name in archives])
        job = _Job(place, listing, listed, outcome)
        names = {name: [f"{name}/{inner}" for inner in (*archives[name], sums.NAME)] for name in wanted}
        total = sum(map(len, names.values()))
        job.check_room(root, [name for inside in names.values() for name in inside])
        with reporting(progress, f"pull {place.url}", "file") as report:
            report(0, total)
            done = 0
            for name, files in names.items():
                job.fetch(root / STAGE, files, partial(_shifted, report, done, total))
                done += len(files)
                archive.unpack(root / STAGE / name, root / name)
                remove_folder(root / STAGE / name)
        for name in manifests:
            job.keep(root / name, name)
            if CARD in listed:
                job.keep(_card_place((root / name).parent, listed[CARD]), CARD)
        _tidy(root / STAGE)
    return outcome


def _shifted(report: Progress, before: int, total: int, count: int) -> None:
    """Report the files of a store as a part of all."""
    report(before + count, total)


def _listed(place: Objects, listing: Mapping[str, Entry]) -> dict[str, str]:
    """Return file -> SHA-256 of SHA256SUMS; StoreError if it is not there, or lists a file that cannot be fetched."""
    if sums.NAME not in listing:
        if MANIFEST in listing:
            above = place.url.rpartition("/")[0] if url_of(place.url) else os.path.dirname(os.path.abspath(place.url))
            raise StoreError(
                f"{place.url} is the folder of one manifest; pull the shared folder that it is in: {above}"
            )
        raise StoreError(
            f"{place.url} has no {sums.NAME}: `featcache push` has not written it, or not to its end; push again"
        )
    _check_size(place, listing, sums.NAME)
    try:
        listed = sums.parse(bytes(place.get(sums.NAME, listing[sums.NAME])))
    except ValueError:
        raise StoreError(f"{place.url}/{sums.NAME} is damaged; push again") from None
    if missing := sorted(listed.keys() - listing.keys()):
        raise StoreError(f"{place.url}/{missing[0]} is missing; push again")
    for name in listed:
        _check_size(place, listing, name)
    return listed


def _check_size(place: Objects, listing: Mapping[str, Entry], name: str) -> None:
    """Raise StoreError if a file is too large to be held in memory."""
    if (count := listing[name].size) > LARGEST:
        raise StoreError(
            f"{place.url}/{name} has {size(count)}, and no file that `featcache push` writes has more than "
            f"{size(LARGEST)}; ask its owner what it is"
        )


def _archives(place: Objects, listed: Mapping[str, str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return store -> file -> SHA-256 of its archive, and the manifests; files of other places are left out."""
    archives, manifests = dict[str, dict[str, str]](), list[str]()
    for name, digest in listed.items():
        manifest, _, rest = name.partition("/")
        store, _, inner = rest.partition("/")
        odd = manifest.startswith(".") or manifest.endswith(".zarr") or {"", ".", ".."} & {*name.split("/")}
        if odd or visible(name) != name:
            raise StoreError(f"{place.url}/{sums.NAME} has {name!r}, which is no name of a file; push again")
        if rest == MANIFEST:
            manifests.append(name)
        elif store.endswith(".zarr") and not store.startswith(".") and inner:
            archives.setdefault(f"{manifest}/{store}", {})[inner] = digest
    if not archives:
        raise StoreError(f"{place.url} has no archives of stores; name a place that `featcache push` has written")
    if lone := {name.partition("/")[0] for name in archives} ^ {name.partition("/")[0] for name in manifests}:
        raise StoreError(f"{place.url}/{sums.NAME} lists {min(lone)!r} without its manifest or its stores; push again")
    for files in archives.values():
        files.pop(sums.NAME, None)
    return archives, manifests


def _is_there(path: Path, files: Mapping[str, str]) -> bool:
    """Return whether a store is there and equal to an archive; StoreError if it is damaged or another one."""
    if not path.exists():
        return False
    if wrong := damage(path):
        raise StoreError(f"{path}: {wrong[0]}. To fetch the store again, remove it when nothing uses it")
    if not archive.is_of(path, files):
        raise StoreError(f"{path} exists and differs from the shared one; remove it, or name another folder")
    return True


def _check_manifest(path: Path, digest: str) -> None:
    """Raise StoreError if another manifest is there."""
    if path.exists() and file_sha256(path) != digest:
        raise StoreError(
            f"{path} exists and differs from the shared one; rename or remove this file to fetch the shared one (the "
            "shared stores in its folder fit both), or name another folder"
        )


def _card_place(folder: Path, digest: str) -> Path:
    """Return the file for the card: README.md, or one with a part of the digest in its name if another one is there."""
    path = folder / CARD
    if not path.exists() or (path.is_file() and file_sha256(path) == digest):
        return path
    return folder / f"{path.stem}-{digest[:8]}{path.suffix}"


@dataclass
class _Job:
    """The source, and what has been fetched."""

    place: Objects
    listing: Mapping[str, Entry]
    listed: Mapping[str, str]
    outcome: Pulled

    def get(self, name: str) -> memoryview:
        """Fetch a file, and compare it with SHA256SUMS."""
        data = self.place.get(name, self.listing[name])
        if hashlib.sha256(data).hexdigest() != self.listed[name]:
            raise StoreError(
                f"{self.place.url}/{name} does not match {sums.NAME}: it is damaged, or a push has not ended; pull "
                "again, and push again if that does not help"
            )
        return data

    def check_room(self, folder: Path, names: list[str]) -> None:
        """Raise StoreError if the disk of a folder has no room for the files that are not there."""
        count = sum(self.listing[name].size for name in names if not (folder / STAGE / name).is_file())
        if count > (free := shutil.disk_usage(folder).free):
            raise StoreError(
                f"{self.place.url} has {size(count)} that are not in {folder} yet, whose disk has {size(free)} free; "
                "make room, or name a folder of another disk"
            )

    def fetch(self, stage: Path, names: list[str], report: Callable[[int], None]) -> None:
        """Fetch the files that are not there, several at a time, the largest first."""
        missing = [name for name in names if not self._has(stage / name, name)]
        missing.sort(key=lambda name: -self.listing[name].size)
        for folder in {(stage / name).parent for name in missing}:
            make_folder(folder)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pull") as pool:
            try:
                for number, size in enumerate(pool.map(lambda name: self._fetch(stage / name, name), missing), 1):
                    self.outcome.fetched += 1
                    self.outcome.bytes += size
                    report(len(names) - len(missing) + number)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def keep(self, path: Path, name: str) -> None:
        """Fetch a manifest or the card, unless it is there."""
        if not self._has(path, name):
            write_file(path, bytes(self.get(name)))

    def _has(self, path: Path, name: str) -> bool:
        return path.is_file() and file_sha256(path) == self.listed[name]

    def _fetch(self, path: Path, name: str) -> int:
        """Write a file in one step; it is not synced, because it is verified again before it is used."""
        data = self.get(name)
        scratch = path.with_name(f".{path.name}.partial")
        with disk_errors(path, scratch):
            scratch.write_bytes(data)
            os.replace(scratch, path)
        return len(data)


def _tidy(stage: Path) -> None:
    """Remove the folders that are left of the archives, unless something is in them."""
    for folder in sorted((path for path in stage.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):
            folder.rmdir()
    with suppress(OSError):
        stage.rmdir()
