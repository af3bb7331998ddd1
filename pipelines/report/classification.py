"""The part of a classification report that shows feature norms."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.report import page, plots
from pipelines.report.confusion import confusions
from pipelines.report.frames import frames
from pipelines.tables.build import norms_grid, plan
from pipelines.tables.cells import Line, Table

BASE = ", no adaptation"  #: said of the first row's mean
LIMITS = (
    "The backbones are frozen: alignment acts on the layers above the cached features only. Where a paper trains its "
    "backbone too, the fidelity is adapter, and its number is not the paper's.",
    "Clips are seen through the cached windows alone; augmentation that changes pixels is not part of these runs.",
)


def sections(experiment: Experiment, table: Table, rows: tuple[Result, ...], runs: Path, stores: Path) -> Iterator[str]:
    """Frames of the classes, confusions, and feature norms."""
    yield frames(experiment, stores)
    yield confusions(experiment, table, runs, stores)
    yield _norms(experiment, table, rows)


def _norms(experiment: Experiment, table: Table, rows: tuple[Result, ...]) -> str:
    """Mean norms per modality and side, a panel per shift, and the coefficients of variation as a table."""
    grid, note = norms_grid(rows, experiment)
    heading = "Feature norms per modality"
    if len(grid) == 1:
        return page.section(heading, "The results have no norms.")
    figures = []
    for shift in table.shifts:
        methods = [
            found for line in table.lines if line.label_free and (found := _norms_of(experiment, line, shift, rows))
        ]
        if methods:
            alt = f"Mean feature norms, {shift}: " + "; ".join(f"{method.name} {method.text}" for method in methods)
            figures.append(page.figure(shift, plots.norms(methods, alt)))
    modalities = sorted({row.metric.split("/", 2)[2] for row in rows if row.metric.startswith("norm/")})
    body = [("", [page.cell(text, head=place == 0) for place, text in enumerate(cells)]) for cells in grid[1:]]
    return page.section(
        heading,
        "Mean L2 norm of what enters the classifier, mean over seeds. The axis is logarithmic: the closer the marks of "
        "a column, the more alike the modalities weigh. RNA draws them together.",
        plots.norms_legend(modalities),
        page.panels(figures),
        page.table(grid[0], body),
        page.items([note.text]),
    )


def _norms_of(experiment: Experiment, line: Line, shift: str, rows: tuple[Result, ...]) -> plots.Norms | None:
    """Means over seeds of one method's norms at one shift, or None where there are not both sides."""
    ids = set(plan(experiment).get((line.method, shift), {}).values())
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.run in ids:
            values.setdefault(row.metric, []).append(row.value)
    sides: dict[str, dict[str, float]] = {"source": {}, "target": {}}
    for metric, found in values.items():
        if metric.startswith("norm/"):
            _, side, what = metric.split("/", 2)
            sides[side][what] = float(np.mean(found))
    sides = {side: {what: norm for what, norm in of.items() if norm > 0} for side, of in sides.items()}
    if not all(sides.values()):
        return None
    text = f"CV {np.mean(values['cv_st']):.2f}" if "cv_st" in values else ""
    return plots.Norms(line.method, sides["source"], sides["target"], text)
