"""Folders that are registries: each file of `extractors`, `builders`, `bridges`, `methods`, ... is one entry.

The file's name is the entry's name. Files that start with an underscore are helpers. A package is given as a module or
by its dotted name. Plug-ins (`featcache.plugins`) are entries, too.

>>> from featcache import builders
>>> "kitchens" in names(builders)
True
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable
from types import ModuleType

from featcache import plugins
from featcache.errors import NoEntryError
from featcache.wording import unknown


def names(package: ModuleType | str) -> list[str]:
    """The names of the entries, sorted; ConfigError if a plug-in has the name of another file.

    A package that is given by its name is not imported.
    """
    path = package.__path__ if isinstance(package, ModuleType) else _folders(package)
    shipped = {module.name for module in pkgutil.iter_modules(path)}
    added = plugins.of(kind := _kind(package))
    if twice := sorted(shipped & added.keys()):
        raise plugins.clash(kind, twice[0], f"{next(iter(path))}/{twice[0]}.py", added[twice[0]].origin)
    return sorted(name for name in (*shipped, *added) if not name.startswith("_"))


def _folders(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"no package {package}")
    return spec.submodule_search_locations


def load(package: ModuleType | str, name: str, noun: str) -> ModuleType:
    """Import the entry of that name; NoEntryError with the nearest name and all names when there is none.

    noun: the word for an entry in the message, such as "method".
    """
    dotted = package if isinstance(package, str) else package.__name__
    if name not in names(package):
        raise no_entry(noun, name, names(package))
    plugins.forget_others()
    return importlib.import_module(f"{dotted}.{name}")


def no_entry(noun: str, name: str, choices: Iterable[str]) -> NoEntryError:
    """Make the error of a name that is not among the names of a registry."""
    return NoEntryError(f"{unknown(noun, name, choices)}; --plugins FOLDER adds files of your own")


def origin(package: ModuleType | str, name: str) -> str:
    """The place of an entry: "featcache", the file of a plug-in, or the package that it belongs to and its version."""
    plugin = plugins.of(_kind(package)).get(name)
    return plugin.origin if plugin else "featcache"


def _kind(package: ModuleType | str) -> str:
    """Return the kind of plug-ins that extend a package; "" if there is none."""
    dotted = package if isinstance(package, str) else package.__name__
    return plugins.split(f"{dotted}.any")[0]
