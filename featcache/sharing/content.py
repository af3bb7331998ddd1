"""The manifests and stores that are pushed, and the facts about them that the card and croissant.json have."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featcache.arguments import Pairs, PathLike, pairs
from featcache.errors import ManifestError, StoreError
from featcache.files import read_bytes
from featcache.leaks import leaks
from featcache.manifest import Manifest
from featcache.remote.urls import on_disk
from featcache.sharing import MANIFEST, licences
from featcache.store import archive
from featcache.store.check import damage
from featcache.store.info import info
from featcache.store.reader import FeatureStore, flat
from featcache.wording import unknown

#: an absolute path in a sentence
ABSOLUTE = re.compile(r"(?<![\w/.:~-])/(?:[^/\s'\"]+/)+[^/\s'\"]+")


@dataclass(frozen=True)
class Store:
    """A store that is pushed."""

    name: str  #: MANIFEST/EXTRACTOR.zarr
    path: Path
    facts: dict[str, Any]  #: as of `featcache info`
    leaks: list[str]  #: features that give a label away, as text

    @property
    def untrained(self) -> bool:
        """True if its network was initialised at random."""
        return str(self.facts["weights_sha256"]).startswith("untrained")


@dataclass(frozen=True)
class Part:
    """A manifest, its stores and its dataset card."""

    manifest: Manifest  #: with sources that name no folder of this machine
    stores: list[Store]
    card: str  #: Markdown; "" if there is none
    licence: str  #: of the clips

    @property
    def content(self) -> bytes:
        """The content of the manifest's file."""
        return self.manifest.content(self.manifest.root)


@contextmanager
def opened(stores: PathLike, licence: Pairs, card: Pairs | PathLike) -> Iterator[list[Part]]:
    """Give the manifests and stores of a folder STORES or STORES/MANIFEST, and keep writers out of the stores.

    licence: of the clips. card: file of the dataset card. With several manifests, both are pairs MANIFEST=VALUE.
    StoreError for a store that is being written, is damaged or names folders of this machine, and where no
    licence is stated.
    """
    root = on_disk(stores, "push")
    folders = [root] if (root / MANIFEST).exists() else sorted(path.parent for path in root.glob(f"*/{MANIFEST}"))
    paths = {folder: sorted(folder.glob("*.zarr")) for folder in folders}
    if not any(paths.values()):
        raise StoreError(f"{root} has no stores of a manifest; name a folder STORES or STORES/MANIFEST")
    manifests = {folder: Manifest.read(folder / MANIFEST) for folder, inside in paths.items() if inside}
    names = [manifest.name for manifest in manifests.values()]
    given, files = _of_each("--licence", licence, names), _of_each("--card", card, names)
    cards = {name: read_bytes(Path(file), ManifestError).decode(errors="replace") for name, file in files.items()}
    chosen = {name: _licence(name, given.get(name, ""), cards.get(name, "")) for name in names}
    with ExitStack() as stack:
        for path in (path for inside in paths.values() for path in inside):
            if wrong := damage(path):  # before it is locked, which looks like a writer
                raise StoreError(f"{path}: {wrong[0]}")
            stack.enter_context(archive.undisturbed(path))
        yield [
            _part(manifest, paths[folder], chosen[manifest.name], cards.get(manifest.name, ""))
            for folder, manifest in manifests.items()
        ]


def _of_each(option: str, given: Pairs | PathLike, names: list[str]) -> dict[str, str]:
    """Return manifest -> value of an option: VALUE for the only manifest, or MANIFEST=VALUE."""
    if isinstance(given, str | os.PathLike):
        given = (os.fspath(given),)
    if not isinstance(given, Mapping):
        given = [text for text in given if text]
        if len(names) == len(given) == 1 and not given[0].startswith(f"{names[0]}="):
            return {names[0]: given[0]}
    found = pairs(option, given, "MANIFEST=VALUE for each manifest")
    for name in found:
        if name not in names:
            raise unknown("manifest", name, names, option, StoreError)
    return found


def _licence(name: str, given: str, card: str) -> str:
    """Return the licence of the clips of a manifest, from --licence or its card; StoreError if none is stated."""
    licence = given.strip() or licences.stated(card)
    if licences.known(licence) or (given and not licences.is_placeholder(licence)):
        return licence
    if given:
        fault = f"{licence!r} is a placeholder"
    elif licence:
        fault = f"that of its card, {licence!r}, is no identifier that the Hugging Face Hub knows"
    else:
        fault = "its card has no line `licence: ...`" if card else "it has no card"
    raise StoreError(
        f"no licence for the clips of {name}: {fault}; name one with --licence, such as --licence CC-BY-NC-4.0"
    )


def _part(manifest: Manifest, stores: list[Path], licence: str, card: str) -> Part:
    """Return a manifest and its stores, with all facts about them."""
    found = []
    for path in stores:
        store = FeatureStore.open(path)
        store.check_rows(manifest)
        facts = info(store) | {"store": f"{manifest.name}/{path.name}"}
        _check_texts(path, facts)
        found.append(Store(str(facts["store"]), path, facts, leaks(store, manifest)))
    return Part(portable(manifest), found, card, licence)


def portable(manifest: Manifest) -> Manifest:
    """Return the manifest with sources relative to the folder that they all share, which is not named."""
    places = {clip.source: os.path.abspath(manifest.path(clip)) for clip in manifest if clip.source}
    shared = os.path.commonpath([os.path.dirname(place) for place in places.values()]) if places else "/"
    names = {
        source: os.path.basename(place) if shared == "/" else os.path.relpath(place, shared)
        for source, place in places.items()
    }
    return replace(manifest, clips=tuple(replace(clip, source=names.get(clip.source, "")) for clip in manifest))


def _check_texts(path: Path, facts: dict[str, Any]) -> None:
    """Raise StoreError if the recipe, the facts, a failure or a note of a store names a folder of this machine."""
    texts: list[tuple[str, str]] = [(key, str(value)) for key, value in flat(facts["recipe"]).items()]
    texts += [(key, str(value)) for key, value in flat(facts["facts"]).items()]
    texts += [(f"clip {failure['clip_id']!r}", failure["reason"]) for failure in facts["failures"]]
    texts += [("a note", note) for note in facts.get("notes", {})]
    for place, text in texts:
        if found := ABSOLUTE.search(text):
            raise StoreError(
                f"{path} names a folder of this machine: {found[0]} ({place}); extract it again with a manifest of "
                "relative sources, or leave the store out"
            )
