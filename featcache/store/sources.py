"""The files that the features in a folder of stores were made of, compared with those of a manifest.

A store records the name of each clip's file, and not its folder, because folders are often moved. The copy of the
manifest next to the stores has the whole paths, so features of another file of the same name are not taken for its own.

    .sources.json      next to the stores: store -> clip id -> size, time and digest of the file of its features, which
                       differ if the file was replaced in its place
"""

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

from featcache import schema
from featcache.errors import FeatcacheError, StoreError
from featcache.files import regular, write_file
from featcache.manifest import Manifest
from featcache.store import _format as fmt
from featcache.store.reader import FeatureStore

RECORD = ".sources.json"
PIECE, PIECES = 1 << 16, 8  #: bytes, and number, of the pieces of two files that are compared


def check_sources(folder: Path, manifest: Manifest, *, moved: bool = True) -> None:
    """Raise StoreError if a folder of stores has features of other files than those of the manifest.

    Files of equal content are the same. moved: True if a file that is gone may have been moved to its new place.
    """
    try:
        before = Manifest.read(folder / "manifest.csv")
    except FeatcacheError:  # there are no stores yet, or their clips are compared by their names only
        return
    places = {clip.clip_id: before.path(clip) for clip in before if clip.source}
    pairs = {clip.clip_id: (places.get(clip.clip_id), manifest.path(clip)) for clip in manifest if clip.source}
    others = {name: (old, new) for name, (old, new) in pairs.items() if old and not _same(old, new, moved)}
    if others and (name := next((name for name in _held(folder) if name in others), "")):
        old, new = (os.path.abspath(path) for path in others[name])
        raise StoreError(
            f"{folder} has the features of clip {name!r} from {old}, but clip {name!r} is now {new}, another file; "
            "name another --stores folder, or give the manifest or folder of the clips another name"
        )


def _held(folder: Path) -> Iterator[str]:
    """Yield the ids of clips of which a folder of stores has features, or may have them in a journal."""
    for path in sorted(folder.glob("*.zarr")):
        try:
            store = FeatureStore.open(path)
        except StoreError:  # `featcache check` reports it
            continue
        states = (fmt.DONE, fmt.NOT_TRIED) if any((path / "journal").glob("*.log")) else (fmt.DONE,)
        yield from (clip_id for clip_id, state in zip(store.clip_ids, store.state, strict=True) if state in states)


def _same(old: Path, new: Path, moved: bool) -> bool:
    """Return whether two paths lead to the same file, or to files of equal content, as far as they are there."""
    try:
        if os.path.realpath(old) == os.path.realpath(new) or not new.exists():
            return True
        return same_content(old, new) if old.exists() else moved
    except (OSError, ValueError):  # one of them cannot be read here
        return moved


def same_content(one: Path, other: Path) -> bool:
    """Return whether two files are equal in size and in eight pieces, or two folders in their files and some content.

    Features of videos differ where a piece differs, so whole files, which may be large, are not read.
    """
    return all(a == b for a, b in zip_longest(_content(one), _content(other)))


def _content(path: Path) -> Iterator[bytes]:
    """Yield the size and eight pieces of a file; of a folder the names and sizes of its files and some content."""
    if path.is_dir():
        files = _files(path)
        yield repr(files).encode(errors="surrogateescape")
        for name, _ in files[:: max(1, len(files) // PIECES)]:
            yield from _content(path / name)
        return
    size = path.stat().st_size
    yield str(size).encode()
    places = range(0, size, PIECE) if size <= PIECE * PIECES else range(0, size, (size - PIECE) // (PIECES - 1))
    with path.open("rb") as file:
        for place in places:
            yield _piece(file, place)


def _piece(file: BinaryIO, place: int) -> bytes:
    file.seek(place)
    return file.read(PIECE)


def _files(folder: Path) -> list[tuple[str, int]]:
    """Return the paths and sizes of the files under a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files]


# --------------------------------------------------------------------------------------------- files that were replaced


Record = dict[str, dict[str, str]]  #: store -> clip id -> "SIZE TIME DIGEST" of its file


def read_record(folder: Path) -> Record:
    """Read the record of the files of a folder of stores; {} if there is none."""
    path = folder / RECORD
    if not path.exists():
        return {}
    data, fix = regular(path, StoreError).read_bytes(), "remove it, and the stores if files were replaced"
    return schema.parse(data, Record, str(path), error=StoreError, fix=fix)


def states(manifest: Manifest) -> dict[str, str]:
    """Return clip id -> "SIZE TIME" of its file, or of the files in its folder, if it is there."""
    state = cache(_state)  # many clips, few sources
    found = {clip.clip_id: state(manifest.path(clip)) for clip in manifest if clip.source}
    return {clip_id: text for clip_id, text in found.items() if text}


def replaced(folder: Path, store: str, manifest: Manifest) -> set[str]:
    """Return the ids of clips whose files have changed since the features in a store of this folder were made."""
    before = {clip_id: text.rpartition(" ") for clip_id, text in read_record(folder).get(store, {}).items()}
    now, digest = states(manifest) if before else {}, cache(_digest)
    others = [clip for clip in manifest if clip.clip_id in before and clip.clip_id in now]
    others = [clip for clip in others if now[clip.clip_id] != before[clip.clip_id][0]]
    return {clip.clip_id for clip in others if digest(manifest.path(clip)) not in ("", before[clip.clip_id][2])}


def record(
    folder: Path, earlier: Record, stores: Mapping[str, Collection[str]], manifest: Manifest, began: Mapping[str, str]
) -> None:
    """Record the files of the features in stores of a folder.

    earlier: the record so far. stores: name -> ids of the clips whose features were made before this call, so that
    their record stays. began: the `states` of the files when this call began.
    """
    now, digest, whole = states(manifest), cache(_digest), dict(earlier)
    files = {clip.clip_id: manifest.path(clip) for clip in manifest if clip.clip_id in began}
    for name, before in stores.items():
        store, old = FeatureStore.open(folder / f"{name}.zarr"), earlier.get(name, {})
        pairs = zip(store.clip_ids, store.state.tolist(), strict=True)
        made = [clip_id for clip_id, state in pairs if state in (fmt.DONE, fmt.ABSENT)]
        whole[name] = {}
        for clip_id in made:
            if clip_id in old and clip_id in before:
                whole[name][clip_id] = old[clip_id]
            elif clip_id in files:
                same = began[clip_id] == now.get(clip_id)  # else it is not known which file was read
                whole[name][clip_id] = f"{began[clip_id]} {digest(files[clip_id]) if same else ''}"
    if whole != earlier and any(whole.values()):
        write_file(folder / RECORD, json.dumps(whole, indent=1).encode(), shared=True)


def adopt(path: Path, others: Mapping[str, str], before: Collection[str]) -> None:
    """Record the files of the features that a store has copied from other stores.

    others: clip id -> record of its file there. before: ids of the clips whose features the store had already, so that
    their record stays.
    """
    recorded, name = read_record(path.parent), path.stem
    old = recorded.get(name, {})
    found = {
        clip_id: old[clip_id] if clip_id in old and clip_id in before else others.get(clip_id, "")
        for clip_id in _made(path)
    }
    whole = recorded | {name: {clip_id: text for clip_id, text in found.items() if text}}
    if whole != recorded and any(whole.values()):
        write_file(path.parent / RECORD, json.dumps(whole, indent=1).encode(), shared=True)


def made_before(path: Path) -> set[str]:
    """Return the ids of the clips whose features a store has; none if there is no store that can be opened."""
    return {*_made(path)}


def _made(path: Path) -> list[str]:
    try:
        store = FeatureStore.open(path)
    except StoreError:
        return []
    return [c for c, state in zip(store.clip_ids, store.state.tolist(), strict=True) if state in (fmt.DONE, fmt.ABSENT)]


def _state(path: Path) -> str:
    try:
        found = [path.stat()] if not path.is_dir() else [(path / name).stat() for name, _ in _files(path)]
    except (OSError, ValueError):  # it is not there, or cannot be read
        return ""
    return f"{sum(s.st_size for s in found)} {max((s.st_mtime_ns for s in found), default=0)}"


def _digest(path: Path) -> str:
    """Return a digest of the content that `same_content` compares; "" if it cannot be read."""
    digest = hashlib.sha256()
    try:
        for piece in _content(path):
            digest.update(piece)
    except (OSError, ValueError):
        return ""
    return digest.hexdigest()[:16]
