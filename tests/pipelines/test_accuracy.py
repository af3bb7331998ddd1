"""Metrics against loops and hand-worked numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.measures.accuracy import (
    action_topk,
    coefficient_of_variation,
    in_topk,
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
