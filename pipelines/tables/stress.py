"""Results on changed features -> a table: one row per method, and two columns per stress, its number and the change.

A number is the mean over shifts, as in the table of the experiment. A change is the difference from the number on
features as they are, measured with the same weights (`none`), seed by seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featcache.errors import ConfigError
from featcache.wording import first
from pipelines.evaluation.results import Result
from pipelines.evaluation.stress import PLAIN
from pipelines.experiments import Experiment
from pipelines.tables.build import build, difference
from pipelines.tables.cells import MISSING, Cell, Table
from pipelines.tables.formats import Note, Shown
from pipelines.tables.slices import loud_first

KINDS = (PLAIN, "drop", "windows", "dtype", "noise")  #: in the order of the columns


@dataclass(frozen=True, repr=False)
class Stressed(Shown):
    """The table of an experiment's results on changed features."""

    plain: Table  #: the table of features as they are
    cells: dict[str, dict[str, Cell]]  #: stress -> method -> mean over shifts; PLAIN first
    notes: tuple[Note, ...]

    def change(self, stress: str, method: str) -> Cell:
        """The difference of a number from that on features as they are."""
        return difference(self.cells[stress][method], self.cells[PLAIN][method])

    @property
    def grid(self) -> list[list[str]]:
        """The cells as text, headings first."""
        return grid_of(self)

    @property
    def below(self) -> tuple[Note, ...]:
        """The notes under the table."""
        return self.notes

    def records(self) -> list[dict[str, Any]]:
        """The numbers: a record per method and stress."""
        return [
            self._record(stress, line.method, by_method[line.method])
            for stress, by_method in self.cells.items()
            for line in self.plain.lines
        ]

    def _record(self, stress: str, method: str, cell: Cell) -> dict[str, Any]:
        change = self.change(stress, method)
        return {
            "method": method,
            "stress": stress,
            "mean": cell.mean if cell.values else None,
            "std": cell.std,
            "n_seeds": len(cell.values),
            "seeds": " ".join(map(str, cell.values)),
            "change": change.mean if change.values else None,
            "change_std": change.std,
            "metric": self.plain.metric,
        }

    def __repr__(self) -> str:
        shape = f"{len(self.plain.lines)} rows × {len(self.cells)} stresses"
        return f"Stressed({self.plain.title!r}, {self.plain.metric}, {shape})"


def render(rows: Sequence[Result], experiment: Experiment, metric: str | None = None, format: str = "markdown") -> str:
    """Return the table of stressed results as text; metric and format as in `build.render`."""
    return stressed(rows, experiment, metric).text(format)


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
        command = experiment.call("evaluate", "--drop all")
        raise ConfigError(f"no results on changed features; to measure some: {command}")
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
