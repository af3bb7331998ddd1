"""The part of a report that shows which classes are taken for which."""

from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np

from featcache.errors import FeatcacheError
from pipelines.evaluation.evaluate import Predictions, predictions
from pipelines.experiments import Experiment
from pipelines.report import page, plots
from pipelines.tables.build import plan
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
    """The first row, the best adapted one and the reference side by side, per shift.

    across: the name of a column; explained: its explanation.
    """
    chosen = dict.fromkeys(line.method for line in (table.lines[0], table.best, table.reference) if line)
    planned, parts, reasons = plan(experiment), [], []
    for shift in table.shifts:
        figures = []
        for line in (line for line in table.lines if line.method in chosen and line.cells[shift].values):
            seeds = planned[line.method, shift]
            try:
                seen = _pooled([runs / seeds[seed] for seed in line.cells[shift].values], stores)
            except (FeatcacheError, OSError) as error:
                reasons.append(f"No confusion matrix of {line.method} on {shift}: {error}.")
                continue
            caption = _caption(line, shift, seen)
            alt = f"Confusion matrix of {line.method} on {shift}: shares of each true class by {across}"
            names = _without_domain(seen.classes)
            figures.append(page.figure(caption, plots.confusion(seen.truth, seen.predicted, names, alt, across)))
        if figures:
            parts.append(f"<h3>{escape(shift)}</h3>" + page.panels(figures, "thirds"))
    intro = f"Rows: true class; columns: {explained}; per cent of the row, over all seeds. Outlined: correct."
    more = f" ({len(reasons) - 1} more are missing.)" if len(reasons) > 1 else ""
    return page.section("Where the errors go", intro, *parts, *(page.paragraph(first + more) for first in reasons[:1]))


def _caption(line: Line, shift: str, seen: Predictions) -> str:
    """The accuracy of the table, and in what the matrix below shows less than that."""
    caption = f"{line.method}: {line.cells[shift].text(1)} %"
    if "mean" in line.select.split(" / "):
        caption += "; matrix: the last of the kept outputs"
    if len(seen.classes) > plots.MOST_CLASSES:
        caption += f"; {plots.MOST_CLASSES} most frequent of {len(seen.classes)} classes"
    return caption


def _without_domain(names: tuple[str, ...]) -> tuple[str, ...]:
    """Of names that all begin with one domain what follows, "wave" of "msr:wave": a matrix has little room."""
    if len({name.partition(":")[0] for name in names}) > 1:
        return names
    return tuple(name.partition(":")[2] or name for name in names)


def _pooled(folders: list[Path], stores: Path) -> Predictions:
    """All seeds one after the other: they have the same rows, so each weighs the same. Of several tasks the first."""
    seen = []
    for folder in folders:
        task, *_ = Run.open(folder).facts["spec"]["classes"]
        seen.append(predictions(folder, stores, task))
    truth, predicted = (np.concatenate([getattr(run, name) for run in seen]) for name in ("truth", "predicted"))
    return replace(seen[0], truth=truth, predicted=predicted)
