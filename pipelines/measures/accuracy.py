"""Accuracies of predictions, as shares in [0, 1]: pure functions of numpy arrays. Tables print them in per cent.

Shapes: n rows, K classes; scores (n, K), larger is better; labels (n,) class numbers.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BINS = 15  #: of the calibration error, as Guo et al. 2017

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


def macro_f1(scores: Scores, labels: Labels) -> float:
    """Return the mean over the classes in `labels` of F1 = 2 TP / (2 TP + FP + FN); the largest score is predicted.

    A class without rows in `labels` has no F1 of its own. Rows that are given it still count as FN of their class.
    """
    from sklearn.metrics import f1_score

    predicted = scores.argmax(1)
    return float(f1_score(labels, predicted, average="macro", labels=np.unique(labels), zero_division=0))


def probabilities(scores: Scores) -> NDArray[np.float64]:
    """Return the softmax of scores -> (n, K); a score may be -inf, for a probability of 0."""
    from scipy.special import softmax

    p_nK: NDArray[np.float64] = softmax(scores.astype(np.float64), axis=1)
    return p_nK


def best(scores: Scores, k: int) -> NDArray[np.int64]:
    """Return the k columns with the largest scores, the largest first -> (n, min(k, K)); of equal ones the first.

    >>> best(np.array([[1.0, 3.0, 3.0, 2.0]]), 3)
    array([[1, 2, 3]])
    """
    order_nK: NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")
    return order_nK[:, :k]


def ece(scores: Scores, labels: Labels) -> float:
    """Return the expected calibration error [Naeini et al. 2015; Guo et al. 2017], in [0, 1]; 0 is calibrated.

        ECE = Σ_b n_b / n |accuracy_b - confidence_b|

    A row's confidence is the largest entry of the softmax of its scores. BINS bins of equal width part (0, 1], each
    with its upper bound; the confidence of a bin is the mean of its rows.

    >>> round(ece(np.log([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1])), 6)  # sure to 90 %, right in 50 %
    0.4
    """
    confidence_n, right_n = probabilities(scores).max(1), in_topk(scores, labels, 1)
    bin_n = np.searchsorted(np.arange(1, BINS) / BINS, confidence_n)
    gap_b = np.bincount(bin_n, right_n - confidence_n, BINS)  # n_b (accuracy - confidence)
    return float(np.abs(gap_b).sum() / len(labels))


def class_counts(scores: Scores, labels: Labels, K: int) -> NDArray[np.int64]:
    """Count for each class the rows of it that are predicted right, the rows of it, and the rows given it -> (K, 3).

    >>> class_counts(np.eye(3)[[0, 0, 1]], np.array([0, 1, 1]), 3).tolist()
    [[1, 1, 2], [1, 2, 1], [0, 0, 0]]
    """
    predicted = scores.argmax(1)
    right = labels[predicted == labels]
    return np.stack([np.bincount(numbers, minlength=K) for numbers in (right, labels, predicted)], 1)


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
