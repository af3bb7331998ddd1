"""The cost of choosing hyper-parameters without target labels: the candidate of each validator against the best one.

Candidates are evaluated runs of an experiment that share table row, shift and seeds, and differ in their settings, such
as those of `sweep X --grid method.lambda_g=0.1,0.5`. The settings in PROTOCOL decide which outputs are kept and
evaluated, and do not change the model. Candidates are therefore compared under a single protocol: the one with the most
candidates, and on a tie the first.

The line "all shifts" compares settings that every shift of a table row has, by the means over its shifts: one setting
for all shifts.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from featcache.errors import ConfigError
from pipelines import tasks
from pipelines.config import RunConfig
from pipelines.data.lacking import nothing_to_compare
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.measures.validators import ORACLE, VALIDATORS, best
from pipelines.settings import flattened
from pipelines.tables.formats import Note, Shown
from pipelines.tables.notes import damaged, mixed, of_training_data
from pipelines.tables.outdated import current, outdated
from pipelines.training.runs import read_config

PROTOCOL = ("eval_every", "keep", "select")  #: settings that do not change the weights
#: settings in which runs of one candidate may differ; init_from, because the id of a run depends on the seed
APART = ("row", "seed", "init_from", *PROTOCOL)

ALL = "all shifts"  #: the name of the line of one setting for all shifts
NOTE = (
    f"{ALL}: one setting for all shifts of a row, the one whose mean score over the shifts is best, among the settings "
    f"that were evaluated on every shift. Accuracy and loss are means over the shifts too. {ORACLE}: chosen by the "
    "labels of the test rows."
)

BySettings = dict[str, dict[int, dict[str, Result]]]  #: settings -> seed -> metric -> result
Cells = dict[tuple[str, str], dict[str, BySettings]]  #: (table row, column of the table) -> protocol -> settings


@dataclass(frozen=True)
class Candidate:
    """One choice of hyper-parameters, with means over the seeds that all candidates share."""

    name: str  #: the settings in which it differs from the other candidates
    accuracy: float  #: a share in [0, 1]; nan if no test clip has a label
    scores: dict[str, float]  #: validator -> score


@dataclass(frozen=True)
class Choice:
    """The candidate that one rule chooses."""

    rule: str  #: a validator, or oracle
    name: str
    accuracy: float
    cost: float  #: accuracy of the best candidate minus the accuracy of this one
    correlation: float  #: Spearman's, of score and accuracy over the candidates; 1 is perfect, NaN if all are equal


@dataclass(frozen=True, repr=False)
class Choices(Shown):
    """The choice of each rule for each table row and shift: its accuracy and its cost."""

    title: str
    metric: str
    lines: tuple[tuple[str, str, Choice], ...]  #: table row, shift, and the choice of a rule
    notes: tuple[Note, ...]

    @property
    def grid(self) -> list[list[str]]:
        """The cells as text, headings first; numbers are in per cent."""
        heads = ["row", "shift", "rule", "chosen", self.metric, "lost", "rank correlation"]
        return [heads, *(_line(*line) for line in self.lines)]

    @property
    def below(self) -> tuple[Note, ...]:
        """The notes under the table."""
        return self.notes

    def records(self) -> list[dict[str, Any]]:
        """The numbers: a record per table row, shift and rule; accuracies and costs in per cent."""
        return [
            {
                "row": row,
                "shift": shift,
                "rule": choice.rule,
                "chosen": choice.name,
                "metric": self.metric,
                "accuracy": 100 * choice.accuracy,
                "lost": 100 * choice.cost,
                "rank_correlation": choice.correlation,
            }
            for row, shift, choice in self.lines
        ]

    def __repr__(self) -> str:
        rows = dict.fromkeys(row for row, _, _ in self.lines)
        return f"Choices({self.title!r}, {self.metric}, {len(self.lines)} choices for {len(rows)} rows)"


def table(rows: Sequence[Result], experiment: Experiment, metric: str | None = None) -> Choices:
    """Return per table row, shift and rule the choice, its accuracy and its cost, in per cent.

    experiment: an experiment with all its evaluated runs, as `evaluated` returns it.
    metric: the default is that of the experiment (`Experiment.headline`). ConfigError for a metric that is not in per
    cent, such as a rank.
    """
    if metric is None:
        metric = experiment.headline({row.metric for row in rows if row.experiment == experiment.name})
    measure = tasks.metric(metric)
    if not (measure.is_share and measure.higher) or measure.is_gain:
        raise ConfigError(
            f"metric {metric!r} is not in per cent, less of it is better, or it compares rows; choose one such as top1 "
            "or t2v/R@1"
        )
    chosen: list[tuple[str, str, Choice]] = []
    cells = _cells(current(rows, experiment), experiment, metric)
    of_shifts = {cell: candidates for cell, candidates in _largest(cells, metric).items() if len(candidates) > 1}
    if not of_shifts:
        raise ConfigError(
            f"no row of {experiment.name!r} has two candidates with {metric!r} on the same seeds; make some with "
            f"`{experiment.call('sweep', '--grid method.lambda_g=0.1,0.3,1')}`"
        )
    below: dict[str, None] = {}
    for row in dict.fromkeys(row for row, _ in of_shifts):
        lines = {shift: candidates for (each, shift), candidates in of_shifts.items() if each == row}
        columns = [experiment.columns.get(run.id, ()) for run in experiment.runs if run.row == row]
        planned = dict.fromkeys(column for of_run in columns for column in of_run)
        common = over_shifts(cells, row, planned, metric) if len(lines) > 1 else []
        if len(common) > 1:
            lines[ALL] = common
            below[NOTE] = None
        elif len(lines) > 1:
            below[f"No line {ALL!r} of {row}: its {len(planned)} shifts do not share two evaluated settings."] = None
        for shift, candidates in lines.items():
            chosen += [(row, shift, choice) for choice in choices(candidates)]
    compared = _results([cells[cell] for cell in of_shifts], metric)
    notes = [
        *damaged(rows),
        *outdated(_read(rows, metric), experiment, rows),
        *(Note(text, loud=True) for text in mixed(compared)),
        *of_training_data(experiment, compared),
    ]
    notes += map(Note, below)
    return Choices(experiment.name, metric, tuple(chosen), tuple(notes))


def _read(rows: Iterable[Result], metric: str) -> list[Result]:
    """Return the results that candidates are compared by."""
    return [row for row in rows if row.metric == metric or row.metric.startswith("validator/")]


def _results(cells: Iterable[dict[str, BySettings]], metric: str) -> list[Result]:
    """Return the results of these cells, one per run."""
    by_settings = [settings for protocols in cells for settings in protocols.values()]
    return [_any(run, metric) for settings in by_settings for seeds in settings.values() for run in seeds.values()]


def _any(results: dict[str, Result], metric: str) -> Result:
    """Return the result of this metric; any other one of a run whose test clips have no labels."""
    return results.get(metric) or next(iter(results.values()))


def _line(row: str, shift: str, choice: Choice) -> list[str]:
    """Return the cells of a line of the table."""
    rank = "–" if np.isnan(choice.correlation) else f"{choice.correlation:+.2f}"
    numbers = ["–" if np.isnan(value) else f"{100 * value:.1f}" for value in (choice.accuracy, choice.cost)]
    return [row, shift, choice.rule, choice.name, *numbers, "" if choice.rule == ORACLE else rank]


def evaluated(experiment: Experiment, rows: Iterable[Result], runs: Path) -> Experiment:
    """Return the experiment with all its evaluated runs, whatever their settings, and the runs that these start from.

    A run that is only a start has no result; its configuration is read from the folder of runs.
    """
    by_id = dict(experiment.by_id)
    for row in rows:
        if row.experiment == experiment.name and row.run not in by_id:
            try:
                by_id[row.run] = RunConfig.from_json(row.config)
            except ConfigError as error:
                raise ConfigError(f"the result of run {row.run} is damaged ({error}); evaluate the run again") from None
    for run in tuple(by_id.values()):
        while (start := run.init_from) and start not in by_id and (runs / start / "config.json").is_file():
            run = by_id[start] = replace(read_config(runs / start), row="")
    return replace(experiment, runs=tuple(by_id.values()))


def groups(rows: Iterable[Result], experiment: Experiment, metric: str) -> dict[tuple[str, str], list[Candidate]]:
    """Return (table row, column of the table) -> its candidates, where there are two or more.

    A run whose outputs an oracle chose is not a candidate.
    """
    largest = _largest(_cells(rows, experiment, metric), metric)
    return {cell: candidates for cell, candidates in largest.items() if len(candidates) > 1}


def over_shifts(cells: Cells, row: str, shifts: Collection[str], metric: str) -> list[Candidate]:
    """Return the settings of a table row that all its shifts have, with means over the shifts; fewer than 2: no choice.

    Two shifts have a setting in common if it has equal values in all that differs among the settings of any shift, so
    what each shift has for itself, such as a number of steps, makes no difference.
    """
    by_shift = [cells.get((row, shift), {}) for shift in shifts]
    protocols = [protocol for protocol in by_shift[0] if all(protocol in each for each in by_shift)]
    shared: list[list[Candidate]] = []
    for protocol in protocols:
        flat = [[flattened(json.loads(settings)) for settings in each[protocol]] for each in by_shift]
        paths = list(dict.fromkeys(path for each in flat for path in _differing(each)))
        chosen = [  # values at these paths -> candidate, for each shift
            dict(
                zip(
                    [_at(settings, paths) for settings in settings_of],
                    _candidates(each[protocol], metric),
                    strict=False,
                )
            )
            for each, settings_of in zip(by_shift, flat, strict=True)
        ]
        common = [key for key in chosen[0] if all(key in each for each in chosen)]
        named = _differing([dict(key) for key in common])
        shared.append([_mean(_name(dict(key), named), [each[key] for each in chosen]) for key in common])
    return max(shared, key=len, default=[])


def _at(settings: dict[str, Any], paths: list[str]) -> tuple[tuple[str, str], ...]:
    """Return the values at these paths as text, with their paths."""
    return tuple((path, str(settings[path])) for path in paths if path in settings)


def _mean(name: str, of_shifts: list[Candidate]) -> Candidate:
    """Return the means of a setting's accuracies and scores over shifts."""
    scored = [rule for rule in VALIDATORS if all(rule in each.scores for each in of_shifts)]
    scores = {rule: float(np.mean([each.scores[rule] for each in of_shifts])) for rule in scored}
    labelled = [each.accuracy for each in of_shifts if not np.isnan(each.accuracy)]
    return Candidate(name, float(np.mean(labelled)) if labelled else np.nan, scores)


def _cells(rows: Iterable[Result], experiment: Experiment, metric: str) -> Cells:
    """Return the results of each table row and column, by protocol, settings and seed, without an oracle's.

    They are in the order of the experiment's runs, so that lines and ties do not depend on the order of evaluation.
    """
    runs: dict[str, dict[str, Result]] = {}  # id -> metric -> result
    for row in rows:
        if row.experiment == experiment.name and row.select != ORACLE:
            runs.setdefault(row.run, {})[row.metric] = row
    cells: Cells = {}
    columns = experiment.columns  # empty for a run whose id comes from an older version of the settings
    order = {run.id: k for k, run in enumerate(experiment.runs)}
    for run, results in sorted(runs.items(), key=lambda item: order.get(item[0], len(order))):
        result = _any(results, metric)
        for column in columns.get(run, ()) if metric in results or nothing_to_compare(result.limits) else ():
            whole = RunConfig.from_json(result.config).all_settings  # with defaults that a row does not write
            settings = json.dumps({k: v for k, v in whole.items() if k not in APART}, sort_keys=True)
            protocol = json.dumps([result.config.get(name) for name in PROTOCOL])
            seeds = cells.setdefault((result.row, column), {}).setdefault(protocol, {}).setdefault(settings, {})
            if seeds.setdefault(result.seed, results) is not results:
                other = _any(seeds[result.seed], metric).run
                raise ConfigError(f"runs {run} and {other} differ only in init_from; give their rows different names")
    return cells


def _largest(cells: Cells, metric: str) -> dict[tuple[str, str], list[Candidate]]:
    """Return the candidates of each cell under the protocol that has the most of them."""
    return {cell: _candidates(max(protocols.values(), key=len), metric) for cell, protocols in cells.items()}


def choices(candidates: list[Candidate]) -> Iterator[Choice]:
    """Yield the choice of each validator for which all candidates have a score, then the choice of the oracle."""
    accuracy = [candidate.accuracy for candidate in candidates]
    for rule in (*VALIDATORS, ORACLE):
        if rule == ORACLE and np.isnan(accuracy).any():
            continue  # no label to choose by
        if rule == ORACLE or all(rule in candidate.scores for candidate in candidates):
            scores = accuracy if rule == ORACLE else [candidate.scores[rule] for candidate in candidates]
            k = best(rule, scores)
            sign = -1 if rule != ORACLE and not VALIDATORS[rule].higher else 1
            yield Choice(
                rule, candidates[k].name, accuracy[k], max(accuracy) - accuracy[k], sign * spearman(scores, accuracy)
            )


def spearman(a: list[float], b: list[float]) -> float:
    """Return Spearman's rank correlation, with ties at their mean rank; NaN if all of `a` or of `b` are equal, or NaN.

    >>> round(spearman([1.0, 2.0, 3.0], [10.0, 30.0, 20.0]), 6)
    0.5
    """
    if len(set(a)) == 1 or len(set(b)) == 1 or np.isnan([*a, *b]).any():
        return float("nan")
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _candidates(by_settings: BySettings, metric: str) -> list[Candidate]:
    """Return the candidates, with means over the seeds that all share; empty if they share none."""
    shared = set.intersection(*(set(seeds) for seeds in by_settings.values()))
    flat = [flattened(json.loads(settings)) for settings in by_settings]
    differing = _differing(flat)
    candidates = []
    for settings, seeds in zip(flat, by_settings.values(), strict=True):
        runs = [seeds[seed] for seed in sorted(shared)]
        scored = [name for name in VALIDATORS if runs and all(f"validator/{name}" in run for run in runs)]
        scores = {name: float(np.mean([run[f"validator/{name}"].value for run in runs])) for name in scored}
        if runs:
            measured = [run[metric].value for run in runs if metric in run]
            accuracy = float(np.mean(measured)) if measured else np.nan
            candidates.append(Candidate(_name(settings, differing), accuracy, scores))
    return candidates


def _differing(flat: list[dict[str, Any]]) -> list[str]:
    """Return the paths whose values are not equal in all of these settings."""
    paths = {path: None for settings in flat for path in settings}
    return [path for path in paths if len({str(settings.get(path)) for settings in flat}) > 1]


def _name(settings: dict[str, Any], paths: Iterable[str]) -> str:
    """Return these settings as text: "method.lambda_g=0.1, steps=300"."""
    return ", ".join(f"{path}={settings[path]}" for path in paths if path in settings)
