"""What is to be imported: the keys of a foreign file, or a store of ours, matched with a manifest by clip id."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import bridges
from featcache.bridges import External, Times
from featcache.errors import ConfigError, FormatError
from featcache.manifest import Manifest
from featcache.store import FeatureStore

SHOWN = 3  #: ids of either side that an error shows
AT_ONCE = 64  #: rows of a store that are read together; they are asked for in order
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  #: of a store; it becomes a folder's name


@dataclass
class Imported:
    """What became of one key of a file."""

    key: str
    path: Path  #: of the store
    matched: list[str] = field(default_factory=list)  #: clips of the manifest that the file has
    missing: list[str] = field(default_factory=list)  #: clips of the manifest that it lacks
    extra: list[str] = field(default_factory=list)  #: clips of the file that the manifest lacks
    edited: list[tuple[str, str]] = field(default_factory=list)  #: (id, how) of clips decoded otherwise: not taken
    failed: list[tuple[str, str]] = field(default_factory=list)  #: (id, reason) of matched clips that are no good
    notes: list[str] = field(default_factory=list)  #: what was changed on the way


@dataclass(frozen=True)
class Source:
    """What is to become one store."""

    key: str
    table: External
    recipe: dict[str, Any]  #: without "dtype" while that is the file's to say
    windows: int  #: T, at least
    report: Imported
    other: dict[str, tuple[str, str]] = field(default_factory=dict)  #: clip id -> "failed" or "absent", and why


def from_file(
    path: Path,
    format: str,
    manifest: Manifest,
    folder: Path,
    ids: Sequence[str] | None,
    names: Mapping[str, str] | None,
    modalities: Mapping[str, str] | None,
) -> list[Source]:
    """The keys of a foreign file as sources; FormatError when a key has no clip of the manifest."""
    tables: dict[str, External] = bridges.load(format).read(path, ids)
    wanted = names or {key: store_name(key) for key in tables}
    for key in (*wanted, *(modalities or {})):
        if key not in tables:
            raise ConfigError(f"{path} has no key {key!r}; it has: {', '.join(tables)}")
    _check_names(wanted)
    digest = file_sha256(path)
    clip_ids = [clip.clip_id for clip in manifest]
    sources = []
    for key, name in wanted.items():
        table = tables[key]
        own, known = set(table.ids), set(clip_ids)
        report = Imported(key, folder / f"{name}.zarr")
        report.matched = [clip_id for clip_id in clip_ids if clip_id in own]
        report.missing = [clip_id for clip_id in clip_ids if clip_id not in own]
        report.extra = [clip_id for clip_id in table.ids if clip_id not in known]
        if not report.matched:
            raise FormatError(
                f"{path}: no clip of {key} is in manifest {manifest.name!r}; the file has {_some(table.ids)}, "
                f"the manifest {_some(clip_ids)}"
            )
        external = {
            "format": format,
            "file": path.name,
            "sha256": digest,
            "key": key,
            "ids_sha256": hashlib.sha256(json.dumps(list(table.ids)).encode()).hexdigest(),
            **({"recipe": json.loads(json.dumps(table.recipe, default=str))} if table.recipe else {}),
        }
        recipe = {
            "recipe": "external",
            "extractor": name,
            "version": 1,
            "modality": (modalities or {}).get(key, str(table.recipe.get("modality", key.lower()))),
            "weights_sha256": "external",
            "external": external,
            "plan": "external",
        }
        sources.append(Source(key, table, recipe, 1, report, _lacking(report.missing, path)))
    return sources


def from_store(
    path: Path,
    manifest: Manifest,
    folder: Path,
    names: Mapping[str, str] | None,
    modalities: Mapping[str, str] | None,
    dtype: str | None,
    ids: Sequence[str] | None,
) -> Source:
    """The rows of a store of ours whose clips are the same in the manifest; its recipe is kept as it is."""
    if modalities or ids is not None or dtype not in (None, FeatureStore.open(path).layout.dtype):
        raise ConfigError(f"{path} is a store: ids, modality and dtype are taken over with its recipe")
    store = FeatureStore.open(path)
    wanted = dict(names or {store.modality: path.stem})
    if list(wanted) != [store.modality]:
        raise ConfigError(f"{path} has no key {', '.join(wanted)!r}; its only one is its modality, {store.modality}")
    _check_names(wanted)
    target = folder / f"{wanted[store.modality]}.zarr"
    if target.resolve() == path.resolve():
        raise ConfigError(f"{path} would be imported into itself; choose another --stores folder")
    report = Imported(store.modality, target)
    row_of = {clip_id: row for row, clip_id in enumerate(store.clip_ids)}
    taken, other, states = [], {}, store.frame()["state"].tolist()
    for clip in manifest:
        row = row_of.get(clip.clip_id)
        changes = "" if row is None else _changes(store.rows[row], clip.identity())
        if row is not None and changes:
            report.edited.append((clip.clip_id, changes))
            other[clip.clip_id] = ("failed", f"edited since {path.name} was made: {changes}")
        elif row is None or not store.state[row]:
            report.missing.append(clip.clip_id)
        else:
            report.matched.append(clip.clip_id)
            if store.length[row]:
                taken.append(row)
            else:
                other[clip.clip_id] = (states[row], store.failures[row])
    known = {clip.clip_id for clip in manifest}
    report.extra = [clip_id for clip_id in store.clip_ids if clip_id not in known]
    if not taken:
        edited = f"; edited since: {_some([clip_id for clip_id, _ in report.edited])}" if report.edited else ""
        raise FormatError(
            f"{path}: no clip is done and in manifest {manifest.name!r}; the store has {_some(store.clip_ids)}, "
            f"the manifest {_some([clip.clip_id for clip in manifest])}{edited}"
        )
    other |= _lacking(report.missing, path, "absent" if store.recipe.get("recipe") == "external" else "failed")
    return Source(store.modality, store_table(store, taken), store.recipe, store.windows, report, other)


def _lacking(missing: list[str], path: Path, state: str = "absent") -> dict[str, tuple[str, str]]:
    return dict.fromkeys(missing, (state, f"not in {path.name}"))


def store_table(store: FeatureStore, rows: Sequence[int] | None = None) -> External:
    """A store's rows that are done (or these of them) as a bridge sees features."""
    there = np.flatnonzero(store.length > 0).tolist() if rows is None else list(rows)

    @lru_cache(maxsize=1)
    def some(first: int) -> NDArray[Any]:
        return store.read(there[first : first + AT_ONCE])

    def row(k: int) -> NDArray[Any]:
        return some(k // AT_ONCE * AT_ONCE)[k % AT_ONCE, : store.length[there[k]]]

    def times(k: int) -> Times:
        t = store.length[there[k]]
        return store.window_start[there[k], :t], store.window_stop[there[k], :t]

    known = np.isfinite(store.window_start[there]) | np.isfinite(store.window_stop[there])
    ids = [store.clip_ids[k] for k in there]
    return External(ids, row, times if (known & store.present[there]).any() else None, store.recipe)


def file_sha256(path: Path) -> str:
    """Digest of a file's bytes; of a folder, of the sorted names and digests of the files in it."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for part in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{part.relative_to(path).as_posix()}\0{file_sha256(part)}\n".encode())
    return digest.hexdigest()


def store_name(key: str) -> str:
    """What the store of a key is called unless it is given a name."""
    return re.sub(r"[^a-z0-9_.-]+", "_", key.lower()).strip("._-") or "features"


def _check_names(names: Mapping[str, str]) -> None:
    for key, name in names.items():
        if not NAME.fullmatch(name):
            raise ConfigError(f"{key}={name}: a store's name has letters, digits and _ . - only, none of . - first")
        if list(names.values()).count(name) > 1:
            raise ConfigError(f"two keys would become the store {name!r}; name them apart with --key KEY=NAME")


def _changes(mine: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """What differs between a clip as it was decoded and as it is now."""
    return ", ".join(f"{key} {mine[key]!r} then, {theirs[key]!r} now" for key in mine if mine[key] != theirs[key])


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(repr(clip_id) for clip_id in ids[:SHOWN])
    return f"{shown}, ... ({len(ids)})" if len(ids) > SHOWN else shown
