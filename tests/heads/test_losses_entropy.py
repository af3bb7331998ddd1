"""Entropy and information maximisation at their limits, and against naive loops."""

import math

import pytest
import torch

from heads.losses.entropy import entropy, information


def naive_information(p):
    H = lambda row: -sum(q * math.log(q) for q in row if q > 0)  # noqa: E731
    mean = [sum(row[k] for row in p) / len(p) for k in range(len(p[0]))]
    return sum(H(row) for row in p) / len(p) - H(mean)


def test_uniform_predictions_give_nothing():
    p = torch.full((5, 7), 1 / 7)
    assert entropy(p).tolist() == pytest.approx([math.log(7)] * 5)
    assert information(p).item() == pytest.approx(0, abs=1e-6)


def test_confident_and_balanced_is_the_minimum():
    assert information(torch.eye(6)).item() == pytest.approx(-math.log(6))


def test_confident_but_all_in_one_class_gains_nothing():
    assert information(torch.eye(6)[[2, 2, 2]]).item() == pytest.approx(0)


def test_equals_the_naive_loop():
    p = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(1)
    assert information(p).item() == pytest.approx(naive_information(p.tolist()))


def test_saturated_softmax_has_finite_gradients():
    z = torch.tensor([[1000.0, 0.0, -1000.0]], requires_grad=True)
    (information(z.softmax(1)) + entropy(z.softmax(1)).sum()).backward()
    assert z.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences():
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: information(z.softmax(1)), z)
