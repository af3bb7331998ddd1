"""How well clusters fit the classes of their rows; clusters by a run's own classifiers, or by k-means of its features.

    acc_hungarian   share of rows in the cluster of their class: classes and clusters are paired one to one, in the way
                    that makes this share largest
    acc_dominant    share of rows whose class is the most frequent one of their cluster: several clusters may have one
                    class. Never below acc_hungarian, and 1 where each row is a cluster
    nmi             I(cluster; class) / ((H(cluster) + H(class)) / 2), in [0, 1]
    ari             adjusted Rand index: 1 for equal partitions, about 0 for random ones, at least -0.5

Metrics are named MEASURE/BRANCH by the classifier, and MEASURE/BRANCH/kmeans by k-means, mean over RESTARTS starts, by
k-means++ (CoDT's code: from random rows).
Shapes: n rows, K clusters, C classes, D features.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from heads.cluster import kmeans, nearest
from pipelines.metrics import Labels

MEASURES = ("acc_hungarian", "acc_dominant", "nmi", "ari")
RESTARTS = 10
HEADLINE = "acc_hungarian/B0"
KMEANS = "/kmeans"  #: how metrics by k-means end

Said = Mapping[str, NDArray[Any]]  #: "feature_B0" (n, D), and where there are clusters "cluster_B0" (n, K) logits; B1


def metrics(said: Said, truth: Labels, K: int) -> dict[str, float]:
    """Metric -> value, of all branches; truth (n,) class numbers."""
    values: dict[str, float] = {}
    for branch in branches(said):
        if (own := f"cluster_{branch}") in said:
            values |= {f"{name}/{branch}": value for name, value in measures(said[own].argmax(1), truth).items()}
        found = [measures(by_kmeans(said[f"feature_{branch}"], K, seed), truth) for seed in range(RESTARTS)]
        values |= {f"{name}/{branch}{KMEANS}": float(np.mean([one[name] for one in found])) for name in found[0]}
    return values


def branches(said: Said) -> list[str]:
    """Those that have features."""
    return [name.removeprefix("feature_") for name in said if name.startswith("feature_")]


def headline(values: dict[str, float]) -> float:
    """What an oracle looks at: by the classifier, or where there is none by k-means."""
    return values.get(HEADLINE, values.get(HEADLINE + KMEANS, 0.0))


def clusters(said: Said, K: int, branch: str = "B0") -> Labels:
    """Of each row (n,): by the classifier, or where there is none by the first start of k-means."""
    own = said.get(f"cluster_{branch}")
    return by_kmeans(said[f"feature_{branch}"], K, 0) if own is None else own.argmax(1)


def by_kmeans(f_nD: NDArray[np.floating], K: int, seed: int) -> Labels:
    """Clusters (n,) of features as they are, by one start of k-means; seeded."""
    f = torch.from_numpy(f_nD)
    f = f - f.mean(0)  # less is rounded near the origin
    found: NDArray[np.int64] = nearest(f, kmeans(f, K, seed, restarts=1))[0].numpy()
    return found


# ------------------------------------------------------------------------------------------------------------ measures


def measures(clusters: Labels, truth: Labels) -> dict[str, float]:
    """All four, of cluster numbers (n,) and class numbers (n,).

    >>> [round(value, 2) for value in measures(np.array([0, 0, 1, 2]), np.array([5, 5, 7, 7])).values()]
    [0.75, 1.0, 0.8, 0.57]
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    each = (acc_hungarian, acc_dominant, normalized_mutual_info_score, adjusted_rand_score)
    return {name: float(measure(clusters, truth)) for name, measure in zip(MEASURES, each, strict=True)}


def acc_hungarian(clusters: Labels, truth: Labels) -> float:
    """Share of rows in the cluster that is paired with their class; what is left over is paired with nothing."""
    from scipy.optimize import linear_sum_assignment

    counts_KC = counts(clusters, truth)
    return float(counts_KC[linear_sum_assignment(counts_KC, maximize=True)].sum() / len(truth))


def acc_dominant(clusters: Labels, truth: Labels) -> float:
    """Share of rows that are of the most frequent class of their cluster (purity)."""
    return float(counts(clusters, truth).max(1).sum() / len(truth))


def matched(clusters: Labels, truth: Labels, K: int) -> Labels:
    """The class (n,) that each row's cluster is paired with; K clusters and K classes, numbered from 0."""
    from scipy.optimize import linear_sum_assignment

    counts_KK = np.zeros((K, K), np.int64)
    np.add.at(counts_KK, (clusters, truth), 1)
    _, class_K = linear_sum_assignment(counts_KK, maximize=True)
    found: NDArray[np.int64] = class_K[clusters]
    return found


def counts(clusters: Labels, truth: Labels) -> NDArray[np.int64]:
    """Rows by cluster and class -> (K, C), of those that occur."""
    (k, row), (c, column) = (np.unique(numbers, return_inverse=True) for numbers in (clusters, truth))
    found = np.zeros((len(k), len(c)), np.int64)
    np.add.at(found, (row, column), 1)
    return found
