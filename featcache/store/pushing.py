"""Writing stores below a URL: they are built in a local work folder, and committed blocks are pushed.

    with working("s3://bucket/stores", "kitchens", ["hog", "hof"]) as folder:
        ...                                          # write folder/kitchens/hog.zarr with StoreWriter, as ever

The work folder has the journal, so that a killed process loses nothing as long as that folder exists. A block is pushed
when it is committed: its files, and `state` last, which must be new. So readers see whole blocks only, and a machine
that is lost loses the rows after its last whole block. Whole stores are pushed when the block ends.

If the store was last written from another work folder, such as that of a lost machine, the local store is fetched again
before anything is written; see `featcache/remote/owner.py`.
"""

import hashlib
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from featcache.arguments import PathLike
from featcache.errors import FeatcacheError, StoreError
from featcache.files import claimed, make_folder, remove_folder, write_file
from featcache.manifest import Manifest
from featcache.remote.bucket import Bucket
from featcache.remote.cache import Listing, below, fetch, home
from featcache.remote.owner import Owner
from featcache.remote.urls import url_of
from featcache.store import _format as fmt
from featcache.store import digests
from featcache.store.check import damage
from featcache.store.reader import committed, open_unchecked

PAUSE = 1.0  #: seconds between two looks for committed blocks
AT_ONCE = 4  #: files of a block that are pushed at a time
MANIFEST = "manifest.csv"


@contextmanager
def working(stores: PathLike, manifest: str, names: Sequence[str]) -> Iterator[Path]:
    """Give the local folder of all stores to write to: `stores` itself, or the work folder of a URL.

    names: the stores of the manifest that will be written. Of a URL, their committed blocks are pushed by a thread
    while the block runs, and the rest when it ends. StoreError if another process writes one of them, or if they cannot
    be pushed; what is written stays in the work folder.
    """
    url = url_of(stores)
    if not url:
        yield Path(stores)
        return
    bucket = Bucket(url)
    listing = bucket.listing()
    root = home() / "work" / hashlib.sha256(url.encode()).hexdigest()[:16] / Path(url).name
    make_folder(root / manifest)
    with ExitStack() as stack:
        pushers, owners = list[_Pusher](), list[Owner]()
        for name in names:
            store = f"{manifest}/{name}.zarr"
            stack.enter_context(claimed(root.parent / "writers" / store))  # two locks: the writer has its own
            owners.append(owner := Owner(bucket, store, _token(root)))
            newest = owner.take()
            stack.callback(_released, owner)
            pushers.append(_Pusher(bucket, root / store, store, below(listing, store)))
            pushers[-1].begin(newest)
            if not newest and f"{manifest}/{MANIFEST}" in listing:
                write_file(root / manifest / MANIFEST, bytes(bucket.get(f"{manifest}/{MANIFEST}")))
        with _Thread(bucket, root, manifest, pushers, owners) as thread:
            yield root
            thread.finish()


def _token(root: Path) -> str:
    """The token of a work folder, made when it is first used."""
    place = root / ".token"
    if not place.exists():
        write_file(place, secrets.token_hex(16).encode())
    return place.read_text(encoding="ascii")


def _released(owner: Owner) -> None:
    with suppress(StoreError):  # it is taken over later
        owner.release()


class _Thread:
    """The thread that pushes while rows are computed, and shows signs of life."""

    def __init__(
        self, bucket: Bucket, root: Path, manifest: str, pushers: Sequence["_Pusher"], owners: Sequence[Owner]
    ) -> None:
        self._bucket, self._pushers, self._owners = bucket, pushers, owners
        self._manifest, self._manifest_name, self._manifest_pushed = root / manifest / MANIFEST, manifest, b""
        self._root, self._ended, self._error = root, threading.Event(), list[FeatcacheError | OSError]()
        self._thread = threading.Thread(target=self._run, name="push", daemon=True)

    def __enter__(self) -> "_Thread":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def finish(self) -> None:
        """Push all that is left; StoreError if it, or something before, could not be pushed."""
        self._ended.set()
        self._thread.join()
        try:
            if self._error:
                raise self._error[0]
            self._push(last=True)
        except StoreError as error:
            raise StoreError(f"{error}; the rows are kept in {self._root}") from error

    def _run(self) -> None:
        try:
            while not self._ended.wait(PAUSE):
                self._push()
        except (FeatcacheError, OSError) as error:  # extraction continues, and `finish` raises it
            self._error.append(error)

    def _push(self, *, last: bool = False) -> None:
        for owner in self._owners:
            owner.refresh()
        if self._manifest.exists() and (data := self._manifest.read_bytes()) != self._manifest_pushed:
            self._bucket.put(f"{self._manifest_name}/{MANIFEST}", _absolute(self._manifest))
            self._manifest_pushed = data
        for pusher in self._pushers:
            pusher.push(last=last)


def _absolute(path: Path) -> bytes:
    """The content of a manifest with absolute sources, because relative ones would start in the work folder."""
    manifest = Manifest.read(path)
    clips = [replace(clip, source=os.path.abspath(manifest.path(clip)) if clip.source else "") for clip in manifest]
    return replace(manifest, clips=tuple(clips)).content(manifest.root)


class _Pusher:
    """The copy of one store below a URL, and what is known about it."""

    def __init__(self, bucket: Bucket, folder: Path, name: str, listing: Listing) -> None:
        self._bucket, self._folder, self._name = bucket, folder, name
        self._listing = listing
        self._objects = set(listing)
        self._sums = self._group = b""  #: contents of SHA256SUMS and zarr.json that were pushed
        self._blocks = dict[int, bytes]()  #: block that was pushed -> its digest

    def begin(self, newest: bool) -> None:
        """Make the local store and the remote one agree. newest: the remote store was last written from this folder."""
        if fmt.SUMS not in self._objects:  # there is no remote store, or making it was interrupted
            self._clear()
            return
        if not newest or not (self._folder / fmt.SUMS).exists():
            if self._folder.exists():
                remove_folder(self._folder)
            fetch(self._bucket, self._name, self._listing, self._folder, damage)
        self._sums, self._group = self._get(fmt.SUMS), self._get("zarr.json")
        if self._group != fmt.read_bytes(self._folder / "zarr.json"):  # it was being made again: `push` replaces it
            return
        layout = open_unchecked(self._folder).layout
        for block in range(layout.blocks):
            names = {kind: str(path) for kind, path in layout.files(block).items()}
            if names["state"] in self._objects and names["digest"] in self._objects:
                self._blocks[block] = self._get(names["digest"])

    def push(self, *, last: bool = False) -> None:
        """Push the files that never change if they have changed, then the committed blocks that are new.

        What is being written at this moment is left to the next call. last: True if nothing is being written, so that a
        damaged block is an error.
        """
        with suppress(FileNotFoundError):
            if (self._folder / fmt.EXTENSION).exists():
                return
            if fmt.read_bytes(self._folder / fmt.SUMS) != self._sums:
                self._push_fixed()
            layout = open_unchecked(self._folder).layout
            for block in committed(self._folder, layout) if self._sums else ():
                with suppress(FileNotFoundError):
                    digest = fmt.read_bytes(self._folder / layout.file(block, "digest"))
                    if self._blocks.get(block) == digest:
                        continue
                    if not (wrong := digests.damaged(self._folder, block, layout)):
                        self._push_block(block, layout, digest)
                    elif last:
                        raise StoreError(f"{self._folder}: {wrong}; `featcache repair` makes its clips pending again")

    def _push_fixed(self) -> None:
        fixed = {name: fmt.read_bytes(self._folder / name) for name in (*fmt.FIXED_FILES, fmt.SUMS)}
        if fixed[fmt.SUMS] != digests.fixed_sums(self._folder):
            return
        if self._group not in (b"", fixed["zarr.json"]):  # made again, by another recipe
            self._clear()
        for name, data in fixed.items():  # the list of their digests comes last
            self._put(name, data)
        self._sums, self._group = fixed[fmt.SUMS], fixed["zarr.json"]

    def _push_block(self, block: int, layout: fmt.Layout, digest: bytes) -> None:
        paths = {kind: str(path) for kind, path in layout.files(block).items()}
        present = {name for name in paths.values() if (self._folder / name).exists()}
        contents = {name: fmt.read_bytes(self._folder / name) for name in present}
        if contents.get(paths["digest"]) != digest or paths["state"] not in contents:
            return  # it has just been written again
        state = paths["state"]
        gone = [name for name in (state, *paths.values()) if name in self._objects and name not in contents]
        self._delete(*([state] if state in self._objects else []), *gone)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="push") as pool:
            list(pool.map(lambda name: self._put(name, contents[name]), sorted(present - {state})))
        if not self._bucket.create(f"{self._name}/{state}", contents[state]):
            raise StoreError(
                f"{self._bucket.url}/{self._name}: block {block} was written by another process at the same time; stop "
                "one of the two, and run the same command again"
            )
        self._objects.add(state)
        self._blocks[block] = digest

    def _clear(self) -> None:
        """Delete all objects of the store, `state` first, so that no reader takes what is left for whole blocks."""
        self._delete(*sorted(self._objects, key=lambda name: (not name.startswith("state/c/"), name)))
        self._blocks.clear()

    def _get(self, name: str) -> bytes:
        return bytes(self._bucket.get(f"{self._name}/{name}"))

    def _put(self, name: str, data: bytes) -> None:
        self._bucket.put(f"{self._name}/{name}", data)
        self._objects.add(name)

    def _delete(self, *names: str) -> None:
        self._bucket.delete(*(f"{self._name}/{name}" for name in names))
        self._objects.difference_update(names)
