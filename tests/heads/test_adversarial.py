"""The discriminator that DANN and CDAN share, DANN, and CDAN, against their equations."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from heads.batch import Batch
from heads.methods import cdan, dann
from heads.methods._adversarial import discriminator, domain_loss
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, batch, without

RAMP = 2 / (1 + math.exp(-5)) - 1  # of progress 0.5


def build(module, spec, **params):
    torch.manual_seed(0)
    return module.METHOD(module.Params(**params), spec, adapter.NET(adapter.Params(dim=8), spec)).eval()


def gaps(b):
    return Batch(without(b.source, "flow", [0, 1, 2]), without(b.target, "flow", [5]))


def naive_domain_loss(D, h_s, h_t, weight_s, weight_t):
    """Weighted mean of -log of the probability of the right side, row by row."""
    total = weights = 0.0
    for side, h, weight in ((0, h_s, weight_s), (1, h_t, weight_t)):
        for row, w in zip(h, weight, strict=True):
            total += float(w) * -D(row[None]).log_softmax(1)[0, side].item()
            weights += float(w)
    return total / weights


def gradients(method, b, term, progress=0.5):
    method.zero_grad()
    method.losses(b, progress)[term].backward()
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


# --- the discriminator -----------------------------------------------------------------------------------------------


def test_discriminator_as_in_mm_sada():
    torch.manual_seed(0)
    first, _, last = discriminator(300)
    assert first.weight.shape == (100, 300)
    assert last.weight.shape == (2, 100)
    assert first.weight.std().item() == pytest.approx(0.1, rel=0.05)
    assert first.bias.abs().max() == last.bias.abs().max() == 0


def test_domain_loss_equals_the_loop():
    torch.manual_seed(0)
    D, h_s, h_t = discriminator(3), torch.randn(4, 3), torch.randn(6, 3)
    for w_s, w_t in ((torch.rand(4), torch.rand(6)), (torch.arange(4) > 1, torch.arange(6) > 3)):
        assert domain_loss(D, h_s, h_t, w_s, w_t, 1.0).item() == pytest.approx(
            naive_domain_loss(D, h_s, h_t, w_s, w_t), rel=1e-5
        )


def test_without_rows_there_is_no_domain_loss():
    D, h = discriminator(3), torch.randn(4, 3, requires_grad=True)
    nobody = torch.zeros(4, dtype=torch.bool)
    loss = domain_loss(D, h, h, nobody, nobody, 1.0)
    loss.backward()
    assert loss.item() == h.grad.abs().max() == 0


def test_what_stands_before_feels_the_gradient_reversed_what_stands_behind_does_not():
    torch.manual_seed(0)
    D, everyone = discriminator(3).double(), torch.ones(4, dtype=torch.bool)
    h = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    forwards = cross_entropy(D(torch.cat([h, h + 1])), torch.tensor([0] * 4 + [1] * 4))
    backwards = domain_loss(D, h, h + 1, everyone, everyone, 0.3)
    assert torch.allclose(torch.autograd.grad(backwards, h)[0], -0.3 * torch.autograd.grad(forwards, h)[0])
    forwards = cross_entropy(D(torch.cat([h, h + 1])), torch.tensor([0] * 4 + [1] * 4))
    backwards = domain_loss(D, h, h + 1, everyone, everyone, 0.3)
    ours, theirs = (torch.autograd.grad(loss, D[0].weight)[0] for loss in (backwards, forwards))
    assert torch.allclose(ours, theirs)


# --- DANN ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
def test_dann_adds_the_losses_of_its_modalities(spec):
    method, b = build(dann, spec), gaps(batch(spec))
    f_s, f_t = method.net.encode(b.source), method.net.encode(b.target)
    each = [naive_domain_loss(method.D[m], f_s[m], f_t[m], b.source.has(m), b.target.has(m)) for m in f_s]
    terms = method.losses(b, 0.5)
    assert terms["L_d"].item() == pytest.approx(sum(each), rel=1e-5)
    right = sum(cross_entropy(z, b.source.y[label]) for label, z in method.net.classify(f_s).items())
    assert torch.allclose(terms["L_C"], right)


@pytest.mark.parametrize("module", [dann, cdan])
def test_lambda_d_and_the_ramp_weigh_what_the_encoders_feel_not_the_discriminators(module):
    b = batch(SPEC)
    once, twice = (gradients(build(module, SPEC, lambda_d=value), b, "L_d") for value in (0.2, 0.4))
    start = gradients(build(module, SPEC, lambda_d=0.2), b, "L_d", progress=0.0)
    end = gradients(build(module, SPEC, lambda_d=0.2 * RAMP), b, "L_d", progress=1 - 1e-9)
    assert any(name.startswith("net.F") and grad.abs().max() > 0 for name, grad in once.items())
    for name, grad in once.items():
        encoder = name.startswith("net.")
        assert torch.allclose(twice[name], (2 if encoder else 1) * grad, atol=1e-7), name
        assert torch.allclose(start[name], (0 if encoder else 1) * grad, atol=1e-7), name
        assert torch.allclose(end[name], grad, atol=1e-5), name


@pytest.mark.parametrize("module", [dann, cdan])
def test_a_modality_of_one_side_only_is_not_aligned(module):
    b = batch(SPEC)
    only = Batch(b.source, type(b.target)({"rgb": b.target.x["rgb"]}, *list(vars(b.target).values())[1:]))
    touched = gradients(build(module, SPEC), only, "L_d")
    assert "net.F.rgb.weight" in touched
    assert not any("flow" in name and grad.abs().max() > 0 and "F." in name for name, grad in touched.items())


# --- CDAN ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
def test_cdan_sees_every_product_of_feature_and_probability(spec, entropy):
    method, b = build(cdan, spec, entropy=entropy), gaps(batch(spec))
    f = {side: method.net.encode(getattr(b, side)) for side in ("source", "target")}
    p = {side: {t: z.softmax(1) for t, z in method.net.classify(f[side]).items()} for side in f}
    total = 0.0
    for label, part in method.net.parts.items():
        for m in spec.shapes:
            h, weights = [], []
            for side in ("source", "target"):
                rows, has = zip(f[side][m][:, part], p[side][label], strict=True), getattr(b, side).has(m)
                h.append(torch.stack([torch.stack([v * q for v in row for q in its]) for row, its in rows]))
                certain = [1 + math.exp(sum(q * math.log(q) for q in its)) for its in p[side][label].tolist()]
                weights.append([w * bool(there) for w, there in zip(certain, has, strict=True)] if entropy else has)
            total += naive_domain_loss(method.D[f"{m}:{label}"], *h, *weights)
    assert method.losses(b, 0.5)["L_d"].item() == pytest.approx(total, rel=1e-4)


def test_probabilities_and_weights_are_constants():
    method, b = build(cdan, SPEC, entropy=True), batch(SPEC)
    assert not any("classifier" in name or "bias." in name for name in gradients(method, b, "L_d"))


def test_wide_products_are_projected_and_keep_inner_products_on_average():
    torch.manual_seed(0)
    exact, random = cdan.Joint(64, 64), cdan.Joint(64, 65)
    assert (exact.width, random.width) == (64 * 64, 1024)
    assert not list(exact.buffers())
    f, p = torch.randn(2, 64), torch.randn(2, 65).softmax(1)
    h = torch.stack([cdan.Joint(64, 65)(f, p) for _ in range(30)])
    products = (h[:, :, None] * h[:, None]).sum(-1)  # 30 draws of the matrices
    expected = (f @ f.T) * (p @ p.T)
    error = products.std(0) / 30**0.5
    assert ((products.mean(0) - expected).abs() < 4 * error).all()
    assert (error < 0.1 * expected.diagonal().mean()).all()


def test_projections_are_drawn_once_kept_and_not_trained():
    method = build(cdan, SPEC)
    joint = cdan.Joint(64, 65)
    assert set(joint.state_dict()) == {"R_f", "R_p"}
    assert not list(joint.parameters())
    assert not [name for name in method.state_dict() if name.startswith("joint")]  # 8 x 4: exact
