"""The default experiment on a folder of stores."""

import re
from pathlib import Path

from featcache import FeatureStore, Manifest
from featcache.columns import features_of
from featcache.errors import ConfigError
from pipelines.config import Feed
from pipelines.data.stores import DONE, NOT_TRIED, open_manifest
from pipelines.experiments._experiment import Experiment
from pipelines.experiments._rows import grid


def default(folder: Path) -> Experiment:
    """The grid on all finished stores of a folder, with kitchens' hyper-parameters, over every ordered pair of domains.

    Stores whose names describe clips (`featcache.columns`), such as `label`, are left out.
    A modality that a clip lacks (a video without sound) is masked. The store `hog@flip` is a view of the store `hog`,
    drawn in training. A source needs labelled train clips, a target labelled test clips.
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
    taught = [
        run for run in runs if run.source[0] in teaching
    ]  # supervised-target needs labelled train clips of its domain
    doc = f"The default experiment on {', '.join(f'{m}: {feed.store}' for m, feed in feeds.items())}."
    note = (
        f"LEFT OUT: {', '.join(left_out)}, stores that describe clips by their names; an experiment file can name them."
    )
    return Experiment(manifest.name, doc, tuple(taught), note=note if left_out else "")


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


def _labelled(manifest: Manifest, domain: str, split: str) -> bool:
    """True if there are clips and every one of them has every label."""
    rows, labels = manifest.rows(domain=domain, split=split), manifest.classes.keys()
    return bool(rows and labels) and all(manifest.clips[row].labels.keys() == labels for row in rows)
