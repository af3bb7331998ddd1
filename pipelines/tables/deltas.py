"""ΔAcc [RNA: Planamente et al. 2024, IJCV, Table 2]: the gain in top-1 accuracy, averaged over labels and the action.

    ΔAcc = mean over m of (top-1 of the row in m - top-1 of its baseline in m),  m in {verb, noun, action}

It belongs to a table and not to a run, because the baseline is another run: that of the same shift and seed.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict

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
    configs: dict[str, RunConfig] = {}  # row -> its first run
    for run in experiment.runs:
        if run.row:
            configs.setdefault(run.row_shown, run)
    plain = [row for row, run in configs.items() if _is_source_only(run)]
    over = {
        row: next((base for base in plain if _comparable(run, configs[base])), next(iter(configs)))
        for row, run in configs.items()
    }
    if all(row == base for row, base in over.items()):
        raise ConfigError(
            f"{DELTA_ACC} compares rows, but {experiment.name!r} has no row to compare with {first(over)}; keep the "
            "source-only row and another one (--only)"
        )
    return over


def _is_source_only(run: RunConfig) -> bool:
    """True if the run learns from the source only, and not from the labels of its test domain."""
    return isinstance(run.method, source_only.Params) and run.test not in run.source


def _comparable(run: RunConfig, base: RunConfig) -> bool:
    """True if both runs have the same net and feeds, and equal values of the settings that both methods have."""
    settings, others = asdict(run.method), asdict(base.method)
    shared = settings.keys() & others.keys()
    return (run.net, run.feeds) == (base.net, base.feeds) and all(settings[name] == others[name] for name in shared)


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


def note(over: Mapping[str, str]) -> Note:
    """Return the note that names the baselines, and where there are several, the rows of each."""
    rows: dict[str, list[str]] = {}
    for row, base in over.items():
        if row != base:
            rows.setdefault(base, []).append(row)
    names = list(rows) if len(rows) < 2 else [f"{base} (of {first(compared, 3)})" for base, compared in rows.items()]
    return Note(f"Gains are taken seed by seed, over {'; over '.join(names)}.")
