"""All shards of a store's features side by side in one read-only array, without copying or decoding anything.

>>> mapped = Mapped(FeatureStore.open("stores/kitchens/hog.zarr"))   # doctest: +SKIP
>>> mapped.array[[4, 0]].shape                                        # doctest: +SKIP
(2, 5, 468)

An uncompressed shard holds its rows from byte 0 on. So a range of addresses is reserved, and the payload of each
committed shard is mapped to where its rows belong (`mmap` with MAP_FIXED); what is not committed stays zero pages. All
processes share the page cache, and one `index_select` gathers a batch.

Whoever truncates or rewrites a mapped shard in place kills the readers (SIGBUS) or changes their features. featcache
never does: it writes other files and renames them, and a mapping keeps the file that it was made from. Map again when
the store's fingerprint has changed. Linux only; elsewhere `why_not` says so.
"""

import ctypes
import json
import mmap
import os
import sys
import warnings
import weakref
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import StoreError
from featcache.store import _format as fmt
from featcache.store.reader import FeatureStore

if TYPE_CHECKING:
    import torch

MAP_FIXED, MAP_NORESERVE = 0x10, 0x4000
HUGEPAGE, POPULATE_READ = 14, 22  #: madvise; the latter since Linux 5.14
HUGE = 2 << 20  #: a huge page
NO_CHUNK = np.uint64(2**64 - 1)
ENTRY, CRC = 16, 4  #: bytes of an index entry and of the checksum behind the index


class Mapped:
    """The features of a store as one array; StoreError where `why_not` has a reason."""

    array: NDArray[np.floating]  #: (N, T, *row_shape) in the stored dtype, read-only; zeros in rows that are not done

    def __init__(self, store: FeatureStore) -> None:
        shards, reason = _shards(store)
        if reason:
            raise StoreError(f"{store.path} cannot be mapped: {reason}; read it with `FeatureStore.read`")
        layout = store.layout
        self.row_bytes = layout.row_bytes
        size = layout.rows * layout.row_bytes
        self._region = _Region(size)
        self._file_bytes = size  # what stands behind them is a copy, which must not be given back
        for block, path in shards.items():
            span = layout.span(block)
            offset, length = span.start * layout.row_bytes, len(span) * layout.row_bytes
            whole = length - length % mmap.PAGESIZE
            with path.open("rb") as file:
                if whole:
                    self._region.put(offset, whole, file.fileno())
                if rest := os.pread(file.fileno(), length - whole, whole):  # the index follows in the same page
                    self._region.copy(offset + whole, rest)
                    self._file_bytes = offset + whole
        flat = np.asarray(self._region)
        self.array = flat.view(np.dtype(layout.dtype)).reshape(layout.rows, layout.windows, *layout.row_shape)

    def tensor(self) -> "torch.Tensor":
        """The array as a tensor on the CPU, without a copy. Writing to it kills the process: gather from it only."""
        import torch

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.from_numpy(self.array)

    def ahead(self, rows: NDArray[np.integer]) -> None:
        """Have the kernel read these rows into memory, without waiting for it where it need not."""
        for start, stop in self._runs(rows):
            self._region.advise(start, stop, mmap.MADV_WILLNEED)

    def populate(self, rows: NDArray[np.integer]) -> None:
        """Read these rows into memory and map their pages, so that no later access waits.

        In huge pages where the file system has them: random rows are then gathered about a tenth faster.
        """
        self._region.advise(0, self._file_bytes, HUGEPAGE)
        self.ahead(rows)
        for start, stop in self._runs(rows):
            if not self._region.advise(start, stop, POPULATE_READ):
                return  # an older kernel: the pages come as they are touched

    def release(self, rows: NDArray[np.integer]) -> None:
        """Let go of these rows' pages; they come again when touched. Neighbours that share a page go with them."""
        for start, stop in self._runs(rows):
            self._region.advise(start, min(stop, self._file_bytes), mmap.MADV_DONTNEED)

    def _runs(self, rows: NDArray[np.integer]) -> list[tuple[int, int]]:
        """Byte ranges [start, stop) of these rows, those that touch joined."""
        rows = np.unique(rows)
        if not len(rows):
            return []
        cuts = np.flatnonzero(np.diff(rows) > 1)
        first, last = rows[np.r_[0, cuts + 1]], rows[np.r_[cuts, len(rows) - 1]]
        return [(int(a) * self.row_bytes, (int(b) + 1) * self.row_bytes) for a, b in zip(first, last, strict=True)]


def why_not(store: FeatureStore) -> str:
    """Why this store cannot be mapped; "" when it can."""
    return _shards(store)[1]


def _shards(store: FeatureStore) -> tuple[dict[int, Path], str]:
    """Committed block -> its shard file, and what speaks against mapping them ("" when nothing does)."""
    if sys.platform != "linux" or sys.byteorder != "little":
        return {}, "that needs Linux on a little-endian machine"
    if store.archived:
        return {}, "it is an archive, of which `featcache unpack` makes a store that can be mapped"
    layout = store.layout
    chunk_rows, reason = _chunk_rows(store)
    if reason:
        return {}, reason
    block_bytes = layout.block_rows * layout.row_bytes
    if layout.blocks > 1 and block_bytes % mmap.PAGESIZE:
        return {}, f"its shards of {block_bytes} bytes are not whole pages of {mmap.PAGESIZE}"
    shards: dict[int, Path] = {}
    for block in range(layout.blocks):
        files = layout.files(block)
        if (store.path / files["state"]).exists():
            shards[block] = store.path / files["features"]
            if reason := _unlike(shards[block], layout, len(layout.span(block)), chunk_rows):
                return {}, reason
    return shards, ""


def _chunk_rows(store: FeatureStore) -> tuple[int, str]:
    """Rows of an inner chunk, and what of the array's metadata speaks against mapping."""
    try:
        meta: dict[str, Any] = json.loads((store.path / "features" / "zarr.json").read_text())
        outer = meta["chunk_grid"]["configuration"]["chunk_shape"]
        if [codec["name"] for codec in meta["codecs"]] != ["sharding_indexed"]:
            return 0, "its features are not sharded"
        sharding = meta["codecs"][0]["configuration"]
        inner, location = sharding["chunk_shape"], sharding.get("index_location", "end")
        codecs, index_codecs = ([codec["name"] for codec in sharding[key]] for key in ("codecs", "index_codecs"))
        endian = sharding["codecs"][0].get("configuration", {}).get("endian", "little")
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        return 0, f"the metadata of its features are not understood ({error!r})"
    whole_rows = [store.layout.windows, *store.layout.row_shape]
    if codecs != ["bytes"]:
        return 0, f"its features are compressed or checksummed ({', '.join(codecs)})"
    if endian != "little" or index_codecs != ["bytes", "crc32c"] or location != "end":
        return 0, f"its shards have the index at the {location}, or other codecs than little-endian bytes and crc32c"
    if outer != [store.layout.block_rows, *whole_rows] or inner[1:] != whole_rows or outer[0] % inner[0]:
        return 0, f"its shards {outer} of chunks {inner} are not whole rows in blocks of {store.layout.block_rows}"
    return int(inner[0]), ""


def _unlike(path: Path, layout: fmt.Layout, rows: int, chunk_rows: int) -> str:
    """How a shard differs from rows in order behind each other, followed by their index; "" when it does not."""
    present, entries = -(-rows // chunk_rows), layout.block_rows // chunk_rows
    chunk_bytes = chunk_rows * layout.row_bytes
    expected = np.full((entries, 2), NO_CHUNK, "<u8")
    expected[:present, 0] = np.arange(present, dtype="<u8") * chunk_bytes
    expected[:present, 1] = chunk_bytes
    tail = entries * ENTRY + CRC
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            found = os.pread(file.fileno(), tail, max(0, size - tail))
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    if size != present * chunk_bytes + tail:
        return f"{path} has {size} bytes, and not {present * chunk_bytes + tail}"
    index = found[:-CRC]
    if fmt.crc(index).to_bytes(CRC, "little") != found[-CRC:]:
        return f"the index of {path} has another checksum; ask `featcache check`"
    if index != expected.tobytes():
        return f"{path} does not hold all rows in order"
    return ""


class _Region:
    """A range of addresses, zero pages at first; unmapped when nothing refers to it any more."""

    def __init__(self, size: int) -> None:
        reserved = size + HUGE + mmap.PAGESIZE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        start = _map(None, reserved, mmap.PROT_READ, flags, -1)
        self.address = -(-start // HUGE) * HUGE
        #: numpy's protocol: an array made of it keeps the region alive as its `base`
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (size,), "data": (self.address, True)}
        end = weakref.finalize(self, _libc().munmap, start, reserved)
        end.atexit = False  # at exit the kernel does it, when no thread reads any more

    def put(self, offset: int, length: int, file: int) -> None:
        """Map the first `length` bytes of a file to `offset`; both are whole pages."""
        _map(self.address + offset, length, mmap.PROT_READ, mmap.MAP_SHARED | MAP_FIXED, file)

    def copy(self, offset: int, data: bytes) -> None:
        """Copy less than a page to `offset`, a page's first byte."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED
        page = _map(self.address + offset, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1)
        ctypes.memmove(page, data, len(data))
        _libc().mprotect(page, mmap.PAGESIZE, mmap.PROT_READ)

    def advise(self, start: int, stop: int, advice: int) -> bool:
        """Madvise the pages of the bytes [start, stop); False where the kernel declines."""
        start = start // mmap.PAGESIZE * mmap.PAGESIZE
        return stop <= start or _libc().madvise(self.address + start, stop - start, advice) == 0


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    for name in ("mprotect", "madvise"):
        getattr(libc, name).argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc


def _map(address: int | None, length: int, protection: int, flags: int, file: int) -> int:
    """`mmap` of a file's first bytes; OSError where the kernel refuses."""
    found: int | None = _libc().mmap(address, length, protection, flags, file, 0)
    if found is None or found == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, f"mmap of {length} bytes: {os.strerror(number)}")
    return found
