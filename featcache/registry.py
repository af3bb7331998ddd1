"""Folders that are registries: each file of `extractors`, `builders`, `bridges`, `methods`, ... is what it is named.

Files that start with an underscore are helpers. A package may be given itself or by its dotted name.

>>> from featcache import builders
>>> "kitchens" in names(builders)
True
"""

import importlib
import pkgutil
from types import ModuleType

from featcache.wording import unknown


def names(package: ModuleType | str) -> list[str]:
    """The files of the folder, without their ending and without helpers, sorted."""
    folder = importlib.import_module(package) if isinstance(package, str) else package
    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__) if not module.name.startswith("_"))


def load(package: ModuleType | str, name: str, what: str) -> ModuleType:
    """The file of that name; ConfigError with the nearest name and all of them where there is none.

    what: the word for one of them in the message, such as "method".
    """
    dotted = package if isinstance(package, str) else package.__name__
    if name not in names(package):
        raise unknown(what, name, names(package))
    return importlib.import_module(f"{dotted}.{name}")
