"""Writing stores below a URL: they are built in a local work folder, and committed blocks are pushed.

    with working("s3://bucket/stores", "kitchens", ["hog", "hof"], clips) as folder:
        ...                                          # write folder/kitchens/hog.zarr with StoreWriter

What holds, whatever is killed, suspended or cut off, and however many machines write:

- **One writer.** A store is owned (`featcache/remote/owner.py`) before it is listed, and until all threads that push
  have ended. Signs of life do not depend on pushes and fetches. Ownership is confirmed before a block is touched,
  before its `state` is written, before any request if signs of life are missing, and at the end. If it is lost, nothing
  more is pushed, and the command fails.
- **Whole blocks.** A block is pushed when it is committed: its files, and `state` last, which must be new. Readers
  trust only `state`.
- **One manifest.** It is fetched before anything is written. Its clips must be the first of the clips that are
  written, as in a local folder, and it is replaced only if it is still the one that was compared.
- **No row is removed.** The work folder has the journal, so that a killed process loses nothing as long as that folder
  exists. If the store was last written from another work folder, it is fetched again. The local one is then removed if
  all its rows are in the fetched one, and otherwise kept in the folder that a warning names. A machine that is lost
  loses the rows after its last whole block.
- **Failures are temporary.** A push that fails is repeated, with growing pauses. A warning names the first failure, and
  the command fails only if the last push does.

The record of the media files (`provenance.py`) is an object, too. It is pushed after blocks, and has lines for rows of
pushed blocks only. So whatever is killed, a row there never has the line of a file that is newer than that of its
features.
"""

import hashlib
import os
import secrets
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from featcache.arguments import PathLike
from featcache.errors import ArgumentsError, FeatcacheError, StoreError
from featcache.files import claimed, locked, make_folder, remove_folder, sync_folder, write_file
from featcache.manifest import Manifest
from featcache.remote.bucket import Bucket
from featcache.remote.cache import RECORD, Listing, below, fetch, home
from featcache.remote.owner import LostError, Owner
from featcache.remote.urls import beside, is_hub, url_of
from featcache.store import _block, digests
from featcache.store import _format as fmt
from featcache.store.check import damage
from featcache.store.provenance import Record, content, parsed, restore
from featcache.store.reader import FeatureStore, committed, open_unchecked, rows_csv

PAUSE = 1.0  #: seconds between two looks for committed blocks
LONGEST = 60.0  #: seconds between two looks, while pushes fail
AT_ONCE = 4  #: files of a block that are pushed at a time
MANIFEST = "manifest.csv"


@contextmanager
def working(stores: PathLike, manifest: str, names: Sequence[str], clips: Manifest) -> Iterator[Path]:
    """Give the local folder of all stores to write to: `stores` itself, or the work folder of a URL.

    manifest: the folder in it, such as kitchens or kitchens/.shards/0-of-4. names: the stores that will be written.
    clips: their clips. Committed blocks are pushed to a URL by a thread while the block runs, and the rest when it
    ends. StoreError if another process writes one of the stores, if the manifest below the URL has other clips, or if
    the stores cannot be pushed; what is written stays in the work folder.
    """
    url = url_of(stores)
    if not url:
        yield Path(stores)
        return
    if is_hub(url):
        raise ArgumentsError(f"{url} takes whole stores only: extract to a folder, and `featcache push` it there")
    bucket, stopped = Bucket(url), threading.Event()
    root = home() / "work" / hashlib.sha256(url.encode()).hexdigest()[:16] / Path(url).name
    make_folder(root / manifest)
    with ExitStack() as stack:
        places = [f"{manifest}/{name}.zarr" for name in names]
        owned = [stack.enter_context(_owned(bucket, store, root)) for store in places]
        copy = _Manifest(bucket, root, f"{manifest}/{MANIFEST}", clips)
        listing = bucket.listing()  # nobody else changes what is owned
        pushers = list[_Pusher]()
        for store, (owner, newest) in zip(places, owned, strict=True):
            pushers.append(_Pusher(bucket, root / store, store, listing, owner, stopped.is_set))
            pushers[-1].begin(newest)
            owner.agree()
        with _Thread(root, copy, pushers, [owner for owner, _ in owned], stopped) as thread:
            yield root
            thread.finish()


@contextmanager
def _owned(bucket: Bucket, store: str, root: Path) -> Iterator[tuple[Owner, bool]]:
    """Own a store; give its owner, and True if the work folder has the newest rows."""
    with claimed(root.parent / "writers" / store):  # two locks: the writer has its own
        owner = Owner(bucket, store, _token(root))
        newest = owner.take()
        try:
            yield owner, newest
        except BaseException:
            with suppress(StoreError):  # it is taken over later
                owner.release()
            raise
        try:
            owner.release()
        except LostError:
            raise
        except StoreError:
            pass  # all rows have been pushed, and it is taken over later


def _token(root: Path) -> str:
    """The token of a work folder, made when it is first used."""
    place = root / ".token"
    with locked(root / ".token.lock"):  # another process may be making it
        if not place.exists():
            write_file(place, secrets.token_hex(16).encode())
        return place.read_text(encoding="ascii")


class _Thread:
    """The thread that pushes while rows are computed."""

    def __init__(
        self,
        root: Path,
        manifest: "_Manifest",
        pushers: Sequence["_Pusher"],
        owners: Sequence[Owner],
        stopped: threading.Event,
    ) -> None:
        self._root, self._manifest, self._pushers, self._owners = root, manifest, pushers, owners
        self._stopped, self._ended = stopped, threading.Event()
        self._thread = threading.Thread(target=self._run, name="push", daemon=True)

    def __enter__(self) -> "_Thread":
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """End the thread, so that nothing is written after the release of the stores."""
        if kind:
            self._stopped.set()
        self._ended.set()
        try:
            self._thread.join()
        except BaseException:  # interrupted again, while a request lasts
            for owner in self._owners:
                owner.abandon()
            raise

    def finish(self) -> None:
        """Push all that is left; StoreError if it could not be pushed, or if another process became the owner."""
        self._ended.set()
        self._thread.join()
        try:
            self._push(last=True)
            for owner in self._owners:
                owner.confirm()
        except StoreError as error:
            raise StoreError(f"{error}; the rows are kept in {self._root}") from error

    def _run(self) -> None:
        pause, warned = PAUSE, set[bool]()
        while not self._ended.wait(pause):
            try:
                self._push()
                pause = PAUSE
            except (FeatcacheError, OSError) as error:  # extraction continues, and `finish` pushes what is left
                pause = min(2 * pause, LONGEST)
                lost = isinstance(error, LostError)
                if lost not in warned and not self._stopped.is_set():
                    warned.add(lost)
                    rest = f"the rows are kept in {self._root}" if lost else "what is left is pushed later"
                    warnings.warn(f"{error}; extraction continues, and {rest}", stacklevel=1)

    def _push(self, *, last: bool = False) -> None:
        """Push the manifest and all stores; a store that fails does not keep the others."""
        self._manifest.push()
        errors = list[Exception]()
        for owner, pusher in zip(self._owners, self._pushers, strict=True):
            try:
                owner.check()
                pusher.push(last=last)
            except (FeatcacheError, OSError) as error:
                errors.append(error)
        if errors:
            raise errors[0]


class _Manifest:
    """The manifest next to the stores below a URL. It has no owner, because several machines may write the stores."""

    def __init__(self, bucket: Bucket, root: Path, name: str, clips: Manifest) -> None:
        """Fetch it to the work folder; StoreError unless its clips are the first of `clips`."""
        self._bucket, self._name, self._local = bucket, name, root / name
        self._fetched, self._pushed, self._version = root.parent / "fetched" / name, b"", ""
        self._compare(clips)
        if self._version:
            write_file(self._local, self._pushed, shared=True)

    def push(self) -> None:
        """Replace it if the local one has changed; StoreError if another process has written other clips."""
        if not self._local.exists() or (data := _absolute(self._local)) == self._pushed:
            return
        if not (version := self._written(data)):  # another process has replaced it
            self._compare(Manifest.read(self._local))
            if not (version := self._written(data)):
                raise StoreError(f"{self._bucket.url}/{self._name} changes all the time; run the same command again")
        self._pushed, self._version = data, version

    def _written(self, data: bytes) -> str:
        if self._version:
            return self._bucket.swap(self._name, data, self._version)
        return self._bucket.create(self._name, data)

    def _compare(self, clips: Manifest) -> None:
        """Fetch it, and raise StoreError unless its clips are the first of `clips`."""
        try:
            data, version, _ = self._bucket.read(self._name)
        except FileNotFoundError:
            self._pushed, self._version = b"", ""
            return
        write_file(self._fetched, data, shared=True)
        there = Manifest.read(self._fetched)
        if there.clips and not rows_csv(clips).startswith(rows_csv(there)):
            raise StoreError(
                f"{self._bucket.url}/{self._name} has {len(there)} clips, which are not the first of the {len(clips)} "
                f"clips of manifest {clips.name!r}; add new clips only after the old ones, extract to another --stores "
                "URL, or remove this object if there are no stores next to it"
            )
        self._pushed, self._version = data, version


def _absolute(path: Path) -> bytes:
    """The content of a manifest with absolute sources, because relative ones would start in the work folder."""
    manifest = Manifest.read(path)
    clips = [replace(clip, source=os.path.abspath(manifest.path(clip)) if clip.source else "") for clip in manifest]
    return replace(manifest, clips=tuple(clips)).content(manifest.root)


class _Pusher:
    """The copy of one store below a URL, and what is known about it."""

    def __init__(
        self, bucket: Bucket, folder: Path, name: str, listing: Listing, owner: Owner, stopped: Callable[[], bool]
    ) -> None:
        self._bucket, self._folder, self._name = bucket, folder, name
        self._owner, self._stopped = owner, stopped
        self._listing = below(listing, name)
        self._objects, self._record = set(self._listing), beside(name, RECORD)
        self._recorded = dict[int, str]()  #: row -> description, of the record that was pushed
        if self._record in listing:
            self._recorded = parsed(bytes(bucket.get(self._record)), f"{bucket.url}/{self._record}")
        self._sums = self._group = b""  #: contents of SHA256SUMS and zarr.json that were pushed
        self._blocks = dict[int, bytes]()  #: block that was pushed -> its digest

    def begin(self, newest: bool) -> None:
        """Make the local store and the remote one agree. newest: the remote store was last written from this folder."""
        if fmt.SUMS not in self._objects:  # there is no remote store, or making it was interrupted
            self._clear()
            return
        if not newest or not (self._folder / fmt.SUMS).exists():
            self._fetch()
        self._sums, self._group = self._get(fmt.SUMS), self._get("zarr.json")
        if self._group != fmt.read_bytes(self._folder / "zarr.json"):  # it was being made again: `push` replaces it
            return
        layout = open_unchecked(self._folder).layout
        for block in range(layout.blocks):
            names = {kind: str(path) for kind, path in layout.files(block).items()}
            if names["state"] in self._objects and names["digest"] in self._objects:
                self._blocks[block] = self._get(names["digest"])

    def _fetch(self) -> None:
        """Replace the local store by the remote one; it is set aside if it has rows that the remote store lacks."""
        work = self._folder.parents[len(Path(self._name).parts)]
        incoming = work / "fetched" / self._name
        if incoming.exists():
            remove_folder(incoming)
        fetch(self._bucket, self._name, self._listing, incoming, damage)
        if self._folder.exists() and (rows := _unpushed(self._folder, incoming)):
            aside = _free(work / "overtaken" / self._name)
            with suppress(FileNotFoundError):
                os.replace(Record(self._folder).path, Record(aside).path)
            os.replace(self._folder, aside)
            sync_folder(aside.parent)
            warnings.warn(
                f"{self._bucket.url}/{self._name} was written by another machine before this one had pushed all rows; "
                f"its store with {rows} is kept in {aside}, and clips that the URL lacks are extracted again",
                stacklevel=1,
            )
        elif self._folder.exists():
            remove_folder(self._folder)
        os.replace(incoming, self._folder)
        sync_folder(self._folder.parent)
        restore(self._folder, content(self._recorded))

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
            layout, before = open_unchecked(self._folder).layout, dict(self._blocks)
            for block in committed(self._folder, layout) if self._sums else ():
                with suppress(FileNotFoundError):
                    digest = fmt.read_bytes(self._folder / layout.file(block, "digest"))
                    if self._blocks.get(block) == digest:
                        continue
                    if not (wrong := digests.damaged(self._folder, block, layout)):
                        self._push_block(block, layout, digest)
                    elif last:
                        raise StoreError(f"{self._folder}: {wrong}; `featcache repair` makes its clips pending again")
            if last or self._blocks != before:
                self._push_record(layout)

    def _push_record(self, layout: fmt.Layout) -> None:
        """Push the record's lines for the pushed blocks; a block that is being written again keeps its older lines."""
        record = Record(self._folder).files()  # read first: what is appended from now on may be of newer rows
        files = dict[int, str]()
        for block, digest in self._blocks.items():
            journal, path = self._folder / "journal" / f"{block}.log", self._folder / layout.file(block, "digest")
            same = not journal.exists() and path.exists() and fmt.read_bytes(path) == digest
            known = record if same else self._recorded
            files |= {row: known[row] for row in layout.span(block) if row in known}
        if (data := content(files)) != content(self._recorded):
            self._confirm()
            self._bucket.put(self._record, data)
            self._recorded = files

    def _push_fixed(self) -> None:
        fixed = {name: fmt.read_bytes(self._folder / name) for name in (*fmt.FIXED_FILES, fmt.SUMS)}
        if fixed[fmt.SUMS] != digests.fixed_sums(self._folder):
            return
        self._confirm()
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
        self._confirm()
        gone = [name for name in (state, *paths.values()) if name in self._objects and name not in contents]
        self._delete(*([state] if state in self._objects else []), *gone)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="push") as pool:
            list(pool.map(lambda name: self._put(name, contents[name]), sorted(present - {state})))
        self._confirm()
        try:
            new = self._bucket.create(f"{self._name}/{state}", contents[state])
        except StoreError:
            self._objects.add(state)  # it may have been written, and the answer was lost
            raise
        if not new:
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
        if self._recorded:
            self._bucket.delete(self._record)
            self._recorded.clear()

    def _confirm(self) -> None:
        """Raise StoreError unless the service confirms that this process is the owner."""
        self._check()
        self._owner.confirm()

    def _check(self) -> None:
        """Raise StoreError if this process is to stop, or if it has been noticed that it is not the owner any more."""
        if self._stopped():
            raise StoreError(f"{self._bucket.url}/{self._name}: pushing was stopped")
        self._owner.check()

    def _get(self, name: str) -> bytes:
        return bytes(self._bucket.get(f"{self._name}/{name}"))

    def _put(self, name: str, data: bytes) -> None:
        self._check()
        self._bucket.put(f"{self._name}/{name}", data)
        self._objects.add(name)

    def _delete(self, *names: str) -> None:
        for name in names:
            self._check()
            self._bucket.delete(f"{self._name}/{name}")
        self._objects.difference_update(names)


def _free(path: Path) -> Path:
    """The first of NAME.1.zarr, NAME.2.zarr, ... that does not exist, in a folder that is made."""
    make_folder(path.parent)
    number = 1
    while (place := path.with_name(f"{path.stem}.{number}.zarr")).exists():
        number += 1
    return place


def _unpushed(local: Path, fetched: Path) -> str:
    """Name the rows of a local store, also those in its journals, that a fetched one lacks, or has otherwise; or ""."""
    try:
        ours, theirs = FeatureStore.open(local), FeatureStore.open(fetched)
        row_of = {clip_id: row for row, clip_id in enumerate(theirs.clip_ids)}
        there = [row_of.get(clip_id, -1) for clip_id in ours.clip_ids]
        same_recipe = fmt.read_bytes(local / "zarr.json") == fmt.read_bytes(fetched / "zarr.json")
        count = 0
        for block in range(ours.layout.blocks):
            states, entries = _block.recorded(local, block, ours.layout)
            span = ours.layout.span(block)
            done = {row for row, state in zip(span, states, strict=True) if state == fmt.DONE}
            journalled = {row for row, (state, _) in entries.items() if state == fmt.DONE}
            known = {row for row in done | journalled if there[row] >= 0 and theirs.state[there[row]] == fmt.DONE}
            known -= done & journalled  # written again, and not committed
            compared = sorted(known & done)
            if not same_recipe:
                known.clear()
            elif not np.array_equal(ours.read(compared), theirs.read([there[row] for row in compared])):
                known -= done  # some were written again
            count += len((done | journalled) - known)
    except StoreError:
        return "rows that cannot be read"
    return f"{count} such rows" if count else ""
