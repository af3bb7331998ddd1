"""Contrast with memory banks against the paper's equations, written out once more with explicit loops."""

import dataclasses
import math
from itertools import combinations, permutations

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from heads.batch import Batch, Side, Spec
from heads.methods import dann, source_only, xmc
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, batch, side, without
from tests.heads.test_losses_contrastive import naive, naive_one_log

torch.set_num_threads(1)
SPECS = pytest.mark.parametrize("spec", [SPEC, EK], ids=["two modalities", "three modalities, two labels"])
GAPS = [0, 4, 5]


def build(spec, **params):
    """In eval mode, so that dropout does not blur the comparison; T between the confidences of an untrained net."""
    torch.manual_seed(0)
    params = {"projection": 5, "T": 0.4} | params
    return xmc.Xmc(xmc.Params(**params), spec, adapter.NET(adapter.Params(dim=8, act="none"), spec)).eval()


def sides(spec, gaps=()):
    """All rows of both sides; some lack flow."""
    whole = {d: side(spec, spec.rows[d], labelled=d == "source", seed=40 + len(d)) for d in ("source", "target")}
    return {d: without(s, "flow", list(gaps)) for d, s in whole.items()}


def rows(s, index):
    """These rows of a side."""
    take = lambda of: {name: value[index] for name, value in of.items()}  # noqa: E731
    return Side(take(s.x), take(s.present), take(s.y), s.domain[index], s.index[index])


def fill(method, whole):
    """The first sweep, in two pieces."""
    with torch.no_grad():
        method.begin_epoch(0, lambda d: (rows(whole[d], part) for part in whole[d].index.split(13)))


def problem(spec, gaps=(), **params):
    """A method with full banks, whose net has moved on since, and a batch of other rows than the first."""
    method, whole = build(spec, **params), sides(spec, gaps)
    fill(method, whole)
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in method.net.parameters():
            weights += 0.2 * torch.randn_like(weights)
    return method, Batch(*(rows(whole[d], torch.tensor([9, 4, 0, 17, 5, 11])) for d in ("source", "target")))


def bank(method, d, m):
    return method.get_buffer(f"{d}:M:{m}")


def step(method, b, update=lambda method: None):
    """One round, with an update between its losses and what follows."""
    for _, _terms in method.rounds(b, 0.5):
        with torch.no_grad():
            update(method)


# ----------------------------------------------------------------------------------------------------------- the losses


def ratio(method, *given):
    """The loss of anchors, keys, positives and counted keys, in the form that the method takes."""
    form = {"mean": naive, "one_log": naive_one_log}[method.params.reduction]
    anchors, keys, same, has = given
    return form(anchors.tolist(), keys.tolist(), same, method.params.tau, has)


def naive_cross_modal(method, d, s, space):
    """½ Σ over ordered pairs of modalities: a row of the batch is the anchor, its own row of the bank the positive."""
    project = method.h if space == "h" else (lambda f: f)
    f, total = method.net.encode(s), 0.0
    for k, other in permutations(s.x, 2):
        keys = project(bank(method, d, other))
        has = method.get_buffer(f"{d}:has:{other}").tolist()
        same = [
            [int(i) == j and bool(there) for j in range(len(keys))] for i, there in zip(s.index, s.has(k), strict=True)
        ]
        total += ratio(method, project(f[k]), keys, same, has)
    return total / 2


def naive_cross_domain(method, t, space):
    """Σ over modalities and labels: sure rows of the target are anchors, source rows of their class the positives."""
    f, total, anchors = method.net.encode(t), 0.0, set()
    for label, z in method.net.classify(f).items():
        view = method.h if space == "h" else (lambda f, part=method.net.parts[label]: f[:, part])
        p, labels = z.softmax(1).tolist(), method.get_buffer(f"source:y:{label}").tolist()
        for k in t.x:
            sure = [max(row) > method.params.T and bool(there) for row, there in zip(p, t.has(k), strict=True)]
            same = [[yes and y == row.index(max(row)) for y in labels] for row, yes in zip(p, sure, strict=True)]
            has = method.get_buffer(f"source:has:{k}").tolist()
            keys = view(bank(method, "source", k))
            total += ratio(method, view(f[k]), keys, same, has)
            anchors |= set(sure)
    assert anchors == {True, False}  # or T says nothing
    return total


@SPECS
@pytest.mark.parametrize("gaps", [(), GAPS], ids=["whole", "with gaps"])
@pytest.mark.parametrize(("modal", "domain"), [("h", "F"), ("F", "h")])
@pytest.mark.parametrize("reduction", ["mean", xmc.PRINTED.reduction])
def test_terms_equal_the_naive_loops(spec, gaps, modal, domain, reduction):
    method, b = problem(spec, gaps, lambda_=0.7, cross_modal=modal, cross_domain=domain, reduction=reduction)
    with torch.no_grad():
        terms = method.losses(b, 0.5)
        expected = {
            "L_mo_s": naive_cross_modal(method, "source", b.source, modal),
            "L_mo_t": naive_cross_modal(method, "target", b.target, modal),
            "L_do": naive_cross_domain(method, b.target, domain),
        }
    for name, value in expected.items():
        assert value > 0
        assert terms[name].item() == pytest.approx(0.7 * value, rel=1e-4), name
    z = method.net.classify(method.net.encode(b.source))
    assert torch.allclose(terms["L_C"], sum(cross_entropy(z[label], b.source.y[label]) for label in z))


def test_one_clip_by_hand():
    """Two clips; the anchor points along the first axis, the keys along the first and against it."""
    spec = Spec(
        {"rgb": (2,), "flow": (2,)}, {"rgb": 1, "flow": 1}, {"label": 2}, {"source": 2, "target": 2}, ("a", "b")
    )
    net = adapter.NET(adapter.Params(dim=2, act="none"), spec)
    method = xmc.Xmc(xmc.Params(lambda_=1.0, tau=0.5, T=0.6, cross_modal="F"), spec, net).eval()
    with torch.no_grad():
        for m in net.F:
            net.F[m].weight.copy_(torch.eye(2))
            net.F[m].bias.zero_()
            net.classifier.G[f"{m}:label"].weight.copy_(torch.eye(2))
    whole = {}
    for d, labelled in (("source", True), ("target", False)):
        whole[d] = side(spec, 2, labelled=labelled)
        for x in whole[d].x.values():
            x.copy_(torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]]]))
    fill(method, whole)
    terms = method.losses(Batch(*(rows(whole[d], torch.tensor([0])) for d in whole)), 0.0)
    one = math.log(1 + math.exp(-4))  # -log(e^2 / (e^2 + e^-2)): cosines 1 and -1, over τ = 0.5
    assert terms["L_mo_s"].item() == pytest.approx(one, rel=1e-4)  # both directions alike, and their mean
    assert terms["L_mo_t"].item() == pytest.approx(one, rel=1e-4)
    assert terms["L_do"].item() == pytest.approx(
        2 * one, rel=1e-4
    )  # class 0 with probability 0.88; the sum over two modalities


def test_terms_of_each_form():
    forms = {
        ("h", "F"): {"L_C", "L_mo_s", "L_mo_t", "L_do"},
        ("h", "none"): {"L_C", "L_mo_s", "L_mo_t"},
        ("h", "adversarial"): {"L_C", "L_mo_s", "L_mo_t", "L_d"},
        ("none", "F"): {"L_C", "L_do"},
        ("adversarial", "adversarial"): {"L_C", "L_m_s", "L_m_t", "L_d"},
        ("adversarial", "none"): {"L_C", "L_m_s", "L_m_t"},
    }
    for (modal, domain), names in forms.items():
        method, b = problem(SPEC, cross_modal=modal, cross_domain=domain)
        assert set(method.losses(b, 0.5)) == names
        assert bool(list(method.h.parameters())) == (modal in ("h", "adversarial"))
        assert bool(list(method.D.parameters())) == (domain == "adversarial")
        assert bool(list(method.D_kl.parameters())) == (modal == "adversarial")
    plain = source_only.SourceOnly(source_only.Params(), SPEC, method.net)
    assert torch.allclose(method.losses(b, 0.5)["L_C"], plain.losses(b, 0.5)["L_C"])


def test_the_printed_form_differs_in_the_logarithm_only_and_in_every_contrast():
    assert {f.name for f in dataclasses.fields(xmc.Params) if getattr(xmc.PRINTED, f.name) != f.default} == {
        "reduction"
    }
    (ours, b), (printed, _) = problem(SPEC), problem(SPEC, reduction=xmc.PRINTED.reduction)
    ours, printed = ours.losses(b, 0.5), printed.losses(b, 0.5)
    assert [name for name in ours if not torch.allclose(ours[name], printed[name])] == ["L_mo_s", "L_mo_t", "L_do"]


def test_unknown_spaces_list_the_known_ones():
    for name in ("cross_domain", "cross_modal"):
        with pytest.raises(ValueError, match=f"no method.{name} 'g'; choose from h, F, adversarial, none"):
            build(SPEC, **{name: "g"})
    with pytest.raises(ValueError, match="no method.reduction 'sum'; choose from mean, one_log"):
        build(SPEC, reduction="sum")


@SPECS
def test_adversaries_are_those_of_dann_with_the_weight_of_l_do(spec):
    method, b = problem(spec, cross_domain="adversarial", lambda_=1.5)
    other = dann.Dann(dann.Params(), spec, method.net)
    other.D = method.D
    ours, theirs = method.losses(b, 0.3)["L_d"], other.losses(b, 0.3)["L_d"]
    assert ours.item() == pytest.approx(1.5 * theirs.item(), rel=1e-6)
    learnt = [*method.net.F.parameters(), *method.D.parameters()]
    for mine, its in zip(torch.autograd.grad(ours, learnt), torch.autograd.grad(theirs, learnt), strict=True):
        assert its.any()
        assert torch.allclose(mine, 1.5 * its, atol=1e-7)


def naive_modality(method, s):
    """Σ over pairs of modalities: the mean of -log D(h(F))[0 for the first, 1 for the other] over rows that have it."""
    f, total = method.net.encode(s), 0.0
    for k, other in combinations(s.x, 2):
        each = []
        for truth, m in enumerate((k, other)):
            for row, there in zip(f[m], s.has(m), strict=True):
                if there:
                    a, b = method.D_kl[f"{k}:{other}"](method.h(row[None]))[0].tolist()
                    each.append(math.log(math.exp(a) + math.exp(b)) - (a, b)[truth])
        total += sum(each) / len(each)
    return total


@SPECS
@pytest.mark.parametrize("gaps", [(), GAPS], ids=["whole", "with gaps"])
def test_adversaries_between_modalities_equal_the_naive_loops(spec, gaps):
    method, b = problem(spec, gaps, cross_modal="adversarial", cross_domain="adversarial", lambda_=1.5)
    with torch.no_grad():
        terms = method.losses(b, 0.3)
        for d, s in (("s", b.source), ("t", b.target)):
            assert terms[f"L_m_{d}"].item() == pytest.approx(1.5 * naive_modality(method, s), rel=1e-5)


def test_discriminators_of_modalities_learn_what_h_and_the_features_unlearn():
    """One step of each player on L_m: the discriminator lowers it, h and the net, behind the reversal, raise it."""
    for learns, falls in (("D_kl", True), ("h", False), ("net", False)):
        method, b = problem(SPEC, cross_modal="adversarial", cross_domain="none", lambda_=1.0)
        before = method.losses(b, 1.0)["L_m_s"]
        weights = list(
            getattr(method, learns).F.parameters() if learns == "net" else getattr(method, learns).parameters()
        )
        with torch.no_grad():
            for weight, gradient in zip(weights, torch.autograd.grad(before, weights), strict=True):
                weight -= 0.01 * gradient
        assert (method.losses(b, 1.0)["L_m_s"] < before) == falls


def test_one_modality_is_refused_where_only_the_loss_between_modalities_is_asked_for():
    single = dataclasses.replace(SPEC, shapes={"rgb": (6,)}, windows={"rgb": 3})
    for spec, params in ((single, {"cross_domain": "none"}), (SPEC, {"cross_domain": "none", "cross_modal": "none"})):
        with pytest.raises(ValueError, match="xmc has nothing to add to L_C: L_mo takes two modalities .here: rgb"):
            build(spec, **params)
    for modal in ("none", "adversarial"):
        assert build(single, cross_modal=modal).losses(batch(single), 0.5)["L_do"].isfinite()


def test_doubling_lambda_doubles_all_but_the_cross_entropy():
    (once, b), (twice, _) = problem(SPEC, lambda_=0.5), problem(SPEC, lambda_=1.0)
    once, twice = once.losses(b, 0.5), twice.losses(b, 0.5)
    for name, term in once.items():
        assert twice[name].item() == pytest.approx((1 if name == "L_C" else 2) * term.item(), rel=1e-6)


def test_only_sure_classes_count():
    method, b = problem(SPEC)
    sure = method.predict(b.target)["label"].softmax(1).max(1).values
    for T, anchors in ((0.0, 6), (sure.sort().values[3].item(), 2), (1.0, 0)):
        method.params = dataclasses.replace(method.params, T=T)
        alone = [
            method.losses(Batch(b.source, rows(b.target, i[None])), 0.5)["L_do"].item()
            for i in torch.where(sure > T)[0]
        ]
        assert len(alone) == anchors
        assert method.losses(b, 0.5)["L_do"].item() == pytest.approx(sum(alone) / max(anchors, 1), rel=1e-5)


def test_a_class_that_the_source_lacks_attracts_nobody():
    method, b = problem(SPEC, T=0.0)
    method.get_buffer("source:y:label").fill_(3)
    threes = method.predict(b.target)["label"].argmax(1) == 3
    assert not threes.all()
    assert threes.any()  # whose positives are all of the bank: they have no rival
    assert method.losses(b, 0.5)["L_do"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("lacks", ["source", "target"])
def test_a_side_without_a_modality_is_contrasted_on_the_others(lacks):
    whole = sides(SPEC)
    s = whole[lacks]
    whole[lacks] = Side({"rgb": s.x["rgb"]}, {"rgb": s.present["rgb"]}, s.y, s.domain, s.index)
    method = build(SPEC, T=0.0)
    fill(method, whole)
    terms = method.losses(Batch(whole["source"], whole["target"]), 0.5)
    assert terms[f"L_mo_{lacks[0]}"].item() == 0
    other = "source" if lacks == "target" else "target"
    assert terms[f"L_mo_{other[0]}"].item() > 0
    z = method.predict(whole["target"])["label"]
    same = (z.argmax(1)[:, None] == method.get_buffer("source:y:label")).tolist()
    rgb = method.net.encode(whole["target"])["rgb"].tolist()
    expected = naive(rgb, bank(method, "source", "rgb").tolist(), same, 0.1)
    assert terms["L_do"].item() == pytest.approx(1.25 * expected, rel=1e-4)
    before = bank(method, lacks, "flow").clone()
    step(method, Batch(whole["source"], whole["target"]))
    assert torch.equal(bank(method, lacks, "flow"), before)


# ------------------------------------------------------------------------------------------------------------ gradients


def test_pseudo_labels_take_no_gradient_and_bank_rows_are_constants():
    method, b = problem(SPEC)
    method.losses(b, 0.5)["L_do"].backward()
    assert {n.split(".")[1] for n, p in method.named_parameters() if p.grad is not None and p.grad.abs().max()} == {"F"}
    method.zero_grad()
    (method.losses(b, 0.5)["L_mo_s"]).backward()
    found = method.h[2].weight.grad.clone()
    keys = {m: normalize(method.h(bank(method, "source", m))).detach() for m in SPEC.shapes}
    f, total = method.net.encode(b.source), 0.0
    for k, other in permutations(f, 2):
        total = total + cross_entropy(normalize(method.h(f[k].detach())) @ keys[other].T / 0.1, b.source.index)
    method.zero_grad()
    (1.25 * total / 2).backward()
    assert torch.allclose(found, method.h[2].weight.grad, atol=1e-6)
    assert not any(buffer.requires_grad for buffer in method.buffers())


# ---------------------------------------------------------------------------------------------------------------- banks


def test_the_first_sweep_fills_the_banks_and_no_later_one():
    method, whole = build(SPEC), sides(SPEC, GAPS)
    fill(method, whole)
    for d, s in whole.items():
        for m, f in method.net.encode(s).items():
            assert torch.allclose(bank(method, d, m), f, atol=1e-6)
            assert torch.equal(method.get_buffer(f"{d}:has:{m}"), s.has(m))
    assert torch.equal(method.get_buffer("source:y:label"), whole["source"].y["label"])

    def refuse(d):
        raise AssertionError(d)

    method.begin_epoch(1, refuse)


@pytest.mark.parametrize("delta", [0.0, 0.25, 1.0])
def test_rows_of_the_batch_move_towards_their_features(delta):
    method, b = problem(SPEC, delta=delta)
    b = Batch(without(b.source, "flow", [1, 2]), without(b.target, "flow", [2]))  # though the banks have these rows
    old = {(d, m): bank(method, d, m).clone() for d in ("source", "target") for m in SPEC.shapes}
    new = {"source": method.net.encode(b.source), "target": method.net.encode(b.target)}
    step(method, b, update=lambda method: [weights.zero_() for weights in method.net.parameters()])
    for (d, m), before in old.items():
        has, after = getattr(b, d).has(m), bank(method, d, m)
        for row in range(SPEC.rows[d]):
            at = getattr(b, d).index.tolist().index(row) if row in getattr(b, d).index else None
            if at is None or not has[at]:
                assert torch.equal(after[row], before[row])
            else:  # of the features that the losses saw, not of those after the update
                assert torch.allclose(after[row], delta * before[row] + (1 - delta) * new[d][m][at], atol=1e-6)
        assert not after.requires_grad


def test_bank_by_hand():
    method, b = problem(SPEC, delta=0.5)
    b = Batch(rows(b.source, torch.tensor([0])), rows(b.target, torch.tensor([0])))
    row, f = int(b.source.index), method.net.encode(b.source)["rgb"][0]
    bank(method, "source", "rgb")[row] = 0
    for share in (0.5, 0.75, 0.875):
        step(method, b)
        assert torch.allclose(bank(method, "source", "rgb")[row], share * f, atol=1e-6)


def test_losses_alone_move_no_bank():
    method, b = problem(SPEC)
    before = bank(method, "target", "flow").clone()
    method.losses(b, 0.5)
    assert torch.equal(bank(method, "target", "flow"), before)


def test_banks_stay_out_of_the_checkpoint():
    method, _ = problem(SPEC)
    assert {name.split(".")[0] for name in method.state_dict()} == {"net", "h"}
    larger = dataclasses.replace(SPEC, rows={"source": 90, "target": 70})
    build(larger).load_state_dict(method.state_dict())
