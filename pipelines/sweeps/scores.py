"""The scores that rank runs in a search: a validator's, from the runs themselves, or the oracle's, from test labels."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from featcache.errors import ConfigError, FeatcacheError
from pipelines import tasks
from pipelines.config import RunConfig
from pipelines.evaluation.evaluate import evaluate, validator_scores
from pipelines.experiments import Experiment
from pipelines.measures.outcomes import Values
from pipelines.measures.validators import ORACLE, VALIDATORS
from pipelines.sweeps.plan import Costs, seconds
from pipelines.sweeps.search import Score
from pipelines.training.engine import Outcome, Pool, Report, run_all
from pipelines.training.runs import Run
from pipelines.training.watching import Hear

WORTH = 5.0  #: seconds of training that are worth another process, which takes that long to start


def higher(experiment: Experiment, by: str) -> bool:
    """Return whether a higher score is better."""
    return tasks.metric(experiment.headline()).higher if by == ORACLE else VALIDATORS[by].higher


def scorer(
    experiment: Experiment,
    by: str,
    stores: Path,
    runs: Path,
    costs: Costs,
    *,
    workers: int,
    device: str,
    here: str,
    batch: str = "auto",
    report: Report | None = None,
    hear: Hear | None = None,
    logs: bool = False,
    pool: Pool | None = None,
) -> Score:
    """Return a function that trains runs and scores those that a row shows.

    costs: those of `plan.costs`, so that runs of a few seconds do not wait for processes to start. here: device of this
    process, which evaluates. device, batch, report, hear, logs, pool: as in `run_all`.
    """
    options: dict[str, Any] = {"device": device, "batch": batch, "report": report, "hear": hear, "logs": logs}
    options["pool"] = pool

    def score(configs: Sequence[RunConfig]) -> dict[str, float | str]:
        expected = seconds(configs, costs)
        processes = workers if expected is None else min(workers, 1 + int(expected / WORTH))
        outcomes = run_all(configs, stores, runs, workers=processes, **options)
        return {each.config.id: _score(each) for each in outcomes if each.config.row}

    def _score(outcome: Outcome) -> float | str:
        if not outcome.folder:
            return outcome.note
        try:
            value = by_labels(outcome.folder) if by == ORACLE else label_free(outcome.folder, by)
        except FeatcacheError as error:
            return str(error)
        return value if isfinite(value) else f"its score by {by} is {value}"

    def by_labels(folder: Path) -> float:
        results = {result.metric: result.value for result in evaluate(folder, stores, experiment.name, here)}
        return results[experiment.headline(results)]

    return score


def label_free(folder: Path, validator: str) -> float:
    """Return a validator's score of a run at its selected points."""
    run = Run.open(folder)
    if run.config.select == ORACLE:
        raise ConfigError(f"the points of run {run.config.id} are selected by test labels")
    scores = validator_scores(run, lambda k: Values())  # which only the rule `oracle` calls
    if (name := f"validator/{validator}") not in scores:
        raise ConfigError(f"run {run.config.id} is older than the validator {validator!r}; move its folder away")
    return scores[name]
