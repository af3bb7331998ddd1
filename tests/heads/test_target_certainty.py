"""Entropy, information maximisation, BNM and MCC: one term on the target's predictions beside the source's L_C."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from heads.losses.entropy import entropy, information
from heads.losses.predictions import class_confusion, nuclear_norm
from heads.methods import bnm, infomax, mcc, source_only
from heads.methods import entropy as entropy_method
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, batch

BOTH = ("source", "target")
TERMS = {  # module -> (its weight, its term, the term of one label's logits without weight)
    entropy_method: ("lambda_ent", "L_ent", lambda z: entropy(z.softmax(1)).mean()),
    infomax: ("lambda_im", "L_IM", lambda z: information(z.softmax(1))),
    bnm: ("lambda_bnm", "L_bnm", lambda z: -nuclear_norm(z.softmax(1))),
    mcc: ("lambda_mcc", "L_MCC", lambda z: class_confusion(z, 2.5)),
}
EVERY = pytest.mark.parametrize("module", TERMS, ids=lambda module: module.__name__.rpartition(".")[2])


def build(module, spec, **params):
    torch.manual_seed(0)
    return module.METHOD(module.Params(**params), spec, adapter.NET(adapter.Params(dim=8), spec)).eval()


@EVERY
@pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
def test_terms_equal_their_definitions(module, spec):
    weight, name, term = TERMS[module]
    method, b = build(module, spec, **{weight: 0.7}), batch(spec, BOTH)
    terms = method.losses(b, 0.5)
    z_s, z_t = method.predict(b.source), method.predict(b.target)
    assert list(terms) == ["L_C", name]
    L_C = sum(cross_entropy(z, b.source.y[label]).item() for label, z in z_s.items())
    assert terms["L_C"].item() == pytest.approx(L_C, rel=1e-5)
    assert terms[name].item() == pytest.approx(0.7 * sum(term(z).item() for z in z_t.values()), rel=1e-5)


@EVERY
def test_with_weight_zero_it_is_source_only(module):
    b = batch(SPEC, BOTH)
    method = build(module, SPEC, **{TERMS[module][0]: 0.0})
    plain = source_only.SourceOnly(source_only.Params(), SPEC, method.net)
    assert torch.equal(sum(method.losses(b, 0.5).values()), sum(plain.losses(b, 0.5).values()))
