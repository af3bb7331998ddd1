"""featcache: frozen video features, extracted once into zarr stores, and light adaptation heads trained on them.

>>> from featcache import FeatureStore, Manifest
"""

from importlib import import_module
from typing import Any

from featcache import plugins as plugins  # finds plug-ins wherever a later import names one

__version__ = "0.1.0"
__all__ = ["Clip", "FeatureStore", "Manifest"]

_HOME = {"Clip": "featcache.manifest", "Manifest": "featcache.manifest", "FeatureStore": "featcache.store"}


def __getattr__(name: str) -> Any:
    """Import the public names when they are used, so that `import featcache` stays quick."""
    if name not in _HOME:
        raise AttributeError(f"module 'featcache' has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)
