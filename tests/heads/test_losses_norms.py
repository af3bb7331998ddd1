"""Mean norms and their ratios against naive loops and numbers worked by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heads.losses import norms
from heads.losses.norms import EPS, mean_norms


def relative_norm(u, v, in_u=None, in_v=None):
    """R over one group: the rows that in_u, in_v count in."""
    in_u, in_v = (torch.ones(len(f), dtype=torch.bool) if i is None else i for f, i in ((u, in_u), (v, in_v)))
    return norms.relative_norm(mean_norms(u, in_u[:, None]), mean_norms(v, in_v[:, None])).sum()


def relative_norm_per_class(u, v, y_u, y_v, classes):
    """Σ over classes of R; -1 is no class."""
    of = lambda f, y: mean_norms(f, y[:, None] == torch.arange(classes))  # noqa: E731
    return norms.relative_norm(of(u, y_u), of(v, y_v)).sum()


def R(a, b):
    return (a / b - b / a) ** 2


def norm(row):
    return math.sqrt(sum(float(v) ** 2 for v in row))


def naive(u, v, y_u, y_v, classes):
    """The definition, with explicit indices."""
    total = 0.0
    for c in range(classes):
        norms_u = [norm(u[i]) for i in range(len(u)) if int(y_u[i]) == c]
        norms_v = [norm(v[i]) for i in range(len(v)) if int(y_v[i]) == c]
        if norms_u and norms_v:
            total += R(max(sum(norms_u) / len(norms_u), EPS), max(sum(norms_v) / len(norms_v), EPS))
    return total


def features(seed, rows, dim=3):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_ratio_two_to_one():
    u, v = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.6, 0.8]])
    assert relative_norm(u, v).item() == pytest.approx((2 - 0.5) ** 2)


def test_mean_of_norms_not_norm_of_mean():
    u = torch.tensor([[3.0], [-3.0]])  # norms 3 and 3, although the mean vector is 0
    assert relative_norm(u, torch.tensor([[1.0]])).item() == pytest.approx(R(3, 1))


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_equals_the_naive_loop(rows):
    u, v = features(1, rows), features(2, 5)
    everyone = lambda f: torch.zeros(len(f), dtype=torch.long)  # noqa: E731
    assert relative_norm(u, v).item() == pytest.approx(naive(u, v, everyone(u), everyone(v), 1))


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=9), st.lists(st.integers(-1, 3), min_size=1, max_size=9))
def test_per_class_equals_the_naive_loop(classes_u, classes_v):
    u, v = features(1, len(classes_u)), features(2, len(classes_v))
    y_u, y_v = torch.tensor(classes_u), torch.tensor(classes_v)
    assert relative_norm_per_class(u, v, y_u, y_v, 4).item() == pytest.approx(naive(u, v, y_u, y_v, 4))


def test_per_class_by_hand():
    u, v = torch.tensor([[2.0], [4.0], [1.0], [7.0]]), torch.tensor([[1.0], [5.0], [3.0]])
    y_u, y_v = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 3, 1])
    # class 0: 3 and 1; class 1: 1 and 3; classes 2 and 3 stand on one side only
    assert relative_norm_per_class(u, v, y_u, y_v, 4).item() == pytest.approx(2 * R(3, 1))


@pytest.mark.parametrize("swap", [False, True])
def test_symmetric_and_unchanged_by_a_common_scale(swap):
    u, v, y_u, y_v = features(3, 6), features(4, 5), torch.arange(6) % 3, torch.arange(5) % 3
    a, b, y_a, y_b = (v, u, y_v, y_u) if swap else (5.5 * u, 5.5 * v, y_u, y_v)
    assert relative_norm(a, b).item() == pytest.approx(relative_norm(u, v).item())
    expected = relative_norm_per_class(u, v, y_u, y_v, 3).item()
    assert relative_norm_per_class(a, b, y_a, y_b, 3).item() == pytest.approx(expected)


def test_zero_for_equal_norms_whatever_the_directions():
    u, v = torch.tensor([[3.0, 4.0]]), torch.tensor([[-5.0, 0.0], [0.0, 5.0]])
    assert relative_norm(u, v).item() == pytest.approx(0)


def test_rows_that_do_not_count():
    u, v = torch.tensor([[2.0], [100.0]]), torch.tensor([[1.0], [50.0]])
    only_first = torch.tensor([True, False])
    assert relative_norm(u, v, only_first, only_first).item() == pytest.approx(2.25)
    nobody = torch.tensor([False, False])
    assert relative_norm(u, v, nobody, only_first).item() == 0


@pytest.mark.parametrize("dead", [0.0, 1e-12, 1e-30])
def test_dead_modality_is_large_but_finite(dead):
    u = torch.full((4, 3), dead, requires_grad=True)
    v = torch.ones(4, 3, requires_grad=True)
    loss = relative_norm(u, v) + relative_norm_per_class(u, v, torch.arange(4), torch.arange(4), 4)
    loss.backward()
    assert loss.item() > 1e9
    for tensor in (loss, u.grad, v.grad):
        assert tensor.isfinite().all()


def test_gradients_are_those_of_finite_differences():
    u, v = features(5, 4).requires_grad_(), features(6, 3).requires_grad_()
    y_u, y_v = torch.tensor([0, 1, 1, -1]), torch.tensor([1, 0, 2])
    assert torch.autograd.gradcheck(relative_norm, (u, v))
    assert torch.autograd.gradcheck(lambda a, b: relative_norm_per_class(a, b, y_u, y_v, 3), (u, v))


def test_gradient_flows_into_both_sides_and_brings_them_together():
    u, v = torch.full((2, 2), 3.0, requires_grad=True), torch.full((2, 2), 1.0, requires_grad=True)
    relative_norm(u, v).backward()
    assert (u.grad > 0).all()  # descent shrinks the larger
    assert (v.grad < 0).all()  # and lets the smaller grow


def test_groups_may_overlap_and_be_empty():
    f = torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 2.0]])
    groups = torch.tensor([[True, True, False], [True, False, False], [True, True, False]])
    h, there = mean_norms(f, groups)
    assert h.tolist() == pytest.approx([(5 + 1 + 2) / 3, (5 + 2) / 2, EPS])
    assert there.tolist() == [True, True, False]
