"""Measures of clusters against the classes of their rows, and clusters by k-means.

Shapes: n rows, K clusters, C classes, D features; clusters and truth are numbers (n,).
"""

import numpy as np
import torch
from numpy.typing import NDArray

from heads.cluster import kmeans, nearest
from pipelines.measures.accuracy import Labels


def by_kmeans(f_nD: NDArray[np.floating], K: int, seed: int) -> Labels:
    """Clusters (n,) of features as they are, by one start of k-means; seeded."""
    f = torch.from_numpy(f_nD)
    f = f - f.mean(0)  # less is rounded near the origin
    found: NDArray[np.int64] = nearest(f, kmeans(f, K, seed, restarts=1))[0].numpy()
    return found


def nmi(clusters: Labels, truth: Labels) -> float:
    """I(cluster; class) / ((H(cluster) + H(class)) / 2), in [0, 1]."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(clusters, truth))


def ari(clusters: Labels, truth: Labels) -> float:
    """The adjusted Rand index: 1 for equal partitions, about 0 for random ones, at least -0.5."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(clusters, truth))


def acc_hungarian(clusters: Labels, truth: Labels) -> float:
    """Share of rows in the cluster that is paired with their class.

    Classes and clusters are paired one to one so that this share is largest; what is left over has no partner.
    """
    from scipy.optimize import linear_sum_assignment

    counts_KC = counts(clusters, truth)
    return float(counts_KC[linear_sum_assignment(counts_KC, maximize=True)].sum() / len(truth))


def acc_dominant(clusters: Labels, truth: Labels) -> float:
    """Share of rows that are of the most frequent class of their cluster (purity).

    Several clusters may have one class: never below acc_hungarian, and 1 where each row is a cluster.
    """
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
