"""SAFN against its definition, and what it does to norms."""

import pytest
import torch

from heads.batch import Batch
from heads.losses.adaptive_norm import stepwise_norm
from heads.losses.entropy import entropy
from heads.methods import safn, source_only
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, batch, without


def build(spec, module=safn, **params):
    torch.manual_seed(0)
    return module.METHOD(module.Params(**params), spec, adapter.NET(adapter.Params(dim=8), spec)).eval()


def test_value_is_the_step_and_the_gradient_points_inwards():
    f = torch.tensor([[3.0, 4.0], [0.0, -2.0]], requires_grad=True)
    value = stepwise_norm(f, torch.tensor([True, True]), 0.5)
    value.backward()
    assert value.item() == pytest.approx(0.25)
    assert torch.allclose(f.grad, -2 * 0.5 * torch.tensor([[0.6, 0.8], [0.0, -1.0]]) / 2)


def test_gradient_is_that_of_a_norm_with_a_fixed_goal():
    f = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    in_B, goal = torch.tensor([1, 1, 0, 1, 1]).bool(), f.detach().norm(dim=1) + 0.7
    fixed = lambda f: ((f.norm(dim=1) - goal).square() * in_B).sum() / 4  # noqa: E731
    assert torch.autograd.gradcheck(fixed, f)
    ours, theirs = (torch.autograd.grad(value, f)[0] for value in (stepwise_norm(f, in_B, 0.7), fixed(f)))
    assert torch.allclose(ours, theirs)


def test_no_rows_and_rows_of_nothing():
    f = torch.tensor([[0.0, 0.0], [1.0, 0.0]], requires_grad=True)
    assert stepwise_norm(f, torch.tensor([False, False]), 1.0).item() == 0
    value = stepwise_norm(f, torch.tensor([True, True]), 1.0)
    assert torch.autograd.grad(value, f)[0].tolist() == [[0.0, 0.0], [-1.0, 0.0]]  # a dead row is not revived


@pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
def test_terms_equal_their_definitions(spec):
    b = batch(spec)
    b = Batch(without(b.source, "flow", [0, 1]), without(b.target, "rgb", [3]))
    method = build(spec, lambda_afn=0.3, delta_r=0.5, lambda_ent=0.2)
    terms = method.losses(b, 0.5)
    p_t = [z.softmax(1) for z in method.predict(b.target).values()]
    assert terms["L_ent"].item() == pytest.approx(0.2 * sum(entropy(p).mean().item() for p in p_t), rel=1e-5)
    assert terms["L_afn"].item() == pytest.approx(0.3 * 0.25 * 2 * len(spec.shapes) * len(spec.classes))

    terms["L_afn"].backward()
    felt = method.net.F["flow"].weight.grad.clone()
    method.zero_grad()
    for side in (b.source, b.target):
        f = method.net.encode(side)["flow"][side.has("flow")]
        for part in method.net.parts.values():
            (-2 * 0.5 * 0.3 * f[:, part].norm(dim=1).mean()).backward(retain_graph=True)  # (h - (sg h + Δr))²
    assert torch.allclose(felt, method.net.F["flow"].weight.grad, atol=1e-6)


def test_a_side_that_has_no_row_of_a_modality_adds_nothing_for_it():
    b = batch(SPEC)
    b = Batch(b.source, without(b.target, "flow", slice(None)))
    assert build(SPEC).losses(b, 0.5)["L_afn"].item() == pytest.approx(0.05 * 3)


def test_entropy_is_a_term_only_when_asked_for():
    assert set(build(SPEC).losses(batch(SPEC), 0.5)) == {"L_C", "L_afn"}


def test_norms_grow_on_the_target_without_costing_the_source():
    norms, right = {}, {}
    b = batch(SPEC, rows=16)
    for module, seen in ((source_only, Batch(b.source)), (safn, b)):
        method = build(SPEC, module)
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
        for _ in range(60):
            optimizer.zero_grad()
            sum(method.losses(seen, 0.5).values()).backward()
            optimizer.step()
        norms[module] = method.net.encode(b.target)["flow"].norm(dim=1).mean().item()
        right[module] = (method.predict(b.source)["label"].argmax(1) == b.source.y["label"]).float().mean().item()
    assert norms[safn] > 1.5 * norms[source_only]
    assert right[safn] >= right[source_only]
