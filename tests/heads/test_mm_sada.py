"""MM-SADA against its equations, written out once more with explicit loops."""

import dataclasses

import pytest
import torch
from torch.nn.functional import cross_entropy

from heads.batch import Batch, Side
from heads.methods import dann, mm_sada, source_only
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, batch, without

UDA, DG = ("source", "target"), ("source",)


def build(spec, sides, **params):
    """In eval mode, so that dropout does not blur the comparison."""
    spec = dataclasses.replace(spec, rows={name: spec.rows[name] for name in sides})
    torch.manual_seed(0)
    return mm_sada.MmSada(mm_sada.Params(**params), spec, adapter.NET(adapter.Params(dim=8), spec)).eval()


def naive_correspondence(method, b, sides):
    """Σ over the second modalities of the mean over all pairs: row with itself, row with the next one of its side."""
    total = 0.0
    for m, C in method.C.items():
        terms = []
        for name in sides:
            side = getattr(b, name)
            f, first = method.net.encode(side), next(iter(method.spec.shapes))
            B = len(side.index)
            for i in range(B):
                for j, r in ((i, 1), ((i - 1) % B, 0)):
                    if r == 0 and side.index[i] == side.index[j]:
                        continue
                    if side.has(first)[i] and side.has(m)[j]:
                        z = C(torch.cat([f[first][i], f[m][j]])[None])
                        terms.append(cross_entropy(z, torch.tensor([r])).item())
        total += sum(terms) / len(terms)
    return total


@pytest.mark.parametrize("sides", [DG, UDA], ids=["DG", "UDA"])
@pytest.mark.parametrize("spec", [SPEC, EK], ids=["two modalities", "three modalities, two labels"])
@pytest.mark.parametrize("modality", [None, "rgb", "flow"])
def test_correspondence_equals_the_naive_loops(spec, sides, modality):
    method, b = build(spec, sides, lambda_c=0.7), batch(spec, sides, rows=7)
    if modality:
        b = Batch(**{name: without(getattr(b, name), modality, [0, 4, 5]) for name in sides})
    with torch.no_grad():
        expected = 0.7 * naive_correspondence(method, b, sides)
        assert method.losses(b, 0.5)["L_c"].item() == pytest.approx(expected, rel=1e-4)


def test_by_hand():
    """A head that says "one clip" with log-odds f_rgb · f_flow / 2: two rows, one orthogonal to the other."""
    method = build(SPEC, DG, lambda_c=1.0)
    side = batch(SPEC, DG, rows=2).source
    f = {m: torch.tensor([[2.0, 0.0], [0.0, 2.0]]) for m in ("rgb", "flow")}
    h_P, r_P, counts_P = mm_sada.pairs(side, f, "rgb", "flow")
    assert h_P.tolist() == [[2, 0, 2, 0], [0, 2, 0, 2], [2, 0, 0, 2], [0, 2, 2, 0]]
    assert r_P.tolist() == [1, 1, 0, 0]
    assert counts_P.all()

    class Head(torch.nn.Module):
        def forward(self, h_P):
            odds_P = (h_P[:, :2] * h_P[:, 2:]).sum(1) / 2
            return torch.stack([torch.zeros_like(odds_P), odds_P], 1)

    method.C["flow"] = Head()
    yes, no = torch.tensor(2.0).neg().exp().log1p(), torch.tensor(2.0).log()  # log-odds 2 for true pairs, 0 for false
    assert method.correspondence("flow", [(side, f)]).item() == pytest.approx((yes + no).item() / 2)


def test_a_false_pair_is_never_of_one_clip():
    side = batch(SPEC, DG, rows=3).source
    side = dataclasses.replace(side, index=torch.tensor([4, 4, 9]))
    f = {m: torch.zeros(3, 2) for m in side.x}
    counts = mm_sada.pairs(side, f, "rgb", "flow")[2]
    assert counts.tolist() == [True, True, True, True, False, True]


def test_one_row_has_only_a_true_pair():
    method, b = build(SPEC, DG, lambda_c=1.0), batch(SPEC, DG, rows=1)
    f = method.net.encode(b.source)
    z = method.C["flow"](torch.cat([f["rgb"], f["flow"]], 1))
    assert method.losses(b, 0.5)["L_c"].item() == pytest.approx(-z.log_softmax(1)[0, 1].item(), rel=1e-5)


def test_the_next_row_of_the_other_side_is_no_pair():
    """The mean over both sides weighs them by their pairs, and each is what it would be alone."""
    method, b = build(SPEC, UDA, lambda_c=1.0), batch(SPEC, UDA)
    small = batch(SPEC, UDA, rows=4, seed=5)
    b = Batch(b.source, small.target)
    alone = [method.correspondence("flow", [(side, method.net.encode(side))]) for side in (b.source, b.target)]
    assert method.losses(b, 0.5)["L_c"].item() == pytest.approx(((2 * alone[0] + alone[1]) / 3).item(), rel=1e-5)


def test_terms_of_each_form():
    forms = {
        (UDA, 5.0, 1.0): {"L_C", "L_c", "L_d"},
        (UDA, 5.0, 0.0): {"L_C", "L_c"},
        (UDA, 0.0, 1.0): {"L_C", "L_d"},
        (DG, 5.0, 1.0): {"L_C", "L_c"},
    }
    for (sides, lambda_c, lambda_d), names in forms.items():
        method, b = build(SPEC, sides, lambda_c=lambda_c, lambda_d=lambda_d), batch(SPEC, sides)
        terms = method.losses(b, 0.5)
        assert set(terms) == names
        plain = source_only.SourceOnly(source_only.Params(), method.spec, method.net)
        assert torch.equal(terms["L_C"], plain.losses(b, 0.5)["L_C"])


def test_without_correspondence_it_is_dann():
    method, b = build(SPEC, UDA, lambda_c=0.0, lambda_d=0.3), batch(SPEC, UDA)
    other = dann.Dann(dann.Params(lambda_d=0.3), method.spec, method.net).eval()
    other.D = method.D
    grads = []
    for of in (method, other):
        of.zero_grad()
        terms = of.losses(b, 0.4)
        sum(terms.values()).backward()
        grads.append([terms["L_d"].item(), *(p.grad.clone() for p in of.parameters())])
    assert grads[0][0] == grads[1][0]
    assert all(torch.equal(a, b) for a, b in zip(grads[0][1:], grads[1][1:], strict=True))


def test_encoders_lower_the_correspondence_loss_and_the_classifier_does_not_feel_it():
    method, b = build(SPEC, DG), batch(SPEC, DG, rows=16)
    before = method.losses(b, 0.5)["L_c"]
    before.backward()
    felt = {name.split(".")[1] for name, p in method.net.named_parameters(prefix="net") if p.grad is not None}
    assert felt == {"F"}
    with torch.no_grad():
        for p in method.net.F.parameters():
            p -= 0.01 * p.grad
    assert method.losses(b, 0.5)["L_c"].item() < before.item()


def test_doubling_lambda_c_doubles_its_term_and_no_other():
    b = batch(SPEC, UDA)
    once, twice = (build(SPEC, UDA, lambda_c=value).losses(b, 0.5) for value in (1.0, 2.0))
    for name, term in once.items():
        assert twice[name].item() == pytest.approx((2 if name == "L_c" else 1) * term.item(), rel=1e-6)


def lacking(side, *modalities):
    """A side that is not shown the modalities at all."""
    keep = lambda of: {m: value for m, value in of.items() if m not in modalities}  # noqa: E731
    return Side(keep(side.x), keep(side.present), side.y, side.domain, side.index)


def test_a_side_without_a_modality_has_no_pairs_of_it():
    method, b = build(EK, UDA), batch(EK, UDA)
    f, terms = method.net.encode(b.source), method.losses(Batch(b.source, lacking(b.target, "rgb")), 0.5)
    alone = sum(method.correspondence(m, [(b.source, f)]) for m in ("flow", "audio"))
    assert terms["L_c"].item() == pytest.approx(5 * alone.item(), rel=1e-5)
    nothing = method.losses(Batch(lacking(b.source, "rgb"), lacking(b.target, "rgb")), 0.5)
    assert nothing["L_c"].item() == 0


def test_one_modality_is_dann_alone():
    spec = dataclasses.replace(SPEC, shapes={"rgb": (6,)}, windows={"rgb": 3})
    assert set(build(spec, UDA).losses(batch(spec, UDA), 0.5)) == {"L_C", "L_d"}
    for sides, params in ((DG, {}), (UDA, {"lambda_d": 0.0})):
        with pytest.raises(ValueError, match="mm_sada has nothing to add to L_C: L_c takes two modalities .here: rgb"):
            build(spec, sides, **params)
