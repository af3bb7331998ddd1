"""The section of a report with the curves of training: terms of the loss, and validators at the kept points."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np

from pipelines.experiments import Experiment
from pipelines.report import page, plots
from pipelines.report.metrics import tones
from pipelines.report.opened import Opened
from pipelines.report.steps import steps
from pipelines.tables.build import planned_runs
from pipelines.tables.cells import Table
from pipelines.training.runs import Run

READ = 120  #: most steps of a run that are read, at equal distances, besides the last one
DASHES = ("solid", "dashed", "dotted", "dash and dot")  #: of the lines of seeds, as style.css draws them
DRAWN = 40  #: most points of a line; each is the mean of the steps that were read around it


def curves(experiment: Experiment, table: Table, opened: Opened) -> str:
    """A small panel for each shift, method, and term or validator, with a line per seed."""
    colours = tones(table)
    planned, parts, missing = planned_runs(experiment), list[str](), dict[str, None]()
    every = sorted({seed for seeds in planned.values() for seed in seeds})
    dashes = {seed: f"dashes{place % len(DASHES)}" for place, seed in enumerate(every)}
    for shift in steps(table.shifts):
        rows = []
        for line in table.lines:
            seeds = planned.get((line.method, shift), {})
            found = {seed: opened.runs[run] for seed, run in seeds.items() if run in opened.runs}
            missing |= dict.fromkeys(seeds.values())
            if panels := _panels(f"{line.method} on {shift}", found, f"line-{colours[line.method]}", dashes):
                rows.append(f'<h4>{escape(line.method)}</h4><div class="multiples">{"".join(panels)}</div>')
        if rows:
            drawn = "".join(rows)
            parts.append(page.details(shift, drawn) if parts else f"<h3>{escape(shift)}</h3>{drawn}")
    lines = ", ".join(f"{DASHES[place % len(DASHES)]}: {seed}" for place, seed in enumerate(every))
    lines = f" ({lines})" if len(every) > 1 else ""
    intro = (
        f"A line per seed{lines}, a panel per weighted term of the loss, from the first step to the last. Dots are "
        "scores of validators at the kept evaluation points. Below a panel are the ends of its vertical axis, and its "
        "last step. "
        f"A line has at most {DRAWN} points; each is a mean of steps, of which at most {READ} are read."
    )
    return page.section("Training curves", intro, *parts, reasons=opened.summary(missing))


def _panels(name: str, runs: Mapping[int, Run], tone: str, dashes: Mapping[int, str]) -> list[str]:
    """The panels of one method on one shift: the terms, then the validators."""
    terms: dict[str, list[plots.Curve]] = {}
    for seed, run in runs.items():
        for term, xy in _terms(run).items():
            terms.setdefault(term, []).append(plots.Curve(f"seed {seed}", xy, dashes[seed]))
    scores: dict[str, list[plots.Curve]] = {}
    for seed, run in runs.items():
        for score in dict.fromkeys(score for point in run.points for score in point if score != "step"):
            at = [(point.get("step", np.nan), point.get(score, np.nan)) for point in run.points]
            if finite := tuple(place for place in at if np.isfinite(place).all()):
                scores.setdefault(f"validator {score}", []).append(plots.Curve(f"seed {seed}", finite, dashes[seed]))
    return [plots.trends(title, lines, tone, _alt(name, title, lines)) for title, lines in (terms | scores).items()]


def _alt(name: str, title: str, lines: Sequence[plots.Curve]) -> str:
    """The description of a panel."""
    ends = "; ".join(f"{line.name} {line.xy[0][1]:.3g} to {line.xy[-1][1]:.3g}" for line in lines)
    return f"{title} of {name}: {ends}"


def _terms(run: Run) -> dict[str, tuple[tuple[float, float], ...]]:
    """Term of the loss -> its points, from the first step to the last; steps are numbered from 1."""
    read = dict[str, list[tuple[float, float]]]()
    for values in run.log(max(1, -(-run.config.steps // READ))):
        for term, value in values.items():
            if term != "step" and "step" in values and np.isfinite(value):
                read.setdefault(term, []).append((values["step"] + 1, value))
    return {term: _thinned(points) for term, points in read.items()}


def _thinned(points: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return at most DRAWN points: means of equal parts. The ends of the axis stay the first and the last step."""
    xy = np.array(list(points))
    if len(xy) <= DRAWN:
        return tuple(map(tuple, xy.tolist()))
    means = np.array([part.mean(0) for part in np.array_split(xy, DRAWN)])
    means[0, 0], means[-1, 0] = xy[0, 0], xy[-1, 0]
    return tuple(map(tuple, means.tolist()))
