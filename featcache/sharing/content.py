"""The manifests and stores that are pushed, and the facts about them that the card and croissant.json have."""

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featcache.arguments import Pairs, PathLike, pairs
from featcache.errors import ArgumentsError, ManifestError, StoreError
from featcache.files import read_bytes
from featcache.leaks import leaks
from featcache.manifest import Clip, Manifest
from featcache.remote.urls import on_disk
from featcache.sharing import MANIFEST, licences
from featcache.store import archive
from featcache.store.check import damage
from featcache.store.info import info
from featcache.store.reader import FeatureStore, flat
from featcache.wording import unknown

URL = re.compile(r"\b(?:https?|hf|s3|gs|az)://[^\s'\"]+")
#: the beginning of a path in a sentence that is not below the folder of a manifest
OUTSIDE = re.compile(
    r"""(?<![\w/.~)\]-])/+(?:[^\s/][^/\n'"]*/[^\s/]|[^\s/'"]+\.[a-z])  # /a/b.mp4, /a b/c, /x.mp4, file:///x.mp4
    | (?<![\w.])\.\.[/\\]  # ../b.mp4
    | (?<![\w/])~(?:[a-z_][\w-]*)?[/\\]  # ~/b.mp4, ~smith/b.mp4
    | \b[a-z]:[/\\]  # C:\b.mp4
    | \\\\\w  # \\server\b.mp4
    """,
    re.IGNORECASE | re.VERBOSE,
)


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
    for file in files.values():
        if not Path(file).exists():
            raise ArgumentsError(f"card {file} does not exist; --card names a file of the dataset card, in Markdown")
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
    found, shared = [], portable(manifest)
    for path in stores:
        store = FeatureStore.open(path)
        store.check_rows(manifest)
        facts = info(store) | {"store": f"{manifest.name}/{path.name}"}
        _check_texts(path, facts, shared, _shared(manifest))
        found.append(Store(str(facts["store"]), path, facts, leaks(store, manifest)))
    return Part(shared, found, card, licence)


def portable(manifest: Manifest) -> Manifest:
    """Return the manifest with sources relative to the folder that they all share, which is not named."""
    places, shared = _places(manifest), _shared(manifest)
    names = {
        source: os.path.basename(place) if shared == "/" else os.path.relpath(place, shared)
        for source, place in places.items()
    }
    return replace(manifest, clips=tuple(replace(clip, source=names.get(clip.source, "")) for clip in manifest))


def _places(manifest: Manifest) -> dict[str, str]:
    """Return source -> absolute path."""
    return {clip.source: os.path.abspath(manifest.path(clip)) for clip in manifest if clip.source}


def _shared(manifest: Manifest) -> str:
    """Return the folder that all sources share; "/" if there is no other."""
    folders = [os.path.dirname(place) for place in _places(manifest).values()]
    return os.path.commonpath(folders) if folders else "/"


def _check_texts(path: Path, facts: dict[str, Any], manifest: Manifest, shared: str) -> None:
    """Raise StoreError if the recipe, the facts, a failure or a note of a store names a folder of this machine.

    manifest: the portable one. shared: the folder that its sources start from.
    """
    clips = {clip.clip_id: clip for clip in manifest}
    texts = [(key, str(value), None) for part in ("recipe", "facts") for key, value in flat(facts[part]).items()]
    rows = [(f"clip {each['clip_id']!r}", each["reason"], clips[each["clip_id"]]) for each in facts["failures"]]
    rows += [(f"clip {ids[0]!r}", note, clips[ids[0]]) for note, ids in facts.get("notes", {}).items()]
    for place, text, clip in [*texts, *rows]:
        if found := _private(text, clip, shared):
            again = "extract it again without that path"
            if clip and shared != "/":
                again = (
                    f"put a manifest with relative sources into {shared}, and extract with it again "
                    "(--retry-failed for clips that failed)"
                )
            raise StoreError(
                f"{path} names a folder of this machine: {found} ({place}); {again}, or leave the store out"
            )


def _private(text: str, clip: Clip | None, shared: str) -> str:
    """Return the first word that names a folder outside the shared manifest, in a text about a clip or a whole store.

    clip: of the portable manifest. shared: the folder that all sources share.
    """
    text = URL.sub("", text)
    if found := OUTSIDE.search(text):
        return text[found.start() :].split()[0]
    if not clip:
        return ""
    text = text.replace("\\", "/")
    if clip.source and (found := re.search(rf"[^\s'\"]*/{re.escape(clip.source)}", text)):
        return found[0]
    folders = [re.escape(name) for name in shared.split("/") if name]
    paths = [rf"{above}/{below}\b" for above, below in itertools.pairwise(folders)]
    paths += [rf"{name}/[^\s/]+\.[A-Za-z]\w*" for name in folders[-1:]]
    found = re.search("|".join(rf"(?<![\w.-]){path}" for path in paths), text.replace(clip.source, ""))
    return found[0] if found else ""
