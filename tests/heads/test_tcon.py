"""TCoN's stand-in against its equations, pair by pair, window by window."""

import dataclasses
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from heads.batch import Batch, Side
from heads.losses.moments import mmd
from heads.methods import tcon
from heads.methods._windows import videos, window_features
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, batch, side, without

torch.set_num_threads(1)

SPECS = pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])


def build(spec=SPEC, **params):
    torch.manual_seed(0)
    return tcon.TCoN(tcon.Params(**params), spec, adapter.NET(adapter.Params(dim=8), spec)).eval()


def uneven(spec):
    """Five source rows, eight of the target; one of each lacks flow, one each a window of rgb."""
    s, t = side(spec, 5, labelled=True), side(spec, 8, labelled=False, seed=1, domain=1)
    s, t = without(s, "flow", [1]), without(t, "flow", [3])
    s.present["rgb"][2, 1] = t.present["rgb"][4, 0] = False
    return Batch(s, t)


def aligned(f, g):
    """c of one pair of clips, from lists of windows."""
    c = []
    for g_t in g:
        score = [math.exp(float(g_t @ f_u) / math.sqrt(len(g_t))) for f_u in f]
        c.append(sum(w / sum(score) * f_u for w, f_u in zip(score, f, strict=True)))
    return c


@SPECS
@torch.no_grad()
def test_terms_equal_the_loops(spec):
    method, b = build(spec, lambda_mmd=0.7), uneven(spec)
    s, t = b.source, b.target
    f_s, f_t = window_features(method.net, s), window_features(method.net, t)
    L_d, L_mmd, L_C_a = 0.0, 0.0, []
    means = [{} for _ in range(8)]  # of each pair: modality -> mean c
    for m in spec.shapes:
        said, tells, c_mean, g_mean = [], [], [], []
        for pair in range(8):
            i, j = pair % 5, pair
            f = [f_s[m][i, u] for u in range(spec.windows[m]) if s.present[m][i, u]]
            g = [f_t[m][j, u] for u in range(spec.windows[m]) if t.present[m][j, u]]
            if not f or not g:
                continue
            c = aligned(f, g)
            said += [method.D[m](h) for h in c + g]
            tells += [0] * len(c) + [1] * len(g)
            c_mean.append(sum(c) / len(c))
            g_mean.append(sum(g) / len(g))
            means[pair][m] = c_mean[-1][None]
        L_d += cross_entropy(torch.stack(said), torch.tensor(tells))
        every = torch.ones(len(c_mean), dtype=torch.bool)
        L_mmd += mmd(torch.stack(c_mean), torch.stack(g_mean), every, every, 0)
    for pair, v in enumerate(means):
        z = method.net.classify(v)
        L_C_a.append(sum(cross_entropy(z[label], y[[pair % 5]]) for label, y in s.y.items()))
    terms = method.losses(b, 0.5)
    assert set(terms) == {"L_C", "L_C_a", "L_d", "L_mmd"}
    assert torch.allclose(terms["L_d"], L_d)
    assert torch.allclose(terms["L_mmd"], 0.7 * L_mmd, atol=1e-5)
    assert torch.allclose(terms["L_C_a"], sum(L_C_a) / 8)
    z = method.predict(s)
    assert torch.allclose(terms["L_C"], sum(cross_entropy(z[label], y) for label, y in s.y.items()))


def test_longer_source_repeats_the_target():
    method, b = build(), uneven(SPEC)
    s, t = side(SPEC, 8, labelled=True), b.target
    cut = lambda values: {m: v[:3] for m, v in values.items()}  # noqa: E731
    again = lambda values: {m: v[[0, 1, 2, 0, 1, 2, 0, 1]] for m, v in values.items()}  # noqa: E731
    few = Side(cut(t.x), cut(t.present), {}, t.domain[:3], t.index[:3])
    many = Side(again(t.x), again(t.present), {}, t.domain[:8], t.index[:8])
    for name, term in method.losses(Batch(s, few), 0.5).items():
        assert torch.allclose(term, method.losses(Batch(s, many), 0.5)[name])


def test_order_of_the_source_windows_does_not_matter():
    """Co-attention finds them: what is aligned is the target's time."""
    method, b = build(), batch(SPEC)
    turned = dataclasses.replace(b.source, x={m: x.flip(1) for m, x in b.source.x.items()})
    for name, term in method.losses(Batch(turned, b.target), 0.5).items():
        assert torch.allclose(term, method.losses(b, 0.5)[name], atol=1e-5)


def test_one_window_is_aligned_with_itself():
    """A = 1, so that c is f."""
    f, g = torch.randn(4, 1, 3), torch.randn(4, 1, 3)
    there = torch.ones(4, 1, dtype=torch.bool)
    assert torch.equal(tcon.co_attend(f, there, g, there).c, f)


def test_gradient_of_co_attention():
    f, g = (torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    in_U, in_T = torch.tensor([[True, True, False], [False] * 3]), torch.tensor([[True, False, True]] * 2)
    assert torch.autograd.gradcheck(lambda f, g: tcon.co_attend(f, in_U, g, in_T).c, (f, g))


@pytest.mark.parametrize(
    ("term", "discriminates", "classifies"),
    [("L_C", False, True), ("L_C_a", False, True), ("L_d", True, False), ("L_mmd", False, False)],
)
def test_who_feels_which_term(term, discriminates, classifies):
    method = build()
    method.losses(batch(SPEC), 0.5)[term].backward()
    found = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    assert any(name.startswith("net.F") for name in found)
    assert any(name.startswith("D.") for name in found) == discriminates
    assert any("classifier" in name for name in found) == classifies


def test_predictions_are_of_mean_windows():
    method, s = build(), without(side(SPEC, labelled=False), "flow", [3])
    z = method.net.classify(videos(s, window_features(method.net, s)))
    assert torch.equal(method.predict(s)["label"], z["label"])
