"""SFDA: prototypes and labels against naive loops and by hand, two heads, the schedule between them."""

import math

import pytest
import torch

from heads.batch import Batch
from heads.cluster import prototype_labels
from heads.losses.entropy import entropy
from heads.methods import sfda
from heads.testing.methods import build
from heads.testing.problems import EK, SPEC, batch, side, without
from tests.heads.test_cluster import problem

SPECS = pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
TARGET = ("target",)
torch.set_num_threads(1)


def naive(p, f, most):
    """The definition, row by row and pair by pair, with distances as the paper has them."""
    N, K = len(p), len(p[0])
    H = [-sum(q * math.log(q) for q in row if q) for row in p]
    said = [max(range(K), key=row.__getitem__) for row in p]
    eta = max(min(H[i] for i in range(N) if said[i] == k) for k in set(said))
    prototypes = []
    for k in range(K):
        mine = sorted((i for i in range(N) if said[i] == k and H[i] <= eta), key=H.__getitem__)[:most]
        prototypes.append(mine or [max(range(N), key=lambda i: p[i][k])])

    def distance(u, v):
        length = math.sqrt(sum(a * a for a in u)) * math.sqrt(sum(b * b for b in v))
        return 1 - sum(a * b for a, b in zip(u, v, strict=True)) / length

    labels, counts = [], []
    for row in f:
        d = [[distance(row, f[i]) for i in chosen] for chosen in prototypes]
        first, second = sorted(range(K), key=lambda k: sum(d[k]) / len(d[k]))[:2]
        labels.append(first)
        counts.append(max(d[first]) < min(d[second]))
    return labels, counts


# ------------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("most", [1, 2, 100])
@pytest.mark.parametrize("seed", range(5))
def test_labels_equal_the_naive_loops(seed, most):
    p, f = problem(seed, rows=20, classes=4)
    y, counts = prototype_labels(p, f, most)
    assert (y.tolist(), counts.tolist()) == naive(p.tolist(), f.tolist(), most)


def test_some_labels_count_and_some_do_not():
    counts = torch.cat([prototype_labels(*problem(seed, rows=20, classes=4), 100)[1] for seed in range(5)])
    assert 0 < counts.sum() < len(counts)


def test_by_hand():
    """Least H: row 0 in class 0, row 3 in class 1, where it is larger. So rows 0, 1 | 3 are prototypes, and not 2."""
    p = torch.tensor([[0.99, 0.01], [0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    degrees = torch.tensor([0.0, 60.0, 40.0, 90.0]).deg2rad()
    y, counts = prototype_labels(p, torch.stack([degrees.cos(), degrees.sin()], 1), 100)
    # mean cosine to class 0, to class 1: row 0 0.75, 0; row 1 0.75, 0.87; row 2 0.85, 0.64; row 3 0.43, 1
    assert y.tolist() == [0, 1, 0, 1]
    # farthest of the first, nearest of the second, degrees: 60 < 90; 30 > 0; 40 < 50; 0 < 30
    assert counts.tolist() == [True, False, True, True]


def test_a_class_that_is_never_predicted_borrows_a_row():
    p = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.5, 0.2, 0.3]])
    y, _ = prototype_labels(p, torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.1]]), 100)
    assert y.tolist() == [0, 1, 2]


def test_a_side_of_one_class():
    p = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
    y, counts = prototype_labels(p, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 100)
    assert y.tolist() == [0, 1]  # the second borrows the row of its largest p
    assert counts.tolist() == [True, True]


@pytest.mark.parametrize("seed", range(3))
def test_lengths_of_features_do_not_matter(seed):
    p, f = problem(seed, rows=20, classes=4)
    y, counts = prototype_labels(p, f, 100)
    scaled = prototype_labels(p, f * torch.rand(20, 1, dtype=torch.float64).add(0.1), 100)
    assert torch.equal(scaled[0], y)
    assert torch.equal(scaled[1], counts)


# --------------------------------------------------------------------------------------------------------- the method


def prepared(spec, progress_seed=3):
    """A method that has seen the target, whose labels differ from the source's; and the whole target."""
    method, rows = build(sfda, spec, TARGET).eval(), side(spec, 18, labelled=False, seed=progress_seed)
    with torch.no_grad():
        method.begin_epoch(0, lambda _: iter([rows]))
    return method, rows


@SPECS
def test_losses_equal_their_definitions(spec):
    method, _ = prepared(spec)
    generator = torch.Generator().manual_seed(0)
    for p in method.first.classifier.parameters():  # so that the heads differ
        p.data += 0.1 * torch.randn(p.shape, generator=generator)
    t = batch(spec, TARGET).target
    f = method.net.encode(t)
    source = own = 0.0
    for j, label in enumerate(spec.classes):
        one, two = method.first.classify(f)[label].log_softmax(1), method.net.classify(f)[label].log_softmax(1)
        source += sum(-one[i, method.source_labels[i, j]].item() for i in range(8)) / 8
        own += sum(-two[i, method.labels[i, j]].item() for i in range(8) if method.reliable[i, j]) / 8
    assert method.reliable.any()
    assert not method.reliable.all()
    for progress in (0.0, 0.05, 0.4):
        alpha = 2 / (1 + math.exp(-20 * progress)) - 1
        terms = method.losses(Batch(target=t), progress)
        assert terms["L_source"].item() == pytest.approx((1 - alpha) * source, rel=1e-5)
        assert terms["L_self"].item() == pytest.approx(alpha * own, rel=1e-5)


@SPECS
def test_the_first_epoch_hears_the_source_and_later_ones_do_not(spec):
    method, rows = prepared(spec)
    before = [z.argmax(1).tolist() for z in method.predict(rows).values()]
    for p in method.net.parameters():
        p.data = torch.randn_like(p)
    with torch.no_grad():
        method.begin_epoch(1, lambda _: iter([rows]))
    assert method.source_labels.T.tolist() == before
    f = method.net.encode(rows)
    for j, (label, part) in enumerate(method.net.parts.items()):
        p, joined = method.net.classify(f)[label].softmax(1), torch.cat([f[m][:, part] for m in spec.shapes], 1)
        y, counts = prototype_labels(p, joined, 100)
        assert method.labels[:, j].tolist() == y.tolist()
        assert method.reliable[:, j].tolist() == counts.tolist()


def test_each_head_learns_its_own_labels():
    """Head 2 nothing from L_source, head 1 nothing from L_self; the encoder learns from both."""
    method, _ = prepared(SPEC)
    terms = method.losses(batch(SPEC, TARGET), 0.05)
    heads = {"L_source": method.first.classifier, "L_self": method.net.classifier}
    for name, term in terms.items():
        method.zero_grad()
        term.backward(retain_graph=True)
        for owner, classifier in heads.items():
            moved = [p.grad is not None and p.grad.abs().max() > 0 for p in classifier.parameters()]
            assert all(moved) if owner == name else not any(moved)
        assert all(p.grad.abs().max() > 0 for p in method.net.F.parameters())


def test_predictions_are_head_twos():
    method, rows = prepared(SPEC)
    said = method.predict(rows)["label"].clone()
    for p in method.first.classifier.parameters():
        p.data += 1.0
    assert torch.equal(method.predict(rows)["label"], said)


def test_rows_that_are_not_reliable_teach_nothing():
    method, _ = prepared(SPEC)
    method.reliable[:] = False
    terms = method.losses(batch(SPEC, TARGET), 0.5)
    assert terms["L_self"].item() == 0
    terms["L_self"].backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in method.parameters())


def test_rows_without_a_modality_are_labelled_by_the_other():
    method, rows = prepared(SPEC)
    gone = without(rows, "flow", slice(None))
    with torch.no_grad():
        method.begin_epoch(1, lambda _: iter([gone]))
    f = method.net.encode(gone)
    p = method.net.classify(f)["label"].softmax(1)
    assert entropy(p).isfinite().all()
    assert method.labels[:, 0].tolist() == prototype_labels(p, f["rgb"], 100)[0].tolist()
