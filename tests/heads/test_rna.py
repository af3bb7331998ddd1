"""RNA against its equations, written out once more with explicit loops."""

import dataclasses
import math
from itertools import combinations

import pytest
import torch
from torch.nn.functional import cross_entropy

from heads.batch import Batch, Side
from heads.losses.entropy import information
from heads.methods import rna, source_only
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, batch, without
from tests.heads.test_losses_norms import R, norm

UDA, DG = ("source", "target"), ("source",)


def build(spec, sides, **params):
    """In eval mode, so that dropout does not blur the comparison."""
    spec = dataclasses.replace(spec, rows={name: spec.rows[name] for name in sides})
    torch.manual_seed(0)
    return rna.Rna(rna.Params(**params), spec, adapter.NET(adapter.Params(dim=8), spec)).eval()


def mean_norm(rows):
    return sum(map(norm, rows)) / len(rows)


def naive_pair(u, v, y_u, y_v):
    """(R of all rows, Σ over common classes of R); y None marks a row without the modality."""
    u, y_u = zip(*[(f, y) for f, y in zip(u, y_u, strict=True) if y is not None], strict=True)
    v, y_v = zip(*[(f, y) for f, y in zip(v, y_v, strict=True) if y is not None], strict=True)
    in_class = lambda f, y, c: [row for row, its in zip(f, y, strict=True) if its == c]  # noqa: E731
    per_class = sum(R(mean_norm(in_class(u, y_u, c)), mean_norm(in_class(v, y_v, c))) for c in set(y_u) & set(y_v))
    return R(mean_norm(u), mean_norm(v)), per_class


def naive_norm_terms(method, b, across=True):
    """(Σ L_g, Σ L_c) without weights, over labels, domains, pairs of modalities, and modalities across domains."""
    seen = {}
    for name in ("source", "target"):
        if (s := getattr(b, name)) is not None:
            f = method.net.encode(s)
            y = s.y or {label: z.argmax(1) for label, z in method.net.classify(f).items()}
            for label, part in method.net.parts.items():
                for m in f:
                    classes = [int(c) if there else None for c, there in zip(y[label], s.has(m), strict=True)]
                    seen[name, label, m] = (f[m][:, part].tolist(), classes)
    total_g = total_c = 0.0
    for label in method.net.parts:
        pairs = []
        for name in ("source", "target"):
            pairs += combinations([key for key in seen if key[0] == name and key[1] == label], 2)
        if across and b.target is not None:
            pairs += [(k, ("target", *k[1:])) for k in seen if k[0] == "source" and k[1] == label]
        for left, right in pairs:
            (u, y_u), (v, y_v) = seen[left], seen[right]
            g, c = naive_pair(u, v, y_u, y_v)
            total_g, total_c = total_g + g, total_c + c
    return total_g, total_c


@pytest.mark.parametrize("sides", [DG, UDA], ids=["DG", "UDA"])
@pytest.mark.parametrize("spec", [SPEC, EK], ids=["two modalities", "three modalities, two labels"])
@pytest.mark.parametrize("gaps", [False, True], ids=["whole", "with gaps"])
def test_norm_terms_equal_the_naive_loops(spec, sides, gaps):
    method, b = build(spec, sides, lambda_g=0.7, lambda_c=0.3), batch(spec, sides, rows=11)
    if gaps:
        b = Batch(**{name: without(getattr(b, name), "flow", [0, 4, 5]) for name in sides})
    terms = method.losses(b, 0.5)
    g, c = naive_norm_terms(method, b)
    assert terms["L_g"].item() == pytest.approx(0.7 * g, rel=1e-4)
    assert terms["L_c"].item() == pytest.approx(0.3 * c, rel=1e-4)


def test_without_l_mod_domains_are_not_aligned():
    method, b = build(EK, UDA, lambda_g=0.7, lambda_c=0.3, mod=False), batch(EK, UDA, rows=11)
    terms, (g, c) = method.losses(b, 0.5), naive_norm_terms(method, b, across=False)
    assert (terms["L_g"].item(), terms["L_c"].item()) == pytest.approx((0.7 * g, 0.3 * c), rel=1e-4)


def test_other_terms_equal_their_definitions():
    method, b = build(SPEC, UDA, lambda_im=0.4, per_modality=True), batch(SPEC, UDA)
    terms = method.losses(b, 0.3)
    f_s, f_t = method.net.encode(b.source), method.net.encode(b.target)
    z_s, z_t = method.net.classify(f_s)["label"], method.net.classify(f_t)["label"]
    assert torch.allclose(terms["L_C"], cross_entropy(z_s, b.source.y["label"]))
    alone = [cross_entropy(method.net.classify({m: f_s[m]})["label"], b.source.y["label"]) for m in f_s]
    assert torch.allclose(terms["L_C_m"], alone[0] + alone[1])
    p = z_t.softmax(1).tolist()
    rows = sum(-sum(q * math.log(q) for q in row) for row in p) / len(p)
    mean = [sum(row[k] for row in p) / len(p) for k in range(4)]
    assert terms["L_IM"].item() == pytest.approx(0.4 * (rows + sum(q * math.log(q) for q in mean)), rel=1e-4)
    domain = 0.0
    for m in f_s:
        z = method.D[m](torch.cat([f_s[m], f_t[m]])).log_softmax(1)
        domain += -(z[:8, 0].sum() + z[8:, 1].sum()).item() / 16
    assert terms["L_d"].item() == pytest.approx(domain, rel=1e-5)


def test_domain_loss_counts_only_rows_that_have_the_modality():
    method, b = build(SPEC, UDA), batch(SPEC, UDA)
    b = Batch(without(b.source, "flow", [0, 1, 2]), without(b.target, "flow", [5]))
    domain = 0.0
    for m, rows in {"rgb": list(range(16)), "flow": [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15]}.items():
        f = torch.cat([method.net.encode(side)[m] for side in (b.source, b.target)])
        z = method.D[m](f).log_softmax(1)
        domain += sum(-z[row, int(row >= 8)].item() for row in rows) / len(rows)
    assert method.losses(b, 0.5)["L_d"].item() == pytest.approx(domain, rel=1e-5)


def test_terms_of_each_form():
    assert list(build(SPEC, DG).losses(batch(SPEC, DG), 0.5)) == ["L_C", "L_g", "L_c"]
    assert set(build(SPEC, UDA).losses(batch(SPEC, UDA), 0.5)) == {"L_C", "L_g", "L_c", "L_IM", "L_d"}
    assert "L_d" not in build(SPEC, UDA, lambda_d=0.0).losses(batch(SPEC, UDA), 0.5)


@pytest.mark.parametrize(("field", "term"), [("lambda_g", "L_g"), ("lambda_c", "L_c"), ("lambda_im", "L_IM")])
def test_doubling_a_weight_doubles_its_term_and_no_other(field, term):
    value, b = getattr(rna.Params(), field), batch(SPEC, UDA)
    once = build(SPEC, UDA).losses(b, 0.5)
    twice = build(SPEC, UDA, **{field: 2 * value}).losses(b, 0.5)
    for name in once:
        assert twice[name].item() == pytest.approx((2 if name == term else 1) * once[name].item(), rel=1e-6)


def gradients(method, b, term):
    method.zero_grad()
    method.losses(b, 0.5)[term].backward()
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def test_lambda_d_weighs_what_the_encoders_feel_not_the_discriminators():
    b = batch(SPEC, UDA)
    once, twice = (gradients(build(SPEC, UDA, lambda_d=value), b, "L_d") for value in (0.2, 0.4))
    assert any(name.startswith("net.F") for name in once)
    for name, grad in once.items():
        assert torch.allclose(twice[name], (2 if name.startswith("net.") else 1) * grad, atol=1e-7), name


def test_encoders_feel_the_domain_loss_reversed():
    method, b = build(SPEC, UDA, lambda_d=1.0), batch(SPEC, UDA)
    felt = gradients(method, b, "L_d")["net.F.rgb.weight"]
    f = torch.cat([method.net.encode(b.source)["rgb"], method.net.encode(b.target)["rgb"]])
    method.zero_grad()
    cross_entropy(method.D["rgb"](f), torch.tensor([0] * 8 + [1] * 8)).backward()
    ramp = 2 / (1 + math.exp(-5)) - 1
    assert torch.allclose(felt, -ramp * method.net.F["rgb"].weight.grad, atol=1e-7)


def test_pseudo_labels_take_no_gradient_through_the_classifier():
    touched = gradients(build(SPEC, UDA), batch(SPEC, UDA), "L_c")
    assert {name.split(".")[1] for name, grad in touched.items() if grad.abs().max() > 0} == {"F"}


def test_one_modality_has_no_pair_in_dg_and_is_refused():
    spec = dataclasses.replace(SPEC, shapes={"rgb": (6,)}, windows={"rgb": 3})
    with pytest.raises(ValueError, match="without a target aligns modalities, .*'rgb' is the only one; add a feed"):
        build(spec, DG)
    assert build(spec, UDA).losses(batch(spec, UDA), 0.5)["L_g"] > 0  # across the domains
    unseen = Batch(lacking(batch(SPEC, DG).source, "flow"))  # of two feeds the source may see one
    terms = build(SPEC, DG).losses(unseen, 0.5)
    assert (terms["L_g"].item(), terms["L_c"].item()) == (0, 0)


def test_with_all_weights_zero_dg_is_source_only():
    b = batch(SPEC, DG)
    method = build(SPEC, DG, lambda_g=0.0, lambda_c=0.0)
    plain = source_only.SourceOnly(source_only.Params(), method.spec, method.net)
    assert torch.equal(sum(method.losses(b, 0.5).values()), sum(plain.losses(b, 0.5).values()))


@pytest.mark.parametrize("module", [rna, source_only])
def test_a_modality_alone_is_learned_on_the_rows_that_have_it(module):
    method, s = build(SPEC, DG), without(batch(SPEC, DG).source, "flow", [0, 1, 2, 3])
    method = module.METHOD(module.Params(per_modality=True), method.spec, method.net).eval()
    with torch.no_grad():
        alone = method.net.classifier.g[":label"]  # what a row without features would say
        alone.copy_(torch.tensor([2.0, -1.0, 0.0, 1.0]))
    f, y = method.net.encode(s), s.y["label"]
    z = {m: method.net.classify({m: f[m]})["label"] for m in f}
    expected = cross_entropy(z["rgb"], y) + cross_entropy(z["flow"][4:], y[4:])
    assert method.losses(Batch(s), 0.5)["L_C_m"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_information_is_summed_over_labels():
    method, b = build(EK, UDA, lambda_im=1.0), batch(EK, UDA)
    each = [information(z.softmax(1)).item() for z in method.predict(b.target).values()]
    assert method.losses(b, 0.5)["L_IM"].item() == pytest.approx(sum(each), rel=1e-5)


def lacking(side, modality):
    """A side that is not shown the modality at all."""
    keep = lambda of: {m: value for m, value in of.items() if m != modality}  # noqa: E731
    return Side(keep(side.x), keep(side.present), side.y, side.domain, side.index)


def test_a_target_without_a_modality_is_aligned_on_the_others():
    method, b = build(EK, UDA), batch(EK, UDA, rows=11)
    b = Batch(b.source, lacking(b.target, "flow"))
    terms = method.losses(b, 0.5)
    f_s, f_t = method.net.encode(b.source), method.net.encode(b.target)
    total = 0.0
    for part in method.net.parts.values():
        h = {("s", m): mean_norm(f[:, part].tolist()) for m, f in f_s.items()}
        h |= {("t", m): mean_norm(f[:, part].tolist()) for m, f in f_t.items()}
        within = [R(h[a], h[b]) for a, b in combinations(h, 2) if a[0] == b[0]]
        total += sum(within) + sum(R(h["s", m], h["t", m]) for m in f_t)
    assert set(f_t) == {"rgb", "audio"}
    assert terms["L_g"].item() == pytest.approx(total, rel=1e-4)
    assert terms["L_d"].isfinite()


class Fusing(adapter.Adapter):
    """Says "fused" beside its modalities."""

    def encode(self, side):
        f = super().encode(side)
        return {**f, "fused": sum(f.values())}

    def classify(self, f):
        return super().classify({m: value for m, value in f.items() if m != "fused"})


@pytest.mark.parametrize("sides", [DG, UDA], ids=["DG", "UDA"])
def test_a_fused_feature_is_no_modality(sides):
    plain, b = build(SPEC, sides, per_modality=True), without_flow(batch(SPEC, sides))
    fusing = Fusing(adapter.Params(dim=8), plain.spec).eval()
    fusing.load_state_dict(plain.net.state_dict())
    method = rna.Rna(plain.params, plain.spec, fusing).eval()
    method.D = plain.D
    found, expected = method.losses(b, 0.5), plain.losses(b, 0.5)
    assert {name: term.item() for name, term in found.items()} == {name: term.item() for name, term in expected.items()}
    alone = source_only.SourceOnly(source_only.Params(per_modality=True), plain.spec, fusing)
    assert alone.losses(b, 0.5)["L_C_m"].item() == expected["L_C_m"].item()


def without_flow(b):
    """The first rows of each side lack flow."""
    sides = {"source": b.source, "target": b.target}
    return Batch(**{name: without(s, "flow", [0, 1]) for name, s in sides.items() if s is not None})
