"""HCL: both losses against naive loops, its weights by hand, the historical net step by step."""

import math

import pytest
import torch

from heads.batch import Batch
from heads.methods import hcl
from heads.methods._copies import Teacher
from heads.methods.hcl import consistency, reliability
from heads.testing.methods import build
from heads.testing.problems import EK, SPEC, batch, side

SPECS = pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
TARGET = ("target",)
torch.set_num_threads(1)


def prepared(spec, **params):
    """A method that has seen the target and moved since: net, history and source all differ. In eval mode."""
    method, rows = build(hcl, spec, TARGET, params=params).eval(), side(spec, 18, labelled=False, seed=3)
    with torch.no_grad():
        for p in method.net.parameters():
            p.mul_(3.0)  # surer, so that the weights of rows differ
        method.begin_epoch(0, lambda _: iter([rows]))
        for p in [*method.net.parameters(), *method.history.parameters(), *method.recorded[0].parameters()]:
            p.add_(0.1 * torch.randn_like(p))
    return method, rows


# ------------------------------------------------------------------------------------------------------------ weights


def test_reliability_by_hand():
    p = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.999999, 0.000001], [0.97, 0.03]])
    gamma = reliability(p.log())
    assert gamma[:3].tolist() == pytest.approx([0.9, 0.9, 1.1], abs=1e-4)  # the second: 1.1 - 0.469, clamped
    H = -(0.97 * math.log2(0.97) + 0.03 * math.log2(0.03))
    assert gamma[3].item() == pytest.approx(1.1 - H, abs=1e-5)


def test_reliability_is_of_the_share_of_the_largest_entropy():
    """Uniform predictions are the least reliable, whatever the number of classes."""
    for K in (2, 5, 97):
        assert reliability(torch.zeros(1, K)).item() == pytest.approx(0.9)
        assert reliability(1e3 * torch.eye(K)[:1]).item() == pytest.approx(1.1)


def test_consistency_by_hand():
    source, past = torch.tensor([[0.8, 0.2]]), torch.tensor([[0.5, 0.5]])
    kl = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert consistency(source.log(), past.log()).item() == pytest.approx(math.exp(-kl))
    assert consistency(past.log(), source.log()).item() != pytest.approx(math.exp(-kl), rel=1e-2)  # KL has a direction
    assert consistency(source.log() + 7, source.log()).item() == pytest.approx(1)
    assert consistency(torch.tensor([[99.0, 0.0]]), torch.tensor([[0.0, 99.0]])).item() == pytest.approx(0)


# ------------------------------------------------------------------------------------------------------------- losses


def cosine(u, v):
    return sum(a * b for a, b in zip(u, v, strict=True)) / math.hypot(*u) / math.hypot(*v)


@SPECS
def test_losses_equal_the_naive_loops(spec):
    method, _ = prepared(spec, lambda_id=0.7, tau=0.2)
    t = batch(spec, TARGET).target
    t.index[7] = 3  # drawn twice: both are positives
    f, f_past, hcid, hccd = method.net.encode(t), method.history.net.encode(t), 0.0, 0.0
    z, z_past = method.net.classify(f), method.history.net.classify(f_past)
    z_recorded = method.recorded[0].net.classify(method.recorded[0].net.encode(t))
    for label, part in method.net.parts.items():
        q, k = (torch.cat([g[m][:, part] for m in spec.shapes], 1).tolist() for g in (f, f_past))
        p, past = z[label].softmax(1).tolist(), z_past[label].softmax(1).tolist()
        K = len(p[0])
        gamma = [min(1.1, max(0.9, 1.1 + sum(v * math.log(v) for v in row) / math.log(K))) for row in past]
        assert len(set(gamma)) > 1
        for i in range(8):
            phi = [gamma[j] * math.exp(cosine(q[i], k[j]) / 0.2) for j in range(8)]
            same = sum(phi[j] for j in range(8) if t.index[j] == t.index[i])
            hcid -= math.log(same / sum(phi)) / 8
            said = z_recorded[label][i].softmax(0).tolist()
            kl = sum(a * math.log(a / b) for a, b in zip(said, past[i], strict=True))
            hccd -= math.exp(-kl) * math.log(p[i][method.get_buffer(f"y:{label}")[t.index[i]]]) / 8
    terms = method.losses(Batch(target=t), 0.5)
    assert terms["L_HCID"].item() == pytest.approx(0.7 * hcid, rel=1e-4)
    assert terms["L_HCCD"].item() == pytest.approx(hccd, rel=1e-4)


def test_only_the_net_learns():
    method, _ = prepared(SPEC)
    sum(method.losses(batch(SPEC, TARGET), 0.5).values()).backward()
    assert all(p.grad is None for model in (method.history, *method.recorded) for p in model.parameters())
    assert {name for name, p in method.named_parameters() if p.requires_grad} == {
        name for name, _ in method.named_parameters() if name.startswith("net.")
    }


def test_instances_teach_features_and_categories_teach_all():
    method, _ = prepared(SPEC)
    terms = method.losses(batch(SPEC, TARGET), 0.5)
    terms["L_HCID"].backward(retain_graph=True)
    assert all(p.grad is None for p in method.net.classifier.parameters())
    assert all(p.grad.abs().max() > 0 for p in method.net.F.parameters())
    method.zero_grad()
    terms["L_HCCD"].backward()
    assert all(p.grad.abs().max() > 0 for p in method.net.parameters())


def test_without_a_difference_between_nets_only_the_labels_matter():
    """Before the first step h = 1: L_HCCD is the cross entropy of the net's own labels."""
    method, rows = build(hcl, SPEC, TARGET).eval(), side(SPEC, 18, labelled=False, seed=3)
    with torch.no_grad():
        method.begin_epoch(0, lambda _: iter([rows]))
    expected = -method.predict(rows)["label"].log_softmax(1).max(1).values.mean().item()
    assert method.losses(Batch(target=rows), 0.0)["L_HCCD"].item() == pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------------------------------------------------------ history


def test_the_history_follows_each_step_after_its_update():
    method, _ = prepared(SPEC, m=0.75)
    method.history.follow(method.net)
    by_hand = [p.clone() for p in method.net.parameters()]
    optimizer = torch.optim.SGD(method.net.parameters(), lr=0.1)
    for step in range(3):
        for who, terms in method.rounds(batch(SPEC, TARGET, seed=step), step / 3):
            assert who == "all"
            for mine, expected in zip(method.history.parameters(), by_hand, strict=True):
                assert torch.allclose(mine, expected)  # not yet
            method.zero_grad()
            sum(terms.values()).backward()
            optimizer.step()
        by_hand = [0.75 * old + 0.25 * p.detach() for old, p in zip(by_hand, method.net.parameters(), strict=True)]
    for mine, expected, now in zip(method.history.parameters(), by_hand, method.net.parameters(), strict=True):
        assert torch.allclose(mine, expected, atol=1e-6)
        assert not torch.allclose(mine, now)


@pytest.mark.parametrize("every", [0, 2, 3])
def test_both_historical_models_become_the_net_every_so_many_steps(every):
    """Until then one is an average of weights, and the other the net at the last recording."""
    method, _ = prepared(SPEC, m=0.75, every=every)
    method.begin_epoch(0, lambda _: iter([side(SPEC, 18, labelled=False, seed=3)]))
    average, recorded = ([p.detach().clone() for p in method.net.parameters()] for _ in range(2))
    optimizer = torch.optim.SGD(method.net.parameters(), lr=0.1)
    for step in range(1, 8):
        for _, terms in method.rounds(batch(SPEC, TARGET, seed=step), step / 8):
            method.zero_grad()
            sum(terms.values()).backward()
            optimizer.step()
        now = [p.detach().clone() for p in method.net.parameters()]
        average = [0.75 * old + 0.25 * new for old, new in zip(average, now, strict=True)]
        if step in {0: (), 2: (2, 4, 6), 3: (3, 6)}[every]:
            average, recorded = now, now
        for model, expected in ((method.history, average), (method.recorded[0], recorded)):
            for mine, theirs in zip(model.parameters(), expected, strict=True):
                assert torch.allclose(mine, theirs, atol=1e-6)
    assert not torch.allclose(average[0], recorded[0], atol=1e-6)


def test_the_recorded_model_is_not_saved_with_the_weights():
    """So weights of runs of earlier versions still fit, and predictions do not need it."""
    method, _ = prepared(SPEC)
    assert {name.partition(".")[0] for name in method.state_dict()} == {"net", "history"}


def test_nets_are_copied_once_and_only_where_they_are_needed(monkeypatch):
    """One copy, for the weights that are saved; the recorded model is made before the first step of a run."""
    copies = []
    monkeypatch.setattr(hcl, "Teacher", lambda net: copies.append(net) or Teacher(net))
    method = build(hcl, SPEC, TARGET)
    assert len(copies) == 1
    for epoch in (0, 1):
        with torch.no_grad():
            method.begin_epoch(epoch, lambda _: iter([side(SPEC, 18, labelled=False)]))
        assert len(copies) == 2
    assert method.recorded[0] is not method.history


@SPECS
def test_the_source_is_recorded_once_and_labels_are_found_again_in_each_epoch(spec):
    method, rows = prepared(spec)
    recorded = [p.clone() for p in method.recorded[0].parameters()]
    with torch.no_grad():
        method.begin_epoch(1, lambda _: iter([rows]))
    for mine, before in zip(method.recorded[0].parameters(), recorded, strict=True):
        assert torch.equal(mine, before)
    for label, z in method.predict(rows).items():
        assert torch.equal(method.get_buffer(f"y:{label}"), z.argmax(1))
