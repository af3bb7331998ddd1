"""The section of a report that compares two rows, as `featcache compare` does."""

from collections.abc import Iterator
from html import escape
from pathlib import Path

from featcache.errors import FeatcacheError
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.report import page
from pipelines.tables.cells import Table
from pipelines.tables.clips import Part
from pipelines.tables.comparing import compare
from pipelines.tables.sides import of_rows

LONG = 20  #: lines of a table that is not folded


def comparison(
    experiment: Experiment,
    table: Table,
    rows: tuple[Result, ...],
    runs: Path,
    stores: Path,
    named: tuple[str, str] | None,
) -> Iterator[str]:
    """Yield the section, of two named rows or of the first and the best row, if there are two.

    Its place has the reason if runs, outputs or stores are missing.
    """
    a, b = named or (table.baseline, table.best.method if table.best else "")
    if not b:
        return
    heading = f"{b} compared with {a}"
    try:
        compared = compare(of_rows(experiment, a, b, rows, runs), stores)
    except (FeatcacheError, OSError) as error:
        yield page.section(heading, f"No comparison: {error}.")
        return
    intro = "A: {}. B: {}. `featcache compare` prints the same, and writes the clips to a file.".format(
        *compared.titles
    )
    yield page.section(heading, intro, *map(_part, compared.parts))


def _part(part: Part) -> str:
    """A heading, a table, which is folded if it is long, and sentences."""
    head, *lines = part.grid
    body = [("", [page.cell(text, head=place == 0) for place, text in enumerate(cells)]) for cells in lines]
    table = page.table(head, body) if body else ""
    shown = page.details(f"{len(body)} lines", table) if len(body) > LONG else table
    return f"<h3>{escape(part.heading)}</h3>{shown}{page.items(part.texts)}"
