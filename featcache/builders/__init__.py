"""Builders make manifests. The folder is the registry: `builders/kitchens.py` is the benchmark `kitchens`.

A builder file holds one function `build(folder, *, progress=None, ...) -> Manifest`. `folder` is where the benchmark's
own files lie (official annotation files), or, for the generated one, where they are written to; the manifest is written
to `folder/NAME.csv`. Builders do not download: a missing file is an error that names it. Another number of clips than
published is a warning, since users work with parts of a benchmark. Helpers start with an underscore.
"""

import importlib
import pkgutil
from types import ModuleType

from featcache.errors import ConfigError


def names() -> list[str]:
    """The benchmarks there are: the files of this folder that do not start with an underscore."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> ModuleType:
    """The builder of that name; unknown names list the known ones."""
    if name not in names():
        raise ConfigError(f"no benchmark {name!r}; featcache/builders has: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
