"""Runs in training: a bar that moves with every step, and the options of trackers."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli._shared import PATH, Job, Words, columns, done_so_far, note, shown_bar

if TYPE_CHECKING:
    from pipelines.config import RunConfig
    from pipelines.training.engine import Outcome
    from pipelines.training.watching import News

BAR = "{desc}: {percentage:3.0f}%|{bar}| "  #: in a terminal
LINE = "{desc}: {percentage:3.0f}%, "  #: elsewhere
SURE = 1.0  #: seconds of training from which the time left is estimated


class TrainingBar:
    """The progress of runs in training. It counts the steps of all runs, and estimates the time that they still take.

    Kept and failed runs are done at once; the time is estimated from the steps that have been made. A run without steps
    counts as one step.
    """

    def __init__(self, bar: Any, configs: "Iterable[RunConfig]") -> None:
        self._bar, self._terminal = bar, sys.stderr.isatty()
        self._rows = {config.id: config.row_shown for config in configs}
        self._steps = {config.id: max(1, config.steps) for config in configs}
        self._done = dict.fromkeys(self._steps, 0)
        self._made = self._ended = 0  # steps of the time since _began, also those of a pass that failed; and runs
        self._began = 0.0  # time of the first step
        self._loss = self._scores = ""  # as text: those of the last news, and of the last evaluation point
        bar.total = sum(self._steps.values())
        self._move()

    def hear(self, news: "News") -> None:
        """Move by the steps of runs in training."""
        self._began = self._began or time.monotonic()
        self._made += sum(max(0, news.step - self._done[run]) for run in news.runs)
        self._done |= dict.fromkeys(news.runs, news.step)
        for points in news.points.values():
            self._scores = "".join(f", {name} {score:.3g}" for name, score in points[-1].items() if name != "step")
        if news.loss is not None:
            row = self._rows[news.runs[0]]
            self._loss = f"{row}{': ' * bool(row)}loss {news.loss:.3g}"
        self._move()

    def ended(self, outcome: "Outcome", done: int, total: int) -> None:
        """Count a run that has ended."""
        if outcome.status != "busy":
            self._done[outcome.config.id] = self._steps[outcome.config.id]
            self._ended = done
            self._move()

    def left(self) -> float | None:
        """Return the seconds that the training still takes; None before SURE seconds of it."""
        passed = time.monotonic() - self._began
        to_make = sum(self._steps.values()) - sum(self._done.values())
        return to_make * passed / self._made if self._began and self._made and passed >= SURE else None

    def _move(self) -> None:
        done, left, runs = sum(self._done.values()), self.left(), f"{self._ended} of {len(self._steps)} runs"
        done_so_far(runs)
        time_left = "?" if left is None else self._bar.format_interval(left)
        state = f"[{{elapsed}}<{time_left}] " + f"{self._loss}{self._scores}".replace("{", "{{").replace("}", "}}")
        words = f"{runs}, {done} of {self._bar.total} steps {state}".rstrip()
        self._bar.bar_format = f"{BAR if self._terminal else LINE}{words}"
        self._bar.ncols = columns() if self._terminal else None
        self._bar.update(done - self._bar.n)


@contextmanager
def training_bar(title: str, configs: "Iterable[RunConfig]") -> "Iterator[TrainingBar]":
    """Yield the bar of these runs."""
    with shown_bar(title, "step") as bar:
        yield TrainingBar(bar, list({config.id: config for config in configs}.values()))


def tracking_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of trackers to a command on a Job, which receives a `Tracking`, with or without trackers."""

    @wraps(command)
    def with_tracking(job: Job, track: Words, track_to: Path | None, **own: Any) -> None:
        from pipelines.tracking import Tracking

        runs = job.runs.resolve()
        folder = track_to or runs.with_name(f"{runs.name}-tracked")
        tracking = Tracking(track, folder, job.experiment.name, note)
        try:
            command(job, tracking=tracking, **own)
        finally:
            tracking.close()
            for view in tracking.views:
                note(f"tracked; to look at it: {view}")

    options = [
        click.option(
            "--track",
            type=click.Choice(["tensorboard", "trackio", "wandb"]),
            multiple=True,
            help="Record the runs in a tracker while they are trained (pip install 'featcache[tensorboard]', ...); may "
            "be repeated. trackio and wandb write to this machine, unless their environment variables name a server.",
        ),
        click.option("--track-to", type=PATH, metavar="FOLDER", help="Folder of trackers.  [default: RUNS-tracked]"),
    ]
    for option in reversed(options):
        with_tracking = option(with_tracking)
    return with_tracking
