"""A table as numbers, before it becomes text: a cell per method and shift, a line per method, and notes."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelines import tasks
from pipelines.measures.intervals import Interval
from pipelines.measures.validators import ORACLE
from pipelines.tables.formats import BEST, SECOND, Note, Shown, Text

MISSING, UNPLANNED = "–", "n/a"
INTERVAL = "95 % interval"  #: heading of the column of intervals
ALIKE = "n.d."  #: behind an interval that contains 0: the rows are not distinguishable


@dataclass(frozen=True)
class Cell:
    """The values of one method, by seed: at one shift, their mean over shifts, or a gain."""

    values: dict[int, float]  #: seed -> value, of the seeds that have a result
    seeds: tuple[int, ...]  #: the seeds that the experiment plans
    published: float | None = None  #: the paper's number; its text has the digits that the paper prints

    @property
    def complete(self) -> bool:
        """True if at least one seed is planned, and every planned seed has a value."""
        return bool(self.seeds) and all(seed in self.values for seed in self.seeds)

    @property
    def mean(self) -> float:
        """The mean over the seeds that have a value; an error for a cell without values."""
        return statistics.fmean(self.values.values())

    @property
    def std(self) -> float | None:
        """The sample standard deviation over seeds; None for a single seed."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    def text(self, digits: int, sign: str = "") -> str:
        """The cell as text, such as `54.2 ± 1.0 (55.3)`: our number, and in parentheses the published one."""
        return self.parts(digits, sign).whole

    def parts(self, digits: int, sign: str = "", mark: str = "") -> Text:
        """The text of the cell as our number and the published one."""
        if not self.seeds:
            return Text(self._in_parentheses or UNPLANNED)
        if not self.values:
            return Text(MISSING, self._in_parentheses)
        spread = "" if self.std is None else f" ± {self.std:.{digits}f}"
        holes = "" if self.complete else f" [{len(self.values)} of {len(self.seeds)} seeds]"
        return Text(f"{self.mean:{sign}z.{digits}f}{spread}{holes}", self._in_parentheses, mark)

    @property
    def _in_parentheses(self) -> str:
        """The published number with the digits that the paper prints; nothing if there is none."""
        return "" if self.published is None else f"({self.published})"


@dataclass(frozen=True)
class Ensemble:
    """One number of several seeds together, as if they were one run."""

    value: float
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Line:
    """One row of a table: a method.

    label_free: labels of the test domain were used neither in its training nor in that of a run it starts from. The
    `method` of a row whose outputs are chosen by labels of the test rows contains the word oracle.
    """

    method: str
    fidelity: str  #: "" for a row that is only quoted
    select: str
    label_free: bool
    cells: dict[str, Cell]
    mean: Cell
    gain: Cell
    interval: Interval | None = None  #: of the difference from the row that it is compared with; None if there is none
    ensemble: Ensemble | None = None  #: of its seeds, if asked for

    def cell(self, column: str) -> Cell:
        """The cell of a shift, or the mean over shifts."""
        return self.mean if column == "mean" else self.cells[column]

    @property
    def quoted(self) -> bool:
        """True for a row of the paper that no run makes: it has published numbers only."""
        return not self.fidelity

    @property
    def measured(self) -> tuple[int, ...]:
        """The seeds that have a value in any cell, sorted."""
        return tuple(sorted({seed for cell in self.cells.values() for seed in cell.values}))

    @property
    def fair(self) -> bool:
        """True if no label of the test domain was used, neither to train nor to choose outputs."""
        return self.label_free and ORACLE not in self.select.split(" / ")


def has_published(lines: Iterable[Line]) -> bool:
    """Return whether any of these lines has a published number, for a shift or for the mean."""
    return any(cell.published is not None for line in lines for cell in (*line.cells.values(), line.mean))


def ends(interval: Interval, digits: int) -> str:
    """Return the ends of an interval as text.

    >>> ends(Interval(2.1, 0.4, 3.8, "clips"), 1)
    '[+0.4, +3.8]'
    """
    return f"[{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"


@dataclass(frozen=True, repr=False)
class Table(Shown):
    """The table of an experiment: its lines, its columns and its notes.

    `print(table)` writes Markdown, `table.text("latex")` LaTeX, and `table.frame()` has the numbers.
    """

    title: str
    metric: str
    shifts: tuple[str, ...]
    all_lines: tuple[Line, ...]  #: in the order of the table, with rows that are only quoted from a paper
    notes: tuple[Note, ...]

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines of the methods that are run."""
        return tuple(line for line in self.all_lines if not line.quoted)

    @property
    def digits(self) -> int:
        """The number of decimals of the metric."""
        return tasks.metric(self.metric).digits

    @property
    def sign(self) -> str:
        """The unit after a number: " %" for shares."""
        return " %" if tasks.metric(self.metric).is_share else ""

    @property
    def of_gains(self) -> bool:
        """True if the numbers are differences from a baseline already."""
        return tasks.metric(self.metric).is_gain

    @property
    def pick(self) -> Callable[..., Any]:
        """The function that returns the best of several numbers: `max`, or `min` if lower is better."""
        return max if tasks.metric(self.metric).higher else min

    @property
    def baseline(self) -> str:
        """The name of the first row; gains are differences from it."""
        return self.lines[0].method

    @property
    def best(self) -> Line | None:
        """The fair row with the best mean, among all rows except the first; None if there is none."""
        rivals = [line for line in self.lines[1:] if line.fair and line.mean.values]
        return self.pick(rivals, key=lambda line: line.mean.mean, default=None)

    @property
    def reference(self) -> Line | None:
        """The row that was trained on labels of the test domain; None if there is none."""
        return next((line for line in reversed(self.lines) if not line.label_free), None)

    @cached_property
    def marks(self) -> dict[tuple[str, str], str]:
        """(method, column) -> BEST or SECOND, of the numbers of each shift and of their mean.

        Fair rows with a complete number compete, the first row too; a single one has no mark. Numbers that are printed
        alike share a mark. SECOND is given among three rows or more, if there is a single best one.
        """
        marks: dict[tuple[str, str], str] = {}
        for column in (*self.shifts, "mean"):
            cells = {line.method: line.cell(column) for line in self.lines if line.fair}
            means = {method: round(cell.mean, self.digits) for method, cell in cells.items() if cell.complete}
            order = sorted(means, key=lambda method: means[method], reverse=self.pick is max)
            best, others = ([m for m in order if (means[m] == means[order[0]]) is is_best] for is_best in (True, False))
            if len(means) > 1:
                marks |= {(method, column): BEST for method in best}
            if len(means) > 2 and len(best) == 1:
                marks |= {(method, column): SECOND for method in others if means[method] == means[others[0]]}
        return marks

    @property
    def columns(self) -> dict[str, Callable[[Line], Text]]:
        """Heading -> a function that returns a line's text in that column, without columns that repeat another."""
        digits = self.digits
        columns: dict[str, Callable[[Line], Text]] = {
            "method": lambda line: Text(line.method + ("" if line.label_free else " †"))
        }
        if has_published(self.all_lines) or any("surrogate" in line.fidelity for line in self.lines):
            columns["fidelity"] = lambda line: Text(line.fidelity or "quoted")
        for column in (*self.shifts, "mean")[: None if len(self.shifts) > 1 else -1]:
            columns[column] = lambda line, column=column: (  # type: ignore[misc]
                line.cell(column).parts(digits, mark=self.marks.get((line.method, column), ""))
            )
        if any(line.ensemble for line in self.lines):
            columns["ensemble"] = lambda line: Text(
                f"{line.ensemble.value:.{digits}f} (N = {len(line.ensemble.seeds)})" if line.ensemble else ""
            )
        if len(self.lines) > 1 and not self.of_gains:
            columns[f"vs {self.baseline}"] = lambda line: (
                Text("") if line.quoted or line.method == self.baseline else line.gain.parts(digits, "+")
            )
        if any(line.interval for line in self.lines):
            columns[INTERVAL] = lambda line: (
                Text(self.ends(line.interval), "" if line.interval.differs else ALIKE) if line.interval else Text("")
            )
        return columns

    def ends(self, interval: Interval) -> str:
        """The ends of an interval as text."""
        return ends(interval, self.digits)

    @property
    def grid(self) -> list[list[Text]]:
        """The cells as text, headings first."""
        columns = self.columns
        return [list(map(Text, columns)), *([cell(line) for cell in columns.values()] for line in self.all_lines)]

    @property
    def below(self) -> tuple[Note, ...]:
        """The notes under the table."""
        return self.notes

    def records(self) -> list[dict[str, Any]]:
        """The numbers: a record per method and column. See docs/guide.md for the columns."""
        loud = " ".join(note.text for note in self.notes if note.loud)
        found = []
        for line in self.all_lines:
            compared = line.method != self.baseline and not line.quoted and not self.of_gains
            summaries = {"mean": line.mean} | ({f"vs {self.baseline}": line.gain} if compared else {})
            for column, cell in {**line.cells, **summaries}.items():
                interval = line.interval if column == list(summaries)[-1] else None
                found.append(self._record(line, column, cell, loud, interval))
            if line.ensemble:
                seeds = dict.fromkeys(line.ensemble.seeds, line.ensemble.value)
                cell = Cell(seeds, line.ensemble.seeds)
                found.append(self._record(line, "ensemble", cell, loud) | {"std": None})
        return found

    def _record(
        self, line: Line, column: str, cell: Cell, loud: str, interval: Interval | None = None
    ) -> dict[str, Any]:
        """The record of a cell; `low` and `high` are the ends of the interval of a difference."""
        return {
            "method": line.method,
            "column": column,
            "mean": cell.mean if cell.values else None,
            "std": cell.std,
            "n_seeds": len(cell.values),
            "seeds": " ".join(map(str, cell.values)),
            "missing_seeds": " ".join(str(seed) for seed in cell.seeds if seed not in cell.values),
            "published": cell.published,
            "fidelity": line.fidelity or "quoted",
            "selection": line.select,
            "metric": self.metric,
            "notes": loud,
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
            "mark": self.marks.get((line.method, column), ""),
        }

    def __repr__(self) -> str:
        rows, shifts = len(self.all_lines), len(self.shifts)
        shape = f"{rows} row{'s' * (rows != 1)}, {shifts} shift{'s' * (shifts != 1)}"
        marked = [line.method for line in self.lines if self.marks.get((line.method, "mean")) == BEST]
        best = f", best {' and '.join(map(repr, marked))}" if marked else ""
        return f"Table({self.title!r}, {self.metric}, {shape}{best})"
