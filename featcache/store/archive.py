"""Archives: finished stores for shipping and for object storage, about 0.6 of the size when features are half zeros.

    pack(store, archive)        and        unpack(archive or URL, store)

An archive is a zarr v3 group, too. It has the same attributes, arrays and files as the store (see _format.py), except:

    zarr.json       has consolidated metadata, so that one request opens the whole group
    features/       has the same shards, in chunks of 16 rows that are compressed with zstd
    SHA256SUMS      has the digests of all files of the archive
    archive.json    has all that `unpack` needs to restore every byte: the store's zarr.json files and SHA256SUMS, and
                    the names of the packed files

`digest` is the store's, so each block is checked against it before it becomes part of a store again.
"""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from featcache import sums
from featcache.errors import StoreError
from featcache.files import file_sha256, make_folder, making_folder, remove_abandoned
from featcache.progress import Progress, reporting, silent
from featcache.remote.opening import opened as opened_place
from featcache.remote.urls import SCHEMES, scheme_of, url_of
from featcache.store import _compressed, _lease, digests
from featcache.store import _format as fmt
from featcache.store._packed import CONTENTS, METADATA, Archive, each, shown
from featcache.store.reader import FeatureStore

Put = Callable[[str, bytes], None]  #: writes a file of an archive


def pack(store: str | Path, out: str | Path, progress: Progress | bool = False) -> int:
    """Write a store as an archive to `out`, whole or not at all, and return its bytes.

    store: its path; it may be incomplete, and its journals are packed, too. out: folder to make, or a URL such as
    s3://bucket/hog.zarr. progress: True for a bar, or a callback (blocks done, all).
    StoreError when the store is damaged or being written, or `out` exists.
    """
    if url := url_of(store):
        raise StoreError(f"{url} is a URL, and `pack` reads a local store; name the folder of a store")
    path = Path(store)
    with undisturbed(path), _written(out) as (scratch, put):
        if FeatureStore.open(path).archived:
            raise StoreError(f"{path} is already an archive; copy it as it is")
        sizes = list[int]()

        def add(name: str, data: bytes) -> None:
            put(name, data)
            sizes.append(len(data))

        with reporting(progress, f"pack {path.name}", "block") as report:
            write(path, add, scratch, journals=True, progress=report)
    return sum(sizes)


def write(store: Path, put: Put, scratch: Path, *, journals: bool, progress: Progress = silent) -> dict[str, str]:
    """Write the archive of a store by calls of `put`, in several threads, and return file -> SHA-256 of it.

    An archive is copied as it is. scratch: an empty folder. journals: pack the journals of open blocks, too. StoreError
    when the store is damaged.
    """
    listed, opened = dict[str, str](), FeatureStore.open(store)

    def add(name: str, data: bytes) -> None:
        put(name, data)
        listed[name] = hashlib.sha256(data).hexdigest()

    if opened.archived:
        archive = Archive(store)
        add(CONTENTS, archive.read(CONTENTS))  # the first file here, too
        names = sorted(archive.listed.keys() - {CONTENTS})
        each(lambda number: add(names[number], archive.read(names[number])), range(len(names)), progress)
        add(fmt.SUMS, fmt.read_bytes(store / fmt.SUMS))
        return listed
    layout, contents = opened.layout, _contents(store, opened, journals=journals)
    packed = set(contents["files"])

    def add_block(block: int) -> None:
        paths = layout.files(block)
        files = {kind: fmt.read_bytes(store / name) if str(name) in packed else b"" for kind, name in paths.items()}
        _verify(store, store, block, files, layout)
        files["features"] = _compressed.encode(files["features"], block, layout)
        for kind, name in paths.items():
            if str(name) in packed:
                add(str(name), files[kind])

    add(CONTENTS, _as_text(contents))  # the first file: whatever has it was meant to be an archive
    for name, data in _compressed.metadata(scratch, contents["store"], layout).items():
        add(name, data)
    for name in ("rows.csv", *packed.intersection(_journals(layout))):
        add(name, fmt.read_bytes(store / name))
    each(add_block, _committed(opened), progress)
    add(fmt.SUMS, sums.text(dict(sorted(listed.items()))))  # the last file: without it, nothing is an archive
    return listed


def is_of(store: Path, listed: Mapping[str, str]) -> bool:
    """Return whether these are the files of the archive of a store, without its journals, or of this archive.

    listed: file -> SHA-256, of SHA256SUMS. The compressed features are not compared, but their digests are; so nothing
    is compressed or decompressed.
    """
    opened = FeatureStore.open(store)
    if opened.archived:
        return Archive(store).listed == listed
    contents = _contents(store, opened, journals=False)
    names = ["rows.csv", *(name for name in contents["files"] if not name.startswith("features/"))]
    wanted = {CONTENTS: hashlib.sha256(_as_text(contents)).hexdigest()}
    wanted |= {name: file_sha256(store / name) for name in names}
    return set(listed) == {*fmt.FIXED_FILES, CONTENTS, *contents["files"]} and wanted.items() <= listed.items()


def _contents(store: Path, opened: FeatureStore, *, journals: bool) -> dict[str, Any]:
    """The content of archive.json for a store; StoreError when its metadata is damaged."""
    if digests.fixed_sums(store) != fmt.read_bytes(store / fmt.SUMS):
        raise StoreError(f"the metadata of {store} is damaged; `featcache check {store}` shows the details")
    names = [str(name) for block in _committed(opened) for name in opened.layout.files(block).values()]
    names += _journals(opened.layout) if journals else []
    texts = {name: fmt.read_bytes(store / name).decode() for name in METADATA}
    return {"store": texts, "files": sorted(name for name in names if (store / name).exists())}


def _as_text(contents: dict[str, Any]) -> bytes:
    return json.dumps(contents, indent=1, ensure_ascii=False).encode()


def unpack(source: str | Path, out: str | Path, progress: Progress | bool = False) -> None:
    """Restore the store that an archive was made of, byte for byte, at `out`, whole or not at all.

    source: a folder, a URL of an object store such as s3://bucket/hog.zarr, or another one that fsspec supports. out:
    path of the store. progress: True for a bar, or a callback (blocks done, all).
    Each file is checked against its digests before it is written. StoreError when a file of the archive is missing or
    damaged, when the URL cannot be read, or when `out` exists.
    """
    if url := url_of(out):
        raise StoreError(f"{url} is a URL, and `unpack` writes a local store; name a folder")
    if scheme_of(source) in SCHEMES:  # fsspec reads others
        source = url_of(source)
    with _made(Path(out)) as scratch:
        archive = Archive(source)
        for name, text in archive.original.items():
            _put(scratch / name, text.encode())
        _put(scratch / "rows.csv", archive.fixed["rows.csv"])
        if digests.fixed_sums(scratch) != fmt.read_bytes(scratch / fmt.SUMS):
            raise StoreError(f"{source}: {CONTENTS} belongs to another archive; get another copy")
        layout = FeatureStore.open(scratch).layout

        def write_block(block: int) -> None:
            paths = layout.files(block)
            files = {kind: archive.read(str(n)) if str(n) in archive.packed else b"" for kind, n in paths.items()}
            files["features"] = _compressed.decode(
                files["features"], block, layout, f"{source}: {shown(str(paths['features']))}"
            )
            _verify(scratch, source, block, files, layout)
            for kind, name in paths.items():
                if str(name) in archive.packed:
                    _put(scratch / name, files[kind])

        for journal in archive.packed.intersection(_journals(layout)):
            _put(scratch / journal, archive.read(journal))
        with reporting(progress, f"unpack {source}", "block") as report:
            each(write_block, archive.blocks(layout), report)


def is_archive(path: Path) -> bool:
    """Return whether a folder is an archive, damaged or not."""
    return (path / CONTENTS).exists()


def problems(path: Path, *, fast: bool = False, progress: Progress = silent) -> list[str]:
    """List the problems of an archive's files, one sentence each. progress: files (done, total).

    fast: check only the size and the index of each features shard, not its content.
    """
    try:
        archive = Archive(path)
        layout = FeatureStore.open(path).layout
    except StoreError as error:
        return [str(error)]
    messages = []
    for done, name in enumerate(sorted(archive.packed)):
        progress(done, len(archive.packed))
        if fast and name.startswith("features/"):
            if not _compressed.is_whole(path / name, layout):
                messages.append(f"{shown(name)} is missing or damaged; get another copy of the archive")
            continue
        try:
            archive.read(name)
        except StoreError as error:
            messages.append(str(error).removeprefix(f"{path}: "))
    progress(len(archive.packed), len(archive.packed))
    files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_symlink() or not file.is_dir()}
    return messages + [f"{name} does not belong to the archive" for name in sorted(files - {*archive.listed, fmt.SUMS})]


def _verify(folder: Path, source: str | Path, block: int, files: dict[str, bytes], layout: fmt.Layout) -> None:
    """Raise StoreError unless a block's files match its digest. folder: holds the store's zarr.json."""
    if digests.digest_row(folder, block, {kind: fmt.crc(data) for kind, data in files.items()}) != files["digest"]:
        span = layout.span(block)
        raise StoreError(
            f"{source}: block {block} (rows {span.start}-{span.stop - 1}) does not match its digest; "
            "`featcache check` shows the details"
        )


def _committed(store: FeatureStore) -> list[int]:
    """The committed blocks; StoreError when the commit of a block was interrupted."""
    blocks = []
    for block in range(store.layout.blocks):
        files = store.layout.files(block)
        if (store.path / files["state"]).exists():
            blocks.append(block)
        elif (store.path / files["features"]).exists():
            raise StoreError(f"{store.path}: writing block {block} was interrupted; `featcache extract` finishes it")
    return blocks


def _journals(layout: fmt.Layout) -> list[str]:
    """The files of open blocks, whether they exist or not."""
    return [f"journal/{block}.{kind}" for block in range(layout.blocks) for kind in ("log", "shard")]


@contextlib.contextmanager
def undisturbed(path: Path) -> Iterator[None]:
    """Keep writers out of a store; StoreError when one is at work."""
    FeatureStore.open(path)  # raises when there is no store, before a lock file is made for it
    lock: BinaryIO | None = None
    free = not _lease.is_locked(path)
    if free:
        with contextlib.suppress(OSError):  # a disk that cannot be written needs no lock
            lock = _lease.lock(path, alone=True)
            free = lock is not None
    if not free:
        raise StoreError(
            f"{path} is being written or packed by another process; pack it when that process has finished"
        )
    with lock or contextlib.nullcontext():
        yield


def _put(path: Path, data: bytes) -> None:
    """Write a file of a scratch folder, which is synced as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@contextlib.contextmanager
def _written(out: str | Path) -> Iterator[tuple[Path, Put]]:
    """Give a scratch folder, and a function that writes a file of `out`, a folder or URL, which must be new.

    When the block fails, all that was written is removed. A killed process leaves the beginning of an archive at a URL:
    equal files are not written again, and those that the new archive does not have are deleted.
    """
    if not (url := url_of(out)):
        with _made(Path(out)) as scratch:
            yield scratch, lambda name, data: _put(scratch / name, data)
        return
    place, written = opened_place(url), list[str]()
    if (left := place.begin()) and not _is_begun(left):
        raise StoreError(f"{url} has objects; remove them, or name another URL")

    def put(name: str, data: bytes) -> None:
        if name == fmt.SUMS:
            place.delete(*(set(left) - set(written)))
        written.append(name)
        if name not in left or not place.holds(name, left[name], data):
            place.put(name, data)

    with tempfile.TemporaryDirectory() as folder:
        try:
            yield Path(folder), put
            place.commit("Archive of a feature store")
        except BaseException:
            with contextlib.suppress(StoreError):
                place.delete(*written)
            raise


def _is_begun(names: Collection[str]) -> bool:
    """Return whether these are the files of an archive whose writing was interrupted, and nothing else."""
    folders = {*fmt.ARRAYS, "journal"}
    own = all(name in (CONTENTS, *fmt.FIXED_FILES) or name.partition("/")[0] in folders for name in names)
    return own and CONTENTS in names and fmt.SUMS not in names


@contextlib.contextmanager
def _made(out: Path) -> Iterator[Path]:
    """Give a scratch folder that becomes `out` when the block succeeds, and is removed when it fails."""
    remove_abandoned(out)
    if out.exists():
        raise StoreError(f"{out} exists; remove it, or name another folder")
    make_folder(out.parent)
    lock = _lease.lock(out, alone=True)
    if lock is None:
        raise StoreError(f"{out} is being written by another process; wait for that process or stop it")
    with lock, making_folder(out) as scratch:
        scratch.mkdir()
        yield scratch
