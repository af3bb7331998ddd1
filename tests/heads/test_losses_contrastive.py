"""The contrast of anchors with keys against naive loops and numbers worked by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, normalize

from heads.losses.contrastive import contrast


def cosine(u, v):
    length = math.sqrt(sum(a * a for a in u)) * math.sqrt(sum(b * b for b in v))
    return sum(a * b for a, b in zip(u, v, strict=True)) / length


def naive(q, k, positive, tau, keys=None, weights=None):
    """The definition, pair by pair, on lists."""
    total = count = 0
    for i, anchor in enumerate(q):
        near = everything = 0.0
        for j, key in enumerate(k):
            if any(positive[i]) and (keys is None or keys[j]):
                phi = math.exp(cosine(anchor, key) / tau) * (weights[j] if weights else 1)
                everything += phi
                near += phi if positive[i][j] else 0.0
        if near:
            total, count = total - math.log(near / everything), count + 1
    return total / count if count else 0.0


def naive_one_log(q, k, positive, tau, keys=None):
    """The form that XMC prints: anchors and their positives above, anchors and all their keys below, one logarithm."""
    near = everything = 0.0
    for anchor, positives in zip(q, positive, strict=True):
        counted = [j for j in range(len(k)) if keys is None or keys[j]]
        if any(positives[j] for j in counted):
            everything += sum(math.exp(cosine(anchor, k[j]) / tau) for j in counted)
            near += sum(math.exp(cosine(anchor, k[j]) / tau) for j in counted if positives[j])
    return -math.log(near / everything) if near else 0.0


def rows(seed, n, dim=3):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


flags = st.lists(st.booleans(), min_size=24, max_size=24)


@given(flags, st.lists(st.booleans(), min_size=6, max_size=6), st.floats(0.05, 3))
def test_equals_the_naive_loops(positive, keys, tau):
    q, k, positive = rows(1, 4), rows(2, 6), torch.tensor(positive).reshape(4, 6)
    expected = naive(q.tolist(), k.tolist(), positive.tolist(), tau, keys)
    assert contrast(q, k, positive, tau=tau, keys_N=torch.tensor(keys)).item() == pytest.approx(expected, abs=1e-9)
    assert contrast(q, k, positive, tau=tau).item() == pytest.approx(
        naive(q.tolist(), k.tolist(), positive.tolist(), tau), abs=1e-9
    )


@given(flags, st.lists(st.booleans(), min_size=6, max_size=6), st.floats(0.05, 3))
def test_one_logarithm_equals_the_printed_ratio_of_sums(positive, keys, tau):
    q, k, positive = rows(1, 4), rows(2, 6), torch.tensor(positive).reshape(4, 6)
    found = contrast(q, k, positive, tau=tau, keys_N=torch.tensor(keys), one_log=True).item()
    assert found == pytest.approx(naive_one_log(q.tolist(), k.tolist(), positive.tolist(), tau, keys), abs=1e-9)


def test_one_logarithm_of_one_anchor_is_the_mean_and_of_several_is_not():
    q, k, positive = rows(1, 4), rows(2, 6), torch.eye(6, dtype=torch.bool)[:4]
    each = [contrast(q[[i]], k, positive[[i]], tau=0.3, one_log=True).item() for i in range(4)]
    assert contrast(q, k, positive, tau=0.3).item() == pytest.approx(sum(each) / 4)
    assert abs(contrast(q, k, positive, tau=0.3, one_log=True).item() - sum(each) / 4) > 0.01


def test_in_one_logarithm_an_anchor_weighs_e_times_more_where_its_cosines_are_larger_by_tau():
    """The key of both anchors is at cosine c, the rival at c - 0.2: their gradients differ by φ alone."""
    tau, grads = 0.1, {}
    for one_log in (False, True):
        z = torch.tensor([[0.5, 0.3], [0.6, 0.4]], dtype=torch.float64, requires_grad=True)  # cosines
        length = torch.sqrt(1 - z.square().sum(1, keepdim=True))
        q, k = torch.cat([z, length], 1), torch.eye(3, dtype=torch.float64)
        keys, positive = torch.tensor([True, True, False]), torch.tensor([[True, False, False]] * 2)
        loss = contrast(q, k, positive, tau=tau, keys_N=keys, one_log=one_log)
        grads[one_log] = torch.autograd.grad(loss, z)[0][:, 0]
    assert (grads[False][1] / grads[False][0]).item() == pytest.approx(1)
    assert (grads[True][1] / grads[True][0]).item() == pytest.approx(math.e)


@pytest.mark.parametrize("tau", [0.05, 0.5, 3.0])
def test_weights_multiply_the_keys(tau):
    q, k, positive, weight_N = rows(1, 4), rows(2, 6), rows(3, 4, 6) > 0.3, rows(4, 6, 1).exp().squeeze(1)
    expected = naive(q.tolist(), k.tolist(), positive.tolist(), tau, weights=weight_N.tolist())
    assert contrast(q, k, positive, tau=tau, weight_N=weight_N).item() == pytest.approx(expected, abs=1e-9)
    assert contrast(q, k, positive, tau=tau, weight_N=3 * weight_N).item() == pytest.approx(expected, abs=1e-9)


def test_by_hand():
    q = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    k = torch.tensor([[5.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    positive = torch.tensor([[True, False, True], [True, False, False], [False, False, False]])
    e = math.e  # cosines 1, 0, -1 and 0, 1, 0; the third anchor has no positive
    expected = (-math.log((e + 1 / e) / (e + 1 + 1 / e)) - math.log(1 / (2 + e))) / 2
    assert contrast(q, k, positive, tau=1.0).item() == pytest.approx(expected)


def test_with_one_positive_each_it_is_cross_entropy():
    q, k, j = rows(3, 5), rows(4, 7), torch.tensor([3, 0, 6, 6, 1])
    z = normalize(q) @ normalize(k).T / 0.1
    assert torch.allclose(contrast(q, k, j[:, None] == torch.arange(7), tau=0.1), cross_entropy(z, j))


def test_limits():
    q, k, some = rows(5, 4), rows(6, 8), torch.arange(8) < 2
    assert contrast(q, k, torch.ones(4, 8, dtype=torch.bool), tau=0.1).item() == 0
    assert contrast(q, k, some.expand(4, 8), tau=1e9).item() == pytest.approx(math.log(4))  # 2 of 8, all alike
    far = contrast(q[:1], torch.cat([-q[:1], q[:1]]), torch.tensor([[True, False]]), tau=0.01)
    assert far.item() == pytest.approx(200)  # 2/τ: no exponential of it is taken


def test_positives_are_added_inside_the_logarithm():
    q = torch.tensor([[1.0, 0.0]])
    k = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])  # one positive near, one as far as can be
    assert contrast(q, k, torch.tensor([[True, True, False]]), tau=0.1).item() < 1e-4


def test_unchanged_by_scales_and_by_the_order_of_the_keys():
    q, k, positive = rows(7, 4), rows(8, 6), torch.eye(6, dtype=torch.bool)[:4]
    loss, order = contrast(q, k, positive, tau=0.2), torch.randperm(6)
    scales = torch.tensor([0.1, 1.0, 9.0, 30.0])[:, None]
    assert contrast(scales * q, 5 * k, positive, tau=0.2).item() == pytest.approx(loss.item())
    assert contrast(q, k[order], positive[:, order], tau=0.2).item() == pytest.approx(loss.item())


def test_keys_that_do_not_count_are_as_good_as_absent():
    q, k, positive = rows(9, 4), rows(10, 6), torch.eye(6, dtype=torch.bool)[:4]
    keys = torch.tensor([True, True, False, True, False, True])  # without it the third anchor has no positive
    assert torch.equal(
        contrast(q, k, positive, tau=0.2, keys_N=keys),
        contrast(q[[0, 1, 3]], k[keys], positive[[0, 1, 3]][:, keys], tau=0.2),
    )


def test_gradients_are_those_of_finite_differences():
    q, k = rows(11, 4).requires_grad_(), rows(12, 5).requires_grad_()
    positive = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 1]]).bool()
    keys = torch.tensor([True, True, True, True, False])
    for one_log in (False, True):
        loss = lambda a, b: contrast(a, b, positive, tau=0.5, keys_N=keys, one_log=one_log)  # noqa: B023, E731
        assert torch.autograd.gradcheck(loss, (q, k))


def test_descent_brings_positives_near_and_others_away():
    q, k = torch.tensor([[1.0, 1.0]], requires_grad=True), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    contrast(q, k, torch.tensor([[True, False]]), tau=0.5).backward()
    assert q.grad[0, 0] < 0 < q.grad[0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [0.01, 0.1])
@pytest.mark.parametrize("one_log", [False, True])
def test_nothing_to_compare_is_zero_without_gradient(dtype, tau, one_log):
    nobody = torch.zeros(3, 4, dtype=torch.bool)
    for positive, keys in ((nobody, None), (~nobody, nobody[0]), (nobody, nobody[0])):
        q, k = rows(13, 3).to(dtype).requires_grad_(), rows(14, 4).to(dtype).requires_grad_()
        loss = contrast(q, k, positive, tau=tau, keys_N=keys, one_log=one_log)
        loss.backward()
        assert loss.item() == q.grad.abs().max().item() == k.grad.abs().max().item() == 0


def test_rows_of_zeros_are_finite():
    q, k = torch.zeros(2, 3, requires_grad=True), rows(15, 4).float()
    loss = contrast(q, k, torch.eye(4, dtype=torch.bool)[:2], tau=0.1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(4))
    assert q.grad.isfinite().all()


def test_one_anchor_one_key():
    assert contrast(rows(16, 1), rows(17, 1), torch.tensor([[True]]), tau=0.1).item() == 0
