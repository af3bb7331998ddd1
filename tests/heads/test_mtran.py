"""MTRAN's target stage against its equations, source-free for real, and on a shift that it should undo."""

import dataclasses
import math
import shutil
from unittest import mock

import pytest
import torch
from torch.nn.functional import cross_entropy

from featcache.errors import ConfigError
from heads import noise
from heads.batch import Batch, Side
from heads.losses.entropy import entropy
from heads.losses.moments import mmd
from heads.methods import mtran
from heads.nets import adapter
from heads.nets import mtran as net
from heads.testing.problems import EK, SPEC, batch, side, without
from pipelines.config import Optim, override
from pipelines.data import opening
from pipelines.training.runs import Run, build
from pipelines.training.train import train
from tests.helpers.stores import manifest, run, write_all
from tests.helpers.weights import saved

torch.set_num_threads(1)

L_P = (0.1, 0.5, 0.8, 1.0)  # l' of the four pairs of a batch of eight


def make(spec=SPEC, **params):
    """In eval mode and without chance, for exact comparison; the clips of a pair have different pseudo-labels."""
    torch.manual_seed(0)
    net_ = net.Mtran(net.Params(dim=8, layers=2), spec)
    method = mtran.Mtran(mtran.Params(**params), spec, net_).eval()
    losses = method.losses

    def drawn(b, progress):
        """The losses with the same l' at each draw, in place of Beta(α, α)."""
        with mock.patch.object(noise, "beta", lambda a, b, P, like: torch.tensor(L_P[:P])):
            return losses(b, progress)

    method.losses = drawn
    method.labels = torch.stack([torch.arange(18) * 3 // 2 % k for k in spec.classes.values()], 1)
    return method


def pick(s, index):
    cut = lambda values: {name: v[index] for name, v in values.items()}  # noqa: E731
    return Side(cut(s.x), cut(s.present), cut(s.y), s.domain[index], s.index[index])


# ------------------------------------------------------------------------------------------------------ the equations


def naive_alignment(method, t, tau):
    """(L_mra, L_tra) without weights; pair by pair, window by window. tau None: μ = 1."""
    P = len(t.index) // 2
    distances, divergences = {}, {}
    for i in range(P):
        high, low = pick(t, [i]), pick(t, [len(t.index) - P + i])
        lam = max(torch.tensor([L_P[i], 1 - L_P[i]]).softmax(0)).item()
        mu = max((torch.tensor([L_P[i], 1 - L_P[i]]) / tau).softmax(0)).item() if tau else 1.0
        both = {m: high.present[m] & low.present[m] for m in t.x}
        x = {m: lam * high.x[m] + (1 - lam) * low.x[m] for m in t.x}
        (f_high, A_high), (f_low, A_low) = method.net.attend(high), method.net.attend(low)
        f_syn, A_syn = method.net.attend(Side(x, both, {}, high.domain, high.index))
        alike = all(bool(both[m].any()) == bool((high.present[m] | low.present[m]).any()) for m in t.x)
        for k in f_syn:
            if alike if k == "fused" else both[k].any():
                f_hyp = (mu * f_high[k] + (1 - mu) * f_low[k]).detach()
                distances.setdefault(k, []).append(((f_syn[k] - f_hyp) ** 2).sum().sqrt())
        for m in t.x:
            windows = both[m][0].nonzero().flatten().tolist()
            if windows:
                A_hyp = (mu * A_high[m] + (1 - mu) * A_low[m]).detach()
                kl = [
                    a * (a.log() - A_hyp[0, layer, w, j].log()) / len(windows)
                    for layer in range(A_hyp.shape[1])
                    for w in windows
                    for j, a in enumerate(A_syn[m][0, layer, w])
                    if a > 0
                ]
                divergences.setdefault(m, []).append(sum(kl))
    mean = lambda found: sum(sum(each) / len(each) for each in found.values())  # noqa: E731
    return mean(distances), mean(divergences)


def gradient(method, loss):
    return torch.autograd.grad(loss, list(method.net.branch.parameters()), allow_unused=True, retain_graph=True)


@pytest.mark.parametrize(("align", "tau"), [("relative", 0.9), ("relative", 0.3), ("absolute", None)])
@pytest.mark.parametrize("gaps", [False, True], ids=["whole", "with gaps"])
def test_alignment_equals_the_naive_loops(align, tau, gaps):
    """Values, and gradients: none flows into the hypothetical clip."""
    method = make(align=align, tau=tau or 0.9, lambda_2=0.7, lambda_3=0.3)
    t = batch(SPEC, ("target",)).target
    if gaps:  # pair 0: only one has flow; pair 1: none has; pair 2: other windows of rgb
        t = without(without(t, "flow", [0]), "flow", [1, 5])
        t.present["rgb"][2, 0] = t.present["rgb"][6, 1] = False
    terms = method.losses(Batch(target=t), 0.5)
    L_mra, L_tra = naive_alignment(method, t, tau)
    assert L_tra > 1e-5
    assert terms["L_mra"].item() == pytest.approx(0.7 * L_mra.item(), rel=1e-4)
    assert terms["L_tra"].item() == pytest.approx(0.3 * L_tra.item(), rel=1e-3)
    for found, expected in ((terms["L_mra"], 0.7 * L_mra), (terms["L_tra"], 0.3 * L_tra)):
        for g, h in zip(gradient(method, found), gradient(method, expected), strict=True):
            assert (g is None) == (h is None)
            assert g is None or torch.allclose(g, h, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
def test_other_terms_equal_their_definitions(spec):
    method, t = make(spec, lambda_1=0.7), batch(spec, ("target",)).target
    terms = method.losses(Batch(target=t), 0.5)
    z = method.net.classify(method.net.encode(t))
    ss = im = 0.0
    for j, z_BK in enumerate(z.values()):
        ss += sum(-z_BK[i].log_softmax(0)[method.labels[i, j]].item() for i in range(8)) / 8
        p = z_BK.softmax(1).tolist()
        mean = [sum(row[k] for row in p) / 8 for k in range(z_BK.shape[1])]
        im += sum(-sum(q * math.log(q) for q in row) for row in p) / 8 + sum(q * math.log(q) for q in mean)
    assert terms["L_ss"].item() == pytest.approx(0.7 * ss, rel=1e-5)
    assert terms["L_im"].item() == pytest.approx(im, rel=1e-3)


@pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
def test_mt_mix_learns_both_labels_in_the_mixture(spec):
    method, t = make(spec, align="mix", lambda_2=0.7), batch(spec, ("target",)).target
    expected = 0.0
    for i, l_ in enumerate(L_P):
        lam = math.exp(max(l_, 1 - l_)) / (math.exp(l_) + math.exp(1 - l_))
        high, low = pick(t, [i]), pick(t, [4 + i])
        x = {m: lam * high.x[m] + (1 - lam) * low.x[m] for m in t.x}
        z = method.net.classify(method.net.encode(Side(x, high.present, {}, high.domain, high.index)))
        for j, z_1K in enumerate(z.values()):
            of = [cross_entropy(z_1K, method.labels[k : k + 1, j]).item() for k in (i, 4 + i)]
            expected += (lam * of[0] + (1 - lam) * of[1]) / 4
    terms = method.losses(Batch(target=t), 0.5)
    assert set(terms) == {"L_im", "L_ss", "L_mix"}
    assert terms["L_mix"].item() == pytest.approx(0.7 * expected, rel=1e-5)


def test_m_mmd_compares_the_halves_of_the_batch():
    method, t = make(align="mmd", lambda_2=0.7), without(batch(SPEC, ("target",)).target, "flow", [1, 6])
    f = method.net.encode(t)
    everyone = torch.ones(4, dtype=torch.bool)
    expected = sum(mmd(f[k][:4], f[k][4:], everyone, everyone, gamma=0) for k in ("rgb", "fused"))
    expected += mmd(f["flow"][[0, 2, 3]], f["flow"][[4, 5, 7]], everyone[:3], everyone[:3], gamma=0)
    terms = method.losses(Batch(target=t), 0.5)
    assert set(terms) == {"L_im", "L_ss", "L_mmd", "L_tra"}
    assert terms["L_mmd"].item() == pytest.approx(0.7 * expected.item(), rel=1e-5)
    assert terms["L_tra"].item() == make().losses(Batch(target=t), 0.5)["L_tra"].item()


def test_ablations_leave_their_terms_out():
    b = batch(SPEC, ("target",))
    whole = make().losses(b, 0.5)
    assert list(whole) == ["L_im", "L_ss", "L_mra", "L_tra"]
    assert all(term != 0 for term in whole.values())
    for params, gone in (({"lambda_2": 0.0}, "L_mra"), ({"lambda_3": 0.0}, "L_tra")):
        assert make(**params).losses(b, 0.5) == {**whole, gone: 0.0}
    assert make(lambda_2=0.0, lambda_3=0.0).losses(b, 0.5) == {name: whole[name] for name in ("L_im", "L_ss")}


@pytest.mark.parametrize(
    ("field", "term", "align"),
    [("lambda_1", "L_ss", "relative"), ("lambda_2", "L_mra", "absolute"), ("lambda_3", "L_tra", "mmd")],
)
def test_doubling_a_weight_doubles_its_term_and_no_other(field, term, align):
    value, b = getattr(mtran.Params(), field), batch(SPEC, ("target",))
    once = make(align=align).losses(b, 0.5)
    twice = make(align=align, **{field: 2 * value}).losses(b, 0.5)
    for name in once:
        assert twice[name].item() == pytest.approx((2 if name == term else 1) * once[name].item(), rel=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 0.85, 5.0])
def test_mixtures_are_drawn_from_beta(alpha):
    """One l' of Beta(α, α) per pair, from `noise`."""
    drawn, beta = [], noise.beta

    def seen(*args, like):
        drawn.append((args, beta(*args, like=like)))
        return drawn[-1][1]

    method = mtran.Mtran(mtran.Params(alpha=alpha), SPEC, make().net)
    with mock.patch.object(noise, "beta", seen):
        method.losses(batch(SPEC, ("target",)), 0.5)
    (((a, b, P), l_P),) = drawn
    assert (a, b, P, l_P.shape) == (alpha, alpha, 4, (4,))


# ----------------------------------------------------------------------------------------------- labels and the halves


@pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
def test_an_epoch_labels_the_target_and_halves_it(spec):
    method, rows = make(spec), side(spec, 17, labelled=False, seed=3)
    for classifier in method.net.classifier.values():  # so that each label is sure of other clips
        classifier.weight.data *= 10
    pieces = [pick(rows, [i]) for i in range(17)]
    pools = method.begin_epoch(0, lambda name: iter(pieces if name == "target" else ()))["target"]
    f = method.net.encode(rows)
    H = [0.0] * 17
    for j, (label, z) in enumerate(method.net.classify(f).items()):
        p, part = z.softmax(1), f["fused"][:, method.net.parts[label]]
        H = [h + e.item() for h, e in zip(H, entropy(p), strict=True)]
        centroids = [sum(p[i, k] * part[i] for i in range(17)) / p[:, k].sum() for k in range(p.shape[1])]
        for i in range(17):
            cosines = [torch.cosine_similarity(part[i], c, dim=0).item() for c in centroids]
            assert cosines[method.labels[i, j]] == pytest.approx(max(cosines), abs=1e-6)
    assert [len(pool) for pool in pools] == [8, 9]
    assert sorted(torch.cat(pools).tolist()) == list(range(17))
    assert max(H[i] for i in pools[0]) <= min(H[i] for i in pools[1]) + 1e-6


def test_labels_are_found_anew_by_the_row_number():
    method, b = make(), batch(SPEC, ("target",))
    before = method.losses(b, 0.5)["L_ss"]
    method.labels = method.labels.flip(0)
    flipped = method.losses(b, 0.5)["L_ss"]
    turned = dataclasses.replace(b.target, index=17 - b.target.index)
    assert flipped != before
    assert method.losses(Batch(target=turned), 0.5)["L_ss"] == before


@pytest.mark.parametrize("align", mtran.ALIGN)
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_small_and_odd_batches(align, rows):
    """Of seven rows the fourth is in no pair; of one, none is."""
    method, b = make(align=align), batch(SPEC, ("target",), rows=rows)
    terms = method.losses(b, 0.5)
    sum(terms.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
    aligned = [term for name, term in terms.items() if name not in ("L_im", "L_ss")]
    assert all((term == 0) == (rows == 1) for term in aligned)
    if rows == 7:
        apart = dataclasses.replace(b.target, x={m: x.clone() for m, x in b.target.x.items()})
        for x in apart.x.values():
            x[3] += 5.0
        for name, term in method.losses(Batch(target=apart), 0.5).items():
            assert torch.allclose(term, terms[name], rtol=1e-5) == (name not in ("L_im", "L_ss"))


# -------------------------------------------------------------------------------------------------------- source-free


def stages():
    """(source stage on day, target stage on night) of the toy benchmark."""
    first = run(net=net.Params(dim=8, layers=2), row="")
    second = dataclasses.replace(
        first,
        method=mtran.Params(),
        row="MTRAN",
        source=(),
        target="night",
        epoch="target",
        steps=6,
        init_from=first.id,
    )
    return first, second


def test_a_source_is_refused_and_so_is_a_random_start():
    _, second = stages()
    with pytest.raises(ConfigError, match=r"method 'mtran' must not see a source \(source=\('day',\)\)"):
        dataclasses.replace(second, source=("day",))
    with pytest.raises(ConfigError, match="method 'mtran' needs init_from"):
        dataclasses.replace(second, init_from=None)
    with pytest.raises(ConfigError, match="method 'mtran' needs target"):
        dataclasses.replace(second, target=None, test="night", epoch=3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Stores with all rows."""
    return write_all(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def runs(whole, tmp_path_factory):
    """The finished source stage."""
    folder = tmp_path_factory.mktemp("runs")
    train(stages()[0], whole, folder)
    return folder


def test_the_target_stage_never_sees_a_source_row(whole, runs, tmp_path, monkeypatch):
    """It says the same to the digit where no source row has features any more, nor its label; and reads none."""
    first, second = stages()

    rolled = {"chop": "peel", "peel": "stir", "stir": "chop"}
    clips = manifest(labels=lambda domain, _, name: {"label": rolled[name] if domain == "day" else name})
    source = [row for row, clip in enumerate(clips) if clip.domain == "day"]
    bare = write_all(tmp_path / "bare", clips, states=dict.fromkeys(source, "failed"))
    with pytest.raises(ConfigError, match="clips lack a modality"):  # whoever does read the source cannot
        train(override(first, "seed=1"), bare, tmp_path / "other")

    asked, swept, seen = [], [], []
    load, sweep, losses = opening.Opened.load, opening.Opened.sweep, mtran.Mtran.losses
    monkeypatch.setattr(
        opening.Opened, "load", lambda self, role, rows, **k: (asked.extend(rows), load(self, role, rows, **k))[1]
    )
    monkeypatch.setattr(opening.Opened, "sweep", lambda self, side: (swept.append(side), sweep(self, side))[1])
    monkeypatch.setattr(
        mtran.Mtran, "losses", lambda self, batch, at: (seen.append((batch, self.spec)), losses(self, batch, at))[1]
    )
    made = []
    for k, stores in enumerate((whole, bare)):
        shutil.copytree(runs, tmp_path / f"runs{k}")
        made.append(Run.open(train(second, stores, tmp_path / f"runs{k}")))
    assert made[0].log() == made[1].log()
    assert made[0].outputs["label"].tolist() == made[1].outputs["label"].tolist()
    assert asked
    assert not set(asked) & set(source)
    assert set(swept) == {"target"}
    assert len(seen) == 12
    assert all(batch.source is None and batch.target.y == {} and list(s.rows) == ["target"] for batch, s in seen)


def test_the_classifier_stays_the_sources_and_the_rest_learns(whole, runs):
    before, after = (saved(train(config, whole, runs)) for config in stages())
    assert before.keys() == after.keys()  # labels and halves are no part of a checkpoint
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if not name.startswith("net.classifier")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"net": adapter.Params(dim=8)},
            "method mtran aligns attention maps.*use net mtran",
        ),
        ({"method": mtran.Params(align="max")}, "no method.align 'max'; choose from relative, absolute, mmd, mix"),
    ],
)
def test_what_cannot_run_is_refused(changes, message):
    _, second = stages()
    with pytest.raises(ConfigError, match=message):
        build(dataclasses.replace(second, **changes), SPEC)


# ------------------------------------------------------------------------------------------------------- what it is for

CLASSES, WINDOWS = 4, 3


@pytest.mark.parametrize("precision", net.PRECISIONS)
def test_six_layers_learn_at_the_published_rate(precision, whole, tmp_path):
    """Post-norm, SGD at 0.01, no warm-up."""
    config = run(net=net.Params(dim=16, precision=precision), steps=25, optim=Optim(lr=0.01))
    log = Run.open(train(config, whole, tmp_path)).log()
    first, last = (sum(terms["L_C"] for terms in part) for part in (log[:5], log[-5:]))
    assert last < 0.8 * first
