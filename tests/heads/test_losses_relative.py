"""Relative alignment against naive loops, numbers worked by hand, and what each loss cannot see."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from heads.losses.relative import feature_distance, mean_where, mix, mixing_factor, relation_divergence


def relations(seed, P=4, L=3, T=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(P, L, T, T, generator=generator, dtype=torch.float64).softmax(-1)


def rows(seed, P=5, D=4):
    return torch.randn(P, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------------------------------------- mixing


@given(st.floats(0, 1), st.floats(0.05, 3))
def test_factor_is_the_larger_softmax(l, tau):  # noqa: E741
    high, low = math.exp(l / tau), math.exp((1 - l) / tau)
    found = mixing_factor(torch.tensor([l], dtype=torch.float64), tau).item()
    assert found == pytest.approx(max(high, low) / (high + low), rel=1e-12)


@given(st.floats(0, 1), st.floats(0.05, 0.99))
def test_hypothetical_lies_nearer_to_the_confident_parent(l, tau):  # noqa: E741
    l_P = torch.tensor([l], dtype=torch.float64)
    lam, mu = mixing_factor(l_P).item(), mixing_factor(l_P, tau).item()
    assert 0.5 <= lam <= mu <= 1
    assert lam == pytest.approx(mixing_factor(1 - l_P).item())
    if abs(l - 0.5) > 1e-3:
        assert mu > lam


def test_published_factors_differ_by_little():
    l_P = torch.linspace(0, 1, 1001, dtype=torch.float64)
    lam, mu = mixing_factor(l_P), mixing_factor(l_P, 0.9)
    assert lam.max().item() == pytest.approx(1 / (1 + math.exp(-1)))
    assert (mu - lam).max().item() == pytest.approx(1 / (1 + math.exp(-1 / 0.9)) - 1 / (1 + math.exp(-1)))
    assert mu[500] == lam[500] == 0.5


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 4, 4)])
def test_mix_weighs_each_pair_by_itself(shape):
    generator = torch.Generator().manual_seed(0)
    high, low = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    w = torch.tensor([0.0, 0.25, 1.0])
    mixed = mix(w, high, low)
    assert torch.equal(mixed[0], low[0])
    assert torch.allclose(mixed[1], 0.25 * high[1] + 0.75 * low[1])
    assert torch.equal(mixed[2], high[2])


def test_mixtures_of_relations_are_relations():
    mixed = mix(torch.tensor([0.5, 0.6, 0.7, 0.8], dtype=torch.float64), relations(0), relations(1))
    assert torch.allclose(mixed.sum(-1), torch.ones(4, 3, 3, dtype=torch.float64))


# ----------------------------------------------------------------------------------------------------------- distance


def test_distance_equals_the_naive_loop():
    f, g, counts = rows(0), rows(1), [True, False, True, True, False]
    each = [math.sqrt(sum((a - b) ** 2 for a, b in zip(u, v, strict=True))) for u, v in zip(f, g, strict=True)]
    expected = sum(d for d, is_in in zip(each, counts, strict=True) if is_in) / 3
    assert feature_distance(f, g, torch.tensor(counts)).item() == pytest.approx(expected, rel=1e-12)


def test_distance_is_a_distance():
    f, g, everyone = rows(0), rows(1), torch.ones(5, dtype=torch.bool)
    assert feature_distance(f, f, everyone) == 0
    assert torch.equal(feature_distance(f, g, everyone), feature_distance(g, f, everyone))
    shift, turn = rows(2, P=1), torch.linalg.qr(rows(3, P=4)).Q
    assert torch.allclose(feature_distance(f + shift, g + shift, everyone), feature_distance(f, g, everyone))
    assert torch.allclose(feature_distance(f @ turn, g @ turn, everyone), feature_distance(f, g, everyone))
    assert torch.allclose(feature_distance(3 * f, 3 * g, everyone), 3 * feature_distance(f, g, everyone))


def test_distance_has_a_gradient_everywhere():
    f, g = rows(0).requires_grad_(), rows(1).requires_grad_()
    counts = torch.tensor([True, False, True, True, True])
    assert gradcheck(lambda f, g: feature_distance(f, g, counts), (f, g))
    feature_distance(f, f.detach(), counts).backward()  # a norm has no slope at 0
    assert f.grad.abs().max() == 0


# --------------------------------------------------------------------------------------------------------- divergence


def naive_divergence(A, B, present):
    """Pair by pair, window by window, on numbers."""
    pairs = []
    for p in range(len(A)):
        windows = [t for t in range(A.shape[2]) if present[p][t]]
        if windows:
            total = 0.0
            for layer in range(A.shape[1]):
                for t in windows:
                    a, b = A[p, layer, t].tolist(), B[p, layer, t].tolist()
                    total += sum(x * (math.log(x) - math.log(y)) for x, y in zip(a, b, strict=True) if x) / len(windows)
            pairs.append(total)
    return sum(pairs) / len(pairs) if pairs else 0.0


@pytest.mark.parametrize("gaps", [[], [(0, 1)], [(1, 0), (1, 2), (3, 0), (3, 1), (3, 2)]])
def test_divergence_equals_the_naive_loops(gaps):
    A, B, present = relations(0), relations(1), torch.ones(4, 3, dtype=torch.bool)
    for gap in gaps:
        present[gap] = False
    expected = naive_divergence(A, B, present)
    assert expected > 0
    assert relation_divergence(A, B, present).item() == pytest.approx(expected, rel=1e-9)


def test_divergence_goes_from_the_first_to_the_second():
    """KL(A ‖ B) for A = (3/4, 1/4), B = (1/2, 1/2): 3/4 log 3/2 + 1/4 log 1/2, and another number the other way."""
    A, B = torch.tensor([[[[0.75, 0.25]]]]), torch.tensor([[[[0.5, 0.5]]]])
    there = torch.ones(1, 1, dtype=torch.bool)
    assert relation_divergence(A, B, there).item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert relation_divergence(B, A, there).item() == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2))


def test_divergence_is_least_for_equal_relations_and_adds_layers():
    A, B, there = relations(0), relations(1), torch.ones(4, 3, dtype=torch.bool)
    assert relation_divergence(A, A, there) == 0
    layers = [relation_divergence(A[:, k : k + 1], B[:, k : k + 1], there) for k in range(3)]
    assert all(one > 0 for one in layers)
    assert relation_divergence(A, B, there).item() == pytest.approx(sum(layers).item())


def test_divergence_has_a_gradient_everywhere():
    A, B = relations(0, P=2, L=1).requires_grad_(), relations(1, P=2, L=1).requires_grad_()
    present = torch.tensor([[True, True, False], [True, True, True]])
    assert gradcheck(lambda A, B: relation_divergence(A, B, present), (A, B))
    hard = torch.eye(3).expand(2, 1, 3, 3).clone().requires_grad_()  # zeros against zeros, and against ones
    relation_divergence(hard, hard.detach().flip(3), present).backward()
    assert hard.grad.isfinite().all()


# -------------------------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize("P", [0, 3])
def test_no_pair_that_counts_gives_zero_and_no_gradient(P):
    f = torch.ones(P, 2, requires_grad=True)
    A = torch.full((P, 1, 2, 2), 0.5, requires_grad=True)
    total = feature_distance(f, 0 * f, torch.zeros(P, dtype=torch.bool))
    total = total + relation_divergence(A, A.detach(), torch.zeros(P, 2, dtype=torch.bool))
    total.backward()
    assert total == 0
    assert f.grad.isfinite().all()
    assert not f.grad.any()
    assert not A.grad.any()


def test_mean_over_the_rows_that_count():
    assert mean_where(torch.tensor([1.0, 9.0, 3.0]), torch.tensor([True, False, True])) == 2
