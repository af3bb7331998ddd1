"""MDANN's stand-in against its equations."""

import dataclasses
import math

import pytest
import torch

from heads.batch import Batch
from heads.methods import dann, mdann
from heads.methods._adversarial import domain_loss
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, batch, without
from tests.helpers.gradients import check_reach

SPECS = pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])


def build(spec=SPEC, attentive=True):
    """In eval mode; with an attention that differs from row to row, or the first one, which does not."""
    torch.manual_seed(0)
    method = mdann.Mdann(mdann.Params(), spec, adapter.NET(adapter.Params(dim=8), spec)).eval()
    if attentive:
        for score in method.u.parameters():
            torch.nn.init.normal_(score)
    return method


@SPECS
@torch.no_grad()
def test_attention_equals_the_loop(spec):
    method, s = build(spec), without(batch(spec).source, "flow", [1, 6])
    f, seen = method.net.encode(s), method.attend(s, method.net.encode(s))
    for row in range(8):
        there = [m for m in f if s.has(m)[row]]
        score = {m: math.exp(method.u[m](f[m][row]).item()) for m in there}
        fused = []
        for k, m in enumerate(spec.shapes):
            a = score.get(m, 0.0) / sum(score.values())
            assert seen.a[row, k].item() == pytest.approx(a, rel=1e-5)
            fused.append(len(there) * a * f[m][row])
            assert torch.allclose(seen.g[m][row], fused[-1], atol=1e-6)
        assert torch.allclose(seen.fused[row], torch.cat(fused), atol=1e-6)


@SPECS
def test_terms(spec):
    method, b = build(spec), batch(spec)
    b = Batch(without(b.source, "flow", [0]), without(b.target, "flow", [3, 4]))
    s, t = (method.attend(side, method.net.encode(side)) for side in b.both())
    every = torch.ones(8, dtype=torch.bool)
    terms = method.losses(b, 0.5)
    each = [domain_loss(D, s.f[m], t.f[m], b.source.has(m), b.target.has(m), 1.0) for m, D in method.D.items()]
    assert torch.allclose(terms["L_d"], sum(each))
    assert torch.allclose(terms["L_d_fused"], domain_loss(method.D_fused, s.fused, t.fused, every, every, 1.0))
    assert torch.allclose(terms["L_d_a"], domain_loss(method.D_a, s.a, t.a, every, every, 1.0))


def test_training_begins_with_equal_attention():
    """Where g is f, whichever modalities a row has: L_C and L_d are DANN's, and so are predictions."""
    method, b = build(attentive=False), batch(SPEC)
    b = Batch(without(b.source, "flow", [0, 3]), b.target)
    torch.manual_seed(0)
    plain = dann.Dann(dann.Params(), SPEC, adapter.NET(adapter.Params(dim=8), SPEC)).eval()
    plain.D = method.D
    terms, expected = method.losses(b, 0.5), plain.losses(b, 0.5)
    for name, term in expected.items():
        assert torch.allclose(terms[name], term)
    assert torch.allclose(method.predict(b.source)["label"], plain.predict(b.source)["label"])


def test_predictions_are_attended():
    method, s = build(), batch(SPEC).source
    assert torch.allclose(
        method.predict(s)["label"], method.net.classify(method.attend(s, method.net.encode(s)).g)["label"]
    )
    assert not torch.allclose(method.predict(s)["label"], method.net.classify(method.net.encode(s))["label"])


def test_one_modality_has_all_attention():
    spec = dataclasses.replace(SPEC, shapes={"rgb": (6,)}, windows={"rgb": 3})
    method, s = build(spec), batch(spec).source
    assert torch.equal(method.attend(s, method.net.encode(s)).a, torch.ones(8, 1))
    assert torch.equal(method.attend(s, method.net.encode(s)).fused, method.net.encode(s)["rgb"])


@pytest.mark.parametrize(
    ("term", "felt"),
    [
        ("L_d", {"net", "D"}),
        ("L_d_fused", {"net", "u", "D_fused"}),
        ("L_d_a", {"net", "u", "D_a"}),
        ("L_C", {"net", "u"}),
    ],
)
def test_who_feels_which_term(term, felt):
    check_reach(build(), term, felt)
