"""Results on changed features -> a table: one row per method, and two columns per stress, its number and the change.

A number is the mean over shifts, as in the table of the experiment. A change is the difference from the number on
features as they are, measured with the same weights (`none`), seed by seed.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from featcache.errors import ConfigError
from featcache.wording import first
from pipelines.evaluation.results import Result
from pipelines.evaluation.stress import PLAIN
from pipelines.experiments import Experiment
from pipelines.tables.build import build, difference
from pipelines.tables.cells import MISSING, Cell, Note, Table, Text
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
    rows = sorted((row for row in rows if row.run in ids), key=lambda row: _order(row.stress))
    plain = {row.run: row for row in rows if row.stress == PLAIN}
    if not plain:
        name = experiment.arguments or experiment.name
        raise ConfigError(f"no results on changed features; to measure some: featcache evaluate {name} --drop all")
    by_stress: dict[str, list[Result]] = {PLAIN: []}
    for row in rows:
        if row.run in plain and _files(row) == _files(plain[row.run]):  # else the run has been trained again since then
            by_stress.setdefault(row.stress, []).append(row)
    tables = {stress: build(found, experiment, metric, explained=False) for stress, found in by_stress.items()}
    cells = {stress: {line.method: line.mean for line in table.lines} for stress, table in tables.items()}
    others = [note for note in tables[PLAIN].notes if not note.text.startswith("MISSING")]
    return Stressed(tables[PLAIN], cells, loud_first(_notes(by_stress[PLAIN], experiment, cells), others))


def _files(row: Result) -> str:
    """Return the digest of the run's files that the result is of."""
    return row.measurement.files if row.measurement else ""


def _order(stress: str) -> tuple[int, int, float]:
    """The place of a stress among the columns: by kind, then by the number of modalities or by the number itself."""
    kind, _, value = stress.partition("=")
    number = float(value) if kind in ("windows", "noise") else 0.0
    return KINDS.index(kind), value.count("+"), number


def _notes(plain: Sequence[Result], experiment: Experiment, cells: Mapping[str, Mapping[str, Cell]]) -> list[Note]:
    """The meaning of the columns, warnings if the experiment's plain table has numbers of other weights, and holes."""
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
    holes = {method: [s for s, by_method in cells.items() if not by_method[method].values] for method in cells[PLAIN]}
    if listed := [f"{method} ({first(stresses, 4)})" for method, stresses in holes.items() if stresses]:
        text += (
            f" {MISSING}: runs without a result, or to which the stress does not apply: {first(listed, between='; ')}. "
            "`featcache evaluate` with the same options measures what is missing, and gives the reasons."
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
