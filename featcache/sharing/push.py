"""A folder of stores -> the shared folder at a URL or in a local folder: `featcache push`.

A store is recognised at the destination by the SHA256SUMS of its archive, which is the last file of it. So a push that
was killed continues with the store that it was writing, and of that store with the files that are not there yet.
"""

import datetime
import hashlib
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
from featcache.remote.opening import Objects
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


@dataclass
class _Writing:
    """The destination, and what has been written to it."""

    place: Objects
    listing: Mapping[str, Entry]
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
        self.place.put(name, data)
        with self.lock:
            self.outcome.uploaded += 1
            self.outcome.bytes += len(data)


def push(
    stores: PathLike,
    destination: PathLike,
    *,
    licence: Pairs = (),
    card: Pairs | PathLike = (),
    progress: Progress | bool = False,
) -> Pushed:
    """Share the stores of a folder: write their archives, manifests, a card and checksums to a URL or a folder.

    What is there and equal is not written again. Journals, lock files and records of media files are not pushed.

    stores: folder of all stores, or of those of one manifest. destination: hf://datasets/OWNER/NAME[@REVISION][/PATH],
        s3://..., gs://..., az://... or a folder.
    licence: of the clips, such as CC-BY-NC-4.0; by default that of the dataset card, if that is an identifier of the
        hub. card: file of the dataset card, in Markdown. With several manifests, both are "MANIFEST=VALUE", several of
        these, or {"MANIFEST": "VALUE"}. progress: True for a bar, or a callback
        (stores done, all).

    Raises StoreError without a licence, for stores that are being written, are damaged or name folders of this machine,
    and for a destination that cannot be written or has other stores.

    >>> featcache.push("stores/kitchens", "hf://datasets/me/kitchens-features", licence="MIT")    # doctest: +SKIP
    """
    place = opened_place(destination)
    with content.opened(stores, licence, card) as parts:
        listing = place.begin()
        pushed = [store for part in parts for store in part.stores]
        _check(place, listing, {store.name for store in pushed})
        writing = _Writing(place, listing, Pushed(shown(destination)))
        with reporting(progress, f"push {len(pushed)} stores", "store") as report:
            for done, store in enumerate(pushed):
                report(done, len(pushed))
                _push_store(writing, store)
            report(len(pushed), len(pushed))
        _push_rest(writing, parts, url_of(destination))
    writing.outcome.files = len(writing.digests)
    return writing.outcome


def _check(place: Objects, listing: Mapping[str, Entry], names: set[str]) -> None:
    """Raise StoreError if the destination has stores that are not archives, or that are not pushed now."""
    present = {name.rpartition("/")[0] for name in listing if name.count("/") == 2 and name.endswith(".zarr/zarr.json")}
    for name in sorted(present):
        if f"{name}/{archive.CONTENTS}" not in listing:
            raise StoreError(f"{place.url} has the store {name}, which is not an archive; name another destination")
        if name not in names:
            raise StoreError(
                f"{place.url} has the store {name}, which is not among the pushed ones; push them together, remove it "
                "there, or name another destination"
            )


def _push_store(writing: _Writing, store: Store) -> None:
    """Push the archive of a store, unless it is there whole."""
    prefix = f"{store.name}/"
    there = {name.removeprefix(prefix) for name in writing.listing if name.startswith(prefix)}
    if sums.NAME in there:
        data = bytes(writing.place.get(prefix + sums.NAME, writing.listing[prefix + sums.NAME]))
        listed = _parsed(data)
        if there == {*listed, sums.NAME} and archive.is_of(store.path, listed):
            for name, digest in {**listed, sums.NAME: hashlib.sha256(data).hexdigest()}.items():
                writing.digests[prefix + name] = digest
                writing.sizes[prefix + name] = writing.listing[prefix + name].size
            return

    def put(name: str, data: bytes) -> None:
        writing.put(prefix + name, data)

    with tempfile.TemporaryDirectory() as scratch:
        written = archive.write(store.path, put, Path(scratch), journals=False)
    writing.place.delete(*(prefix + name for name in sorted(there - written.keys())))
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
