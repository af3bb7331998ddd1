"""DAAA's stand-in: DANN, and MMD class by class against naive loops."""

import math

import pytest
import torch

from heads.batch import Batch
from heads.losses.moments import FACTORS, class_mmd, mmd
from heads.methods import daaa, dann
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, batch, without

SPECS = pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])


def rows(S=5, T=6, K=3):
    generator = torch.Generator().manual_seed(0)
    f = [torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in (S, T)]
    y = [torch.arange(n) % K for n in (S, T)]
    return *f, *(y_B[:, None] == torch.arange(K) for y_B in y)


def naive(f_S, f_T, in_SK, in_TK, gamma):
    """Mean over the classes on both sides of the mean over all pairs."""

    def k(x, y):
        d = sum((a - b) ** 2 for a, b in zip(x.tolist(), y.tolist(), strict=True))
        return sum(math.exp(-d / (gamma * factor)) for factor in FACTORS)

    each = []
    for c in range(in_SK.shape[1]):
        s, t = f_S[in_SK[:, c]], f_T[in_TK[:, c]]
        if len(s) and len(t):
            mean = lambda u, v: sum(k(x, y) for x in u for y in v) / (len(u) * len(v))  # noqa: E731
            each.append(mean(s, s) + mean(t, t) - 2 * mean(s, t))
    return sum(each) / len(each)


def test_class_mmd_equals_the_loop():
    f_S, f_T, in_SK, in_TK = rows()
    in_TK[:, 1] = False  # a class that one side lacks
    assert class_mmd(f_S, f_T, in_SK, in_TK, 0.7).item() == pytest.approx(naive(f_S, f_T, in_SK, in_TK, 0.7))


def test_one_class_is_mmd():
    f_S, f_T, _, _ = rows()
    in_S, in_T = torch.arange(5) != 2, torch.arange(6) != 4
    for gamma in (0, 0.7):
        expected = mmd(f_S, f_T, in_S, in_T, gamma)
        assert torch.allclose(class_mmd(f_S, f_T, in_S[:, None], in_T[:, None], gamma), expected)


def test_classes_that_swapped_places_look_alike_together_but_not_apart():
    f = torch.tensor([[0.0], [0.0], [9.0], [9.0]])
    zero_one, one_zero = (torch.tensor(y)[:, None] == torch.arange(2) for y in ([0, 0, 1, 1], [1, 1, 0, 0]))
    every = torch.ones(4, dtype=torch.bool)
    assert mmd(f, f, every, every, 0).item() == pytest.approx(0, abs=1e-5)
    assert class_mmd(f, f, zero_one, zero_one, 0).item() == pytest.approx(0, abs=1e-5)
    assert class_mmd(f, f, zero_one, one_zero, 0) > 5


def test_class_mmd_edges_and_gradient():
    f_S, f_T, in_SK, in_TK = rows()
    for nobody in ((in_SK & False, in_TK), (in_SK, in_TK & False)):
        assert class_mmd(f_S, f_T, *nobody, 0.7).item() == 0
    f_S.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: class_mmd(f, f_T, in_SK, in_TK, 0.7), (f_S,))


@SPECS
def test_the_rest_is_dann(spec):
    torch.manual_seed(0)
    method = daaa.Daaa(daaa.Params(), spec, adapter.NET(adapter.Params(dim=8), spec)).eval()
    other = dann.Dann(dann.Params(), spec, method.net)
    other.D = method.D
    b = batch(spec)
    b = Batch(without(b.source, "flow", [0, 1]), without(b.target, "flow", [5]))
    terms, expected = method.losses(b, 0.5), other.losses(b, 0.5)
    assert torch.allclose(terms["L_C"], expected["L_C"])
    assert torch.allclose(terms["L_d"], expected["L_d"])

    L_c, f_s, f_t = 0.0, method.net.encode(b.source), method.net.encode(b.target)
    for label, part in method.net.parts.items():
        said = method.net.classify(f_t)[label].argmax(1)
        for m in spec.shapes:
            s, t = b.source.has(m), b.target.has(m)
            classes = torch.arange(spec.classes[label])
            in_SK, in_TK = b.source.y[label][s][:, None] == classes, said[t][:, None] == classes
            L_c += class_mmd(f_s[m][s][:, part], f_t[m][t][:, part], in_SK, in_TK, 0).item()
    assert terms["L_c"].item() == pytest.approx(0.1 * L_c, rel=1e-4)
