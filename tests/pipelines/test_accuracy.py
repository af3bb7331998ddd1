"""Metrics against loops and hand-worked numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.measures.accuracy import (
    BINS,
    action_topk,
    class_counts,
    coefficient_of_variation,
    ece,
    in_topk,
    macro_f1,
    mean_class_accuracy,
    topk_accuracy,
)


def naive_in_topk(row, label, k):
    """Stable sort, largest first."""
    return label in sorted(range(len(row)), key=lambda c: -row[c])[:k]


FEW_VALUES = st.lists(st.integers(0, 3), min_size=4, max_size=4)  # so that ties are common


@given(st.lists(FEW_VALUES, min_size=1, max_size=8), st.integers(1, 4), st.data())
def test_topk_equals_a_stable_sort_ties_included(rows, k, data):
    labels = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    expected = [naive_in_topk(row, label, k) for row, label in zip(rows, labels, strict=True)]
    assert in_topk(np.array(rows, float), np.array(labels), k).tolist() == expected
    assert topk_accuracy(np.array(rows, float), np.array(labels), k) == pytest.approx(sum(expected) / len(rows))


def test_mean_class_weighs_classes_not_rows():
    scores = np.eye(3)[[0, 0, 0, 1, 0]]
    labels = np.array([0, 0, 0, 1, 1])  # class 2 does not occur
    assert topk_accuracy(scores, labels, 1) == pytest.approx(4 / 5)
    assert mean_class_accuracy(scores, labels) == pytest.approx((1 + 1 / 2) / 2)


def test_action_needs_every_task():
    scores = {"verb": np.array([[2.0, 1, 0], [2, 1, 0], [2, 1, 0]]), "noun": np.array([[0.0, 1], [0, 1], [0, 1]])}
    labels = {"verb": np.array([0, 1, 0]), "noun": np.array([1, 1, 0])}
    assert action_topk(scores, labels, 1) == pytest.approx(1 / 3)
    assert action_topk(scores, labels, 2) == pytest.approx(1)


def test_coefficient_of_variation_is_of_the_population():
    assert coefficient_of_variation([1, 2, 3]) == pytest.approx((2 / 3) ** 0.5 / 2)
    assert coefficient_of_variation([5, 5, 5]) == 0
    assert coefficient_of_variation([10, 20, 30]) == pytest.approx(coefficient_of_variation([1, 2, 3]))


def test_scores_that_are_no_numbers_are_wrong():
    nan = np.nan
    scores = np.array([[nan, nan, nan], [nan, 1.0, 0.0], [0.0, 1.0, nan], [0.0, nan, 1.0]])
    assert in_topk(scores, np.array([0, 0, 1, 2]), 1).tolist() == [False] * 4
    assert topk_accuracy(np.array([[nan, 1.0, 0.0]]), np.array([1]), 2) == 1  # second at worst


def naive_ece(scores, labels):
    """A loop over bins and rows."""
    confidences, right = [], []
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        exp = [math.exp(z - max(row)) for z in row]
        confidences.append(max(exp) / sum(exp))
        right.append(row.index(max(row)) == label)
    total = 0.0
    for b in range(BINS):
        rows = [i for i, c in enumerate(confidences) if b / BINS < c <= (b + 1) / BINS]
        if rows:
            accuracy = sum(right[i] for i in rows) / len(rows)
            confidence = sum(confidences[i] for i in rows) / len(rows)
            total += len(rows) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("K", [1, 2, 5, 300])
@pytest.mark.parametrize("scale", [0.1, 1, 30])
def test_the_calibration_error_equals_a_loop(K, scale):
    rng = np.random.default_rng(K)
    scores, labels = scale * rng.normal(size=(60, K)).astype(np.float32), rng.integers(K, size=60)
    assert ece(scores, labels) == pytest.approx(naive_ece(scores, labels), abs=1e-6)


def test_calibrated_predictions_have_no_error_and_certain_wrong_ones_the_largest():
    half = np.log(np.array([[0.75, 0.25]] * 4))
    assert ece(half, np.array([0, 0, 0, 1])) == pytest.approx(0)
    certain = np.array([[0.0, -np.inf]] * 4)  # a probability of 0, as windows that are classified separately give
    assert ece(certain, np.array([1, 1, 1, 1])) == pytest.approx(1)
    uniform = np.zeros((4, 2))  # of equal scores the first class is taken
    assert ece(uniform, np.array([0, 1, 0, 1])) == pytest.approx(0)


def test_a_confidence_on_the_edge_of_a_bin_is_in_the_lower_one():
    """3/15 is the upper edge of the third bin; a row a little above it is in the fourth, and does not cancel it."""
    sure = np.log(np.array([[0.2] * 5, [0.21, *[0.79 / 4] * 4]]))
    assert ece(sure, np.array([0, 1])) == pytest.approx((0.8 + 0.21) / 2)


def test_macro_f1_by_hand():
    """Class 0: TP 2, FP 1, FN 1: 4/6. Class 1: TP 1, FP 1, FN 2: 2/5. Class 2 has no rows, but one row is given it."""
    labels, predicted = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 0, 2])
    scores = np.eye(4)[predicted]
    assert macro_f1(scores, labels) == pytest.approx((4 / 6 + 2 / 5) / 2)
    assert class_counts(scores, labels, 4).tolist() == [[2, 3, 3], [1, 3, 2], [0, 0, 1], [0, 0, 0]]
    right, rows, given = class_counts(scores, labels, 4)[:2].T
    assert macro_f1(scores, labels) == pytest.approx(np.mean(2 * right / (rows + given)))
