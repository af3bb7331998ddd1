"""DLMM's stand-in against its equations, row by row."""

import dataclasses
import math

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from heads.batch import Batch, Side
from heads.methods import dlmm
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, side, without

SPECS = pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])


def build(spec=SPEC, **params):
    torch.manual_seed(0)
    return dlmm.Dlmm(dlmm.Params(**params), spec, adapter.NET(adapter.Params(dim=8), spec)).eval()


def sides(spec):
    source = without(side(spec, 24, labelled=True), "flow", [0, 7])
    return {"source": source, "target": without(side(spec, 18, labelled=False, seed=1), "flow", [2, 11])}


def looked(method, of, epoch):
    with torch.no_grad():
        method.begin_epoch(epoch, lambda name: iter([of[name]]))
    return method


def naive(method, of, label):
    """Of each row of the target: modality -> p and q over the classes, where it is there."""
    net, part, K, tau = method.net, method.net.parts[label], method.spec.classes[label], method.params.tau
    f_s, f_t = net.encode(of["source"]), net.encode(of["target"])
    for f, side_ in ((f_s, of["source"]), (f_t, of["target"])):
        for m, f_ND in list(f.items()):
            those = f_ND[side_.has(m)]
            f[f"{m} centred"] = f_ND - sum(those) / len(those)
    found = []
    for row in range(18):
        found.append({})
        for m in (m for m in method.spec.shapes if of["target"].has(m)[row]):
            p = net.classify({m: f_t[m][row : row + 1]})[label][0].softmax(0).tolist()
            e = []
            for k in range(K):
                members = [i for i in range(24) if of["source"].y[label][i] == k and of["source"].has(m)[i]]
                c = sum(f_s[f"{m} centred"][i][part] for i in members) / len(members)
                e.append(math.exp(cosine_similarity(f_t[f"{m} centred"][row][part], c, dim=0).item() / tau))
            found[-1][m] = p, [value / sum(e) for value in e]
    return found


def argmax(values):
    return max(range(len(values)), key=values.__getitem__)


@SPECS
@torch.no_grad()
def test_teaching_material_and_predictions_equal_the_loops(spec):
    of = sides(spec)
    method = looked(build(spec), of, epoch=3)
    said = method.predict(of["target"])
    for j, label in enumerate(spec.classes):
        rows = naive(method, of, label)
        reliable = [{m: q[argmax(p)] for m, (p, q) in row.items()} for row in rows]
        labels = [argmax(row[max(r, key=r.get)][0]) for row, r in zip(rows, reliable, strict=True)]
        assert method.labels[:, j].tolist() == labels
        for k, m in enumerate(spec.shapes):
            ease = {i: row[m][1][labels[i]] for i, row in enumerate(rows) if m in row}
            easiest = sorted(ease, key=ease.get, reverse=True)[: math.ceil(0.3 * len(ease))]
            assert method.chosen[:, j, k].nonzero().flatten().tolist() == sorted(easiest)
        for i, (row, r) in enumerate(zip(rows, reliable, strict=True)):
            for c in range(spec.classes[label]):
                p = sum(r[m] * row[m][0][c] for m in row) / sum(r.values())
                assert said[label][i, c].exp().item() == pytest.approx(p, rel=1e-4)


@SPECS
def test_losses_equal_the_loops(spec):
    of = sides(spec)
    method = looked(build(spec, lambda_t=0.5), of, epoch=4)
    taken = torch.tensor([3, 2, 11, 0, 17, 9])
    t = of["target"]
    cut = {name: {m: value[taken] for m, value in getattr(t, name).items()} for name in ("x", "present")}
    b = Batch(of["source"], Side(**cut, y={}, domain=t.domain[taken], index=taken))
    terms = method.losses(b, 0.0)
    f_s, f_t = method.net.encode(b.source), method.net.encode(b.target)
    L_C = sum(cross_entropy(z, b.source.y[label]).item() for label, z in method.net.classify(f_s).items())
    L_C_m = L_t = 0.0
    for k, m in enumerate(spec.shapes):
        for j, label in enumerate(spec.classes):
            z, has = method.net.classify({m: f_s[m]})[label], b.source.has(m)
            L_C_m += cross_entropy(z[has], b.source.y[label][has]).item()
            rows = method.chosen[taken, j, k]
            if rows.any():
                z = method.net.classify({m: f_t[m]})[label]
                L_t += 0.5 * cross_entropy(z[rows], method.labels[taken, j][rows]).item()
    assert L_t > 0
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {"L_C": L_C, "L_C_m": L_C_m, "L_t": L_t}, rel=1e-4
    )


def test_curriculum_grows_to_the_whole_target():
    of = sides(SPEC)
    counts = {e: looked(build(), of, e).chosen.sum((0, 1)).tolist() for e in (0, 1, 5, 10, 30)}
    assert counts == {0: [0, 0], 1: [2, 2], 5: [9, 8], 10: [18, 16], 30: [18, 16]}  # of 18 and 16
    method, t = looked(build(), of, 0), dataclasses.replace(of["target"], index=torch.arange(18))
    assert method.losses(Batch(of["source"], t), 0.0)["L_t"].item() == 0


@torch.no_grad()
def test_a_modality_that_knows_nothing_learns_from_one_that_does():
    """rgb lies at its prototypes and flow at nothing: labels are those of rgb, for both to learn."""
    method, of = build(), sides(SPEC)
    x = torch.nn.functional.one_hot(torch.arange(18) % 4, 6).float()[:, None].expand(18, 3, 6) * 5
    of["target"].x["rgb"].copy_(x)
    of["source"].x["rgb"].copy_(torch.nn.functional.one_hot(torch.arange(24) % 4, 6).float()[:, None] * 5)
    branch, G = method.net.F["rgb"], method.net.classifier.G["rgb:label"]
    branch.weight.copy_(torch.eye(8, 6))
    branch.bias.zero_()
    G.weight.copy_(torch.eye(4, 8))
    looked(method, of, 10)
    assert method.labels[:, 0].tolist() == [i % 4 for i in range(18)]
    assert method.predict(of["target"])["label"].argmax(1).tolist() == [i % 4 for i in range(18)]


@SPECS
@torch.no_grad()
def test_a_shift_of_the_whole_target_changes_nothing_that_prototypes_say(spec):
    """Without ReLU, a shift of the target's rows is one of its features."""
    torch.manual_seed(0)
    net = adapter.NET(adapter.Params(dim=8, act="none"), spec)
    method, said = dlmm.Dlmm(dlmm.Params(), spec, net).eval(), []
    for shift in (0.0, 7.0):
        of = sides(spec)
        of["target"] = dataclasses.replace(of["target"], x={m: x + shift for m, x in of["target"].x.items()})
        seen = looked(method, of, 3).look(of["target"])
        said.append([method.probabilities(seen, label)[1][seen[dlmm.HAS]] for label in spec.classes])
    for before, after in zip(*said, strict=True):
        assert torch.allclose(before, after, atol=1e-4)


@torch.no_grad()
def test_a_class_that_the_source_lacks_has_no_prototype():
    of = sides(SPEC)
    of["source"].y["label"].fill_(2)
    method = looked(build(), of, 1)
    assert method.prototypes[0, :, [0, 1, 3]].abs().max() == 0
