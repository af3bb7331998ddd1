"""The experiment of a folder of stores: the default one, or the one that a user chooses by words (`Choice`)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from featcache import FeatureStore, Manifest
from featcache.columns import features_of
from featcache.errors import ConfigError, StoreError, WordError
from featcache.store import DONE, NOT_TRIED
from featcache.wording import first
from pipelines.config import OWN, Feed, RunConfig
from pipelines.data.captions import clip_rows
from pipelines.data.lacking import featureless
from pipelines.data.stores import open_manifest
from pipelines.experiments._choice import ALL, Choice, Shift, shifts_of, split, stores_of
from pipelines.experiments._experiment import Experiment
from pipelines.experiments._fitting import faults, with_starts
from pipelines.experiments._recipes import Recipe, chosen_task, recipe, row_names, wanted
from pipelines.experiments._rows import SEEDS, Row, runs
from pipelines.experiments._suite import SUPERVISED
from pipelines.tasks import Task, load

NO_SUPERVISED = (
    "NO SUPERVISED ROW: no clip has the split 'test', so the train clips of each target are its test clips, and a head "
    "that learned their labels would be tested on what it learned. Give some clips of each domain the split 'test' for "
    "a row supervised-target."
)
Feeds = dict[str, Feed]


@dataclass(frozen=True)
class Stores:
    """The stores of a folder, and those of the captions of its clips."""

    folder: Path
    manifest: Manifest
    usable: dict[str, FeatureStore]  #: finished stores with features, by name
    reasons: dict[str, str]  #: name of any other store -> the reason why it cannot be used
    captions: dict[str, tuple[FeatureStore, str]]  #: name -> store of captions, and its manifest as in `Feed.captions`

    @property
    def features(self) -> dict[str, FeatureStore]:
        """The usable stores whose names do not describe clips."""
        return {name: self.usable[name] for name in features_of(self.usable)}


@dataclass(frozen=True)
class Sides:
    """The domains that can be the source or the target of runs on some feeds."""

    unfit: dict[tuple[str, str], str]  #: domain, side -> the reason why it is not there; "" if that is meant
    domains: tuple[str, ...]
    test_split: str

    def of(self, side: str) -> list[str]:
        """The domains that can be this side."""
        return [domain for domain in self.domains if (domain, side) not in self.unfit]

    @property
    def out(self) -> str:
        """The domains that are left out, with the reasons, as text."""
        reasons = [f"{d} is no {side}, because {reason}" for (d, side), reason in self.unfit.items() if reason]
        return first(reasons, between="; ")


def default(folder: Path, choice: Choice | None = None) -> Experiment:
    """The experiment of a folder: by default the rows of `kitchens` on all finished stores and all pairs of domains.

    The recipe measures the units of the features over the source, because extractors give norms of any size.
    Stores whose names describe clips (`featcache.columns`), such as `label`, are left out.
    A modality that a clip lacks (a video without sound) is masked. The store `hog@flip` is a view of the store `hog`,
    drawn in training. A source needs labelled train clips; a target needs train and test clips, with labels or without;
    some of them need features.
    If no clip has the split `test`, the experiment is transductive: it tests the train clips of the target, and has no
    supervised row. Notes under the table name the stores, domains and methods that are left out.

    choice: the methods, feeds, shifts, net and task that a user names; the first and the reference row stay.
    ConfigError for a named method that these feeds, domains or net cannot serve.
    """
    choice, stores = choice or Choice(), _stores(folder)
    words = split(choice.methods, row_names(), "method")
    task = chosen_task(words, choice.net, choice.task, bool(stores.manifest.classes), bool(stores.captions))
    sets, made, left_out = _feed_sets(stores, choice, task), list[tuple[str, RunConfig]](), list[str]()
    tried: list[Tried] = []
    for name, feeds in sets.items():
        its_runs, its_notes, its_tries = _of_feeds(stores, feeds, task, choice, words)
        made += [(run.row, replace(run, row=f"{run.row}, {name}") if run.row and name else run) for run in its_runs]
        left_out += its_notes
        tried += [replace(each, place=f" on {name}{each.place}") for each in its_tries] if name else its_tries
    notes = dict.fromkeys([*left_out, *_left_out(stores, choice), *_unfit(tried)])
    note = " ".join(sorted(notes, key=lambda text: text == NO_SUPERVISED))
    return Experiment(stores.manifest.name, _doc(choice, sets), _ordered(made), note=note)


@dataclass(frozen=True)
class Tried:
    """A row that a word of the user names."""

    word: str
    row: str
    fault: str  #: the reason why it cannot run; "" if it can
    place: str = ""  #: " on" its feeds, if several are compared, and " with" its number of sources, if others can run


def _of_feeds(
    stores: Stores, feeds: Feeds, task: str, choice: Choice, words: list[str]
) -> tuple[tuple[RunConfig, ...], list[str], list[Tried]]:
    """Return the runs on one set of feeds, notes on what they leave out, and the rows that were tried."""
    own, sides = recipe(task, choice.net, len(feeds) > 1), _sides(stores, feeds, load(task))
    shifts = _shifts(stores.manifest, sides, choice)
    common = {**own.common, **_settings(stores, feeds, sides, own)}
    of_words = wanted(own, words, task, choice.net)
    every = {own.first: own.rows[own.first], **{row: of for rows in of_words.values() for row, of in rows.items()}}
    notes = [f"LEFT OUT: {sides.out}."] * bool(sides.out)
    if untested := sides.test_split == "train" and SUPERVISED in own.rows:
        notes.append(NO_SUPERVISED)
    made, unfit = dict[tuple[str, str], RunConfig](), dict[int, dict[str, str]]()  # sources -> row -> its fault
    for count in dict.fromkeys(len(sources) for sources, _ in shifts):
        some = [shift for shift in shifts if len(shift[0]) == count]
        unfit[count] = {}
        if choice != Choice():
            unfit[count] = faults(every, own.rows, stores.folder.parent, _smallest(stores.manifest, some), common)
        rows = _fit(own, every, unfit[count])
        if untested:
            del rows[SUPERVISED]
        made |= {(run.id, run.row): run for run in runs(rows, some, SEEDS, **common)}
    labelled_ones = {*sides.of("source")}  # supervised-target learns from the labels of its target
    tried = [each for word, of_word in of_words.items() for row in of_word for each in _tried(word, row, unfit)]
    return tuple(run for run in made.values() if set(run.source) <= labelled_ones), notes, tried


def _fit(own: Recipe, every: Mapping[str, Row], unfit: Mapping[str, str]) -> dict[str, Row]:
    """Return the rows that can run: the first one, the others after the rows that they start from, the reference."""
    if own.first in unfit:
        raise ConfigError(f"row {own.first!r}, which the others are compared with, cannot run: {unfit[own.first]}")
    rows = dict[str, Row]()
    for name, row in every.items():
        rows |= {} if name in unfit else with_starts(name, row, own.rows)
    if reference := own.rows.get(SUPERVISED):
        rows.pop(SUPERVISED, None)
        rows[SUPERVISED] = reference
    return rows


def _tried(word: str, row: str, unfit: Mapping[int, Mapping[str, str]]) -> list[Tried]:
    """Return the tries of a row, one for each number of sources. unfit: number of sources -> row -> its fault."""
    some = any(row not in of for of in unfit.values())
    places = {count: f" with {f'{count} sources' if count > 1 else 'one source'}" if some else "" for count in unfit}
    return [Tried(word, row, of.get(row, ""), places[count]) for count, of in unfit.items()]


def _unfit(tried: list[Tried]) -> list[str]:
    """Return a note on the rows that cannot run; ConfigError if a method is named of which no row can."""
    for word in dict.fromkeys(each.word for each in tried if each.word not in ("", ALL)):
        faults_of = [each.fault for each in tried if each.word == word]
        if all(faults_of):
            raise ConfigError(f"method {word!r} cannot run on this folder of stores: {faults_of[0]}")
    texts = dict.fromkeys(f"{each.row}{each.place}, because {each.fault}" for each in tried if each.fault)
    return [f"LEFT OUT: {'; '.join(texts)}."] * bool(texts)


def _ordered(made: list[tuple[str, RunConfig]]) -> tuple[RunConfig, ...]:
    """Return the runs by their rows: a row on each set of feeds, then the next row; the reference is last."""
    rows = list(dict.fromkeys(row for row, _ in made))
    return tuple(run for _, run in sorted(made, key=lambda one: (one[0] == SUPERVISED, rows.index(one[0]))))


def _doc(choice: Choice, sets: dict[str, Feeds]) -> str:
    """Return the description of the experiment."""
    named = "; ".join(", ".join(f"{m}: {feed.store}" for m, feed in feeds.items()) for feeds in sets.values())
    if choice == Choice():
        return f"The default experiment on {named}."
    options = " ".join(f"--{name} {value}" for name, values in choice.words.items() for value in values)
    return f"The experiment of a folder of stores, with {options}, on {named}."


# -------------------------------------------------------------------------------------------------------------- stores


def _stores(folder: Path) -> Stores:
    """Open the stores of a folder; ConfigError if none can be used."""
    manifest = open_manifest(folder.parent, folder.resolve().name)
    usable, reasons = _usable(folder, manifest)
    if not usable:
        names = ", ".join(f"{name} ({reason})" for name, reason in reasons.items())
        raise ConfigError(
            f"no finished store with features in {folder}; there are: {names or 'no stores'}. Run `featcache extract` "
            "first"
        )
    stores = Stores(folder, manifest, usable, reasons, _captions(folder, manifest, usable))
    if not stores.features:
        raise ConfigError(f"{folder} has only stores that describe clips by their names: {', '.join(usable)}")
    return stores


def _usable(folder: Path, manifest: Manifest) -> tuple[dict[str, FeatureStore], dict[str, str]]:
    """Return the finished stores of a folder that hold features, by name, and name -> reason of all others."""
    usable, reasons = dict[str, FeatureStore](), dict[str, str]()
    for path in sorted(folder.glob("*.zarr")):
        try:
            store = FeatureStore.open(path)
            reason = _unusable(store, manifest)
        except StoreError as error:  # it is damaged, or was begun a moment ago
            reason = str(error)
        if reason:
            reasons[path.stem] = reason
        else:
            usable[path.stem] = store
    return usable, reasons


def _unusable(store: FeatureStore, manifest: Manifest) -> str:
    """Return the reason why an experiment cannot use a store; "" if it can."""
    try:
        store.check_rows(manifest)
    except StoreError:
        return "its clips are not those of the manifest; run the same `featcache extract` again"
    if NOT_TRIED in store.state:
        return "it is unfinished; run the same `featcache extract` again"
    return "" if DONE in store.state else f"none of its {len(store)} clips has features"


def _captions(folder: Path, manifest: Manifest, usable: dict[str, FeatureStore]) -> dict[str, tuple[FeatureStore, str]]:
    """Return the stores of captions: of the clips' own in the folder, or of the folder NAME_captions next to it."""
    if any(clip.caption for clip in manifest):
        own = {name: (store, OWN) for name, store in usable.items() if store.modality == "text"}
        if own:
            return own
    beside = folder.parent / f"{manifest.name}_captions"
    if not (beside / "manifest.csv").is_file():
        return {}
    found, _ = _usable(beside, open_manifest(folder.parent, beside.name))
    return {name: (store, beside.name) for name, store in found.items()}


def _left_out(stores: Stores, choice: Choice) -> list[str]:
    """Return the notes on stores that the experiment leaves out; no note on stores if the user chooses the feeds."""
    notes = []
    if describing := [name for name in stores.usable if name not in stores.features and not choice.feeds]:
        names = ", ".join(describing)
        notes.append(f"LEFT OUT: {names}, stores whose names describe clips; an experiment file can name them.")
    if stores.reasons and not choice.feeds:
        names = "; ".join(f"{name}, because {reason}" for name, reason in stores.reasons.items())
        notes.append(f"LEFT OUT: {names}.")
    return notes


# --------------------------------------------------------------------------------------------------------------- feeds


def _feed_sets(stores: Stores, choice: Choice, task: str) -> dict[str, Feeds]:
    """Return the feeds of each row that is compared, by the names of their stores; "" if there is one set only."""
    captions = stores.captions if load(task).reads_captions else {}
    if load(task).reads_captions and not captions:
        raise ConfigError(
            f"{stores.folder} has no store of captions, which {task} needs: extract `sentence-bert` from a manifest "
            f"with a column `caption`, or from {stores.manifest.name}_captions.csv"
        )
    known = {**stores.usable, **{name: store for name, (store, _) in captions.items()}}
    every = tuple(dict.fromkeys([*stores.features, *captions]))
    sets = {}
    for text in choice.feeds or (ALL,):
        modalities = {name: store.modality for name, store in known.items()}
        names = stores_of(text, every, stores.reasons, modalities)
        if not (clips := {name: known[name] for name in names if name not in captions}):
            raise WordError(f"feeds {text!r} are captions; name a store of the clips, too")
        texts = [name for name in names if name in captions] or list(captions)
        of_text = {name: Feed(name, seen_by="source test", captions=captions[name][1]) for name in texts}
        keyed = {(known[name].modality if len(texts) == 1 else name): feed for name, feed in of_text.items()}
        sets["+".join(names)] = _feeds(clips, "mean" if captions else "all") | keyed
    return sets if len(sets) > 1 else {"": next(iter(sets.values()))}


def _feeds(stores: dict[str, FeatureStore], draw: str) -> Feeds:
    """Return a feed for each store that is not a view of another, by its modality, or by its name if several share one.

    draw: the windows that its runs read.
    """
    views = {name: base for name in stores if (base := name.rpartition("@")[0]) in stores}
    modalities = [store.modality for name, store in stores.items() if name not in views]
    feeds = {}
    for name, store in stores.items():
        if name not in views:
            feed = Feed(name, train=draw, test=draw, views=tuple(view for view, base in views.items() if base == name))
            key = store.modality if modalities.count(store.modality) == 1 else name
            feeds[re.sub(r"[^\w-]", "-", key)] = feed
    return feeds


def _settings(stores: Stores, feeds: Feeds, sides: Sides, own: Recipe) -> dict[str, Any]:
    """Return the fields of the runs that depend on the stores."""
    read = [stores.usable[name] for feed in feeds.values() if not feed.captions for name in (feed.store, *feed.views)]
    whole = all((store.state == DONE).all() for store in read)
    captioned = any(feed.captions for feed in feeds.values())  # a clip may lack a caption
    absent = "refuse" if whole and not captioned else own.common.get("absent", "mask")
    return {"manifest": stores.manifest.name, "feeds": feeds, "absent": absent, "test_split": sides.test_split}


# ------------------------------------------------------------------------------------------------------------- domains


def _sides(stores: Stores, feeds: Feeds, task: Task) -> Sides:
    """Find the domains that can be the source or the target of runs on these feeds."""
    manifest, every = stores.manifest, np.arange(len(stores.manifest))
    of_clips = [stores.usable[feed.store] for feed in feeds.values() if not feed.captions]
    without = set(np.flatnonzero(featureless(of_clips, every)).tolist())
    captioned = _captioned(stores, feeds)
    test_split = "test" if manifest.rows(split="test") else "train"
    unfit: dict[tuple[str, str], str] = {}
    for domain in manifest.domains:
        untrained = _empty(manifest, domain, "train", without)
        rows = manifest.rows(domain=domain, split="train")
        if reason := untrained or task.untaught(manifest, rows, captioned):
            unfit[domain, "source"] = reason
        untested = _empty(manifest, domain, test_split, without)
        if reason := untrained or untested or task.untested(manifest, domain, captioned):
            unfit[domain, "target"] = reason
        elif (domain, "source") in unfit and not _has_labels(manifest, domain):
            unfit[domain, "source"] = ""  # a domain without labels is meant to be a target only
    return Sides(unfit, manifest.domains, test_split)


def _shifts(manifest: Manifest, sides: Sides, choice: Choice) -> list[Shift]:
    """Return the shifts that are chosen, or all pairs of domains; ConfigError if one cannot be trained, or none."""
    named = shifts_of(choice.shifts, manifest.domains)
    for sources, target in named:
        for domain, side in [*((source, "source") for source in sources), (target, "target")]:
            if (domain, side) in sides.unfit:
                reason = sides.unfit[domain, side] or "none of its clips has a label"
                raise ConfigError(f"shift {'+'.join(sources)}:{target}: {domain} is no {side}, because {reason}")
    pairs: list[Shift] = [
        ((source,), target) for source in sides.of("source") for target in sides.of("target") if source != target
    ]
    if not pairs:
        raise ConfigError(
            f"manifest {manifest.name!r} has no shift to train on: label the train clips of one domain, and give "
            "another domain train and test clips. To test the train clips instead (transductive), "
            f"write test_split='train' in an experiment file{f' ({sides.out})' if sides.out else ''}"
        )
    return list(dict.fromkeys([*pairs, *named])) if ALL in choice.shifts or not named else list(named)


def _smallest(manifest: Manifest, shifts: list[Shift]) -> Shift:
    """Return the shift with the fewest train clips on one side: a method that has enough there has enough on all."""

    def clips(shift: Shift) -> int:
        return min(len(manifest.rows(domain=domains, split="train")) for domains in (shift[0], shift[1]))

    return min(shifts, key=clips)


def _empty(manifest: Manifest, domain: str, split: str, without: set[int]) -> str:
    """Return the reason why a split of a domain has no clips with features; "" if it has. without: rows without any."""
    rows = manifest.rows(domain=domain, split=split)
    if not rows:
        return f"it has no {split} clips"
    return f"none of its {len(rows)} {split} clips has features" if set(rows) <= without else ""


def _captioned(stores: Stores, feeds: Feeds) -> set[int]:
    """Return the rows of the clips that have a caption with features."""
    rows = set[int]()
    for feed in feeds.values():
        if feed.captions:
            store, name = stores.captions[feed.store]
            of = np.arange(len(stores.manifest))
            if name != OWN:
                of = clip_rows(open_manifest(stores.folder.parent, name), stores.manifest)
            rows |= set(of[store.state[:] == DONE].tolist())
    return rows


def _has_labels(manifest: Manifest, domain: str) -> bool:
    """Return whether any clip of a domain has a label; a domain without labels is meant to be a target only."""
    return any(manifest.clips[row].labels for row in manifest.rows(domain=domain))
