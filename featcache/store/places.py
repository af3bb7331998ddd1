"""The one place where a folder or store that a user names becomes a local folder: URLs of object stores are fetched.

>>> local("stores")
PosixPath('stores')
"""

import json
import re
from collections.abc import Collection
from pathlib import Path

from featcache.arguments import PathLike
from featcache.remote.bucket import Bucket
from featcache.remote.cache import fetched
from featcache.remote.urls import url_of
from featcache.store.check import damage, metadata_damage
from featcache.store.provenance import restore


def local(given: PathLike, wanted: Collection[str] | None = None) -> Path:
    """Return the path of a folder of stores or of a store; below a URL, that of its copy in the cache.

    wanted: the stores and manifests that are needed, such as {"kitchens/hog.zarr", "kitchens/manifest.csv"}; of a URL,
    the others are not fetched. None: all of them. StoreError as of `featcache.remote.cache.fetched`.
    """
    url = url_of(given)
    return fetched(url, damage, wanted, restore) if url else Path(given)


def outline(given: PathLike) -> Path:
    """Return a folder of stores; below a URL, a folder in which they have all but their features."""
    url = url_of(given)
    return fetched(url, lambda folder, _: metadata_damage(folder), features=False) if url else Path(given)


def dtypes_below(url: str, pattern: str) -> dict[str, str]:
    """Return name -> dtype of the features of each store below a URL whose name matches; one request for each."""
    bucket, array = Bucket(url), "/features/zarr.json"
    names = [name.removesuffix(array) for name in bucket.listing() if name.endswith(array)]
    found = [name for name in names if re.fullmatch(pattern, name)]
    return {name: json.loads(bytes(bucket.get(f"{name}{array}")))["data_type"] for name in found}
