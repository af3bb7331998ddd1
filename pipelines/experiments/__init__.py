"""A name, a Python file or a folder of stores -> the runs of a table.

The folder is the registry: `experiments/kitchens.py` is `kitchens`. An experiment file has a docstring (commands, time,
expected numbers) and `RUNS`. `NOTE` is a remark that a reader of the numbers needs. `DATA` names the data behind each
domain, {"D1": ("EPIC-KITCHENS-100 train",)}, so that features of networks that were trained on their labels are
noticed; the manifests that we build need none (_data.py).

`PUBLISHED` has the numbers that a paper printed: table row -> {"D1→D2": per cent, ..., "mean": per cent, "gain": points
over the first row}, of the table's default metric, or with {metric: number} in place of a number: {"D1→D2":
{"top1/verb": 46.8}}. `METRIC` is the default metric of `table`, `report` and `choose`, such as "top1/action", where it
is not the headline metric of the task. `QUOTED` names the rows of `PUBLISHED` that no run makes: the table shows them
as the paper prints them. A user's own file, anywhere, has the same form.
"""

from pathlib import Path

from featcache import registry
from featcache.errors import ConfigError, WordError
from featcache.naming import folder_name
from featcache.wording import first, unknown
from pipelines.experiments._choice import Choice
from pipelines.experiments._default import default
from pipelines.experiments._experiment import Experiment, Setting
from pipelines.experiments._files import from_module, import_file
from pipelines.experiments._papers import PAPERS, figures
from pipelines.experiments._rows import SEEDS, Passes, Row, Whole, grid, runs
from pipelines.experiments._suite import suite
from pipelines.experiments._sweep import (
    Grid,
    check_names,
    has,
    parse_grid,
    short_names,
    swept,
    values_of,
    with_settings,
)

__all__ = [
    "PAPERS",
    "SEEDS",
    "Choice",
    "Experiment",
    "Grid",
    "Passes",
    "Row",
    "Setting",
    "Whole",
    "check_names",
    "default",
    "figures",
    "grid",
    "has",
    "is_folder",
    "load",
    "names",
    "parse_grid",
    "runs",
    "short_names",
    "suite",
    "swept",
    "values_of",
    "with_settings",
]


def names() -> list[str]:
    """The experiments: the files of this folder that do not start with an underscore."""
    return registry.names(__name__)


def is_folder(experiment: str | Path) -> bool:
    """Return whether this names a folder of stores, and no experiment."""
    return str(experiment) not in names() and (Path(experiment) / "manifest.csv").exists()


def load(experiment: str | Path, choice: Choice | None = None) -> Experiment:
    """Load an experiment: by its name, from a .py file, or the one of a folder of stores.

    choice: the methods, feeds, shifts, net and task of a folder's experiment.
    """
    name, path = str(experiment), Path(experiment)
    if choice and choice != Choice() and not is_folder(experiment):
        options = " and ".join(f"--{word}" for word in choice.words)
        choose = "choose" if len(choice.words) > 1 else "chooses"
        raise WordError(
            f"{options} {choose} the rows of the experiment of a folder of stores, but {name} has its own rows; choose "
            "some of them with --only, and change them with --set"
        )
    if name in names():
        return from_module(name, registry.load(__name__, name, "experiment"))
    if path.suffix == ".py":
        return from_module(folder_name(path.stem, "experiment", "give its file another name"), import_file(path))
    if (path / "manifest.csv").exists():
        return default(path, choice)
    if advice := _near_folder(path):
        raise ConfigError(advice)
    raise ConfigError(
        f"{unknown('experiment', name, names())}; or give a .py file, a folder of stores (STORES/<manifest>, which has "
        "a manifest.csv), or --plugins FOLDER with the experiment"
    )


def _near_folder(path: Path) -> str:
    """Return a sentence about a path near a folder of stores: its parent, its neighbour, or a file or store in it."""
    folders, beside = ([manifest.parent for manifest in sorted(p.glob("*/manifest.csv"))] for p in (path, path.parent))
    if folders:
        return f"{path} holds folders of stores, not stores; give one of them: {first(map(str, folders))}"
    if (path.parent / "manifest.csv").exists() and (path.suffix == ".zarr" or path.name == "manifest.csv"):
        return f"{path} is a part of a folder of stores; give the folder {path.parent}"
    if path.is_dir():
        return (
            f"{path} is no folder of stores, because it has no manifest.csv; run `featcache extract` or `import` first"
        )
    if beside and len(path.parts) > 1:
        return str(unknown("folder of stores", path.name, [folder.name for folder in beside], str(path.parent)))
    return ""
