"""Rows to clusters of equal size: the linear programme, the definition, the marginals, and the surest predictions."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from heads.losses.transport import cluster_scales, transport_plan

torch.set_num_threads(1)


def predictions(N, K, seed=0, scale=2.0, dtype=torch.float64):
    """Log of softmax of normal scores."""
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(N, K, generator=generator, dtype=torch.float64)).log_softmax(1).to(dtype)


def plan(log_p, xi=10.0, iterations=2000, tolerance=1e-7):
    scales = cluster_scales(log_p, xi, iterations=iterations, tolerance=tolerance)
    return transport_plan(log_p, xi, scales)


def least_cost(log_p):
    """<S, -log P> of the best plan, by linear programming."""
    N, K = log_p.shape
    sums = [np.kron(np.eye(N), np.ones(K)), np.kron(np.ones(N), np.eye(K))]
    right = np.concatenate([np.full(N, 1 / N), np.full(K, 1 / K)])
    return linprog(-log_p.numpy().ravel(), A_eq=np.vstack(sums), b_eq=right).fun


# where K divides N, masses converge as slowly as 1 / iterations: the best plan then splits no row
@pytest.mark.parametrize(("N", "K"), [(5, 2), (10, 3), (11, 4), (3, 5)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_regularisation_the_cost_is_that_of_the_linear_programme(N, K, seed):
    log_p = predictions(N, K, seed)
    S = plan(log_p, xi=100.0)
    best = least_cost(log_p)
    assert best * (1 - 1e-6) <= -(S * log_p).sum().item() <= 1.01 * best


@pytest.mark.parametrize(("N", "K"), [(6, 3), (10, 5), (12, 3)])
def test_where_k_divides_n_the_cost_is_within_a_hundredth_too(N, K):
    """From both sides: masses are not equal yet after so many iterations."""
    log_p = predictions(N, K)
    assert -(plan(log_p, xi=100.0) * log_p).sum().item() == pytest.approx(least_cost(log_p), rel=0.01)


@pytest.mark.parametrize(("N", "K"), [(6, 5), (23, 4), (200, 51), (3, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_marginals_are_uniform(N, K, dtype):
    S = plan(predictions(N, K, dtype=dtype))
    assert (S >= 0).all()
    assert (S.sum(1) - 1 / N).abs().max() < 1e-12
    assert (S.sum(0) - 1 / K).abs().max() < 1e-6


@pytest.mark.parametrize(("N", "K"), [(10, 5), (204, 51)])
def test_marginals_are_nearly_uniform_where_k_divides_n(N, K):
    S = plan(predictions(N, K))
    assert (S.sum(0) - 1 / K).abs().max() < 1e-3 / K


def test_as_it_stops_by_itself_masses_are_off_by_the_tolerance_over_n():
    N, K, tolerance = 20_000, 51, 0.01
    log_p = predictions(N, K, dtype=torch.float32)
    S = transport_plan(log_p, 10.0, cluster_scales(log_p, 10.0, iterations=1000, tolerance=tolerance))
    assert (S.sum(0) - 1 / K).abs().max() < tolerance / N


def naive_plan(p, xi, rounds=3000):
    """u and v by the loops of the supplement's Eq. 11, with 1/K and 1/N."""
    N, K = len(p), len(p[0])
    T = [[value**xi for value in row] for row in p]
    v = [1 / N] * N
    for _ in range(rounds):
        u = [1 / K / sum(T[n][k] * v[n] for n in range(N)) for k in range(K)]
        v = [1 / N / sum(T[n][k] * u[k] for k in range(K)) for n in range(N)]
    return torch.tensor([[v[n] * T[n][k] * u[k] for k in range(K)] for n in range(N)], dtype=torch.float64)


def test_equals_the_loops():
    log_p = predictions(8, 3)
    assert torch.allclose(plan(log_p, xi=3.0), naive_plan(log_p.exp().tolist(), 3.0), atol=1e-9)


def test_predictions_that_are_balanced_already_stay():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.7, 0.2], [0.2, 0.1, 0.7]], dtype=torch.float64)
    scales = cluster_scales(p.log(), 10.0)
    assert torch.allclose(scales, torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert plan(p.log()).argmax(1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("apart", [10.0, 1e3, 1e5])
def test_the_surest_predictions_do_not_vanish(apart):
    """All say cluster 0, and p^10 of the others is 0 in any floating-point number."""
    z = torch.zeros(12, 3)
    z[:, 0] = apart
    assert torch.allclose(plan(z.log_softmax(1)), torch.tensor(1 / 36, dtype=torch.float64), atol=1e-9)
    z[4:8, 1], z[8:, 2] = 0.5 * apart, 0.5 * apart  # those that say it less surely fill the other clusters
    S = plan(z.log_softmax(1))
    assert (S.sum(0) - 1 / 3).abs().max() < 1e-3
    assert S.argmax(1).tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_a_start_at_the_solution_is_the_solution_and_takes_ten_iterations():
    log_p = predictions(300, 9)
    scales = cluster_scales(log_p, 10.0, iterations=10_000, tolerance=1e-10)
    again = cluster_scales(log_p, 10.0, scales + 3, iterations=10)
    assert torch.allclose(again, scales, atol=1e-6)
    assert not torch.allclose(cluster_scales(log_p, 10.0, iterations=10), scales, atol=1e-3)


def test_iterations_end_where_the_tolerance_cannot_be_met():
    log_p = predictions(300, 9, scale=20.0)
    few, more = (cluster_scales(log_p, 10.0, iterations=n, tolerance=0.0) for n in (20, 30))
    assert not torch.equal(few, more)
    assert math.isfinite(few.sum().item())


def test_iterations_end_after_the_first_look_that_meets_the_tolerance():
    log_p = predictions(300, 9)
    ten = cluster_scales(log_p, 10.0, iterations=10)
    assert torch.equal(cluster_scales(log_p, 10.0, iterations=1000, tolerance=1e9), ten)
    assert not torch.equal(cluster_scales(log_p, 10.0, iterations=1000, tolerance=1e-9), ten)
