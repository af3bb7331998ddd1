"""Is a store what it says it is? Every file against its digest, every rule against the arrays; and how to mend it."""

import contextlib
import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from featcache.errors import ManifestError, StoreError
from featcache.files import sync_folder, write_file
from featcache.manifest import Manifest
from featcache.progress import Progress, silent
from featcache.store import _format as fmt
from featcache.store import _lease, archive
from featcache.store.reader import FeatureStore, is_extending, rows_csv
from featcache.store.writer import finish_extension


def problems(path: Path, *, fast: bool = False, progress: Progress = silent) -> list[str]:
    """What is wrong with the store, one sentence each; an empty list means that every byte is accounted for.

    fast: features are not read; only that their files have the right size is looked at.
    Raises StoreError when there is no store, or its metadata cannot be read at all.
    """
    if archive.is_archive(path):
        return archive.problems(path, fast=fast, progress=progress) or _unfinished(FeatureStore.open(path))
    if _lease.is_locked(path):  # amid a commit nothing can be said
        return ["is being written by another process; check again when it is done"]
    store = FeatureStore.open(path)
    found = _metadata(store)
    if found:  # nothing behind wrong metadata can be trusted, not even the shapes
        return found
    committed = _committed(store)
    for done, block in enumerate(committed):
        progress(done, len(committed))
        if wrong := fmt.damaged(path, block, store.layout, fast=fast):
            found.append(f"{wrong}; `featcache repair` makes its clips pending again")
    progress(len(committed), len(committed))
    if found:
        return found
    found += [
        f"{path.relative_to(store.path)} does not belong to the store; `featcache repair` removes it"
        for path in _strays(store, committed)
    ]
    return found + _unfinished(store)


def _unfinished(store: FeatureStore) -> list[str]:
    """What a store in good order lacks: clips that were not tried, and clips that failed."""
    found = []
    if left := store.counts()["not tried"]:
        found.append(f"{left} of {len(store)} clips are not there yet; run `featcache extract` again")
    return found + [
        f"clip {store.clip_ids[row]!r} failed: {store.failures.get(int(row), 'no reason recorded')}"
        for row in np.flatnonzero(store.state == fmt.FAILED)
    ]


def repair(path: Path, progress: Progress = silent) -> list[str]:
    """Make damaged blocks pending again, put files back that can be made anew, remove what does not belong here.

    Blocks that are in order are not touched. Returns what was done, one sentence each.
    Raises StoreError when a writer is at work, or when what is damaged cannot be made anew (the recipe).
    """
    if not any((path / name).is_file() for name in fmt.FIXED_FILES):
        raise StoreError(f"no feature store at {path}; `featcache extract` makes one")
    if archive.is_archive(path):
        raise StoreError(f"{path} is an archive, which cannot be repaired; get another copy of it")
    lock = _lease.lock(path, alone=True)
    if lock is None:
        raise StoreError(f"{path} is being written by another process; repair it when that is done")
    try:
        done = []
        if is_extending(path):
            finish_extension(path)
            done.append("finished appending clips, which had been interrupted")
        done += _mend_metadata(path)
        store = FeatureStore.open(path)
        blocks = [b for b in range(store.layout.blocks) if _any_file(store, b)]
        for number, block in enumerate(blocks):
            progress(number, len(blocks))
            if wrong := fmt.damaged(path, block, store.layout):
                _uncommit(store, block)
                done.append(f"{wrong}: its clips are pending again")
        progress(len(blocks), len(blocks))
        for stray in _strays(store, _committed(store)):
            stray.unlink()
            sync_folder(stray.parent)
            done.append(f"removed {stray.relative_to(path)}")
        return done
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
    """File -> sha256, from SHA256SUMS; StoreError where that file is not as we write it."""
    try:
        text = (path / fmt.SUMS).read_text()
        listed = {name: digest for digest, name in (line.split("  ", 1) for line in text.splitlines())}
    except (OSError, ValueError):
        listed, text = {}, ""
    if not text or text != "".join(f"{digest}  {name}\n" for name, digest in listed.items()):
        raise StoreError(f"{fmt.SUMS} is missing or damaged; restore it from a copy of the store")
    if set(listed) != {*fmt.FIXED_FILES}:
        raise StoreError(f"{fmt.SUMS} lists other files than a store has; restore it from a copy of the store")
    return listed


def _wrong(path: Path, listed: dict[str, str]) -> dict[str, str]:
    """File -> "missing" or "damaged", of the listed files that are."""
    found = {}
    for name, digest in listed.items():
        if not (path / name).is_file():
            found[name] = "missing"
        elif hashlib.sha256((path / name).read_bytes()).hexdigest() != digest:
            found[name] = "damaged"
    return found


def _mend_metadata(path: Path) -> list[str]:
    """Write wrong metadata anew where what we would write has the listed checksum; or the list, where that is wrong."""
    listed, trouble = dict[str, str](), ""
    try:
        listed = _listed(path)
    except StoreError as error:
        trouble = str(error)
    wrong = _wrong(path, listed)
    if listed and not wrong:
        return []
    anew = _made_anew(path)
    there = {name: (path / name).read_bytes() for name in fmt.FIXED_FILES if (path / name).is_file()}
    if _sealed(path) and all(there.get(name) == anew.get(name, b"") for name in fmt.FIXED_FILES if name != "zarr.json"):
        write_file(path / fmt.SUMS, fmt.sums(path))
        return [f"{fmt.SUMS} was wrong: written anew, since recipe, blocks and manifest fit each other"]
    if trouble:
        raise StoreError(f"{path}: {trouble}")
    for name, what in wrong.items():
        if hashlib.sha256(anew.get(name, b"")).hexdigest() != listed[name]:
            raise StoreError(f"{path}: {name} is {what} and cannot be made anew; restore it from a copy of the store")
        write_file(path / name, anew[name])
    return [f"{name} was {what}: written anew" for name, what in wrong.items()]


def _sealed(path: Path) -> bool:
    """Whether the seal of some block fits the recipe, so that both are as they were."""
    try:
        store = FeatureStore.open(path)
    except StoreError:
        return False
    own = 4 * len(fmt.BLOCK_FILES)
    digests = ((b, path / store.layout.files(b)["digest"]) for b in _committed(store))
    rows = ((b, digest.read_bytes()) for b, digest in digests if digest.is_file())
    return any(row[own:] == fmt.seal(path, b, row[:own]) for b, row in rows)


def _made_anew(path: Path) -> dict[str, bytes]:
    """The metadata that follows from the recipe, the shape of the features and the manifest beside the store."""
    try:
        store = FeatureStore.open(path)
    except StoreError:
        return {}
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "store"
        store.layout.create_arrays(scratch, {"featcache": store.attributes})
        made = {name: (scratch / name).read_bytes() for name in fmt.FIXED_FILES if (scratch / name).exists()}
    with contextlib.suppress(ManifestError):
        manifest = Manifest.read(path.parent / "manifest.csv")
        made["rows.csv"] = rows_csv(replace(manifest, clips=manifest.clips[: len(store)]))
    return made


def _committed(store: FeatureStore) -> list[int]:
    return [b for b in range(store.layout.blocks) if (store.path / store.layout.files(b)["state"]).exists()]


def _any_file(store: FeatureStore, block: int) -> bool:
    """Whether the block was committed, even if `state` is lost; not where a commit was cut off, which has a journal."""
    paths = store.layout.files(block)
    if (store.path / "journal" / f"{block}.log").exists():
        return (store.path / paths["state"]).exists()
    return any((store.path / path).exists() for path in paths.values())


def _uncommit(store: FeatureStore, block: int) -> None:
    """Remove a block's files, `state` first, so that at no moment it vouches for what is gone."""
    paths = [store.path / path for path in store.layout.files(block).values()]
    for path in reversed(paths):
        if path.exists():
            path.unlink()
            sync_folder(path.parent)


def _strays(store: FeatureStore, committed: list[int]) -> list[Path]:
    """Files that a healthy store does not have."""
    known = {*fmt.FIXED_FILES, fmt.SUMS}
    for block in range(store.layout.blocks):
        log = f"journal/{block}.log"
        if (store.path / log).exists():
            known |= {log, f"journal/{block}.shard"}
        if block in committed or log in known:  # with a journal: a commit that was cut off, and will be finished
            known |= {str(path) for path in store.layout.files(block).values()}
    files = (path for path in store.path.rglob("*") if not path.is_dir() or path.is_symlink())
    return sorted(path for path in files if str(path.relative_to(store.path)) not in known)
