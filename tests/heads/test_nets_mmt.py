"""The multi-modal transformer against its equations, with loops, and what its masks promise."""

import math

import pytest
import torch

from heads.batch import Side
from heads.nets import mmt
from heads.testing.problems import without
from tests.helpers.retrieval_problems import EXPERTS, SPEC, pairs, part

torch.set_num_threads(1)


def build(**params):
    torch.manual_seed(0)
    net = mmt.Mmt(mmt.Params(**{"dim": 8, "ff_dim": 12, "layers": 2, **params}), SPEC)
    for p in net.layers.parameters():
        p.data += 0.1 * torch.randn_like(p)  # norms and biases that are not their first ones
    return net.double().eval()


def precise(**options):
    return pairs(dtype=torch.float64, **options)


def attend(layer, h):
    """Self-attention of tokens (S, D), head by head."""
    D = h.shape[1]
    q, k, v = (h @ layer.self_attn.in_proj_weight.T + layer.self_attn.in_proj_bias).split(D, 1)
    heads = []
    for part_ in torch.arange(D).split(D // mmt.HEADS):
        scores = torch.stack([torch.stack([a @ b for b in k[:, part_]]) for a in q[:, part_]]) / math.sqrt(len(part_))
        heads.append(scores.softmax(1) @ v[:, part_])
    return layer.self_attn.out_proj(torch.cat(heads, 1))


def naive(net, s, row):
    """v_e of one clip: only the tokens that are there take part."""
    tokens, at = [], {}
    for e, m in enumerate(EXPERTS):
        there = [t for t in range(s.x[m].shape[1]) if s.present[m][row, t]]
        if not there:
            continue
        rows = torch.stack([s.x[m][row, t].flatten() for t in there])
        at[m] = len(tokens)
        tokens.append(net.A[m](rows.amax(0)) + net.E[e] + net.P[0])
        T, most = s.x[m].shape[1], len(net.P) - 1
        tokens += [net.A[m](a) + net.E[e] + net.P[1 + t * most // T] for t, a in zip(there, rows, strict=True)]
    h = net.before[0](torch.stack(tokens))
    for layer in net.layers:
        h = layer.norm1(h + attend(layer, h))
        h = layer.norm2(h + layer.linear2(torch.nn.functional.gelu(layer.linear1(h))))
    zero = torch.zeros(net.dim // 3, dtype=torch.float64)
    return torch.cat([h[at[m]] / h[at[m]].norm() if m in at else zero for m in EXPERTS])


def test_equals_its_equations():
    net, s = build(), without(precise(), "action", [2])
    s.present["object"][3, 1] = False
    visual = net.encode(s)["visual"]
    for row in range(8):
        assert torch.allclose(visual[row], naive(net, s, row))


def test_tests_may_show_more_windows_than_training_and_time_runs_from_first_to_last():
    net = build()
    assert net.positions(3).tolist() == [0, 1, 2, 3]
    assert net.positions(6).tolist() == [0, 1, 1, 2, 2, 3, 3]
    assert net.positions(1).tolist() == [0, 1]


def test_order_of_windows_matters():
    net, s = build(), precise()
    turned = Side({**s.x, "object": s.x["object"].flip(1)}, s.present, {}, s.domain, s.index)
    assert not torch.allclose(net.encode(turned)["visual"], net.encode(s)["visual"])


def test_what_lies_in_absent_windows_is_not_read():
    net, s = build(), without(precise(), "action", [0])
    s.present["object"][:, 1] = False
    before = net.encode(s)
    s.x["object"][:, 1] = 1e3
    s.x["action"][0] = 1e3
    for name, f in net.encode(s).items():
        assert torch.equal(f, before[name])


def test_a_side_has_the_towers_of_what_it_shows_and_a_clip_without_anything_is_0():
    net, s = build(), precise()
    for m in EXPERTS:
        s = without(s, m, [4])
    both = net.encode(s)
    for name, modalities in (("visual", EXPERTS), ("text", SPEC.captions)):
        alone = net.encode(part(s, slice(None), modalities))
        assert alone.keys() == {name}
        assert torch.equal(alone[name], both[name])
    assert both["visual"].isfinite().all()
    assert not both["visual"][4].any()
    xi = net.similarity(both["text"], both["visual"])
    assert not xi[:, 4].any()
    assert xi.abs().max() <= 1
    dropped = net.encode(part(s, slice(None), ["object", "scene"]))["visual"]
    assert torch.allclose(dropped, net.encode(without(s, "action", slice(None)))["visual"])


@pytest.mark.parametrize("text", ["mean", "netvlad"])
def test_every_parameter_gets_a_gradient(text):
    net, s = build(text=text).train(), precise()
    for m in EXPERTS:
        s = without(s, m, [4])
    net.loss(net.encode(s), s)["L_R"].backward()
    for name, p in net.named_parameters():
        assert p.grad.isfinite().all(), name
        assert p.grad.any(), name


def test_layers_are_drawn_apart():
    first, second = (layer.linear1.weight for layer in mmt.Mmt(mmt.Params(dim=8, ff_dim=12, layers=2), SPEC).layers)
    assert not torch.equal(first, second)


def test_heads_must_divide():
    with pytest.raises(ValueError, match="net.dim 10 .* 4 heads; .* multiple of 4"):
        build(dim=10)


def test_a_layer_equals_torchs_layer():
    """The same weights from the same seed, under the same names; rows that see all tokens, some, or one."""
    layers = []
    for build_layer in (
        lambda: mmt.Layer(8, 16, 0.3),
        lambda: torch.nn.TransformerEncoderLayer(8, mmt.HEADS, 16, 0.3, "gelu", batch_first=True),
    ):
        torch.manual_seed(0)
        layers.append(build_layer().eval())
    ours, theirs = layers
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    h_BSD, hidden_BS = torch.randn(3, 5, 8), torch.arange(5) >= torch.tensor([5, 3, 1])[:, None]
    expected = theirs.train()  # without the fast path of eval mode
    for module in expected.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    expected.self_attn.dropout = 0.0
    assert torch.allclose(ours(h_BSD, hidden_BS), expected(h_BSD, src_key_padding_mask=hidden_BS), atol=1e-6)


def test_all_dropouts_of_a_layer_draw():
    """Attention weights, the wide layer, and both outputs; each moves the result by itself."""
    layer, h_BSD, hidden_BS = mmt.Layer(8, 16, 0.5), torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
    names = ("dropout", "dropout1", "dropout2", "dropout_A")
    still = layer.eval()(h_BSD, hidden_BS)
    for name in names:
        layer.eval().get_submodule(name).train()
        assert not torch.allclose(layer(h_BSD, hidden_BS), still)
