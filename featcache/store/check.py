"""Is a store what it says it is? Every file against its digest, every rule against the arrays."""

import hashlib
from pathlib import Path

import numpy as np

from featcache.store import _format as fmt
from featcache.store.reader import FeatureStore


def problems(path: Path) -> list[str]:
    """What is wrong with the store, one sentence each; an empty list means that every byte is accounted for.

    Raises StoreError when there is no store, or its metadata cannot be read at all.
    """
    store = FeatureStore.open(path)
    found = _metadata(store)
    if found:  # nothing behind wrong metadata can be trusted, not even the shapes
        return found
    clip_ids = store.clip_ids
    committed = [b for b in range(store.layout.blocks) if (path / store.layout.files(b)["state"]).exists()]
    for block in committed:
        found += _block(store, block)
    if found:
        return found
    found += _strays(store, committed)
    if fmt.is_locked(path):
        return ["is being written by another process; check again when it is done"]
    counts = store.counts()
    if counts["not tried"]:
        found.append(f"{counts['not tried']} of {len(store)} clips are not there yet; run `featcache extract` again")
    failed = np.flatnonzero(store.state == fmt.FAILED)
    found += [f"clip {clip_ids[row]!r} failed: {store.failures.get(int(row), 'no reason recorded')}" for row in failed]
    return found


def _metadata(store: FeatureStore) -> list[str]:
    """Compare the files that never change with the checksums written when the store was made."""
    try:
        text = (store.path / fmt.SUMS).read_text()
        expected = {name: digest for digest, name in (line.split("  ", 1) for line in text.splitlines())}
    except (OSError, ValueError):
        return [f"{fmt.SUMS} is missing or damaged"]
    if text != "".join(f"{digest}  {name}\n" for name, digest in expected.items()) or set(expected) != {
        *fmt.FIXED_FILES
    }:
        return [f"{fmt.SUMS} is damaged"]
    wrong = []
    for name, digest in expected.items():
        path = store.path / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            wrong.append(f"{name} is damaged")
    return wrong


def _block(store: FeatureStore, block: int) -> list[str]:
    """A committed block's files against its digest."""
    paths = {name: store.path / path for name, path in store.layout.files(block).items()}
    missing = [name for name, path in paths.items() if name != "failures" and not path.exists()]
    if missing:
        return [f"block {block}: {', '.join(missing)} missing"]
    content = {name: path.read_bytes() if path.exists() else b"" for name, path in paths.items()}
    if content["digest"] == fmt.digest_row(content):
        return []
    span = store.layout.span(block)
    sums = [content["digest"][4 * i : 4 * i + 4] for i in range(len(fmt.BLOCK_FILES))]
    pairs = zip(fmt.BLOCK_FILES, sums, strict=True)
    damaged = [name for name, sum in pairs if fmt.crc(content[name]).to_bytes(4, "little") != sum]
    return [f"block {block} (rows {span.start}-{span.stop - 1}): {', '.join(damaged or ['digest'])} damaged"]


def _strays(store: FeatureStore, committed: list[int]) -> list[str]:
    """Files that a healthy store does not have."""
    known = {*fmt.FIXED_FILES, fmt.SUMS, ".lock"}
    known |= {str(path) for block in committed for path in store.layout.files(block).values()}
    known |= {f"journal/{block}.log" for block in range(store.layout.blocks) if block not in committed}
    files = sorted(str(path.relative_to(store.path)) for path in store.path.rglob("*") if path.is_file())
    return [f"{name} does not belong to the store (left over by a kill?)" for name in files if name not in known]
