"""Import and check of experiments in Python files."""

import importlib
import importlib.util
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from featcache.errors import ConfigError, FeatcacheError
from featcache.wording import unknown
from pipelines import tasks
from pipelines.config import RunConfig
from pipelines.experiments._experiment import Experiment


def import_file(path: Path) -> ModuleType:
    """Import a user's file; ConfigError names the line of an error."""
    if not path.is_file():
        raise ConfigError(f"no experiment file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{path}{_place(error, path)}: {_complaint(error)}") from error
    return module


def _place(error: Exception, path: Path) -> str:
    """` line N` of the file in which the error occurred; "" if the line is unknown."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno)
    return f" line {lines[-1]}" if lines and lines[-1] else ""


def _complaint(error: Exception) -> str:
    """The message of an error; with its class, unless it is our own or the parser's."""
    if isinstance(error, SyntaxError):
        return error.msg
    return str(error) if isinstance(error, FeatcacheError) else f"{type(error).__name__}: {error}"


def from_module(name: str, module: ModuleType) -> Experiment:
    """Make an experiment from a module's docstring, RUNS, NOTE, DATA and PUBLISHED; ConfigError if they are not valid.

    DATA: domain -> names of the data that hold its clips with their labels, as in `_data.BEHIND`.
    """
    runs = getattr(module, "RUNS", None)
    if not isinstance(runs, tuple | list) or not runs or not all(isinstance(run, RunConfig) for run in runs):
        raise ConfigError(f"experiment {name!r} ({module.__file__}) needs RUNS, a tuple of RunConfig")
    published, note = getattr(module, "PUBLISHED", None), getattr(module, "NOTE", "")
    data = getattr(module, "DATA", None)
    if data is not None:
        _check_data(data, module)
    experiment = Experiment(name, (module.__doc__ or "").strip(), tuple(runs), published, note, data=data)
    _check_published(experiment, module)
    return experiment


def _check_data(data: Any, module: ModuleType) -> None:
    """Check that DATA names a tuple of data for each domain."""
    if not isinstance(data, dict):
        raise ConfigError(f"{module.__file__}: DATA must be {{domain: (name of data, ...)}}, not {data!r}")
    for domain, names in data.items():
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"{module.__file__}: DATA[{domain!r}]={names!r} must be a tuple of names of data")


def _check_published(experiment: Experiment, module: ModuleType) -> None:
    """Check that every published number belongs to a cell of the table: a mistyped name would hide the number."""
    if experiment.published is None:
        return
    columns = [*dict.fromkeys(column for columns in experiment.columns.values() for column in columns), "mean"]
    place = f"{module.__file__}: PUBLISHED"
    shape = f'{place} must be {{row: {{"D1→D2": per cent, ...}}, ...}}'
    if not isinstance(experiment.published, dict):
        raise ConfigError(f"{shape}, not {experiment.published!r}")
    for row, numbers in experiment.published.items():
        if row not in experiment.rows:
            raise ConfigError(f"{place}: {unknown('row', str(row), experiment.rows)}")
        if not isinstance(numbers, dict):
            raise ConfigError(f"{shape}; its row {row!r} has {numbers!r}")
        for column, number in numbers.items():
            if column not in columns:
                raise ConfigError(f"{place}[{row!r}]: {unknown('shift', str(column), columns)}")
            for metric, value in number.items() if isinstance(number, dict) else [("", number)]:
                cell = f"{place}[{row!r}][{column!r}]" + (f"[{metric!r}]" if metric else "")
                try:
                    measured = tasks.metric(metric or experiment.task.headlines[0])
                except ConfigError as error:
                    raise ConfigError(f"{cell}: {error}") from None
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= measured.most:
                    unit = "a number in per cent" if measured.is_share else measured.unit
                    limits = "of at least 0" if measured.unit == "a rank" else f"from 0 to {measured.most}"
                    raise ConfigError(f"{cell}={value!r} must be {unit} {limits}")
