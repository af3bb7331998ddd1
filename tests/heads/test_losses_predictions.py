"""Nuclear norm, class confusion and discrepancy against naive loops, at their limits, and on numbers worked by hand."""

import math

import pytest
import torch

from heads.losses.predictions import class_confusion, discrepancy, nuclear_norm


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_confusion(z, T):
    """The paper's equations one after another, the mean-one weights included."""
    B, K = len(z), len(z[0])
    p = [[math.exp(v / T) / sum(math.exp(u / T) for u in row) for v in row] for row in z]
    raw = [1 + math.exp(sum(q * math.log(q) for q in row)) for row in p]
    W = [B * w / sum(raw) for w in raw]
    C = [[sum(W[i] * p[i][j] * p[i][k] for i in range(B)) for k in range(K)] for j in range(K)]
    return sum(C[j][k] / sum(C[j]) for j in range(K) for k in range(K) if j != k) / K


@pytest.mark.parametrize("shape", [(7, 4), (3, 5), (1, 3)])
@pytest.mark.parametrize("T", [1.0, 2.5])
def test_confusion_equals_the_naive_loops(shape, T):
    z = 3 * random(*shape)
    assert class_confusion(z, T).item() == pytest.approx(naive_confusion(z.tolist(), T))


def test_confusion_by_hand():
    # Two rows say (3/4, 1/4) and (1/4, 3/4): equal weights, C ~ [[10, 6], [6, 10]] / 16, so 6/16 lies off the diagonal.
    z = torch.tensor([[3.0, 1.0], [1.0, 3.0]]).log()
    assert class_confusion(z, 1.0).item() == pytest.approx(3 / 8)


def test_confusion_is_nothing_for_certain_rows_and_most_for_uniform_ones():
    assert class_confusion(1e4 * torch.eye(5)[[0, 1, 2, 3, 4, 0]], 1.0).item() == pytest.approx(0, abs=1e-6)
    assert class_confusion(torch.zeros(6, 5), 1.0).item() == pytest.approx(4 / 5)


def test_confusion_counts_a_class_that_no_row_is_of_as_confused_and_stays_finite():
    z = (1e4 * torch.eye(3)[[0, 1, 0, 1]]).requires_grad_()  # the third class underflows to 0 everywhere
    loss = class_confusion(z, 1.0)
    assert loss.item() == pytest.approx(1 / 3)
    loss.backward()
    assert z.grad.isfinite().all()


def test_confusion_does_not_depend_on_the_order_of_rows_or_classes():
    z = random(6, 4)
    once = class_confusion(z, 2.0)
    assert torch.allclose(class_confusion(z[torch.tensor([3, 1, 5, 0, 2, 4])], 2.0), once)
    assert torch.allclose(class_confusion(z[:, torch.tensor([2, 0, 3, 1])], 2.0), once)


def test_weights_of_the_confusion_take_no_gradient():
    z = random(5, 3).requires_grad_()
    p = z.softmax(1)
    weights = (1 + (p * p.log()).sum(1).exp()).detach()
    C = (p * weights[:, None]).T @ p
    expected = torch.autograd.grad(1 - (C.diagonal() / C.sum(1)).mean(), z)[0]
    assert torch.allclose(torch.autograd.grad(class_confusion(z, 1.0), z)[0], expected)


def test_nuclear_norm_by_hand():
    # PᵀP = [[5, 3], [3, 5]] / 8 has the eigenvalues 1 and 1/4, so the singular values are 1 and 1/2.
    p = torch.tensor([[3.0, 1.0], [1.0, 3.0]], dtype=torch.float64) / 4
    assert nuclear_norm(p).item() == pytest.approx((1 + 1 / 2) / 2)


@pytest.mark.parametrize(("B", "K"), [(12, 4), (4, 4), (3, 5)])
def test_nuclear_norm_lies_between_its_limits(B, K):
    certain = torch.eye(K)[torch.arange(B) % K]
    assert nuclear_norm(certain).item() == pytest.approx(math.sqrt(min(B, K) / B))
    alike = random(1, K).softmax(1).expand(B, K)
    assert nuclear_norm(alike).item() == pytest.approx(alike[0].norm().item() / math.sqrt(B))
    assert nuclear_norm(alike) < nuclear_norm(random(B, K).softmax(1)) < nuclear_norm(certain)


def test_nuclear_norm_is_the_trace_of_the_root():
    p = random(9, 4).softmax(1)
    values, vectors = torch.linalg.eigh(p.T @ p)
    root = vectors @ values.sqrt().diag() @ vectors.T
    assert nuclear_norm(p).item() == pytest.approx(root.trace().item() / 9)


def test_nuclear_norm_of_equal_rows_has_a_finite_gradient():
    z = torch.zeros(6, 4, requires_grad=True)  # rank 1: three singular values are 0
    nuclear_norm(z.softmax(1)).backward()
    assert z.grad.isfinite().all()


def test_discrepancy_by_hand_and_its_symmetry():
    p, q = torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    assert discrepancy(p, q).item() == pytest.approx(0.5 / 4)
    assert torch.equal(discrepancy(p, q), discrepancy(q, p))
    assert discrepancy(p, p).item() == 0


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: nuclear_norm(z.softmax(1)),
        lambda z: discrepancy(z.softmax(1), z.flip(0).roll(1, 1).softmax(1)),
    ],
)
def test_gradients_are_those_of_finite_differences(loss):
    assert torch.autograd.gradcheck(loss, random(5, 3, seed=1).requires_grad_())
