"""A folder of stores -> the shared folder at a URL or in a local folder: `featcache push`.

A store is recognised at the destination by the SHA256SUMS of its archive, which is its last file. Before a file
changes, the checksums that list it are deleted. So a push that was killed leaves none that are wrong: the next one
continues with the store that was being written, and writes only the files of it that are not there or differ.
"""

import datetime
import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from featcache import sums
from featcache.arguments import Pairs, PathLike
from featcache.errors import StoreError
from featcache.progress import Progress, reporting
from featcache.remote.bucket import Entry
from featcache.remote.hub import Hub
from featcache.remote.opening import Objects, sha256
from featcache.remote.opening import opened as opened_place
from featcache.remote.urls import shown, url_of
from featcache.sharing import CARD, CROISSANT, MANIFEST, card, content, croissant
from featcache.sharing.content import Part, Store
from featcache.store import archive


@dataclass
class Pushed:
    """The outcome of a push."""

    place: str  #: the URL or folder
    files: int = 0  #: files of the shared folder
    uploaded: int = 0  #: files that were written now; the others were there
    bytes: int = 0  #: size of the files that were written now
    private: str = ""  #: page where the owner can make the dataset public; "" if it is public, or not on the hub


@dataclass
class _Writing:
    """The destination, and what has been written to it."""

    place: Objects
    listing: dict[str, Entry]
    outcome: Pushed
    digests: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def put(self, name: str, data: bytes) -> None:
        """Write a file, unless it is there; threads may call this."""
        with self.lock:
            self.digests[name] = hashlib.sha256(data).hexdigest()
            self.sizes[name] = len(data)
        entry = self.listing.get(name)
        if entry and self.place.holds(name, entry, data):
            return
        self._unseal(name)
        self.place.put(name, data)
        with self.lock:
            self.outcome.uploaded += 1
            self.outcome.bytes += len(data)

    def _unseal(self, name: str) -> None:
        """Delete the checksums that list a file, because it is about to change."""
        store, inside, _ = name.partition(".zarr/")
        with self.lock:
            for stale in (f"{store}{inside}{sums.NAME}", sums.NAME):
                if stale != name and stale in self.listing:
                    del self.listing[stale]
                    self.place.delete(stale)


def push(
    stores: PathLike,
    destination: PathLike,
    *,
    licence: Pairs = (),
    card: Pairs | PathLike = (),
    progress: Progress | bool = False,
) -> Pushed:
    """Share the stores of a folder: write their archives, manifests, a card and checksums to a URL or a folder.

    What is there and equal is not written again. Journals, lock files and records of media files are not pushed. A
    dataset of the hub that does not exist is made, and is private.

    stores: folder of all stores, or of those of one manifest. destination: hf://datasets/OWNER/NAME[@REVISION][/PATH],
        s3://..., gs://..., az://... or a folder.
    licence: of the clips, such as CC-BY-NC-4.0; by default that of the dataset card, if that is an identifier of the
        hub. card: file of the dataset card, in Markdown. With several manifests, both are "MANIFEST=VALUE", several of
        these, or {"MANIFEST": "VALUE"}. progress: True for a bar, or a callback
        (stores done, all).

    Raises StoreError without a licence, for stores that are being written, are damaged or name folders of this machine,
    and for a destination that cannot be written, or has other stores or files that no push has written.

    >>> featcache.push("stores/kitchens", "hf://datasets/me/kitchens-features", licence="MIT")    # doctest: +SKIP
    """
    place = opened_place(destination)
    with content.opened(stores, licence, card) as parts:
        listing = place.begin()
        pushed = [store for part in parts for store in part.stores]
        _check_stores(place, listing, {store.name for store in pushed})
        _check_files(place, listing, {f"{part.manifest.name}/{MANIFEST}" for part in parts})
        writing = _Writing(place, listing, Pushed(shown(destination)))
        recorded = _recorded(place, listing)
        with reporting(progress, f"push {len(pushed)} stores", "store") as report:
            for done, store in enumerate(pushed):
                report(done, len(pushed))
                _push_store(writing, store, recorded)
            report(len(pushed), len(pushed))
        _push_rest(writing, parts, url_of(destination))
    writing.outcome.files = len(writing.digests)
    writing.outcome.private = place.private if isinstance(place, Hub) else ""
    return writing.outcome


def _check_stores(place: Objects, listing: Mapping[str, Entry], names: set[str]) -> None:
    """Raise StoreError if the destination has stores that are not archives, or that are not pushed now."""
    present = {name.rpartition("/")[0] for name in listing if name.endswith(".zarr/zarr.json")}
    if above := sorted(name for name in present if "/" not in name):
        raise StoreError(
            f"{place.url} has the store {above[0]}, so it is the folder of one manifest; name a folder for the stores "
            "of all manifests"
        )
    present = {name for name in present if name.count("/") == 1}
    present |= {name for name in names if any(other.startswith(f"{name}/") for other in listing)}
    for name in sorted(present):
        if f"{name}/{archive.CONTENTS}" not in listing:
            raise StoreError(f"{place.url} has the store {name}, which is not an archive; name another destination")
        if name not in names:
            raise StoreError(
                f"{place.url} has the store {name}, which is not among the pushed ones; push them together, remove it "
                "there, or name another destination"
            )


def _check_files(place: Objects, listing: Mapping[str, Entry], manifests: set[str]) -> None:
    """Raise StoreError if a manifest, card or list at the destination would be replaced that no push has written."""

    def content(name: str) -> bytes:
        return bytes(place.get(name, listing[name])) if name in listing else b""

    listed = _parsed(content(sums.NAME))
    ours = (CROISSANT in listed and any(map(_is_contents, listed))) or b'"featcache"' in content(CROISSANT)
    shared = {name.partition("/")[0] for name in listing if _is_contents(name)}
    for name in sorted({CARD, CROISSANT, sums.NAME, *manifests} & listing.keys()):
        if name in manifests:
            pushed = name.partition("/")[0] in shared or (ours and name in listed)
        elif name == CARD:  # the hub keeps every version of a file
            pushed = ours or isinstance(place, Hub) or b"\n- featcache\n" in content(name)
        else:
            pushed = ours
        if not pushed:
            raise StoreError(
                f"{place.url} has {name}, which `featcache push` has not written and would replace; name an empty "
                "folder or path, or remove that file"
            )


def _is_contents(name: str) -> bool:
    """Return whether a file is the list of contents of an archive in the folder of a manifest."""
    return name.count("/") == 2 and name.endswith(f".zarr/{archive.CONTENTS}")


def _recorded(place: Objects, listing: Mapping[str, Entry]) -> dict[str, tuple[str, str]]:
    """Return file -> SHA-256 and size as the last push recorded them in croissant.json; {} if it is not readable."""
    if CROISSANT not in listing:
        return {}
    try:
        described = json.loads(bytes(place.get(CROISSANT, listing[CROISSANT])))["distribution"]
        return {file["@id"]: (file["sha256"], file["contentSize"]) for file in described}
    except (LookupError, TypeError, ValueError):
        return {}


def _differs(place: Objects, name: str, entry: Entry, digest: str, recorded: Mapping[str, tuple[str, str]]) -> bool:
    """Return whether a file surely has another SHA-256 than this one, which needs no transfer.

    Where the place shows no digests, such as S3, the size is compared with that of the last push.
    """
    if known := sha256(place, name, entry):
        return known != digest
    then, size = recorded.get(name, ("", ""))
    return then == digest and size != f"{entry.size} B"


def _push_store(writing: _Writing, store: Store, recorded: Mapping[str, tuple[str, str]]) -> None:
    """Push the archive of a store, unless it is there whole. recorded: as of `_recorded`."""
    prefix = f"{store.name}/"
    there = {name.removeprefix(prefix): entry for name, entry in writing.listing.items() if name.startswith(prefix)}
    if sums.NAME in there:
        data = bytes(writing.place.get(prefix + sums.NAME, writing.listing[prefix + sums.NAME]))
        listed = _parsed(data)
        if (
            there.keys() == {*listed, sums.NAME}
            and archive.is_of(store.path, listed)
            and not any(_differs(writing.place, prefix + n, there[n], listed[n], recorded) for n in listed)
        ):
            for name, digest in {**listed, sums.NAME: hashlib.sha256(data).hexdigest()}.items():
                writing.digests[prefix + name] = digest
                writing.sizes[prefix + name] = writing.listing[prefix + name].size
            return

    def put(name: str, data: bytes) -> None:
        writing.put(prefix + name, data)

    with tempfile.TemporaryDirectory() as scratch:
        written = archive.write(store.path, put, Path(scratch), journals=False)
    writing.place.delete(*(prefix + name for name in sorted(there.keys() - written.keys())))
    writing.place.commit(f"Features {store.name.removesuffix('.zarr')}")


def _push_rest(writing: _Writing, parts: list[Part], url: str) -> None:
    """Push manifests, card and descriptions, and SHA256SUMS last."""
    for part in parts:
        writing.put(f"{part.manifest.name}/{MANIFEST}", part.content)
    writing.put(CARD, card.readme(parts, url))
    digests = dict(sorted(writing.digests.items()))
    dates = [datetime.date.today().isoformat()]
    if entry := writing.listing.get(CROISSANT):  # the date stays as long as the content does
        dates.insert(0, croissant.published(bytes(writing.place.get(CROISSANT, entry))))
    made = [croissant.description(parts, url, digests, writing.sizes, date) for date in dates]
    same = [data for data in made[:-1] if writing.place.holds(CROISSANT, writing.listing[CROISSANT], data)]
    writing.put(CROISSANT, (same or made)[-1])
    writing.put(sums.NAME, sums.text(dict(sorted(writing.digests.items()))))
    writing.place.commit("Card and checksums of the features")


def _parsed(data: bytes) -> dict[str, str]:
    """Return the digests in SHA256SUMS; {} if it is damaged, so that the archive is written again."""
    try:
        return sums.parse(data)
    except ValueError:
        return {}
