"""Check a store, every file against its digest, and repair it."""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from featcache import sums
from featcache.errors import ManifestError, StoreError
from featcache.files import sync_folder, write_file
from featcache.manifest import Manifest
from featcache.progress import Progress, reporting, silent
from featcache.store import _format as fmt
from featcache.store import _lease, archive, digests
from featcache.store.reader import FeatureStore, committed, is_extending, open_unchecked, rows_csv
from featcache.store.writer import finish_extension
from featcache.wording import kind_of, per_kind


def problems(path: Path, *, fast: bool = False, progress: Progress = silent) -> list[str]:
    """List the problems of a store, one sentence each; an empty list means that every byte is accounted for.

    fast: check only the size of the features' files, not their content.
    Raises StoreError when there is no store, or its metadata cannot be read at all.
    """
    if messages := damage(path, fast=fast, progress=progress):
        return messages
    store = FeatureStore.open(path)
    strays = [] if store.archived else _strays(store, committed(path, store.layout))
    return [
        f"{stray.relative_to(path)} does not belong to the store; `featcache repair` removes it" for stray in strays
    ] + _unfinished(store)


def damage(path: Path, known: Mapping[str, int] = {}, *, fast: bool = False, progress: Progress = silent) -> list[str]:
    """List the problems of the files that a store's rows are read from; else as `problems`.

    known: file -> its crc32c, of files that need not be read.
    """
    if archive.is_archive(path):
        return archive.problems(path, fast=fast, progress=progress)
    if _lease.is_locked(path):  # during a commit a check has no meaning
        return ["is being written by another process; check again when that process has finished"]
    if is_extending(path):
        FeatureStore.open(path)  # raises
    store = open_unchecked(path)
    messages = _metadata(store)
    if messages:  # with wrong metadata nothing else can be trusted, not even the shapes
        return messages
    store = FeatureStore.open(path)
    blocks = committed(path, store.layout)
    for done, block in enumerate(blocks):
        progress(done, len(blocks))
        if wrong := digests.damaged(path, block, store.layout, fast=fast, known=known):
            messages.append(f"{wrong}; `featcache repair` makes its clips pending again")
    progress(len(blocks), len(blocks))
    return messages


def metadata_damage(path: Path) -> list[str]:
    """List the problems of the files of a store or archive that never change."""
    if archive.is_archive(path):
        FeatureStore.open(path)  # raises
        return []
    return _metadata(open_unchecked(path))


def _unfinished(store: FeatureStore) -> list[str]:
    """List what an undamaged store lacks: clips that were not tried, and clips that failed."""
    messages = []
    if left := store.counts()["not tried"]:
        messages.append(f"{left} of {len(store)} clips are not extracted yet; run `featcache extract` again")
    failed = [
        (store.rows[row], store.failures.get(int(row), "no reason recorded"))
        for row in np.flatnonzero(store.state == fmt.FAILED)
    ]
    return messages + per_kind(
        (kind_of(reason, clip["source"]), f"clip {clip['clip_id']!r} failed: {reason}") for clip, reason in failed
    )


def repair(store: str | Path, progress: Progress | bool = False) -> list[str]:
    """Make damaged blocks pending again, restore files that can be recomputed, and remove files that do not belong.

    Undamaged blocks are not touched. store: its path. progress: True for a bar, or a callback
    (blocks done, all).
    Returns the actions, one sentence each.
    Raises StoreError when a writer is at work, or when a damaged file cannot be recomputed (the recipe).
    """
    path = Path(store)
    if not any((path / name).is_file() for name in fmt.FIXED_FILES):
        raise StoreError(f"no feature store at {path}; `featcache extract` makes one")
    if archive.is_archive(path):
        raise StoreError(f"{path} is an archive, which cannot be repaired; get another copy of it")
    lock = _lease.lock(path, alone=True)
    if lock is None:
        raise StoreError(f"{path} is being written by another process; repair it when that process has finished")
    try:
        actions = []
        if is_extending(path):
            finish_extension(path)
            actions.append("finished appending clips, which had been interrupted")
        actions += _mend_metadata(path)
        opened = FeatureStore.open(path)
        blocks = [b for b in range(opened.layout.blocks) if _any_file(opened, b)]
        with reporting(progress, f"repair {path.name}", "block") as report:
            for number, block in enumerate(blocks):
                report(number, len(blocks))
                if wrong := digests.damaged(path, block, opened.layout):
                    _uncommit(opened, block)
                    actions.append(f"{wrong}: its clips are pending again")
            report(len(blocks), len(blocks))
        for stray in _strays(opened, committed(path, opened.layout)):
            _remove(stray)
            actions.append(f"removed {stray.relative_to(path)}")
        return actions
    finally:
        _lease.free(lock)


def _metadata(store: FeatureStore) -> list[str]:
    """Compare the files that never change with the checksums written when the store was made."""
    try:
        listed = _listed(store.path)
    except StoreError as error:
        return [str(error)]
    return [f"{name} is {wrong}" for name, wrong in _wrong(store.path, listed).items()]


def _listed(path: Path) -> dict[str, str]:
    """File -> sha256, from SHA256SUMS; StoreError when that file is not as featcache writes it."""
    try:
        listed = sums.parse(fmt.read_bytes(path / fmt.SUMS))
    except (OSError, ValueError):
        raise StoreError(f"{fmt.SUMS} is missing or damaged; restore it from a copy of the store") from None
    if set(listed) != {*fmt.FIXED_FILES}:
        raise StoreError(f"{fmt.SUMS} lists other files than a store has; restore it from a copy of the store")
    return listed


def _wrong(path: Path, listed: dict[str, str]) -> dict[str, str]:
    """File -> "missing" or "damaged", for the listed files that are one or the other."""
    wrong = {}
    for name, digest in listed.items():
        if not (path / name).is_file():
            wrong[name] = "not a regular file" if (path / name).exists() else "missing"
        elif hashlib.sha256(fmt.read_bytes(path / name)).hexdigest() != digest:
            wrong[name] = "damaged"
    return wrong


def _mend_metadata(path: Path) -> list[str]:
    """Restore wrong metadata files whose recomputed content has the listed checksum, or the list if that is wrong."""
    listed, trouble = dict[str, str](), ""
    try:
        listed = _listed(path)
    except StoreError as error:
        trouble = str(error)
    wrong = _wrong(path, listed)
    if listed and not wrong:
        return []
    restored = _recomputed(path)
    present = {name: fmt.read_bytes(path / name) for name in fmt.FIXED_FILES if (path / name).is_file()}
    others = [name for name in fmt.FIXED_FILES if name != "zarr.json"]
    if _sealed(path) and all(present.get(name) == restored.get(name, b"") for name in others):
        _replace(path / fmt.SUMS, digests.fixed_sums(path))
        return [f"{fmt.SUMS} was wrong: written again, because recipe, blocks and manifest fit each other"]
    if trouble:
        raise StoreError(f"{path}: {trouble}")
    for name, fault in wrong.items():
        if hashlib.sha256(restored.get(name, b"")).hexdigest() != listed[name]:
            raise StoreError(f"{path}: {name} is {fault} and cannot be recomputed; restore it from a copy of the store")
        _replace(path / name, restored[name])
    return [f"{name} was {fault}: written again" for name, fault in wrong.items()]


def _sealed(path: Path) -> bool:
    """Return whether the seal of some block fits the recipe, so that both are undamaged."""
    try:
        store = open_unchecked(path)
    except StoreError:
        return False
    sums_size, group = 4 * len(fmt.BLOCK_FILES), fmt.read_bytes(path / "zarr.json")
    files = ((b, path / store.layout.files(b)["digest"]) for b in committed(store.path, store.layout))
    rows = ((b, fmt.read_bytes(digest)) for b, digest in files if digest.is_file())
    return any(row[sums_size:] == digests.seal(group, b, row[:sums_size]) for b, row in rows)


def _recomputed(path: Path) -> dict[str, bytes]:
    """The metadata that follows from the recipe, the shape of the features and the manifest in the same folder."""
    try:
        store = open_unchecked(path)
    except StoreError:
        return {}
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "store"
        store.layout.create_arrays(scratch, {"featcache": store.attributes})
        made = {name: fmt.read_bytes(scratch / name) for name in fmt.FIXED_FILES if (scratch / name).exists()}
    with contextlib.suppress(ManifestError):
        manifest = Manifest.read(path.parent / "manifest.csv")
        made["rows.csv"] = rows_csv(replace(manifest, clips=manifest.clips[: len(store)]))
    return made


def _any_file(store: FeatureStore, block: int) -> bool:
    """Return whether the block was committed, even if `state` is lost; an interrupted commit has a journal instead."""
    paths = store.layout.files(block)
    if (store.path / "journal" / f"{block}.log").exists():
        return (store.path / paths["state"]).exists()
    return any((store.path / path).exists() for path in paths.values())


def _uncommit(store: FeatureStore, block: int) -> None:
    """Remove a block's files, `state` first, so that it never vouches for files that are gone."""
    paths = [store.path / path for path in store.layout.files(block).values()]
    for path in reversed(paths):
        if path.exists():
            _remove(path)


def _replace(path: Path, data: bytes) -> None:
    """Write a file, also where a folder or a pipe is in its place."""
    if path.exists() and not path.is_file():
        _remove(path)
    write_file(path, data)


def _remove(path: Path) -> None:
    """Remove what is at the path of a file: the file, a pipe, or a folder that does not belong there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    sync_folder(path.parent)


def _strays(store: FeatureStore, blocks: list[int]) -> list[Path]:
    """Files that a healthy store does not have."""
    expected = {*fmt.FIXED_FILES, fmt.SUMS}
    for block in range(store.layout.blocks):
        log = f"journal/{block}.log"
        if (store.path / log).exists():
            expected |= {log, f"journal/{block}.shard"}
        if block in blocks or log in expected:  # with a journal: an interrupted commit, which will be finished
            expected |= {str(path) for path in store.layout.files(block).values()}
    files = (path for path in store.path.rglob("*") if not path.is_dir() or path.is_symlink())
    return sorted(path for path in files if str(path.relative_to(store.path)) not in expected)
