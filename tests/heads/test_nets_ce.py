"""Collaborative experts, MoEE and the gated MLP against their equations, written out with loops."""

import dataclasses
import math

import pytest
import torch

from heads.batch import Side
from heads.batch_norm import EPSILON
from heads.nets import ce, gated
from heads.nets._experts import NetVLAD, mixture_similarity
from heads.testing.problems import without
from tests.helpers.retrieval_problems import EXPERTS, SPEC, clips, pairs, part, side

torch.set_num_threads(1)
NETS = pytest.mark.parametrize(
    ("module", "params"),
    [(ce, {}), (ce, {"relations": False}), (ce, {"text": "netvlad", "clusters": 3}), (gated, {})],
    ids=["CE", "MoEE", "CE with NetVLAD", "gated"],
)


def build(module, spec=SPEC, **params):
    """In eval mode, with averages and scales in BN that are not its first ones."""
    torch.manual_seed(0)
    net = module.NET(module.Params(**{"dim": 6, **params}), spec)
    for norm in (m for m in net.modules() if hasattr(m, "measure")):
        for value in (norm.mean, norm.gamma.data, norm.beta.data):
            value.normal_()
        norm.var.uniform_(0.5, 2)
    return net.double().eval()


def unit(x):
    return x / x.norm()


def bn(norm, x):
    return norm.gamma * (x - norm.mean) / (norm.var + EPSILON).sqrt() + norm.beta


def naive_gate(gate, x, q=None):
    t = bn(gate.BN, gate.W.weight @ x)
    if q is not None:
        t = t + bn(gate.BN_q, q)
    return unit(x / (1 + torch.exp(-t)))


def pooled(s, m, row):
    """Mean over the windows that are there, or None."""
    rows = [s.x[m][row, t].flatten() for t in range(s.x[m].shape[1]) if s.present[m][row, t]]
    return sum(rows) / len(rows) if rows else None


def naive_visual(net, s, row):
    a = {m: pooled(s, m, row) for m in net.reduce}
    x = {m: net.reduce[m].weight @ v + net.reduce[m].bias for m, v in a.items() if v is not None}
    if net.relations is None:
        v = {m: naive_gate(net.gate[m], x[m]) for m in x}
    else:
        x = {m: unit(x[m]) for m in x}
        v = {}
        for m in x:
            g = []
            for other in x:
                h = net.relations.W[0].weight @ torch.cat([x[m], x[other]])
                for k in (0, 1):
                    h = bn(net.relations.BN[k], h)
                    h = net.relations.W[k + 1].weight @ (h * torch.tanh(torch.log1p(torch.exp(h))))  # mish
                g.append(h)
            v[m] = naive_gate(net.gate[m], x[m], sum(g) / len(g))
    return [v.get(m, torch.zeros(6, dtype=torch.float64)) for m in net.reduce]


def naive_text(net, s, row):
    tower = net.text
    t = torch.cat([pooled(s, m, row) for m in SPEC.captions])
    w = torch.softmax(tower.W_w.weight @ t + tower.W_w.bias, 0)
    blocks = [naive_gate(u.gate, u.reduce.weight @ t + u.reduce.bias) for u in tower.unit]
    return [w[e] * block for e, block in enumerate(blocks)]


@pytest.mark.parametrize("relations", [True, False], ids=["CE", "MoEE"])
def test_equals_its_equations(relations):
    net, s = build(ce, relations=relations), without(pairs(dtype=torch.float64), "action", [2, 5])
    s.present["object"][3, 1] = s.present["words"][3, 2:] = False
    f = net.encode(s)
    for row in range(8):
        assert torch.allclose(f["visual"][row], torch.cat(naive_visual(net, s, row)))
        assert torch.allclose(f["text"][row], torch.cat(naive_text(net, s, row)))
    xi = net.similarity(f["text"], f["visual"])
    for i in range(8):
        text = naive_text(net, s, i)
        for j in range(8):
            v = naive_visual(net, s, j)
            there = [e for e in range(3) if v[e].any()]
            weights = sum(text[e].norm() for e in there)
            assert xi[i, j].item() == pytest.approx((sum(text[e] @ v[e] for e in there) / weights).item(), abs=1e-7)


def test_net_vlad_equals_its_equations():
    torch.manual_seed(0)
    vlad = NetVLAD(4, clusters=3, ghosts=2).double().eval()
    vlad.BN.mean.normal_()
    x, present = torch.randn(2, 5, 4, dtype=torch.float64), torch.ones(2, 5, dtype=torch.bool)
    present[1, 3:] = False
    out = vlad(x, present)
    for b in range(2):
        V = [torch.zeros(4, dtype=torch.float64) for _ in range(3)]
        for t in range(5):
            if present[b, t]:
                a = torch.softmax(bn(vlad.BN, vlad.W.weight @ x[b, t]), 0)
                for k in range(3):
                    V[k] += a[k] * (x[b, t] - vlad.centres[k])
        assert torch.allclose(out[b], torch.cat([unit(v) for v in V]) / math.sqrt(3))


# ------------------------------------------------------------------------------------------------- what embeddings say


@NETS
def test_a_side_has_the_towers_of_what_it_shows(module, params):
    net, s = build(module, **params), pairs(dtype=torch.float64)
    both = net.encode(s)
    assert {name: tuple(f.shape) for name, f in both.items()} == dict.fromkeys(("visual", "text"), (8, net.dim))
    for name, modalities in (("visual", EXPERTS), ("text", SPEC.captions)):
        alone = net.encode(part(s, slice(None), modalities))
        assert alone.keys() == {name}
        assert torch.equal(alone[name], both[name])


@NETS
def test_a_modality_that_the_side_lacks_is_one_that_all_rows_lack(module, params):
    net, s = build(module, **params), pairs(dtype=torch.float64)
    left_out = net.encode(part(s, slice(None), [m for m in s.x if m != "action"]))["visual"]
    assert torch.allclose(left_out, net.encode(without(s, "action", slice(None)))["visual"])


@NETS
def test_rows_do_not_depend_on_their_batch_and_nothing_is_zero(module, params):
    net, s = build(module, **params), without(pairs(dtype=torch.float64), "action", [1])
    for m in s.x:
        s = without(s, m, [4])
    together = net.encode(s)
    for row in range(8):
        for name, f in net.encode(part(s, slice(row, row + 1))).items():
            assert torch.allclose(f[0], together[name][row])
    for f in together.values():
        assert not f[4].any()
    xi = net.similarity(together["text"], together["visual"])
    assert xi.isfinite().all()
    assert not xi[4].any()
    assert not xi[:, 4].any()


@NETS
def test_what_fits_perfectly_has_similarity_1_and_none_has_more(module, params):
    net, s = build(module, **params), without(pairs(64, dtype=torch.float64), "scene", slice(0, 9))
    f = net.encode(s)
    xi = net.similarity(f["text"], f["visual"])
    assert xi.abs().max() <= 1 + 1e-9
    if module is gated:
        perfect = f["text"]
    else:  # the direction of each of the caption's blocks, on the experts that the clip has
        blocks = f["text"].unflatten(1, (3, -1))
        has = f["visual"].unflatten(1, (3, -1)).ne(0).any(2, keepdim=True)
        perfect = (torch.nn.functional.normalize(blocks, dim=2) * has).flatten(1)
    assert torch.allclose(net.similarity(f["text"], perfect).diagonal(), torch.ones(64, dtype=torch.float64))


@NETS
def test_every_parameter_gets_a_gradient_also_where_rows_are_missing(module, params):
    net, s = (
        build(module, **params).train(),
        without(without(pairs(dtype=torch.float64), "action", [1, 2]), "words", [3]),
    )
    s = without(s, "sentence", [3])
    loss = net.loss(net.encode(s), s)["L_R"]
    loss.backward()
    assert loss.isfinite()
    for name, p in net.named_parameters():
        assert p.grad.isfinite().all(), name
        assert p.grad.any(), name


@NETS
def test_one_expert_and_one_caption_modality_are_enough(module, params):
    keep = ("object", "words")
    spec = dataclasses.replace(
        SPEC,
        shapes={m: SPEC.shapes[m] for m in keep},
        windows={m: SPEC.windows[m] for m in keep},
        captions=("words",),
    )
    net, s = build(module, spec, **params).train(), side(keep, dtype=torch.float64)
    net.loss(net.encode(s), s)["L_R"].backward()
    assert [name for name, p in net.named_parameters() if not p.grad.any()] == []


def test_weights_of_a_caption_are_shares():
    net = build(ce)
    w = net.encode(pairs(dtype=torch.float64))["text"].unflatten(1, (3, -1)).norm(dim=2)
    assert torch.allclose(w.sum(1), torch.ones(8, dtype=torch.float64))
    assert (w > 0).all()


def test_a_missing_expert_changes_nothing_but_its_share_without_relations():
    """MoEE: the experts that are left keep what they say, and share the weight in proportion."""
    net, s = build(ce, relations=False), pairs(dtype=torch.float64)
    f, g = net.encode(s), net.encode(without(s, "scene", slice(None)))
    blocks = f["visual"].unflatten(1, (3, -1))
    assert torch.equal(g["visual"].unflatten(1, (3, -1))[:, :2], blocks[:, :2])
    text = f["text"].unflatten(1, (3, -1))
    w = text.norm(dim=2)[:, :2]
    expected = torch.einsum("ced,ved->cv", text[:, :2], blocks[:, :2]) / w.sum(1, keepdim=True)
    assert torch.allclose(net.similarity(g["text"], g["visual"]), expected)


def test_relations_tell_an_expert_of_its_partners():
    s = pairs(dtype=torch.float64)
    for relations in (True, False):
        net = build(ce, relations=relations)
        before, after = (net.encode(x)["visual"][:, :6] for x in (s, without(s, "scene", slice(None))))
        assert torch.equal(before, after) != relations


def test_training_normalises_by_the_rows_that_are_there():
    """What lies in absent rows is not read, neither by the batch's statistics."""
    s = without(pairs(dtype=torch.float64), "action", [1, 2])
    spoilt = Side({m: x.clone() for m, x in s.x.items()}, s.present, {}, s.domain, s.index)
    spoilt.x["action"][[1, 2]] = 50.0
    f, g = (build(ce, text="netvlad").train().encode(x) for x in (s, spoilt))
    for name in f:
        assert torch.equal(f[name], g[name])


def test_no_expert_in_common_is_similarity_0_with_a_finite_gradient():
    text = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.3, 0.0, 0.0, 0.7]], requires_grad=True)
    visual = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.6, 0.8]], requires_grad=True)
    xi = mixture_similarity(text, visual, 2)
    assert torch.allclose(xi, torch.tensor([[0.0, 0.0], [0.0, 0.8]]))
    xi.sum().backward()
    assert text.grad.isfinite().all()
    assert visual.grad.isfinite().all()


def test_scale_of_an_expert_or_caption_does_not_matter_to_the_gated_mlp():
    net, s = build(gated), pairs(dtype=torch.float64)
    scaled = Side({m: 40 * x for m, x in s.x.items()}, s.present, {}, s.domain, s.index)
    for name, f in net.encode(s).items():
        assert torch.allclose(net.encode(scaled)[name], f)
        assert torch.allclose(f.norm(dim=1), torch.ones(8, dtype=torch.float64))


def test_published_sizes():
    """CE on three descriptors and a sentence of 768 entries: the reductions, g, gates and text units."""
    shapes = {"object": (2048,), "scene": (2208,), "action": (512,), "words": (768,)}
    spec = dataclasses.replace(
        SPEC, shapes=shapes, windows={**dict.fromkeys(shapes, 1), "words": 30}, captions=("words",)
    )
    D = 768
    with torch.device("meta"):
        net, vlad = ce.NET(ce.Params(), spec), ce.NET(ce.Params(text="netvlad"), spec)
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert net.dim == 2304
    assert count(net.reduce) == (2048 + 2208 + 512 + 3) * D
    assert count(net.relations) == 4 * D * D + 4 * D
    assert count(net.gate) == 3 * (D * D + 4 * D)
    assert count(net.text) == 3 * (2 * D * D + 3 * D) + 3 * (D + 1)
    assert vlad.text.unit[0].reduce.in_features == 28 * D


def test_retrieval_is_learnt():
    """Captions that are a linear function of the clips: every clip finds its own after a few steps."""
    torch.manual_seed(0)
    s = side(EXPERTS, 32)
    x = s.pool("object") @ torch.randn(6, 4)
    present = torch.ones(32, 1, dtype=torch.bool)
    s = Side(s.x | {"sentence": x[:, None]}, s.present | {"sentence": present}, {}, s.domain, s.index)
    spec = dataclasses.replace(
        SPEC,
        shapes={m: SPEC.shapes[m] for m in s.x},
        windows={m: SPEC.windows[m] for m in s.x},
        captions=("sentence",),
    )
    for module in (ce, gated):
        net = module.NET(module.Params(dim=16), spec)
        optimizer = torch.optim.Adam(net.parameters(), 0.03)
        for _ in range(60):
            optimizer.zero_grad()
            net.loss(net.encode(s), s)["L_R"].backward()
            optimizer.step()
        f = net.encode(s)
        assert (net.similarity(f["text"], f["visual"]).argmax(1) == s.index).float().mean() > 0.9


@pytest.mark.parametrize(
    ("captions", "params", "message"),
    [
        (("words", "sentence"), {"text": "lstm"}, "no net.text 'lstm'; choose from mean, netvlad"),
        (("sentence",), {"text": "netvlad"}, "net.text 'netvlad' pools tokens.*choose mean"),
    ],
)
def test_wrong_parameters_are_named(captions, params, message):
    with pytest.raises(ValueError, match=message):
        build(ce, dataclasses.replace(SPEC, captions=captions), **params)


def test_a_target_has_no_ranking_loss():
    net, t = build(ce).float(), clips()
    with pytest.raises(ValueError, match="a ranking loss needs captions"):
        net.loss(net.encode(t), t)
