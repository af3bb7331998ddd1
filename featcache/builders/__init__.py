"""Builders make the manifests of benchmarks: `builders/kitchens.py` is the benchmark `kitchens`.

The folder is the registry. A builder file holds one function `build(folder, *, progress=silent, ...) -> Manifest`. It
reads the benchmark's official annotation files in `folder`, or generates the benchmark there, and writes the manifest
to `folder/NAME.csv`. Builders do not download: a missing file is an error that names it. A number of clips that differs
from the published one is only a warning, because users work with parts of a benchmark. The first paragraph of a
builder's docstring describes the benchmark; `featcache list benchmarks` prints it. Helpers start with an underscore.
"""

from types import ModuleType

from featcache import registry


def card(name: str) -> str:
    """Return the words for a benchmark's dataset card, which is in the package, too."""
    return f"data_manifests/{name}.md (printed by `featcache show benchmark {name}`)"


def names() -> list[str]:
    """The names of all benchmarks."""
    return registry.names(__name__)


def load(name: str) -> ModuleType:
    """The builder of a benchmark; an unknown name raises a ConfigError that lists the benchmarks."""
    return registry.load(__name__, name, "benchmark")
