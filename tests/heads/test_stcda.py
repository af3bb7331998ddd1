"""STCDA's stand-in against its equations, and the clustering of the target."""

import dataclasses
import math

import pytest
import torch
from torch.nn.functional import cosine_similarity, one_hot

from heads.batch import Batch
from heads.methods import stcda
from heads.methods._windows import videos, window_features
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, batch, side, without

torch.set_num_threads(1)

SPECS = pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])


def build(spec=SPEC, **params):
    torch.manual_seed(0)
    return stcda.Stcda(stcda.Params(**params), spec, adapter.NET(adapter.Params(dim=8, act="none"), spec)).eval()


def gaps(b):
    sides = [without(b.source, "flow", [1]), without(b.target, "flow", [3])]
    for s in sides:
        s.present["rgb"][2, 1] = False
    return Batch(*sides)


def phi(a, b, tau):
    return math.exp(cosine_similarity(a, b, dim=0).item() / tau)


def naive_cross_modal(f, present, tau):
    """Of one side; f: modality -> (B, T, D)."""
    total = 0.0
    for k in f:
        for other in f:
            if other == k:
                continue
            keys = [(j, u) for j in range(8) for u in range(f[other].shape[1]) if present[other][j, u]]
            each = []
            for i in range(8):
                for t in range(f[k].shape[1]):
                    if present[k][i, t] and present[other][i].any():
                        near = {(j, u): phi(f[k][i, t], f[other][j, u], tau) for j, u in keys}
                        own = sum(value for (j, _), value in near.items() if j == i)
                        each.append(-math.log(own / sum(near.values())))
            total += sum(each) / len(each) / 2
    return total


@SPECS
@torch.no_grad()
def test_terms_equal_the_loops(spec):
    method, b = build(spec, tau=0.5, lambda_c=0.7, lambda_v=0.3), gaps(batch(spec))
    method.labels.copy_(torch.randint(3, method.labels.shape))
    terms = method.losses(b, 0.5)
    L_clip = L_video = L_vca = 0.0
    v = {}
    for d, s in (("s", b.source), ("t", b.target)):
        f = window_features(method.net, s)
        v[d] = videos(s, f)
        L_clip += naive_cross_modal(f, s.present, 0.5)
        alone = {m: v_BD[:, None] for m, v_BD in v[d].items()}
        L_video += naive_cross_modal(alone, {m: s.has(m)[:, None] for m in f}, 0.5)
    for j, (label, K) in enumerate(spec.classes.items()):
        y_t = method.labels[b.target.index, j]
        for m in spec.shapes:
            centres = {}
            for d, s, y in (("s", b.source, b.source.y[label]), ("t", b.target, y_t)):
                for k in range(K):
                    rows = [i for i in range(8) if y[i] == k and s.has(m)[i]]
                    if rows:
                        centres[d, k] = sum(v[d][m][i, method.net.parts[label]] for i in rows) / len(rows)
            both = [k for k in range(K) if ("s", k) in centres and ("t", k) in centres]
            each = []
            for k in both:
                near = {other: phi(centres["t", k], centres["s", other], 0.5) for other in both}
                each.append(-math.log(near[k] / sum(near.values())))
            L_vca += sum(each) / len(each)
    assert terms["L_clip"].item() == pytest.approx(0.7 * L_clip, rel=1e-4)
    assert terms["L_video"].item() == pytest.approx(0.7 * L_video, rel=1e-4)
    assert terms["L_vca"].item() == pytest.approx(0.3 * L_vca, rel=1e-4)


def test_contrast_by_hand():
    """Two clips, opposite in rgb; flow repeats them: near e, far 1/e. One window each, so windows are clips."""
    f = {m: torch.tensor([[[1.0, 0.0]], [[-2.0, 0.0]]]) for m in ("rgb", "flow")}
    present = {m: torch.ones(2, 1, dtype=torch.bool) for m in f}
    expected = -math.log(math.e / (math.e + 1 / math.e))
    assert stcda.cross_modal(f, present, 1.0).item() == pytest.approx(expected)
    assert stcda.cross_modal({"rgb": f["rgb"]}, present, 1.0).item() == 0.0  # nothing to compare with


def test_labels_come_from_the_nearest_classes():
    """Both sides in the same clusters, the target's rows in another order: labels are right before any training."""
    generator = torch.Generator().manual_seed(0)
    means = 3 * torch.randn(4, 8, generator=generator)
    y_s, y_t = torch.arange(24) % 4, (torch.arange(18) * 3) % 4
    f_s, f_t = (means[y] + 0.3 * torch.randn(len(y), 8, generator=generator) for y in (y_s, y_t))
    assert torch.equal(stcda.cluster(f_s, one_hot(y_s, 4).float(), 2 * f_t), y_t)  # cosines see no scale


@SPECS
def test_labels_are_of_the_whole_target_by_its_rows(spec):
    method = build(spec)
    rows = {"source": side(spec, 24, labelled=True), "target": side(spec, 18, labelled=False, seed=1)}
    sweep = lambda name: iter([rows[name]])  # noqa: E731
    with torch.no_grad():
        method.begin_epoch(0, sweep)
        f = {name: method.net.reads(videos(s, window_features(method.net, s))) for name, s in rows.items()}
    assert method.labels.shape == (18, len(spec.classes))
    for j, (label, K) in enumerate(spec.classes.items()):
        in_SK = one_hot(rows["source"].y[label], K).float()
        assert torch.equal(method.labels[:, j], stcda.cluster(f["source"][label], in_SK, f["target"][label]))
    assert "labels" not in method.state_dict()


def test_a_class_of_one_side_only_has_no_say():
    method, b = build(), batch(SPEC)
    method.labels.fill_(3)
    only = dataclasses.replace(b.source, y={"label": torch.zeros(8, dtype=torch.long)})
    assert method.losses(Batch(only, b.target), 0.5)["L_vca"].item() == 0.0
    assert method.losses(b, 0.5)["L_vca"].item() == pytest.approx(0.0, abs=1e-6)  # one class: nothing to be taken for


def test_training_draws_classes_together():
    """L_vca alone brings the target's means of classes to those of the source."""
    method, b = build(lambda_v=1.0), batch(SPEC)
    method.labels.copy_((torch.arange(18) % 4)[:, None])
    optimizer = torch.optim.Adam(method.net.F.parameters(), lr=0.01)
    log = []
    for _ in range(60):
        L_vca = method.losses(b, 0.5)["L_vca"]
        optimizer.zero_grad()
        L_vca.backward()
        optimizer.step()
        log.append(L_vca.item())
    assert log[-1] < 0.1 * log[0]
