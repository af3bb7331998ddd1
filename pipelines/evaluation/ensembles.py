"""An ensemble of runs: the mean of their class probabilities on the same test clips, measured as one run is."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from featcache.errors import ConfigError
from pipelines.evaluation.evaluate import selected
from pipelines.measures.accuracy import probabilities
from pipelines.training.outputs import Outputs
from pipelines.training.runs import Run


def ensemble(runs: Sequence[Run], stores: Path) -> dict[str, float]:
    """Metric -> value of the mean of the class probabilities of these runs, which differ in their seeds only.

    The outputs are those that each run's selection rule selects. If it selects several points, the probabilities of all
    first points are averaged, then those of all second points, ..., and the value is the mean over points, as for a
    single run. ConfigError if the runs were tested on different clips.
    """
    first, rows = runs[0], runs[0].outputs["rows"]
    for other in runs[1:]:
        if not np.array_equal(other.outputs["rows"], rows):
            raise ConfigError(f"runs {first.config.id} and {other.config.id} were tested on different clips")
    found = [selected(run, stores) for run in runs]
    truth = found[0][0]
    by_point = zip(*(points.values() for _, points in found), strict=True)
    values = []
    for together in by_point:
        values.append(first.config.task.measure(mean_scores(together, truth), truth, None, 0))
    return {metric: float(np.mean([point[metric] for point in values])) for metric in values[0]}


def mean_scores(outputs: Sequence[Outputs], labels: Iterable[str]) -> Outputs:
    """Return label -> the logarithm of the mean of the class probabilities of several runs."""
    with np.errstate(divide="ignore"):  # the log of a probability of 0 is -inf
        return {label: np.log(np.mean([probabilities(one[label]) for one in outputs], 0)) for label in labels}
