"""A name, a Python file or a folder of stores -> the runs of a table.

The folder is the registry: `experiments/kitchens.py` is `kitchens`. An experiment file has a docstring (commands, time,
expected numbers) and `RUNS`. `NOTE` is a remark that a reader of the numbers needs. `DATA` names
the data behind each domain, {"D1": ("EPIC-KITCHENS-100 train",)}, so that features of networks that were trained on
their labels are noticed; the manifests that we build need none (_data.py). `PUBLISHED` has the numbers that a
paper printed: table row -> {"D1→D2": per cent, ..., "mean": per cent}, of the table's default metric, or with {metric:
number} in place of a number: {"D1→D2": {"top1/verb": 46.8}}. A user's own file, anywhere, has the same form.
"""

from pathlib import Path

from featcache import registry
from featcache.errors import ConfigError
from featcache.wording import unknown
from pipelines.experiments._default import default
from pipelines.experiments._experiment import Experiment
from pipelines.experiments._files import from_module, import_file
from pipelines.experiments._rows import SEEDS, Row, grid, runs

__all__ = ["SEEDS", "Experiment", "Row", "default", "grid", "load", "names", "runs"]


def names() -> list[str]:
    """The experiments: the files of this folder that do not start with an underscore."""
    return registry.names(__name__)


def load(experiment: str | Path) -> Experiment:
    """Load an experiment: by its name, from a .py file, or the default experiment on a folder of stores."""
    name, path = str(experiment), Path(experiment)
    if name in names():
        return from_module(name, registry.load(__name__, name, "experiment"))
    if path.suffix == ".py":
        return from_module(path.stem, import_file(path))
    if (path / "manifest.csv").exists():
        return default(path)
    raise ConfigError(
        f"{unknown('experiment', name, names())}; or give a .py file, or a folder of stores (STORES/<manifest>, which "
        "has a manifest.csv)"
    )
