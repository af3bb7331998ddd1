"""SAVA's stand-in against its equations, and the helpers for single windows that three surrogates share."""

import dataclasses
import math
from itertools import permutations

import pytest
import torch
from torch.nn.functional import cross_entropy

from heads.batch import Batch, Side
from heads.methods import dann, sava
from heads.methods._adversarial import domain_loss
from heads.methods._windows import videos, window_features
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, batch, side, without
from tests.helpers.gradients import check_reach

torch.set_num_threads(1)

SPECS = pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])


def build(spec=SPEC, attentive=True, **params):
    """In eval mode; with an attention that differs from window to window, or the first one, which does not."""
    torch.manual_seed(0)
    method = sava.Sava(sava.Params(**params), spec, adapter.NET(adapter.Params(dim=8), spec)).eval()
    if attentive:
        for score in method.u.parameters():
            torch.nn.init.normal_(score)
    return method


def with_gaps(s):
    """One row lacks flow, one a window of rgb."""
    s = without(s, "flow", [1])
    present = {**s.present, "rgb": s.present["rgb"].clone()}
    present["rgb"][2, 1] = False
    return dataclasses.replace(s, present=present)


def window(net, s, m, row, t):
    """Features of one window, encoded alone."""
    one = Side({m: s.x[m][row, t][None, None]}, {m: torch.ones(1, 1, dtype=torch.bool)}, {}, s.domain[:1], s.index[:1])
    return net.encode(one)[m][0]


@SPECS
@torch.no_grad()
def test_windows_are_encoded_one_by_one(spec):
    net, s = build(spec).net, with_gaps(side(spec, labelled=False))
    f = window_features(net, s)
    mean = videos(s, f)
    for m in spec.shapes:
        for row in range(8):
            there = [t for t in range(spec.windows[m]) if s.present[m][row, t]]
            for t in range(spec.windows[m]):
                expected = window(net, s, m, row, t) if t in there else torch.zeros(8)
                assert torch.allclose(f[m][row, t], expected, atol=1e-6)
            expected = sum(f[m][row, t] for t in there) / len(there) if there else torch.zeros(8)
            assert torch.allclose(mean[m][row], expected, atol=1e-6)


@SPECS
@torch.no_grad()
def test_attention_and_predictions_equal_the_loop(spec):
    method, s = build(spec), with_gaps(side(spec, labelled=False))
    a, z = method.attention(s, window_features(method.net, s)), method.predict(s)
    for row in range(8):
        v = {}
        for m in spec.shapes:
            f = {t: window(method.net, s, m, row, t) for t in range(spec.windows[m]) if s.present[m][row, t]}
            score = {t: math.exp(method.u[m](f_t)) if m in method.u else 1.0 for t, f_t in f.items()}
            for t in range(spec.windows[m]):
                assert a[m][row, t].item() == pytest.approx(score.get(t, 0.0) / (sum(score.values()) or 1.0), rel=1e-5)
            if f:
                v[m] = sum(a[m][row, t] * f_t for t, f_t in f.items())[None]
        for label, z_K in method.net.classify(v).items():
            assert torch.allclose(z[label][row], z_K[0], atol=1e-5)


@SPECS
@torch.no_grad()
def test_terms_equal_the_loops(spec):
    method, b = build(spec, lambda_o=0.7), batch(spec)
    b = Batch(with_gaps(b.source), with_gaps(b.target))
    torch.manual_seed(1)
    terms = method.losses(b, 0.5)
    torch.manual_seed(1)
    L_o = 0
    v = []
    for s in (b.source, b.target):
        f = window_features(method.net, s)
        a = method.attention(s, f)
        v.append({m: (a[m][:, :, None] * f[m]).sum(1) for m in f})
        sigma = torch.randint(6, (8,))  # only rgb has three windows
        each = []
        for row in range(8):
            if s.present["rgb"][row].all():
                order = list(permutations(range(3)))[sigma[row]]
                said = method.O["rgb"](torch.cat([f["rgb"][row, t] for t in order]))
                each.append(cross_entropy(said[None], sigma[row : row + 1]))
        assert len(each) == 7
        L_o = L_o + sum(each) / 7
    assert torch.allclose(terms["L_o"], 0.7 * L_o)
    s, t = b.source, b.target
    L_d = sum(domain_loss(D, v[0][m], v[1][m], s.has(m), t.has(m), 1.0) for m, D in method.D.items())
    assert torch.allclose(terms["L_d"], L_d)
    z = method.predict(s)
    assert torch.allclose(terms["L_C"], sum(cross_entropy(z[label], y) for label, y in s.y.items()))


def test_training_begins_with_the_mean_of_the_windows():
    """With one window per clip and no order it is DANN."""
    spec = dataclasses.replace(SPEC, windows={"rgb": 1, "flow": 1})
    method, b = build(spec, lambda_o=0.0), batch(spec)
    torch.manual_seed(0)
    plain = dann.Dann(dann.Params(), spec, adapter.NET(adapter.Params(dim=8), spec)).eval()
    plain.D = method.D
    terms, expected = method.losses(b, 0.5), plain.losses(b, 0.5)
    assert terms.keys() == expected.keys()
    for name, term in expected.items():
        assert torch.allclose(terms[name], term)
    first, s = build(attentive=False), with_gaps(side(SPEC, labelled=False))
    f = window_features(first.net, s)
    assert torch.allclose(first.predict(s)["label"], first.net.classify(videos(s, f))["label"], atol=1e-6)


@pytest.mark.parametrize(
    ("term", "felt"), [("L_C", {"net", "u"}), ("L_d", {"net", "D"}), ("L_o", {"net", "O"})], ids=["C", "d", "o"]
)
def test_who_feels_which_term(term, felt):
    """The attention is no part of the game between encoder and discriminator."""
    check_reach(build(), term, felt)


def test_the_discriminator_pulls_at_windows_as_attention_weighs_them():
    method, b = build(), batch(SPEC)
    for p in method.net.F["rgb"].parameters():
        p.requires_grad_(False)
    x = b.source.x["rgb"].requires_grad_()
    with torch.no_grad():
        method.net.F["rgb"].weight.copy_(torch.eye(8, 6))  # f is x where x > 0, so that gradients compare
        method.net.F["rgb"].bias.fill_(9.0)
        a = method.attention(b.source, window_features(method.net, b.source))["rgb"]
    method.losses(b, 0.5)["L_d"].backward()
    pull = x.grad / a[:, :, None]
    assert torch.allclose(pull[:, 0], pull[:, 1], rtol=1e-3, atol=1e-7)
    assert torch.allclose(pull[:, 0], pull[:, 2], rtol=1e-3, atol=1e-7)


def test_order_is_learned_where_windows_differ_in_time():
    """From chance, log 6 per side, to what shows it: here a number that grows from window to window."""
    spec = dataclasses.replace(SPEC, windows={"rgb": 3, "flow": 1})
    method, b = build(spec), batch(spec, rows=32)
    for s in (b.source, b.target):
        s.x["rgb"][:, :, 0] += torch.tensor([-4.0, 0.0, 4.0])
    optimizer = torch.optim.Adam(method.parameters(), lr=0.03)
    log = []
    for _ in range(40):
        L_o = method.losses(b, 0.0)["L_o"]
        optimizer.zero_grad()
        L_o.backward()
        optimizer.step()
        log.append(L_o.item())
    assert log[0] == pytest.approx(2 * math.log(6), rel=0.1)
    assert log[-1] < 0.3


def test_too_few_windows_are_said():
    spec = dataclasses.replace(SPEC, windows={"rgb": 2, "flow": 1})
    with pytest.raises(ValueError, match=r"sava .*\(rgb 2, flow 1\).* set Feed\(train=\"segments:3\"\)"):
        build(spec)
    assert not build(spec, lambda_o=0.0).O
