"""The one place where a folder or store that a user names becomes a local folder: URLs of object stores are fetched.

>>> local("stores")
PosixPath('stores')
"""

from collections.abc import Collection
from pathlib import Path

from featcache.arguments import PathLike
from featcache.remote.cache import fetched
from featcache.remote.urls import url_of
from featcache.store.check import damage


def local(given: PathLike, wanted: Collection[str] | None = None) -> Path:
    """Return the path of a folder of stores or of a store; below a URL, that of its copy in the cache.

    wanted: the stores and manifests that are needed, such as {"kitchens/hog.zarr", "kitchens/manifest.csv"}; of a URL,
    the others are not fetched. None: all of them. StoreError as of `featcache.remote.cache.fetched`.
    """
    url = url_of(given)
    return fetched(url, damage, wanted) if url else Path(given)
