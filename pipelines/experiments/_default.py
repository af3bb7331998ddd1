"""The default experiment on a folder of stores."""

import re
from pathlib import Path

import numpy as np

from featcache import FeatureStore, Manifest
from featcache.columns import features_of
from featcache.errors import ConfigError, StoreError
from featcache.store import DONE, NOT_TRIED
from featcache.wording import first
from pipelines.config import Feed
from pipelines.data.lacking import featureless
from pipelines.data.stores import open_manifest
from pipelines.experiments._experiment import Experiment
from pipelines.experiments._rows import grid
from pipelines.tasks import labelled

NO_SUPERVISED = (
    "NO SUPERVISED ROW: no clip has the split 'test', so the train clips of each target are its test clips, and a head "
    "that learned their labels would be tested on what it learned. Give some clips of each domain the split 'test' for "
    "a row supervised-target."
)


def default(folder: Path) -> Experiment:
    """The grid on all finished stores of a folder, with kitchens' recipe, over every ordered pair of domains.

    The recipe measures the units of the features over the source, because extractors give norms of any size.
    Stores whose names describe clips (`featcache.columns`), such as `label`, are left out.
    A modality that a clip lacks (a video without sound) is masked. The store `hog@flip` is a view of the store `hog`,
    drawn in training. A source needs labelled train clips; a target needs train and test clips, with labels or without;
    some of them need features.
    If no clip has the split `test`, the experiment is transductive: it tests the train clips of the target, and has no
    supervised row. Notes under the table name the stores and domains that are left out.
    """
    from pipelines.experiments import kitchens

    manifest = open_manifest(folder.parent, folder.resolve().name)
    stores, notes = _usable(folder, manifest)
    feeds = _feeds(stores)
    without = np.flatnonzero(featureless((stores[feed.store] for feed in feeds.values()), np.arange(len(manifest))))
    test_split = "test" if manifest.rows(split="test") else "train"
    unfit: dict[tuple[str, str], str] = {}  # domain, side of the shifts -> reason why it is not there
    for domain in manifest.domains:
        untrained = _empty(manifest, domain, "train", without.tolist())
        if reason := untrained or _unlabelled(manifest, domain, "train"):
            unfit[domain, "source"] = reason if _has_labels(manifest, domain) else ""
        untested = _empty(manifest, domain, test_split, without.tolist())
        if reason := untrained or untested:
            unfit[domain, "target"] = reason
    by_side = {side: [d for d in manifest.domains if (d, side) not in unfit] for side in ("source", "target")}
    shifts = [(source, target) for source in by_side["source"] for target in by_side["target"] if source != target]
    out = first(
        [f"{domain} is no {side}, because {reason}" for (domain, side), reason in unfit.items() if reason], between="; "
    )
    if not shifts:
        raise ConfigError(
            f"manifest {manifest.name!r} has no shift to train on: label the train clips of one domain, and give "
            "another domain train and test clips. To test the train clips instead (transductive), "
            f"write test_split='train' in an experiment file{f' ({out})' if out else ''}"
        )
    whole = all((store.state == DONE).all() for store in stores.values())
    absent = "refuse" if whole else "mask"
    runs = grid(manifest.name, feeds, shifts, absent=absent, test_split=test_split, **kitchens.RECIPE)
    taught = tuple(run for run in runs if run.source[0] in by_side["source"])  # supervised-target needs its own labels
    doc = f"The default experiment on {', '.join(f'{m}: {feed.store}' for m, feed in feeds.items())}."
    notes = [f"LEFT OUT: {out}." if out else "", *notes, NO_SUPERVISED if test_split == "train" else ""]
    return Experiment(manifest.name, doc, taught, note=" ".join(filter(None, notes)))


def _usable(folder: Path, manifest: Manifest) -> tuple[dict[str, FeatureStore], list[str]]:
    """The finished stores of a folder that hold features, by name, and notes that name all others."""
    found = {path.stem: FeatureStore.open(path) for path in sorted(folder.glob("*.zarr"))}
    reasons = {name: reason for name, store in found.items() if (reason := _unusable(store, manifest))}
    usable = {name: store for name, store in found.items() if name not in reasons}
    if not usable:
        names = ", ".join(f"{name} ({reason})" for name, reason in reasons.items())
        raise ConfigError(
            f"no finished store with features in {folder}; there are: {names or 'no stores'}. Run `featcache extract` "
            "first"
        )
    named = features_of(usable)
    describing = [name for name in usable if name not in named]
    if not named:
        raise ConfigError(f"{folder} has only stores that describe clips by their names: {', '.join(describing)}")
    notes = []
    if describing:
        names = ", ".join(describing)
        notes.append(f"LEFT OUT: {names}, stores whose names describe clips; an experiment file can name them.")
    if reasons:
        notes.append(f"LEFT OUT: {'; '.join(f'{name}, because {reason}' for name, reason in reasons.items())}.")
    return {name: usable[name] for name in named}, notes


def _unusable(store: FeatureStore, manifest: Manifest) -> str:
    """Return the reason why an experiment cannot use a store; "" if it can."""
    try:
        store.check_rows(manifest)
    except StoreError:
        return "its clips are not those of the manifest; run the same `featcache extract` again"
    if NOT_TRIED in store.state:
        return "it is unfinished; run the same `featcache extract` again"
    return "" if DONE in store.state else f"none of its {len(store)} clips has features"


def _feeds(stores: dict[str, FeatureStore]) -> dict[str, Feed]:
    """A feed for each store that is not a view of another, by its modality, or by its name if several share one."""
    views = {name: base for name in stores if (base := name.rpartition("@")[0]) in stores}
    modalities = [store.modality for name, store in stores.items() if name not in views]
    feeds = {}
    for name, store in stores.items():
        if name not in views:
            feed = Feed(name, views=tuple(view for view, base in views.items() if base == name))
            key = store.modality if modalities.count(store.modality) == 1 else name
            feeds[re.sub(r"[^\w-]", "-", key)] = feed
    return feeds


def _empty(manifest: Manifest, domain: str, split: str, without: list[int]) -> str:
    """Return the reason why a split of a domain has no clips with features; "" if it has. without: rows without any."""
    rows = manifest.rows(domain=domain, split=split)
    if not rows:
        return f"it has no {split} clips"
    return f"none of its {len(rows)} {split} clips has features" if set(rows) <= set(without) else ""


def _has_labels(manifest: Manifest, domain: str) -> bool:
    """Return whether any clip of a domain has a label; a domain without labels is meant to be a target only."""
    return any(manifest.clips[row].labels for row in manifest.rows(domain=domain))


def _unlabelled(manifest: Manifest, domain: str, split: str) -> str:
    """Return the reason why no clip of a split has all labels; "" if some do: runs learn from these."""
    rows, kinds = manifest.rows(domain=domain, split=split), manifest.classes.keys()
    if not kinds:
        return "the manifest has no labels"
    if labelled(manifest, rows, kinds):
        return ""
    clip = manifest.clips[rows[0]].clip_id
    return f"{len(rows)} of its {len(rows)} {split} clips have no {' or '.join(kinds)} (clip {clip!r})"
