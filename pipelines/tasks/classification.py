"""Classification: the class of a clip for each label. Outputs are scores of classes, label -> (n, K)."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import Manifest
from featcache.errors import ConfigError
from featcache.wording import first
from heads.nets import Net
from pipelines.measures.accuracy import (
    BINS,
    Labels,
    action_topk,
    best,
    class_counts,
    ece,
    in_topk,
    macro_f1,
    mean_class_accuracy,
    probabilities,
    topk_accuracy,
)
from pipelines.measures.outcomes import Values, of_clips
from pipelines.measures.validators import VALIDATORS
from pipelines.tasks import Metric, Outputs, RunLike, Task, Truth, classes_of

SIX = 6  #: classes, so that five guesses can be wrong
PER_LABEL = {
    "top1": Metric("top-1 accuracy", lambda scores, y: topk_accuracy(scores, y, 1)),
    "top5": Metric("top-5 accuracy", lambda scores, y: topk_accuracy(scores, y, 5), least_classes=SIX),
    "mean_class": Metric("mean class accuracy", mean_class_accuracy),
    "macro_f1": Metric("mean F1 of the classes with test rows (macro F1)", macro_f1),
    "ece": Metric(f"expected calibration error, {BINS} bins", ece, higher=False),
}
OF_ALL_LABELS = {
    "top1/action": Metric("top-1 accuracy on all labels of a clip at once", lambda z, y: action_topk(z, y, 1)),
    "top5/action": Metric(
        "top-5 accuracy on all labels of a clip at once",
        lambda z, y: action_topk(z, y, 5),
        least_classes=SIX,
    ),
}
OF_TABLES = {  #: made of the results of several runs, when a table is built
    "delta_acc": Metric("ΔAcc: mean over labels and action of the gain in top-1 accuracy", is_gain=True)
}
NORMS = {
    "norm": Metric("mean L2 norm of the features that enter the classifier", unit="a norm"),
    "cv_s": Metric("CV of norms, source side", unit="a coefficient", most=1),
    "cv_t": Metric("CV of norms, target side", unit="a coefficient", most=1),
    "cv_st": Metric("CV of norms, both sides", unit="a coefficient", most=1),
}


class Classification(Task):
    """Classification of clips."""

    name = "classification"
    metrics = PER_LABEL | OF_ALL_LABELS | OF_TABLES | NORMS
    headlines = ("top1", "top1/action")
    validators = tuple(VALIDATORS)
    has_class_scores = True

    def check(self, config: RunLike) -> None:
        """Check that source and target share a modality."""
        super().check(config)
        shared = any({"source", "target"} <= set(feed.seen_by.split()) for feed in config.feeds.values())
        if config.source and config.target and not shared:
            raise ConfigError(
                "source and target share no modality, so nothing can be adapted; change seen_by of a feed"
            )

    def check_manifest(self, config: RunLike, manifest: Manifest) -> None:
        """Check that the manifest has labels, and that the test has classes of the source."""
        if not manifest.classes:
            raise ConfigError(f"manifest {manifest.name!r} has no labels to classify; add a column of labels")
        for label in manifest.classes if config.source else ():
            taught, tested = (classes_of(manifest, label, domains) for domains in (config.source, (config.test,)))
            if taught and tested and not set(taught) & set(tested):
                raise ConfigError(
                    f"no class of {label!r} is in both {'+'.join(config.source)} ({taught[0]}, ...) and {config.test} "
                    f"({tested[0]}, ...), so no test row can be classified correctly. To find clusters, take method "
                    "codt or joints, and net stgcn (pipelines/experiments/codt_kinect.py)"
                )

    def taught(self, manifest: Manifest, source: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return all classes of the manifest."""
        return manifest.classes

    def tested(self, manifest: Manifest, test: str) -> dict[str, tuple[str, ...]]:
        """Return all classes of the manifest."""
        return manifest.classes

    def limits(self, manifest: Manifest, train: Sequence[int], test: Sequence[int]) -> tuple[str, ...]:
        """Name labels of which there is one class only, and classes of the test rows that no train row has."""
        texts = []
        for label in manifest.classes if train else ():
            taught, tested = (
                Counter(manifest.clips[row].labels.get(label, "") for row in rows) for rows in (train, test)
            )
            sides = {"train clips of the source": taught, "test clips": tested}
            if alone := [side for side, counts in sides.items() if len(counts) == 1]:
                name = next(iter(sides[alone[0]]))
                texts.append(
                    f"ONE CLASS: the {' and the '.join(alone)} all have the {label} {name!r}, so the numbers do not "
                    "show whether classes can be told apart"
                )
            if unseen := sorted(tested.keys() - taught.keys()):
                count = sum(tested[name] for name in unseen)
                texts.append(
                    f"UNSEEN CLASSES: {count} of {len(test)} test clips have a {label} that no train clip of the "
                    f"source has ({first(unseen)}), so at most {100 * (1 - count / len(test)):.1f} % can be right"
                )
        return tuple(texts)

    def measure(self, outputs: Outputs, truth: Truth, net: Net | None, clusters: int) -> Values:
        """Return the metrics of each label, `METRIC/LABEL` if there are several, and those of all labels at once."""
        values = Values()
        scores = {label: outputs[label] for label in truth}
        classes = {label: scores[label].shape[1] for label in truth}
        for label, y in truth.items():
            for name, metric in PER_LABEL.items():
                if metric.compute and classes[label] >= metric.least_classes:
                    values[name if len(truth) == 1 else f"{name}/{label}"] = metric.compute(scores[label], y)
        for name, metric in OF_ALL_LABELS.items():
            if metric.compute and len(truth) > 1 and min(classes.values()) >= metric.least_classes:
                values[name] = metric.compute(scores, truth)
        right = {label: in_topk(scores[label], y, 1) for label, y in truth.items()}
        for label, own in right.items():
            values.outcomes["top1" if len(right) == 1 else f"top1/{label}"] = of_clips(own)
        if len(right) > 1:
            values.outcomes["top1/action"] = of_clips(np.logical_and.reduce(list(right.values())))
        return values

    def by_class(self, outputs: Outputs, truth: Truth) -> dict[str, NDArray[np.int64]]:
        """Return `top1` or `top1/LABEL` -> the counts of each class (K, 3), see `class_counts`."""
        names = {label: "top1" if len(truth) == 1 else f"top1/{label}" for label in truth}
        return {names[label]: class_counts(outputs[label], y, outputs[label].shape[1]) for label, y in truth.items()}

    def predicted(self, outputs: Outputs, label: str, truth: Labels, K: int, branch: str) -> Labels:
        """Return the class with the highest score."""
        return np.asarray(outputs[label].argmax(1))

    def predictions(self, outputs: Outputs, label: str, truth: Labels, K: int) -> Iterator[dict[str, Any]]:
        """Yield the class with the highest score, and the softmax of all scores."""
        p_nK = probabilities(outputs[label]).astype(np.float32)
        yield {"predicted": self.predicted(outputs, label, truth, K, ""), "probabilities": list(p_nK)}

    def applied(
        self, outputs: Outputs, names: Mapping[str, Sequence[str]], k: int, clusters: int, kept: Callable[[], Outputs]
    ) -> Iterator[dict[str, Any]]:
        """Yield for each label the class with the highest score, and the k most probable ones, in that order."""
        for label, classes in names.items():
            p_nK, order_nk = probabilities(outputs[label]).astype(np.float32), best(outputs[label], k)
            yield {
                "label": [label] * len(order_nk),
                "predicted": [classes[row[0]] for row in order_nk],
                "classes": [[classes[c] for c in row] for row in order_nk],
                "probabilities": list(np.take_along_axis(p_nK, order_nk, 1)),
            }


TASK = Classification()
