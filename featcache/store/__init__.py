"""Feature stores: frozen features on disk, crash-safe to write, readable by anything that reads zarr v3."""

from featcache.store.reader import FeatureStore
from featcache.store.writer import StoreWriter

__all__ = ["FeatureStore", "StoreWriter"]
