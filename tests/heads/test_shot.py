"""SHOT: two rounds of centroids against naive loops, its losses, its frozen classifier, and its source stage."""

import math

import pytest
import torch

from heads.batch import Batch
from heads.cluster import centroid_labels, shot_labels
from heads.losses.supervised import label_cross_entropy
from heads.methods import shot, source_only
from heads.nets import adapter
from heads.testing.methods import build
from heads.testing.problems import EK, SPEC, batch, side, without
from tests.heads.test_cluster import naive, problem

SPECS = pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
TARGET = ("target",)
torch.set_num_threads(1)


def naive_rounds(p, f):
    """Both rounds on lists; `naive` is one of them."""
    K = len(p[0])
    f = [[*row, 1.0] for row in f]
    f = [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in f]
    predicted = {max(range(K), key=row.__getitem__) for row in p}
    y = naive([[value if k in predicted else 0.0 for k, value in enumerate(row)] for row in p], f)
    return naive([[float(k == label) for k in range(K)] for label in y], f)


# ------------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("seed", range(8))
def test_labels_equal_the_naive_loops(seed):
    p, f = problem(seed, rows=15, classes=5)
    assert shot_labels(p, f).tolist() == naive_rounds(p.tolist(), f.tolist())


def test_the_rounds_and_the_appended_one_make_a_difference():
    """Over a few problems, each of them changes a label at least once, or the test above would not see it gone."""
    problems = [problem(seed) for seed in range(8)]
    assert any(shot_labels(p, f).tolist() != centroid_labels(p, f).tolist() for p, f in problems)
    once = [naive_rounds(p.tolist(), f.tolist()) == naive(p.tolist(), f.tolist()) for p, f in problems]
    assert not all(once)
    scaled = [shot_labels(p, f).tolist() == shot_labels(p, 9 * f).tolist() for p, f in problems]
    assert not all(scaled)  # without the 1, lengths would not matter


def test_the_second_round_by_hand():
    """Soft centroids are dragged to the crowd; the means of what they label are not."""
    p = torch.tensor([[0.6, 0.4]] * 6 + [[0.4, 0.6]] * 2)
    angle = torch.tensor([0.0] * 6 + [1.0, 1.4])  # radians: a crowd at 0, a few far from it
    f = 100 * torch.stack([angle.cos(), angle.sin()], 1)  # long, so that the appended 1 does not matter
    assert shot_labels(p, f).tolist() == [0] * 6 + [1] * 2
    f[5] = 100 * torch.tensor([math.cos(0.45), math.sin(0.45)])
    first = centroid_labels(p, f)  # centroids at about 0.3 and 0.5 rad, so 0.45 goes to class 1 ...
    assert first[5] == 1
    assert shot_labels(p, f)[5] == 0  # ... whose mean is then at 0.95, and class 0's at 0


def test_classes_that_no_row_is_predicted_as_are_nobodys_label():
    """Even where their soft centroid would be the nearest."""
    p = torch.tensor([[0.6, 0.0, 0.4], [0.0, 0.6, 0.4]])
    f = torch.tensor([[1.0, 0.2], [0.2, 1.0]])
    assert shot_labels(p, f).tolist() == [0, 1]
    p, f = torch.tensor([[0.5, 0.1, 0.4], [0.1, 0.5, 0.4], [0.35, 0.33, 0.32]]), torch.eye(3)
    assert set(shot_labels(p, f).tolist()) <= {0, 1}


def test_a_single_row_and_a_single_class():
    assert shot_labels(torch.tensor([[0.3, 0.7]]), torch.zeros(1, 3)).tolist() == [1]
    assert shot_labels(torch.ones(4, 1), torch.randn(4, 3)).tolist() == [0] * 4


@SPECS
def test_an_epoch_labels_the_target_by_all_modalities(spec):
    method, rows = build(shot, spec, TARGET).eval(), without(side(spec, 18, labelled=False, seed=3), "flow", [2, 5])
    with torch.no_grad():
        method.begin_epoch(0, lambda name: iter([rows] if name == "target" else ()))
    f = method.net.encode(rows)
    for j, (label, part) in enumerate(method.net.parts.items()):
        joined = torch.cat([f[m][:, part] for m in spec.shapes], 1).tolist()
        p = method.net.classify(f)[label].softmax(1).tolist()
        assert method.labels[:, j].tolist() == naive_rounds(p, joined)


# ------------------------------------------------------------------------------------------------------------- losses


@SPECS
def test_losses_equal_their_definitions(spec):
    method, t = build(shot, spec, TARGET, params={"beta": 0.7}).eval(), batch(spec, TARGET).target
    method.labels = torch.stack([torch.arange(18) * 3 // 2 % k for k in spec.classes.values()], 1)
    ss = im = 0.0
    for j, z in enumerate(method.predict(t).values()):
        p = z.softmax(1).tolist()
        ss += sum(-math.log(p[i][method.labels[i, j]]) for i in range(8)) / 8
        mean = [sum(row[k] for row in p) / 8 for k in range(z.shape[1])]
        im += sum(-sum(q * math.log(q) for q in row) for row in p) / 8 + sum(q * math.log(q) for q in mean)
    terms = method.losses(Batch(target=t), 0.5)
    assert terms["L_ss"].item() == pytest.approx(0.7 * ss, rel=1e-5)
    assert terms["L_IM"].item() == pytest.approx(im, rel=1e-3)


def test_the_classifier_is_frozen():
    method = build(shot, EK, TARGET)
    learns = {name for name, p in method.named_parameters() if p.requires_grad}
    assert learns == {name for name, _ in method.named_parameters() if not name.startswith("net.classifier")}


# ------------------------------------------------------------------------------------------------- label smoothing


@SPECS
@pytest.mark.parametrize("per_modality", [False, True])
def test_the_source_stage_smooths_labels(spec, per_modality):
    """Each target is (1 - ε) 1[y = k] + ε / K."""
    b = batch(spec, ("source",))
    method = build(source_only, spec, ("source",), params={"smoothing": 0.1, "per_modality": per_modality}).eval()
    f = method.net.encode(b.source)
    heard = {"L_C": [f]} | ({"L_C_m": [{m: f[m]} for m in f]} if per_modality else {})
    terms = method.losses(b, 0.5)
    assert terms.keys() == heard.keys()
    for name, streams in heard.items():
        expected = 0.0
        for stream in streams:
            for label, z in method.net.classify(stream).items():
                K, log_p = z.shape[1], z.log_softmax(1)
                for i, y in enumerate(b.source.y[label].tolist()):
                    expected -= sum(((0.9 if k == y else 0) + 0.1 / K) * log_p[i, k].item() for k in range(K)) / 8
        assert terms[name].item() == pytest.approx(expected, rel=1e-5)


def test_smoothed_cross_entropy_is_least_at_the_smoothed_label():
    """At p = (1 - ε + ε / K, ε / K, ...), and nowhere at infinity."""
    z = torch.tensor([[0.95, 0.05]]).log().requires_grad_()
    label_cross_entropy({"label": z}, {"label": torch.tensor([0])}, smoothing=0.1).backward()
    assert z.grad.abs().max() < 1e-6


def test_without_smoothing_nothing_changes():
    b = batch(SPEC, ("source",))
    torch.manual_seed(0)
    plain = source_only.METHOD(source_only.Params(), SPEC, adapter.Adapter(adapter.Params(dim=8), SPEC)).eval()
    expected = torch.nn.functional.cross_entropy(plain.predict(b.source)["label"], b.source.y["label"])
    assert torch.equal(plain.losses(b, 0.5)["L_C"], expected)
