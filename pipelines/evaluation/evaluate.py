"""Compare a run's kept outputs with labels: the only place that reads the labels of test rows.

Accuracies come from what `train_head` kept; no weights are needed. So do recalls and ranks of retrieval, whose labels
are which caption is of which clip, and how well clusters fit. Feature norms [RNA, Table 1] are measured with the
trained weights in eval mode: the mean L2 norm of what enters the classifier, over test rows of the source and of the
tested domain, per modality; and how uneven they are (coefficient of variation).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

import featcache
from featcache.errors import ConfigError
from heads.methods import Method
from heads.nets import Net
from pipelines.config import fidelity
from pipelines.data.opening import Opened, open_run
from pipelines.data.stores import open_manifest
from pipelines.evaluation.embeddings import a_distances
from pipelines.evaluation.results import Result
from pipelines.measures.accuracy import Labels, coefficient_of_variation
from pipelines.measures.validators import ORACLE, VALIDATORS, best
from pipelines.tasks import class_numbers
from pipelines.training.outputs import Outputs, feature_norms
from pipelines.training.runs import Run, changes, what_is_read

Score = Callable[[int], dict[str, float]]  #: number of a kept point -> metric -> value


def evaluate(
    folder: Path,
    stores: Path,
    experiment: str = "",
    device: str = "cpu",
    row: str | None = None,
) -> list[Result]:
    """All metrics of a finished run but A-distances; ConfigError when what it read has changed since.

    row: the table row that the run stands for here (default: the one it was trained for). Rows are no part of a run's
    id, so experiments share runs.
    """
    run = Run.open(folder)
    task, truth = run.config.task, _truth(run, stores)
    opened, method = _trained(run, stores, device)
    score = _score(run, truth, method.net)
    values = accuracies(run, score) | verdicts(run, score)
    if not task.no_norms:
        values |= norms(method, opened)
    return _results(run, experiment, row, values)


def distances(
    folder: Path, stores: Path, experiment: str = "", device: str = "cpu", row: str | None = None
) -> list[Result]:
    """`embeddings.a_distances` of a finished run of retrieval, which take seconds; arguments as of `evaluate`."""
    run = Run.open(folder)
    opened, method = _trained(run, stores, device)
    return _results(run, experiment, row, a_distances(method, opened))


def _trained(run: Run, stores: Path, device: str) -> tuple[Opened, Method]:
    """What the run read, as it was then, and its trained method."""
    opened = open_run(run.config, stores, device)
    if changed := changes(run, what_is_read(opened, run.folder.parent)):
        raise ConfigError(f"{changed} has changed since run {run.config.id} was made; train it again")
    return opened, run.method(device)


def _results(run: Run, experiment: str, row: str | None, values: dict[str, float]) -> list[Result]:
    config = run.config if row is None else replace(run.config, row=row)
    n = len(run.outputs["rows"])
    return [
        Result(
            run=config.id,
            experiment=experiment,
            row=config.row,
            source=config.source,
            target=config.target,
            test=config.test,
            seed=config.seed,
            metric=metric,
            value=value,
            n=n,
            select=config.select,
            fidelity=fidelity(config),
            untrained=tuple(run.facts["untrained"]),
            recipes=run.facts["recipes"],
            read=run.facts["read"],
            config=config.to_json(),
            version=featcache.__version__,
            collapsed=tuple(run.facts["collapsed"]),
            tier=run.facts.get("tier", ""),
        )
        for metric, value in values.items()
    ]


@dataclass(frozen=True)
class Predictions:
    """What a confusion matrix is made of."""

    truth: Labels  #: (n,) class numbers
    predicted: Labels  #: (n,)
    classes: tuple[str, ...]  #: names
    point: int  #: number of the kept point that has predicted


def predictions(folder: Path, stores: Path, label: str = "label", branch: str = "B0") -> Predictions:
    """True and predicted classes of a run's test rows, at the last of its selected points.

    label: the kind of label, such as verb. branch: of a clustering run, whose predicted classes are those that
    Hungarian matching gives the branch's clusters.
    """
    run = Run.open(folder)
    truth = _truth(run, stores)
    if not truth:
        raise ConfigError(f"run {run.config.id} is a {run.config.task.name} run; a confusion matrix needs classes")
    if label not in truth:
        raise ConfigError(f"run {run.config.id} has no label {label!r}; it has: {', '.join(truth)}")
    manifest = open_manifest(stores, run.config.manifest)
    classes = run.config.task.tested(manifest, run.config.test)[label]
    k = _selected(run, _score(run, truth, None))[-1]
    predicted = run.config.task.predicted(_outputs(run, k), label, truth[label], len(classes), branch)
    return Predictions(truth[label], predicted, classes, k)


# -------------------------------------------------------------------------------------------------------- accuracies


def accuracies(run: Run, score_point: Score) -> dict[str, float]:
    """Metric -> value by the run's selection rule; of several selected points the mean."""
    points = [score_point(k) for k in _selected(run, score_point)]
    return {metric: float(np.mean([point[metric] for point in points])) for metric in points[0]}


def verdicts(run: Run, score_point: Score) -> dict[str, float]:
    """`validator/NAME` -> what it said, without labels, of the points that `accuracies` takes; of several the mean."""
    points = [run.points[k] for k in _selected(run, score_point)]
    return {
        f"validator/{name}": float(np.mean([point[name] for point in points]))
        for name in run.config.validators
        if all(name in point for point in points)  # not in runs that are older than the validator
    }


def _score(run: Run, truth: dict[str, Labels], net: Net | None) -> Score:
    """The measures of a kept point, computed once for each."""
    clusters = run.facts["spec"].get("clusters", 0)
    return cache(lambda k: run.config.task.measure(_outputs(run, k), truth, net, clusters))


def _outputs(run: Run, k: int) -> Outputs:
    """The outputs of the k-th kept point."""
    once = ("rows", "captions", "clip")  # the same at all points
    return {name: array if name in once else array[k] for name, array in run.outputs.items()}


def _selected(run: Run, score_point: Score) -> list[int]:
    """Positions of the kept points that count: the last, all of them, or the best one by a validator or the oracle."""
    kept, rule = range(len(run.points)), run.config.select
    if rule == ORACLE:
        return [best(rule, [run.config.task.choice(score_point(k)) for k in kept])]
    if rule in VALIDATORS:
        return [best(rule, [point[rule] for point in run.points])]
    return list(kept) if rule == "mean" else [kept[-1]]


def _truth(run: Run, stores: Path) -> dict[str, Labels]:
    """Label -> classes of the test rows, {} in retrieval; ConfigError when the manifest is not the run's any more."""
    manifest = open_manifest(stores, run.config.manifest)
    if manifest.sha256 != run.facts["read"]["manifest"]:
        raise ConfigError(f"manifest {manifest.name!r} has changed since run {run.config.id} was made; train it again")
    rows, classes = run.outputs["rows"].tolist(), run.config.task.tested(manifest, run.config.test)
    return {label: class_numbers(manifest, rows, label, names) for label, names in classes.items()}


# ------------------------------------------------------------------------------------------------------------- norms


def norms(method: Method, opened: Opened) -> dict[str, float]:
    """`norm/source/rgb`, ... and `cv_s`, `cv_t`, `cv_st`: over modalities on source, on test domain, and over both.

    Features that are all dead have no coefficient of variation, and get none. The source's test rows are only
    looked at, so where they lack a modality those that have it count; without any the side is left out.
    """
    config = opened.config
    masked = replace(opened, config=replace(config, absent="mask"))
    found = {}
    if config.source and opened.manifest.rows(domain=config.source, split=config.test_split):
        found["source"] = feature_norms(method, masked.test(*config.source))
    found["target"] = feature_norms(method, opened.test())
    values: dict[str, float] = {}
    for task in method.net.parts:
        name = "" if len(method.net.parts) == 1 else f"/{task}"
        by_side = {side: {m: norm for (t, m), norm in of.items() if t == task} for side, of in found.items()}
        values |= {f"norm/{side}/{m}{name}": norm for side, of in by_side.items() for m, norm in of.items()}
        groups = {f"cv_{side[0]}": list(of.values()) for side, of in by_side.items() if of}
        if len(groups) == 2:
            groups["cv_st"] = [norm for group in groups.values() for norm in group]
        values |= {f"{cv}{name}": coefficient_of_variation(group) for cv, group in groups.items() if any(group)}
    return values
