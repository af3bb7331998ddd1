"""The section of a report that compares two rows, as `featcache compare` does."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from pipelines.evaluation.results import Result, Results
from pipelines.experiments import Experiment
from pipelines.report import page
from pipelines.report.opened import Opened
from pipelines.tables.build import planned_runs
from pipelines.tables.cells import Table
from pipelines.tables.clips import Block, Part, blocks_of
from pipelines.tables.comparing import Comparison, compare
from pipelines.tables.sides import Pair, Sides, of_rows

LONG = 20  #: rows of a table that is not folded


def rows_compared(table: Table, named: tuple[str, str] | None) -> tuple[str, str]:
    """Return the names of two rows: the given ones, or the first and the best one; twice the first if none is best."""
    return named or (table.baseline, table.best.method if table.best else table.baseline)


def compare_rows(
    experiment: Experiment, names: tuple[str, str], rows: Sequence[Result], runs: Path, stores: Path
) -> Comparison:
    """Compare two rows; FeatcacheError if runs, outputs or stores are missing."""
    return compare(of_rows(experiment, *names, rows, runs), stores)


def alone(experiment: Experiment, table: Table, opened: Opened, stores: Path) -> list[Block]:
    """Return the answers of the first row, compared with itself; FeatcacheError if they cannot be read."""
    pairs = [
        Pair(shift, str(seed), (opened.runs[run], opened.runs[run]))
        for (method, shift), seeds in planned_runs(experiment).items()
        for seed, run in seeds.items()
        if method == table.baseline and run in opened.runs and seed in table.lines[0].cells[shift].values
    ]
    names = (table.baseline, table.baseline)
    return blocks_of(Sides(names, names, experiment, tuple(pairs), Results()), stores) if pairs else []


def comparison(names: tuple[str, str], found: Comparison | str) -> str:
    """The section about two rows, or the reason why they cannot be compared."""
    a, b = names
    heading = f"{b} compared with {a}"
    if isinstance(found, str):
        return page.absent(heading, [f"No comparison: {found}."])
    intro = "A: {}. B: {}. `featcache compare` prints the same, and writes the clips to a file.".format(*found.titles)
    return page.section(heading, intro, *map(_part, found.parts))


def _part(part: Part) -> str:
    """A heading, a table, which is folded if it is long, and sentences."""
    longest = max((len(text) for cells in part.grid[1:] for text in cells), default=0)
    table = page.grid(part.grid, "words" if longest > page.LONG else "")
    shown = page.details(f"{len(part.grid) - 1} rows", table) if len(part.grid) > LONG + 1 else table
    return f"<h3>{escape(part.heading)}</h3>{shown}{page.items(part.texts)}"
