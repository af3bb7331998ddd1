"""What choosing hyper-parameters without target labels costs: what each validator takes, beside the best candidate.

Candidates are evaluated runs of an experiment that share table row, shift and seeds, and differ in their settings, as
`train-head X --set method.lambda_g=0.1`, `... =0.5`, ... make them. Which outputs are kept and count (PROTOCOL) makes
no other model: runs are compared under one such protocol, that of most candidates, on a tie the first.
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

PROTOCOL = ("eval_every", "keep", "select")  #: settings that leave the weights as they are
#: settings in which runs of one candidate may differ; init_from has a seed in it
APART = ("row", "seed", "init_from", *PROTOCOL)

Found = dict[str, dict[int, dict[str, Result]]]  #: settings -> seed -> metric -> result


@dataclass(frozen=True)
class Candidate:
    """One choice of hyper-parameters: its numbers, mean over the seeds that all candidates have."""

    name: str  #: the settings that tell it from the others
    accuracy: float  #: share
    scores: dict[str, float]  #: validator -> score


@dataclass(frozen=True)
class Choice:
    """What one rule takes among the candidates."""

    rule: str
    name: str
    accuracy: float
    cost: float  #: accuracy of the best candidate minus this one's
    correlation: float  #: Spearman's, of score and accuracy over the candidates, 1 is perfect; NaN where all are equal


def table(rows: Iterable[Result], experiment: Experiment, metric: str | None = None) -> str:
    """Markdown: per table row, shift and rule the choice, its accuracy in per cent, and what it lost.

    experiment: with all evaluated runs, as `evaluated` makes it. metric: default is the headline of its task.
    ConfigError for a metric that is no share, such as a rank.
    """
    rows = tuple(rows)
    if metric is None:
        there = {row.metric for row in rows if row.experiment == experiment.name}
        metric = experiment.task.headline(there)
    if not tasks.metric(metric).is_share:
        raise ConfigError(
            f"{metric!r} is no share of right answers; compare candidates by one, such as top1 or t2v/R@1"
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
            "it with several values of a setting, such as --set method.lambda_g=0.1"
        )
    return pipes(grid)


def evaluated(experiment: Experiment, rows: Iterable[Result], runs: Path) -> Experiment:
    """The experiment with all its evaluated runs, whatever their settings, and the runs that those start from.

    A start that is no table row has no result; it is read from the folder of runs.
    """
    known = dict(experiment.by_id)
    for row in rows:
        if row.experiment == experiment.name and row.run not in known:
            known[row.run] = RunConfig.from_json(row.config)
    for run in tuple(known.values()):
        while (start := run.init_from) and start not in known and (file := runs / start / "config.json").is_file():
            run = known[start] = replace(RunConfig.from_json(json.loads(file.read_text())), row="")
    return replace(experiment, runs=tuple(known.values()))


def groups(rows: Iterable[Result], experiment: Experiment, metric: str) -> dict[tuple[str, str], list[Candidate]]:
    """(table row, column of the table) -> its candidates, where there are several. An oracle's choice is none."""
    runs: dict[str, dict[str, Result]] = {}
    for row in rows:
        if row.experiment == experiment.name and row.select != ORACLE:
            runs.setdefault(row.run, {})[row.metric] = row
    found: dict[tuple[str, str], dict[str, Found]] = {}  # -> protocol -> candidates
    columns = experiment.columns  # none of a run that another version of the settings gave its id
    for run, of in runs.items():
        for column in columns.get(run, ()) if metric in of else ():
            result = of[metric]
            settings = json.dumps({k: v for k, v in result.config.items() if k not in APART}, sort_keys=True)
            protocol = json.dumps([result.config.get(name) for name in PROTOCOL])
            seeds = found.setdefault((result.row, column), {}).setdefault(protocol, {}).setdefault(settings, {})
            if seeds.setdefault(result.seed, of) is not of:
                raise ConfigError(f"{run} and {seeds[result.seed][metric].run} differ in the run they start from only")
    most = {key: max(protocols.values(), key=len) for key, protocols in found.items()}
    several = {key: _candidates(of, metric) for key, of in most.items()}
    return {key: of for key, of in several.items() if len(of) > 1}


def choices(candidates: list[Candidate]) -> Iterator[Choice]:
    """What each validator takes that all candidates have a score of, then the oracle."""
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
    """Spearman's rank correlation, ties at their mean rank; NaN when all values of one are equal.

    >>> round(spearman([1.0, 2.0, 3.0], [10.0, 30.0, 20.0]), 6)
    0.5
    """
    if len(set(a)) == 1 or len(set(b)) == 1:
        return float("nan")
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _candidates(found: Found, metric: str) -> list[Candidate]:
    """Means over the seeds that all of them have, none without any; in the order of their results."""
    shared = set.intersection(*(set(seeds) for seeds in found.values()))
    flat = [_flat(json.loads(settings)) for settings in found]
    differing = [
        path for path in {path: 0 for one in flat for path in one} if len({str(one.get(path)) for one in flat}) > 1
    ]
    made = []
    for settings, seeds in zip(flat, found.values(), strict=True):
        runs = [seeds[seed] for seed in sorted(shared)]
        scored = [name for name in VALIDATORS if runs and all(f"validator/{name}" in run for run in runs)]
        scores = {name: float(np.mean([run[f"validator/{name}"].value for run in runs])) for name in scored}
        name = ", ".join(f"{path}={settings[path]}" for path in differing if path in settings)
        if runs:
            made.append(Candidate(name, float(np.mean([run[metric].value for run in runs])), scores))
    return made


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted paths."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
