"""The sections of a classification report: frames, confusion matrices, feature norms, and figures of single clips."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.report import page, plots
from pipelines.report.confusion import confusions
from pipelines.report.frames import frames
from pipelines.report.neighbours import gallery
from pipelines.report.norms import class_norms, norm_pairs
from pipelines.report.samples import draw
from pipelines.report.spaces import maps
from pipelines.report.steps import steps
from pipelines.tables.build import norms_grid, planned_runs
from pipelines.tables.cells import Line, Table
from pipelines.tables.outdated import current

LIMITS = (
    "The backbones are frozen: alignment acts only on the layers above the cached features. Where a paper trains its "
    "backbone as well, the fidelity is adapter, and our number is not comparable with the paper's.",
    "Runs read the cached windows of a clip only, so they cannot use augmentation that changes pixels.",
)


def sections(
    experiment: Experiment,
    table: Table,
    rows: tuple[Result, ...],
    runs: Path,
    stores: Path,
    shifts: tuple[str, ...] = (),
) -> Iterator[str]:
    """Yield the frames of the classes, the confusion matrices, the feature norms, and figures of single clips.

    shifts: those of the figures of single clips; () is the first one that the drawn rows share.
    """
    yield frames(experiment, stores)
    yield confusions(experiment, table, runs, stores)
    yield _norms(experiment, table, rows)
    for shift in steps(shifts or ("",)):
        drawn = draw(experiment, table, runs, stores, shift)
        yield class_norms(drawn)
        yield norm_pairs(drawn)
        yield maps(drawn)
        yield gallery(drawn)


def _norms(experiment: Experiment, table: Table, rows: tuple[Result, ...]) -> str:
    """The mean norms per modality and side, a panel per shift, and the table of the coefficients of variation."""
    grid, notes = norms_grid(rows, experiment)
    heading = "Feature norms per modality"
    figures, kept = [], tuple(current(rows, experiment))
    modalities = sorted({row.metric.split("/", 2)[2] for row in kept if row.metric.startswith("norm/")})
    if len(grid) == 1 and not modalities:
        return page.absent(heading, ["The results have no norms."])
    for shift in table.shifts:
        methods = [
            norms for line in table.lines if line.label_free and (norms := _norms_of(experiment, line, shift, kept))
        ]
        if methods:
            alt = f"Mean feature norms, {shift}: " + "; ".join(f"{method.name} {method.text}" for method in methods)
            figures.append(page.figure(shift, plots.norms(methods, modalities, alt)))
    return page.section(
        heading,
        "Mean L2 norm of the features that enter the classifier, mean over seeds. The axis is logarithmic. The closer "
        "the marks of a column, the more equal the influence of the modalities; RNA moves the marks together.",
        plots.norms_legend(modalities) if figures else "",
        page.panels(figures),
        page.grid(grid),
        page.items(note.text for note in notes if note not in table.notes),
    )


def _norms_of(experiment: Experiment, line: Line, shift: str, rows: tuple[Result, ...]) -> plots.Norms | None:
    """Return one method's norms at one shift, means over seeds; None unless both sides have norms."""
    ids = set(planned_runs(experiment).get((line.method, shift), {}).values())
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.run in ids:
            values.setdefault(row.metric, []).append(row.value)
    sides: dict[str, dict[str, float]] = {"source": {}, "target": {}}
    for metric, by_seed in values.items():
        if metric.startswith("norm/"):
            _, side, modality = metric.split("/", 2)
            sides[side][modality] = float(np.mean(by_seed))
    sides = {side: {m: norm for m, norm in norms.items() if norm > 0} for side, norms in sides.items()}
    if not all(sides.values()):
        return None
    text = f"CV {np.mean(values['cv_st']):.2f}" if "cv_st" in values else ""
    return plots.Norms(line.method, sides["source"], sides["target"], text)
