"""Compare a run's kept outputs with the labels of its test rows.

Accuracies, the recalls and ranks of retrieval (whose labels are the clip of each caption) and the measures of clusters
come from the outputs that `train-head` kept, without weights. Feature norms [RNA, Table 1] need the trained weights, in
eval mode: per modality the mean L2 norm of the features that enter the classifier, over test rows of the source and of
the tested domain, and their coefficient of variation over modalities.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import featcache
from featcache import training_data
from featcache.errors import ConfigError
from featcache.leaks import leaks
from heads.methods import Method
from heads.nets import Net
from pipelines import tasks
from pipelines.config import RunConfig, fidelity
from pipelines.data.lacking import without_labels
from pipelines.data.opening import Opened, open_run
from pipelines.data.stores import open_manifest
from pipelines.evaluation.embeddings import a_distances
from pipelines.evaluation.results import ByClass, Measurement, Result
from pipelines.measures.accuracy import Labels, coefficient_of_variation
from pipelines.measures.outcomes import Values, checksum, encode, together
from pipelines.measures.validators import ORACLE, VALIDATORS, best
from pipelines.tasks import class_numbers, labelled
from pipelines.training.outputs import ONCE, Outputs, feature_norms, stuck
from pipelines.training.runs import NotTrainedError, Run, digest

MEANING = 1  #: raised when a metric begins to mean something else under the same name: earlier results are out of date
_LEAKS: dict[tuple[str, str], list[str]] = {}  # fingerprints of a store and its manifest -> leaks, shared by all runs
Score = Callable[[int], Values]  #: number of a kept point -> metric -> value
Opening = Callable[[RunConfig, Path, str], Opened]  #: opens the data of a run, as `open_run` does


@dataclass(frozen=True)
class Trained:
    """A finished run with its weights and the data that it is tested on, ready to be measured."""

    run: Run  #: with the outputs of the test rows that have labels
    truth: dict[str, Labels]  #: label -> class numbers of these rows, {} in retrieval
    unlabelled: int  #: number of its test rows without labels
    opened: Opened
    method: Method
    files: str  #: digest of the run's files (`runs.digest`)


@dataclass(frozen=True)
class Measured:
    """The findings of one kind of measurement."""

    values: dict[str, float]  #: metric -> value
    one_class: tuple[str, ...] = ()  #: the class that all test rows are given (`stuck`)
    clips: Mapping[str, str] = field(default_factory=dict)  #: metric -> outcomes of the test clips (`outcomes`)
    by_class: Mapping[str, ByClass] = field(default_factory=dict)  #: metric -> counts of each class (`by_class`)


def evaluate(
    folder: Path,
    stores: Path,
    experiment: str = "",
    device: str = "cpu",
    row: str | None = None,
) -> list[Result]:
    """All metrics of a finished run except A-distances; NotTrainedError if the data that the run read have changed.

    row: name of the table row (default: the row that the run was trained for). A run's id does not depend on its row,
    so experiments share runs. `evaluate_all` (engine.py) evaluates many runs.
    """
    return measure(trained(folder, stores, device), "test", experiment, row)


def distances(
    folder: Path, stores: Path, experiment: str = "", device: str = "cpu", row: str | None = None
) -> list[Result]:
    """A-distances (`embeddings.a_distances`) of a finished retrieval run, in seconds; arguments as in `evaluate`."""
    return measure(trained(folder, stores, device), "a_distance", experiment, row)


def trained(
    folder: Path, stores: Path, device: str = "cpu", opening: Opening = open_run, like: "Trained | None" = None
) -> Trained:
    """Open a finished run; NotTrainedError if it is damaged, or if the data that it read have changed.

    opening: the function that opens the data. like: a run that needs its method no more; this run's weights go into it
    where both have the same settings and spec, because building a method takes longer than using it.
    """
    files, run = digest(folder), Run.open(folder)
    scored, truth = _scored(run, stores)
    unlabelled = len(run.outputs["rows"]) - len(scored.outputs["rows"])
    opened = run.ready(opening(run.config, stores, device))
    return Trained(
        scored, truth, unlabelled, opened, run.method(device, (like.run, like.method) if like else None), files
    )


def measure(it: Trained, kind: str, experiment: str = "", row: str | None = None) -> list[Result]:
    """Return the results of one of the KINDS of measurement; experiment and row as in `evaluate`."""
    measured = KINDS[kind](it)
    measurement = Measurement(described(kind, it.run.config.task.name), it.files, len(measured.values))
    return results_of(it, experiment, row, measured, measurement)


def _on_test_rows(it: Trained) -> Measured:
    """Return all that the labels of the test rows are compared with; without labels, all that needs none."""
    score = _score(it.run, it.truth, it.method.net)
    of_features = {} if it.run.config.task.no_norms else norms(it.method, it.opened)
    if not len(it.run.outputs["rows"]):
        if it.run.config.select == ORACLE:
            raise ConfigError(
                f"select={ORACLE} reads labels of the test rows, which have none; take last or a validator"
            )
        return Measured(validator_scores(it.run, score) | of_features, it.run.facts.one_class)
    values = accuracies(it.run, score) | validator_scores(it.run, score) | of_features
    given = stuck(it.method, _outputs(it.run, _selected(it.run, score)[-1]), it.opened)
    return Measured(values, tuple(given), outcomes(it.run, score), by_class(it, score))


def _a_distances(it: Trained) -> Measured:
    return Measured(a_distances(it.method, it.opened))


KINDS = {"test": _on_test_rows, "a_distance": _a_distances}  #: kinds of measurement: name -> function


@cache
def described(kind: str, task: str) -> str:
    """Return the kind of a measurement with a digest of everything that it measures on the runs of a task.

    Results of a version that measures other things, or writes other fields, are out of date.
    """
    names = [MEANING, *sorted(tasks.load(task).metrics), *sorted(VALIDATORS), *(each.name for each in fields(Result))]
    return f"{kind} {sha256(json.dumps(names).encode()).hexdigest()[:8]}"


def _leaks(opened: Opened) -> tuple[str, ...]:
    """Describe the features of the run's clips that give a label away, with the name of the store."""
    texts = []
    for m, feed in opened.config.feeds.items():
        if not feed.captions:
            store = opened.stores[m]
            key = (store.fingerprint, opened.manifest.sha256)
            if key not in _LEAKS:
                _LEAKS[key] = leaks(store, opened.manifest)
            texts += [f"{m} (store {feed.store}): {leak}" for leak in _LEAKS[key]]
    return tuple(texts)


def results_of(
    it: Trained, experiment: str, row: str | None, measured: Measured, measurement: Measurement
) -> list[Result]:
    """Return a result for each of these values, with everything else that its line holds."""
    run, opened = it.run, it.opened
    config = run.config if row is None else replace(run.config, row=row)
    n, manifest = len(run.outputs["rows"]), opened.manifest
    limits = limits_of_labels(it)
    limits += config.task.limits(manifest, opened.train_rows("source"), run.outputs["rows"].tolist()) if n else ()
    content, leaked, left_out = config.to_json(), _leaks(opened), tuple(map(str, opened.left_out))
    trained_on = {
        m: training_data.words(training_data.of(store.recipe, store.facts)) for m, store in opened.stores.items()
    }
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
            untrained=run.facts.untrained,
            recipes=run.facts.recipes,
            read=run.facts.read,
            config=content,
            version=featcache.__version__,
            collapsed=run.facts.collapsed,
            leaks=leaked,
            one_class=measured.one_class,
            tier=run.facts.tier,
            trained_on=trained_on,
            classified=True,
            batched=run.facts.batched,
            limits=(*left_out, *limits),
            measurement=measurement,
            clips=measured.clips.get(metric, ""),
            by_class=measured.by_class.get(metric, {}),
        )
        for metric, value in measured.values.items()
    ]


def limits_of_labels(it: Trained) -> tuple[str, ...]:
    """Return "KIND: explanation" of the test rows and the train rows of the source that lack labels."""
    config, rows = it.run.config, len(it.run.outputs["rows"])
    lacking = without_labels(config.test, config.test_split, it.unlabelled, rows + it.unlabelled)
    return lacking + it.opened.untaught


def by_step(folder: Path, stores: Path) -> dict[int, dict[str, float]]:
    """Step -> metric -> value at each kept point of a finished run, in order; no selection.

    The metrics are those of outputs and the validators' scores; the norms of features belong to the trained weights.
    """
    run, truth = compared(Run.open(folder), stores)
    score = _score(run, truth, run.method().net if run.config.captions else None)
    return {int(point["step"]): score(k) | _scores(run, point) for k, point in enumerate(run.points)}


def selected(run: Run, stores: Path) -> tuple[dict[str, Labels], dict[int, Outputs]]:
    """Return label -> class numbers of a run's test rows, and number -> outputs of its selected points.

    Test rows without labels are left out; ConfigError if no test row has any.
    """
    run, truth = compared(run, stores)
    return truth, {k: _outputs(run, k) for k in _selected(run, _score(run, truth, None))}


def predicted(run: Run, stores: Path) -> tuple[Run, dict[str, Labels], int, Outputs]:
    """Return a run, label -> class numbers of its test rows, the number of its last selected point, and its outputs.

    Test rows without labels have the class number -1; a task whose predictions need the truth leaves them out.
    """
    needs_truth = not run.config.task.has_class_scores
    scored, truth = (compared if needs_truth or run.config.select == ORACLE else _scored)(run, stores)
    point = _selected(scored, _score(scored, truth, None))[-1]
    if needs_truth:
        return scored, truth, point, _outputs(scored, point)
    known = np.isin(run.outputs["rows"], scored.outputs["rows"])
    every = {label: np.full(len(known), -1) for label in truth}
    for label, y in truth.items():
        every[label][known] = y
    return run, every, point, _outputs(run, point)


@dataclass(frozen=True)
class Predictions:
    """True and predicted classes, for a confusion matrix."""

    truth: Labels  #: (n,) class numbers
    predicted: Labels  #: (n,)
    classes: tuple[str, ...]  #: names of the classes
    point: int  #: number of the kept point


def predictions(folder: Path, stores: Path, label: str = "label", branch: str = "") -> Predictions:
    """True and predicted classes of a run's test rows, at the last of its selected points.

    label: the label kind, such as verb. branch: of a clustering run, by default the first. Its predicted classes come
    from Hungarian matching of the branch's clusters.
    """
    run, truth = compared(Run.open(folder), stores)
    if not truth:
        raise ConfigError(f"run {run.config.id} is a {run.config.task.name} run; a confusion matrix needs classes")
    if label not in truth:
        raise ConfigError(f"run {run.config.id} has no label {label!r}; it has: {', '.join(truth)}")
    manifest = open_manifest(stores, run.config.manifest)
    classes = run.config.task.tested(manifest, run.config.test)[label]
    k = _selected(run, _score(run, truth, None))[-1]
    predicted = run.config.task.predicted(_outputs(run, k), label, truth[label], len(classes), branch)
    return Predictions(truth[label], predicted, classes, k)


def ranked(folder: Path, stores: Path) -> dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Direction -> `Task.ranks` and `Task.firsts` of each query, at the point that `predictions` reads."""
    run, truth = compared(Run.open(folder), stores)
    net, task = run.method().net, run.config.task
    outputs = _outputs(run, _selected(run, _score(run, truth, net))[-1])
    first = task.firsts(outputs, net)
    return {way: (rank, first[way]) for way, rank in task.ranks(outputs, net).items()}


# -------------------------------------------------------------------------------------------------------- accuracies


def accuracies(run: Run, score_point: Score) -> dict[str, float]:
    """Metric -> value at the point that the run's selection rule selects, or its mean over several selected points."""
    points = [score_point(k) for k in _selected(run, score_point)]
    return {metric: float(np.mean([point[metric] for point in points])) for metric in points[0]}


def outcomes(run: Run, score_point: Score) -> dict[str, str]:
    """Metric -> the outcomes of the test clips at the selected points, as text, of shares of right answers."""
    points = [score_point(k).outcomes for k in _selected(run, score_point)]
    clips = checksum(run.facts.read["manifest"], run.outputs["rows"])
    summed = {metric: together([point[metric] for point in points]) for metric in points[0]}
    return {metric: encode(replace(found, clips=clips)) for metric, found in summed.items()}


def by_class(it: Trained, score_point: Score) -> dict[str, ByClass]:
    """Metric -> class -> counts (`Result.by_class`), means over the selected points, of the classes with any clip."""
    run, truth = it.run, it.truth
    points = _selected(run, score_point)
    counts = [run.config.task.by_class(_outputs(run, k), truth) for k in points]
    names = run.config.task.tested(it.opened.manifest, run.config.test)
    found = {}
    for metric, label in zip(counts[0], truth, strict=False):
        means_K3 = np.mean([each[metric] for each in counts], axis=0).tolist()
        found[metric] = {name: tuple(means) for name, means in zip(names[label], means_K3, strict=True) if any(means)}
    return found


def validator_scores(run: Run, score_point: Score) -> dict[str, float]:
    """`validator/NAME` -> its score at the selected points (as in `accuracies`), or the mean over several points."""
    points = [_scores(run, run.points[k]) for k in _selected(run, score_point)]
    names = [name for name in points[0] if all(name in point for point in points)]
    return {name: float(np.mean([point[name] for point in points])) for name in names}


def _scores(run: Run, point: dict[str, float]) -> dict[str, float]:
    """`validator/NAME` -> its score at a kept point; a run that is older than the validator has no score."""
    return {f"validator/{name}": point[name] for name in run.config.validators if name in point}


def _score(run: Run, truth: dict[str, Labels], net: Net | None) -> Score:
    """A function that measures a kept point, computed once for each point."""
    clusters = run.facts.spec.clusters
    return cache(lambda k: run.config.task.measure(_outputs(run, k), truth, net, clusters))


def _outputs(run: Run, k: int) -> Outputs:
    """The outputs of the k-th kept point."""
    return {name: array if name in ONCE else array[k] for name, array in run.outputs.items()}


def _selected(run: Run, score_point: Score) -> list[int]:
    """Numbers of the kept points that the result uses: the last, all, or the best by a validator or the oracle."""
    kept, rule = range(len(run.points)), run.config.select
    if rule == ORACLE:
        return [best(rule, [run.config.task.choice(score_point(k)) for k in kept])]
    if rule in VALIDATORS:
        return [best(rule, [point[rule] for point in run.points])]
    return list(kept) if rule == "mean" else [kept[-1]]


def compared(run: Run, stores: Path) -> tuple[Run, dict[str, Labels]]:
    """Return `_scored`; ConfigError if no test row of the run has labels to compare its outputs with."""
    scored, truth = _scored(run, stores)
    if not len(scored.outputs["rows"]):
        count = len(run.outputs["rows"])
        (text,) = without_labels(run.config.test, run.config.test_split, count, count)
        raise ConfigError(text.partition(": ")[2])
    return scored, truth


def _scored(run: Run, stores: Path) -> tuple[Run, dict[str, Labels]]:
    """Return the run with the outputs of its test rows that have labels, and label -> their class numbers.

    In retrieval these are all rows, and {}. NotTrainedError if the manifest has changed since the run was made.
    """
    manifest = open_manifest(stores, run.config.manifest)
    if manifest.sha256 != run.facts.read.get("manifest"):
        raise NotTrainedError(
            f"manifest {manifest.name!r} has changed since run {run.config.id} was made; train it again"
        )
    if (last := int(run.outputs["rows"].max())) >= len(manifest):
        raise NotTrainedError(
            f"{run.folder / 'outputs.npz'} has row {last}, but manifest {manifest.name!r} has {len(manifest)} rows; "
            "train the run again"
        )
    rows, classes = run.outputs["rows"].tolist(), run.config.task.tested(manifest, run.config.test)
    known = labelled(manifest, rows, classes)
    if len(known) < len(rows):
        run = run.tested_on(np.flatnonzero(np.isin(rows, known)).tolist())
    return run, {label: class_numbers(manifest, known, label, names, "test clips") for label, names in classes.items()}


# ------------------------------------------------------------------------------------------------------------- norms


def norms(method: Method, opened: Opened) -> dict[str, float]:
    """`norm/source/rgb`, ... and their variation over modalities: `cv_s`, `cv_t`, `cv_st`.

    The coefficients of variation are of the source, of the tested domain, and of both. A side whose features are all
    zero has none, and neither has a side with one kind of features, such as those of a fusing net. Test rows of the
    source that lack a modality are left out of that modality's norm, and a source without test rows that have features
    has no norms.
    """
    config = opened.config
    masked = replace(opened, config=replace(config, absent="mask"))
    by_domain = {}
    if config.source and masked.test_rows(*config.source):
        by_domain["source"] = feature_norms(method, masked.test(*config.source))
    by_domain["target"] = feature_norms(method, opened.test())
    values: dict[str, float] = {}
    for label in method.parts:
        name = "" if len(method.parts) == 1 else f"/{label}"
        by_side = {
            side: {m: norm for (kind, m), norm in side_norms.items() if kind == label}
            for side, side_norms in by_domain.items()
        }
        values |= {f"norm/{side}/{m}{name}": norm for side, by_m in by_side.items() for m, norm in by_m.items()}
        groups = {f"cv_{side[0]}": list(by_m.values()) for side, by_m in by_side.items() if len(by_m) > 1}
        if len(groups) == 2:
            groups["cv_st"] = [norm for group in groups.values() for norm in group]
        values |= {f"{cv}{name}": coefficient_of_variation(group) for cv, group in groups.items() if any(group)}
    return values
