"""Folders that are registries: each file of `extractors`, `builders`, `bridges`, `methods`, ... is one entry.

The file's name is the entry's name. Files that start with an underscore are helpers. A package is given as a module or
by its dotted name.

>>> from featcache import builders
>>> "kitchens" in names(builders)
True
"""

import importlib
import importlib.util
import pkgutil
from types import ModuleType

from featcache.wording import unknown


def names(package: ModuleType | str) -> list[str]:
    """The names of the entries, sorted. A package that is given by its name is not imported."""
    path = package.__path__ if isinstance(package, ModuleType) else _folders(package)
    return sorted(module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_"))


def _folders(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"no package {package}")
    return spec.submodule_search_locations


def load(package: ModuleType | str, name: str, noun: str) -> ModuleType:
    """Import the entry of that name; ConfigError with the nearest name and all names when there is none.

    noun: the word for an entry in the message, such as "method".
    """
    dotted = package if isinstance(package, str) else package.__name__
    if name not in names(package):
        raise unknown(noun, name, names(package))
    return importlib.import_module(f"{dotted}.{name}")
