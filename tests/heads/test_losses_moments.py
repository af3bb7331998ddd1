"""MMD and CORAL against double loops, numbers worked by hand, and what leaves them unchanged."""

import math

import pytest
import torch

from heads.losses.moments import FACTORS, coral, covariance, mean_gap, mmd, squared_distances
from heads.methods.mmd import Params


def rows(seed, count=5, dim=3, scale=1.0):
    return scale * torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everyone(f):
    return torch.ones(len(f), dtype=torch.bool)


def whole(loss, s, t, *more):
    return loss(s, t, everyone(s), everyone(t), *more).item()


def square(x, y):
    return sum((a - b) ** 2 for a, b in zip(x, y, strict=True))


def naive_mmd(s, t, gamma):
    if not gamma:
        both = s + t
        gamma = sum(square(x, y) for x in both for y in both) / (len(both) * (len(both) - 1))
    k = lambda x, y: sum(math.exp(-square(x, y) / (gamma * 2**g)) for g in [-8 + i * math.sqrt(2) for i in range(12)])  # noqa: E731
    E = lambda u, v: sum(k(x, y) for x in u for y in v) / (len(u) * len(v))  # noqa: E731
    return E(s, s) + E(t, t) - 2 * E(s, t)


def naive_covariance(s):
    D, n = len(s[0]), len(s)
    mean = [sum(x[i] for x in s) / n for i in range(D)]
    return [[sum((x[i] - mean[i]) * (x[j] - mean[j]) for x in s) / (n - 1) for j in range(D)] for i in range(D)]


def naive_coral(s, t):
    C_s, C_t = naive_covariance(s), naive_covariance(t)
    D = len(C_s)
    return sum((C_s[i][j] - C_t[i][j]) ** 2 for i in range(D) for j in range(D)) / D**2


@pytest.mark.parametrize("gamma", [9.7, 0.3, 0.0])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_mmd_equals_the_double_loop(gamma, count):
    s, t = rows(0, count), rows(1, 4) + 0.5
    assert whole(mmd, s, t, gamma) == pytest.approx(naive_mmd(s.tolist(), t.tolist(), gamma))


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("D", [10, 100, 1000, 10_000])
def test_the_default_kernels_have_a_gradient_for_features_of_any_size(D, scale):
    s, t = (rows(seed, 30, D, scale) + seed * scale * D**-0.5 for seed in (0, 1))
    s.requires_grad_()
    value = mmd(s, t, everyone(s), everyone(t), Params().gamma)
    (gradient,) = torch.autograd.grad(value, s)
    assert gradient.norm() * s.detach().norm() > 0.2  # a lower bound of the change of MMD² by a relative step


@pytest.mark.parametrize("count", [2, 3, 7])
def test_coral_equals_the_double_loop(count):
    s, t = rows(0, count), rows(1, 4, scale=2.0)
    assert whole(coral, s, t) == pytest.approx(naive_coral(s.tolist(), t.tolist()))


def test_kernels_span_sixteen_octaves():
    assert len(FACTORS) == 12
    assert FACTORS[0] == 2**-8
    assert FACTORS[-1] == pytest.approx(2 ** (11 * math.sqrt(2) - 8))


def test_two_points_worked_by_hand():
    s, t = torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])
    assert whole(mmd, s, t, 9.7) == pytest.approx(sum(2 - 2 * math.exp(-25 / (9.7 * f)) for f in FACTORS), rel=1e-5)
    assert whole(mmd, s, t, 0.0) == pytest.approx(sum(2 - 2 * math.exp(-1 / f) for f in FACTORS), rel=1e-5)
    assert whole(mean_gap, s, t) == pytest.approx((9 + 16) / 2)


def test_covariances_worked_by_hand():
    s = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])  # variances 2 and 0
    t = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])  # variances 2 and 2, covariance 2
    assert whole(coral, s, t) == pytest.approx((0 + 4 + 4 + 4) / 4)


@pytest.mark.parametrize("loss", [lambda *a: mmd(*a, 9.7), lambda *a: mmd(*a, 0.0), coral, mean_gap])
def test_symmetric_nothing_between_equals_and_unmoved_by_a_common_motion(loss):
    s, t = rows(0), rows(1, 6, scale=1.5) + 1
    turn, _ = torch.linalg.qr(rows(2, 3))
    value = whole(loss, s, t)
    assert value > 0.01
    assert whole(loss, t, s) == pytest.approx(value)
    assert whole(loss, s @ turn + 5, t @ turn + 5) == pytest.approx(value)
    assert whole(loss, s, s.flip(0)) == pytest.approx(0, abs=1e-12)


def test_far_from_the_origin_single_precision_is_enough():
    s, t = rows(0).float(), rows(1).float() + 1
    assert whole(mmd, s + 1000, t + 1000, 0.5) == pytest.approx(whole(mmd, s, t, 0.5), rel=1e-3)


def test_who_sees_what():
    """Equal means, other variances; then equal means and covariances of non-normal rows."""
    s = rows(0, 50)
    s = s - s.mean(0)
    assert whole(mean_gap, s, 2 * s) == pytest.approx(0, abs=1e-20)
    assert whole(coral, s, 2 * s) > 0.1
    assert whole(coral, s, s + 3) == pytest.approx(0, abs=1e-20)
    skewed = torch.tensor([[2.0], [-1.0], [-1.0]], dtype=torch.float64)
    assert whole(coral, skewed, -skewed) == whole(mean_gap, skewed, -skewed) == 0
    assert whole(mmd, skewed, -skewed, 1.0) > 0.1


def test_width_from_the_batch_makes_mmd_blind_to_scale_and_is_a_constant():
    s, t = rows(0).requires_grad_(), rows(1) + 1
    value = whole(mmd, s, t, 0.0)
    assert whole(mmd, 1000 * s, 1000 * t, 0.0) == pytest.approx(value)
    assert whole(mmd, 1000 * s, 1000 * t, 9.7) != pytest.approx(value, rel=0.01)
    both = torch.cat([s, t]).detach()
    width = (squared_distances(both, everyone(both)).sum() / (len(both) * (len(both) - 1))).item()
    of = lambda gamma: torch.autograd.grad(mmd(s, t, everyone(s), everyone(t), gamma), s)[0]  # noqa: E731
    assert torch.allclose(of(0.0), of(width))


@pytest.mark.parametrize("loss", [lambda *a: mmd(*a, 9.7), lambda *a: mmd(*a, 0.0), coral, mean_gap])
def test_rows_that_do_not_count_have_no_say(loss):
    s, t = rows(0, 6).requires_grad_(), rows(1, 5).requires_grad_()
    in_s, in_t = torch.tensor([1, 0, 1, 1, 0, 1]).bool(), torch.tensor([0, 1, 1, 1, 0]).bool()
    value = loss(s, t, in_s, in_t)
    assert value.item() == pytest.approx(whole(loss, s[in_s], t[in_t]))
    value.backward()
    assert s.grad[~in_s].abs().max() == t.grad[~in_t].abs().max() == 0
    assert s.grad[in_s].abs().min(1).values.max() > 0


@pytest.mark.parametrize("loss", [lambda *a: mmd(*a, 9.7), lambda *a: mmd(*a, 0.0), coral, mean_gap])
def test_an_empty_group_gives_nothing(loss):
    s, t, nobody = rows(0).requires_grad_(), rows(1).requires_grad_(), torch.zeros(5, dtype=torch.bool)
    for in_s, in_t in ((nobody, everyone(t)), (everyone(s), nobody), (nobody, nobody)):
        value = loss(s, t, in_s, in_t)
        assert value.item() == 0
        assert all(g.abs().max() == 0 for g in torch.autograd.grad(value, (s, t)))


def test_one_row_has_no_covariance():
    assert whole(coral, rows(0, 1), rows(1)) == whole(coral, rows(1), rows(0, 1)) == 0
    assert covariance(rows(0, 1), torch.tensor([True])).abs().max() == 0


def test_equal_rows_are_no_division_by_nothing():
    s = torch.ones(3, 2, requires_grad=True)
    value = mmd(s, torch.ones(2, 2), everyone(s), torch.ones(2, dtype=torch.bool), 0.0)
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.grad(value, s)[0].isfinite().all()


@pytest.mark.parametrize("loss", [lambda *a: mmd(*a, 2.0), coral, mean_gap])
def test_gradients_are_those_of_finite_differences(loss):
    s, t = rows(0).requires_grad_(), rows(1, 4).requires_grad_()
    in_s = torch.tensor([1, 1, 0, 1, 1]).bool()
    assert torch.autograd.gradcheck(lambda s, t: loss(s, t, in_s, everyone(t)), (s, t))
