"""The cost of choosing hyper-parameters without target labels: the candidate of each validator against the best one.

Candidates are evaluated runs of an experiment that share table row, shift and seeds, and differ in their settings, such
as those of `train-head X --set method.lambda_g=0.1`, `... =0.5`, ... The settings in PROTOCOL decide which outputs are
kept and evaluated, and do not change the model. Candidates are therefore compared under a single protocol: the one with
the most candidates, and on a tie the first.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from featcache.errors import ConfigError
from pipelines import tasks
from pipelines.config import RunConfig
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.measures.validators import ORACLE, VALIDATORS, best
from pipelines.tables.formats import pipes

PROTOCOL = ("eval_every", "keep", "select")  #: settings that do not change the weights
#: settings in which runs of one candidate may differ; init_from, because the id of a run depends on the seed
APART = ("row", "seed", "init_from", *PROTOCOL)

BySettings = dict[str, dict[int, dict[str, Result]]]  #: settings -> seed -> metric -> result


@dataclass(frozen=True)
class Candidate:
    """One choice of hyper-parameters, with means over the seeds that all candidates share."""

    name: str  #: the settings in which it differs from the other candidates
    accuracy: float  #: a share in [0, 1]
    scores: dict[str, float]  #: validator -> score


@dataclass(frozen=True)
class Choice:
    """The candidate that one rule chooses."""

    rule: str  #: a validator, or oracle
    name: str
    accuracy: float
    cost: float  #: accuracy of the best candidate minus the accuracy of this one
    correlation: float  #: Spearman's, of score and accuracy over the candidates; 1 is perfect, NaN if all are equal


def table(rows: Iterable[Result], experiment: Experiment, metric: str | None = None) -> str:
    """Return a Markdown table: per table row, shift and rule the choice, its accuracy and its cost, in per cent.

    experiment: an experiment with all its evaluated runs, as `evaluated` returns it.
    metric: the default is the headline metric of the experiment's task. ConfigError for a metric that is not in per
    cent, such as a rank.
    """
    rows = tuple(rows)
    if metric is None:
        metric = experiment.task.headline({row.metric for row in rows if row.experiment == experiment.name})
    if not (tasks.metric(metric).is_share and tasks.metric(metric).higher):
        raise ConfigError(
            f"metric {metric!r} is not in per cent, or less of it is better; choose one such as top1 or t2v/R@1"
        )
    heads = ["row", "shift", "rule", "chosen", metric, "lost", "rank correlation"]
    grid = [heads]
    for (row, shift), candidates in groups(rows, experiment, metric).items():
        for choice in choices(candidates):
            numbers = [f"{100 * choice.accuracy:.1f}", f"{100 * choice.cost:.1f}"]
            rank = "–" if np.isnan(choice.correlation) else f"{choice.correlation:+.2f}"
            grid.append([row, shift, choice.rule, choice.name, *numbers, "" if choice.rule == ORACLE else rank])
    if len(grid) == 1:
        raise ConfigError(
            f"no row of {experiment.name!r} has two candidates with {metric!r} on the same seeds; train and evaluate "
            "the experiment with several values of a setting, such as --set method.lambda_g=0.1"
        )
    return pipes(grid)


def evaluated(experiment: Experiment, rows: Iterable[Result], runs: Path) -> Experiment:
    """Return the experiment with all its evaluated runs, whatever their settings, and the runs that these start from.

    A run that is only a start has no result; its configuration is read from the folder of runs.
    """
    by_id = dict(experiment.by_id)
    for row in rows:
        if row.experiment == experiment.name and row.run not in by_id:
            by_id[row.run] = RunConfig.from_json(row.config)
    for run in tuple(by_id.values()):
        while (start := run.init_from) and start not in by_id and (file := runs / start / "config.json").is_file():
            run = by_id[start] = replace(RunConfig.from_json(json.loads(file.read_text(encoding="utf-8"))), row="")
    return replace(experiment, runs=tuple(by_id.values()))


def groups(rows: Iterable[Result], experiment: Experiment, metric: str) -> dict[tuple[str, str], list[Candidate]]:
    """Return (table row, column of the table) -> its candidates, where there are two or more.

    A run whose outputs an oracle chose is not a candidate.
    """
    runs: dict[str, dict[str, Result]] = {}  # id -> metric -> result
    for row in rows:
        if row.experiment == experiment.name and row.select != ORACLE:
            runs.setdefault(row.run, {})[row.metric] = row
    cells: dict[tuple[str, str], dict[str, BySettings]] = {}  # -> protocol -> candidates
    columns = experiment.columns  # empty for a run whose id comes from an older version of the settings
    for run, results in runs.items():
        for column in columns.get(run, ()) if metric in results else ():
            result = results[metric]
            whole = RunConfig.from_json(result.config).all_settings  # with defaults that a row does not write
            settings = json.dumps({k: v for k, v in whole.items() if k not in APART}, sort_keys=True)
            protocol = json.dumps([result.config.get(name) for name in PROTOCOL])
            seeds = cells.setdefault((result.row, column), {}).setdefault(protocol, {}).setdefault(settings, {})
            if seeds.setdefault(result.seed, results) is not results:
                other = seeds[result.seed][metric].run
                raise ConfigError(f"runs {run} and {other} differ only in init_from; give their rows different names")
    largest = {cell: max(protocols.values(), key=len) for cell, protocols in cells.items()}
    candidates = {cell: _candidates(by_settings, metric) for cell, by_settings in largest.items()}
    return {cell: several for cell, several in candidates.items() if len(several) > 1}


def choices(candidates: list[Candidate]) -> Iterator[Choice]:
    """Yield the choice of each validator for which all candidates have a score, then the choice of the oracle."""
    accuracy = [candidate.accuracy for candidate in candidates]
    for rule in (*VALIDATORS, ORACLE):
        if rule == ORACLE or all(rule in candidate.scores for candidate in candidates):
            scores = accuracy if rule == ORACLE else [candidate.scores[rule] for candidate in candidates]
            k = best(rule, scores)
            sign = -1 if rule != ORACLE and not VALIDATORS[rule].higher else 1
            yield Choice(
                rule, candidates[k].name, accuracy[k], max(accuracy) - accuracy[k], sign * spearman(scores, accuracy)
            )


def spearman(a: list[float], b: list[float]) -> float:
    """Return Spearman's rank correlation, with ties at their mean rank; NaN if all values of `a` or of `b` are equal.

    >>> round(spearman([1.0, 2.0, 3.0], [10.0, 30.0, 20.0]), 6)
    0.5
    """
    if len(set(a)) == 1 or len(set(b)) == 1:
        return float("nan")
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _candidates(by_settings: BySettings, metric: str) -> list[Candidate]:
    """Return the candidates, with means over the seeds that all share; empty if they share none."""
    shared = set.intersection(*(set(seeds) for seeds in by_settings.values()))
    flat = [_flat(json.loads(settings)) for settings in by_settings]
    paths = {path: None for settings in flat for path in settings}
    differing = [path for path in paths if len({str(settings.get(path)) for settings in flat}) > 1]
    candidates = []
    for settings, seeds in zip(flat, by_settings.values(), strict=True):
        runs = [seeds[seed] for seed in sorted(shared)]
        scored = [name for name in VALIDATORS if runs and all(f"validator/{name}" in run for run in runs)]
        scores = {name: float(np.mean([run[f"validator/{name}"].value for run in runs])) for name in scored}
        name = ", ".join(f"{path}={settings[path]}" for path in differing if path in settings)
        if runs:
            candidates.append(Candidate(name, float(np.mean([run[metric].value for run in runs])), scores))
    return candidates


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted paths."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
