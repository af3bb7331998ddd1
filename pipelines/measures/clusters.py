"""Measures that compare clusters with the classes of their rows, and clusters by k-means.

Shapes: n rows, K clusters, C classes, D features; `clusters` and `truth` are numbers (n,).
"""

import numpy as np
import torch
from numpy.typing import NDArray

from heads.cluster import kmeans, nearest
from pipelines.measures.accuracy import Labels


def by_kmeans(f_nD: NDArray[np.floating], K: int, seed: int, others_mD: NDArray[np.floating] | None = None) -> Labels:
    """Return the clusters (n,) of unscaled features, by one seeded start of k-means.

    others_mD: return the clusters (m,) of these rows instead, which are those of the nearest centroids.
    """
    f, others = torch.from_numpy(f_nD), torch.from_numpy(f_nD if others_mD is None else others_mD)
    mean = f.mean(0)  # rounding errors are smaller near the origin
    cluster_n: NDArray[np.int64] = nearest(others - mean, kmeans(f - mean, K, seed, restarts=1))[0].numpy()
    return cluster_n


def nmi(clusters: Labels, truth: Labels) -> float:
    """Return the normalised mutual information I(cluster; class) / ((H(cluster) + H(class)) / 2), in [0, 1]."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(clusters, truth))


def ari(clusters: Labels, truth: Labels) -> float:
    """Return the adjusted Rand index: 1 for equal partitions, about 0 for random ones, at least -0.5."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(clusters, truth))


def acc_hungarian(clusters: Labels, truth: Labels) -> float:
    """Return the share of rows whose cluster is paired with their class.

    Classes and clusters are paired one to one so that this share is largest. Surplus classes or clusters stay unpaired.
    """
    from scipy.optimize import linear_sum_assignment

    counts_KC = counts(clusters, truth)
    return float(counts_KC[linear_sum_assignment(counts_KC, maximize=True)].sum() / len(truth))


def acc_dominant(clusters: Labels, truth: Labels) -> float:
    """Return the purity: the share of rows that belong to the most frequent class of their cluster.

    Several clusters may have the same class, so the purity is at least acc_hungarian, and 1 if each row is a cluster.
    """
    return float(counts(clusters, truth).max(1).sum() / len(truth))


def matched(clusters: Labels, truth: Labels, K: int) -> Labels:
    """Return the class (n,) that each row's cluster is paired with; K clusters and K classes, numbered from 0."""
    from scipy.optimize import linear_sum_assignment

    counts_KK = np.zeros((K, K), np.int64)
    np.add.at(counts_KK, (clusters, truth), 1)
    _, class_K = linear_sum_assignment(counts_KK, maximize=True)
    paired_n: NDArray[np.int64] = class_K[clusters]
    return paired_n


def counts(clusters: Labels, truth: Labels) -> NDArray[np.int64]:
    """Count the rows of each cluster and class -> (K, C), for the clusters and classes that occur."""
    (k, row), (c, column) = (np.unique(numbers, return_inverse=True) for numbers in (clusters, truth))
    counts_KC = np.zeros((len(k), len(c)), np.int64)
    np.add.at(counts_KC, (row, column), 1)
    return counts_KC
