"""Builders make manifests. The folder is the registry: `builders/kitchens.py` is the benchmark `kitchens`.

A builder file holds one function `build(folder, *, progress=silent, ...) -> Manifest`. The benchmark's own files
(official annotation files) lie in `folder`, or, for the generated one, are written to it; the manifest is written to
`folder/NAME.csv`. Builders do not download: a missing file is an error that names it. Another number of clips than
published is a warning, since users work with parts of a benchmark. Helpers start with an underscore.
"""

from types import ModuleType

from featcache import registry


def names() -> list[str]:
    """The benchmarks there are."""
    return registry.names(__name__)


def load(name: str) -> ModuleType:
    """The builder of that name; unknown names list the known ones."""
    return registry.load(__name__, name, "benchmark")
