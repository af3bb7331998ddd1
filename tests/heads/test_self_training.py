"""Pseudo-labels and class-balanced self-training: which rows are labelled, as what, and what that is good for."""

import dataclasses

import pytest
import torch
from torch.nn.functional import cross_entropy

from heads.batch import Batch
from heads.methods import cbst, pseudo_label, source_only
from heads.methods.cbst import balanced_labels
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, batch, side, without

BOTH = ("source", "target")


def build(module, spec, **params):
    torch.manual_seed(0)
    net = adapter.NET(adapter.Params(dim=8), spec)
    return module.METHOD(module.Params(**params), spec, net).eval()


def sharpen(method, factor=20.0):
    """Some rows become confident, some do not."""
    with torch.no_grad():
        for weight in method.net.classifier.parameters():
            weight.mul_(factor)


# ------------------------------------------------------------------------------------------------------ pseudo-labels


@pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
def test_pseudo_labels_equal_the_naive_loop(spec):
    method, b = build(pseudo_label, spec, lambda_pl=0.7), batch(spec, BOTH)
    sharpen(method, 5.0)
    total, kept, left = 0.0, 0, 0
    for z in method.predict(b.target).values():
        rows = [-row.log_softmax(0).max().item() for row in z if row.softmax(0).max() > 0.8]
        total += sum(rows) / max(1, len(rows))
        kept, left = kept + len(rows), left + len(z) - len(rows)
    assert kept > 0  # or the test would say nothing
    assert left > 0
    assert method.losses(b, 0.5)["L_pl"].item() == pytest.approx(0.7 * total, rel=1e-5)


def test_without_a_confident_row_it_is_source_only():
    method, b = build(pseudo_label, SPEC, T=1.0), batch(SPEC, BOTH)
    terms = method.losses(b, 0.5)
    assert terms["L_pl"].item() == 0
    terms["L_pl"].backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in method.parameters())


# --------------------------------------------------------------------------------------------------------------- cbst


def naive_labels(p, q):
    """The equations, row by row and class by class."""
    said = [max(range(len(row)), key=row.__getitem__) for row in p]
    c = []
    for k in range(len(p[0])):
        surest = sorted((row[k] for row, y in zip(p, said, strict=True) if y == k), reverse=True)
        c.append(surest[max(1, int(q * len(surest))) - 1] if surest else 1.0)
    labels = []
    for row in p:
        ratio = [value / threshold for value, threshold in zip(row, c, strict=True)]
        best = max(range(len(row)), key=ratio.__getitem__)
        labels.append(best if ratio[best] >= 1 else -1)
    return labels


@pytest.mark.parametrize("q", [0.2, 0.5, 1.0])
def test_labels_equal_the_naive_loop(q):
    p = (2 * torch.randn(40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).softmax(1)
    assert balanced_labels(p, q).tolist() == naive_labels(p.tolist(), q)


def test_each_class_labels_its_share():
    p = torch.full((20, 2), 0.0)
    p[:, 0] = torch.cat([torch.linspace(0.9, 0.99, 10), torch.linspace(0.41, 0.45, 10)])  # class 1 is never sure
    p[:, 1] = 1 - p[:, 0]
    labels = balanced_labels(p, 0.2)
    assert torch.nonzero(labels == 0).flatten().tolist() == [8, 9]
    assert torch.nonzero(labels == 1).flatten().tolist() == [10, 11]


def test_a_class_that_is_rarely_sure_takes_a_row_from_its_argmax():
    p = torch.tensor([[0.98, 0.01, 0.01], [0.4, 0.39, 0.21], [0.3, 0.38, 0.32]])
    assert balanced_labels(p, 0.5).tolist() == [0, 1, 1]  # c = 0.98, 0.38, and none: 0.39 / 0.38 beats 0.4 / 0.98


def test_few_rows_and_absent_classes():
    p = torch.tensor([[0.6, 0.3, 0.1]])
    assert balanced_labels(p, 0.2).tolist() == [0]  # one row at least, however small q is
    assert (balanced_labels(p.expand(6, 3), 0.2) == 0).all()  # equal rows are equally sure


def test_rounds_follow_the_schedule():
    method = build(cbst, SPEC, q=0.2, q_step=0.3, q_most=0.6, epochs=2, first=1)
    target = side(SPEC, 18, labelled=False)
    sizes = []
    for epoch in range(7):
        pools = method.begin_epoch(epoch, lambda name: iter([target]))
        sizes.append(None if pools is None else len(pools["target"][0]))
    p = method.predict(target)["label"].softmax(1)
    kept = [int((balanced_labels(p, q) >= 0).sum()) for q in (0.2, 0.5, 0.6)]
    assert sizes == [None, kept[0], None, kept[1], None, kept[2], None]


def test_pools_are_the_labelled_rows_of_any_task():
    method, target = build(cbst, EK, first=0), side(EK, 18, labelled=False)
    (rows,) = method.begin_epoch(0, lambda name: iter([target]))["target"]
    z = method.predict(target)
    expected = torch.stack([balanced_labels(z[label].softmax(1), 0.2) for label in EK.classes]).amax(0) >= 0
    assert rows.tolist() == torch.nonzero(expected).flatten().tolist()


@pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
@pytest.mark.parametrize("per_modality", [False, True])
def test_self_training_terms_equal_their_definitions(spec, per_modality):
    method, b = build(cbst, spec, lambda_st=0.7, per_modality=per_modality), batch(spec, BOTH)
    b = Batch(without(b.source, "flow", [1]), without(b.target, "flow", [0, 3]))
    method.labels[:8] = torch.stack([torch.arange(8) % (k + 1) - 1 for k in spec.classes.values()], 1)
    terms = method.losses(b, 0.5)
    for name, s, y in (
        ("L_C", b.source, b.source.y),
        ("L_st", b.target, dict(zip(spec.classes, method.labels[:8].unbind(1), strict=True))),
    ):
        f, total = method.net.encode(s), 0.0
        views = [(f, torch.ones(8, dtype=torch.bool))]
        views += [({m: f[m]}, s.has(m)) for m in s.x] if per_modality else []
        for features, has in views:
            for label, z in method.net.classify(features).items():
                rows = [i for i in range(8) if y[label][i] >= 0 and has[i]]
                total += sum(cross_entropy(z[i], y[label][i]).item() for i in rows) / len(rows)
        assert terms[name].item() == pytest.approx((1.0 if name == "L_C" else 0.7) * total, rel=1e-5)


def test_before_the_first_round_it_is_source_only():
    method, b = build(cbst, SPEC), batch(SPEC, BOTH)
    plain = source_only.SourceOnly(source_only.Params(), SPEC, method.net)
    terms = method.losses(b, 0.5)
    assert terms["L_st"].item() == 0
    assert sum(terms.values()).item() == pytest.approx(plain.losses(b, 0.5)["L_C"].item(), rel=1e-6)


def test_a_checkpoint_of_another_target_can_be_loaded():
    method = build(cbst, SPEC)
    longer = build(cbst, dataclasses.replace(SPEC, rows={**SPEC.rows, "target": 99}))
    longer.load_state_dict(method.state_dict())  # labels are remade, not saved
