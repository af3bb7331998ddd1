"""The section of a report with confusion matrices."""

from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np

from featcache.errors import FeatcacheError
from pipelines.evaluation.evaluate import Predictions, predictions
from pipelines.experiments import Experiment
from pipelines.report import page, plots
from pipelines.report.opened import shortened
from pipelines.report.steps import steps
from pipelines.tables.build import planned_runs
from pipelines.tables.cells import Line, Table
from pipelines.training.runs import Run


def confusions(
    experiment: Experiment,
    table: Table,
    runs: Path,
    stores: Path,
    across: str = "predicted class",
    explained: str = "predicted class",
) -> str:
    """The confusion matrices of the first row, the best adapted row and the reference row, side by side for each shift.

    across: the name of the columns. explained: what a column is, for the introduction.
    """
    chosen = dict.fromkeys(line.method for line in (table.lines[0], table.best, table.reference) if line)
    planned, parts, reasons = planned_runs(experiment), [], []
    for shift in steps(table.shifts):
        figures = []
        for line in (line for line in table.lines if line.method in chosen and line.cells[shift].values):
            seeds = planned[line.method, shift]
            try:
                pooled = _pooled([runs / seeds[seed] for seed in line.cells[shift].values], stores)
            except (FeatcacheError, OSError) as error:
                reasons.append(f"No confusion matrix of {line.method} on {shift}: {error}.")
                continue
            caption = _caption(line, shift, pooled)
            alt = f"Confusion matrix of {line.method} on {shift}: shares of each true class by {across}"
            names = _without_domain(pooled.classes)
            figures.append(page.figure(caption, plots.confusion(pooled.truth, pooled.predicted, names, alt, across)))
        if figures:
            parts.append(f"<h3>{escape(shift)}</h3>" + page.panels(figures))
    intro = f"Rows: true class. Columns: {explained}. Numbers: per cent of the row, over all seeds. Outlined: correct."
    return page.section("Confusion matrices", intro, *parts, reasons=shortened(reasons))


def _caption(line: Line, shift: str, shown: Predictions) -> str:
    """The accuracy of the table cell, and where the matrix leaves something out, a remark about it."""
    caption = f"{line.method}: {line.cells[shift].text(1)} %"
    if "mean" in line.select.split(" / "):
        caption += "; matrix: the last of the kept outputs"
    if len(shown.classes) > plots.MOST_CLASSES:
        caption += f"; {plots.MOST_CLASSES} most frequent of {len(shown.classes)} classes"
    return caption


def _without_domain(names: tuple[str, ...]) -> tuple[str, ...]:
    """Remove a domain that begins all names, such as "msr:" of "msr:wave", because a matrix has little room."""
    if len({name.partition(":")[0] for name in names}) > 1:
        return names
    return tuple(name.partition(":")[2] or name for name in names)


def _pooled(folders: list[Path], stores: Path) -> Predictions:
    """Return the predictions of all seeds for the first label, one seed after the other.

    All seeds have the same rows, so each has the same weight.
    """
    seeds = []
    for folder in folders:
        label, *_ = Run.open(folder).facts.spec.classes
        seeds.append(predictions(folder, stores, label))
    truth, predicted = (np.concatenate([getattr(run, name) for run in seeds]) for name in ("truth", "predicted"))
    return replace(seeds[0], truth=truth, predicted=predicted)
