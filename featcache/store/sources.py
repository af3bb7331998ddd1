"""The files that a folder of stores was made from, compared by their places with those of a manifest.

A store records the name of each clip's file, and not its folder, because folders are often moved. The copy of the
manifest next to the stores has the whole paths, so features of another file of the same name are not taken for its own.
A file that was replaced in its place is noticed by `provenance`.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from featcache.errors import FeatcacheError, StoreError
from featcache.manifest import Manifest
from featcache.store import _format as fmt
from featcache.store.content import same_content
from featcache.store.reader import FeatureStore


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
