"""Entropic transport against its definition, the exact assignment, and its limits."""

import math
from itertools import permutations

import pytest
import torch

from heads.losses.transport import cosine_cost, sinkhorn_divergence, transport_cost


def rows(seed, count=5, dim=3):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everyone(count):
    return torch.ones(count, dtype=torch.bool)


def cost(C, epsilon=0.1, iterations=300):
    return transport_cost(C, everyone(C.shape[0]), everyone(C.shape[1]), epsilon, iterations)


def divergence(s, t, epsilon=0.1, iterations=300):
    return sinkhorn_divergence(s, t, everyone(len(s)), everyone(len(t)), epsilon, iterations)


def naive_plan(C, epsilon, rounds=2000):
    """Scale rows and columns of exp(-C / ε) in turn until both sums are uniform."""
    S, T = len(C), len(C[0])
    P = [[math.exp(-c / epsilon) for c in row] for row in C]
    for _ in range(rounds):
        P = [[p / sum(row) / S for p in row] for row in P]
        sums = [sum(row[j] for row in P) for j in range(T)]
        P = [[row[j] / sums[j] / T for j in range(T)] for row in P]
    return P


def naive_value(C, epsilon):
    """<P, C> + ε KL(P | uniform), at the plan."""
    P, S, T = naive_plan(C, epsilon), len(C), len(C[0])
    terms = [P[i][j] * (C[i][j] + epsilon * math.log(P[i][j] * S * T)) for i in range(S) for j in range(T)]
    return sum(terms)


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_value_is_that_of_the_definition(epsilon, count):
    C = cosine_cost(rows(0, count), rows(1, 4))
    assert cost(C, epsilon).item() == pytest.approx(naive_value(C.tolist(), epsilon), rel=1e-6)


def test_gradient_is_the_plan():
    C = cosine_cost(rows(0), rows(1, 4)).requires_grad_()
    (P,) = torch.autograd.grad(cost(C), C)
    assert torch.allclose(P, torch.tensor(naive_plan(C.tolist(), 0.1), dtype=P.dtype), atol=1e-7)
    assert torch.allclose(P.sum(1), torch.full((5,), 1 / 5, dtype=P.dtype))


def test_rows_of_the_plan_are_exact_after_few_iterations_columns_close_after_fifty():
    C = cosine_cost(rows(0, 40), rows(1, 30) + 1).requires_grad_()
    early, late = (torch.autograd.grad(cost(C, 0.1, iterations), C)[0] for iterations in (2, 50))
    for P in (early, late):
        assert torch.allclose(P.sum(1) * 40, torch.ones(40, dtype=P.dtype))
    assert (late.sum(0) * 30 - 1).abs().max() < 1e-2 < (early.sum(0) * 30 - 1).abs().max()


def test_little_entropy_is_the_best_assignment():
    C = cosine_cost(rows(0, 4), rows(1, 4))
    best = min(sum(C[i, j].item() for i, j in enumerate(order)) / 4 for order in permutations(range(4)))
    assert cost(C, 0.01, 1000).item() == pytest.approx(best + 0.01 * math.log(4), abs=1e-3)


def test_much_entropy_is_everyone_to_everyone():
    C = cosine_cost(rows(0), rows(1))
    assert cost(C, 1000.0).item() == pytest.approx(C.mean().item(), rel=1e-3)


def test_cosine_cost_by_hand():
    s, t = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [-3.0, 0.0]])
    assert torch.allclose(cosine_cost(s, t), torch.tensor([[1 - math.sqrt(0.5), 2.0], [1.0, 1.0]]))


def test_divergence_is_its_three_costs():
    s, t = rows(0), rows(1, 4)
    three = [cost(cosine_cost(u, v)).item() for u, v in ((s, t), (s, s), (t, t))]
    assert divergence(s, t).item() == pytest.approx(three[0] - (three[1] + three[2]) / 2)


def test_divergence_is_symmetric_blind_to_order_and_length_and_nothing_between_equals():
    s, t = rows(0), rows(1, 4)
    value = divergence(s, t).item()
    assert value > 0.05
    assert divergence(t, s).item() == pytest.approx(value)
    assert divergence(s.flip(0) * 3, t / 5).item() == pytest.approx(value)
    assert divergence(s, s.flip(0)).item() == pytest.approx(0, abs=1e-9)
    assert divergence(s, s + 0.01 * t[:1]).item() > 0


def test_equal_groups_are_at_rest_only_without_bias():
    s = rows(0).requires_grad_()
    (still,) = torch.autograd.grad(divergence(s, s.detach().clone()), s)
    (drawn,) = torch.autograd.grad(cost(cosine_cost(s, s.detach().clone())), s)
    assert still.abs().max() < 1e-5
    assert drawn.abs().max() > 1e-3  # towards each other: OT alone shrinks a group


def test_one_row_each():
    s, t = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    assert divergence(s, t).item() == pytest.approx(1 - 3 / 5)


def test_rows_that_do_not_count_have_no_say():
    s, t = rows(0, 6).requires_grad_(), rows(1, 5).requires_grad_()
    in_s, in_t = torch.tensor([1, 0, 1, 1, 0, 1]).bool(), torch.tensor([0, 1, 1, 1, 0]).bool()
    value = sinkhorn_divergence(s, t, in_s, in_t, 0.1, 300)
    assert value.item() == pytest.approx(divergence(s[in_s], t[in_t]).item())
    value.backward()
    assert s.grad[~in_s].abs().max() == t.grad[~in_t].abs().max() == 0
    assert s.grad[in_s].abs().max() > 0


@pytest.mark.parametrize("loss", [sinkhorn_divergence, lambda s, t, *a: transport_cost(cosine_cost(s, t), *a)])
def test_an_empty_group_gives_nothing(loss):
    s, t, nobody = rows(0).requires_grad_(), rows(1).requires_grad_(), torch.zeros(5, dtype=torch.bool)
    for in_s, in_t in ((nobody, everyone(5)), (everyone(5), nobody), (nobody, nobody)):
        value = loss(s, t, in_s, in_t, 0.1, 50)
        assert value.item() == 0
        assert all(g.abs().max() == 0 for g in torch.autograd.grad(value, (s, t)))


def test_rows_without_direction_and_opposite_ones_stay_finite():
    s, t = torch.tensor([[1.0, 0.0], [0.0, 0.0]], requires_grad=True), torch.tensor([[-1.0, 0.0], [0.0, 0.0]])
    for epsilon in (0.01, 0.1):
        value = divergence(s, t, epsilon)
        assert value.isfinite()
        assert torch.autograd.grad(value, s)[0].isfinite().all()


def test_gradients_are_those_of_finite_differences():
    s, t = rows(0, 3).requires_grad_(), rows(1, 2).requires_grad_()
    assert torch.autograd.gradcheck(divergence, (s, t))
