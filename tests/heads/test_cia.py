"""CIA's stand-in against its equations."""

import dataclasses

import pytest
import torch
from torch.nn.functional import cross_entropy

from heads.batch import Batch
from heads.methods import cia, dann
from heads.methods._adversarial import domain_loss
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, batch, without
from tests.helpers.gradients import check_reach

torch.set_num_threads(1)

SPECS = pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])


def build(spec=SPEC):
    torch.manual_seed(0)
    return cia.Cia(cia.Params(), spec, adapter.NET(adapter.Params(dim=8), spec)).eval()


def naive(method, s, row):
    """g of one row: modality -> (D,)."""
    f = {m: f_BD[row] for m, f_BD in method.net.encode(s).items()}
    g = {}
    for m in (m for m in f if s.has(m)[row]):
        g[m] = f[m].clone()
        for k in (k for k in f if k != m and s.has(k)[row]):
            V, W = method.V[f"{k}:{m}"], method.W[f"{k}:{m}"]
            gate = 1 / (1 + (-(V.weight[:, :8] @ f[m] + V.weight[:, 8:] @ f[k] + V.bias)).exp())
            g[m] += gate * (W.weight @ f[k])
    return g


@SPECS
@torch.no_grad()
def test_exchange_and_predictions_equal_the_loop(spec):
    method = build(spec)
    s = without(without(batch(spec).source, "flow", [1, 6]), "rgb", [2])
    g, z = method.features(s), method.predict(s)
    for row in range(8):
        expected = naive(method, s, row)
        for m in spec.shapes:
            assert torch.allclose(g[m][row], expected.get(m, torch.zeros(8)), atol=1e-6)
        for label, z_K in method.net.classify({m: g_D[None] for m, g_D in expected.items()}).items():
            assert torch.allclose(z[label][row], z_K[0], atol=1e-5)


@SPECS
def test_terms(spec):
    method, b = build(spec), batch(spec)
    s, t = without(b.source, "flow", [0]), without(b.target, "flow", [3, 4])
    g_s, g_t = method.features(s), method.features(t)
    terms = method.losses(Batch(s, t), 0.5)
    each = [domain_loss(D, g_s[m], g_t[m], s.has(m), t.has(m), 1.0) for m, D in method.D.items()]
    assert torch.allclose(terms["L_d"], sum(each))
    z = method.predict(s)
    assert torch.allclose(terms["L_C"], sum(cross_entropy(z[label], y) for label, y in s.y.items()))


def test_closed_gates_are_dann():
    method, b = build(), batch(SPEC)
    torch.manual_seed(0)
    plain = dann.Dann(dann.Params(), SPEC, adapter.NET(adapter.Params(dim=8), SPEC)).eval()
    plain.D = method.D
    for V in method.V.values():
        torch.nn.init.constant_(V.bias, -99.0)
    for name, term in plain.losses(b, 0.5).items():
        assert torch.allclose(method.losses(b, 0.5)[name], term)
    assert torch.allclose(method.predict(b.source)["label"], plain.predict(b.source)["label"])


def test_one_modality_is_dann():
    spec = dataclasses.replace(SPEC, shapes={"rgb": (6,)}, windows={"rgb": 3})
    method, s = build(spec), batch(spec).source
    assert not method.W
    assert torch.equal(method.features(s)["rgb"], method.net.encode(s)["rgb"])


@pytest.mark.parametrize(("term", "felt"), [("L_d", {"net", "W", "V", "D"}), ("L_C", {"net", "W", "V"})])
def test_who_feels_which_term(term, felt):
    """The exchange learns from both: the discriminator's loss is felt behind it."""
    check_reach(build(), term, felt)


def test_a_modality_hears_what_only_another_shows():
    """The classes of rgb cannot be told from rgb alone, but from what it took from flow."""
    method, b = build(), batch(SPEC, rows=32)
    s = b.source
    s.x["flow"][:, :, :4] += 6 * torch.nn.functional.one_hot(s.y["label"], 4)[:, None]
    optimizer = torch.optim.Adam([*method.W.parameters(), *method.V.parameters()], lr=0.01)

    def accuracy():
        g = method.features(s)
        return (method.net.classify({"rgb": g["rgb"]})["label"].argmax(1) == s.y["label"]).float().mean()

    before = accuracy()
    for _ in range(100):
        g = method.features(s)
        loss = cross_entropy(method.net.classify({"rgb": g["rgb"]})["label"], s.y["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before < 0.5
    assert accuracy() > 0.9
