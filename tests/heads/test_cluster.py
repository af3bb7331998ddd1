"""Pseudo-labels by centroids, against naive loops and numbers worked by hand."""

import math

import pytest
import torch

from heads.cluster import centroid_labels


def naive(p, f):
    """The definition, on lists: weighted means, cosines, the largest."""
    N, K, D = len(f), len(p[0]), len(f[0])
    centroids = []
    for k in range(K):
        weight = sum(p[i][k] for i in range(N))
        centroids.append([sum(p[i][k] * f[i][d] for i in range(N)) / weight for d in range(D)] if weight else None)
    length = lambda u: math.sqrt(sum(a * a for a in u))  # noqa: E731
    labels = []
    for row in f:
        cosines = [
            sum(a * b for a, b in zip(row, c, strict=True)) / (length(row) * length(c)) if c else -math.inf
            for c in centroids
        ]
        labels.append(max(range(K), key=cosines.__getitem__))
    return labels


def problem(seed, rows=17, classes=5, dim=3):
    generator = torch.Generator().manual_seed(seed)
    p = torch.randn(rows, classes, generator=generator, dtype=torch.float64).softmax(1)
    return p, torch.randn(rows, dim, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_naive_loops(seed):
    p, f = problem(seed)
    assert centroid_labels(p, f).tolist() == naive(p.tolist(), f.tolist())


@pytest.mark.parametrize("seed", range(5))
def test_one_hot_weights_are_means_of_the_rows_of_a_class(seed):
    p, f = problem(seed)
    p = torch.eye(5, dtype=torch.float64)[p.argmax(1)]
    assert centroid_labels(p, f).tolist() == naive(p.tolist(), f.tolist())


def test_lengths_of_rows_do_not_choose_among_fixed_centroids():
    """Cosines: what a row is called does not depend on its own length where its weight in the centroids is nil."""
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    for length in (0.01, 1.0, 100.0):
        f = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0 * length, 3.0 * length]])
        assert centroid_labels(p, f).tolist() == [0, 1, 1]


def test_a_class_without_weight_is_nobodys_label():
    """Its centroid would be 0, with cosine 0: more than that of any row that points away from all others."""
    p = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])
    f = torch.tensor([[5.0, 0.0], [4.0, 1.0], [-0.1, -0.1]])
    assert set(centroid_labels(p, f).tolist()) <= {0, 1}


def test_single_class():
    _, f = problem(0)
    assert centroid_labels(torch.ones(17, 1, dtype=torch.float64), f).tolist() == [0] * 17


def test_features_of_zeros_still_get_classes_that_have_weight():
    p, f = problem(0)
    p[:, 0] = 0
    assert set(centroid_labels(p, torch.zeros_like(f)).tolist()) <= {1, 2, 3, 4}
