"""Experiments: which runs make a table. The folder is the registry: `experiments/kitchens.py` is `kitchens`.

An experiment file has a docstring (command, minutes, what to expect), `RUNS`, a `NOTE` where a reader of its numbers
has to know something, and `PUBLISHED` where a paper printed numbers: table row -> {"D1→D2": per cent, ..., "mean": per
cent}, of the table's default metric, or with {metric: number} in a number's place, {"D1→D2": {"top1/verb": 46.8}}. A
user's own file, anywhere, has the same.
"""

import importlib
import pkgutil
from pathlib import Path

from featcache.errors import ConfigError
from pipelines.experiments._default import default
from pipelines.experiments._experiment import Experiment
from pipelines.experiments._files import _from_module, _import
from pipelines.experiments._rows import SEEDS, Row, grid, runs
from pipelines.settings import unknown

__all__ = ["SEEDS", "Experiment", "Row", "default", "grid", "load", "names", "runs"]


def names() -> list[str]:
    """The experiments there are: the files of this folder that do not start with an underscore."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(what: str | Path) -> Experiment:
    """By name; from a .py file; or the default experiment on a folder of stores, STORES/<manifest>."""
    path = Path(what)
    if str(what) in names():
        return _from_module(str(what), importlib.import_module(f"{__name__}.{what}"))
    if path.suffix == ".py":
        return _from_module(path.stem, _import(path))
    if (path / "manifest.csv").exists():
        return default(path)
    raise ConfigError(
        f"{unknown('experiment', str(what), names())}; or give a .py file, or a folder of stores (STORES/<manifest>, "
        "which has a manifest.csv)"
    )
