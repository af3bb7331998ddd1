"""A table as text: Markdown that also lines up in a terminal, tidy CSV, and LaTeX with booktabs."""

import csv
import io
import textwrap
import unicodedata
from collections.abc import Iterable

from pipelines.tables.cells import BEST, SECOND, Note, Table, Text

WIDTH = 120  #: terminal columns at which notes are wrapped


def markdown(table: Table) -> str:
    """Return the table as Markdown, followed by its notes as a list."""
    columns = table.columns
    grid = [list(columns), *([_marked(cell(line)) for cell in columns.values()] for line in table.all_lines)]
    return pipes(grid) + "\n" + "\n".join(wrapped(note) for note in table.notes) + "\n"


def _marked(text: Text) -> str:
    """Return the text of a cell, the best number in bold, the second best in italic, as Markdown has no underline."""
    sign = {BEST: "**", SECOND: "_"}.get(text.mark, "")
    return text._replace(number=f"{sign}{text.number}{sign}").whole


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


def tidy_csv(table: Table) -> str:
    """Return the table as tidy CSV: one line per method and column, six decimals, one number per field.

    The columns `low` and `high` are the ends of the interval of a difference; `mark` is best or second.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = "method column mean std n_seeds seeds missing_seeds published fidelity selection metric notes low high mark"
    writer.writerow(heads.split())
    loud = " ".join(note.text for note in table.notes if note.loud)
    for line in table.all_lines:
        compared = line.method != table.baseline and not line.quoted and not table.of_gains
        summaries = {"mean": line.mean} | ({f"vs {table.baseline}": line.gain} if compared else {})
        for column, cell in {**line.cells, **summaries}.items():
            values = cell.values
            interval = line.interval if column == list(summaries)[-1] else None
            writer.writerow(
                [
                    line.method,
                    column,
                    round(cell.mean, 6) if values else "",
                    "" if cell.std is None else round(cell.std, 6),
                    len(values),
                    " ".join(map(str, values)),
                    " ".join(str(seed) for seed in cell.seeds if seed not in values),
                    "" if cell.published is None else cell.published,
                    line.fidelity or "quoted",
                    line.select,
                    table.metric,
                    loud,
                    *([round(interval.low, 6), round(interval.high, 6)] if interval else ["", ""]),
                    table.marks.get((line.method, column), ""),
                ]
            )
        if line.ensemble:
            one, seeds = round(line.ensemble.value, 6), line.ensemble.seeds
            known = [line.fidelity, line.select, table.metric, loud]
            writer.writerow(
                [line.method, "ensemble", one, "", len(seeds), " ".join(map(str, seeds)), "", "", *known, "", "", ""]
            )
    return out.getvalue()


def latex(table: Table) -> str:
    """Return the table as LaTeX with booktabs, with the notes in small type below."""
    columns = table.columns
    rows = [[cell(line) for cell in columns.values()] for line in table.all_lines]
    return tabular([[Text(name) for name in columns], *rows], table.notes)


def tabular(grid: list[list[Text]], notes: Iterable[Note]) -> str:
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


def _tex_marked(text: Text) -> str:
    """Return the text of a cell for LaTeX, the best number in bold, the second best underlined."""
    command = {BEST: r"\textbf{%s}", SECOND: r"\underline{%s}"}.get(text.mark, "%s")
    return f"{command % _tex(text.number)} {_tex(text.rest)}".strip()


def _tex(text: str) -> str:
    """Escape a text for LaTeX."""
    return "".join(TEX.get(char, char) for char in text)
