"""Clustering: groups of the target's clips, for a target whose classes no source has.

Outputs are the features of each branch, "feature_B0" (n, D), and the logits of its classifier of clusters if it has
one, "cluster_B0" (n, K). The metric `MEASURE/BRANCH` uses the classifier. `MEASURE/BRANCH/kmeans` uses k-means of the
features and is a mean over RESTARTS starts by k-means++ (CoDT's code starts from random rows).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from featcache import Manifest
from featcache.errors import ConfigError
from heads.nets import Net
from pipelines.measures.accuracy import Labels, best, probabilities
from pipelines.measures.clusters import acc_dominant, acc_hungarian, ari, by_kmeans, matched, nmi
from pipelines.measures.outcomes import Outcomes, Values, of_clips, together
from pipelines.tasks import Metric, Outputs, RunLike, Task, Truth, classes_of

RESTARTS = 10
KMEANS = "/kmeans"  #: suffix of metrics by k-means
HUNGARIAN = "acc_hungarian"
OF_CLUSTERS = {
    HUNGARIAN: Metric("accuracy (Hungarian matching)", acc_hungarian),
    "acc_dominant": Metric("accuracy (dominating class)", acc_dominant),
    "nmi": Metric("normalised mutual information", nmi),
    "ari": Metric("adjusted Rand index", ari, least=-100),
}


class Clustering(Task):
    """Clustering of the target's clips."""

    name = "clustering"
    metrics: ClassVar = {
        f"{name}/{branch}{suffix}": replace(metric, words=f"{metric.words} of clusters, branch {branch}{way}")
        for name, metric in OF_CLUSTERS.items()
        for branch in ("B0", "B1")
        for suffix, way in (("", ""), (KMEANS, f", by k-means (mean of {RESTARTS} starts)"))
    }
    headlines = (f"{HUNGARIAN}/B0",)
    stand_in = KMEANS
    stand_in_words = "By k-means, because their runs have no classifier of clusters"
    no_norms = "a clustering run does not weigh modalities against each other"
    no_drop = "each branch of a clustering run reads one layout of skeletons"
    notes = ("Numbers of clusters are the targets' true numbers of classes (oracle K).",)

    def check(self, config: RunLike) -> None:
        """Check that the run tests its target, and that source, target and test see the first feed."""
        super().check(config)
        if config.test != config.target:
            raise ConfigError(
                f"test={config.test!r}, but a clustering run finds the clusters of its target {config.target!r}, and "
                "other domains have other classes; leave test out"
            )
        shared, *others = config.feeds
        for m, roles in {shared: {"source", "target", "test"}, **{m: {"target", "test"} for m in others}}.items():
            if lacking := sorted(roles - set(config.feeds[m].seen_by.split())):
                raise ConfigError(
                    f"feeds.{m}.seen_by={config.feeds[m].seen_by!r} lacks {' and '.join(lacking)}: in clustering, "
                    "source, target and test see the first feed, and target and test see every other feed"
                )

    def check_manifest(self, config: RunLike, manifest: Manifest) -> None:
        """Check that the manifest has one label, and that the test domain has at least two classes of it."""
        if len(manifest.classes) != 1:
            labels = ", ".join(manifest.classes) or "none"
            raise ConfigError(f"clustering needs a manifest with one label, but {manifest.name!r} has: {labels}")
        if (count := self.clusters(manifest, config.test)) < 2:
            raise ConfigError(
                f"domain {config.test!r} has {count} classes in manifest {manifest.name!r}; clustering needs 2 or "
                "more, because their number is the number of clusters, and the test compares clusters with them"
            )

    def untested(self, manifest: Manifest, domain: str, captioned: Collection[int]) -> str:
        """Return a reason unless the domain has classes: their number is the number of clusters."""
        count = max([len(classes_of(manifest, label, (domain,))) for label in manifest.classes], default=0)
        return "" if count > 1 else f"it has {count} classes, and their number is the number of clusters"

    def taught(self, manifest: Manifest, source: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the classes of the source rows."""
        return {label: classes_of(manifest, label, source) for label in manifest.classes}

    def tested(self, manifest: Manifest, test: str) -> dict[str, tuple[str, ...]]:
        """Return the classes of the rows of the test domain."""
        return {label: classes_of(manifest, label, (test,)) for label in manifest.classes}

    def clusters(self, manifest: Manifest, test: str) -> int:
        """Return the number of classes of the test domain, the only fact about its labels that a method is given."""
        (classes,) = self.tested(manifest, test).values()
        return len(classes)

    def measure(self, outputs: Outputs, truth: Truth, net: Net | None, clusters: int) -> Values:
        """Return the metrics of all branches, by their classifiers and by k-means."""
        (y,) = truth.values()
        values = Values()
        for branch in branches(outputs):
            if (logits := outputs.get(f"cluster_{branch}")) is not None:
                cluster_n = logits.argmax(1)
                values.update({f"{name}/{branch}": value for name, value in of_clusters(cluster_n, y).items()})
                values.outcomes[f"{HUNGARIAN}/{branch}"] = matched_right(cluster_n, y)
            starts = [by_kmeans(outputs[f"feature_{branch}"], clusters, seed) for seed in range(RESTARTS)]
            by_start = [of_clusters(cluster_n, y) for cluster_n in starts]
            for name in OF_CLUSTERS:
                values[f"{name}/{branch}{KMEANS}"] = float(np.mean([start[name] for start in by_start]))
            values.outcomes[f"{HUNGARIAN}/{branch}{KMEANS}"] = together([matched_right(each, y) for each in starts])
        return values

    def applied(
        self, outputs: Outputs, names: Mapping[str, Sequence[str]], k: int, clusters: int, kept: Callable[[], Outputs]
    ) -> Iterator[dict[str, Any]]:
        """Yield a table per branch: the cluster of each row, and by a classifier the k most probable clusters.

        Without a classifier, the clusters are those of k-means among the run's own test clips (`cluster_of`), and a row
        gets the nearest one.
        """
        for branch in branches(outputs):
            if (logits := outputs.get(f"cluster_{branch}")) is None:
                own, new = (each.get(f"feature_{branch}") for each in (kept(), outputs))
                if own is None or new is None or own.shape[1] != new.shape[1]:
                    raise ConfigError(
                        f"the run has kept no features of branch {branch} of its own test clips like those of its "
                        "weights; train the run again"
                    )
                cluster_n = by_kmeans(own, clusters, 0, new)
                yield {"branch": [branch] * len(cluster_n), "cluster": cluster_n}
            else:
                p_nK, order_nk = probabilities(logits).astype(np.float32), best(logits, k)
                yield {
                    "branch": [branch] * len(order_nk),
                    "cluster": order_nk[:, 0],
                    "clusters": list(order_nk),
                    "probabilities": list(np.take_along_axis(p_nK, order_nk, 1)),
                }

    def branches(self, outputs: Outputs) -> tuple[str, ...]:
        """Return the names of the branches that have features."""
        return tuple(branches(outputs))

    def predicted(self, outputs: Outputs, label: str, truth: Labels, K: int, branch: str) -> Labels:
        """Return the class that Hungarian matching assigns to each row's cluster."""
        return matched(cluster_of(outputs, K, branch or "B0"), truth, K)

    def predictions(self, outputs: Outputs, label: str, truth: Labels, K: int) -> Iterator[dict[str, Any]]:
        """Yield a table per branch: the cluster of each row, and the class that it is paired with."""
        for branch in branches(outputs):
            yield {
                "branch": [branch] * len(truth),
                "cluster": cluster_of(outputs, K, branch),
                "predicted": self.predicted(outputs, label, truth, K, branch),
            }


def branches(outputs: Outputs) -> list[str]:
    """Return the names of the branches that have features."""
    return [name.removeprefix("feature_") for name in outputs if name.startswith("feature_")]


def cluster_of(outputs: Outputs, K: int, branch: str = "B0") -> Labels:
    """Return the cluster of each row (n,): by the classifier, or without one by the first start of k-means."""
    logits = outputs.get(f"cluster_{branch}")
    return by_kmeans(outputs[f"feature_{branch}"], K, 0) if logits is None else np.asarray(logits.argmax(1))


def of_clusters(clusters: Labels, truth: Labels) -> dict[str, float]:
    """Return the metrics of cluster numbers (n,) against class numbers (n,).

    >>> [round(value, 2) for value in of_clusters(np.array([0, 0, 1, 2]), np.array([5, 5, 7, 7])).values()]
    [0.75, 1.0, 0.8, 0.57]
    """
    return {name: metric.compute(clusters, truth) for name, metric in OF_CLUSTERS.items() if metric.compute}


def matched_right(clusters: Labels, truth: Labels) -> Outcomes:
    """Return the rows (n,) whose cluster is paired with their class by Hungarian matching.

    >>> matched_right(np.array([0, 0, 1, 2]), np.array([5, 5, 7, 7])).right.tolist()
    [1, 1, 1, 0]
    """
    (_, k), (_, c) = (np.unique(numbers, return_inverse=True) for numbers in (clusters, truth))
    return of_clips(matched(k, c, int(max(k.max(), c.max())) + 1) == c)


TASK = Clustering()
