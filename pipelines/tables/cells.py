"""A table as numbers, before it becomes text: a cell per method and shift, a line per method, and notes."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pipelines import tasks
from pipelines.measures.validators import ORACLE

MISSING, UNPLANNED = "–", "n/a"


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
        if not self.seeds:
            return self._in_parentheses or UNPLANNED
        if not self.values:
            return f"{MISSING} {self._in_parentheses}".rstrip()
        spread = "" if self.std is None else f" ± {self.std:.{digits}f}"
        holes = "" if self.complete else f" [{len(self.values)} of {len(self.seeds)} seeds]"
        return f"{self.mean:{sign}.{digits}f}{spread}{holes} {self._in_parentheses}".rstrip()

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
    ensemble: Ensemble | None = None  #: of its seeds, if asked for

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


@dataclass(frozen=True)
class Note:
    """One sentence under a table. A loud note is a warning: printed in bold, and first."""

    text: str
    loud: bool = False


@dataclass(frozen=True)
class Table:
    """A table before it is formatted: its lines, its columns and its notes."""

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

    @property
    def columns(self) -> dict[str, Callable[[Line], str]]:
        """Heading -> a function that returns a line's text in that column, without columns that repeat another."""
        digits = self.digits
        columns: dict[str, Callable[[Line], str]] = {
            "method": lambda line: line.method + ("" if line.label_free else " †")
        }
        if has_published(self.all_lines) or any("surrogate" in line.fidelity for line in self.lines):
            columns["fidelity"] = lambda line: line.fidelity or "quoted"
        for shift in self.shifts:
            columns[shift] = lambda line, shift=shift: line.cells[shift].text(digits)  # type: ignore[misc]
        if len(self.shifts) > 1:
            columns["mean"] = lambda line: line.mean.text(digits)
        if any(line.ensemble for line in self.lines):
            columns["ensemble"] = lambda line: (
                f"{line.ensemble.value:.{digits}f} (N = {len(line.ensemble.seeds)})" if line.ensemble else ""
            )
        if len(self.lines) > 1 and not self.of_gains:
            columns[f"vs {self.baseline}"] = lambda line: (
                "" if line.quoted or line.method == self.baseline else line.gain.text(digits, "+")
            )
        return columns
