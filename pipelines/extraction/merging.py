"""The parts of all shards -> whole stores, with the bytes that one process would have written."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from featcache.errors import StoreError
from featcache.leaks import WARNING, leaks
from featcache.manifest import Manifest
from featcache.progress import Progress, silent
from featcache.store import FAILED, FeatureStore, StoreWriter
from featcache.store.copying import Place, copy
from featcache.store.provenance import Files, replaced
from featcache.store.reader import recipe_differences
from featcache.store.sources import check_sources
from featcache.store.writer import check_folder, drop_aside, is_written, left, set_aside, stored_dtype
from featcache.wording import first
from pipelines.extraction.extract import Extraction, notes_of_replaced
from pipelines.extraction.shards import PARTS, Shard, parts, shard_of, stores_of_parts

RENEW = "`featcache extract` with --renew and the --shards of their parts extracts them again, for another merge"
AGAIN = "run `featcache extract` with --shards {} again"


@dataclass(frozen=True)
class _Whole:
    """A store that is to be made, and its parts, which are finished and fit each other."""

    path: Path
    parts: dict[Shard, FeatureStore]

    @property
    def first(self) -> FeatureStore:
        """The first part."""
        return next(iter(self.parts.values()))


def merge(
    manifest: Manifest,
    names: Sequence[str],
    stores: Path,
    progress: Progress = silent,
    there: Path | None = None,
) -> Extraction:
    """Make the stores of these names from the parts of all shards, and write the manifest next to them.

    names: of stores; none for all that have parts. there: the folder with the parts (default: that of the manifest in
    `stores`). Rows that a store has already stay, except that failed ones are replaced when their part differs. An
    interrupted merge is continued. The parts stay as they are.
    progress: called as progress(done, total) with the rows of all stores.
    Raises StoreError before anything is written if parts are missing, unfinished or damaged, or differ.
    """
    home, outcome, began = stores / manifest.name, Extraction(), time.monotonic()
    check_folder(home, manifest)
    check_sources(home, manifest)
    there = there or home
    if not (names or (names := stores_of_parts(there))):
        raise StoreError(f"{home} has no parts; `featcache extract` with --shards i/n makes them")
    wholes = {name: _whole(home, there, name, manifest) for name in names}
    done, total, taken = 0, len(manifest) * len(wholes), set[int]()

    def report(before: int, rows: int, of: int) -> None:
        progress(before + len(manifest) - of + rows, total)

    for name, whole in wholes.items():
        taken.update(_fill(whole, manifest, outcome, partial(report, done)))
        done += len(manifest)
        outcome.clips = len(taken)
        outcome.stores[name] = store = FeatureStore.open(whole.path)
        if not store.counts()["not tried"]:
            drop_aside(whole.path)
        outcome.notes += notes_of_replaced({name: replaced(whole.path, manifest, Files())}, manifest, RENEW)
        outcome.notes += [f"{name}: {WARNING}: {leak}" for leak in leaks(store, manifest)]
    outcome.seconds = time.monotonic() - began
    return outcome


def _whole(home: Path, there: Path, name: str, manifest: Manifest) -> _Whole:
    """Open the parts of a store; StoreError unless they are finished, fit each other and have all clips."""
    found = parts(there, name)
    if not found:
        others = first(stores_of_parts(there)) or "none"
        raise StoreError(f"{there / PARTS} has no parts of {name}; there are parts of: {others}")
    if len(counts := sorted({shard.of for shard in found})) > 1:
        raise StoreError(
            f"{there / PARTS} has parts of {name} of {' and of '.join(map(str, counts))} shards; remove those of all "
            "numbers of shards but one"
        )
    needed = {shard_of(clip.clip_id, counts[0]) for clip in manifest}
    if missing := sorted(needed - set(found)):
        raise StoreError(
            f"{there / PARTS} lacks {len(missing)} of {len(needed)} parts of {name}; run `featcache extract` with "
            f"--shards {first(map(str, missing))}"
        )
    opened = {shard: FeatureStore.open(path) for shard, path in found.items()}
    _check_clips(name, opened)
    for shard, store in opened.items():
        store.check_rows(shard.clips(manifest), extensible=True)
        check_sources(store.path.parent, manifest)
    if behind := [str(shard) for shard, store in opened.items() if len(store) < len(shard.clips(manifest).clips)]:
        raise StoreError(
            f"{name}: {_parts(behind)} without clips that were appended to manifest {manifest.name!r}; "
            f"{AGAIN.format(first(behind))}"
        )
    _check_finished(name, opened)
    _check_recipes(name, opened)
    for store in opened.values():
        _read(store)
    return _Whole(home / f"{name}.zarr", opened)


def _check_clips(name: str, opened: dict[Shard, FeatureStore]) -> None:
    """Raise StoreError if a clip is in two parts, or in the part of another shard."""
    part_of: dict[str, Shard] = {}
    for shard, store in opened.items():
        for clip_id in store.clip_ids:
            if clip_id in part_of:
                raise StoreError(
                    f"clip {clip_id!r} of {name} is in two parts, {part_of[clip_id]} and {shard}, and belongs to "
                    f"{shard_of(clip_id, shard.of)}; remove {store.path.parent} if it was copied, else the other one"
                )
            part_of[clip_id] = shard
    for clip_id, shard in part_of.items():
        if not shard.has(clip_id):
            raise StoreError(
                f"clip {clip_id!r} of {name} is in part {shard}, and belongs to {shard_of(clip_id, shard.of)}; "
                f"rename {opened[shard].path.parent} as it was, or remove it and {AGAIN.format(shard)}"
            )


def _check_finished(name: str, opened: dict[Shard, FeatureStore]) -> None:
    """Raise StoreError unless each clip of all parts was tried, and no process writes them."""
    if written := [str(shard) for shard, store in opened.items() if is_written(store.path)]:
        raise StoreError(f"{name}: {_parts(written)} being written by other processes; merge when they have finished")
    unfinished = {shard: store for shard, store in opened.items() if store.counts()["not tried"]}
    if unfinished:
        clips = first(f"{left(store)} of {len(store)} of {shard}" for shard, store in unfinished.items())
        raise StoreError(
            f"{name}: {_parts(unfinished)} unfinished, with clips left: {clips}; "
            f"{AGAIN.format(first(map(str, unfinished)))}"
        )


def _parts(shards: Collection[object]) -> str:
    """Return "part 1/4 is" or "parts 1/4, 2/4 are"."""
    return f"part{'s' * (len(shards) > 1)} {first(map(str, shards))} {'are' if len(shards) > 1 else 'is'}"


def _check_recipes(name: str, opened: dict[Shard, FeatureStore]) -> None:
    """Raise StoreError unless all parts have the same recipe and rows of one shape."""
    dtypes = {shard: store.layout.dtype for shard, store in opened.items()}
    halves = [shard for shard, dtype in dtypes.items() if dtype == "float16"]
    for (one, a), (other, b) in pairwise(opened.items()):
        differences = [each for each in recipe_differences(a.recipe, b.recipe) if each[0] != "dtype"]
        if differences or a.row_shape != b.row_shape:
            values = "; ".join(f"{key}: {here!r} and {there!r}" for key, here, there in differences[:3])
            raise StoreError(
                f"parts {one} and {other} of {name} were made by different recipes ({values or 'shapes of rows'}); "
                f"remove the folder of the wrong one, and {AGAIN.format(f'{one} or {other}')}"
            )
    if 0 < len(halves) < len(opened):
        wide = first(str(shard) for shard in opened if shard not in halves)
        raise StoreError(
            f"{len(halves)} of {len(opened)} parts of {name} are float16, and {wide} needs float32: "
            f"{AGAIN.format(first(map(str, halves)))}, and they are made in float32, too"
        )


def _read(store: FeatureStore) -> None:
    """Read all of a part, which compares it with its digests; StoreError if it is damaged."""
    store.verify()
    for name in ("length", "window_start", "window_stop", "failures", "notes"):
        getattr(store, name)


def _fill(whole: _Whole, manifest: Manifest, outcome: Extraction, progress: Progress) -> list[int]:
    """Copy the rows of the parts that the store does not have; return them."""
    first_part, name = whole.first, whole.path.stem
    if stored_dtype(whole.path) == "float16" != first_part.layout.dtype:
        set_aside(whole.path, "float16")
        outcome.notes.append(f"{name}: parts need float32; the store is made again in float32")
    for part in whole.parts.values():
        if part.facts != first_part.facts:
            versions = recipe_differences(first_part.facts, part.facts)
            words = "; ".join(f"{key}: {here!r} and {there!r}" for key, here, there in versions)
            outcome.notes.append(f"{name}: parts differ in {words}; the store records those of {first_part.path}")
            break
    with StoreWriter.open(
        whole.path,
        manifest,
        first_part.recipe,
        row_shape=first_part.row_shape,
        windows=max(part.windows for part in whole.parts.values()),
        facts=first_part.facts,
    ) as writer:
        writer.renew(_renewed(whole, manifest))
        manifest.write(whole.path.parent / "manifest.csv")
        places = _places(writer, whole, manifest)
        copy(writer, places, progress)
        if others := len(writer.pending):
            outcome.notes.append(f"{name}: {others} rows are being written by another process: merge again")
    return [place.row for place in places]


def _renewed(whole: _Whole, manifest: Manifest) -> list[int]:
    """Return the rows of a store that are of files that were replaced since, and whose parts have the present ones."""
    files = Files()
    outdated = replaced(whole.path, manifest, files, settle=True)
    still = {
        store.clip_ids[row]
        for shard, store in (whole.parts if outdated else {}).items()
        for row in replaced(store.path, shard.clips(manifest), files)
    }
    return [row for row in outdated if manifest.clips[row].clip_id not in still]


def _places(writer: StoreWriter, whole: _Whole, manifest: Manifest) -> list[Place]:
    """The pending rows of a store, and the failed rows whose part has something else by now."""
    row_of = {clip_id: (part, row) for part in whole.parts.values() for row, clip_id in enumerate(part.clip_ids)}
    before, fresh = writer.store, set(writer.pending)
    writer.retry_failed()
    places = []
    for row in writer.pending:
        part, there = row_of[manifest.clips[row].clip_id]
        same = part.state[there] == FAILED and part.failures[there] == before.failures.get(row)
        if row in fresh or not same:
            places.append(Place(row, part, there))
    return places
