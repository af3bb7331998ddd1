"""One self-contained HTML page about an experiment: what was gained, where the errors went, what the shift looks like.

The page loads nothing, needs no script and is the same, byte for byte, for the same input. Parts whose files are not at
hand (the videos, the runs, the stores) say so in their place; the table needs nothing but result rows.
"""

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np

from featcache.errors import FeatcacheError
from pipelines import _page as page
from pipelines import _plots as plots
from pipelines._report_clustering import clusters
from pipelines._report_retrieval import gallery, joint_space
from pipelines._report_sources import frames, provenance
from pipelines._table_notes import command
from pipelines._table_parts import Line, Table
from pipelines.evaluate import Predictions, predictions
from pipelines.experiments import Experiment
from pipelines.results import Result
from pipelines.runs import Run
from pipelines.tables import build, norms_grid, plan

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
        frames(experiment, stores) if experiment.task != "clustering" else "",  # of classes that domains share
        *_errors(experiment, table, rows, runs, stores),
        provenance(experiment, rows, stores),
        _limits(experiment, table),
        _reproduce(experiment),
    ]
    out.write_text(page.page(f"{experiment.name} – featcache report", parts), encoding="utf-8")


def _header(experiment: Experiment, date: str) -> str:
    return (
        f'<header><span class="over">featcache report{" · " + escape(date) if date else ""}</span>'
        f"<h1>{escape(experiment.name)}</h1>{page.paragraph(_lead(experiment), 'lead')}</header>"
    )


def _lead(experiment: Experiment) -> str:
    """The first paragraph of the experiment's docstring."""
    return " ".join(inspect.cleandoc(experiment.doc).split("\n\n")[0].split())


def _best(table: Table) -> Line | None:
    """The row with the highest mean among those where target labels had no say, the first row apart."""
    rivals = [line for line in table.lines[1:] if line.fair and line.mean.values]
    return max(rivals, key=lambda line: line.mean.mean, default=None)


def _reference(table: Table) -> Line | None:
    """The row that learned from the target's own labels."""
    return next((line for line in reversed(table.lines) if not line.label_free), None)


def _key_figures(experiment: Experiment, table: Table) -> str:
    """Before, after, and what labels would have given: means over shifts."""
    base, best, reference = table.lines[0], _best(table), _reference(table)
    entries = []
    if base.mean.values:
        alone = "" if experiment.task == "clustering" else ", no adaptation"  # there the first row sees the target, too
        entries.append((base.method, f"{base.mean.text(1)} %", f"mean over shifts{alone}"))
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


def _errors(experiment: Experiment, table: Table, rows: tuple[Result, ...], runs: Path, stores: Path) -> Iterator[str]:
    """What was predicted, and what the features are like or what is in the clusters; in retrieval what was found."""
    if experiment.task == "retrieval":
        base, best = table.lines[0], _best(table) or table.lines[0]
        yield gallery(experiment, best, runs, stores)
        yield joint_space(experiment, [base] if base is best else [base, best], runs, stores)
    else:
        yield _confusions(experiment, table, runs, stores)
    if experiment.task == "classification":
        yield _norms(experiment, table, rows)
    if experiment.task == "clustering":
        yield clusters(experiment, _best(table) or table.lines[0], runs, stores)


def _confusions(experiment: Experiment, table: Table, runs: Path, stores: Path) -> str:
    """The first row, the best adapted one and the reference side by side, per shift."""
    chosen = dict.fromkeys(line.method for line in (table.lines[0], _best(table), _reference(table)) if line)
    planned, parts, reasons = plan(experiment), [], []
    across = "matched cluster" if experiment.task == "clustering" else "predicted class"
    for shift in table.shifts:
        figures = []
        for line in (line for line in table.lines if line.method in chosen and line.cells[shift].values):
            seeds = planned[line.method, shift]
            try:
                seen = _pooled([runs / seeds[seed] for seed in line.cells[shift].values], stores)
            except (FeatcacheError, OSError) as error:
                reasons.append(f"No confusion matrix of {line.method} on {shift}: {error}.")
                continue
            caption = _caption(line, shift, seen)
            alt = f"Confusion matrix of {line.method} on {shift}: shares of each true class by {across}"
            names = _without_domain(seen.classes)
            figures.append(page.figure(caption, plots.confusion(seen.truth, seen.predicted, names, alt, across)))
        if figures:
            parts.append(f"<h3>{escape(shift)}</h3>" + page.panels(figures, "thirds"))
    columns = across
    if experiment.task == "clustering":
        columns = "the cluster of branch B0 that Hungarian matching gives the class (of k-means: of its first start)"
    intro = f"Rows: true class; columns: {columns}; per cent of the row, over all seeds. Outlined: correct."
    more = f" ({len(reasons) - 1} more are missing.)" if len(reasons) > 1 else ""
    return page.section("Where the errors go", intro, *parts, *(page.paragraph(first + more) for first in reasons[:1]))


def _caption(line: Line, shift: str, seen: Predictions) -> str:
    """The accuracy of the table, and in what the matrix below shows less than that."""
    caption = f"{line.method}: {line.cells[shift].text(1)} %"
    if "mean" in line.select.split(" / "):
        caption += "; matrix: the last of the kept outputs"
    if len(seen.classes) > plots.MOST_CLASSES:
        caption += f"; {plots.MOST_CLASSES} most frequent of {len(seen.classes)} classes"
    return caption


def _without_domain(names: tuple[str, ...]) -> tuple[str, ...]:
    """Of names that all begin with one domain what follows, "wave" of "msr:wave": a matrix has little room."""
    if len({name.partition(":")[0] for name in names}) > 1:
        return names
    return tuple(name.partition(":")[2] or name for name in names)


def _pooled(folders: list[Path], stores: Path) -> Predictions:
    """All seeds one after the other: they have the same rows, so each weighs the same. Of several tasks the first."""
    seen = []
    for folder in folders:
        task, *_ = Run.open(folder).facts["spec"]["classes"]
        seen.append(predictions(folder, stores, task))
    truth, predicted = (np.concatenate([getattr(run, name) for run in seen]) for name in ("truth", "predicted"))
    return replace(seen[0], truth=truth, predicted=predicted)


def _norms(experiment: Experiment, table: Table, rows: tuple[Result, ...]) -> str:
    """Mean norms per modality and side, a panel per shift, and the coefficients of variation as a table."""
    grid, note = norms_grid(rows, experiment)
    heading = "Feature norms per modality"
    if len(grid) == 1:
        return page.section(heading, "The results have no norms.")
    figures = []
    for shift in table.shifts:
        methods = [
            found for line in table.lines if line.label_free and (found := _norms_of(experiment, line, shift, rows))
        ]
        if methods:
            alt = f"Mean feature norms, {shift}: " + "; ".join(f"{method.name} {method.text}" for method in methods)
            figures.append(page.figure(shift, plots.norms(methods, alt)))
    modalities = sorted({row.metric.split("/", 2)[2] for row in rows if row.metric.startswith("norm/")})
    body = [("", [page.cell(text, head=place == 0) for place, text in enumerate(cells)]) for cells in grid[1:]]
    return page.section(
        heading,
        "Mean L2 norm of what enters the classifier, mean over seeds. The axis is logarithmic: the closer the marks of "
        "a column, the more alike the modalities weigh. RNA draws them together.",
        plots.norms_legend(modalities),
        page.panels(figures),
        page.table(grid[0], body),
        page.items([note.text]),
    )


def _norms_of(experiment: Experiment, line: Line, shift: str, rows: tuple[Result, ...]) -> plots.Norms | None:
    """Means over seeds of one method's norms at one shift, or None where there are not both sides."""
    ids = set(plan(experiment).get((line.method, shift), {}).values())
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.run in ids:
            values.setdefault(row.metric, []).append(row.value)
    sides: dict[str, dict[str, float]] = {"source": {}, "target": {}}
    for metric, found in values.items():
        if metric.startswith("norm/"):
            _, side, what = metric.split("/", 2)
            sides[side][what] = float(np.mean(found))
    sides = {side: {what: norm for what, norm in of.items() if norm > 0} for side, of in sides.items()}
    if not all(sides.values()):
        return None
    text = f"CV {np.mean(values['cv_st']):.2f}" if "cv_st" in values else ""
    return plots.Norms(line.method, sides["source"], sides["target"], text)


def _limits(experiment: Experiment, table: Table) -> str:
    frozen = [
        "The backbones are frozen: alignment acts on the layers above the cached features only. Where a paper trains "
        "its backbone too, the fidelity is adapter, and its number is not the paper's.",
        "Clips are seen through the cached windows alone; augmentation that changes pixels is not part of these runs.",
    ]
    told = ["The number of clusters is the target's true number of classes (oracle K), which is seldom known."]
    texts = [
        *(told if experiment.task == "clustering" else frozen),
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
        *command(experiment).split(" && "),
        f"featcache table {experiment.typed or experiment.name}",
        f"featcache report {experiment.typed or experiment.name}",
    ]
    return page.section(
        "To reproduce",
        "Every step keeps what is there already.",
        page.pre("\n".join(commands)),
        page.details("What the experiment says about itself", page.pre(inspect.cleandoc(experiment.doc))),
    )
