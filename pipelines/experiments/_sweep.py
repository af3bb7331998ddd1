"""Sweeps: an experiment whose rows have several values of their settings.

    featcache sweep kitchens --only 'RNA (UDA)' --grid method.lambda_g=0.1,0.3,1 --grid optim.lr=0.01,0.03

gives the rows "RNA (UDA), lambda_g = 0.1, lr = 0.01", "RNA (UDA), lambda_g = 0.1, lr = 0.03", ... Their runs are those
of `--set method.lambda_g=0.1 --set optim.lr=0.01`: the name of a row is no part of a run's id.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import prod
from typing import Any

from featcache.errors import ConfigError
from featcache.wording import nearest, unknown
from pipelines.config import RunConfig
from pipelines.experiments._experiment import Experiment, Setting
from pipelines.settings import flattened

EXAMPLE = "write NAME=VALUE,VALUE,..., for example method.lambda_g=0.1,0.3,1"
SEPARATED = re.compile(r",((?:\([^()]*\)|\[[^\[\]]*\]|[^,])*)")  #: values, with commas inside brackets
RESERVED = {"seed": "give seeds with --seeds", "row": "choose rows with --only"}  #: settings that make no sweep
MOST_SETTINGS = 10_000  #: of a grid

Grid = dict[str, tuple[str, ...]]  #: "method.lambda_g" -> ("0.1", "0.3", "1")


def parse_grid(texts: Iterable[str]) -> Grid:
    """Return the values of each setting from texts "NAME=VALUE,VALUE"; commas inside brackets separate no values.

    >>> parse_grid(["method.lambda_g=0.1,0.3", "batch=(32,32),(64,64)"])
    {'method.lambda_g': ('0.1', '0.3'), 'batch': ('(32,32)', '(64,64)')}
    """
    grid: Grid = {}
    for text in texts:
        name, equals, listed = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise ConfigError(f"no grid {text!r}; {EXAMPLE}")
        values = tuple(value.strip() for value in SEPARATED.findall(f",{listed}"))
        if not all(values):
            raise ConfigError(f"grid {text!r} has {'an empty value' if listed else 'no value'}; {EXAMPLE}")
        if name in grid:
            raise ConfigError(f"the grid names {name!r} twice; give all its values at once: {name}={listed},...")
        grid[name] = values
    return grid


def swept(experiment: Experiment, grid: Mapping[str, Sequence[str]]) -> Experiment:
    """The experiment with a row for each combination of the grid's values.

    A row gets the settings that it has, such as `method.lambda_g` of methods with a λ_g; a row without any of them
    stays as it is. ConfigError for a setting that no row has, for a value that a row cannot have, and for equal values.
    """
    check_names(experiment, grid)
    settings: list[Setting] = []
    for row in experiment.rows:
        names = [name for name in grid if has(experiment, row, name)]
        if (count := prod(len(grid[name]) for name in names)) > MOST_SETTINGS:
            raise ConfigError(f"the grid has {count:,} settings; it may have {MOST_SETTINGS:,}. Try --search")
        settings += [
            Setting(row, dict(zip(names, values, strict=True))) for values in product(*(grid[name] for name in names))
        ]
    return with_settings(experiment, settings)


def with_settings(experiment: Experiment, settings: Iterable[Setting]) -> Experiment:
    """The experiment with a row for each of these settings, in their order. A setting without values keeps its row."""
    settings = list(settings)
    alone = {row: experiment.changed(only=[row]) for row in dict.fromkeys(setting.row for setting in settings)}
    names = dict.fromkeys(name for setting in settings for name in setting.values)
    runs: dict[tuple[str, str], RunConfig] = {}  # equal runs once
    rows: dict[str, Setting] = {}
    made: set[tuple[str, ...]] = set()  # row and runs of each setting: equal values may be written differently
    for setting in settings:
        changed = alone[setting.row].changed(setting.changes) if setting.values else alone[setting.row]
        row = ", ".join([setting.row, *_named(changed, setting, names)])
        ids = (setting.row, *(run.id for run in changed.runs if run.row))
        if row in rows or ids in made:
            raise ConfigError(f"the settings of row {row!r} are named twice; name each value once")
        rows[row] = setting
        made.add(ids)
        for run in changed.runs:
            shown = replace(run, row=row) if run.row else run
            runs[shown.id, shown.row] = shown
    return replace(
        experiment,
        runs=tuple(runs.values()),
        quoted=(),
        earlier_ids=experiment.earlier_ids | experiment.by_id.keys(),
        unchanged=experiment.whole,
        swept={row: setting for row, setting in rows.items() if setting.values},
    )


def check_names(experiment: Experiment, names: Iterable[str]) -> None:
    """Raise ConfigError for a name of a setting that no row has, with the names near it, or that makes no sweep."""
    for name in names:
        if name in RESERVED:
            raise ConfigError(f"{name!r} makes no sweep; {RESERVED[name]}")
        if any(change.partition("=")[0].strip() == name for change in experiment.settings):
            raise ConfigError(f"{name!r} is swept, and fixed by --set; leave out one of them")
        if not any(has(experiment, row, name) for row in experiment.rows):
            paths = dict.fromkeys(path for row in experiment.rows for path in values_of(experiment, row))
            part = f"{name.rpartition('.')[0]}."
            beside = [path for path in paths if path.startswith(part)] or [path.partition(".")[0] for path in paths]
            raise unknown("setting", name, filter(None, dict.fromkeys([nearest(name, paths), *beside])))


def has(experiment: Experiment, row: str, name: str) -> bool:
    """Return whether a row has a setting, or a part of that name such as `method`."""
    return any(path == name or path.startswith(f"{name}.") for path in values_of(experiment, row))


def values_of(experiment: Experiment, row: str) -> dict[str, Any]:
    """Path -> value of all settings of a row's first run; `method` and `net` are set by these names."""
    values = flattened(next(run for run in experiment.runs if run.row == row).all_settings)
    return {path: value for path, value in values.items() if path not in ("method.name", "net.name")}


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Name of a setting -> its last part, or the whole name where another one ends alike.

    >>> short_names(["method.lambda_g", "net.dim", "optim.lr", "optim_for.net.lr"])
    {'method.lambda_g': 'lambda_g', 'net.dim': 'dim', 'optim.lr': 'optim.lr', 'optim_for.net.lr': 'optim_for.net.lr'}
    """
    last = {name: name.rpartition(".")[2] for name in names}
    return {name: name if list(last.values()).count(short) > 1 else short for name, short in last.items()}


def _named(changed: Experiment, setting: Setting, names: Iterable[str]) -> list[str]:
    """Return the values of a setting as parts of its row's name: "lambda_g = 0.3"; equal numbers look alike."""
    values = flattened(next(run for run in changed.runs if run.row).all_settings)
    short = short_names(names)
    return [f"{short[name]} = {_spelled(values.get(name), text)}" for name, text in setting.values.items()]


def _spelled(value: Any, text: str) -> str:
    """Return a value as it is printed; the text that gave it if it is no number."""
    return f"{value:.10g}" if isinstance(value, int | float) and not isinstance(value, bool) else text
