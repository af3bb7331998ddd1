"""A table as text: Markdown that also lines up in a terminal, HTML, tidy CSV, and LaTeX with booktabs."""

import csv
import io
import textwrap
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from featcache.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

WIDTH = 120  #: terminal columns at which notes are wrapped
LEFT = ' style="text-align: left"'  #: of the first column in HTML
BEST, SECOND = "best", "second"  #: marks of the numbers of a column


class Text(NamedTuple):
    """The text of a cell: a number, which may be marked, and what follows it."""

    number: str
    rest: str = ""
    mark: str = ""  #: BEST, SECOND or ""

    @property
    def whole(self) -> str:
        """Both parts, without the mark."""
        return f"{self.number} {self.rest}".strip()


@dataclass(frozen=True)
class Note:
    """One sentence under a table. A loud note is a warning: printed in bold, and first."""

    text: str
    loud: bool = False


Grid = Sequence[Sequence[Text | str]]  #: rows of cells, headings first


class Shown(ABC):
    """A table that prints itself, and shows itself in a notebook.

    `print(table)` writes Markdown that also lines up in a terminal. `frame` has the numbers.
    """

    @property
    @abstractmethod
    def grid(self) -> Grid:
        """The cells as text, headings first."""

    @property
    @abstractmethod
    def below(self) -> Sequence[Note]:
        """The notes under the table."""

    @abstractmethod
    def records(self) -> list[dict[str, Any]]:
        """The numbers: a dictionary per line of the tidy table, column -> value; None where there is no value."""

    def frame(self) -> "pd.DataFrame":
        """Return the numbers as a tidy table: one line per number, with the columns of the CSV format."""
        import pandas as pd

        return pd.DataFrame(self.records())

    def text(self, format: str = "markdown") -> str:
        """Return the table as text: markdown, csv (tidy: one line per number) or latex (booktabs)."""
        if format == "markdown":
            return markdown(self.grid, self.below)
        if format == "csv":
            return tidy_csv(self.records())
        if format == "latex":
            return tabular(self.grid, self.below)
        raise ConfigError(f"no table format {format!r}; choose from markdown, csv, latex")

    def __str__(self) -> str:
        return self.text()

    def _repr_markdown_(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return html(self.grid, self.below)


def markdown(grid: Grid, notes: Iterable[Note]) -> str:
    """Return rows of cells, headings first, as a Markdown table, followed by its notes as a list."""
    table = pipes([[_marked(cell) for cell in cells] for cells in grid]) if len(grid) > 1 else ""
    below = "".join(wrapped(note) + "\n" for note in notes)
    return "\n".join(filter(None, [table, below]))


def _marked(cell: Text | str) -> str:
    """Return the text of a cell, the best number in bold, the second best in italic, as Markdown has no underline."""
    text = _text(cell)
    sign = {BEST: "**", SECOND: "_"}.get(text.mark, "")
    return text._replace(number=f"{sign}{text.number}{sign}").whole


def _text(cell: Text | str) -> Text:
    return Text(cell) if isinstance(cell, str) else cell


def html(grid: Grid, notes: Iterable[Note], *, words: bool = False) -> str:
    """Return rows of cells, headings first, as an HTML table, followed by its notes as a list.

    words: True if every column is text, which is aligned to the left as the first column is.
    """
    lines: list[str] = []
    for cells in grid:
        tag = "td" if lines else "th"
        parts = [f"<{tag}{LEFT * (words or k == 0)}>{_html(_text(cell))}</{tag}>" for k, cell in enumerate(cells)]
        lines.append(f"<tr>{''.join(parts)}</tr>")
    texts = ((f"<strong>{escape(note.text)}</strong>" if note.loud else escape(note.text)) for note in notes)
    items = [f"<li>{text}</li>" for text in texts]
    table = ["<table>", *lines, "</table>"] if len(lines) > 1 else []
    return "\n".join([*table, *(["<ul>", *items, "</ul>"] if items else [])]) + "\n"


def _html(text: Text) -> str:
    tag = {BEST: "strong", SECOND: "u"}.get(text.mark)
    number = f"<{tag}>{escape(text.number)}</{tag}>" if tag else escape(text.number)
    return f"{number} {escape(text.rest)}".strip()


def pipes(grid: list[list[str]]) -> str:
    """Return rows of cells as a padded Markdown table: first column to the left, all others to the right."""
    grid = [[cell.replace("|", "\\|") for cell in cells] for cells in grid]
    widths = [max(3, *map(_width, column)) for column in zip(*grid, strict=True)]

    def row(cells: list[str]) -> str:
        first, *others = (" " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True))
        numbers = [padding + cell for padding, cell in zip(others, cells[1:], strict=True)]
        return f"| {' | '.join([cells[0] + first, *numbers])} |"

    rule = "|" + "|".join([":" + "-" * (widths[0] + 1), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([row(grid[0]), rule, *map(row, grid[1:])]) + "\n"


def _width(text: str) -> int:
    """Return the number of terminal columns of a text: wide characters take two, combining characters none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def wrapped(note: Note) -> str:
    """Return a note as a Markdown list item, wrapped at WIDTH columns; a loud note is bold."""
    mark = "**" if note.loud else ""
    return textwrap.fill(
        f"- {mark}{note.text}{mark}", WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def tidy_csv(records: Iterable[Mapping[str, Any]]) -> str:
    """Return records with equal keys as CSV, with at most six decimals; None is an empty field."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for number, record in enumerate(records):
        if not number:
            writer.writerow(record)
        writer.writerow(round(value, 6) if isinstance(value, float) else value for value in record.values())
    return out.getvalue()


def tabular(grid: Grid, notes: Iterable[Note]) -> str:
    """Return rows of cells, headings first, as LaTeX with booktabs, with the notes in small type below."""
    heads, *body = (" & ".join(map(_tex_marked, cells)) + r" \\" for cells in grid)
    below = [
        r"\par\footnotesize " + (rf"\textbf{{{_tex(note.text)}}}" if note.loud else _tex(note.text)) for note in notes
    ]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            rf"\begin{{tabular}}{{l{'r' * (len(grid[0]) - 1)}}}",
            r"\toprule",
            heads,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *below,
            "",
        ]
    )


TEX = {
    "\\": r"\textbackslash{}",
    **{char: "\\" + char for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "–": "--",
    "†": r"$\dagger$",
}


def _tex_marked(cell: Text | str) -> str:
    """Return the text of a cell for LaTeX, the best number in bold, the second best underlined."""
    text = _text(cell)
    command = {BEST: r"\textbf{%s}", SECOND: r"\underline{%s}"}.get(text.mark, "%s")
    return f"{command % _tex(text.number)} {_tex(text.rest)}".strip()


def _tex(text: str) -> str:
    """Escape a text for LaTeX."""
    return "".join(TEX.get(char, char) for char in text)
