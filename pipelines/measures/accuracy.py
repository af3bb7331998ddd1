"""Accuracies of predictions, as shares in [0, 1]: pure functions of numpy arrays. Tables print them in per cent.

Shapes: n rows, K classes; scores (n, K), larger is better; labels (n,) class numbers.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]
Labels = NDArray[np.integer]


def topk_accuracy(scores: Scores, labels: Labels, k: int) -> float:
    """Return the share of rows whose label is among the k largest scores.

    >>> topk_accuracy(np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]]), np.array([2, 1]), 2)
    0.5
    """
    return float(in_topk(scores, labels, k).mean())


def in_topk(scores: Scores, labels: Labels, k: int) -> NDArray[np.bool_]:
    """True for rows whose label is among the k largest scores -> (n,) bool.

    Of equal scores the lower class number comes first. NaN is wrong.
    """
    label_score = np.take_along_axis(scores, labels[:, None], axis=1)
    before = np.arange(scores.shape[1]) < labels[:, None]
    rank: NDArray[np.int64] = (~(scores <= label_score) | ((scores == label_score) & before)).sum(1)
    return rank < k


def mean_class_accuracy(scores: Scores, labels: Labels) -> float:
    """Return the mean recall of the classes in `labels`: the share of a class's rows that are predicted right."""
    right = in_topk(scores, labels, 1)
    return float(np.mean([right[labels == c].mean() for c in np.unique(labels)]))


def action_topk(scores: dict[str, Scores], labels: dict[str, Labels], k: int) -> float:
    """Return the share of rows whose labels are all among the k largest scores (TA3N's EK100 code: verb and noun).

    scores, labels: label name -> arrays.
    """
    return float(np.logical_and.reduce([in_topk(scores[label], labels[label], k) for label in labels]).mean())


def coefficient_of_variation(values: Sequence[float]) -> float:
    """Return the standard deviation (ddof 0) over the mean: the unevenness of mean feature norms [RNA, Table 1].

    >>> coefficient_of_variation([1.0, 3.0])
    0.5
    """
    return float(np.std(values) / np.mean(values))
