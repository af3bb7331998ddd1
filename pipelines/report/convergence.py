"""The section of a report about several evaluation points: the table's metric after each kept one, as curves."""

from pathlib import Path

import numpy as np

from featcache.errors import FeatcacheError
from pipelines import tasks
from pipelines.evaluation.evaluate import by_step
from pipelines.experiments import Experiment
from pipelines.report import page, plots
from pipelines.report.metrics import tones
from pipelines.report.steps import steps
from pipelines.tables.build import planned_runs
from pipelines.tables.cells import Line, Table
from pipelines.training.runs import NotTrainedError


def convergence(experiment: Experiment, table: Table, runs: Path, stores: Path) -> str:
    """A panel per shift with a curve per row; "" if the experiment's runs keep one point each."""
    kept = [run for run in experiment.runs if run.row and run.kept > 1 and not run.keeps_best]
    several = {run.row_shown for run in kept}
    if not several:
        return ""
    colours = tones(table)
    figures, reasons, without = [], [], dict[str, None]()
    for shift in steps(table.shifts):
        curves = []
        for line in table.lines:
            if line.method in several and line.cells[shift].seeds:
                try:
                    if xy := _curve(experiment, line, table.metric, shift, runs, stores):
                        curves.append(plots.Curve(line.method, xy, f"line-{colours[line.method]}"))
                    else:
                        without[line.method] = None
                except (FeatcacheError, OSError) as error:
                    reasons.append(f"No curve of {line.method} on {shift}: {error}.")
        if curves:
            ends = "; ".join(f"{curve.name} {curve.xy[0][1]:.1f} to {curve.xy[-1][1]:.1f}" for curve in curves)
            alt = f"{tasks.metric(table.metric).words} by step, {shift}: {ends}"
            figures.append(page.figure(shift, plots.curves(curves, "step", alt)))
    if without:
        reasons.append(f"The kept points of {', '.join(without)} have no {table.metric}, so they have no curve.")
    words = tasks.metric(table.metric).words
    intro = f"{words[0].upper()}{words[1:]} on the test clips after each kept evaluation point; mean over seeds."
    spans = dict.fromkeys(f"{run.points[0]} to {run.steps}" for run in kept if run.points[0] > run.eval_every)
    late = f"Only the last evaluation points are kept and drawn: steps {' or '.join(spans)}." if spans else ""
    if figures:
        return page.section("Convergence", f"{intro} {late}", page.panels(figures), reasons=reasons)
    return page.section("Convergence", "", reasons=[*reasons, late])


def _curve(
    experiment: Experiment, line: Line, metric: str, shift: str, runs: Path, stores: Path
) -> plots.Places | None:
    """Return (step, mean over the seeds that have a result) of one method on one shift.

    None where a kept point lacks the metric: norms are measured at the end only, and gains are those of table rows.
    """
    seeds = planned_runs(experiment)[line.method, shift]
    if not line.cells[shift].values:
        raise NotTrainedError("no run has a result")
    values: dict[int, list[float]] = {}  # step -> values of the seeds
    scale = 100 if tasks.metric(metric).is_share else 1
    for seed in line.cells[shift].values:
        for step, by_metric in by_step(runs / seeds[seed], stores).items():
            name = metric if metric in by_metric else metric + experiment.task.stand_in
            if name not in by_metric:
                return None
            values.setdefault(step, []).append(scale * by_metric[name])
    return tuple((step, float(np.mean(numbers))) for step, numbers in values.items())
