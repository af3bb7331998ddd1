"""Shards of an archive: the store's shards, in chunks of 16 rows that zarr compresses with zstd.

A shard is bytes in memory here, 24-48 MB as in the store. archive.py handles the files and their digests.
"""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.budget import check_growth
from featcache.errors import StoreError
from featcache.files import regular, write_file
from featcache.store import _format as fmt

LEVEL = 1  #: level of zstd; higher levels cost time and gain little on features


def metadata(scratch: Path, texts: dict[str, str], layout: fmt.Layout) -> dict[str, bytes]:
    """The zarr.json files of an archive, made from those of the store in the empty folder `scratch`."""
    import zarr

    chunks: dict[str, Any] = {}
    _array(chunks, layout)
    names = [name for name in texts if name != fmt.SUMS]
    for name in names:
        is_features = name == "features/zarr.json"
        write_file(scratch / name, chunks["zarr.json"].to_bytes() if is_features else texts[name].encode())
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
            zarr.consolidate_metadata(scratch)
    except Exception as error:  # zarr raises anything
        raise StoreError(f"zarr cannot read the metadata of the store ({error}); try `featcache repair`") from None
    return {name: fmt.read_bytes(scratch / name) for name in names}


def encode(shard: bytes, block: int, layout: fmt.Layout) -> bytes:
    """Compress a shard, and decode it again as a check."""
    span = layout.span(block)
    values = rows(shard, block, layout).view(np.dtype(layout.dtype).newbyteorder("<"))
    chunks: dict[str, Any] = {}
    _array(chunks, layout)[span.start : span.stop] = values.reshape(len(span), layout.windows, *layout.row_shape)
    encoded: bytes = chunks[_key(block, layout)].to_bytes()
    if decode(encoded, block, layout, f"block {block}") != shard:
        raise StoreError(f"block {block} was compressed incorrectly; test this machine's memory and try again")
    return encoded


def decode(encoded: bytes, block: int, layout: fmt.Layout, place: str) -> bytes:
    """The store's shard, from the archive's compressed shard.

    StoreError, before anything is unpacked, if the shard or one of its chunks declares another size than the layout, or
    many times its bytes. place: the shard's name in errors.
    """
    from zarr.buffer.cpu import Buffer

    span = layout.span(block)
    check_growth(len(span) * layout.row_bytes, len(encoded), place, StoreError)
    _check_frames(encoded, layout, place)
    chunks: dict[str, Any] = {}
    array = _array(chunks, layout)
    chunks[_key(block, layout)] = Buffer.from_bytes(encoded)
    try:
        values: Any = array[span.start : span.stop]
    except Exception as error:  # decoders of damaged bytes raise anything
        raise StoreError(f"{place} cannot be decoded ({error!r}); get another copy of the archive") from None
    payload, index = layout.shard_index(len(span))
    data = values.astype(np.dtype(layout.dtype).newbyteorder("<"), copy=False).tobytes()
    return b"".join([data, bytes(payload - len(data)), index])


def rows(shard: bytes, block: int, layout: fmt.Layout) -> NDArray[np.uint8]:
    """(rows, row_bytes) of a block's uncompressed shard."""
    count = len(layout.span(block))
    return np.frombuffer(shard, np.uint8, count * layout.row_bytes).reshape(count, layout.row_bytes)


def is_whole(path: Path, layout: fmt.Layout) -> bool:
    """Return whether a compressed shard ends with an index that has a correct checksum and fits the file's size."""
    tail = _index_bytes(layout)
    try:
        with regular(path, StoreError).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - tail))
            end = file.read()
    except FileNotFoundError:
        return False
    if len(end) < tail or fmt.crc(end[:-4]).to_bytes(4, "little") != end[-4:]:
        return False
    entries = np.frombuffer(end[:-4], "<u8").reshape(-1, 2)
    return int(entries[entries[:, 0] != 2**64 - 1].sum(1).max(initial=0)) == size - tail


def _check_frames(encoded: bytes, layout: fmt.Layout, place: str) -> None:
    """Raise StoreError unless each chunk of a shard is a frame of zstd that declares the size of a chunk."""
    index = encoded[-_index_bytes(layout) : -4]
    entries = np.frombuffer(index[: len(index) // 16 * 16], "<u8").reshape(-1, 2)
    size = min(fmt.PACKED_ROWS, layout.block_rows) * layout.row_bytes
    for offset, length in entries[entries[:, 0] != 2**64 - 1].tolist():
        declared = _frame_size(encoded[offset : offset + min(length, 18)])
        if declared != size:
            raise StoreError(f"{place} has a chunk of {declared} bytes where {size} are expected; get another copy")


def _frame_size(head: bytes) -> int | None:
    """The size that a frame of zstd declares for its content; None if it declares none (RFC 8878, 3.1.1.1)."""
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return None
    flags = head[4]
    single = flags >> 5 & 1
    begin = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    length = (single, 2, 4, 8)[flags >> 6]
    if not length or len(head) < begin + length:
        return None
    return int.from_bytes(head[begin : begin + length], "little") + (256 if length == 2 else 0)


def _index_bytes(layout: fmt.Layout) -> int:
    """Bytes of the index at the end of a shard: offset and size of each chunk, and a checksum."""
    return 16 * (layout.block_rows // min(fmt.PACKED_ROWS, layout.block_rows)) + 4


def _array(chunks: dict[str, Any], layout: fmt.Layout) -> Any:
    """The array `features` of an archive, with its files in the dictionary `chunks`."""
    import zarr
    from zarr.codecs import ZstdCodec

    inner = (layout.windows, *layout.row_shape)
    return zarr.create_array(
        zarr.storage.MemoryStore(chunks),
        shape=(layout.rows, *inner),
        shards=(layout.block_rows, *inner),
        chunks=(min(fmt.PACKED_ROWS, layout.block_rows), *inner),
        dtype=layout.dtype,
        filters=None,
        compressors=ZstdCodec(level=LEVEL),
        fill_value=0,
        config={"write_empty_chunks": True},  # every block has its file
    )


def _key(block: int, layout: fmt.Layout) -> str:
    """The name of a shard within its array."""
    return str(layout.files(block)["features"].relative_to("features"))
