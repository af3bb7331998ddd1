"""The features that runs read, of other clips: from stores of the same recipe, or extracted by that very recipe.

A recipe is known by its `key`. Features that a store lacks are held in memory, a few hundred clips at a time, or kept
in a folder of stores by `keep`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import FeatureStore
from featcache.errors import ConfigError, FeatcacheError, MediaAbsentError, MediaError, StoreError
from featcache.extractors import Extractor, split_view
from featcache.manifest import Clip
from featcache.progress import Progress
from featcache.store import ABSENT, DONE, FAILED, NOT_TRIED
from featcache.store.provenance import Files, replaced, unfinished
from featcache.store.reader import check_recorded, recipe_differences, recipe_digest
from featcache.windows import Caption, Plan
from featcache.wording import amount, first, quoted
from pipelines.config import RunConfig
from pipelines.data.stores import open_manifest, open_store
from pipelines.extraction.extract import WHOLE_CLIP, extract, extract_rows, recipe_of
from pipelines.extraction.extractors import remade
from pipelines.predicting.clips import Source
from pipelines.training.runs import NotTrainedError, Recorded, Run

CHUNK = 256  #: most clips whose features are read or extracted at a time
SHOWN = 3  #: differences between two recipes in a message
ALL, CLIPS, CAPTIONS = "all", "clips", "captions"
OF_FILES = ("file", "sha256", "ids_sha256")  #: entries of an imported store's recipe that name its files

Features = NDArray[np.floating]
Found = dict[str, Features | FeatcacheError]  #: key of a recipe -> features of a clip (t, *row_shape), or the error


@dataclass(frozen=True)
class Wanted:
    """Features that a run reads."""

    run: str  #: id of the first run that reads them
    store: str  #: name of the store that this run has read
    recipe: dict[str, Any]
    rows: str = ALL  #: the rows of a manifest that have them: all, or in retrieval clips or captions

    def has(self, clip: Clip) -> bool:
        """Return whether a row of a manifest has these features; a row of a manifest of captions has only a caption."""
        if self.rows == CAPTIONS:
            return bool(clip.of or clip.caption.strip())
        return self.rows == ALL or not clip.of


def key(recipe: Mapping[str, Any]) -> str:
    """Return a digest of a recipe; stores that were imported from different files in the same way have the same."""
    return recipe_digest(_comparable(recipe))


def _comparable(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe without the names and digests of the files that an imported store was made from."""
    external = recipe.get("external")
    if not isinstance(external, dict) or not isinstance(external.get("files"), list):
        return dict(recipe)
    entries = [{k: v for k, v in file.items() if k not in OF_FILES} for file in external["files"]]
    different = [entry for k, entry in enumerate(entries) if entry and entry not in entries[:k]]
    return {**recipe, "external": {**external, "files": different}}


# ----------------------------------------------------------------------------------------- the features that runs read


def recorded(run: Run, places: Sequence[Path]) -> tuple[dict[str, Recorded], dict[str, tuple[str, ...]]]:
    """Return modality -> recipe and windows of the features that a run has read, and label -> names of its classes.

    Runs of earlier versions do not record them: their stores are searched in these folders of all stores. ConfigError
    if they are not there.
    """
    facts, config = run.facts, run.config
    if not facts.features:
        return _from_stores(run, places)
    try:
        for m in config.feeds:
            check_recorded(facts.features[m].recipe, facts.features[m].windows, facts.spec.shapes[m], f"features.{m}")
        if {label: len(names) for label, names in facts.classes.items()} != facts.spec.classes:
            raise ConfigError("classes does not fit spec.classes")
    except (ConfigError, KeyError) as error:
        place = run.folder / "run.json"
        raise NotTrainedError(
            f"{place} is damaged ({error}); train the run again with `featcache train-head`"
        ) from None
    return facts.features, facts.classes


def _from_stores(run: Run, places: Sequence[Path]) -> tuple[dict[str, Recorded], dict[str, tuple[str, ...]]]:
    facts, config = run.facts, run.config
    for place in places:
        try:
            manifest = open_manifest(place, config.manifest)
            found = {m: _store(config, m, place) for m in config.feeds}
        except FeatcacheError:
            continue
        same = all(store.recipe_sha256 == facts.recipes.get(m) for m, store in found.items())
        if manifest.sha256 == facts.read.get("manifest") and same:
            classes = config.task.taught(manifest, config.source)
            return {m: Recorded(store.recipe, store.windows) for m, store in found.items()}, classes
    names = ", ".join(f"{config.manifest}/{feed.store}.zarr" for feed in config.feeds.values())
    raise ConfigError(
        f"run {config.id} was trained by an earlier version, which recorded no recipe of its features, and its stores "
        f"({names}) are not in {first(map(str, places))}; name the folder of these stores with --stores, or train the "
        "run again"
    )


def _store(config: RunConfig, modality: str, place: Path) -> FeatureStore:
    feed = config.feeds[modality]
    manifest = open_manifest(place, config.manifest if feed.captions in ("", "own") else feed.captions)
    return open_store(place / manifest.name, feed.store, manifest)


# -------------------------------------------------------------------------------------------------------------- stores


def matched(source: Source, wanted: Mapping[str, Wanted]) -> dict[str, FeatureStore]:
    """Return key -> the source's store of that recipe; FeatcacheError for a store of another recipe, or of no use."""
    stores = list(_opened(source, wanted))
    by_key = {key(store.recipe): store for store in stores}
    for one in wanted.values():
        for store in stores if key(one.recipe) not in by_key else ():
            same = store.path.stem == one.store or store.name == one.recipe["extractor"]
            if same and key(store.recipe) not in wanted:
                raise _other_recipe(
                    f"store {store.path} was made by another recipe",
                    one,
                    store.recipe,
                    "the store",
                    "name stores of the run's recipe, or the media and another --stores folder, or none, to extract it",
                )
    for store in stores if source.named else ():
        if key(store.recipe) not in wanted:
            runs, names = (
                dict.fromkeys(texts) for texts in zip(*((w.run, w.store) for w in wanted.values()), strict=True)
            )
            raise ConfigError(
                f"store {store.path} holds features by {store.name}, which run {first(runs)} does not read; it reads: "
                f"{first(names)}"
            )
    return {k: by_key[k] for k in wanted if k in by_key}


def _opened(source: Source, wanted: Mapping[str, Wanted]) -> Iterator[FeatureStore]:
    """Yield the stores of the source's clips; stores of a folder that are not needed may be damaged."""
    names = {one.store for one in wanted.values()}
    for path in source.stores:
        try:
            store = FeatureStore.open(path)
            store.check_rows(source.manifest, extensible=True)
        except StoreError:
            if source.named or path.stem in names:
                raise
        else:
            yield store


def lacks(store: FeatureStore | None, one: Wanted, source: Source) -> bool:
    """Return whether a clip to predict has features that the store lacks, because the clip was not tried."""
    rows = [row for row in source.rows if one.has(source.manifest.clips[row])]
    return bool(rows) if store is None else any(row >= len(store) or store.state[row] == NOT_TRIED for row in rows)


def failed(store: FeatureStore, one: Wanted, source: Source) -> bool:
    """Return whether a clip to predict has failed and can be tried again, because its file is there."""
    rows = [row for row in source.rows if one.has(source.manifest.clips[row]) and row < len(store)]
    clips = (source.manifest.clips[row] for row in rows if store.state[row] == FAILED)
    return not store.archived and any(clip.source and source.manifest.path(clip).exists() for clip in clips)


def outdated(store: FeatureStore, one: Wanted, source: Source, files: Files) -> list[str]:
    """Return the ids of clips to predict whose features in the store are not known to be of their present files."""
    again = replaced(store.path, source.manifest, files).keys() | unfinished(store)
    clips = (source.manifest.clips[row] for row in source.rows if row in again)
    return [clip.clip_id for clip in clips if one.has(clip)]


def _other_recipe(problem: str, one: Wanted, recipe: Mapping[str, Any], where: str, fix: str) -> ConfigError:
    differences = recipe_differences(_comparable(one.recipe), _comparable(recipe))
    lines = first((f"{name} is {a!r} in the run and {b!r} in {where}" for name, a, b in differences), SHOWN, "; ")
    return ConfigError(f"{problem} than the {one.store} that run {one.run} has read: {lines}; {fix}")


# ---------------------------------------------------------------------------------------------------------- extraction


@dataclass
class Loaded:
    """The extractors of the features that runs read, each loaded when it is first needed."""

    wanted: Mapping[str, Wanted]
    weights: Mapping[str, str]  #: extractor, without its view -> a file with its weights, or the folder of its model
    device: str
    workers: int
    note: Callable[[str], None]  #: receives remarks for the user, each once
    made: dict[str, Extractor] = field(default_factory=dict)
    remarks: set[str] = field(default_factory=set)

    def extractor(self, k: str) -> Extractor:
        """Return the extractor of a recipe; FeatcacheError if none here has this very recipe."""
        if k not in self.made:
            one = self.wanted[k]
            self.made[k] = _remade(one, self.weights, self.device)
        return self.made[k]

    def plans(self, keys: Sequence[str]) -> Iterator[tuple[Plan, list[str]]]:
        """Yield window plans with recipes that are extracted together, from a source that is decoded once for them.

        Recipes of whole clips go with any plan. An extractor with two recipes needs two extractions.
        """
        groups: dict[tuple[str, int], list[str]] = {}
        plans = [self.wanted[k].recipe["plan"] for k in keys if self.wanted[k].recipe["plan"] != WHOLE_CLIP]
        names: list[tuple[str, str]] = []
        for k in keys:
            plan = self.wanted[k].recipe["plan"]
            plan = (plans or [str(Plan())])[0] if plan == WHOLE_CLIP else plan
            name = self.extractor(k).name, plan
            groups.setdefault((plan, names.count(name)), []).append(k)
            names.append(name)
        for (plan, _), together in groups.items():
            yield Plan.parse(plan), together

    def dtypes(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the name of each extractor -> the dtype of its features."""
        return {self.extractor(k).name: self.wanted[k].recipe["dtype"] for k in keys}

    def remark(self, notes: Iterable[str]) -> None:
        """Report remarks that were not reported before."""
        for note in notes:
            if note not in self.remarks:
                self.remarks.add(note)
                self.note(note)


def check_names(keys: Sequence[str], stores: Mapping[str, FeatureStore], loaded: Loaded, folder: Path) -> None:
    """Raise ConfigError if features of two recipes would be kept in one store of a folder.

    keys: of the features to extract. stores: key -> store, for those that are in the folder.
    """
    taken = {store.path.stem: k for k, store in stores.items()}
    for k in keys:
        if (other := taken.setdefault(name := loaded.extractor(k).store, k)) != k:
            one, two = loaded.wanted[other], loaded.wanted[k]
            differences = recipe_differences(_comparable(one.recipe), _comparable(two.recipe))
            lines = first((f"{name} is {a!r} and {b!r}" for name, a, b in differences), SHOWN, "; ")
            raise ConfigError(
                f"runs {one.run} and {two.run} read {name} of two recipes ({lines}), and {folder} can keep one; leave "
                "--stores out, or predict with each run and a --stores folder of its own"
            )


def check_files(keys: Sequence[str], source: Source, loaded: Loaded) -> None:
    """Raise ConfigError if features are to be extracted of files, and no clip to predict has one."""
    names = [loaded.wanted[k].store for k in keys if not isinstance(loaded.extractor(k).window, Caption)]
    if names and not any(source.manifest.clips[row].source for row in source.rows):
        raise ConfigError(
            f"no clip of {source.where} has a source, so {first(names)} cannot be extracted; name the stores that have "
            "these features"
        )


def _remade(one: Wanted, weights: Mapping[str, str], device: str) -> Extractor:
    recipe = one.recipe
    name = recipe["extractor"]
    if recipe.get("recipe") == "external":
        raise ConfigError(
            f"run {one.run} reads {one.store}, which was imported from another tool, so it cannot be extracted from "
            "media; name stores that have it"
        )
    try:
        extractor = remade(recipe, weights.get(split_view(name)[0], ""), device)
        plan = Plan() if recipe.get("plan") == WHOLE_CLIP else Plan.parse(str(recipe.get("plan")))
        here = recipe_of(extractor, plan, recipe["dtype"])
    except FeatcacheError as error:
        raise type(error)(f"the features {one.store} of run {one.run} cannot be extracted: {error}") from error
    if key(here) != key(recipe):
        decoders = {**recipe.get("decoders", {})}
        wanted = [f"{k} {v}" for k, v in decoders.items() if v != here["decoders"].get(k)]
        fix = f"install {first(wanted)}, or name stores that have them" if wanted else "name stores that have them"
        raise _other_recipe(f"extractor {name} makes other features here", one, here, "this installation", fix)
    return extractor


def keep(
    source: Source, keys: Sequence[str], loaded: Loaded, stores: Path, progress: Progress
) -> dict[str, FeatureStore]:
    """Extract all clips of a source into a folder of stores, and return key -> store.

    The stores are those of `featcache extract --retry-failed --renew`. StoreError if another process has features that
    are to be extracted again.
    """
    folder, size = stores / source.manifest.name, len(source.manifest)
    passes = [*loaded.plans(keys)]
    for n, (plan, together) in enumerate(passes):
        extractors = [loaded.extractor(k) for k in together]
        outcome = extract(
            source.manifest,
            extractors,
            stores,
            plan=plan,
            dtype=loaded.dtypes(together),
            retry_failed=True,
            renew=True,
            workers=loaded.workers,
            progress=part(progress, n * size, size, len(passes) * size),
        )
        loaded.remark(outcome.notes)
    kept = {k: FeatureStore.open(folder / f"{loaded.extractor(k).store}.zarr") for k in keys}
    files = Files()
    for k, store in kept.items():
        if left := outdated(store, loaded.wanted[k], source, files):
            raise StoreError(
                f"{store.path}: {amount(len(left), 'clip')} could not be extracted again ({quoted(left)}): another "
                "process writes them, or their files were replaced just now; run this again"
            )
    return kept


def part(progress: Progress, before: int, size: int, total: int) -> Progress:
    """Return the progress of a part that counts `size` of `total`, behind the parts `before`."""
    return lambda done, of: progress(before + (done * size // of if of else 0), total)


def read(
    source: Source, stores: Mapping[str, FeatureStore], loaded: Loaded, most: int, progress: Progress
) -> Iterator[tuple[int, Found]]:
    """Yield each row of the source with its features, in the source's order. progress: (rows read, rows).

    most: rows that may be in memory.
    """
    clips, count = source.manifest.clips, min(most, CHUNK)
    for begin in range(0, len(source.rows), count):
        rows = source.rows[begin : begin + count]
        found: dict[int, Found] = {row: {} for row in rows}
        lacking: dict[str, list[int]] = {}
        for k, one in loaded.wanted.items():
            needed = [row for row in rows if one.has(clips[row])]
            stored = _read_store(stores[k], needed) if k in stores else {}
            for row, value in stored.items():
                found[row][k] = value
            if left := [row for row in needed if row not in stored]:
                lacking[k] = left
        passes = [*loaded.plans(list(lacking))]
        chunk = part(progress, begin, len(rows), len(source.rows))
        for n, (plan, together) in enumerate(passes):
            wanted = {loaded.extractor(k): lacking[k] for k in together}
            made, notes = extract_rows(
                source.manifest,
                wanted,
                plan=plan,
                dtypes=loaded.dtypes(together),
                workers=loaded.workers,
                progress=part(chunk, n * len(rows), len(rows), len(passes) * len(rows)),
            )
            loaded.remark(note.rpartition("; ")[0] for note in notes)  # without the number of the clips in this part
            for k in together:
                for row, value in made[loaded.extractor(k).name].items():
                    found[row][k] = value
        yield from found.items()
        progress(begin + len(rows), len(source.rows))


def _read_store(store: FeatureStore, rows: Sequence[int]) -> dict[int, Features | FeatcacheError]:
    """Return row -> its features, or the reason why it has none; rows that were not tried are left out."""
    tried = [row for row in rows if row < len(store) and store.state[row] != NOT_TRIED]
    done = [row for row in tried if store.state[row] == DONE]
    values = {row: x[: int(store.length[row])] for row, x in zip(done, store.read(done), strict=True)} if done else {}
    found: dict[int, Features | FeatcacheError] = {**values}
    for row in tried:
        if row not in values:
            kind = MediaAbsentError if store.state[row] == ABSENT else MediaError
            found[row] = kind(store.failures.get(row, "unknown reason"))
    return found
