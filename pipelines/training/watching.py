"""The log of a run's steps, and the news of runs in training: their steps, terms and evaluation points.

The trainer reports to one `Watch`, which passes news on at most ten times a second, and more rarely, down to once a
second, where that takes more than a hundredth of the time. A bar costs about one per cent. A tracker costs more,
because it begins each run and gets the line of every step (docs/guide.md, "Watch a run"). News only read what training
has computed, so runs that are watched end with the same bytes.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor

from featcache.progress import Bar, Progress
from pipelines.config import RunConfig

Log = list[dict[str, float]]  #: the terms of each step
SECONDS, MOST = 0.1, 1.0  #: least and most seconds between two news of a process
SHARE = 0.01  #: of the time, that news may take; with more, they are rarer, until MOST
SURE = 1.0  #: seconds of training from which the time left is estimated


@dataclass(frozen=True)
class News:
    """The progress of runs since the news before."""

    runs: tuple[str, ...]  #: ids of the runs, several if they share passes
    step: int  #: steps that each of them has made
    begun: tuple[RunConfig, ...] = ()  #: all of them, if their training begins here, perhaps again
    loss: float | None = None  #: sum of the terms of the last step, the mean over the runs; None: no step yet
    lines: dict[str, Log] = field(default_factory=dict)  #: id -> new lines of log.jsonl, if they are wanted
    points: dict[str, Log] = field(default_factory=dict)  #: id -> evaluation points: step, and the validators' scores


Hear = Callable[[News], None]  #: called with all news, in order


class Watch:
    """The place to which the trainer reports its steps; without `hear`, nobody watches, and it keeps nothing.

    logs: the news also have the lines that log.jsonl gets.
    """

    def __init__(self, hear: Hear | None = None, *, logs: bool = False) -> None:
        self._hear, self._logs = hear, logs and hear is not None
        self._runs: tuple[str, ...] = ()
        self._step = 0
        self._due = inf  # time of the next news
        self._terms: list[dict[str, Tensor]] = []  # of the last step, or with `logs` of all steps since the last news
        self._points: dict[str, Log] = {}

    def begin(self, *configs: RunConfig) -> None:
        """Note that the training of these runs begins."""
        self._runs = tuple(config.id for config in configs)
        self._step, self._terms, self._points = 0, [], {}
        self._send(configs)

    def stepped(self, step: int, terms: dict[str, Tensor]) -> None:
        """Note the terms of a step, (K,) of K runs, after which `step` steps are made."""
        self._step = step
        if not self._hear:
            return
        if not self._logs:
            self._terms.clear()
        self._terms.append(terms)
        if time.monotonic() >= self._due:
            self._send()

    def point(self, run: str, scores: dict[str, float]) -> None:
        """Note an evaluation point of a run."""
        if self._hear:
            self._points.setdefault(run, []).append(scores)

    def end(self) -> None:
        """Send what has not been sent, because the training ends here, or has failed."""
        if self._terms or self._points:
            self._send()

    def _send(self, begun: tuple[RunConfig, ...] = ()) -> None:
        if not self._hear:
            return
        began = time.monotonic()
        loss, lines = None, dict[str, Log]()
        if self._terms:
            loss = float(torch.stack(list(self._terms[-1].values())).sum(0).mean())
        if self._logs:
            logs = logs_of(self._terms, self._step - len(self._terms), len(self._runs))
            lines = dict(zip(self._runs, logs, strict=True))
        self._hear(News(self._runs, self._step, begun, loss, lines, self._points))
        self._terms, self._points = [], {}
        now = time.monotonic()
        self._due = now + min(max(SECONDS, (now - began) / SHARE), MOST)


def logs_of(terms: Sequence[dict[str, Tensor]], first: int, count: int) -> list[Log]:
    """Return the log of each of `count` runs: a line per step, from step number `first`, with the values of its terms.

    terms: those of each step, scalars of one run or (count,) of several.
    """
    if not terms:
        return [[] for _ in range(count)]
    values = torch.stack([value for step_terms in terms for value in step_terms.values()])
    logs = []
    for of_run in values.reshape(len(values), count).T.tolist():
        value = iter(of_run)
        logs.append([{"step": first + k, **{name: next(value) for name in step}} for k, step in enumerate(terms)])
    return logs


class Course:
    """The progress of many runs, by their news. It counts steps, and estimates the time that they still take.

    Kept and failed runs are done at once; the time is estimated from the steps that have been made. A run without steps
    counts as one step.
    """

    def __init__(self, configs: Iterable[RunConfig]) -> None:
        self._configs = {config.id: config for config in configs}
        self._steps = {run: max(1, config.steps) for run, config in self._configs.items()}
        self._done = dict.fromkeys(self._steps, 0)
        self._made = 0  # steps of the time since _began, also those of a pass that failed
        self._began = 0.0  # time of the first news
        self._ended = 0
        self._loss = self._scores = ""  # as text: those of the last news, and of the last evaluation point

    @property
    def done(self) -> int:
        """The steps that are done."""
        return sum(self._done.values())

    @property
    def total(self) -> int:
        """The steps of all runs."""
        return sum(self._steps.values())

    def hear(self, news: News) -> None:
        """Count the steps of runs in training."""
        self._began = self._began or time.monotonic()
        self._made += sum(max(0, news.step - self._done[run]) for run in news.runs)
        self._done |= dict.fromkeys(news.runs, news.step)
        for points in news.points.values():
            self._scores = "".join(f", {name} {score:.3g}" for name, score in points[-1].items() if name != "step")
        if news.loss is not None:
            row = self._configs[news.runs[0]].row_shown
            self._loss = f"{row}{': ' * bool(row)}loss {news.loss:.3g}"

    def ended(self, run: str) -> None:
        """Count a run that has ended."""
        self._done[run] = self._steps[run]
        self._ended += 1

    def left(self) -> float | None:
        """Return the seconds that the training still takes; None before SURE seconds of it."""
        passed = time.monotonic() - self._began
        to_make = self.total - self.done
        return to_make * passed / self._made if self._began and self._made and passed >= SURE else None

    def show(self, bar: Progress) -> None:
        """Report the steps; a bar also shows the number of runs, the time left, the loss and the scores."""
        if not isinstance(bar, Bar):
            return bar(self.done, self.total)
        words = f"{self._ended} of {len(self._steps)} runs, {self.done} of {self.total} steps"
        left = self.left()
        time_left = "?" if left is None else bar.bar.format_interval(left)
        bar.show(self.done, self.total, words, f"{self._loss}{self._scores}", time_left)
