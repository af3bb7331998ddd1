"""The section of a report with the classes: how many clips of each are right, and the change from the first row."""

from collections.abc import Sequence

from featcache.errors import ConfigError
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.report import page
from pipelines.report.samples import rows_drawn
from pipelines.report.steps import steps
from pipelines.tables.build import difference
from pipelines.tables.cells import Table
from pipelines.tables.slices import by_class, class_clips, splittable


def classes(experiment: Experiment, table: Table, rows: Sequence[Result]) -> str:
    """A table per label kind: a line per class, and for each drawn row its share and its change; "" without classes."""
    if not experiment.task.has_class_scores:
        return ""
    parts, reasons, drawn = list[str](), list[str](), [line.method for line in rows_drawn(table)]
    for metric in steps(splittable(rows, experiment, ["top1"]) or [""]):
        try:
            sliced = by_class(rows, experiment, metric or None)
        except ConfigError as error:
            reasons.append(f"{error}.")
            continue
        base, *others = (line for line in sliced.lines if line.method in drawn)
        clips = class_clips(rows, experiment, sliced)
        heads = [
            "class",
            "clips",
            base.method,
            *(text for line in others for text in (line.method, f"{line.method}: change")),
        ]
        body = []
        for name in sliced.shifts:
            cells = [
                page.cell(name, head=True),
                page.cell(f"{clips[name]:g}"),
                page.cell(base.cells[name].text(sliced.digits)),
            ]
            for line in others:
                change = difference(line.cells[name], base.cells[name])
                kind = ("won" if change.mean > 0 else "lost" if change.mean < 0 else "") if change.values else ""
                cells.append(page.cell(line.cells[name].text(sliced.digits)))
                cells.append(page.cell(change.text(sliced.digits, "+"), kind))
            body.append(("", cells))
        parts += [page.paragraph(f"{metric}:") if "/" in metric else "", page.table(heads, body)]
    intro = (
        "Per cent of each class's test clips that are right, over all shifts; mean ± standard deviation over seeds. "
        f"Change: against {table.baseline}, paired by seed. `featcache table --by class` prints the same."
    )
    return page.section("Class by class", intro, *parts, reasons=reasons)
