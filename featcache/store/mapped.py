"""The shards of a store's features, mapped side by side into one read-only array without copying or decoding.

>>> mapped = Mapped(FeatureStore.open("stores/kitchens/hog.zarr"))   # doctest: +SKIP
>>> mapped.array[[4, 0]].shape                                        # doctest: +SKIP
(2, 5, 468)

An uncompressed shard holds its rows from byte 0 on. So a range of addresses is reserved, and the payload of each
committed shard is mapped to the addresses of its rows (`mmap` with MAP_FIXED); blocks that are not committed stay zero
pages. All processes share the page cache, and one `index_select` gathers a batch.

Truncating or rewriting a mapped shard in place would kill the readers (SIGBUS) or change their features. featcache
never does this: it writes other files and renames them, and a mapping keeps the file that it was made from. Map again
when the store's fingerprint has changed. This works only on Linux; elsewhere `why_not` returns the reason.
"""

import ctypes
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
from featcache.files import regular
from featcache.store.reader import FeatureStore

if TYPE_CHECKING:
    import torch

MAP_FIXED, MAP_NORESERVE = 0x10, 0x4000
HUGEPAGE, POPULATE_READ = 14, 22  #: advice values of madvise; POPULATE_READ exists since Linux 5.14
HUGE = 2 << 20  #: bytes of a huge page


class Mapped:
    """The features of a store as one array, whose blocks are compared with their digests before their first use.

    Raises StoreError when `why_not` returns a reason or a shard is damaged, OSError when the system refuses to map it.
    """

    def __init__(self, store: FeatureStore) -> None:
        if reason := why_not(store):
            raise StoreError(f"{reason}; read it with `FeatureStore.read`")
        shards = _shards(store)
        self._store, self._verified = store, np.zeros(store.layout.blocks, bool)
        layout = store.layout
        self.row_bytes = layout.row_bytes
        size = layout.rows * layout.row_bytes
        self._region = _Region(size)
        self._file_bytes = size  # bytes behind these are a copy, which must not be released
        for block, (path, rows) in shards.items():
            offset, length = layout.span(block).start * layout.row_bytes, rows * layout.row_bytes
            whole = length - length % mmap.PAGESIZE
            with regular(path, StoreError).open("rb") as file:
                if whole:
                    self._region.put(offset, whole, file.fileno())
                if rest := os.pread(file.fileno(), length - whole, whole):  # the index follows in the same page
                    self._region.copy(offset + whole, rest)
                    self._file_bytes = offset + whole
        flat = np.asarray(self._region)
        self._array = flat.view(np.dtype(layout.dtype)).reshape(layout.rows, layout.windows, *layout.row_shape)

    @property
    def array(self) -> NDArray[np.floating]:
        """All features (N, T, *row_shape) in the stored dtype, read-only; rows that are not done are zeros.

        Every block is verified at the first access; use `tensor` to take only some rows of a large store.
        """
        self.verify(np.arange(len(self._array)))
        return self._array

    def verify(self, rows: NDArray[np.integer]) -> None:
        """Compare the blocks that hold these rows with their digests, once; StoreError when one is damaged."""
        blocks = rows // self._store.layout.block_rows
        if not self._verified[blocks].all():
            self._store.verify(rows[~self._verified[blocks]])
            self._verified[blocks] = True

    def tensor(self, rows: NDArray[np.integer] | None = None) -> "torch.Tensor":
        """All features as a tensor on the CPU, without a copy. Only read from it: writing to it kills the process.

        rows: the rows that will be used, whose blocks are verified first (default: all). Call `verify` before you use
        other rows.
        """
        import torch

        self.verify(np.arange(len(self._array)) if rows is None else rows)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.from_numpy(self._array)

    def ahead(self, rows: NDArray[np.integer]) -> None:
        """Ask the kernel to read these rows into memory, without waiting where possible."""
        for start, stop in self._runs(rows):
            self._region.advise(start, stop, mmap.MADV_WILLNEED)

    def populate(self, rows: NDArray[np.integer]) -> None:
        """Read these rows into memory and map their pages, so that no later access waits.

        Huge pages are used where the file system has them; gathering random rows is then about a tenth faster.
        """
        self._region.advise(0, self._file_bytes, HUGEPAGE)
        self.ahead(rows)
        for start, stop in self._runs(rows):
            if not self._region.advise(start, stop, POPULATE_READ):
                return  # an older kernel: pages are read when they are first used

    def release(self, rows: NDArray[np.integer]) -> None:
        """Release these rows' pages; using a row reads its pages again. Rows that share a page are released, too."""
        for start, stop in self._runs(rows):
            self._region.advise(start, min(stop, self._file_bytes), mmap.MADV_DONTNEED)

    def _runs(self, rows: NDArray[np.integer]) -> list[tuple[int, int]]:
        """Byte ranges [start, stop) of these rows; adjacent rows share a range."""
        rows = np.unique(rows)
        if not len(rows):
            return []
        cuts = np.flatnonzero(np.diff(rows) > 1)
        first, last = rows[np.r_[0, cuts + 1]], rows[np.r_[cuts, len(rows) - 1]]
        return [(int(a) * self.row_bytes, (int(b) + 1) * self.row_bytes) for a, b in zip(first, last, strict=True)]


def why_not(store: FeatureStore) -> str:
    """The reason why this store cannot be mapped, or ""; `FeatureStore.read` reads every store."""
    if sys.platform != "linux" or sys.byteorder != "little":
        return "mapping needs Linux on a little-endian machine"
    if store.archived:
        return f"{store.path} is an archive, which cannot be mapped; `featcache unpack` makes a store of it"
    block_bytes = store.layout.block_rows * store.layout.row_bytes
    if store.layout.blocks > 1 and block_bytes % mmap.PAGESIZE:
        return f"the shards of {store.path} have {block_bytes} bytes, not whole pages of {mmap.PAGESIZE}"
    return ""


def _shards(store: FeatureStore) -> dict[int, tuple[Path, int]]:
    """Committed block -> its shard file and number of rows; StoreError when a file is not rows and their index."""
    layout, shards = store.layout, {}
    for block in range(layout.blocks):
        rows = int(np.count_nonzero(store.state[layout.as_slice(block)]))  # the last block may have grown since
        if not rows:
            continue
        path = store.path / layout.files(block)["features"]
        payload, index = layout.shard_index(rows)
        try:
            with regular(path, StoreError).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                stored_index = os.pread(file.fileno(), len(index), max(0, size - len(index)))
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror}); run `featcache check {store.path}`") from None
        if size != payload + len(index) or stored_index != index:
            raise StoreError(f"{path} is not {rows} rows and their index; run `featcache check {store.path}`")
        shards[block] = path, rows
    return shards


class _Region:
    """A range of addresses, zero pages at first; it is unmapped when nothing refers to it any more."""

    def __init__(self, size: int) -> None:
        reserved = size + HUGE + mmap.PAGESIZE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        start = _map(None, reserved, mmap.PROT_READ, flags, -1)
        self.address = -(-start // HUGE) * HUGE
        #: the region in numpy's protocol; an array made of it keeps the region alive as its `base`
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (size,), "data": (self.address, True)}
        end = weakref.finalize(self, _libc().munmap, start, reserved)
        end.atexit = False  # at exit the kernel unmaps it, after all threads have stopped

    def put(self, offset: int, length: int, file: int) -> None:
        """Map the first `length` bytes of a file to `offset`; both numbers are whole pages."""
        _map(self.address + offset, length, mmap.PROT_READ, mmap.MAP_SHARED | MAP_FIXED, file)

    def copy(self, offset: int, data: bytes) -> None:
        """Copy less than a page to `offset`, which is the first byte of a page."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED
        page = _map(self.address + offset, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1)
        ctypes.memmove(page, data, len(data))
        _libc().mprotect(page, mmap.PAGESIZE, mmap.PROT_READ)

    def advise(self, start: int, stop: int, advice: int) -> bool:
        """Call madvise for the pages of the bytes [start, stop); False when the kernel declines."""
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
    """Map a file's first bytes with `mmap`, and return their address; OSError when the kernel refuses."""
    start: int | None = _libc().mmap(address, length, protection, flags, file, 0)
    if start is None or start == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, f"mmap of {length} bytes: {os.strerror(number)}")
    return start
