"""MMD, CORAL and Sinkhorn as methods: one loss between the sides, modality by modality."""

import dataclasses

import pytest
import torch
from torch.nn.functional import cross_entropy

from heads.batch import Batch
from heads.losses.moments import coral as coral_loss
from heads.losses.moments import mean_gap
from heads.losses.moments import mmd as mmd_loss
from heads.losses.transport import cosine_cost, sinkhorn_divergence, transport_cost
from heads.methods import coral, mmd, sinkhorn
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, batch, without

LOSSES = {
    "mmd": (mmd, {}, lambda *a: mmd_loss(*a, 0.0)),
    "mmd of MM-SADA": (mmd, {"gamma": mmd.MM_SADA}, lambda *a: mmd_loss(*a, 9.7)),
    "coral": (coral, {}, lambda *a: coral_loss(*a) + mean_gap(*a)),
    "coral as published": (coral, {"mean_term": False}, coral_loss),
    "sinkhorn": (sinkhorn, {}, lambda *a: sinkhorn_divergence(*a, 0.1, 50)),
    "sinkhorn, another plan": (
        sinkhorn,
        {"epsilon": 0.5, "iterations": 7},
        lambda *a: sinkhorn_divergence(*a, 0.5, 7),
    ),
    "transport": (sinkhorn, {"debiased": False}, lambda s, t, *a: transport_cost(cosine_cost(s, t), *a, 0.1, 50)),
}
EVERY = pytest.mark.parametrize(("module", "params", "loss"), LOSSES.values(), ids=LOSSES)
TERM = {mmd: "L_mmd", coral: "L_coral", sinkhorn: "L_ot"}
WEIGHT = {mmd: "lambda_mmd", coral: "lambda_coral", sinkhorn: "lambda_ot"}


def build(module, spec, **params):
    torch.manual_seed(0)
    return module.METHOD(module.Params(**params), spec, adapter.NET(adapter.Params(dim=8), spec)).eval()


@EVERY
@pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
def test_terms_equal_their_definitions(module, params, loss, spec):
    """Rows that lack a modality are taken out by hand."""
    method, b = build(module, spec, **params), batch(spec, rows=9)
    b = Batch(without(b.source, "flow", [0, 4]), without(b.target, "rgb", [1, 2, 8]))
    f_s, f_t = method.net.encode(b.source), method.net.encode(b.target)
    total = 0.0
    for m in spec.shapes:
        s, t = f_s[m][b.source.has(m)], f_t[m][b.target.has(m)]
        total += loss(s, t, torch.ones(len(s), dtype=torch.bool), torch.ones(len(t), dtype=torch.bool)).item()
    terms = method.losses(b, 0.5)
    assert total > 0
    assert set(terms) == {"L_C", TERM[module]}
    assert terms[TERM[module]].item() == pytest.approx(total, rel=1e-3)
    right = sum(cross_entropy(z, b.source.y[label]) for label, z in method.net.classify(f_s).items())
    assert torch.allclose(terms["L_C"], right)


@pytest.mark.parametrize("module", TERM, ids=lambda module: module.__name__.split(".")[-1])
def test_its_weight_weighs_its_term_and_no_other(module):
    b = batch(SPEC)
    once, twice = (build(module, SPEC, **{WEIGHT[module]: value}).losses(b, 0.5) for value in (0.3, 0.6))
    for name in once:
        assert twice[name].item() == pytest.approx((2 if name == TERM[module] else 1) * once[name].item(), rel=1e-6)


@EVERY
def test_a_modality_of_one_side_only_is_not_aligned(module, params, loss):
    method, b = build(module, SPEC, **params), batch(SPEC)
    blind = dataclasses.replace(b.target, x={"rgb": b.target.x["rgb"]}, present={"rgb": b.target.present["rgb"]})
    both, one = method.losses(b, 0.5)[TERM[module]], method.losses(Batch(b.source, blind), 0.5)[TERM[module]]
    assert 0 < one.item() < both.item()
    strangers = Batch(dataclasses.replace(b.source, x={"flow": b.source.x["flow"]}), blind)
    with pytest.raises(ValueError, match="share no modality"):
        method.losses(strangers, 0.5)


@EVERY
def test_the_classifier_does_not_feel_the_alignment(module, params, loss):
    method = build(module, SPEC, **params)
    method.losses(batch(SPEC), 0.5)[TERM[module]].backward()
    felt = {
        name.split(".")[1] for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().max() > 0
    }
    assert felt == {"F"}
