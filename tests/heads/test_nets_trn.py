"""The relation network against its equations, written out once more with explicit loops."""

import dataclasses
from itertools import combinations
from math import ceil

import pytest
import torch

from heads.batch import Side, Spec
from heads.methods import rna
from heads.nets import trn
from heads.testing.problems import EK, SPEC, batch, side, without

FIVE = dataclasses.replace(SPEC, windows={"rgb": 5, "flow": 4})


def build(spec=FIVE, **params):
    torch.manual_seed(0)
    return trn.Trn(trn.Params(**{"dim": 6, "frame_dim": 4, "relation_dim": 5, **params}), spec).double().eval()


def some(spec=FIVE, **options):
    s = side(spec, labelled=False, **options)
    return Side({m: x.double() for m, x in s.x.items()}, s.present, s.y, s.domain, s.index)


# ------------------------------------------------------------------------------------------------------ the equations


def naive(net, s, m, row, frames):
    """Frames, relations and f_m of one row, read at these windows."""
    branch, T = net.branch[m], len(frames)
    x = [(branch.W.weight @ s.x[m][row, t].flatten() + branch.W.bias).clamp_min(0) for t in frames]
    relations = []
    for n, scale in zip(range(T, 1, -1), branch.scales, strict=True):
        every = list(combinations(range(T), n))
        numbers = range(len(every)) if len(every) <= 3 else [ceil(i * len(every) / 3) for i in range(3)]
        r = torch.zeros(net.params.relation_dim, dtype=torch.float64)
        for number in numbers:
            joined = torch.cat([x[t] for t in every[number]])
            r = r + (scale.V.weight @ joined + scale.V.bias).clamp_min(0)
        relations.append(r)
    return torch.stack(x), torch.stack(relations), net.U[m].weight @ sum(relations) + net.U[m].bias


def test_equals_its_equations():
    net, s = build(), without(some(), "flow", [2])
    levels, f = net.levels(s), net.encode(s)
    z = net.classify(f)["label"]
    for row in range(8):
        logits = net.classifier.g[":label"].clone()
        for m, T in FIVE.windows.items():
            if m == "flow" and row == 2:
                assert not f[m][row].any()
                continue
            x, r, f_m = naive(net, s, m, row, range(T))
            assert torch.allclose(levels[m].frames[row], x)
            assert torch.allclose(levels[m].relations[row], r)
            assert torch.allclose(f[m][row], f_m)
            logits = logits + net.classifier.G[f"{m}:label"].weight @ f_m
        assert torch.allclose(z[row], logits)


def test_combinations_by_hand():
    assert trn.chosen(5, 5) == [(0, 1, 2, 3, 4)]
    assert trn.chosen(5, 3) == [(0, 1, 2), (0, 2, 4), (1, 2, 4)]  # numbers 0, 4, 7 of 10
    assert trn.chosen(5, 2) == [(0, 1), (1, 2), (2, 3)]
    assert trn.chosen(3, 2) == [(0, 1), (0, 2), (1, 2)]  # all three
    assert trn.chosen(1, 1) == [(0,)]


def test_published_size():
    """Weights of V: (5 + 4 + 3 + 2) · 1024 · 1024 per modality, and a bias for each of the four scales."""
    spec = Spec(dict.fromkeys("rfa", (1024,)), dict.fromkeys("rfa", 5), {"noun": 300, "verb": 97}, {}, ("s",))
    with torch.device("meta"):
        net = trn.Trn(trn.Params(), spec)
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(net.branch["r"].scales) == 14 * 1024**2 + 4 * 1024
    assert count(net.branch["r"].W) == 1025 * 1024
    assert net.U["r"].weight.shape == (512, 1024)
    assert net.parts == {"noun": slice(0, 256), "verb": slice(256, 512)}


# ---------------------------------------------------------------------------------------------------- windows and masks


def test_order_matters():
    net, s = build(), some()
    turned = Side({m: x.flip(1) for m, x in s.x.items()}, s.present, {}, s.domain, s.index)
    assert not torch.allclose(net.encode(s)["rgb"], net.encode(turned)["rgb"])
    assert torch.allclose(net.levels(s)["rgb"].frames, net.levels(turned)["rgb"].frames.flip(1))


def test_segments_of_many_windows():
    """25 windows are read at 2, 7, 12, 17, 22, as RNA has it; T windows are all read."""
    everyone = torch.ones(1, 25, dtype=torch.bool)
    assert trn.centres(everyone, 5).tolist() == [[2, 7, 12, 17, 22]]
    assert trn.centres(everyone, 25).tolist() == [list(range(25))]


@pytest.mark.parametrize(
    ("present", "read"),
    [
        ([1, 1, 1, 0, 0], [0, 0, 1, 2, 2]),
        ([0, 1, 0, 1, 1], [1, 1, 3, 4, 4]),
        ([0, 0, 0, 1, 0], [3, 3, 3, 3, 3]),
        ([1, 1, 0, 1, 1], [0, 1, 3, 3, 4]),
    ],
)
def test_absent_windows_are_filled_with_present_ones_in_order(present, read):
    net, s = build(), some()
    s.present["rgb"][4] = torch.tensor(present, dtype=torch.bool)
    s.x["rgb"][4, ~s.present["rgb"][4]] = 1e3  # is not read
    assert trn.centres(s.present["rgb"][4:5], 5).tolist() == [read]
    assert torch.allclose(net.encode(s)["rgb"][4], naive(net, s, "rgb", 4, read)[2])


def test_more_windows_in_a_test_than_in_training():
    net, s = build(), some()
    twice = Side(
        {m: x.repeat_interleave(3, 1) for m, x in s.x.items()},
        {m: there.repeat_interleave(3, 1) for m, there in s.present.items()},
        {},
        s.domain,
        s.index,
    )
    for m, f in net.encode(s).items():
        assert torch.allclose(net.encode(twice)[m], f)


def test_a_single_window_is_its_own_relation():
    net, s = build(EK), some(EK)
    branch, x = net.branch["audio"], s.x["audio"][:, 0].flatten(1)
    frame = branch.W(x).relu()
    assert torch.allclose(net.levels(s)["audio"].relations, branch.scales[0].V(frame).relu()[:, None])


def test_masking_a_modality_is_leaving_it_out():
    net, s = build(), some()
    masked = net.classify(net.encode(without(s, "flow", slice(None))))["label"]
    assert torch.allclose(masked, net.classify({"rgb": net.encode(s)["rgb"]})["label"])


# ------------------------------------------------------------------------------------------------------------ gradients


def test_rows_without_a_modality_give_its_network_no_gradient():
    net, s = build(), without(some(), "flow", slice(None))
    net.classify(net.encode(s))["label"].sum().backward()
    for name, weights in [*net.branch["flow"].named_parameters(), *net.U["flow"].named_parameters()]:
        assert not weights.grad.any(), name
    assert all(weights.grad.any() for weights in net.branch["rgb"].parameters())


def test_norm_terms_of_rna_lie_on_the_tasks_parts():
    """What RNA aligns on EK100: verb and noun features apart; the terms of one do not reach the other's rows of U."""
    torch.manual_seed(0)
    net = trn.Trn(trn.Params(dim=6, frame_dim=4, relation_dim=5), EK).eval()
    spec = dataclasses.replace(EK, rows={"source": 24})
    method = rna.Rna(rna.Params(lambda_g=1.0, lambda_c=0.0), spec, net)
    b = batch(EK, ("source",))
    f = net.encode(b.source)
    expected = 0.0
    for part in net.parts.values():
        norms = {m: f_BD[:, part].norm(dim=1).mean() for m, f_BD in f.items()}
        expected += sum((norms[u] / norms[v] - norms[v] / norms[u]) ** 2 for u, v in combinations(norms, 2))
    assert torch.allclose(method.losses(b, 0.0)["L_g"], expected)


def test_dropout_of_frames_and_of_videos():
    spec = Spec({"rgb": (8,)}, {"rgb": 3}, {"label": 3}, {"source": 64}, ("a",))
    net, s = build(spec, frame_dim=64, relation_dim=64, dropout=0.25).train(), some(spec, rows=64)
    with torch.no_grad():
        net.branch["rgb"].W.bias += 1e3  # so that ReLU gives no zeros
    levels = net.levels(s)["rgb"]
    assert 0.2 < (levels.frames == 0).double().mean() < 0.3
    ones = torch.ones_like(levels.relations)
    assert set(net.video(ones).unique().tolist()) == {0.0, 2 / 0.75}  # two scales
    assert 0.2 < (net.video(ones) == 0).double().mean() < 0.3
