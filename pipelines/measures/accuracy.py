"""Measures of predictions: pure functions of numpy arrays. Shares are in [0, 1]; per cent is a table's business.

Shapes: n rows, K classes; scores (n, K), larger is better; labels (n,) class numbers.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]
Labels = NDArray[np.integer]


def topk_accuracy(scores: Scores, labels: Labels, k: int) -> float:
    """Share of rows whose label is among the k largest scores.

    >>> topk_accuracy(np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]]), np.array([2, 1]), 2)
    0.5
    """
    return float(in_topk(scores, labels, k).mean())


def in_topk(scores: Scores, labels: Labels, k: int) -> NDArray[np.bool_]:
    """(n,) is the label among the k largest scores? Of equal ones the lower class number comes first; NaN is wrong."""
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    before = np.arange(scores.shape[1]) < labels[:, None]
    rank: NDArray[np.int64] = (~(scores <= own) | ((scores == own) & before)).sum(1)
    return rank < k


def mean_class_accuracy(scores: Scores, labels: Labels) -> float:
    """Mean over the classes that occur in `labels` of the share of their rows predicted right (mean recall)."""
    right = in_topk(scores, labels, 1)
    return float(np.mean([right[labels == c].mean() for c in np.unique(labels)]))


def action_topk(scores: dict[str, Scores], labels: dict[str, Labels], k: int) -> float:
    """Share of rows whose label is among the k largest scores in every task (TA3N's EK100 code: verb and noun)."""
    return float(np.logical_and.reduce([in_topk(scores[task], labels[task], k) for task in labels]).mean())


def coefficient_of_variation(values: Sequence[float]) -> float:
    """Standard deviation (ddof 0) over mean: how uneven mean feature norms are [RNA, Table 1].

    >>> coefficient_of_variation([1.0, 3.0])
    0.5
    """
    return float(np.std(values) / np.mean(values))
