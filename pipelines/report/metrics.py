"""The sections of a report with its tables: one per metric, and the differences from the first row with intervals."""

from collections.abc import Sequence

from featcache.errors import ConfigError
from pipelines import tasks
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.report import page, plots
from pipelines.report.steps import steps
from pipelines.tables.build import build
from pipelines.tables.cells import Table
from pipelines.tables.deltas import DELTA_ACC
from pipelines.tables.outdated import current

COLOURS = 6  #: colours of methods before they repeat
OWN_SECTIONS = ("norm", "cv_s", "cv_t", "cv_st", "validator")  #: metrics that other sections of the page show


def results(experiment: Experiment, table: Table, rows: Sequence[Result]) -> str:
    """The table of the headline, and behind a switch those of all other metrics, and one of all means over shifts."""
    tables = [table]
    for metric in steps(others(experiment, table.metric, rows)):
        try:
            tables.append(build(rows, experiment, metric))
        except ConfigError:  # ΔAcc of one label kind, or of rows that have no baseline
            continue
    known = {note.text for note in table.notes}
    choices = {}
    for each in tables:
        notes = [note.text for note in each.notes if (each is table and not note.loud) or note.text not in known]
        choices[each.metric] = _lines(each) + page.items(notes)
    if len(tables) > 1:
        choices["all metrics"] = _means(tables)
    intro = "One column per shift: trained on the first domain, tested on the second."
    if len(choices) > 1:
        intro += " The first table is that of the headline; the others are those of `featcache table --metric NAME`."
    return page.section("Results", intro, page.switch("metric", choices) if len(choices) > 1 else choices[table.metric])


def others(experiment: Experiment, headline: str, rows: Sequence[Result]) -> list[str]:
    """The measured metrics except the headline, in the order of the task."""
    measured = {row.metric for row in current(rows, experiment) if row.run in experiment.by_id}
    measured |= {DELTA_ACC} if sum(metric.startswith("top1/") for metric in measured) > 1 else set()
    if headline not in measured:
        measured.discard(headline + experiment.task.stand_in)  # the first table has these numbers
    order = list(tasks.metrics())
    names = [name for name in measured if name.partition("/")[0] not in OWN_SECTIONS and name != headline]
    return sorted(names, key=lambda name: (order.index(tasks.base_metric(name)), name))


def _lines(table: Table) -> str:
    """The table, with its marks: the best number of each column in bold, the second best underlined."""
    body = []
    for line in table.all_lines:
        texts = {column: text(line) for column, text in table.columns.items()}
        cells = [page.cell(text.whole, text.mark, head=column == "method") for column, text in texts.items()]
        body.append(("quoted" if line.quoted else "" if line.fair else "reference", cells))
    return page.table(list(table.columns), body)


def _means(tables: Sequence[Table]) -> str:
    """The means over shifts in all metrics, with the marks of their tables."""
    cells: dict[str, dict[str, tuple[str, str]]] = {}  # method -> metric -> text and mark
    for table in tables:
        for line in table.lines:
            mark = table.marks.get((line.method, "mean"), "")
            cells.setdefault(line.method, {})[table.metric] = (line.mean.text(table.digits), mark)
    names = [table.metric for table in tables]
    body = [
        ("", [page.cell(method, head=True), *(page.cell(*of_row.get(name, ("–", ""))) for name in names)])
        for method, of_row in cells.items()
    ]
    words = (f"{name}: {tasks.metric(name).title}." for name in names)
    return page.table(["method, means over shifts", *names], body) + page.items(words)


def gains(table: Table) -> str:
    """A panel with the differences from the first row, as the table has them; "" if there is none."""
    rows, colours = [], tones(table)
    for line in table.lines:
        cell = line.mean if table.of_gains else line.gain
        if cell.values and (table.of_gains or line.method != table.baseline):
            ends = (line.interval.low, line.interval.high) if line.interval else None
            text = f"{cell.text(table.digits, '+')} {table.ends(line.interval) if line.interval else ''}".strip()
            rows.append(plots.Gain(line.method, cell.mean, cell.std, ends, text, f"line-{colours[line.method]}"))
    if not rows:
        return ""
    over = "" if table.of_gains else f" from {table.baseline}"
    alt = f"Differences{over}, means over shifts: " + "; ".join(f"{row.name} {row.text}" for row in rows)
    return page.figure(f"difference{over}, mean over shifts", plots.gains(rows, alt))


def tones(table: Table) -> dict[str, str]:
    """The CSS class of each method: grey for the first row, a dashed outline for unfair rows, else a colour."""
    coloured = [line.method for line in table.lines[1:] if line.fair]
    return {
        line.method: "reference"
        if not line.fair
        else f"m{coloured.index(line.method) % COLOURS}"
        if line.method in coloured
        else "base"
        for line in table.lines
    }
