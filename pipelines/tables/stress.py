"""Results on changed features -> a table: one row per method, and two columns per stress, its number and the change.

A number is the mean over shifts, as in the table of the experiment. A change is the difference from the number on
features as they are, measured with the same weights (`none`), seed by seed.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from featcache.errors import ConfigError
from pipelines.evaluation.results import Result
from pipelines.evaluation.stress import PLAIN
from pipelines.experiments import Experiment
from pipelines.tables.build import build, difference
from pipelines.tables.cells import Cell, Note, Table, Text
from pipelines.tables.formats import pipes, tabular, wrapped
from pipelines.tables.slices import loud_first

KINDS = (PLAIN, "drop", "windows", "dtype", "noise")  #: in the order of the columns
LATEX, CSV = "latex", "csv"


@dataclass(frozen=True)
class Stressed:
    """A table of stress before it is formatted."""

    plain: Table  #: the table of features as they are
    cells: dict[str, dict[str, Cell]]  #: stress -> method -> mean over shifts; PLAIN first
    notes: tuple[Note, ...]

    def change(self, stress: str, method: str) -> Cell:
        """The difference of a number from that on features as they are."""
        return difference(self.cells[stress][method], self.cells[PLAIN][method])


def render(rows: Sequence[Result], experiment: Experiment, metric: str | None = None, format: str = "markdown") -> str:
    """Return the table of stressed results as text; metric and format as in `build.render`."""
    table = stressed(rows, experiment, metric)
    if format == CSV:
        return _tidy(table)
    grid = grid_of(table)
    if format == LATEX:
        return tabular([list(map(Text, cells)) for cells in grid], table.notes)
    return pipes(grid) + "\n" + "\n".join(wrapped(note) for note in table.notes) + "\n"


def grid_of(table: Stressed) -> list[list[str]]:
    """Return the cells of the table, headings first: two columns per stress, its number and the change."""
    stresses, digits = list(table.cells)[1:], table.plain.digits
    grid = [["method", PLAIN, *(head for stress in stresses for head in (stress, "change"))]]
    for method in (line.method for line in table.plain.lines):
        cells = [method, table.cells[PLAIN][method].text(digits)]
        for stress in stresses:
            cells += [table.cells[stress][method].text(digits), table.change(stress, method).text(digits, "+")]
        grid.append(cells)
    return grid


def stressed(rows: Sequence[Result], experiment: Experiment, metric: str | None = None) -> Stressed:
    """Place every result in the row of its method and the column of its stress; ConfigError if there is none."""
    ids = {run.id for run in experiment.runs}
    by_stress: dict[str, list[Result]] = {PLAIN: []}
    for row in sorted(rows, key=lambda row: _order(row.stress)):
        if row.run in ids:
            by_stress.setdefault(row.stress, []).append(row)
    if not by_stress[PLAIN]:
        name = experiment.arguments or experiment.name
        raise ConfigError(f"no results on changed features; to measure some: featcache evaluate {name} --drop all")
    tables = {stress: build(found, experiment, metric) for stress, found in by_stress.items()}
    cells = {stress: {line.method: line.mean for line in table.lines} for stress, table in tables.items()}
    return Stressed(tables[PLAIN], cells, loud_first(_notes(by_stress[PLAIN], experiment), tables[PLAIN].notes))


def _order(stress: str) -> tuple[int, int, float]:
    """The place of a stress among the columns: by kind, then by the number of modalities or by the number itself."""
    kind, _, value = stress.partition("=")
    number = float(value) if kind in ("windows", "noise") else 0.0
    return KINDS.index(kind), value.count("+"), number


def _notes(plain: Sequence[Result], experiment: Experiment) -> list[Note]:
    """The meaning of the columns, and a warning if the plain table of the experiment has numbers of other weights."""
    selects = {run.id: run.select for run in experiment.runs}
    others = sorted({selects[row.run] for row in plain if selects[row.run] != row.select})
    loud = [
        Note(
            f"SELECTION: numbers of this table are those of the weights at the last kept point, not selected by "
            f"{', '.join(others)} as in the plain table; compare them with `{PLAIN}` only.",
            loud=True,
        )
    ] * bool(others)
    text = (
        "Heads are trained on features as they are and tested on changed ones, each stress by itself. drop: modalities "
        "that are absent; windows: windows of each clip; dtype: type that features are rounded to; noise: standard "
        f"deviation of Gaussian noise, in those of each entry over the train rows. Change: difference from `{PLAIN}`, "
        "seed by seed."
    )
    return [*loud, Note(text)]


def _tidy(table: Stressed) -> str:
    """Return tidy CSV: one line per method and stress, six decimals, one number per field."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["method", "stress", "mean", "std", "n_seeds", "seeds", "change", "change_std", "metric"])
    for stress, by_method in table.cells.items():
        for line in table.plain.lines:
            cell, change = by_method[line.method], table.change(stress, line.method)
            numbers = [cell.mean, cell.std] if cell.values else [None, None]
            changes = [change.mean, change.std] if change.values else [None, None]
            shown = ["" if number is None else round(number, 6) for number in (*numbers, *changes)]
            seeds = " ".join(map(str, cell.values))
            writer.writerow([line.method, stress, *shown[:2], len(cell.values), seeds, *shown[2:], table.plain.metric])
    return out.getvalue()
