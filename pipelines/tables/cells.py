"""What a table is made of, before it becomes text: cells over seeds, lines of methods, notes that must not get lost."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pipelines import tasks
from pipelines.measures.validators import ORACLE

MISSING, UNPLANNED = "–", "n/a"


@dataclass(frozen=True)
class Cell:
    """One method at one shift, their mean or a gain: a value per seed, beside the seeds the experiment asks for."""

    values: dict[int, float]
    seeds: tuple[int, ...]
    published: float | None = None

    @property
    def complete(self) -> bool:
        """Every planned seed is there, and at least one is planned."""
        return bool(self.seeds) and all(seed in self.values for seed in self.seeds)

    @property
    def mean(self) -> float:
        """Mean over the seeds there are; asking an empty cell is an error."""
        return statistics.fmean(self.values.values())

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds; None for one seed, which has none."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    def text(self, digits: int, sign: str = "") -> str:
        """`54.2 ± 1.0 (55.3)`: ours, and the published number in parentheses."""
        if not self.seeds:
            return UNPLANNED
        if not self.values:
            return MISSING + self._beside(digits)
        spread = "" if self.std is None else f" ± {self.std:.{digits}f}"
        holes = "" if self.complete else f" [{len(self.values)} of {len(self.seeds)} seeds]"
        return f"{self.mean:{sign}.{digits}f}{spread}{holes}{self._beside(digits)}"

    def _beside(self, digits: int) -> str:
        return "" if self.published is None else f" ({self.published:.{digits}f})"


@dataclass(frozen=True)
class Line:
    """One row of a table. `label_free`: no training saw labels of the test domain, nor did that it starts from.

    A row that is chosen by labels of the test rows has the word oracle in `method`.
    """

    method: str
    fidelity: str
    select: str
    label_free: bool
    cells: dict[str, Cell]
    mean: Cell
    gain: Cell

    @property
    def measured(self) -> tuple[int, ...]:
        """The seeds that any of its cells has a value of."""
        return tuple(sorted({seed for cell in self.cells.values() for seed in cell.values}))

    @property
    def fair(self) -> bool:
        """No label of the test domain had a say, neither in training nor in choosing."""
        return self.label_free and ORACLE not in self.select.split(" / ")


def beside_published(lines: Iterable[Line]) -> bool:
    """Whether a published number, of a shift or their mean, stands in these lines."""
    return any(cell.published is not None for line in lines for cell in (*line.cells.values(), line.mean))


@dataclass(frozen=True)
class Note:
    """One sentence under a table; a loud one must not be overlooked."""

    text: str
    loud: bool = False


@dataclass(frozen=True)
class Table:
    """Everything a table says, before it is formatted."""

    title: str
    metric: str
    shifts: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[Note, ...]

    @property
    def digits(self) -> int:
        """Decimals of the metric's numbers."""
        return tasks.metric(self.metric).digits

    @property
    def baseline(self) -> str:
        """The first row, which gains are measured from."""
        return self.lines[0].method

    @property
    def best(self) -> Line | None:
        """The row with the highest mean among those that no target label trained or chose, except the first row."""
        rivals = [line for line in self.lines[1:] if line.fair and line.mean.values]
        return max(rivals, key=lambda line: line.mean.mean, default=None)

    @property
    def reference(self) -> Line | None:
        """The row that learned from the target's own labels."""
        return next((line for line in reversed(self.lines) if not line.label_free), None)

    @property
    def columns(self) -> dict[str, Callable[[Line], str]]:
        """Heading -> the text of a line under it. A column that could only repeat another one is left out."""
        digits = self.digits
        columns: dict[str, Callable[[Line], str]] = {
            "method": lambda line: line.method + ("" if line.label_free else " †")
        }
        if beside_published(self.lines) or any("surrogate" in line.fidelity for line in self.lines):
            columns["fidelity"] = lambda line: line.fidelity
        for shift in self.shifts:
            columns[shift] = lambda line, shift=shift: line.cells[shift].text(digits)  # type: ignore[misc]
        if len(self.shifts) > 1:
            columns["mean"] = lambda line: line.mean.text(digits)
        if len(self.lines) > 1:
            columns[f"vs {self.baseline}"] = lambda line: (
                "" if line.method == self.baseline else line.gain.text(digits, "+")
            )
        return columns
