"""Feature stores: frozen features on disk, crash-safe to write, readable by anything that reads zarr v3."""

from typing import TYPE_CHECKING, Any

from featcache.store._format import ABSENT, DONE, FAILED, NOT_TRIED
from featcache.store.joining import Joined, join
from featcache.store.reader import FeatureStore
from featcache.store.writer import StoreWriter

if TYPE_CHECKING:
    from featcache.store.dataset import FeatureDataset

__all__ = [
    "ABSENT",
    "DONE",
    "FAILED",
    "NOT_TRIED",
    "FeatureDataset",
    "FeatureStore",
    "Joined",
    "StoreWriter",
    "join",
]


def __getattr__(name: str) -> Any:
    """Import `FeatureDataset`, which needs torch, when it is used."""
    if name != "FeatureDataset":
        raise AttributeError(f"module 'featcache.store' has no attribute {name!r}; it has: {', '.join(__all__)}")
    from featcache.store.dataset import FeatureDataset

    return FeatureDataset
