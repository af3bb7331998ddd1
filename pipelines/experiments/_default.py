"""The default experiment on a folder of stores."""

import re
from pathlib import Path

from featcache import FeatureStore, Manifest
from featcache.columns import features_of
from featcache.errors import ConfigError
from featcache.store import DONE, NOT_TRIED
from featcache.wording import first
from pipelines.config import Feed
from pipelines.data.stores import open_manifest
from pipelines.experiments._experiment import Experiment
from pipelines.experiments._rows import grid


def default(folder: Path) -> Experiment:
    """The grid on all finished stores of a folder, with kitchens' recipe, over every ordered pair of domains.

    The recipe measures the units of the features over the source, because extractors give norms of any size.
    Stores whose names describe clips (`featcache.columns`), such as `label`, are left out.
    A modality that a clip lacks (a video without sound) is masked. The store `hog@flip` is a view of the store `hog`,
    drawn in training. A source needs labelled train clips, a target labelled test clips; a note under the table names
    the domains without.
    """
    from pipelines.experiments import kitchens

    manifest = open_manifest(folder.parent, folder.resolve().name)
    found = {store.path.stem: store for store in finished(folder)}
    stores = {name: found[name] for name in features_of(found)}
    left_out = [name for name in found if name not in stores]
    if not stores:
        raise ConfigError(f"{folder} has only stores that describe clips by their names: {', '.join(left_out)}")
    views = {name: base for name in stores if (base := name.rpartition("@")[0]) in stores}
    modalities = [store.modality for name, store in stores.items() if name not in views]
    feeds = {}
    for name, store in stores.items():
        if name not in views:
            feed = Feed(name, views=tuple(view for view, base in views.items() if base == name))
            key = store.modality if modalities.count(store.modality) == 1 else name
            feeds[re.sub(r"[^\w-]", "-", key)] = feed
    teaching = [domain for domain in manifest.domains if _labelled(manifest, domain, "train")]
    tested = [d for d in manifest.domains if manifest.rows(domain=d, split="train") and _labelled(manifest, d, "test")]
    shifts = [(source, target) for source in teaching for target in tested if source != target]
    if not shifts:
        raise ConfigError(
            f"manifest {manifest.name!r} has no shift to train on: label the train clips of one domain and the test "
            "clips of another domain, which needs train clips too"
        )
    whole = all((store.state == DONE).all() for store in stores.values())
    runs = grid(manifest.name, feeds, shifts, absent="refuse" if whole else "mask", **kitchens.RECIPE)
    taught = [run for run in runs if run.source[0] in teaching]  # supervised-target needs labels of its own domain
    doc = f"The default experiment on {', '.join(f'{m}: {feed.store}' for m, feed in feeds.items())}."
    notes = [_left_out(manifest, teaching, tested)]
    if left_out:
        names = ", ".join(left_out)
        notes.append(f"LEFT OUT: {names}, stores whose names describe clips; an experiment file can name them.")
    return Experiment(manifest.name, doc, tuple(taught), note=" ".join(filter(None, notes)))


def finished(folder: Path) -> list[FeatureStore]:
    """The stores of a folder whose extraction is complete and that have features, in order of their names."""
    stores = [FeatureStore.open(path) for path in sorted(folder.glob("*.zarr"))]
    usable = [store for store in stores if NOT_TRIED not in store.state and DONE in store.state]
    if not usable:
        store_names = ", ".join(store.name for store in stores) or "no stores"
        raise ConfigError(
            f"no finished store with features in {folder}; there are: {store_names}. Run `featcache extract` first"
        )
    return usable


def _left_out(manifest: Manifest, teaching: list[str], tested: list[str]) -> str:
    """Return a note on the domains that are not on both sides of the shifts, with the reasons; "" if all are."""
    reasons = []
    for domain in manifest.domains:
        if domain not in teaching:
            reasons.append(f"{domain} is no source, because {_lacking(manifest, domain, 'train')}")
        if domain not in tested:
            has_train = manifest.rows(domain=domain, split="train")
            lacking = _lacking(manifest, domain, "test") if has_train else "it has no train clips"
            reasons.append(f"{domain} is no target, because {lacking}")
    return f"LEFT OUT: {first(reasons, between='; ')}." if reasons else ""


def _lacking(manifest: Manifest, domain: str, split: str) -> str:
    """Return the reason why clips of a split are not all labelled."""
    rows, kinds = manifest.rows(domain=domain, split=split), manifest.classes.keys()
    if not rows:
        return f"it has no {split} clips"
    unlabelled = [manifest.clips[row].clip_id for row in rows if manifest.clips[row].labels.keys() != kinds]
    return f"{len(unlabelled)} of its {len(rows)} {split} clips have no {' or '.join(kinds)} (clip {unlabelled[0]!r})"


def _labelled(manifest: Manifest, domain: str, split: str) -> bool:
    """True if there are clips and every one of them has every label."""
    rows, labels = manifest.rows(domain=domain, split=split), manifest.classes.keys()
    return bool(rows and labels) and all(manifest.clips[row].labels.keys() == labels for row in rows)
