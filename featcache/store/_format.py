"""The layout of a store on disk. A store is one extractor's rows for one manifest: a zarr v3 group, folder NAME.zarr.

    zarr.json            the group; its attributes describe the features (recipe, rows, shape of the blocks)
    rows.csv             row -> clip: the interval that was decoded, one line per row
    SHA256SUMS           digests of the files above and of the arrays' zarr.json, which never change
    features/            [N, T, *row_shape] float16 or float32; block b of S rows is one shard file, c/b/0/...
    window_start/, window_stop/    [N, T] float64, seconds within the source; NaN where unknown
    length/              [N] uint32: number of windows of the row, at most T; the other windows are zeros
    state/               [N] uint8: 0 not tried, 1 done, 2 failed, 3 absent in the source
    digest/              [blocks, 7] uint32: crc32c of the block's other files, and a seal over these
    failures/B.jsonl     the reasons of the failed and absent rows of block B, and notes on rows that are done, such as
                         which of several streams was taken; there is no file without such rows
    journal/B.log, B.shard    block B while it is open: a record per row, with checksums, and the features in place
    extension/           the files above that never change, of a larger store; only while clips are being appended

The lock .NAME.zarr.lock is next to the store, in the same folder (see _lease.py).

Row i is always row i of the manifest. A row is written once: to its place in B.shard, with a checksum in B.log. When
all rows of the block are written, B.shard becomes the block's shard and its other files follow, `state` last; each is
synced and renamed. So at any moment a row is either vouched for (by `state`, or by its checksum in the journal) or not
present.

A features shard holds its rows one after the other from byte 0 (no compressor, index at the end). So it can be
memory-mapped, and zarr-python, tensorstore or zarrs can read it.
"""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from featcache import files, schema, sums
from featcache.errors import StoreError
from featcache.files import regular

FORMAT = 2
MISSING = (FileNotFoundError, NotADirectoryError)  #: errors for a file that does not exist, or whose folder does not
NOT_TRIED, DONE, FAILED, ABSENT = range(4)
STATES = ("not tried", "done", "failed", "absent")
ARRAYS = ("features", "window_start", "window_stop", "length", "state", "digest")
FIXED_FILES = ("zarr.json", "rows.csv", *(f"{name}/zarr.json" for name in ARRAYS))
EXTENSION = "extension"
ARCHIVE = "archive.json"  #: the file that makes a folder an archive, see archive.py
SUMS = sums.NAME  #: the list of digests, see featcache/sums.py
PACKED_ROWS = 16  #: rows per inner chunk of an archive
BLOCK_FILES = (
    "features",
    "window_start",
    "window_stop",
    "length",
    "state",
    "failures",
)  #: columns of `digest`, in order

SHARD_BYTES = 48 << 20  #: target for a shard's payload; half of it is the lower bound, given enough rows
MOST_BYTES = 64 << 20  #: upper bound for a shard that is made larger to end on a page
CHUNK_BYTES = 32 << 10  #: about the smallest read worth an index entry
PAGE = 4096  #: bytes of a page; shards are whole pages, so that they can be mapped side by side
MOST_ROWS = 1 << 16  #: most rows per shard; this keeps the index small when rows are tiny


@dataclass(frozen=True)
class Layout:
    """The shapes and file names of a store of N rows of T windows."""

    rows: int
    windows: int
    row_shape: tuple[int, ...]
    dtype: str  #: float16 or float32

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one row of `features`, all windows."""
        return self.windows * math.prod(self.row_shape) * np.dtype(self.dtype).itemsize

    @cached_property
    def block_rows(self) -> int:
        """S, rows per block, a power of two: shards have 24-48 MB, or up to 64 MB where whole pages need it."""
        rows = 1 << int(math.log2(max(1, SHARD_BYTES // self.row_bytes)))
        whole_pages = PAGE // math.gcd(PAGE, self.row_bytes)
        if whole_pages * self.row_bytes <= MOST_BYTES:
            rows = max(rows, whole_pages)
        return min(MOST_ROWS, rows)

    @cached_property
    def chunk_rows(self) -> int:
        """Rows per inner chunk of a shard: one row of 8 KB or more, or a power of two of smaller rows, up to 32 KB."""
        if self.row_bytes >= CHUNK_BYTES // 4:
            return 1
        return min(self.block_rows, 1 << int(math.log2(CHUNK_BYTES // self.row_bytes)))

    @property
    def blocks(self) -> int:
        """Number of blocks; the last may be part-filled."""
        return -(-self.rows // self.block_rows)

    def span(self, block: int) -> range:
        """The rows of a block."""
        return range(block * self.block_rows, min(self.rows, (block + 1) * self.block_rows))

    def as_slice(self, block: int) -> slice:
        """The rows of a block, as an index."""
        return slice(self.span(block).start, self.span(block).stop)

    def files(self, block: int) -> dict[str, Path]:
        """The files of a block, relative to the store, in the order in which they are committed."""
        return {name: self.file(block, name) for name in self._patterns}

    def file(self, block: int, name: str) -> Path:
        """One file of a block, relative to the store."""
        return Path(self._patterns[name].format(block))

    @cached_property
    def _patterns(self) -> dict[str, str]:
        inner = "/".join("0" for _ in (self.windows, *self.row_shape))
        return {
            "features": f"features/c/{{}}/{inner}",
            "window_start": "window_start/c/{}/0",
            "window_stop": "window_stop/c/{}/0",
            "length": "length/c/{}",
            "failures": "failures/{}.jsonl",
            "digest": "digest/c/{}/0",
            "state": "state/c/{}",
        }

    def create_arrays(self, folder: Path, attributes: dict[str, Any]) -> None:
        """Write the metadata of the group and its arrays; no chunk exists yet."""
        import zarr

        group = zarr.create_group(folder, attributes=attributes, zarr_format=3)
        S, T = self.block_rows, self.windows
        plain: dict[str, Any] = {"compressors": None, "filters": None, "fill_value": 0}
        group.create_array(
            "features",
            shape=(self.rows, T, *self.row_shape),
            shards=(S, T, *self.row_shape),
            chunks=(self.chunk_rows, T, *self.row_shape),
            dtype=self.dtype,
            **plain,
        )
        for name in ("window_start", "window_stop"):
            group.create_array(name, shape=(self.rows, T), chunks=(S, T), dtype="float64", **plain)
        group.create_array("length", shape=(self.rows,), chunks=(S,), dtype="uint32", **plain)
        group.create_array("state", shape=(self.rows,), chunks=(S,), dtype="uint8", **plain)
        columns = len(BLOCK_FILES) + 1
        group.create_array("digest", shape=(self.blocks, columns), chunks=(1, columns), dtype="uint32", **plain)

    @property
    def index_bytes(self) -> int:
        """Bytes behind the payload of a shard: offset and size of each inner chunk, and a crc32c."""
        return 16 * (self.block_rows // self.chunk_rows) + 4

    def shard_index(self, rows: int) -> tuple[int, bytes]:
        """(bytes of the payload, index) of a shard of that many rows.

        The index is (offset, size) per inner chunk, then a crc32c. Inner chunks wholly behind the last row are marked
        absent, as zarr does.
        """
        chunk_bytes = self.chunk_rows * self.row_bytes
        chunks = -(-rows // self.chunk_rows)
        index = np.full((self.block_rows // self.chunk_rows, 2), 2**64 - 1, dtype="<u8")
        index[:chunks, 0] = np.arange(chunks, dtype="<u8") * chunk_bytes
        index[:chunks, 1] = chunk_bytes
        return chunks * chunk_bytes, index.tobytes() + crc(index.tobytes()).to_bytes(4, "little")

    def map_rows(self, path: Path) -> NDArray[np.uint8]:
        """Map the whole rows of a shard file, (rows, row_bytes); no rows when there is no file."""
        try:
            data = np.memmap(regular(path, StoreError), np.uint8, "r")
        except StoreError:
            raise
        except (*MISSING, ValueError):  # no file, or an empty one
            return np.zeros((0, self.row_bytes), np.uint8)
        rows = min(self.block_rows, len(data) // self.row_bytes)
        return data[: rows * self.row_bytes].reshape(rows, self.row_bytes)

    def padded(self, values: NDArray[Any], dtype: str) -> bytes:
        """The bytes of a block's values as an unsharded zarr chunk, which is always full: zeros follow the last row."""
        chunk = np.zeros((self.block_rows, *values.shape[1:]), np.dtype(dtype).newbyteorder("<"))
        chunk[: len(values)] = values
        return chunk.tobytes()


def crc(data: bytes | NDArray[np.uint8]) -> int:
    """The crc32c of the data, the checksum that zarr's index uses."""
    return int(google_crc32c.value(data))


def json_bytes(value: Any) -> bytes:
    """JSON with one spelling per value, for hashing and for reasons on one line."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def failure_lines(reasons: dict[int, tuple[int, str]], clip_ids: list[str]) -> bytes:
    """The content of failures/B.jsonl for the rows {row: (state, reason)}."""
    lines = [
        json_bytes({"row": row, "clip_id": clip_ids[row], "state": STATES[state], "reason": reason})
        for row, (state, reason) in sorted(reasons.items())
    ]
    return b"".join(line + b"\n" for line in lines)


@dataclass(frozen=True)
class Failure:
    """The entry of a file failures/B.jsonl."""

    row: int
    clip_id: str
    state: str
    reason: str


def read_failures(path: Path, span: range) -> dict[int, str]:
    """Row -> the reason in a file failures/B.jsonl, whose block has these rows; {} when there is no file."""
    return failures(read_bytes(path), path, span) if path.exists() else {}


def failures(data: bytes, path: Path, span: range) -> dict[int, str]:
    """Row -> the reason in the content of a file failures/B.jsonl, whose block has these rows."""
    reasons = {}
    for number, line in enumerate(data.splitlines(), 1):
        place, fix = f"{path} line {number}", "`featcache repair` makes the clips of a damaged block pending again"
        entry = schema.parse(line, Failure, place, error=StoreError, fix=fix, newer=True)
        if entry.row not in span:
            raise StoreError(
                f"{place}: row={entry.row} is outside the block's rows {span.start}-{span.stop - 1}; {fix}"
            )
        reasons[entry.row] = entry.reason
    return reasons


def read_bytes(path: Path) -> bytes:
    """The bytes of a file of a store; StoreError for a folder, pipe or device."""
    return files.read_bytes(path, StoreError)


def read_chunk(path: Path, dtype: str) -> NDArray[Any]:
    """The numbers in a file; StoreError for a folder, pipe or device."""
    return np.fromfile(regular(path, StoreError), dtype)
