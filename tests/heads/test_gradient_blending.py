"""Gradient Blending: its losses against explicit sums, its weights against hand-worked numbers."""

import dataclasses

import pytest
import torch
from torch.nn.functional import cross_entropy

from heads.batch import Batch, Side
from heads.methods import gradient_blending, source_only
from heads.nets import adapter, mtran
from heads.testing.problems import EK, SPEC, batch, side, without

SPECS = pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])


def build(spec=SPEC, held=True, **weights):
    """In eval mode, so that dropout does not blur the comparison."""
    spec = dataclasses.replace(spec, rows={"source": 24, **({"source_val": 6} if held else {})})
    torch.manual_seed(0)
    net = adapter.NET(adapter.Params(dim=8), spec)
    return gradient_blending.METHOD(gradient_blending.Params(weights), spec, net).eval()


def naive(method, s):
    """Head -> label -> mean of the cross entropy over the rows that have it."""
    found, f = {}, method.net.encode(s)
    for head in (*s.x, "fused"):
        z = method.net.classify(f if head == "fused" else {head: f[head]})
        found[head] = {}
        for label, y in s.y.items():
            there = [True] * len(y) if head == "fused" else s.has(head).tolist()
            each = cross_entropy(z[label], y, reduction="none").tolist()
            each = [L for L, counts in zip(each, there, strict=True) if counts]
            found[head][label] = sum(each) / len(each)
    return found


# ----------------------------------------------------------------------------------------------------------- the losses


@SPECS
def test_equal_weights_at_first(spec):
    method, s = build(spec), without(side(spec, labelled=True), "flow", [0, 5])
    terms = method.losses(Batch(s), 0.0)
    expected = naive(method, s)
    assert set(terms) == {f"L_C_{head}" for head in expected}
    for head, of in expected.items():
        assert terms[f"L_C_{head}"].item() == pytest.approx(sum(of.values()) / (1 + len(spec.shapes)), rel=1e-5)


def test_given_weights_are_those_of_the_loss_and_need_no_held_out_rows():
    """The published ones of EPIC-Kitchens' verbs and nouns, on made-up modalities."""
    spec = dataclasses.replace(EK, shapes={m: EK.shapes[m] for m in ("rgb", "audio")})
    weights = {"audio:verb": 0.524, "rgb:verb": 0.247, "fused:verb": 0.229}
    weights |= {"audio:noun": 0.175, "rgb:noun": 0.460, "fused:noun": 0.364}
    method, s = build(spec, held=False, **weights), side(spec, labelled=True)
    method.begin_epoch(1, lambda name: iter(()))  # looks at no side
    terms = method.losses(Batch(s), 0.0)
    for head, of in naive(method, s).items():
        expected = sum(weights[f"{head}:{label}"] * L for label, L in of.items())
        assert terms[f"L_C_{head}"].item() == pytest.approx(expected, rel=1e-5)


def test_all_weights_one_is_source_only_with_per_modality():
    method, b = build(**{"rgb:label": 1, "flow:label": 1, "fused:label": 1}), batch(SPEC, ("source",))
    other = source_only.SourceOnly(source_only.Params(per_modality=True), method.spec, method.net)
    assert sum(method.losses(b, 0.0).values()).item() == pytest.approx(sum(other.losses(b, 0.0).values()).item())


def test_a_head_of_weight_0_gives_no_gradient():
    method, b = build(**{"rgb:label": 1, "flow:label": 0, "fused:label": 0}), batch(SPEC, ("source",))
    sum(method.losses(b, 0.0).values()).backward()
    assert not method.net.F["flow"].weight.grad.any()
    assert method.net.F["rgb"].weight.grad.any()


def test_a_modality_that_no_row_has_costs_nothing():
    method, s = build(), side(SPEC, labelled=True)
    assert method.losses(Batch(without(s, "flow", slice(None))), 0.0)["L_C_flow"].item() == 0
    unseen = Side({"rgb": s.x["rgb"]}, {"rgb": s.present["rgb"]}, s.y, s.domain, s.index)
    terms = method.losses(Batch(unseen), 0.0)
    assert terms["L_C_flow"].item() == 0
    assert terms["L_C_rgb"].item() == pytest.approx(terms["L_C_fused"].item())


def test_one_modality_and_weights_below_0_are_refused():
    single = dataclasses.replace(SPEC, shapes={"rgb": (6,)})
    with pytest.raises(ValueError, match="gradient_blending .*'rgb' is the only one.*add a feed"):
        build(single)
    with pytest.raises(ValueError, match=r"method.weights=.*'flow:label': -1.* at least 0"):
        build(**{"rgb:label": 1, "flow:label": -1, "fused:label": 1})


# ---------------------------------------------------------------------------------------------------------- the weights


def losses(*heads):
    """(training, held-out) of each head -> (2, H, 1)."""
    return torch.tensor(heads).T[:, :, None]


def test_weights_by_hand():
    """Both begin at 3 / 3. One gains 1.5 and opens a gap of 0.5: 6; the other gains 1 and opens one of 1: 1."""
    start, now = losses((3.0, 3.0), (3.0, 3.0)), losses((1.0, 1.5), (1.0, 2.0))
    w = gradient_blending.blend(start, now, torch.full((2, 1), 0.5))
    assert w.flatten().tolist() == pytest.approx([6 / 7, 1 / 7])


def test_only_changes_count():
    """A gap that was there at the start is no overfitting, and the level of a loss is no gain."""
    start, now = losses((3.0, 3.0), (3.0, 3.0)), losses((1.0, 1.5), (1.0, 2.0))
    moved = torch.tensor([[[0.0], [1.0]], [[0.5], [3.0]]])
    before = torch.full((2, 1), 0.5)
    w = gradient_blending.blend(start + moved, now + moved, before)
    assert torch.allclose(w, gradient_blending.blend(start, now, before), atol=1e-6)


def test_a_head_that_got_worse_has_no_weight_and_if_all_have_the_weights_stay():
    start, before = losses((1.0, 1.0), (1.0, 1.0)), torch.tensor([[0.3], [0.7]])
    assert gradient_blending.blend(start, losses((0.1, 1.2), (0.5, 0.9)), before).flatten().tolist() == [0, 1]
    assert torch.equal(gradient_blending.blend(start, losses((0.1, 1.2), (0.1, 1.0)), before), before)


def test_growth_of_the_gap_counts_as_a_hundredth_at_least():
    start = losses((1.0, 1.0), (1.0, 1.0), (1.0, 1.0))
    now = losses((0.5, 0.5), (0.6, 0.5), (0.5, 0.52))  # gaps: none, one that closed, 0.02
    w = gradient_blending.blend(start, now, torch.ones(3, 1)).flatten()
    assert w[0].item() == pytest.approx(w[1].item())
    assert (w[0] / w[2]).item() == pytest.approx(4 * 0.5 / 0.48, rel=1e-3)


def test_tasks_are_weighed_apart():
    start, now = losses((3.0, 3.0), (3.0, 3.0)), losses((1.0, 1.5), (1.0, 2.0))
    w = gradient_blending.blend(start.repeat(1, 1, 2), torch.cat([now, now.flip(1)], 2), torch.ones(2, 2))
    assert w.sum(0).tolist() == pytest.approx([1, 1])
    assert torch.equal(w[:, 0], w[:, 1].flip(0))


@SPECS
def test_estimated_between_the_start_of_the_run_and_now(spec):
    method = build(spec)
    sides = {"source": side(spec, 24, labelled=True), "source_val": side(spec, 6, labelled=True, seed=2)}
    sides = {name: without(of, "flow", [1, 4]) for name, of in sides.items()}

    def in_parts(name):
        for rows in (slice(0, 4), slice(4, None)):
            cut = lambda of: {key: value[rows] for key, value in of.items()}  # noqa: B023, E731
            s = sides[name]
            yield Side(cut(s.x), cut(s.present), cut(s.y), s.domain[rows], s.index[rows])

    def as_tensor(name):
        return torch.tensor([list(of.values()) for of in naive(method, sides[name]).values()])

    with torch.no_grad():
        method.begin_epoch(0, in_parts)
        start = torch.stack([as_tensor("source"), as_tensor("source_val")])
        assert torch.allclose(method.weights, torch.full_like(method.weights, 1 / (1 + len(spec.shapes))))
    for epoch in (1, 2):
        for _ in range(3):
            method.zero_grad()
            sum(method.losses(Batch(sides["source"]), 0.0).values()).backward()
            with torch.no_grad():
                for p in method.net.parameters():
                    p -= 0.5 * p.grad
        before = method.weights.clone()
        with torch.no_grad():
            method.begin_epoch(epoch, in_parts)
            now = torch.stack([as_tensor("source"), as_tensor("source_val")])
        assert torch.allclose(method.weights, gradient_blending.blend(start, now, before), rtol=1e-3)
        assert not torch.allclose(method.weights, before)


# ------------------------------------------------------------------------------------------------------------ bad input


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match=r"held-out .*set holdout=0.1, or method.weights"):
        build(held=False)
    with pytest.raises(ValueError, match="has rgb:label; it must have rgb:label, flow:label, fused:label, or be empty"):
        build(**{"rgb:label": 1.0})


def test_a_net_that_fuses_is_refused():
    spec = dataclasses.replace(SPEC, rows={"source": 24, "source_val": 6})
    method = gradient_blending.METHOD(gradient_blending.Params(), spec, mtran.NET(mtran.Params(dim=8), spec))
    with pytest.raises(ValueError, match="net mtran .*fused features"):
        method.losses(batch(SPEC, ("source",)), 0.0)
