"""Slices of a table: the same rows, with a column per class, or per tested and per source domain, instead of shifts.

    by_class    a column per class: recall (`top1`, `mean_class`) or F1 (`macro_f1`) of its test clips over all shifts
    by_domain   a column per tested domain, `→D1`, and per source domain, `D1→`: the mean over its shifts

Lines keep their mean, gain and interval, which are those of the whole table.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from featcache.errors import ConfigError
from featcache.wording import first
from pipelines.data.lacking import nothing_to_compare
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.tables.build import build, mean_over, planned_runs
from pipelines.tables.cells import Cell, Note, Table
from pipelines.tables.notes import RunIds
from pipelines.tables.outdated import current

Counts = tuple[float, float, float]  #: test clips of a class predicted right, its test clips, and clips given the class
PER_CLASS = {  #: metric whose mean over classes is known -> its value of one class, from counts
    "top1": lambda right, clips, given: right / clips,
    "mean_class": lambda right, clips, given: right / clips,
    "macro_f1": lambda right, clips, given: 2 * right / (clips + given),
}
WIDEST = 12  #: most columns of classes in a table for people


def by_class(
    rows: Sequence[Result], experiment: Experiment, metric: str | None = None, most: int | None = None
) -> Table:
    """Return the table with a column per class, the classes with most test clips first: all, or so many.

    metric: a name of PER_CLASS, with /LABEL behind it if there are several; ConfigError for others.
    """
    plain = build(rows, experiment, metric)
    kind, _, label = plain.metric.partition("/")
    counted = _counted(rows, experiment, label)
    if kind not in PER_CLASS or not counted:
        raise _no_classes(rows, experiment, plain.metric)
    every = planned_runs(experiment, plain.metric)
    planned = {cell: seeds for cell, seeds in every.items() if cell[1] in plain.shifts}
    cells: dict[str, dict[str, Cell]] = {}  # method -> class -> cell
    for line in plain.lines:
        found = dict(_by_seed(planned, counted, line.method))
        names = dict.fromkeys(name for counts in found.values() for name in counts)
        cells[line.method] = {
            name: Cell(
                {s: 100 * PER_CLASS[kind](*counts[name]) for s, counts in found.items() if counts.get(name, (0, 0))[1]},
                line.mean.seeds,
            )
            for name in names
        }
    clips = class_clips(rows, experiment, plain)
    order = sorted(clips, key=lambda name: (-clips[name], name))
    shown = order[:most]
    lines = tuple(
        replace(line, cells={name: cells[line.method].get(name, Cell({}, line.mean.seeds)) for name in shown})
        for line in plain.lines
    )
    notes = _on_classes(clips, order, shown, kind, label)
    return replace(plain, shifts=tuple(shown), all_lines=lines, notes=loud_first(notes, plain.notes))


def class_clips(rows: Sequence[Result], experiment: Experiment, table: Table) -> dict[str, float]:
    """Return class -> its test clips in all shifts, of the label kind of the table's metric."""
    planned, counted = (
        planned_runs(experiment, table.metric),
        _counted(rows, experiment, table.metric.partition("/")[2]),
    )
    clips: dict[str, float] = {}
    for line in table.lines:
        for _, counts in _by_seed(planned, counted, line.method):
            clips |= {name: n for name, (_, n, _) in counts.items() if n}
    return clips


def splittable(rows: Sequence[Result], experiment: Experiment, kinds: Collection[str] = tuple(PER_CLASS)) -> list[str]:
    """Return the measured metrics of these kinds that `by_class` can split."""
    measured = sorted({row.metric for row in rows if row.run in experiment.by_id})
    return [name for name in measured if name.partition("/")[0] in kinds and not name.endswith("/action")]


def _counted(rows: Sequence[Result], experiment: Experiment, label: str) -> dict[str, Mapping[str, Counts]]:
    """Return run -> class -> counts, of the runs whose results have them."""
    found = {row.run: row.by_class for row in current(rows, experiment) if row.metric == _with("top1", label)}
    return {run: counts for run, counts in found.items() if counts and run in experiment.by_id}


def _with(metric: str, label: str) -> str:
    return f"{metric}/{label}" if label else metric


def _by_seed(
    planned: RunIds, counted: Mapping[str, Mapping[str, Counts]], method: str
) -> Iterator[tuple[int, dict[str, Counts]]]:
    """Yield (seed, class -> counts summed over all shifts), for the seeds of a method whose shifts all have counts."""
    shifts = [seeds for (name, _), seeds in planned.items() if name == method and seeds]
    for seed in shifts[0] if shifts else ():
        runs = [seeds.get(seed, "") for seeds in shifts]
        if all(run in counted for run in runs):
            total: dict[str, Counts] = {}
            for run in runs:
                for name, counts in counted[run].items():
                    right, clips, given = total.get(name, (0.0, 0.0, 0.0))
                    total[name] = right + counts[0], clips + counts[1], given + counts[2]
            yield seed, total


def _no_classes(rows: Sequence[Result], experiment: Experiment, metric: str) -> ConfigError:
    """Return the error about a metric that is not split by class, or about results without counts."""
    kind = metric.partition("/")[0]
    if not experiment.task.has_class_scores:
        return ConfigError(f"--by class needs classes, but {experiment.name!r} is a {experiment.task.name} experiment")
    shown = [row for row in rows if row.run in experiment.by_id]
    if not shown:
        return ConfigError(f"--by class needs results, but {experiment.name!r} has none; run: {experiment.command}")
    choices = splittable(rows, experiment)
    if kind not in PER_CLASS or metric.endswith("/action"):
        return ConfigError(f"--by class does not split {metric!r}; choose --metric from {', '.join(choices)}")
    if reason := next(filter(None, (nothing_to_compare(row.limits) for row in shown)), ""):
        return ConfigError(f"--by class needs labels of test clips, but {reason}")
    return ConfigError(
        f"the results of {experiment.name!r} hold no counts of classes, because an earlier version measured them; "
        f"measure them again: {experiment.call('evaluate')}"
    )


def loud_first(notes: Sequence[Note], others: Sequence[Note]) -> tuple[Note, ...]:
    """Return these notes and the others, warnings first."""
    return tuple(sorted((*notes, *others), key=lambda note: not note.loud))


def _on_classes(
    clips: Mapping[str, float], order: Sequence[str], shown: Sequence[str], kind: str, label: str
) -> list[Note]:
    """The meaning of the columns, the numbers of clips, and the classes that are left out."""
    share = "F1" if kind == "macro_f1" else "share that is predicted right"
    of = f" of label {label}" if label else ""
    counts = ", ".join(f"{name} {clips[name]:g}" for name in shown)
    notes = [
        Note(
            f"Columns are classes{of}: {share} of the test clips of all shifts together, mean over seeds. Mean, "
            f"gain and interval are those of the whole table. Test clips: {counts}."
        )
    ]
    if rest := order[len(shown) :]:
        total, lost = sum(clips.values()), sum(clips[name] for name in rest)
        notes.append(
            Note(
                f"{len(rest)} of {len(order)} classes, with {lost:g} of {total:g} test clips, have no column; "
                "--format csv has all."
            )
        )
    return notes


def by_domain(rows: Sequence[Result], experiment: Experiment, metric: str | None = None) -> Table:
    """Return the table with a column per tested domain and per source domain, where there are several of them."""
    plain = build(rows, experiment, metric)
    tested: dict[str, dict[str, None]] = {}  # column -> shifts
    sources: dict[str, dict[str, None]] = {}
    for run_id, columns in experiment.columns.items():
        run = experiment.by_id[run_id]
        source = next((stage.source for stage in experiment.chain(run) if stage.source), ())
        if len(columns) == 1 and columns[0] in plain.shifts and source != (run.test,):
            tested.setdefault(f"→{run.test}", {})[columns[0]] = None
            for domain in source:
                sources.setdefault(f"{domain}→", {})[columns[0]] = None
    groups: dict[str, list[str]] = {}
    for each in (tested, sources):
        for column, shifts in each.items():
            if len(each) > 1 and list(shifts) not in groups.values():  # of two domains, both sides name the same shift
                groups[column] = list(shifts)
    if not groups:
        raise ConfigError(f"--by domain needs several domains, but {experiment.name!r} has {first(plain.shifts)}")
    lines = tuple(
        replace(
            line,
            cells={column: mean_over([line.cells[shift] for shift in shifts]) for column, shifts in groups.items()},
        )
        for line in plain.lines
    )
    note = Note(
        "Columns are domains: →D is the mean over the shifts that are tested on D, D→ over those with source D."
    )
    return replace(plain, shifts=tuple(groups), all_lines=lines, notes=loud_first([note], plain.notes))
