"""CoDT: its losses against loops, its memory, teachers and clusters, and the contract in every row of its table."""

import dataclasses
import inspect
import math

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from heads.augment import crop, mask_parts, shear
from heads.batch import Batch
from heads.losses.pairs import pair_consistency, same_largest
from heads.losses.transport import cluster_scales, transport_plan
from heads.methods.codt import CODE, Codt, Params
from heads.nets import adapter
from heads.nets.stgcn import pooled
from heads.noise import Dropout
from heads.testing.problems import SPEC as OTHERS
from tests.helpers.skeleton_problems import ONE, ROWS, TWO, batch, net, side, sweep

torch.set_num_threads(1)
BASE = {"lambda_cls": 0.0, "lambda_cot": 0.0}
STAGE_1 = BASE | {"strong": False}
WHOLE = {"lambda_sup": 1.0, "lambda_dec": 1.0, "lambda_cont": 1.0, "lambda_cls": 1.0, "lambda_cot": 1.0}
NONE = dict.fromkeys(WHOLE, 0.0)
ROWS_OF_THE_TABLE = {
    "first stage": STAGE_1,
    "BM": BASE,
    "+OCM": {"lambda_cot": 0.0},
    "+OCM+CCM": {},
    "CCM-FP": {"variant": "fp"},
    "CCM-PF": {"variant": "pf"},
    "CCM-PF without OCM": {"variant": "pf", "lambda_cls": 0.0},
    "code": {"mask": CODE.mask, "strong": False, "kmeans": False, "teacher_dropout": True},
}
SINGLE = {f"{name} alone": NONE | {name: 1.0} for name in WHOLE}
CASES = {name: (given, TWO) for name, given in (ROWS_OF_THE_TABLE | SINGLE).items()} | {"one layout": ({}, ONE)}


def build(spec=TWO, seed=0, **params):
    made = net(spec, seed)
    return Codt(Params(**{"projection_dim": 5, **params}), spec, made)


@torch.no_grad()
def begin(method, spec=TWO):
    """Epoch 0, after BN has seen a batch: without, features of such small weights are next to 0."""
    norms = [m for m in method.net.modules() if isinstance(m, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]
    for momentum in (1.0, 0.1):
        for norm in norms:
            norm.momentum = momentum
        method.train().net.encode(side(spec, "target"))
    method.eval()
    method.begin_epoch(0, sweep(spec))
    return method.train()


def train(method, spec=TWO, steps=2, lr=0.05):
    """The terms of a few steps."""
    begin(method, spec)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=lr)
    log = []
    for step in range(steps):
        for _, terms in method.rounds(batch(spec, seed=10 * step), step / steps):
            method.zero_grad()
            sum(terms.values()).backward()
            optimizer.step()
        log.append({name: term.item() for name, term in terms.items()})
    return log


# ------------------------------------------------------------------------------------------------------- every row


@pytest.mark.parametrize(("given", "spec"), CASES.values(), ids=CASES)
def test_terms_are_finite_and_every_parameter_gets_a_gradient(given, spec):
    method = build(spec, **given).train()
    terms = method(batch(spec), 0.5)
    assert torch.stack(list(terms.values())).isfinite().all()
    named = {"sup": "L_sup", "dec": "L_dec", "cont": "L_cont", "cls": "L_cls", "cot": "L_cot"}
    assert terms.keys() == {name for short, name in named.items() if getattr(method.params, f"lambda_{short}")}
    sum(terms.values()).backward()
    trainable = {name: p for name, p in method.named_parameters() if p.requires_grad}
    assert [name for name, p in trainable.items() if p.grad is None or p.grad.abs().max() == 0] == []
    assert {id(p) for p in method.players()["all"]} == {id(p) for p in trainable.values()}
    assert not any(name.startswith("teacher.") for name in trainable)


@pytest.mark.parametrize("given", [STAGE_1, {}], ids=["first stage", "second"])
def test_state_round_trip_and_what_is_predicted(given):
    method, other = build(**given), build(seed=5, **given)
    train(method)
    other.load_state_dict(method.state_dict())
    s = side(TWO, "target")
    said, again = method.eval().predict(s), other.eval().predict(s)
    clusters = {"cluster_B0": (6, 4), "cluster_B1": (6, 4)} if method.clusters else {}
    assert {name: tuple(out.shape) for name, out in said.items()} == {
        "feature_B0": (6, 6),
        "feature_B1": (6, 6),
        **clusters,
    }
    assert all(torch.equal(out, again[name]) for name, out in said.items())


def test_rows_that_a_sweep_can_fill_are_not_saved():
    assert not [name for name in build().state_dict() if ":" in name]


def test_a_batch_of_one():
    method = begin(build())
    for _, terms in method.rounds(batch(TWO, rows=1), 0.5):
        sum(terms.values()).backward()
        assert torch.stack(list(terms.values())).isfinite().all()


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="no method.variant 'cfp'; choose from ccm, fp, pf"):
        build(variant="cfp")
    with pytest.raises(ValueError, match="nothing is learnt"):
        build(**NONE)
    for K in (0, 1, 11):
        with pytest.raises(ValueError, match=f"10 target rows into {K} clusters"):
            build(dataclasses.replace(TWO, clusters=K))
    assert build(dataclasses.replace(TWO, clusters=0), **STAGE_1).remembered == ["B1"]
    with pytest.raises(ValueError, match="codt .*use net stgcn"):
        Codt(Params(), dataclasses.replace(OTHERS, clusters=2), adapter.Adapter(adapter.Params(dim=4), OTHERS))


# ------------------------------------------------------------------------------------------------------------- losses


def naive_pairs(s, same):
    """The loss as it is written, with loops."""
    B, total = len(s), 0.0
    for i in range(B):
        row = [min(max(value, 1e-8), 1 - 1e-8) for value in s[i]]
        logs = [math.log(value / sum(row)) for value in row]
        friends = [j for j in range(B) if same[i][j]]
        total -= sum(logs[j] for j in friends) / len(friends)
    return total / B


@pytest.mark.parametrize("seed", range(3))
def test_pairs_equal_the_loops(seed):
    generator = torch.Generator().manual_seed(seed)
    p = (3 * torch.randn(7, 4, generator=generator, dtype=torch.float64)).softmax(1)
    y = torch.randint(3, (7,), generator=generator)
    same = y[:, None] == y
    assert pair_consistency(p @ p.T, same).item() == pytest.approx(naive_pairs((p @ p.T).tolist(), same.tolist()))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_certain_predictions_that_agree_with_the_labels_have_the_least_loss(groups):
    """One-hot rows of equal groups: s' is 1 / (rows of a group), and nothing is lower."""
    y = torch.arange(8) % groups
    p, same = torch.eye(4)[y], y[:, None] == y
    least = pair_consistency(p @ p.T, same).item()
    assert least == pytest.approx(math.log(8 / groups), abs=1e-5)
    other = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    assert pair_consistency(other @ other.T, same) > least
    if groups > 1:
        assert pair_consistency(p @ p.T, ~same | torch.eye(8, dtype=torch.bool)) > least  # certain, and wrong


def test_gradients_of_pairs():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 1, 0, 2, 1])
    assert torch.autograd.gradcheck(lambda z: pair_consistency(z.softmax(1) @ z.softmax(1).T, y[:, None] == y), (z,))


def test_same_largest_equals_the_sets():
    f = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    sets = [set(row.argsort(descending=True)[:2].tolist()) for row in f]
    assert same_largest(f, 2).tolist() == [[a == b for b in sets] for a in sets]
    assert same_largest(f, 5).all()


def terms_of(method, b, seed=3):
    """The terms, with the draws of this seed."""
    torch.manual_seed(seed)
    return method(b, 0.5)


@torch.no_grad()
def students_views(method, b, strength, mask, seed=3):
    """What the students see of source (B0) and target (B0, B1), drawn again: maps and joints."""
    torch.manual_seed(seed)
    found = []
    for branch, s in (("B0", b.source), ("B0", b.target), ("B1", b.target)):
        joints = crop(shear(s.pool(method.net.feeds[branch]), strength[0]), strength[1])
        found.append((method.net.maps(branch, mask_parts(joints, mask)), joints))
    return found


@pytest.mark.parametrize("variant", ["ccm", "fp", "pf"])
def test_terms_equal_their_equations(variant):
    method, b = begin(build(variant=variant)).eval(), batch(TWO)  # no dropout, BN by its averages
    p, index = method.params, b.target.index
    (maps_s, x_s), (maps_0, x_0), (maps_1, _) = students_views(method, b, (1.0, 3), 0.3)
    terms = terms_of(method, b)

    L_sup = cross_entropy(method.net.classifier(pooled(maps_s)), b.source.y["label"])
    assert torch.allclose(terms["L_sup"], p.lambda_sup * L_sup)

    L_dec = 0.0
    for maps, joints in ((maps_s, x_s), (maps_0, x_0)):  # 8 frames, 2 steps: a mean of 4 frames each
        for step in (0, 1):
            wanted = joints[:, :, 4 * step : 4 * step + 4].mean(2).permute(0, 3, 1, 2).flatten(2)  # (B, M, 3 V)
            L_dec += (method.decoder(maps[..., step]) - wanted).square().mean() / 2
    assert torch.allclose(terms["L_dec"], p.lambda_dec * L_dec, rtol=1e-4)

    f_0, f_1 = pooled(maps_0), pooled(maps_1)
    q, k = method.projection(f_1), method.teacher["projection"](method.get_buffer("memory:B1"))
    L_cont = 0.0
    for i, row in enumerate(index):
        phi = [math.exp(cosine_similarity(q[i], k[j], 0).item() / p.rho) for j in range(ROWS["target"])]
        L_cont -= math.log(phi[row] / sum(phi)) / len(index)
    assert terms["L_cont"].item() == pytest.approx(p.lambda_cont * L_cont, rel=1e-4)

    z = [method.target["B0"](f_0), method.target["B1"](f_1)]
    y = [method.get_buffer(f"labels:{branch}")[index] for branch in ("B0", "B1")]
    assert torch.allclose(terms["L_cls"], p.lambda_cls * (cross_entropy(z[0], y[0]) + cross_entropy(z[1], y[1])))

    s = [normalize(f) if variant == "pf" else z_b.softmax(1) for f, z_b in zip((f_0, f_1), z, strict=True)]
    G = [[[bool(a == b_) for b_ in y_b] for a in y_b] for y_b in y]
    if variant == "fp":
        tops = [method.get_buffer(f"memory:{branch}")[index].topk(5, 1).indices for branch in ("B0", "B1")]
        G = [[[set(a.tolist()) == set(b_.tolist()) for b_ in top] for a in top] for top in tops]
    L_cot = naive_pairs((s[0] @ s[0].T).tolist(), G[1]) + naive_pairs((s[1] @ s[1].T).tolist(), G[0])
    assert terms["L_cot"].item() == pytest.approx(p.lambda_cot * L_cot, rel=1e-4)


@pytest.mark.parametrize(
    ("params", "strength", "mask"),
    [
        (STAGE_1, (0.5, 6), 0.3),
        ({"strong": False, "mask": 0.1}, (0.5, 6), 0.1),
        (BASE, (1.0, 3), 0.3),
        ({}, (1.0, 3), 0.3),
    ],
    ids=["first stage", "code", "BM", "whole"],
)
def test_views_are_strong_in_all_rows_of_the_second_stage_alone(params, strength, mask):
    method, b = begin(build(**params)).eval(), batch(TWO)
    maps_s, _ = students_views(method, b, strength, mask)[0]
    wanted = cross_entropy(method.net.classifier(pooled(maps_s)), b.source.y["label"])
    assert torch.allclose(terms_of(method, b)["L_sup"], wanted)


# --------------------------------------------------------------------------------------- memory, teachers, clusters


def test_the_memory_begins_with_the_teachers_features_of_rows_as_they_are():
    method = begin(build()).eval()
    for s in sweep(TWO)("target"):
        for branch, f in method.net.encode(s).items():  # the teachers begin as the students
            assert torch.allclose(method.get_buffer(f"memory:{branch}")[s.index], f, atol=1e-6)


def test_a_step_changes_the_memory_of_its_rows_and_no_others():
    method = begin(build())
    rows = torch.tensor([7, 1, 4, 1])
    t = dataclasses.replace(side(TWO, "target", 4), index=rows)
    before = {branch: method.get_buffer(f"memory:{branch}").clone() for branch in ("B0", "B1")}
    method.remember(t)
    for branch, old in before.items():
        changed = (method.get_buffer(f"memory:{branch}") != old).any(1)
        assert changed.nonzero().squeeze(1).tolist() == [1, 4, 7]
        assert not method.get_buffer(f"memory:{branch}").requires_grad


@torch.no_grad()
def test_the_memory_takes_the_teachers_features_of_weak_views():
    method = begin(build()).eval()
    t = side(TWO, "target", 4)
    torch.manual_seed(3)
    method.remember(t)
    torch.manual_seed(3)
    for branch in ("B0", "B1"):
        x = crop(shear(t.pool(method.net.feeds[branch]), 0.5), 6)
        mask_parts(x, 0.0)  # draws, and masks nothing
        found = method.get_buffer(f"memory:{branch}")[t.index]
        assert torch.allclose(found, pooled(method.teacher[branch](x)), atol=1e-6)


def test_each_step_labels_all_rows_anew_from_where_sinkhorn_ended():
    method = begin(build())
    before = {}
    for branch in ("B0", "B1"):
        method.get_buffer(f"labels:{branch}").fill_(-1)
        before[branch] = method.get_buffer(f"scales:{branch}").normal_().clone()
    method.remember(side(TWO, "target", 4))
    for branch, start in before.items():
        log_p = method.teacher[f"target_{branch}"](method.get_buffer(f"memory:{branch}")).log_softmax(1)
        scales = cluster_scales(log_p, 10.0, start)
        assert torch.equal(method.get_buffer(f"scales:{branch}"), scales)
        assert not torch.equal(scales, cluster_scales(log_p, 10.0))
        assert torch.equal(method.get_buffer(f"labels:{branch}"), transport_plan(log_p, 10.0, scales).argmax(1))


def test_the_memory_has_the_batch_when_losses_are_computed_and_teachers_follow_the_update():
    method, b = begin(build(alpha=0.9)), batch(TWO)
    before = method.get_buffer("memory:B1").clone()
    old = {name: p.clone() for name, p in method.teacher.named_parameters()}
    for _, terms in method.rounds(b, 0.5):
        assert not torch.equal(method.get_buffer("memory:B1"), before)
        sum(terms.values()).backward()
        with torch.no_grad():
            for p in method.players()["all"]:
                p -= 0.1 * p.grad
        assert all(torch.equal(p, old[name]) for name, p in method.teacher.named_parameters())
    students = torch.nn.ModuleDict(method.students())
    for name, student in students.named_parameters():
        now = method.teacher.get_parameter(name)
        assert torch.allclose(now, 0.9 * old[name] + 0.1 * student, atol=1e-7)
        assert not torch.equal(now, old[name])


def test_teachers_begin_as_copies_take_the_batchs_statistics_and_drop_as_in_the_code_only():
    for given, p in (({}, 0.0), ({"teacher_dropout": True}, 0.5)):
        method = build(**given)
        with torch.no_grad():
            for weight in method.net.parameters():
                weight.add_(1)  # as init_from would
        begin(method)
        for name, student in method.students().items():
            if not name.startswith("target"):
                mine = method.teacher[name].state_dict()
                assert all(torch.equal(mine[key], value) for key, value in student.state_dict().items())
        modules = list(method.teacher.modules())
        assert all(m.training for m in modules if isinstance(m, torch.nn.BatchNorm2d))
        assert {m.p for m in modules if isinstance(m, Dropout)} == {0.0, p}  # the first block's is 0


def test_clusters_begin_as_centroids_of_length_1_and_pseudo_labels_are_those_of_the_balanced_plan():
    method = begin(build(dataclasses.replace(TWO, clusters=3)))
    for branch in ("B0", "B1"):
        weight, bias = method.target[branch].parameters()
        assert torch.allclose(weight.norm(dim=1), torch.ones(3), atol=1e-5)
        assert not bias.any()
        assert torch.equal(method.teacher[f"target_{branch}"].weight, weight)
        log_p = (method.get_buffer(f"memory:{branch}") @ weight.T).log_softmax(1)
        S = transport_plan(log_p, 10.0, cluster_scales(log_p, 10.0, iterations=1000))
        assert (S.sum(0) - 1 / 3).abs().max() < 1e-3
        assert torch.equal(method.get_buffer(f"labels:{branch}"), S.argmax(1))


def test_first_weights_of_the_heads_are_small_and_normal():
    method = build(dataclasses.replace(TWO, clusters=4), projection_dim=200)
    heads = [method.projection, method.decoder[0], method.decoder[3], *method.target.values()]
    assert all(not head.bias.any() for head in heads)
    assert torch.cat([head.weight.flatten() for head in heads]).std().item() == pytest.approx(0.02, rel=0.1)
    assert all(head.weight.abs().max() < 0.1 for head in heads)


def test_students_are_what_is_tested():
    method = build()
    train(method)
    s, teacher = side(TWO, "target"), method.eval().teacher
    with torch.no_grad():
        said = method.predict(s)
        for branch, m in method.net.feeds.items():
            f = pooled(method.net.maps(branch, s.pool(m)))
            assert torch.equal(said[f"feature_{branch}"], f)
            assert torch.equal(said[f"cluster_{branch}"], method.target[branch](f))
            assert not torch.allclose(teacher[branch](s.pool(m)).mean((1, 3)), f)
            assert not torch.equal(teacher[f"target_{branch}"](f), method.target[branch](f))


def test_batch_norm_of_the_source_does_not_see_the_target():
    method = build(**NONE | {"lambda_sup": 1.0, "lambda_dec": 1.0}).train()
    for module in method.modules():
        if isinstance(module, Dropout):
            module.p = 0.0
    b = batch(TWO)
    scaled = dataclasses.replace(b.target, x={m: 7 * x for m, x in b.target.x.items()})
    found = []
    for target in (b.target, scaled):
        torch.manual_seed(0)
        found.append(method(Batch(b.source, target), 0.0))
    assert found[0]["L_sup"] == found[1]["L_sup"]
    assert found[0]["L_dec"] != found[1]["L_dec"]


def test_the_decoder_drops_half_of_its_hidden_numbers_in_training_alone():
    decoder = build().decoder
    torch.nn.init.eye_(decoder[0].weight)
    f = torch.ones(500, len(decoder[0].weight))
    kept = decoder.train()[:-1](f)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert kept.mean().item() == pytest.approx(1, abs=0.1)
    assert torch.equal(decoder.eval()[:-1](f), f)


def test_without_k_means_classifiers_stay_as_drawn():
    method = build(kmeans=False)
    drawn = method.target["B0"].weight.clone()
    begin(method)
    assert torch.equal(method.target["B0"].weight, drawn)
    assert torch.equal(method.teacher["target_B0"].weight, drawn)


def test_later_epochs_leave_everything_as_it_is():
    method = begin(build())
    state = {name: value.clone() for name, value in [*method.named_parameters(), *method.named_buffers()]}
    assert method.begin_epoch(1, lambda name: pytest.fail(f"swept {name}")) is None
    assert all(torch.equal(value, state[name]) for name, value in [*method.named_parameters(), *method.named_buffers()])


def test_the_code_differs_from_the_supplement_where_parameters_say_so():
    differ = {f.name for f in dataclasses.fields(Params) if getattr(CODE, f.name) != getattr(Params(), f.name)}
    assert differ == {"mask", "strong", "kmeans", "teacher_dropout"}
    lines = inspect.getsource(Params).splitlines()
    assert {
        line.split(":")[0].strip() for line in lines if "code:" in line.partition("#:")[2].partition("[")[0]
    } == differ
