"""The log of a run's steps, and the news of runs in training: their steps, terms and evaluation points.

The trainer reports to one `Watch`, which passes news on at most ten times a second. News only read what training has
computed, so runs that are watched end with the same bytes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor

from pipelines.config import RunConfig

Log = list[dict[str, float]]  #: the terms of each step
SECONDS = 0.1  #: between two news of a process


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
    """The place to which the trainer reports its steps; without `hear`, nobody watches.

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
        if not self._logs:
            self._terms.clear()
        self._terms.append(terms)
        if time.monotonic() >= self._due:
            self._send()

    def point(self, run: str, scores: dict[str, float]) -> None:
        """Note an evaluation point of a run."""
        self._points.setdefault(run, []).append(scores)

    def end(self) -> None:
        """Send what has not been sent, because the training ends here, or has failed."""
        if self._terms or self._points:
            self._send()

    def _send(self, begun: tuple[RunConfig, ...] = ()) -> None:
        if self._hear is None:
            return
        loss, lines = None, dict[str, Log]()
        if self._terms:
            loss = float(torch.stack(list(self._terms[-1].values())).sum(0).mean())
        if self._logs:
            logs = logs_of(self._terms, self._step - len(self._terms), len(self._runs))
            lines = dict(zip(self._runs, logs, strict=True))
        self._hear(News(self._runs, self._step, begun, loss, lines, self._points))
        self._terms, self._points = [], {}
        self._due = time.monotonic() + SECONDS


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
