"""One self-contained HTML page about an experiment: its results, its errors, and pictures of its shifts.

The page loads nothing, is complete without its script, and is byte for byte the same for the same input. The table
needs result rows only. A part whose files (videos, runs, stores) are missing is an item of the list "Not on this page",
with the reason.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import Any

from featcache.errors import FeatcacheError
from featcache.files import write_file
from featcache.progress import Progress, silent
from featcache.wording import unknown
from pipelines import tasks
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.report import page, plots
from pipelines.report.classes import classes
from pipelines.report.comparison import alone, compare_rows, comparison, rows_compared
from pipelines.report.conditions import conditions
from pipelines.report.convergence import convergence
from pipelines.report.curves import curves
from pipelines.report.metrics import gains, results, tones
from pipelines.report.opened import Opened, open_runs
from pipelines.report.provenance import provenance
from pipelines.report.sensitivity import sensitivity
from pipelines.report.steps import counting, steps
from pipelines.report.stress import stress
from pipelines.report.wrong import HEADING, wrong
from pipelines.tables.build import build
from pipelines.tables.cells import INTERVAL, Line, Table
from pipelines.tables.sides import two_rows

TOP = 4  #: parts above the list of sections


def write(
    experiment: Experiment,
    rows: Sequence[Result],
    runs: Path,
    stores: Path,
    out: Path,
    *,
    shifts: Sequence[str] = (),
    compared: tuple[str, str] | None = None,
    date: str = "",
    progress: Progress = silent,
) -> None:
    """Write the page to `out`. `date` is printed if given; it is never read from a clock, to keep pages the same.

    shifts: those of the figures of single clips, "D1→D2" or "D1->D2"; () leaves the choice to the experiment's task.
    compared: names of two rows; None is the first and the best. ConfigError for names that the table does not have.
    """
    table, rows = build(rows, experiment), tuple(rows)
    chosen = tuple(dict.fromkeys(shift.replace("->", "→") for shift in shifts))
    for shift in chosen:
        if shift not in table.shifts:
            raise unknown("shift", shift, table.shifts)
    if compared:
        compared = two_rows(experiment, *compared)
    opened = open_runs(experiment, runs)
    names = rows_compared(table, compared)
    makers: tuple[Callable[[], Iterable[str]], ...] = (
        lambda: _top(experiment, table, date),
        lambda: [results(experiment, table, rows), _accuracy(table), classes(experiment, table, rows)],
        lambda: [*stress(experiment, runs), *sensitivity(experiment, table)],
        lambda: _answers(experiment, table, rows, runs, stores, opened, names),
        lambda: [convergence(experiment, table, runs, stores), curves(experiment, table, opened)],
        lambda: _parts(experiment).sections(experiment, table, rows, runs, stores, chosen),
        lambda: [conditions(experiment, table, opened), provenance(experiment, rows, stores)],
    )
    with counting(progress):
        parts = [part for maker in steps(makers) for part in maker()]
    absent = [part for part in parts if isinstance(part, page.Absent)]
    parts = [part for part in parts if not isinstance(part, page.Absent)]
    parts += [page.lacking(absent), _limits(experiment, table), _reproduce(experiment, chosen, compared)]
    parts.insert(TOP, page.contents(parts))
    write_file(out, page.page(f"{experiment.name} – featcache report", parts).encode(), shared=True)


def _top(experiment: Experiment, table: Table, date: str) -> list[str]:
    """The header, the key figures, the experiment's remark, and warnings, which are TOP parts."""
    warnings = [page.alarm(note.text) for note in table.notes if note.loud and note.text != experiment.note]
    return [_header(experiment, date), _key_figures(experiment, table), page.remark(experiment.note), "".join(warnings)]


def _answers(
    experiment: Experiment,
    table: Table,
    rows: tuple[Result, ...],
    runs: Path,
    stores: Path,
    opened: Opened,
    names: tuple[str, str],
) -> list[str]:
    """The comparison of two rows, and the answers that the second one gets wrong; of a single row, these only."""
    a, b = names
    try:
        if a == b:
            return [wrong(experiment, stores, names, alone(experiment, table, opened, stores))]
        found = compare_rows(experiment, names, rows, runs, stores)
    except (FeatcacheError, OSError) as error:
        return [page.absent(HEADING.format(b), [f"{error}."]) if a == b else comparison(names, str(error))]
    return [comparison(names, found), wrong(experiment, stores, names, found.blocks)]


def _parts(experiment: Experiment) -> Any:
    """The module of this folder for the experiment's task, with `sections` and `LIMITS`."""
    return import_module(f"pipelines.report.{experiment.task.name}")


def _header(experiment: Experiment, date: str) -> str:
    return (
        f'<header><span class="over">featcache report{" · " + escape(date) if date else ""}</span>'
        f"<h1>{escape(experiment.name)}</h1>{page.paragraph(_lead(experiment), 'lead')}</header>"
    )


def _lead(experiment: Experiment) -> str:
    """The first paragraph of the experiment's docstring."""
    return " ".join(inspect.cleandoc(experiment.doc).split("\n\n")[0].split())


def _key_figures(experiment: Experiment, table: Table) -> str:
    """Key figures, means over shifts: the first row, the best adapted row, and the row trained on target labels."""
    base, best, reference = table.lines[0], table.best, table.reference
    adapted = any(
        stage.target for run in experiment.runs if run.row_shown == base.method for stage in experiment.chain(run)
    )
    entries = []

    def add(line: Line, text: str) -> None:
        entries.append((line.method, f"{line.mean.text(1)}{table.sign}", text))

    if base.mean.values:
        add(base, "mean over shifts" + ", no adaptation" * (base.fair and not adapted))
    if best and best.gain.values:
        oracle = "; the best setting of the sweep by labels of the test rows (oracle)"
        add(best, _verdict(table, best) + oracle * (best.method in experiment.swept))
    if reference and reference.mean.values:
        add(reference, "with labels of the target: a reference")
    return page.tiles(entries) if len(entries) > 1 else ""


def _verdict(table: Table, line: Line) -> str:
    """A row's gain over the first row as text: whether it is better, and whether the two can be told apart."""
    verdict = "points over" if table.pick(line.gain.mean, 0.0) != 0 else "points: not better than"
    if line.interval and not line.interval.differs:
        verdict = "points: not distinguishable from"
    interval = f"; {INTERVAL} {table.ends(line.interval)}" if line.interval else ""
    return f"{line.gain.text(table.digits, '+')} {verdict} {table.baseline}{interval}"


def _accuracy(table: Table) -> str:
    """A panel of bars per shift, a bar per method."""
    colours, words = tones(table), tasks.metric(table.metric).words
    metric = words[0].upper() + words[1:]
    columns = {shift: {line.method: line.cells[shift] for line in table.lines} for shift in table.shifts}
    if len(table.shifts) > 1:
        columns["mean over shifts"] = {line.method: line.mean for line in table.lines}
    figures = []
    for name, cells in columns.items():
        bars = [
            plots.Bar(method, tuple(cell.values.values()), cell.text(1), colours[method])
            for method, cell in cells.items()
            if cell.values
        ]
        alt = f"{metric}, {name}: " + "; ".join(f"{bar.name} {bar.text}" for bar in bars)
        figures.append(page.figure(name, plots.bars(bars, alt)) if bars else "")
    shown = [line for line in table.lines if line.measured]
    intro = "Bar: mean; line: ± one sample standard deviation; dots: seeds."
    if all(len(line.measured) < 2 for line in shown):
        intro = "Bar and dot: the result of the seed."
    if not all(line.fair for line in shown):
        intro += " Dashed: uses labels of the target."
    if len(shown) < len(table.lines):
        intro += f" {len(shown)} of {len(table.lines)} rows have results."
    if differences := gains(table):
        figures.append(differences)
        intro += (
            f" Last panel, of differences: dot: mean; thick line: ± one deviation; thin line: {INTERVAL}. Where it "
            "crosses the dashed 0, the rows are not distinguishable."
        )
    reasons = [] if shown else ["There are no results yet."]
    return page.section(f"{metric} per shift", intro, page.panels(figures), reasons=reasons)


def _limits(experiment: Experiment, table: Table) -> str:
    """The limits of the results: those of the task, of the spread, and of reference rows."""
    texts = [
        *_parts(experiment).LIMITS,
        "The spread (±) is over seeds of the head: initial weights and order of rows. All seeds use the same clips and "
        f"features, so the spread does not cover a change of clips; the {INTERVAL} covers a change of test clips where "
        "the notes under the table do not exclude it.",
    ]
    if not all(line.label_free for line in table.lines):
        texts.append(
            "Rows marked † were trained on labels of the test domain's training rows. They show how much can be gained."
        )
    return page.section("Limits", "", page.items(texts))


def _reproduce(experiment: Experiment, shifts: Sequence[str], compared: tuple[str, str] | None) -> str:
    """The commands that make the results, the table and the page again, and the experiment's docstring."""
    options = [f"--shift {quote(shift)}" for shift in shifts]
    options += [f"--compare {' '.join(map(quote, compared))}"] if compared else []
    commands = [
        *experiment.command.split(" && "),
        experiment.call("table"),
        experiment.call("report", " ".join(options)),
    ]
    described = page.details("Description of the experiment", page.pre(inspect.cleandoc(experiment.doc)))
    if experiment.only_python:
        return page.section("Description", "These runs were given in Python: no command makes the page.", described)
    return page.section(
        "Commands to reproduce the page",
        "Every command keeps the results that exist already and computes only the missing ones.",
        page.pre("\n".join(commands)),
        described,
    )
