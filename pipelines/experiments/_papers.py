"""Tools that the papers' tables share: shifts, published numbers, and the average of EPIC-8's checkpoints.

`published.csv` holds the numbers of the papers' tables, one cell per line, and `figures.csv` all tables and figures of
the papers, with the command that makes each of them or the reason why none does.

published.csv leaves out numbers that follow from other cells, and numbers that no table of ours measures:

- XMC, Table 5: "Gain via sampling", +0.5 and +1.1. It is over the row with one window, and our column over the first.
- RNA, Table 1: improvements of the CVs in per cent, which follow from the CVs (docstring of `rna_epic100`).
- RNA, Table 5: the rows of source-only that the paper repeats for RNA (UDA).
- RNA, Section 4.2.2: CVs of the norms per class are lower than those of source-only by 37.8 % (source) and 19.5 %
  (target) with L_g, by 62.5 % and 49.1 % with L_g and L_c. We draw norms per class (`report`), without their CVs.

>>> published("XMC", "Table 4")["MM-SADA modality"]["mean"]
47.9
"""

import csv
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

#: name of a paper's system -> the paper
PAPERS = {
    "XMC": "Kim et al. 2021, ICCV",
    "MTRAN": "Huang et al. 2022, ACM MM",
    "RNA": "Planamente et al. 2024, IJCV",
    "ACP": "Liu et al. 2021, CVPR",
    "CoDT": "Liu & Wang 2022, ECCV",
}
#: EPIC-8: the mean of nine checkpoints, 50 steps apart, the last of which is the end (MM-SADA's code)
LAST_NINE: dict[str, Any] = {"eval_every": 50, "keep": 9, "select": "mean"}
#: domain -> number of training clips
EPIC8 = {"D1": 1543, "D2": 2495, "D3": 3897}
UCF_HMDB = {"ucf": 1438, "hmdb": 840}


def shifts(text: str) -> tuple[tuple[str, str], ...]:
    """The (source, target) pairs of a table's heading.

    >>> shifts("D1→D2 D2→D1")
    (('D1', 'D2'), ('D2', 'D1'))
    """
    pairs = (shift.split("→") for shift in text.split())
    return tuple((source, target) for source, target in pairs)


class Printed(float):
    """A number of a paper; its text has the digits that the paper prints.

    >>> Printed("41.20"), Printed("41.20") / 2, Printed("100")
    (41.20, 20.6, 100)
    """

    def __new__(cls, text: str) -> "Printed":
        """Keep the text next to the number."""
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str

    def __str__(self) -> str:
        """Return the digits as printed."""
        return self.text

    __repr__ = __str__


class Cell(NamedTuple):
    """A cell of a paper's table, as printed."""

    paper: str  #: XMC | MTRAN | RNA | ACP | CoDT
    table: str  #: "Table 6" or "Figure 5"
    row: str  #: of our table if we run it, such as "RNA (UDA), dense", else close to the paper's
    #: a shift, "mean" or "gain" (of the mean over the first row), and a metric after a space, unless it is the default
    #: metric of the experiment
    column: str
    value: str


class Figure(NamedTuple):
    """A table or figure of a paper, and the way to make it."""

    paper: str
    item: str  #: "Table 6" or "Figure 5"
    content: str
    command: str  #: commands that make it, separated by " && "; "" if there is none
    reason: str  #: the reason why there is no command, or a remark on the difference


@cache
def cells() -> tuple[Cell, ...]:
    """Read published.csv: all cells of the papers' tables, in the order in which they are printed."""
    return tuple(Cell(*row) for row in _read("published.csv", Cell._fields))


@cache
def figures() -> tuple[Figure, ...]:
    """Read figures.csv: every table and figure of the five papers."""
    return tuple(Figure(*row) for row in _read("figures.csv", Figure._fields))


def _read(name: str, heads: tuple[str, ...]) -> list[list[str]]:
    with (Path(__file__).parent / name).open(encoding="utf-8", newline="") as file:
        first, *rows = csv.reader(file)
    if tuple(first) != heads:
        raise ValueError(f"{name} has the columns {', '.join(first)}; it must have {', '.join(heads)}")
    return rows


def published(paper: str, *tables: str) -> dict[str, dict[str, Any]]:
    """Return the numbers of tables of a paper: row -> column -> number, or metric -> number where a column names one.

    The rows of several tables are joined; KeyError for a table without numbers.
    """
    numbers: dict[str, dict[str, Any]] = {}
    for table in tables:
        found = [cell for cell in cells() if (cell.paper, cell.table) == (paper, table)]
        if not found:
            raise KeyError(f"published.csv has no {table} of {paper}")
        for cell in found:
            column, _, metric = cell.column.partition(" ")
            row = numbers.setdefault(cell.row, {})
            if metric:
                row.setdefault(column, {})[metric] = Printed(cell.value)
            else:
                row[column] = Printed(cell.value)
    return numbers
