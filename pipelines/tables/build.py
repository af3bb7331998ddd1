"""Result rows -> a paper's table: one row per method, one column per shift `source→target`, their mean and the gain.

A table is a pure function of an experiment, which plans the cells, and of result rows, which fill them. Cells are mean
± sample standard deviation (ddof 1) over seeds. Means over shifts, and gains over the first row, are computed per seed
first, so their ± is over seeds too; intervals of gains are over seeds and test clips (differs.py). Missing results are
named below the table; no mean is taken over an incomplete set.
A published gain is shown only next to ours over the same row, so not where `--only` leaves out the paper's first row.

    build(rows, experiment)  -> Table      all numbers; the report uses it too
    render(rows, experiment) -> str        the same as text: Markdown that also lines up in a terminal, CSV, or LaTeX
    norms(...) -> Norms                    how far apart the modalities' feature norms are, per method (RNA, Table 1)

`build` also makes the table of ΔAcc from the tables of several metrics (deltas.py).
"""

import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featcache.errors import ConfigError
from featcache.wording import first
from pipelines import tasks
from pipelines.config import RunConfig, fidelity
from pipelines.data.lacking import NO_FEATURES, nothing_to_compare
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.measures.validators import VALIDATORS
from pipelines.tables import differs
from pipelines.tables.cells import Cell, Line, Note, Table, has_published
from pipelines.tables.deltas import DELTA_ACC, as_published, averaged_metrics, baselines, gains
from pipelines.tables.deltas import notes as notes_on_baselines
from pipelines.tables.formats import Shown
from pipelines.tables.notes import (
    SEEN,
    RunIds,
    changed_settings,
    collapses,
    damaged,
    distinct,
    labels_seen,
    missing,
    notes,
    of_training_data,
)
from pipelines.tables.outdated import OF_FEATURES, current, feature_kinds, outdated

CV = {"cv_s": "CV source", "cv_t": "CV target", "cv_st": "CV both"}


def render(rows: Sequence[Result], experiment: Experiment, metric: str | None = None, format: str = "markdown") -> str:
    """Return the table as text.

    metric: a name of `featcache list metrics`; the default is that of the experiment (`Experiment.headline`).
    format: markdown, csv (one line per method and column) or latex (booktabs).
    """
    return build(rows, experiment, metric).text(format)


# ---------------------------------------------------------------------------------------------------- rows -> Table


def build(
    rows: Sequence[Result], experiment: Experiment, metric: str | None = None, *, explained: bool = True
) -> Table:
    """Place every result in the line of its method, in the column of its shift.

    Shares are converted to per cent; ranks, norms and scores of validators stay as they are.

    metric: the default is that of the experiment (`Experiment.headline`). explained: True for notes that explain the
    marks and the intervals.
    """
    all_rows, rows = rows, current(rows, experiment)
    headline = experiment.headline({row.metric for row in rows if row.run in experiment.by_id})
    metric = metric or headline
    if metric == DELTA_ACC:
        return _delta_acc(all_rows, experiment)
    planned = planned_runs(experiment, metric)
    if not planned and metric.startswith("validator/"):
        raise ConfigError(f"no run of {experiment.name!r} has {metric!r}; validators: {', '.join(VALIDATORS)}")
    ids = {run for seeds in planned.values() for run in seeds.values()}
    names = dict.fromkeys((metric + experiment.task.stand_in, metric))  # the metric itself last: it replaces a stand-in
    results = {row.run: row for name in names for row in rows if row.run in ids and row.metric == name}
    unlabelled = {row.run: row for row in rows if row.run in ids - results.keys() and nothing_to_compare(row.limits)}
    metrics = sorted({row.metric for row in rows if row.run in ids - unlabelled.keys()})
    if metrics and not results:
        raise ConfigError(
            f"no metric {metric!r} in the results of {experiment.name!r}; there are: {', '.join(metrics)}"
        )
    every, planned = planned, _without(planned, unlabelled) or planned
    shifts = tuple(dict.fromkeys(shift for _, shift in planned))
    lines: list[Line] = []
    rows_of = experiment.rows_shown
    for method in dict.fromkeys(method for method, _ in planned):
        runs = {shift: planned.get((method, shift), {}) for shift in shifts}
        configs = [run for run in experiment.runs if run.row_shown == method]
        published = experiment.published_numbers(rows_of[method], metric, metric == headline)
        line = _line(method, experiment, configs, runs, results, published)
        base = lines[0] if lines else line
        same = rows_of[base.method] == experiment.whole.rows[0]
        gain = replace(difference(line.mean, base.mean), published=published.get("gain") if same else None)
        lines.append(replace(line, gain=gain))
    over = {line.method: lines[0].method for line in lines}
    clips = differs.outcomes(results.values(), [metric])
    lines = differs.with_intervals(lines, over, planned, clips, metric)
    shown = _with_quoted(lines, experiment, metric, metric == headline)
    table = Table(experiment.name, metric, shifts, shown, ())
    legend = differs.notes(table, over, clips, others=any(row.clips for row in rows if row.run in ids))
    late = outdated([row for row in all_rows if row.metric in names], experiment, all_rows)
    below = [
        *damaged(all_rows),
        *late,
        *notes(experiment, metric, shown, every, results, legend if explained else (), unlabelled),
    ]
    return replace(table, notes=(*below, *_stray(rows, experiment)))


def _without(planned: RunIds, unlabelled: Collection[str]) -> RunIds:
    """Return the planned runs whose test clips have labels; a column without any such run is left out."""
    left = {
        cell: {seed: run for seed, run in seeds.items() if run not in unlabelled} for cell, seeds in planned.items()
    }
    return {cell: seeds for cell, seeds in left.items() if seeds}


def _stray(rows: Sequence[Result], experiment: Experiment) -> list[Note]:
    """A note on results of runs that the experiment once had, if there are any."""
    written = {row.run: row for row in rows if row.experiment == experiment.name}
    stray = written.keys() - experiment.by_id.keys() - experiment.earlier_ids
    text = f"Left out: results of runs with settings that no row has, such as those of a sweep ({len(stray)})."
    read = {_stores_of(run.to_json()) for run in experiment.runs}
    if others := sorted({_stores_of(written[run].config) for run in stray} - read - {""}):
        text += f" Some read other stores: {first(others, between='; ')}."  # as another extractor has filled one since
    return [Note(text)] * bool(stray)


def _stores_of(config: Mapping[str, Any]) -> str:
    """Return the stores that a run reads, as `--feeds` names them."""
    return ",".join(feed.get("store", "") for feed in config.get("feeds", {}).values())


def _delta_acc(rows: Sequence[Result], experiment: Experiment) -> Table:
    """Return the table of ΔAcc, from the tables of the metrics that it averages."""
    metrics = averaged_metrics(rows, experiment)
    tables = [build(rows, experiment, metric) for metric in metrics]
    measured: dict[str, dict[str, Result]] = {}  # id of a run -> metric -> result
    for row in current(rows, experiment):
        if row.metric in metrics:
            measured.setdefault(row.run, {})[row.metric] = replace(row, metric=DELTA_ACC)
    results = {run: found[metrics[0]] for run, found in measured.items() if len(found) == len(metrics)}
    over = baselines(experiment)
    same, lines = as_published(experiment, over), []
    for line, cells in zip(tables[0].lines, gains(tables, over).values(), strict=True):
        name = experiment.rows_shown[line.method]
        published = experiment.published_numbers(name, DELTA_ACC, headline=False) if line.method in same else {}
        cells = {shift: replace(cell, published=published.get(shift)) for shift, cell in cells.items()}
        mean = replace(mean_over(cells.values()), published=_mean_of(published, cells))
        lines.append(replace(line, cells=cells, mean=mean, gain=Cell({}, ())))
    planned = planned_runs(experiment)
    clips = differs.outcomes((row for row in current(rows, experiment) if row.metric in metrics), metrics)
    lines = differs.with_intervals(lines, over, planned, clips, DELTA_ACC)
    shown = _with_quoted(lines, experiment, DELTA_ACC, headline=False)
    table = Table(experiment.name, DELTA_ACC, tables[0].shifts, shown, ())
    legend = differs.notes(table, over, clips, others=False)
    late = outdated([row for row in rows if row.metric in metrics], experiment, rows)
    below = [*damaged(rows), *late, *notes(experiment, DELTA_ACC, shown, planned, results, legend)]
    below = [*notes_on_baselines(experiment, over), *below, *_stray(rows, experiment)]
    return replace(table, notes=tuple(sorted(below, key=lambda note: not note.loud)))


def _with_quoted(lines: Sequence[Line], experiment: Experiment, metric: str, headline: bool) -> tuple[Line, ...]:
    """Return the lines, and among them the rows that the paper prints and no run makes.

    A quoted row is directly before the row that follows it in the paper's table; none is before the first line, with
    which the others are compared. One without a number in this metric and these columns is left out.
    """
    before: dict[str, list[Line]] = {}  # row of a run -> quoted rows
    waiting: list[Line] = []
    rows = experiment.rows_shown
    for row in experiment.published or {}:
        if row not in experiment.quoted:
            if lines and row != rows[lines[0].method]:
                before[row], waiting = waiting, []
        else:
            numbers = experiment.published_numbers(row, metric, headline)
            cells = {shift: Cell({}, (), numbers.get(shift)) for shift in lines[0].cells}
            mean = Cell({}, (), _mean_of(numbers, cells))
            line = Line(row, "", "", label_free=True, cells=cells, mean=mean, gain=Cell({}, ()))
            waiting += [line] * has_published([line])
    return (*(line for each in lines for line in (*before.pop(rows[each.method], []), each)), *waiting)


def _mean_of(published: Mapping[str, float], shifts: Collection[str]) -> float | None:
    """Return the mean that the paper prints; with a single shift it is that shift's number. We compute none."""
    return published.get(next(iter(shifts)) if len(shifts) == 1 else "mean")


def _line(
    method: str,
    experiment: Experiment,
    configs: list[RunConfig],
    runs: dict[str, dict[int, str]],
    results: dict[str, Result],
    published: dict[str, float],
) -> Line:
    """Return the line of one method, without its gain: a cell per shift, and their mean.

    configs: the method's runs. runs: shift -> seed -> id of one of them.
    """
    cells = {
        shift: Cell(
            {seed: printed(results[run]) for seed, run in seeds.items() if run in results},
            tuple(seeds),
            published.get(shift),
        )
        for shift, seeds in runs.items()
    }
    return Line(
        method=method,
        fidelity=distinct(_fidelity(run, experiment, results) for run in configs),
        select=distinct(run.select for run in configs),
        label_free=not any(run.test in stage.source for run in configs for stage in experiment.chain(run)),
        cells=cells,
        mean=replace(mean_over(cells.values()), published=_mean_of(published, cells)),
        gain=Cell({}, ()),
    )


def _fidelity(run: RunConfig, experiment: Experiment, results: dict[str, Result]) -> str:
    """Return the fidelity of a run, or SEEN if its features have seen labels of its test domain or target."""
    row = results.get(run.id)
    return SEEN if row and labels_seen(experiment, row) else fidelity(run)


def printed(row: Result) -> float:
    """Return a result's value as tables print it, in per cent if it is a share."""
    return 100 * row.value if tasks.metric(row.metric).is_share else row.value


def planned_runs(experiment: Experiment, metric: str = "") -> RunIds:
    """Return the ids of the runs that the table needs, in the experiment's order.

    For the score of a validator, these are only the runs that the validator can score.
    """
    planned: RunIds = {}
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


def mean_over(cells: Iterable[Cell]) -> Cell:
    """Return the mean over shifts, seed by seed; empty unless all cells are complete and have the same seeds."""
    cells = tuple(cells)
    seeds = cells[0].seeds
    if not all(cell.complete and set(cell.seeds) == set(seeds) for cell in cells):
        return Cell({}, max((cell.seeds for cell in cells), key=len) if all(cell.seeds for cell in cells) else ())
    return Cell({seed: statistics.fmean(cell.values[seed] for cell in cells) for seed in seeds}, seeds)


def difference(mean: Cell, base: Cell) -> Cell:
    """Return the difference of the two means, paired by seed; empty if `base` lacks a seed of `mean`."""
    paired = set(mean.values) <= set(base.values)
    return Cell({seed: value - base.values[seed] for seed, value in mean.values.items() if paired}, mean.seeds)


# ------------------------------------------------------------------------------------------------------------- norms


@dataclass(frozen=True, repr=False)
class Norms(Shown):
    """The coefficients of variation of the modalities' feature norms, per method, and their change."""

    title: str
    tables: tuple[Table, ...]  #: the table of each coefficient
    cells: list[list[str]]
    notes: list[Note]

    @property
    def grid(self) -> list[list[str]]:
        """The cells as text, headings first; only headings if no run has a coefficient."""
        return self.cells

    @property
    def below(self) -> list[Note]:
        """The notes under the table."""
        return self.notes

    def records(self) -> list[dict[str, Any]]:
        """The numbers: the records of each coefficient's table."""
        return [record for table in self.tables for record in table.records()]

    def __repr__(self) -> str:
        return f"Norms({self.title!r}, {len(self.cells) - 1} rows: {', '.join(table.metric for table in self.tables)})"


def norms_table(rows: Sequence[Result], experiment: Experiment) -> str:
    """Return the coefficients of variation of the feature norms, per method, as Markdown with an explanatory note."""
    return norms(rows, experiment).text()


def norms(rows: Sequence[Result], experiment: Experiment) -> Norms:
    """Return the coefficients of variation of the feature norms, per method, with an explanatory note."""
    if experiment.task.no_norms:
        kind = experiment.task.name
        raise ConfigError(f"{experiment.name!r} is a {kind} experiment and has no norms: {experiment.task.no_norms}")
    return _norms(rows, experiment)


def norms_grid(rows: Sequence[Result], experiment: Experiment) -> tuple[list[list[str]], list[Note]]:
    """Return the cells of `norms_table`, headings first, and its notes."""
    found = _norms(rows, experiment)
    return found.cells, found.notes


def _norms(rows: Sequence[Result], experiment: Experiment) -> Norms:
    """Return the table of norms. Rows trained on target labels are left out."""
    all_rows, rows = rows, current(rows, experiment)
    runs = {run.id for run in experiment.runs}
    measured = {row.metric for row in rows if row.run in runs}
    metrics = [metric for kind in CV for metric in sorted(measured) if metric.split("/")[0] == kind]
    tables = {metric: build(rows, experiment, metric) for metric in metrics}
    heads = [" ".join([CV[kind], *label]) for kind, *label in (metric.split("/") for metric in metrics)]
    grid = [["method", *(cell for head in heads for cell in (head, "change"))]]
    for parallel in zip(*(table.lines for table in tables.values()), strict=True):
        if not parallel[0].label_free:  # its source usually is the target, so there are no two sides to compare
            continue
        cells = [parallel[0].method]
        for line, table in zip(parallel, tables.values(), strict=True):
            base = table.lines[0].mean
            comparable = line.mean.values and base.values and base.mean and line.method != table.baseline
            change = f"{100 * (line.mean.mean / base.mean - 1):+.0f} %" if comparable else ""
            cells += [line.mean.text(table.digits), change]
        grid.append(cells)
    baseline = next(iter(tables.values())).baseline if tables else "the first row"
    printed = any(has_published(table.all_lines) for table in tables.values())
    planned = _label_free(experiment)
    with_norms = {row.run: row for row in rows if row.run in runs and row.metric.split("/")[0] in ("norm", *CV)}
    lost = [Note(text, loud=True) for text in _lost_norms(rows, experiment, planned)]
    lost += [Note(text, loud=True) for text in collapses(experiment, planned, with_norms)]
    explained = Note(
        "Coefficient of variation (std / mean, ddof 0) of the mean L2 norms of the modalities' features, mean over "
        "shifts. 0: all modalities have the same norm. RNA lowers the coefficient. Change: of the mean, against "
        f"{baseline}." + " In parentheses: published numbers, in the authors' own setting." * printed
    )
    featureless = [note for table in tables.values() for note in table.notes if note.text.startswith(NO_FEATURES)]
    trained_on = of_training_data(experiment, [row for row in rows if row.run in runs and row.metric in metrics])
    of_norms = [row for row in all_rows if row.metric.partition("/")[0] in OF_FEATURES]
    changed = [Note(text, loud=True) for text in changed_settings(experiment)]
    loud = [*damaged(all_rows), *changed, *outdated(of_norms, experiment, all_rows), *lost, *dict.fromkeys(featureless)]
    reasons = [*_one_kind(rows, experiment, planned), *_without_source(rows, experiment)]
    below = [*loud, *[explained] * bool(tables), *reasons, *trained_on]
    return Norms(experiment.name, tuple(tables.values()), grid, sorted(below, key=lambda note: not note.loud))


def _label_free(experiment: Experiment) -> RunIds:
    """Return the planned runs of the rows that are not trained on labels of the test domain."""
    label_free = {
        run.row_shown for run in experiment.runs if not any(run.test in s.source for s in experiment.chain(run))
    }
    return {cell: seeds for cell, seeds in planned_runs(experiment).items() if cell[0] in label_free}


def _lost_norms(rows: Sequence[Result], experiment: Experiment, planned: RunIds) -> list[str]:
    """A warning about runs without norms, or without a coefficient although there are norms that are not zero."""
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        values.setdefault(row.run, {})[row.metric] = row.value
    whole = set()
    for run, by_metric in values.items():
        sides = {name.split("/")[1] for name, norm in by_metric.items() if name.startswith("norm/") and norm > 0}
        varied = {side for side, kinds in feature_kinds(by_metric).items() if len(kinds) > 1}
        has = {name.split("/")[0] for name in by_metric}
        if has & {"norm", *CV} and has >= {f"cv_{side[0]}" for side in sides & varied}:
            whole.add(run)
    return missing(experiment, planned, whole)


def _one_kind(rows: Iterable[Result], experiment: Experiment, planned: RunIds) -> Iterator[Note]:
    """Yield a note on the rows that have no coefficient of variation, because one kind of features is classified."""
    shown = {run for seeds in planned.values() for run in seeds.values()}
    metrics: dict[str, set[str]] = {}
    for row in rows:
        if row.run in shown:
            metrics.setdefault(row.run, set()).add(row.metric)
    names: dict[str, dict[str, None]] = {}  # kind of features -> rows
    for run, measured in metrics.items():
        by_side = feature_kinds(measured)
        single = {side: next(iter(kinds)) for side, kinds in by_side.items() if len(kinds) == 1}
        for kind in sorted(set(single.values())):
            sides = [side for side in single if single[side] == kind]
            where = "" if len(sides) == len(by_side) else f" ({', '.join(sides)})"
            names.setdefault(kind, {})[experiment.by_id[run].row_shown + where] = None
    for kind, methods in names.items():
        yield Note(
            f"No coefficient of variation of {first(list(methods))}, because one kind of features has norms: {kind}. "
            "A coefficient compares two or more."
        )


def _without_source(rows: Iterable[Result], experiment: Experiment) -> Iterator[Note]:
    """Yield a note on the shifts whose source has no norms, and so no CV source and no CV both, with the reason."""
    measured: dict[str, set[str]] = {}
    for row in rows:
        if row.metric.startswith("norm/") and row.test not in row.source:
            measured.setdefault(row.run, set()).add(row.metric.split("/")[1])
    reasons: dict[str, dict[str, None]] = {}
    for run, sides in measured.items():
        if "source" not in sides and (config := experiment.by_id.get(run)):
            reason = (
                f"no {config.test_split} clip of the source {'+'.join(config.source)} has features"
                if config.source
                else "its runs see no source"
            )
            reasons.setdefault(reason, {}).update(dict.fromkeys(experiment.columns.get(run, ())))
    for reason, shifts in reasons.items():
        yield Note(f"No CV source and no CV both in {first(shifts)}, because {reason}.")


# -------------------------------------------------------------------------------------------------------------- runs


def first_run(experiment: Experiment, line: Line, shift: str, runs: Path) -> Path:
    """Return the folder of a cell's first run with a result, else of its first run; ConfigError if it has no run."""
    seeds = planned_runs(experiment).get((line.method, shift), {})
    if not seeds:
        raise ConfigError("the experiment has no run of this method on this shift")
    return runs / next((seeds[seed] for seed in line.cells[shift].values), next(iter(seeds.values())))
