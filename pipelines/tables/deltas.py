"""ΔAcc [RNA: Planamente et al. 2024, IJCV, Table 2]: the gain in top-1 accuracy, averaged over labels and the action.

    ΔAcc = mean over m of (top-1 of the row in m - top-1 of its baseline in m),  m in {verb, noun, action}

It belongs to a table and not to a run, because the baseline is another run: that of the same shift and seed.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise

from featcache.errors import ConfigError
from featcache.wording import first
from heads.methods import source_only
from pipelines.config import RunConfig
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.tables.cells import Cell, Note, Table

DELTA_ACC = "delta_acc"


def averaged_metrics(rows: Sequence[Result], experiment: Experiment) -> list[str]:
    """Return the metrics that ΔAcc averages, `top1/LABEL` and `top1/action`; ConfigError if there is one label only.

    Without any results the label kinds are not known: the only metric is then `top1/action`.
    """
    if DELTA_ACC not in experiment.task.metrics:
        raise ConfigError(
            f"{experiment.name!r} is a {experiment.task.name} experiment; {DELTA_ACC} is a gain in top-1 accuracy, "
            "which only classification has"
        )
    measured = {row.metric for row in rows if row.run in experiment.by_id}
    metrics = sorted(metric for metric in measured if metric.startswith("top1/"))
    if measured and not metrics:
        raise ConfigError(
            f"{DELTA_ACC} averages over several label kinds, and the results of {experiment.name!r} have one; take "
            "--metric top1, whose last column is the gain"
        )
    return metrics or ["top1/action"]


def baselines(experiment: Experiment) -> dict[str, str]:
    """Return row -> the row that it is compared with, both as tables show them.

    The baseline is the first source-only row with the same net, the same feeds, and the same settings of the method
    where both methods have them, such as `per_modality`. If there is none, it is the table's first row. ConfigError if
    every row is a baseline.
    """
    over = _baselines(experiment)
    if all(row == base for row, base in over.items()):
        raise ConfigError(
            f"{DELTA_ACC} compares rows, but {experiment.name!r} has no row to compare with {first(over)}; keep the "
            "source-only row and another one (--only)"
        )
    return over


def _baselines(experiment: Experiment) -> dict[str, str]:
    """Return row -> its baseline."""
    configs: dict[str, RunConfig] = {}  # row -> its first run
    for run in experiment.runs:
        if run.row:
            configs.setdefault(run.row_shown, run)
    plain = [row for row, run in configs.items() if _is_source_only(run)]
    return {
        row: next((base for base in plain if _comparable(run, configs[base])), next(iter(configs)))
        for row, run in configs.items()
    }


def as_published(experiment: Experiment, over: Mapping[str, str]) -> set[str]:
    """Return the rows that have the same baseline in the whole experiment: the others show no published gain.

    `--only` and `--set` can leave out or change the baseline of the paper's number. over: row -> its baseline.
    """
    here, there = experiment.rows_shown, experiment.whole.rows_shown
    whole = {there[row]: there[base] for row, base in _baselines(experiment.whole).items()}
    return {row for row, base in over.items() if row != base and whole.get(here[row]) == here[base]}


def _is_source_only(run: RunConfig) -> bool:
    """True if the run learns from the source only, and not from the labels of its test domain."""
    return isinstance(run.method, source_only.Params) and run.test not in run.source


def _comparable(run: RunConfig, base: RunConfig) -> bool:
    """True if both runs have the same net and feeds, and equal values of the settings that both methods have.

    A method that fixes a setting of source-only has it as a class attribute, as Gradient Blending has `per_modality`.
    """
    settings = asdict(base.method)
    shared = [name for name in settings if hasattr(run.method, name)]
    return (run.net, run.feeds) == (base.net, base.feeds) and all(
        getattr(run.method, name) == settings[name] for name in shared
    )


def gains(tables: Sequence[Table], over: Mapping[str, str]) -> dict[str, dict[str, Cell]]:
    """Return row -> shift -> the mean over the tables of (row - baseline), seed by seed.

    tables: one per metric, of the same rows and shifts. over: row -> its baseline; a baseline has no gains itself.
    """
    values = {line.method: [other.lines[k].cells for other in tables] for k, line in enumerate(tables[0].lines)}
    return {
        row: {
            shift: Cell({}, ()) if over[row] == row else _gain(cells, values[over[row]], shift)
            for shift in tables[0].shifts
        }
        for row, cells in values.items()
    }


def _gain(cells: list[dict[str, Cell]], bases: list[dict[str, Cell]], shift: str) -> Cell:
    """Return the mean difference of one shift, for the seeds that have all numbers."""
    pairs = [(own[shift], base[shift]) for own, base in zip(cells, bases, strict=True)]
    planned = tuple(seed for seed in pairs[0][0].seeds if seed in pairs[0][1].seeds)
    whole = [seed for seed in planned if all(seed in own.values and seed in base.values for own, base in pairs)]
    return Cell(
        {seed: statistics.fmean(own.values[seed] - base.values[seed] for own, base in pairs) for seed in whole}, planned
    )


def notes(experiment: Experiment, over: Mapping[str, str]) -> Iterator[Note]:
    """Yield the note that names the baselines, and one on published gains over rows that the paper quotes."""
    rows: dict[str, list[str]] = {}
    for row, base in over.items():
        if row != base:
            rows.setdefault(base, []).append(row)
    names = list(rows) if len(rows) < 2 else [f"{base} (of {first(compared, 3)})" for base, compared in rows.items()]
    yield Note(f"Gains are taken seed by seed, over {'; over '.join(names)}.")
    quoted = _quoted_baselines(experiment)
    here, same = experiment.rows_shown, as_published(experiment, over)
    if others := [f"{row} over {quoted[here[row]]}" for row in over if row in same and here[row] in quoted]:
        yield Note(
            "Published gains over rows that are quoted from the paper, and so not comparable with ours: "
            f"{'; '.join(others)}."
        )


def _quoted_baselines(experiment: Experiment) -> dict[str, str]:
    """Return row -> the quoted row over which its published gain is.

    It is the row directly above in the paper's table, if that row is quoted and, as a baseline, has no gain itself.
    """
    gain = {row: experiment.published_numbers(row, DELTA_ACC, headline=False) for row in experiment.published or {}}
    return {
        row: above
        for above, row in pairwise(gain)
        if gain[row] and not gain[above] and above in experiment.quoted and row not in experiment.quoted
    }
