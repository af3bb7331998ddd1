"""The digests of a store's files: how they are made, and how files are compared with them where they are used.

Damaged files are an error instead of wrong numbers. Small files are compared each time they are read. Shards are
compared when they are first read; a shard is read again for that only if it has changed since. `check.py` compares
everything, whether it was compared before or not.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache import sums
from featcache.errors import StoreError
from featcache.files import file_sha256, regular, remembered
from featcache.store import _format as fmt

SEAL = len(fmt.BLOCK_FILES)  #: the last column of `digest`


def digest_row(folder: Path, block: int, checksums: dict[str, int]) -> bytes:
    """The digest chunk of a block: a checksum per file, and one that ties these to the block and to the store."""
    row = np.array([checksums[name] for name in fmt.BLOCK_FILES], dtype="<u4").tobytes()
    return row + seal(fmt.read_bytes(folder / "zarr.json"), block, row)


def seal(group: bytes, block: int, row: bytes) -> bytes:
    """A checksum over a block's checksums, its number and the recipe, so that swapped blocks are found, too.

    group: the content of the store's zarr.json.
    """
    return fmt.crc(row + block.to_bytes(8, "little") + group).to_bytes(4, "little")


def damaged(folder: Path, block: int, layout: fmt.Layout, *, fast: bool = False, known: Mapping[str, int] = {}) -> str:
    """The damage to the files of a committed block, as text; "" when its digest vouches for each file.

    fast: check only the size of the features' file, not its content. known: file -> its crc32c, of files that have just
    been written and need not be read.
    """
    paths = {name: folder / path for name, path in layout.files(block).items()}
    missing = [name for name, path in paths.items() if name != "failures" and not path.exists()]
    irregular = [name for name, path in paths.items() if path.exists() and not path.is_file()]
    for names, fault in ((missing, "missing"), (irregular, "not a regular file")):
        if names:
            return f"block {block}: {', '.join(names)} {fault}"
    digest, sums_size = fmt.read_bytes(paths["digest"]), 4 * len(fmt.BLOCK_FILES)
    sealed = digest[sums_size:] == seal(fmt.read_bytes(folder / "zarr.json"), block, digest[:sums_size])
    damaged_names = [] if sealed else ["digest"]
    for k, name in enumerate(fmt.BLOCK_FILES):
        if fast and name == "features":
            rows = np.count_nonzero(fmt.read_chunk(paths["state"], "u1"))
            intact = paths[name].stat().st_size == layout.shard_index(int(rows))[0] + layout.index_bytes
        else:
            present = known.get(paths[name].relative_to(folder).as_posix())
            present = file_crc(paths[name]) if present is None else present
            intact = present.to_bytes(4, "little") == digest[4 * k : 4 * k + 4]
        if not intact:
            damaged_names.append(name)
    if not damaged_names:
        return ""
    span = layout.span(block)
    return f"block {block} (rows {span.start}-{span.stop - 1}): {', '.join(damaged_names)} damaged"


def file_crc(path: Path) -> int:
    """The crc32c of a file; that of no bytes when the file is empty or missing."""
    if not regular(path, StoreError).exists() or not path.stat().st_size:
        return fmt.crc(b"")
    return fmt.crc(np.memmap(path, np.uint8, "r"))


def fixed_sums(folder: Path) -> bytes:
    """The content of SHA256SUMS for the present files."""
    return sums.text({name: file_sha256(folder / name) for name in fmt.FIXED_FILES})


#: path of a shard -> its crc32c, computed once per process while the file is the same
shard_crc = remembered(1 << 16, settled=True)(file_crc)


def fixed_file(folder: Path, name: str) -> bytes:
    """Read a file that never changes; StoreError unless it matches SHA256SUMS."""
    try:
        data = fmt.read_bytes(folder / name)
    except fmt.MISSING:
        raise StoreError(f"{folder / name} is missing; {_restore(folder)}") from None
    try:
        listed = sums.parse(fmt.read_bytes(folder / fmt.SUMS))
    except (FileNotFoundError, ValueError):
        raise StoreError(f"{folder / fmt.SUMS} is missing or damaged; {_restore(folder)}") from None
    if listed.get(name) != hashlib.sha256(data).hexdigest():
        raise StoreError(f"{folder / name} is damaged: it does not match {fmt.SUMS}; {_restore(folder)}")
    return data


def check_metadata(folder: Path) -> None:
    """Raise StoreError unless the metadata that opening a store reads matches SHA256SUMS."""
    for name in ("zarr.json", "features/zarr.json"):
        fixed_file(folder, name)


def digests(folder: Path, layout: fmt.Layout, blocks: list[int]) -> NDArray[np.uint32]:
    """Read the array `digest` (blocks, 7), with zeros for blocks not committed; StoreError where a seal is wrong."""
    group = fixed_file(folder, "zarr.json")
    out = np.zeros((layout.blocks, SEAL + 1), "<u4")
    for block in blocks:
        path = folder / layout.file(block, "digest")
        row = fmt.read_bytes(path) if path.exists() else b""
        if len(row) != 4 * (SEAL + 1):
            raise StoreError(f"{path} is missing or cut off; `featcache check {folder}` shows the details")
        if row[4 * SEAL :] != seal(group, block, row[: 4 * SEAL]):
            raise StoreError(f"{path} is damaged; {_extract_again(folder, block, layout)}")
        out[block] = np.frombuffer(row, "<u4")
    return out


def check(folder: Path, block: int, layout: fmt.Layout, name: str, checksum: int, expected: NDArray[np.uint32]) -> None:
    """Raise StoreError unless a file of a committed block has the checksum that the array `digest` has for it.

    expected: the array as it was read before; a block that has been written again since has a new row there.
    """
    column, path = fmt.BLOCK_FILES.index(name), folder / layout.file(block, name)
    if checksum == expected[block, column]:
        return
    check_committed(folder, block, layout)
    if checksum == digests(folder, layout, [block])[block, column]:
        return
    raise StoreError(f"{path} is damaged: it does not match its digest; {_extract_again(folder, block, layout)}")


def check_committed(folder: Path, block: int, layout: fmt.Layout) -> None:
    """Raise StoreError if a block that was committed has no `state` now: writing it again removes that file first."""
    if not (folder / layout.file(block, "state")).exists():
        raise StoreError(f"block {block} of {folder} is being written by another process; wait for that process")


def _restore(folder: Path) -> str:
    if (folder / fmt.ARCHIVE).exists():
        return "get another copy of the archive"
    return f"`featcache repair {folder}` restores it if it can be computed, else restore it from a copy of the store"


def _extract_again(folder: Path, block: int, layout: fmt.Layout) -> str:
    span = layout.span(block)
    return (
        f"`featcache check {folder}` shows the details, `featcache repair {folder}` makes rows {span.start}-"
        f"{span.stop - 1} (block {block}) pending; then extract or import them again"
    )
