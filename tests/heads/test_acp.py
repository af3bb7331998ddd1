"""ACP: its losses against loops, its keels, and what each λ brings in."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from heads.batch import Batch, Side
from heads.losses.prototypes import divergence, log_assignment, mutual_information
from heads.methods import acp, compute_now
from heads.methods._keels import Keels, visual_vector
from heads.nets import ce, gated
from heads.testing.problems import without
from pipelines.training.shared import DIGEST, Shared
from tests.helpers.retrieval_problems import EXPERTS, SPEC, batch, clips, pairs, part, sweep

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:method.:UserWarning")


def build(seed=0, net=ce, spec=SPEC, **params):
    torch.manual_seed(seed)
    return acp.Acp(
        acp.Params(**{"N": 5, "K": 4, "keel_text": "sentence", **params}), spec, net.NET(net.Params(dim=6), spec)
    )


def begun(**params):
    method = build(**params).eval()
    with torch.no_grad():
        method.begin_epoch(0, sweep())
    return method.train()


# ------------------------------------------------------------------------------------------------------------- losses


def cosine(u, v):
    return (u @ v / (u.norm() * v.norm())).item()


def softmax(scores):
    total = sum(math.exp(s) for s in scores)
    return [math.exp(s) / total for s in scores]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("tau", [1.0, 0.1])
def test_losses_equal_the_loops(tau):
    torch.manual_seed(0)
    f, c, g, d = (torch.randn(n, 3, dtype=torch.float64) for n in (4, 5, 4, 5))
    p, q = log_assignment(f, c, tau), log_assignment(g, d, tau)
    naive_p, naive_q = ([softmax([cosine(u, v) / tau for v in cs]) for u in us] for us, cs in ((f, c), (g, d)))
    assert torch.allclose(p.exp(), torch.tensor(naive_p, dtype=torch.float64))
    rows = [0, 2, 3]
    expected = sum(kl(naive_p[i], naive_q[i]) for i in rows) / 3
    assert divergence(p, q, torch.tensor([True, False, True, True])).item() == pytest.approx(expected)
    own, other = torch.randn(4).double(), torch.randn(4).double()
    sigma = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    expected = -sum(math.log(sigma(own[i])) for i in rows) / 3 - sum(math.log(1 - sigma(other[i])) for i in (1, 2)) / 2
    found = mutual_information(
        own, other, torch.tensor([True, False, True, True]), torch.tensor([False, True, True, False])
    )
    assert found.item() == pytest.approx(expected)


def test_losses_where_they_are_known():
    torch.manual_seed(0)
    f, c, every = torch.randn(4, 3), torch.randn(5, 3), torch.ones(4, dtype=torch.bool)
    p = log_assignment(f, c)
    assert torch.allclose(log_assignment(7 * f, 3 * c), p)  # cosines see no lengths
    assert torch.allclose(log_assignment(torch.zeros(1, 3), c).exp(), torch.full((1, 5), 0.2))
    assert divergence(p, p, every).item() == pytest.approx(0, abs=1e-6)
    assert divergence(p, log_assignment(-f, c), every) > 0
    assert divergence(p, p.roll(1, 0), ~every) == 0
    zero = torch.zeros(4)
    assert mutual_information(zero, zero, every, every).item() == pytest.approx(2 * math.log(2))
    assert mutual_information(zero + 50, zero - 50, every, every).item() == pytest.approx(0)
    assert mutual_information(zero - 50, zero + 50, every, every).item() == pytest.approx(100)
    assert mutual_information(zero, zero, ~every, ~every) == 0


def test_gradients_of_the_losses():
    torch.manual_seed(0)
    f, c, p = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (4, 5, 4))
    rows = torch.tensor([True, True, False, True])
    assert torch.autograd.gradcheck(
        lambda f, c, p: divergence(log_assignment(p, c), log_assignment(f, c), rows), (f, c, p)
    )
    own, other = (torch.randn(4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda u, v: mutual_information(u, v, rows, ~rows), (own, other))


# ------------------------------------------------------------------------------------------------------------- method


def naive_terms(method, b):
    """The terms of one batch, row by row."""
    p, net, s, t = method.params, method.net, b.source, b.target
    f_s, f_t = net.encode(s), net.encode(t)

    def assign(v, centroids):
        return softmax([cosine(v, c) / p.temperature if v.any() else 0.0 for c in centroids])

    def descriptor(side, i):
        blocks = [side.pool(m).flatten(1)[i] for m in EXPERTS]
        return torch.cat([x / x.norm() if x.any() else x for x in blocks])

    L_s = L_t = 0.0
    for i in range(8):
        y = assign(s.pool("sentence")[i], method.text_keels.centroids)
        L_s += sum(kl(y, assign(f_s[name][i], method.P_s)) for name in ("text", "visual")) / 8
        a = assign(descriptor(t, i), method.visual_keels.centroids)
        L_t += kl(a, assign(f_t["visual"][i], method.P_t)) / 8
    L_MI = 0.0
    for f in (f_s["visual"], f_t["visual"]):
        a, y = ([assign(v, c) for v in f] for c in (method.P_t, method.P_s))
        if p.scaled:
            a = [[(p.K * v - 1) / p.K**0.5 for v in row] for row in a]
            y = [[(p.N * v - 1) / p.N**0.5 for v in row] for row in y]
        for i in range(8):
            for j, sign in ((i, -1), ((i + 1) % 8, 1)):
                D = sum(a[i][k] * method.W_mi[k, n].item() * y[j][n] for k in range(p.K) for n in range(p.N))
                L_MI += math.log(1 + math.exp(sign * D)) / 8
    return {"L_s": p.lambda_s * L_s, "L_t": p.lambda_t * L_t, "L_MI": p.lambda_mi * L_MI}


@pytest.mark.parametrize(
    "params",
    [{"lambda_s": 0.5, "lambda_t": 2.0, "lambda_mi": 3.0}, {"temperature": 0.1, "scaled": True}],
    ids=["as printed", "temperature"],
)
def test_terms_equal_the_equations(params):
    method, b = begun(**params).eval(), batch()
    terms = method(b, 0.5)
    assert list(terms) == ["L_R", "L_s", "L_t", "L_MI"]
    assert torch.equal(terms["L_R"], method.net.loss(method.net.encode(b.source), b.source)["L_R"])
    for name, expected in naive_terms(method, b).items():
        assert terms[name].item() == pytest.approx(expected, rel=1e-4), name


def naive_ranking(method, s, divide):
    """Eq. 1 of a batch without gaps, term by term: the sum over all i and j other than i, divided by `divide`."""
    f, m, total = method.net.encode(s), method.net.margin, 0.0
    xi = method.net.similarity(f["text"], f["visual"]).tolist()
    for i in range(len(xi)):
        for j in range(len(xi)):
            if j != i:
                total += max(m + xi[i][j] - xi[i][i], 0.0) + max(m + xi[j][i] - xi[i][i], 0.0)
    return total / divide


@pytest.mark.parametrize("net", [ce, gated])
@pytest.mark.parametrize("B", [8, 3, 1])
def test_the_printed_ranking_loss_is_the_sum_over_b(net, B):
    b = batch(rows=B)
    terms = {}
    for name, divide in (("mean", 2 * B * (B - 1)), (acp.PRINTED.reduction, B)):
        method = build(net=net, reduction=name).eval()
        terms[name] = method(b, 0.5)
        expected = naive_ranking(method, b.source, divide) if B > 1 else 0
        assert terms[name]["L_R"].item() == pytest.approx(expected, rel=1e-4)
    mean, printed = terms["mean"], terms["sum"]
    assert printed["L_R"].item() == pytest.approx(2 * (B - 1) * mean["L_R"].item(), rel=1e-4)
    assert all(torch.equal(printed[name], mean[name]) for name in ("L_s", "L_t", "L_MI"))


def test_rows_that_lack_a_part_are_not_counted_in_b():
    """Three pairs of eight rows: the sum is divided by 3, as in a batch of these rows."""
    method, s = build(reduction="sum").eval(), batch().source
    for m in SPEC.captions:
        s = without(s, m, [0, 1, 2, 3, 4])
    whole = part(s, torch.tensor([5, 6, 7]))
    L_R = method.net.loss(method.net.encode(s), s, "sum")["L_R"]
    assert L_R > 0
    assert torch.allclose(L_R, method.net.loss(method.net.encode(whole), whole, "sum")["L_R"])


def test_the_printed_preset_differs_in_the_sum_only():
    assert acp.PRINTED == acp.Params(reduction="sum") != acp.Params()
    with pytest.raises(ValueError, match="no method.reduction 'one_log'; choose from mean, sum"):
        build(reduction="one_log")


@pytest.mark.parametrize(
    ("params", "terms", "learnt"),
    [
        ({}, ["L_s", "L_t", "L_MI"], {"P_s", "P_t", "W_mi"}),
        ({"lambda_mi": 0.0}, ["L_s", "L_t"], {"P_s", "P_t"}),
        ({"lambda_t": 0.0, "lambda_mi": 0.0}, ["L_s"], {"P_s"}),
        ({"lambda_s": 0.0, "lambda_mi": 0.0}, ["L_t"], {"P_t"}),
        ({"lambda_s": 0.0, "lambda_t": 0.0}, ["L_MI"], {"P_s", "P_t", "W_mi"}),
        ({"lambda_s": 0.0, "lambda_t": 0.0, "lambda_mi": 0.0}, [], set()),
    ],
)
def test_a_lambda_of_0_leaves_out_the_term_and_what_it_trains(params, terms, learnt):
    method = begun(**params)
    found = method(batch(), 0.5)
    assert list(found) == ["L_R", *terms]
    assert {name for name, _ in method.named_parameters() if not name.startswith("net.")} == learnt
    sum(found.values()).backward()
    assert [name for name, p in method.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_as_printed_the_terms_are_nearly_inert():
    """KL far below a nat and L_MI at 2 ln 2 per domain, with the published numbers of keels."""
    torch.manual_seed(0)
    net = gated.NET(gated.Params(dim=64), SPEC)
    method = acp.Acp(acp.Params(lambda_s=0, lambda_t=0), SPEC, net)
    assert method(batch(), 0.5)["L_MI"].item() == pytest.approx(4 * math.log(2), abs=1e-3)
    ours = acp.Acp(acp.Params(lambda_s=0, lambda_t=0, temperature=0.1, scaled=True), SPEC, net)
    assert abs(ours(batch(), 0.5)["L_MI"].item() - 4 * math.log(2)) > 1e-3


@pytest.mark.parametrize(("tau", "least", "most"), [(1.0, 0, 0.05), (0.1, 1, 4)])
def test_the_divergences_are_far_below_a_nat_as_printed_and_about_two_with_a_temperature(tau, least, most):
    """With 512 and 1024 keels at random, where cosines have the spread 1/√64; L_s is the sum of two of them."""
    torch.manual_seed(0)
    shapes, rows = {"object": (64,), "sentence": (64,)}, {"source": 512, "target": 1024, "captions": 512}
    spec = replace(SPEC, shapes=shapes, windows=dict.fromkeys(shapes, 1), rows=rows, captions=("sentence",))
    method = acp.Acp(acp.Params(lambda_mi=0, temperature=tau), spec, gated.NET(gated.Params(dim=64), spec))
    for keels in (method.text_keels, method.visual_keels):
        keels.centroids.normal_()
    x, there = {m: torch.randn(32, 1, 64) for m in shapes}, torch.ones(32, 1, dtype=torch.bool)
    s = Side(x, dict.fromkeys(x, there), {}, torch.zeros(32, dtype=torch.int64), torch.arange(32))
    terms = method(Batch(s, part(s, slice(None), ["object"])), 0.5)
    for each in (terms["L_s"] / 2, terms["L_t"]):
        assert least < each.item() < most


def test_missing_rows_count_for_nothing():
    """Rows without a caption, a clip, or both; a batch of one, which has no negative pair."""
    method, b = begun(), batch()
    s, t = b.source, b.target
    for m in SPEC.captions:
        s = without(s, m, [1])
    for m in EXPERTS:
        s, t = without(s, m, [2]), without(t, m, [3, 4])
    for case in (Batch(s, t), batch(rows=1)):
        method.zero_grad()
        terms = method(case, 0.5)
        sum(terms.values()).backward()
        assert torch.stack(list(terms.values())).isfinite().all()
        assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
    method.eval()
    rows = torch.tensor([0, 1, 2, 5, 6, 7])
    assert torch.allclose(method(Batch(s, t), 0)["L_t"], method(Batch(s, part(t, rows)), 0)["L_t"])


def test_two_rows_of_one_clip_are_no_negative_pair():
    method, b = begun(lambda_s=0.0, lambda_t=0.0).eval(), batch(rows=2)
    b.target.index[:] = 7
    same = method.information(b.target, method.net.encode(b.target)["visual"], torch.ones(2, dtype=torch.bool))
    v = method.net.encode(b.target)["visual"]
    assert torch.allclose(same, torch.nn.functional.softplus(-method.D(v, v)).mean())


# -------------------------------------------------------------------------------------------------------------- keels


def test_keels_are_found_once_and_stay_in_the_checkpoint():
    method = begun()
    kept = {name: value.clone() for name, value in method.state_dict().items() if "keels" in name}
    assert {name: tuple(v.shape) for name, v in kept.items()} == {
        "text_keels.centroids": (5, 4),
        "text_keels.rows_sha256": (32,),
        "visual_keels.centroids": (4, 6 + 5 + 4),
        "visual_keels.rows_sha256": (32,),
    }
    assert all(value.any() for value in kept.values())
    method.begin_epoch(1, lambda name: pytest.fail(f"swept {name}"))
    other = build(seed=1)
    other.load_state_dict(method.state_dict())
    for name, value in kept.items():
        assert torch.equal(other.state_dict()[name], value)


def test_keels_depend_on_the_rows_alone():
    first, other = begun(), begun(seed=9)
    assert torch.equal(first.text_keels.centroids, other.text_keels.centroids)
    assert torch.equal(first.visual_keels.centroids, other.visual_keels.centroids)
    other.eval().begin_epoch(0, sweep(t_rows=17))
    assert torch.equal(first.text_keels.rows_sha256, other.text_keels.rows_sha256)
    assert not torch.equal(first.visual_keels.rows_sha256, other.visual_keels.rows_sha256)


def test_no_descriptor_drowns_the_others_and_a_missing_one_is_0():
    s = without(clips(), "action", [2])
    v = visual_vector(SPEC, s)
    assert torch.allclose(v[0].square().sum(), torch.tensor(3.0))
    assert v[2].square().sum().item() == pytest.approx(2)
    s.x["object"] *= 100
    assert torch.allclose(visual_vector(SPEC, s), v)
    with pytest.raises(ValueError, match="visual keels .* lacks scene"):
        visual_vector(SPEC, part(s, slice(None), ["object", "action"]))


def keels(rows, k, shared):
    found = Keels("K", k, rows.shape[1], 0.1)
    found.find(rows, shared)
    return found.centroids, found.rows_sha256


def test_rows_without_the_modality_make_no_keels():
    rows = torch.randn(9, 3)
    found, of = keels(torch.cat([rows, torch.zeros(4, 3)]), 2, compute_now)
    again, of_rows = keels(rows, 2, compute_now)
    assert torch.equal(found, again)
    assert torch.equal(of, of_rows)


def test_rows_that_lack_everything_may_leave_too_few():
    rows = torch.cat([torch.randn(9, 3), torch.zeros(4, 3)])
    with pytest.raises(ValueError, match=r"method.K=10 keels .* 9 of 13 rows .* choose 1 to 9"):
        keels(rows, 10, compute_now)


def test_runs_that_start_together_find_keels_once(tmp_path):
    rows, calls = torch.randn(12, 3), []

    def run(_):
        def slow(compute):
            calls.append(time.sleep(0.05))
            return compute()

        return keels(rows, 3, lambda name, compute: Shared(tmp_path)(name, lambda: slow(compute)))[0]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, range(4)))
    assert len(calls) == 1
    assert all(torch.equal(each, found[0]) for each in found)


def test_runs_share_keels_and_a_damaged_file_is_made_anew(tmp_path):
    rows, calls = torch.randn(12, 3), []

    def shared(name, compute):
        return Shared(tmp_path / "shared")(name, lambda: calls.append(name) or compute())

    first, _ = keels(rows, 3, shared)
    assert torch.equal(keels(rows, 3, shared)[0], first)
    assert len(calls) == 1
    (file,) = (tmp_path / "shared").glob("*.pt")
    whole = file.read_bytes()
    for damaged in (b"", whole[:DIGEST], whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(damaged)
        assert torch.equal(keels(rows, 3, shared)[0], first)
        assert file.read_bytes() == whole
    assert len(calls) == 5
    keels(rows, 4, shared)
    keels(rows + 1, 3, shared)
    assert len(set(calls)) == 3
    assert len(list((tmp_path / "shared").glob("*.pt"))) == 3


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"N": 49}, "method.N=49 keels .* 48 captions of the source; choose at most 48"),
        ({"K": 19}, "method.K=19 keels .* 18 clips of the target; choose at most 18"),
        ({"keel_text": "word"}, "no caption modality 'word' for method.keel_text; choose from words, sentence"),
    ],
)
def test_wrong_parameters_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        build(**params)


@pytest.mark.filterwarnings("default:method.:UserWarning")
def test_few_rows_per_keel_are_warned_of():
    with pytest.warns(UserWarning, match="method.K=2 keels of 18 clips of the target: .*one or two"):
        build(N=4, K=2)


def test_the_first_captions_are_the_keels_unless_named():
    assert build(keel_text="").keel_text == "words"


def test_a_target_shows_no_captions_to_any_term():
    """Terms do not change where a target had captions after all."""
    method, b = begun().eval(), batch()
    told = pairs(8, seed=1)
    told = Batch(b.source, type(told)({**told.x, **b.target.x}, told.present, {}, b.target.domain, b.target.index))
    for name, term in method(told, 0.5).items():
        assert torch.equal(term, method(b, 0.5)[name])
