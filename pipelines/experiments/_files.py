"""Import and check of experiments in Python files."""

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from featcache import plugins
from featcache.errors import ConfigError
from featcache.wording import unknown
from pipelines import tasks
from pipelines.config import RunConfig
from pipelines.experiments._experiment import Experiment


def import_file(path: Path) -> ModuleType:
    """Import a user's file, which may import the modules next to it; ConfigError names the line of an error."""
    if not path.is_file():
        raise ConfigError(f"no experiment file {path}")
    file = Path(os.path.abspath(path))  # as Python writes it into tracebacks
    spec = importlib.util.spec_from_file_location("experiment_file", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        with _neighbours(file.parent):
            sys.modules[spec.name] = module  # dataclasses look their module up; removed at the end of the block
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{path}{plugins.failure(error, file)}") from error
    return module


@contextmanager
def _neighbours(folder: Path) -> Iterator[None]:
    """Make the modules of a folder importable inside the block.

    Modules of Python, of this program and of installed packages come first. At the end the folder's modules are
    forgotten, because a file in another folder may have neighbours of the same names.
    """
    before, paths = set(sys.modules), list(sys.path)
    sys.path.append(str(folder))
    importlib.invalidate_caches()  # a neighbour may be new
    try:
        yield
    finally:
        sys.path[:] = paths
        tops = {name for name, module in sys.modules.items() if name not in before and _home(module) == folder}
        for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
            del sys.modules[name]


def _home(module: ModuleType) -> Path | None:
    """The folder that holds a module's file or, for a package, its folder; None for modules that have neither."""
    place = next(iter(getattr(module, "__path__", ())), getattr(module, "__file__", None))
    return Path(place).parent if place else None


def from_module(name: str, module: ModuleType) -> Experiment:
    """Make an experiment from a module's docstring and its variables; ConfigError if they are not valid.

    RUNS: all runs. PUBLISHED: row -> column -> number of the paper. QUOTED: rows of PUBLISHED that no run makes, which
    the table shows as the paper prints them. NOTE: a remark on the numbers. METRIC: the metric
    of the table and of numbers of PUBLISHED that name none, if it is not the headline of the experiment's task.

    DATA: domain -> names of the data that hold its clips with their labels, as in `_data.BEHIND`.
    """
    runs = getattr(module, "RUNS", None)
    if not isinstance(runs, tuple | list) or not runs or not all(isinstance(run, RunConfig) for run in runs):
        raise ConfigError(f"experiment {name!r} ({module.__file__}) needs RUNS, a tuple of RunConfig")
    if module.__name__ not in sys.modules:  # a user's file: its own kinds of text cannot be sent to worker processes
        runs = [RunConfig.from_json(json.loads(json.dumps(run.to_json()))) for run in runs]
    published, note = getattr(module, "PUBLISHED", None), getattr(module, "NOTE", "")
    data = getattr(module, "DATA", None)
    if data is not None:
        _check_data(data, module)
    quoted = getattr(module, "QUOTED", ())
    _check_quoted(quoted, published, module)
    metric = getattr(module, "METRIC", "")
    doc = (module.__doc__ or "").strip()
    experiment = Experiment(name, doc, tuple(runs), published, tuple(quoted), note, metric=metric, data=data)
    _check_metric(experiment, module)
    _check_published(experiment, module)
    return experiment


def _check_data(data: Any, module: ModuleType) -> None:
    """Check that DATA names a tuple of data for each domain."""
    if not isinstance(data, dict):
        raise ConfigError(f"{module.__file__}: DATA must be {{domain: (name of data, ...)}}, not {data!r}")
    for domain, names in data.items():
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"{module.__file__}: DATA[{domain!r}]={names!r} must be a tuple of names of data")


def _check_quoted(quoted: Any, published: Any, module: ModuleType) -> None:
    """Check that QUOTED names rows of PUBLISHED, and no row of RUNS."""
    if not isinstance(quoted, tuple | list) or not all(isinstance(row, str) for row in quoted):
        raise ConfigError(
            f'{module.__file__}: QUOTED must be a tuple of names of rows, such as ("SCAN",), not {quoted!r}'
        )
    made = {run.row for run in module.RUNS}
    for row in quoted:
        if row in made or not isinstance(published, dict) or row not in published:
            raise ConfigError(f"{module.__file__}: QUOTED {row!r} must be a row of PUBLISHED that no run makes")


def _check_metric(experiment: Experiment, module: ModuleType) -> None:
    """Check that METRIC is a metric of the experiment's task, or the score of a validator."""
    metric, task = experiment.metric, experiment.task
    if metric == "":
        return
    if not isinstance(metric, str):
        raise ConfigError(f"{module.__file__}: METRIC must be the name of a metric, not {metric!r}")
    try:
        base = tasks.base_metric(metric)
    except ConfigError as error:
        raise ConfigError(f"{module.__file__}: METRIC: {error}") from None
    if base in task.metrics and task.metrics[base].is_gain:
        raise ConfigError(f"{module.__file__}: METRIC={metric!r} compares rows; name a metric that each run has")
    if base not in task.metrics and not base.startswith("validator/"):
        raise ConfigError(
            f"{module.__file__}: METRIC={metric!r} is no metric of {task.name}; choose from {', '.join(task.metrics)}"
        )


def _check_published(experiment: Experiment, module: ModuleType) -> None:
    """Check that every published number belongs to a cell of the table: a mistyped name would hide the number."""
    if experiment.published is None:
        return
    columns = [*dict.fromkeys(column for columns in experiment.columns.values() for column in columns), "mean", "gain"]
    place = f"{module.__file__}: PUBLISHED"
    shape = f'{place} must be {{row: {{"D1→D2": per cent, ...}}, ...}}'
    if not isinstance(experiment.published, dict):
        raise ConfigError(f"{shape}, not {experiment.published!r}")
    for row, numbers in experiment.published.items():
        if row not in (*experiment.rows, *experiment.quoted):
            fix = "; a row that no run makes is named in QUOTED"
            raise ConfigError(f"{place}: {unknown('row', str(row), experiment.rows)}{fix}")
        if not isinstance(numbers, dict):
            raise ConfigError(f"{shape}; its row {row!r} has {numbers!r}")
        for column, number in numbers.items():
            if column not in columns:
                raise ConfigError(f"{place}[{row!r}]: {unknown('shift', str(column), columns)}")
            for metric, value in number.items() if isinstance(number, dict) else [("", number)]:
                cell = f"{place}[{row!r}][{column!r}]" + (f"[{metric!r}]" if metric else "")
                try:
                    measured = tasks.metric(metric or experiment.headline())
                except ConfigError as error:
                    raise ConfigError(f"{cell}: {error}") from None
                least = -measured.most if measured.is_gain or column == "gain" else 0
                if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= measured.most:
                    unit = "a number in per cent" if measured.is_share else measured.unit
                    limits = "of at least 0" if measured.unit == "a rank" else f"from {least} to {measured.most}"
                    raise ConfigError(f"{cell}={value!r} must be {unit} {limits}")
