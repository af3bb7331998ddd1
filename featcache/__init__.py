"""featcache: frozen video features, extracted once into zarr stores, and light adaptation heads trained on them.

>>> from featcache import FeatureStore, Manifest

Each command that needs no head is a function here, with the same words: `featcache.extract(manifest, ["hog"], stores)`.
Heads are trained and evaluated by the functions of `pipelines`. Mistakes are errors of the type `FeatcacheError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from featcache import plugins as plugins  # finds plug-ins wherever a later import names one

__version__ = "0.1.0"

if TYPE_CHECKING:
    from featcache.checking import check as check
    from featcache.clip_tables import from_csv as from_csv
    from featcache.errors import FeatcacheError as FeatcacheError
    from featcache.exporting import export_features as export_features
    from featcache.importing import import_features as import_features
    from featcache.manifest import Clip as Clip
    from featcache.manifest import Manifest as Manifest
    from featcache.manifests import build as build
    from featcache.manifests import join as join
    from featcache.manifests import scan as scan
    from featcache.sharing.pull import pull as pull
    from featcache.sharing.push import push as push
    from featcache.store import FeatureDataset as FeatureDataset
    from featcache.store import FeatureStore as FeatureStore
    from featcache.store.archive import pack as pack
    from featcache.store.archive import unpack as unpack
    from featcache.store.check import repair as repair
    from featcache.store.info import info as info
    from pipelines.commands.extract import extract as extract
    from pipelines.commands.extract import merge as merge

#: public name -> the module that it is imported from when it is used, so that `import featcache` stays quick
_HOME = {
    "Clip": "featcache.manifest",
    "FeatcacheError": "featcache.errors",
    "FeatureDataset": "featcache.store",
    "FeatureStore": "featcache.store",
    "Manifest": "featcache.manifest",
    "build": "featcache.manifests",
    "check": "featcache.checking",
    "export_features": "featcache.exporting",
    "extract": "pipelines.commands.extract",
    "from_csv": "featcache.clip_tables",
    "import_features": "featcache.importing",
    "info": "featcache.store.info",
    "join": "featcache.manifests",
    "merge": "pipelines.commands.extract",
    "pack": "featcache.store.archive",
    "plugins": "featcache.plugins",
    "pull": "featcache.sharing.pull",
    "push": "featcache.sharing.push",
    "repair": "featcache.store.check",
    "scan": "featcache.manifests",
    "unpack": "featcache.store.archive",
    "weights": "featcache.weights",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name when it is used."""
    if name not in _HOME:
        raise AttributeError(f"module 'featcache' has no attribute {name!r}; it has: {', '.join(__all__)}")
    module = import_module(_HOME[name])
    return module if _HOME[name] == f"{__name__}.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
