"""One self-contained HTML page about an experiment: what was gained, where the errors went, what the shift looks like.

The page loads nothing, needs no script and is the same, byte for byte, for the same input. Parts whose files are not at
hand (the videos, the runs, the stores) say so in their place; the table needs nothing but result rows.
"""

import inspect
from collections.abc import Iterable
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.report import page, plots
from pipelines.report.provenance import provenance
from pipelines.tables.build import build
from pipelines.tables.cells import Table

PARAMETERS = 6  # colours of methods before they repeat


def write(
    experiment: Experiment, rows: Iterable[Result], runs: Path, stores: Path, out: Path, *, date: str = ""
) -> None:
    """Write the page to `out`; `date` is printed when given, never read from a clock."""
    rows = tuple(rows)
    table = build(rows, experiment)
    out.parent.mkdir(parents=True, exist_ok=True)
    parts = [
        _header(experiment, date),
        _key_figures(experiment, table),
        *(page.alarm(note.text) for note in table.notes if note.loud),
        _results(table),
        _accuracy(table),
        *_parts(experiment).sections(experiment, table, rows, runs, stores),
        provenance(experiment, rows, stores),
        _limits(experiment, table),
        _reproduce(experiment),
    ]
    out.write_text(page.page(f"{experiment.name} – featcache report", parts), encoding="utf-8")


def _parts(experiment: Experiment) -> Any:
    """The file of this folder with the parts of the experiment's task: `sections`, `BASE` and `LIMITS`."""
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
    """Before, after, and what labels would have given: means over shifts."""
    base, best, reference = table.lines[0], table.best, table.reference
    entries = []
    if base.mean.values:
        entries.append((base.method, f"{base.mean.text(1)} %", f"mean over shifts{_parts(experiment).BASE}"))
    if best and best.gain.values:
        verdict = "points over" if best.gain.mean > 0 else "points: not better than"
        entries.append((best.method, f"{best.mean.text(1)} %", f"{best.gain.text(1, '+')} {verdict} {base.method}"))
    if reference and reference.mean.values:
        entries.append((reference.method, f"{reference.mean.text(1)} %", "with labels of the target: a reference"))
    return page.tiles(entries) if len(entries) > 1 else ""


def _results(table: Table) -> str:
    """The table, its best label-free number per column in bold."""
    winners = {column: _winners(table, column) for column in (*table.shifts, "mean")}
    body = [
        (
            "" if line.fair else "reference",
            [
                page.cell(text(line), "best" if line.method in winners.get(column, ()) else "", head=column == "method")
                for column, text in table.columns.items()
            ],
        )
        for line in table.lines
    ]
    intro = "A column per shift: trained on the first domain, tested on the second. Bold: best without target labels."
    return page.section(
        "Results",
        intro,
        page.table(list(table.columns), body),
        page.items(note.text for note in table.notes if not note.loud),
    )


def _winners(table: Table, column: str) -> set[str]:
    """The rows with the highest number where target labels had no say; several when they print the same."""
    fair = [line for line in table.lines if line.fair]
    cells = {line.method: line.mean if column == "mean" else line.cells[column] for line in fair}
    means = {method: round(cell.mean, table.digits) for method, cell in cells.items() if cell.complete}
    return {method for method, mean in means.items() if mean == max(means.values())}


def _accuracy(table: Table) -> str:
    tones, what = _tones(table), "Accuracy" if table.metric.startswith("top1") else table.metric
    columns = {shift: {line.method: line.cells[shift] for line in table.lines} for shift in table.shifts}
    if len(table.shifts) > 1:
        columns["mean over shifts"] = {line.method: line.mean for line in table.lines}
    figures = []
    for name, cells in columns.items():
        bars = [
            plots.Bar(method, tuple(cell.values.values()), cell.text(1), tones[method])
            for method, cell in cells.items()
        ]
        alt = f"{what}, {name}: " + "; ".join(f"{bar.name} {bar.text}" for bar in bars)
        figures.append(page.figure(name, plots.bars(bars, alt)))
    intro = "Bar: mean; line: ± one sample standard deviation; dots: seeds. Dashed: labels of the target had a say."
    return page.section(f"{what} per shift", intro, page.panels(figures))


def _tones(table: Table) -> dict[str, str]:
    """Grey for the first row, a dashed outline where target labels had a say, a colour for each of the others."""
    coloured = [line.method for line in table.lines[1:] if line.fair]
    return {
        line.method: "reference"
        if not line.fair
        else f"m{coloured.index(line.method) % PARAMETERS}"
        if line.method in coloured
        else "base"
        for line in table.lines
    }


def _limits(experiment: Experiment, table: Table) -> str:
    texts = [
        *_parts(experiment).LIMITS,
        "The spread is over seeds of the head (initial weights, order of rows). The clips and the features are the "
        "same in all of them, so it says nothing about other clips.",
    ]
    if not all(line.label_free for line in table.lines):
        texts.append(
            "Rows marked † learned from labels of the test domain's training rows: a reference for what can be gained."
        )
    return page.section("Limits", "", page.items(texts))


def _reproduce(experiment: Experiment) -> str:
    commands = [
        *experiment.command.split(" && "),
        f"featcache table {experiment.typed or experiment.name}",
        f"featcache report {experiment.typed or experiment.name}",
    ]
    return page.section(
        "To reproduce",
        "Every step keeps what is there already.",
        page.pre("\n".join(commands)),
        page.details("What the experiment says about itself", page.pre(inspect.cleandoc(experiment.doc))),
    )
