"""Maximum classifier discrepancy: its three steps, who is updated in each, and its one-step form."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from heads.methods import mcd
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, batch

BOTH = ("source", "target")


def build(spec=SPEC, **params):
    torch.manual_seed(0)
    return mcd.Mcd(mcd.Params(**params), spec, adapter.NET(adapter.Params(dim=8), spec)).eval()


def distances(method, b):
    """Σ_task mean |p - p'| on the target, by hand."""
    f, total = method.net.encode(b.target), 0.0
    z, second = method.net.classify(f), method.second.classify(f)
    for label in z:
        p, q = z[label].softmax(1).tolist(), second[label].softmax(1).tolist()
        each = [abs(a - c) for row, other in zip(p, q, strict=True) for a, c in zip(row, other, strict=True)]
        total += sum(each) / len(each)
    return total


@pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
def test_the_steps_are_those_of_the_paper(spec):
    method, b = build(spec, lambda_dis=0.7, n=3), batch(spec, BOTH)
    rounds = list(method.rounds(b, 0.5))
    assert [who for who, _ in rounds] == ["F C", "C", "F", "F", "F"]
    f = method.net.encode(b.source)
    for name, net in (("L_C", method.net), ("L_C2", method.second)):
        expected = sum(cross_entropy(z, b.source.y[label]).item() for label, z in net.classify(f).items())
        assert rounds[0][1][name].item() == pytest.approx(expected, rel=1e-5)
        assert rounds[1][1][f"L_B_{name[2:]}"].item() == pytest.approx(expected, rel=1e-5)
    assert set(rounds[0][1]) == {"L_C", "L_C2"}
    d = distances(method, b)
    assert d > 0
    assert rounds[1][1]["L_B_dis"].item() == pytest.approx(-0.7 * d, rel=1e-5)
    assert [terms.keys() for _, terms in rounds[2:]] == [{"L_dis"}] * 3
    assert rounds[2][1]["L_dis"].item() == pytest.approx(0.7 * d, rel=1e-5)


def test_features_are_one_and_classifiers_two():
    method = build()
    names = {id(p): name for name, p in method.named_parameters()}
    who = {player: sorted(names[id(p)] for p in parameters) for player, parameters in method.players().items()}
    assert who["F"] == ["net.F.flow.bias", "net.F.flow.weight", "net.F.rgb.bias", "net.F.rgb.weight"]
    classifier = ["classifier.G.flow:label.weight", "classifier.G.rgb:label.weight", "classifier.g.:label"]
    assert who["C"] == [f"{owner}.{name}" for owner in ("net", "second") for name in classifier]
    assert method.second.F["rgb"].weight is method.net.F["rgb"].weight
    assert not torch.equal(method.second.classifier.G["rgb:label"].weight, method.net.classifier.G["rgb:label"].weight)


def test_weights_of_a_net_that_are_loaded_serve_both():
    method, trained = build(), adapter.NET(adapter.Params(dim=8), SPEC)
    before = method.second.classifier.G["rgb:label"].weight.clone()
    method.load_state_dict({f"net.{name}": value for name, value in trained.state_dict().items()}, strict=False)
    assert torch.equal(method.second.F["rgb"].weight, trained.F["rgb"].weight)
    assert torch.equal(method.second.classifier.G["rgb:label"].weight, before)


def gradients(method, loss):
    method.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def test_the_reversal_ends_at_its_coefficient():
    b = batch(SPEC, BOTH)
    for params, end in (({}, 1.0), ({"lambda_d": 0.2}, 0.2)):
        method = build(reversal=True, **params)
        felt, plain = (
            gradients(method, method.losses(b, 1.0)["L_dis"]),
            gradients(method, method.apart(method.net.encode(b.target))),
        )
        for name in (name for name in felt if name.startswith("net.F")):
            assert torch.allclose(felt[name], end * plain[name], rtol=1e-3), name  # the ramp ends at 0.9999


def test_with_reversal_features_lower_what_the_classifiers_raise():
    method, b = build(reversal=True, lambda_dis=0.7), batch(SPEC, BOTH)
    assert [who for who, _ in method.rounds(b, 0.5)] == ["F C"]
    felt = gradients(method, method.losses(b, 0.5)["L_dis"])
    plain = gradients(method, method.apart(method.net.encode(b.target)))
    ramp = 2 / (1 + math.exp(-5)) - 1  # up to λ_d = 1, the default of MM-SADA's code
    for name, grad in felt.items():
        factor = 0.7 * ramp if name.startswith("net.F") else -0.7
        assert torch.allclose(grad, factor * plain[name], atol=1e-7), name


def test_only_the_named_player_moves():
    method, b = build(n=1), batch(SPEC, BOTH)
    optimizers = {who: torch.optim.SGD(p, lr=0.1) for who, p in method.players().items()}
    moved = []
    for who, terms in method.rounds(b, 0.5):
        before = {name: p.detach().clone() for name, p in method.named_parameters()}
        method.zero_grad()
        sum(terms.values()).backward()
        for player in who.split():
            optimizers[player].step()
        moved.append({name.split(".")[1] for name, p in method.named_parameters() if not torch.equal(p, before[name])})
    assert moved == [{"F", "classifier"}, {"classifier"}, {"F"}]
