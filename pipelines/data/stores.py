"""The manifest and the stores of a run, opened and checked against each other."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from featcache import FeatureStore, Manifest
from featcache.errors import ConfigError, StoreError
from featcache.files import remembered
from featcache.naming import folder_name
from featcache.store import NOT_TRIED
from featcache.wording import unknown
from pipelines.config import OWN, RunConfig

_SAME: set[tuple[str, str]] = set()  # fingerprints of stores and of manifests with the same clips


def parts_of(runs: Iterable[RunConfig]) -> set[str]:
    """Return the manifests and stores that runs read, by their places in the folder of all stores."""
    parts = set[str]()
    for run in runs:
        parts.add(f"{run.manifest}/manifest.csv")
        for modality, feed in run.feeds.items():
            folder = feed.captions if feed.captions not in ("", OWN) else run.manifest
            parts.add(f"{folder}/manifest.csv")
            parts |= {f"{folder}/{store}.zarr" for store in feed.stores(modality).values()}
    return parts


def open_manifest(stores: Path, name: str) -> Manifest:
    """Read the copy of a manifest that is in the folder of its stores, and give it the folder's name."""
    path = stores / folder_name(name, "manifest", "write the name of a folder of stores") / "manifest.csv"
    if not path.exists():
        manifest_names = sorted(path.parent.name for path in stores.glob("*/manifest.csv"))
        if not manifest_names:
            fix = "name the folder that has them with --stores"
            raise ConfigError(f"no stores of a manifest {name!r} in {stores}; {fix}")
        raise unknown("stores of a manifest", name, manifest_names, str(stores))
    return _read(path, name)


@remembered(4)  # all runs of an experiment share it: reading 10,000 rows takes longer than evaluating a head
def _read(path: Path, name: str) -> Manifest:
    return replace(Manifest.read(path), name=name)


def open_store(folder: Path, name: str, manifest: Manifest) -> FeatureStore:
    """Open a store; StoreError if it is unfinished, or was made from other clips than the manifest's."""
    path = folder / f"{folder_name(name, 'store', 'write the name of a store of this folder')}.zarr"
    if not path.is_dir():
        raise unknown("store", name, sorted(p.stem for p in folder.glob("*.zarr")), str(folder))
    store = FeatureStore.open(path)
    same = (store.fingerprint, manifest.sha256)
    if same not in _SAME:  # naming the clips of 10,000 rows takes longer than evaluating a head
        store.check_rows(manifest)
        _SAME.add(same)
    if left := int((store.state == NOT_TRIED).sum()):
        raise StoreError(
            f"{path} is unfinished: {left} of {len(store)} clips were not tried; finish it with the same command: "
            f"`featcache extract MANIFEST {store.name} --stores {folder.parent}`"
        )
    return store
