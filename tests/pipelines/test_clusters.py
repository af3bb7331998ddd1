"""Measures of clusters: hand-worked numbers, brute force, and what holds of any partition."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.measures.clusters import acc_dominant, acc_hungarian, by_kmeans, matched
from pipelines.tasks.clustering import TASK, cluster_of, of_clusters

LABELS = st.integers(1, 30).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(0, 4), min_size=n, max_size=n).map(np.array) for _ in range(2)))
)


slow_at_first = settings(deadline=None, max_examples=40)  # measures import scikit-learn


def shares(clusters, truth, K):
    """Shares of right rows, for each way to call K clusters by K classes."""
    return [np.mean([names[k] == y for k, y in zip(clusters, truth, strict=True)]) for names in permutations(range(K))]


@slow_at_first
@given(LABELS)
def test_hungarian_is_the_best_of_all_pairings(pair):
    assert acc_hungarian(*pair) == pytest.approx(max(shares(*pair, 5)))


@slow_at_first
@given(LABELS)
def test_hungarian_is_never_above_the_dominating_class(pair):
    assert acc_hungarian(*pair) <= acc_dominant(*pair) <= 1


@slow_at_first
@given(LABELS)
def test_the_dominating_class_is_counted_cluster_by_cluster(pair):
    clusters, truth = pair
    right = sum(max(np.sum(truth[clusters == k] == y) for y in range(5)) for k in range(5))
    assert acc_dominant(clusters, truth) == pytest.approx(right / len(truth))


@slow_at_first
@given(LABELS, st.permutations(range(5)), st.permutations(range(5)))
def test_names_of_clusters_and_classes_do_not_matter(pair, new_clusters, new_classes):
    clusters, truth = pair
    renamed = of_clusters(np.array(new_clusters)[clusters] + 3, np.array(new_classes)[truth] * 7)
    assert renamed == pytest.approx(of_clusters(clusters, truth))


@slow_at_first
@given(LABELS)
def test_clusters_that_are_the_classes_are_perfect(pair):
    assert of_clusters((pair[1] * 3 + 1) % 5, pair[1]) == pytest.approx(dict.fromkeys(of_clusters(*pair), 1.0))


def test_six_rows_by_hand():
    clusters, truth = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 0])
    values = of_clusters(clusters, truth)
    assert values["acc_hungarian"] == pytest.approx(4 / 6)  # the third cluster has no class left
    assert values["acc_dominant"] == pytest.approx(5 / 6)
    H = lambda *p: -sum(x * np.log(x) for x in p)  # noqa: E731
    mutual = H(1 / 2, 1 / 3, 1 / 6) + H(1 / 2, 1 / 2) - H(2 / 6, 1 / 6, 2 / 6, 1 / 6)
    assert values["nmi"] == pytest.approx(2 * mutual / (H(1 / 2, 1 / 3, 1 / 6) + H(1 / 2, 1 / 2)))
    # pairs together in both: 1 + 1; in clusters: 3 + 1; in classes: 3 + 3; of 15
    assert values["ari"] == pytest.approx((2 - 4 * 6 / 15) / (5 - 4 * 6 / 15))


def test_one_cluster_of_all_rows_knows_nothing():
    values = of_clusters(np.zeros(12, int), np.arange(12) % 3)
    assert values == pytest.approx({"acc_hungarian": 1 / 3, "acc_dominant": 1 / 3, "nmi": 0, "ari": 0})


def test_a_cluster_for_each_row_has_dominating_classes_alone():
    assert acc_dominant(np.arange(12), np.arange(12) % 3) == 1
    assert acc_hungarian(np.arange(12), np.arange(12) % 3) == 3 / 12


@slow_at_first
@given(LABELS)
def test_matched_clusters_have_the_accuracy_of_hungarian(pair):
    clusters, truth = pair
    named = matched(clusters, truth, 5)
    assert np.mean(named == truth) == pytest.approx(acc_hungarian(clusters, truth))
    assert len(set(zip(clusters, named, strict=True))) == len(set(clusters)) == len(set(named))


# -------------------------------------------------------------------------------------------------- what a run has said


def features(spread, n=30, seed=0):
    """Three far groups of rows, far from the origin too; whose group a row is of."""
    rng, y = np.random.default_rng(seed), np.arange(n) % 3
    return (100 + 10 * np.eye(3)[y] + spread * rng.normal(size=(n, 3))).astype(np.float32), y


def test_kmeans_finds_groups_and_is_the_same_each_time():
    f, y = features(0.1)
    assert acc_hungarian(by_kmeans(f, 3, 0), y) == 1
    torch.manual_seed(5)
    assert np.array_equal(by_kmeans(f, 3, 4), by_kmeans(f, 3, 4))


def test_kmeans_finds_groups_that_are_near_each_other_and_far_from_the_origin():
    """In float32, where squares of such numbers say nothing of their differences."""
    f, y = features(0.1)
    assert acc_hungarian(by_kmeans(f + np.float32(3e4), 3, 0), y) == 1


def test_numbers_by_kmeans_are_means_over_ten_starts():
    f, y = features(8.0)
    each = [of_clusters(by_kmeans(f, 4, seed), y) for seed in range(10)]
    values = TASK.measure({"feature_B1": f}, {"label": y}, None, 4)
    assert values == pytest.approx({f"{m}/B1/kmeans": np.mean([one[m] for one in each]) for m in each[0]})
    assert len({one["nmi"] for one in each}) > 1


def test_lengths_of_features_count():
    """Two groups of one direction."""
    f, y = np.repeat([[1.0, 1.0], [9.0, 9.0]], 4, 0).astype(np.float32), np.arange(8) // 4
    assert TASK.measure({"feature_B0": f}, {"label": y}, None, 2)["acc_hungarian/B0/kmeans"] == 1


def test_a_classifier_has_names_of_its_own():
    f, y = features(0.1)
    logits = np.eye(3)[np.zeros(30, int)]
    values = TASK.measure({"feature_B0": f, "cluster_B0": logits, "feature_B1": f}, {"label": y}, None, 3)
    assert len(values) == 4 + 4 + 4
    assert values["acc_hungarian/B0"] == TASK.choice(values) == pytest.approx(1 / 3)
    assert values["acc_hungarian/B0/kmeans"] == values["acc_hungarian/B1/kmeans"] == 1
    assert TASK.choice(TASK.measure({"feature_B0": f}, {"label": y}, None, 3)) == 1
    assert cluster_of({"feature_B0": f, "cluster_B0": logits}, 3).tolist() == [0] * 30
    assert np.array_equal(cluster_of({"feature_B0": f}, 3), by_kmeans(f, 3, 0))
