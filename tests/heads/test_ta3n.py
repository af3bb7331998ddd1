"""TA3N against its equations, row by row, frame by frame, relation by relation."""

import dataclasses
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from heads.batch import Batch, Side
from heads.methods import ta3n
from heads.nets import adapter, trn
from heads.testing.problems import EK, SPEC, batch, side, small, without

SPECS = pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])


def build(spec=SPEC, **params):
    """In eval mode, so that dropout does not blur the comparison."""
    torch.manual_seed(0)
    return ta3n.Ta3n(ta3n.Params(**params), spec, trn.NET(trn.Params(**small(trn)), spec)).eval()


def gaps(b):
    return Batch(without(b.source, "flow", [0, 1, 2]), without(b.target, "flow", [5]))


def H(logits):
    return -sum(p * math.log(p) for p in logits.softmax(-1).tolist())


def naive(method, side, row):
    """Of one row: m -> domain logits of frames, relations and the video; and its class logits."""
    net, d, f = method.net, {}, {}
    for m in (m for m in side.x if side.has(m)[row]):
        x, r = (level[row] for level in net.levels(side)[m])
        relations = [method.D_r[f"{m}:{n}"](r_n) for n, r_n in zip(net.scales[m], r, strict=True)]
        video = sum((1 + (1 - H(d_n))) * r_n for d_n, r_n in zip(relations, r, strict=True))
        d[m] = {"L_sd": [method.D_s[m](x_t) for x_t in x], "L_rd": relations, "L_td": [method.D_t[m](video)]}
        f[m] = net.U[m](video)[None]
    return d, net.classify(f)


@SPECS
@torch.no_grad()
def test_equals_the_naive_loops(spec):
    method, b = build(spec, gamma=0.7), gaps(batch(spec))
    domain = {name: {m: [] for m in spec.shapes} for name in ("L_sd", "L_rd", "L_td")}
    entropies, classes = [], []
    for which, side_ in enumerate((b.source, b.target)):
        for row in range(8):
            d, z = naive(method, side_, row)
            for m, levels in d.items():
                for name, logits in levels.items():
                    domain[name][m] += [cross_entropy(of[None], torch.tensor([which])).item() for of in logits]
            H_d = sum(H(levels["L_td"][0]) for levels in d.values()) / len(d)
            entropies.append((1 + H_d) * sum(H(z_K[0]) for z_K in z.values()) / len(z))
            if which == 0:
                classes.append(sum(cross_entropy(z[label], y[row : row + 1]).item() for label, y in side_.y.items()))
    terms = method.losses(b, 0.5)
    assert set(terms) == {"L_C", "L_sd", "L_rd", "L_td", "L_ae"}
    for name, each in domain.items():
        expected = sum(sum(of) / len(of) for of in each.values())
        assert terms[name].item() == pytest.approx(expected, rel=1e-4)
    assert terms["L_ae"].item() == pytest.approx(0.7 * sum(entropies) / 16, rel=1e-4)
    assert terms["L_C"].item() == pytest.approx(sum(classes) / 8 / len(spec.classes), rel=1e-4)


@torch.no_grad()
def test_predictions_are_attended():
    method, s = build(), without(side(SPEC, labelled=False), "flow", [3])
    z = method.predict(s)["label"]
    for row in range(8):
        assert torch.allclose(z[row], naive(method, s, row)[1]["label"][0], atol=1e-5)
    assert not torch.allclose(z, method.net.classify(method.net.encode(s))["label"])


def blind(method):
    """Discriminators that cannot tell: logits 0, H = log 2."""
    with torch.no_grad():
        for D in (*method.D_s.values(), *method.D_r.values(), *method.D_t.values()):
            D[2].weight.zero_()
            D[2].bias.zero_()
    return method


def test_limits_of_the_attention():
    """Nothing told apart: w = 1 - log 2, and all losses are log 2 per modality. Everything told apart: w = 1."""
    method, b = blind(build(gamma=1.0)), batch(SPEC)
    r = {m: of.relations for m, of in method.net.levels(b.source).items()}
    video = {m: (2 - math.log(2)) * r_BSR.sum(1) for m, r_BSR in r.items()}
    for m, f in method.net.project(b.source, video).items():
        assert torch.allclose(method.look(b.source, 1.0).f[m], f, atol=1e-6)
    terms = method.losses(b, 0.5)
    for name in ("L_sd", "L_rd", "L_td"):
        assert terms[name].item() == pytest.approx(2 * math.log(2))
    for D in method.D_r.values():
        D[2].bias.data = torch.tensor([99.0, 0.0])
    for m, f in method.net.project(b.source, {m: 2 * r_BSR.sum(1) for m, r_BSR in r.items()}).items():
        assert torch.allclose(method.look(b.source, 1.0).f[m], f, atol=1e-6)


def gradients(method, b, term, progress=0.5):
    method.zero_grad()
    method.losses(b, progress)[term].backward()
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}


def test_each_domain_loss_reaches_its_level_and_what_lies_below():
    method, b = build(), batch(SPEC)
    frames, relations = "net.branch.rgb.W.weight", "net.branch.rgb.scales.0.V.weight"
    for term, own, felt in (
        ("L_sd", {"D_s"}, {frames}),
        ("L_rd", {"D_r"}, {frames, relations}),
        ("L_td", {"D_t", "D_r"}, {frames, relations}),  # f' is attended: D_r is among what it is made of
    ):
        found = gradients(method, b, term)
        assert {name.split(".")[0] for name in found} - {"net"} == own
        assert {frames, relations} & set(found) == felt
        assert not any(name.startswith(("net.U", "net.classifier")) for name in found)


@pytest.mark.parametrize(("term", "beta", "below"), [("L_sd", "beta_s", "W"), ("L_rd", "beta_r", "scales.0.V")])
def test_beta_and_the_warm_up_weigh_what_the_encoders_feel_not_the_discriminators(term, beta, below):
    """Warm-up: tanh(p / 2), which is 0 at the start and 0.46 at the end."""
    b = batch(SPEC)
    end = gradients(build(**{beta: 0.5}), b, term, progress=1.0)
    double = gradients(build(**{beta: 1.0}), b, term, progress=1.0)
    start = gradients(build(**{beta: 0.5}), b, term, progress=0.0)
    name = f"net.branch.rgb.{below}.weight"
    assert name not in start
    assert torch.allclose(double[name], 2 * end[name])
    half = gradients(build(**{beta: 0.5}), b, term, progress=0.5)
    assert torch.allclose(half[name] / math.tanh(0.25), end[name] / math.tanh(0.5), atol=1e-6)
    for key in (key for key in end if key.startswith("D_")):
        assert torch.allclose(start[key], end[key])


def test_encoders_feel_the_domain_losses_reversed():
    method, b = build(), batch(SPEC)
    before = method.losses(b, 1.0)["L_sd"]
    before.backward()
    with torch.no_grad():
        for p in method.net.branch.parameters():
            if p.grad is not None:
                p -= 0.01 * p.grad
    assert method.losses(b, 1.0)["L_sd"] > before


def test_a_modality_of_one_side_only_is_not_aligned():
    method, b = build(), batch(SPEC)
    t = b.target
    b = Batch(b.source, Side({"rgb": t.x["rgb"]}, {"rgb": t.present["rgb"]}, {}, t.domain, t.index))
    for term in ("L_sd", "L_rd", "L_td"):
        assert not any("flow" in name for name in gradients(method, b, term))


def test_another_net_is_refused():
    with pytest.raises(ValueError, match="aligns frames and relations.*use net trn"):
        ta3n.Ta3n(ta3n.Params(), SPEC, adapter.NET(adapter.Params(dim=8), SPEC))


def test_all_relations_have_a_discriminator_of_their_own():
    spec = dataclasses.replace(SPEC, windows={"rgb": 5, "flow": 1})
    assert set(build(spec).D_r) == {"rgb:5", "rgb:4", "rgb:3", "rgb:2", "flow:1"}
