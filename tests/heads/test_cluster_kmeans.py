"""k-means: Lloyd's algorithm from k-means++ starts."""

from itertools import pairwise

import pytest
import torch

from heads import cluster
from heads.cluster import kmeans, lloyd, nearest, spread_start

torch.set_num_threads(1)


def blobs(rows=200, groups=8, dim=5, seed=0, apart=4.0):
    generator = torch.Generator().manual_seed(seed)
    centres = apart * torch.randn(groups, dim, generator=generator)
    return centres[torch.arange(rows) % groups] + torch.randn(rows, dim, generator=generator)


def start_of(x, k, seed=0):
    return spread_start(x, k, torch.Generator().manual_seed(seed))


def naive_lloyd(x, centroids):
    """One iteration with loops."""
    labels = [min(range(len(centroids)), key=lambda k: ((row - centroids[k]) ** 2).sum().item()) for row in x]
    return torch.stack([x[[i for i, y in enumerate(labels) if y == k]].mean(0) for k in range(len(centroids))])


def test_an_iteration_equals_the_loops():
    x = blobs(60)
    start = start_of(x, 6)
    assert torch.allclose(lloyd(x, start, 1)[0], naive_lloyd(x, start), atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn_from_the_same_start(seed):
    pytest.importorskip("sklearn")
    from sklearn.cluster import KMeans

    x = blobs(300, groups=12, seed=seed, apart=1.0)  # so near that several clusters share a group
    start = start_of(x, 10, seed)
    theirs = KMeans(10, init=start.numpy(), n_init=1, algorithm="lloyd", tol=0, max_iter=100).fit(x.numpy())
    centroids, inertia = lloyd(x, start, 100)
    assert torch.allclose(centroids, torch.from_numpy(theirs.cluster_centers_), atol=1e-4)
    assert inertia == pytest.approx(theirs.inertia_, rel=1e-5)


def test_equals_scikit_learn_where_clusters_run_empty():
    pytest.importorskip("sklearn")
    from sklearn.cluster import KMeans

    x = blobs(40, groups=4)
    start = torch.cat([x[:2], torch.tensor([[500.0] * 5, [-500.0] * 5])])
    theirs = KMeans(4, init=start.numpy(), n_init=1, algorithm="lloyd", tol=0, max_iter=100).fit(x.numpy())
    assert torch.allclose(lloyd(x, start, 100)[0], torch.from_numpy(theirs.cluster_centers_), atol=1e-4)


@pytest.mark.parametrize("empty", [False, True])
def test_inertia_never_rises(empty):
    x = blobs(apart=1.0)
    start = start_of(x, 12)
    if empty:
        start[3:6] = 300.0
    inertia = [lloyd(x, start, n)[1] for n in range(15)]
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(inertia))
    assert inertia[-1] < inertia[0]


def test_no_cluster_is_left_empty():
    x = blobs()
    centroids, _ = lloyd(x, torch.cat([x[:1], torch.full((9, 5), 300.0)]), 50)
    assert len(nearest(x, centroids)[0].unique()) == 10


def test_more_clusters_than_different_rows():
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).repeat(4, 1)
    centroids = kmeans(x, 5, seed=0)
    assert centroids.isfinite().all()
    assert nearest(x, centroids)[1].max() == pytest.approx(0, abs=1e-12)


def test_finds_groups_that_lie_apart():
    x = blobs(apart=30.0)
    labels = nearest(x, kmeans(x, 8, seed=0))[0]
    groups = torch.arange(200) % 8
    assert torch.equal(labels[:, None] == labels, groups[:, None] == groups)


def test_the_best_of_several_starts_is_kept():
    x = blobs(apart=1.5)
    cost = [nearest(x, kmeans(x, 12, seed=1, restarts=n))[1].sum().item() for n in (1, 2, 4, 8)]
    assert all(after <= before * (1 + 1e-5) for before, after in pairwise(cost))
    assert cost[-1] < cost[0]


def test_equal_seeds_equal_centroids_and_the_global_stream_is_left_alone():
    x = blobs()
    state = torch.get_rng_state()
    first = kmeans(x, 6, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(kmeans(x, 6, seed=3), first)
    assert not torch.equal(kmeans(x, 6, seed=4, restarts=1), kmeans(x, 6, seed=3, restarts=1))


def test_blocks_change_nothing(monkeypatch):
    x = blobs()
    whole = nearest(x, x[:7])
    monkeypatch.setattr(cluster, "BLOCK", 33)
    labels, squares = nearest(x, x[:7])
    assert torch.equal(labels, whole[0])
    assert torch.allclose(squares, whole[1])


def test_a_far_origin_does_not_blur_the_distances():
    x = blobs(apart=30.0)
    labels = nearest(x, kmeans(x, 8, seed=0))[0]
    moved = x + 3e3
    centroids = kmeans(moved, 8, seed=0)
    assert torch.equal(nearest(moved - 3e3, centroids - 3e3)[0], labels)


def test_starts_are_drawn_in_proportion_to_the_squared_distance():
    """Rows at 0 and 1 and 3: from a first one at 0, the second is at 3 nine times in ten."""
    x = torch.tensor([[0.0]] * 50 + [[1.0], [3.0]])
    generator = torch.Generator().manual_seed(0)
    seconds = [start[1].item() for start in (spread_start(x, 2, generator) for _ in range(1000)) if start[0] == 0]
    assert sum(second == 3 for second in seconds) / len(seconds) == pytest.approx(0.9, abs=0.03)
    assert 0.0 not in seconds


@pytest.mark.parametrize("k", [0, 5])
def test_too_many_clusters_are_refused(k):
    with pytest.raises(ValueError, match=f"4 rows .*{k} clusters.* 1 to 4"):
        kmeans(blobs(4), k, seed=0)
