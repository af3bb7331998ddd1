"""Spherical k-means: directions instead of places."""

from itertools import pairwise

import pytest
import torch
from torch.nn.functional import normalize

from heads.cluster import lloyd, spherical_kmeans, spread_start

torch.set_num_threads(1)


def rows(seed=0, count=120, groups=5, dim=4):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(groups, dim, generator=generator)
    lengths = 10 * torch.rand(count, 1, generator=generator) + 0.1
    return lengths * (centres[torch.arange(count) % groups] + 0.4 * torch.randn(count, dim, generator=generator))


def objective(x, centroids):
    """Σ_n max_k cos(x_n, c_k)."""
    return (normalize(x) @ centroids.T).amax(1).sum().item()


def start_of(x, k, seed=0):
    return spread_start(normalize(x), k, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(5))
def test_the_objective_never_lowers(seed):
    x = rows(seed)
    found = [objective(x, lloyd(normalize(x), start_of(x, 7, seed), n, normalize)[0]) for n in range(12)]
    assert all(after >= before - 1e-4 for before, after in pairwise(found))
    assert found[-1] > found[0]


def test_an_iteration_equals_the_loops():
    x = rows()
    start = start_of(x, 6)
    labels = [max(range(6), key=lambda k: torch.dot(row, start[k]).item()) for row in normalize(x)]
    sums = [sum(row for row, y in zip(normalize(x), labels, strict=True) if y == k) for k in range(6)]
    wanted = torch.stack([total / total.norm() for total in sums])
    assert torch.allclose(lloyd(normalize(x), start, 1, normalize)[0], wanted, atol=1e-5)


def test_only_directions_count_and_centroids_have_length_1():
    x = rows()
    found = spherical_kmeans(x, 5, seed=0)
    assert torch.allclose(found.norm(dim=1), torch.ones(5), atol=1e-6)
    scaled = spherical_kmeans(x * (1 + torch.arange(len(x)))[:, None], 5, seed=0)
    assert torch.allclose(found, scaled, atol=1e-4)
    best = max(objective(x, lloyd(normalize(x), start_of(x, 5, seed), 100, normalize)[0]) for seed in range(3))
    assert objective(x, found) > 0.97 * best


def test_as_many_clusters_as_rows_are_the_rows():
    x = rows(count=5)
    assert objective(x, spherical_kmeans(x, 5, seed=0)) == pytest.approx(5)
    with pytest.raises(ValueError, match="5 rows .* 6 clusters"):
        spherical_kmeans(x, 6, seed=0)


def test_of_several_starts_the_best_is_kept_and_it_moves_no_more():
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))  # no groups: means differ in length
    generator = torch.Generator().manual_seed(0)
    starts = [spread_start(normalize(x), 6, generator) for _ in range(5)]
    each = [objective(x, lloyd(normalize(x), start, 100, normalize)[0]) for start in starts]
    found = spherical_kmeans(x, 6, seed=0)
    assert objective(x, found) == pytest.approx(max(each), abs=1e-4)
    assert max(each) > min(each) + 0.01
    assert torch.allclose(lloyd(normalize(x), found, 1, normalize)[0], found, atol=1e-5)
