"""Result rows -> a paper's table: one row per method, one column per shift `source→target`, their mean and the gain.

A table is a pure function of an experiment, which says what there should be, and of result rows, which say what there
is. Cells are mean ± sample standard deviation (ddof 1) over seeds. Means over shifts, and gains over the first row, are
taken per seed first, so their ± is over seeds too. What is missing is named below the table and never averaged over.

    build(rows, experiment)  -> Table      every number once; the report draws from it too
    render(rows, experiment) -> str        Markdown that also lines up in a terminal, CSV, or LaTeX
    norms_table(...)                       how far apart the modalities' feature norms are, per method (RNA, Table 1)
"""

import statistics
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from featcache.errors import ConfigError
from pipelines import tasks
from pipelines.config import RunConfig, fidelity
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.measures.validators import VALIDATORS
from pipelines.tables.cells import Cell, Line, Note, Table, beside_published
from pipelines.tables.formats import latex, markdown, pipes, tidy_csv, wrapped
from pipelines.tables.notes import Plan, notes, said

CV = {"cv_s": "CV source", "cv_t": "CV target", "cv_st": "CV both"}


def render(rows: Iterable[Result], experiment: Experiment, metric: str | None = None, format: str = "markdown") -> str:
    """The table as text; formats: markdown, csv (one line per method and column), latex (booktabs).

    metric: default is the headline of the experiment's task (`featcache list metrics`).
    """
    formats = {"markdown": markdown, "csv": tidy_csv, "latex": latex}
    if format not in formats:
        raise ConfigError(f"no table format {format!r}; choose from {', '.join(formats)}")
    return formats[format](build(rows, experiment, metric))


# ---------------------------------------------------------------------------------------------------- rows -> Table


def build(rows: Iterable[Result], experiment: Experiment, metric: str | None = None) -> Table:
    """Place every result under its method and shift; shares in per cent; ranks, norms and validators as they are.

    metric: default is the headline of the experiment's task.
    """
    rows = tuple(rows)
    headline = experiment.task.headline({row.metric for row in rows if row.run in experiment.by_id})
    metric = metric or headline
    planned = plan(experiment, metric)
    if not planned and metric.startswith("validator/"):
        raise ConfigError(f"no run of {experiment.name!r} has {metric!r}; validators: {', '.join(VALIDATORS)}")
    ours = {run for seeds in planned.values() for run in seeds.values()}
    names = dict.fromkeys((metric + experiment.task.stand_in, metric))  # the metric itself last: it counts
    found = {row.run: row for name in names for row in rows if row.run in ours and row.metric == name}
    known = sorted({row.metric for row in rows if row.run in ours})
    if known and not found:
        raise ConfigError(f"no metric {metric!r} in the results of {experiment.name!r}; they have: {', '.join(known)}")
    shifts = tuple(dict.fromkeys(shift for _, shift in planned))
    lines: list[Line] = []
    for method in dict.fromkeys(method for method, _ in planned):
        runs = {shift: planned.get((method, shift), {}) for shift in shifts}
        configs = [run for run in experiment.runs if run.row_shown == method]
        theirs = experiment.theirs(configs[0].row, metric, metric == headline)
        line = _line(method, experiment, configs, runs, found, theirs)
        lines.append(replace(line, gain=_gain(line.mean, lines[0].mean if lines else line.mean)))
    below = notes(experiment, metric, lines, planned, found)
    stray = {row.run for row in rows if row.experiment == experiment.name} - experiment.by_id.keys() - experiment.known
    if stray:
        below.append(Note(f"Left out: results of runs that the experiment no longer describes ({len(stray)})."))
    return Table(experiment.name, metric, shifts, tuple(lines), tuple(below))


def _line(
    method: str,
    experiment: Experiment,
    configs: list[RunConfig],
    runs: dict[str, dict[int, str]],
    found: dict[str, Result],
    published: dict[str, float],
) -> Line:
    """One method: its cells, whose runs (ids of `configs`) are given per shift and seed, and their mean."""
    cells = {
        shift: Cell(
            {seed: _value(found[run]) for seed, run in seeds.items() if run in found},
            tuple(seeds),
            published.get(shift),
        )
        for shift, seeds in runs.items()
    }
    return Line(
        method=method,
        fidelity=said(fidelity(run) for run in configs),
        select=said(run.select for run in configs),
        label_free=not any(run.test in stage.source for run in configs for stage in experiment.chain(run)),
        cells=cells,
        mean=replace(_mean(cells.values()), published=published.get("mean", _published_mean(cells))),
        gain=Cell({}, ()),
    )


def _value(row: Result) -> float:
    """Shares in per cent, other numbers as they are."""
    return 100 * row.value if tasks.metric(row.metric).is_share else row.value


def plan(experiment: Experiment, metric: str = "top1") -> Plan:
    """(method, shift) -> seed -> run id, in the experiment's order; of a validator those it can score."""
    planned: Plan = {}
    kind, _, name = metric.partition("/")
    for run in experiment.runs:
        scored = kind != "validator" or name in run.validators
        for shift in experiment.columns[run.id] if run.row and scored else ():
            seeds = planned.setdefault((run.row_shown, shift), {})
            if seeds.setdefault(run.seed, run.id) != run.id:
                raise ConfigError(
                    f"experiment {experiment.name!r} has two runs for row {run.row!r}, {shift}, seed {run.seed}: "
                    f"{seeds[run.seed]} and {run.id}; give their rows different names"
                )
    return planned


def _mean(cells: Iterable[Cell]) -> Cell:
    """Mean over shifts, seed by seed; empty unless every cell is complete over the same seeds."""
    cells = tuple(cells)
    seeds = cells[0].seeds
    if not all(cell.complete and set(cell.seeds) == set(seeds) for cell in cells):
        return Cell({}, max((cell.seeds for cell in cells), key=len) if all(cell.seeds for cell in cells) else ())
    return Cell({seed: statistics.fmean(cell.values[seed] for cell in cells) for seed in seeds}, seeds)


def _published_mean(cells: dict[str, Cell]) -> float | None:
    theirs = [cell.published for cell in cells.values() if cell.published is not None]
    return statistics.fmean(theirs) if len(theirs) == len(cells) else None


def _gain(mean: Cell, base: Cell) -> Cell:
    """Difference of the two means, paired by seed; empty when a seed has no partner."""
    paired = set(mean.values) <= set(base.values)
    return Cell({seed: value - base.values[seed] for seed, value in mean.values.items() if paired}, mean.seeds)


# ------------------------------------------------------------------------------------------------------------- norms


def norms_table(rows: Iterable[Result], experiment: Experiment) -> str:
    """The coefficients of variation per method as Markdown, with a note that says what they are."""
    if experiment.task.no_norms:
        kind = experiment.task.name
        raise ConfigError(f"no norms of {experiment.name!r}, a {kind} experiment: {experiment.task.no_norms}")
    grid, note = norms_grid(rows, experiment)
    return pipes(grid) + "\n" + wrapped(note) + "\n"


def norms_grid(rows: Iterable[Result], experiment: Experiment) -> tuple[list[list[str]], Note]:
    """Cells of `norms_table`, headings first, and its note. Rows that learned from target labels are left out."""
    rows = tuple(rows)
    runs = {run.id for run in experiment.runs}
    found = {row.metric for row in rows if row.run in runs}
    known = [metric for kind in CV for metric in sorted(found) if metric.split("/")[0] == kind]
    tables = {metric: build(rows, experiment, metric) for metric in known}
    heads = [" ".join([CV[kind], *task]) for kind, *task in (metric.split("/") for metric in known)]
    grid = [["method", *(cell for head in heads for cell in (head, "change"))]]
    for parallel in zip(*(table.lines for table in tables.values()), strict=True):
        if not parallel[0].label_free:  # as a rule its source is the target: there are no two sides to compare
            continue
        cells = [parallel[0].method]
        for line, table in zip(parallel, tables.values(), strict=True):
            base = table.lines[0].mean
            comparable = line.mean.values and base.values and base.mean and line.method != table.baseline
            change = f"{100 * (line.mean.mean / base.mean - 1):+.0f} %" if comparable else ""
            cells += [line.mean.text(table.digits), change]
        grid.append(cells)
    baseline = next(iter(tables.values())).baseline if tables else "the first row"
    printed = any(beside_published(table.lines) for table in tables.values())
    return grid, Note(
        "Coefficient of variation (std / mean, ddof 0) of the mean L2 norms of the modalities' features, mean over "
        f"shifts: 0 is balanced, and RNA lowers it. Change: of the mean, against {baseline}."
        + " In parentheses: published, in the authors' own setting."
        * printed
    )


# -------------------------------------------------------------------------------------------------------------- runs


def first_run(experiment: Experiment, line: Line, shift: str, runs: Path) -> Path:
    """The folder of a cell's first run with a result, or of its first; ConfigError when it has none."""
    seeds = plan(experiment).get((line.method, shift), {})
    if not seeds:
        raise ConfigError("it has no run of that shift")
    return runs / next((seeds[seed] for seed in line.cells[shift].values), next(iter(seeds.values())))
