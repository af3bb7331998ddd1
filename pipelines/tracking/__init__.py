"""News of runs in training -> TensorBoard, wandb or trackio: terms, learning rates, validators, settings, last numbers.

There is a file per tracker. Each tracker makes a run of its own for each run that is trained, named by the run's id, in
a folder or project of the experiment. Trackers run in the process that starts the training, and receive the lines that
log.jsonl gets. Runs that are kept are not tracked again. A run that is trained again, also after an interruption,
replaces its earlier record where that is on this machine.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from featcache.errors import ConfigError
from featcache.wording import unknown
from pipelines.config import RunConfig
from pipelines.measures.validators import VALIDATORS, best
from pipelines.training.engine import Outcome
from pipelines.training.runs import Run
from pipelines.training.watching import News

NAMES = ("tensorboard", "trackio", "wandb")  #: the trackers; also the names of their packages and of their extras
Values = list[tuple[int, dict[str, float]]]  #: (step, name -> value), by rising steps


class Tracked(Protocol):
    """The record of one run in a tracker."""

    def log(self, values: Values) -> None:
        """Record values."""

    def end(self, *, finished: bool) -> None:
        """Write what has not been written; nothing follows. finished: False after an error or an interruption."""


def check(names: Iterable[str]) -> None:
    """Raise ConfigError if a tracker is unknown or its package is missing."""
    for name in names:
        if name not in NAMES:
            raise ConfigError(unknown("tracker", name, NAMES))
        spec = find_spec(name)
        if not spec or not spec.origin:  # a folder of this name in the current one is no package
            raise ConfigError(f"--track {name} needs the package {name}; pip install 'featcache[{name}]'")


class Tracking:
    """The trackers of a command that trains. One that fails is left out from then on, with one warning."""

    def __init__(self, names: Sequence[str], folder: Path, experiment: str, warn: Callable[[str], None]) -> None:
        check(names)
        self._folder, self._warn = folder.resolve(), warn
        self._used: set[str] = set()  # trackers that have recorded a run
        self._experiment = re.sub(r"[^\w.-]+", "-", experiment)[:100]  # a name for folders and projects
        self._configs: dict[str, RunConfig] = {}
        self._records: dict[str, dict[str, Tracked]] = {name: {} for name in names}  # tracker -> run -> its record

    def __bool__(self) -> bool:
        """True if there is a tracker."""
        return bool(self._records)

    def hear(self, news: News) -> None:
        """Record the lines and points of runs in training."""
        self._configs |= {config.id: config for config in news.begun}
        for run in news.runs:
            config = self._configs[run]
            values = [(int(line["step"]), _of_line(line, config)) for line in news.lines.get(run, [])]
            values += [(int(point["step"]), _named("validators", point)) for point in news.points.get(run, [])]
            values = sorted((value for value in values if value[1]), key=lambda value: value[0])
            for name in list(self._records):
                with self._guarded(name):
                    if news.begun:
                        self._begin(name, config)
                    if values:
                        self._records[name][run].log(values)

    def ended(self, outcome: Outcome, done: int = 0, total: int = 0) -> None:
        """Record the last numbers of a run that has ended."""
        for name in list(self._records):
            record = self._records[name].pop(outcome.config.id, None)
            if record:
                with self._guarded(name):
                    if outcome.folder:
                        record.log([(outcome.config.steps, last_numbers(Run.open(outcome.folder)))])
                    record.end(finished=bool(outcome.folder))

    def close(self) -> None:
        """End the records of runs that have not ended, because the command was stopped."""
        for name in list(self._records):
            for record in self._records[name].values():
                with self._guarded(name):
                    record.end(finished=False)

    @property
    def views(self) -> list[str]:
        """The commands that show what the trackers have recorded."""
        used = [name for name in self._records if name in self._used]
        return [import_module(f"{__name__}.{name}").view(self._folder, self._experiment) for name in used]

    def _begin(self, name: str, config: RunConfig) -> None:
        """Begin the record of a run; one that was begun before is thrown away, because the run begins again."""
        if earlier := self._records[name].pop(config.id, None):
            earlier.end(finished=False)
        tracker = import_module(f"{__name__}.{name}")
        self._records[name][config.id] = tracker.begin(self._folder, self._experiment, config)
        self._used.add(name)

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Leave a tracker out that fails; training continues."""
        try:
            yield
        except Exception as error:
            self._warn(f"Warning: tracking by {name} has failed ({error}); training continues without it")
            for record in self._records.pop(name, {}).values():
                with suppress(Exception):
                    record.end(finished=False)


def _of_line(line: dict[str, float], config: RunConfig) -> dict[str, float]:
    """Return the values of a line of the log: its terms, and the learning rates of the step."""
    rates = {"learning_rate": config.optim, **{f"learning_rate/{part}": o for part, o in config.optim_for.items()}}
    progress = line["step"] / config.steps
    return _named("terms", line) | {name: optim.at(progress) for name, optim in rates.items()}


def _named(kind: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{kind}/{name}": value for name, value in values.items() if name != "step"}


def last_numbers(run: Run) -> dict[str, float]:
    """Return the last numbers of a finished run: the validators at its selected point, and its seconds."""
    points, select = run.points, run.config.select
    chosen = points[best(select, [point[select] for point in points])] if select in VALIDATORS else points[-1]
    return {f"final/{name}": float(value) for name, value in chosen.items()} | {"final/seconds": run.facts.seconds}
