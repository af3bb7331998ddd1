"""Shards of an archive: the store's shards, in chunks of 16 rows that zarr compresses with zstd.

A shard is bytes in memory here, 24-48 MB as in the store. archive.py handles the files and their digests.
"""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    if decode(encoded, chunks["zarr.json"].to_bytes(), block, layout) != shard:
        raise StoreError(f"block {block} was compressed incorrectly; test this machine's memory and try again")
    return encoded


def decode(encoded: bytes, metadata: bytes, block: int, layout: fmt.Layout) -> bytes:
    """The store's shard, from the archive's compressed shard."""
    import zarr
    from zarr.buffer.cpu import Buffer

    files: dict[str, Any] = {"zarr.json": Buffer.from_bytes(metadata), _key(block, layout): Buffer.from_bytes(encoded)}
    span = layout.span(block)
    try:
        values: Any = zarr.open_array(zarr.storage.MemoryStore(files), mode="r")[span.start : span.stop]
    except Exception as error:  # decoders of damaged bytes raise anything
        raise StoreError(f"block {block} cannot be decoded ({error!r}); get another copy of the archive") from None
    payload, index = layout.shard_index(len(span))
    data = values.astype(np.dtype(layout.dtype).newbyteorder("<"), copy=False).tobytes()
    return b"".join([data, bytes(payload - len(data)), index])


def rows(shard: bytes, block: int, layout: fmt.Layout) -> NDArray[np.uint8]:
    """(rows, row_bytes) of a block's uncompressed shard."""
    count = len(layout.span(block))
    return np.frombuffer(shard, np.uint8, count * layout.row_bytes).reshape(count, layout.row_bytes)


def is_whole(path: Path, layout: fmt.Layout) -> bool:
    """Return whether a compressed shard ends with an index that has a correct checksum and fits the file's size."""
    tail = 16 * (layout.block_rows // min(fmt.PACKED_ROWS, layout.block_rows)) + 4
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
