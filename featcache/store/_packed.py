"""The reading side of an archive (see archive.py): its files, in a folder or at a URL, and its decoded features."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import schema, sums
from featcache.errors import StoreError
from featcache.progress import Progress, silent
from featcache.remote.opening import opened
from featcache.remote.urls import SCHEMES, scheme_of, url_of
from featcache.store import _compressed
from featcache.store import _format as fmt

CONTENTS = fmt.ARCHIVE
METADATA = (*(name for name in fmt.FIXED_FILES if name != "rows.csv"), fmt.SUMS)  #: the store's files in archive.json
FILE = re.compile(r"[a-z_]+(/[a-z0-9]+(\.[a-z]+)?)+")  #: names of the files of blocks and journals, see Layout.files
THREADS = 2  #: blocks at a time: one is decoded while another is fetched or written


def features(archive: "Archive", layout: fmt.Layout, progress: Progress = silent) -> NDArray[np.uint8]:
    """Decode all features of an archive into memory, (N, row_bytes); blocks that are not committed are zeros.

    Raises StoreError with the block's number when a file is missing or damaged.
    """
    out = np.zeros((layout.rows, layout.row_bytes), np.uint8)

    def place(block: int) -> None:
        span, names = layout.span(block), {kind: str(name) for kind, name in layout.files(block).items()}
        shard = _compressed.decode(
            archive.read(names["features"]), block, layout, f"{archive.source}: {shown(names['features'])}"
        )
        if fmt.crc(shard) != int.from_bytes(archive.read(names["digest"])[:4], "little"):
            name = shown(names["features"])
            raise StoreError(f"{archive.source}: {name} does not match its digest; get another copy of the archive")
        out[span.start : span.stop] = _compressed.rows(shard, block, layout)

    each(place, archive.blocks(layout), progress)
    return out


@dataclass(frozen=True)
class _Contents:
    """The content of archive.json."""

    store: dict[str, str]
    files: tuple[str, ...]


class Archive:
    """The files of an archive, in a folder or at a URL; each file is checked against its digest when it is read."""

    def __init__(self, source: str | Path) -> None:
        self.source = str(source).rstrip("/")
        self._system, self._root = _file_system(self.source)
        try:
            data = self._fetch(fmt.SUMS)
        except FileNotFoundError:
            raise StoreError(f"no archive at {source}: {fmt.SUMS} is missing; `featcache pack` makes one") from None
        try:
            self.listed = sums.parse(data)
        except ValueError:
            raise StoreError(f"{fmt.SUMS} of {source} is damaged; get another copy of the archive") from None
        if CONTENTS not in self.listed:
            raise StoreError(
                f"{source} is not an archive, or its {fmt.SUMS} is damaged; `featcache pack` makes one of a store"
            )
        place = f"{CONTENTS} of {source} was not written by featcache"
        contents = schema.parse(self.read(CONTENTS), _Contents, place, error=StoreError)
        self.original = contents.store  #: file -> text of the store's metadata
        self.packed = set(contents.files)  #: the files of blocks and journals
        if strange := [name for name in contents.files if not FILE.fullmatch(name)]:
            raise StoreError(f"{place}: {strange[0][:100]!r} is no file of a store")
        if set(self.listed) != {*fmt.FIXED_FILES, CONTENTS, *self.packed} or set(self.original) != set(METADATA):
            raise StoreError(f"{fmt.SUMS} of {source} lists other files than {CONTENTS}; get another copy")
        #: metadata, all read at once: with wrong metadata nothing else can be trusted, not even the shapes
        self.fixed = {name: self.read(name) for name in fmt.FIXED_FILES}

    def blocks(self, layout: fmt.Layout) -> list[int]:
        """The committed blocks."""
        return [block for block in range(layout.blocks) if str(layout.files(block)["state"]) in self.packed]

    def read(self, name: str) -> bytes:
        """Read a file; StoreError when it is missing or does not match its digest."""
        try:
            data = self._fetch(name)
        except FileNotFoundError:
            raise StoreError(f"{self.source}: {shown(name)} is missing; get another copy of the archive") from None
        if hashlib.sha256(data).hexdigest() != self.listed[name]:
            raise StoreError(f"{self.source}: {shown(name)} is damaged; get another copy of the archive")
        return data

    def _fetch(self, name: str) -> bytes:
        if self._system is None:
            return fmt.read_bytes(Path(self._root, name))
        if scheme_of(self.source) in SCHEMES:
            return bytes(self._system.get(name))
        try:
            return bytes(self._system.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            raise
        except Exception as error:  # each kind of storage has its own errors, such as no permission or no network
            raise StoreError(f"{self.source}/{name} cannot be read: {error or type(error).__name__}") from error


def _file_system(source: str) -> tuple[Any, str]:
    """The objects below a URL, or the file system of fsspec and its folder; (None, folder) for a local folder."""
    if "://" not in source or scheme_of(source) in SCHEMES:
        url = url_of(source)
        return (opened(url), url) if url else (None, source)
    import fsspec  # type: ignore[import-untyped]

    try:
        system, root = fsspec.core.url_to_fs(source)
    except ImportError as error:
        raise StoreError(f"{source} needs a package that is not installed: {error}") from None
    except ValueError as error:
        raise StoreError(f"{source} cannot be opened: {error}; name a folder, or a URL such as s3://...") from None
    return system, root.rstrip("/")


def shown(name: str) -> str:
    """A file's name, with the block that it belongs to: features/c/1/0/0 (block 1)."""
    block = re.search(r"/(\d+)\b", name)
    return f"{name} (block {block[1]})" if block else name


def each(job: Callable[[int], None], blocks: Sequence[int], progress: Progress) -> None:
    """Run a job for each block, a few at a time; stop at the first error."""
    progress(0, len(blocks))
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            done: Iterable[None] = pool.map(job, blocks)
            for number, _ in enumerate(done, 1):
                progress(number, len(blocks))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
