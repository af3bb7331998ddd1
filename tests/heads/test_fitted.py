"""Logistic regression and the nearest class mean: their features, the fit, and what standardising is good for."""

import dataclasses

import pytest
import torch
from torch.nn.functional import cross_entropy

from heads.methods import label_propagation, logistic_regression, nearest_mean, source_only
from heads.methods.logistic_regression import logistic_regression as fit_logistic
from heads.nets import adapter
from heads.testing.problems import EK, SPEC, side, without
from heads.units import moments
from tests.helpers import rotated as _rotated

BOTH = pytest.mark.parametrize("module", [logistic_regression, nearest_mean], ids=["logistic", "mean"])
EVERY = pytest.mark.parametrize(
    "module", [logistic_regression, nearest_mean, label_propagation], ids=["logistic", "mean", "propagation"]
)


def build(module, spec=SPEC, seed=0, **params):
    torch.manual_seed(seed)
    return module.METHOD(module.Params(**params), spec, adapter.NET(adapter.Params(dim=8), spec)).eval()


def fitted(module, source, target=None, spec=SPEC, **params):
    """The method after begin_epoch(0)."""
    rows = {name: len(s.index) for name, s in (("source", source), ("target", target)) if s is not None}
    method = build(module, dataclasses.replace(spec, rows=rows), **params)
    with torch.no_grad():
        method.begin_epoch(0, lambda name: iter([{"source": source, "target": target}[name]]))
    return method


def sides(spec=SPEC):
    return side(spec, 24, labelled=True), side(spec, 18, labelled=False, seed=1, domain=len(spec.domains) - 1)


def vectors(s, spec=SPEC):
    """Pooled features of all modalities, one after another."""
    return torch.cat([s.pool(m).flatten(1) for m in spec.shapes], 1)


# ----------------------------------------------------------------------------------------------------------- features


def test_moments_equal_the_naive_loops():
    g = torch.Generator().manual_seed(0)
    v, there = 3 + torch.randn(9, 4, generator=g), torch.rand(9, 4, generator=g) > 0.4
    v = v * there
    there[:, 3], v[:, 3] = False, 0
    mean, std, rows = moments(v, there)
    for d in range(3):
        mine = [v[i, d].item() for i in range(9) if there[i, d]]
        mu = sum(mine) / len(mine)
        assert mean[d].item() == pytest.approx(mu, rel=1e-5)
        assert std[d].item() == pytest.approx((sum((x - mu) ** 2 for x in mine) / len(mine)) ** 0.5, rel=1e-5)
        assert rows[d] == len(mine)
    assert (mean[3], std[3], rows[3]) == (0, 1, 0)


def test_a_constant_entry_is_not_divided():
    v = torch.full((50, 2), 0.1)  # its computed deviation is a rounding error
    v[:, 1] = torch.arange(50.0)
    assert moments(v, torch.ones_like(v, dtype=torch.bool))[1].tolist() == pytest.approx([1, (2499 / 12) ** 0.5])


@EVERY
def test_domains_are_standardised_by_themselves_or_by_the_source(module):
    source, target = sides()
    target = dataclasses.replace(target, x={m: 5 + 2 * x for m, x in target.x.items()})
    D = 11
    for how in ("none", "source", "domain"):
        method = fitted(module, source, target, standardise=how)
        x = {name: method.rows(method.look(s)).x for name, s in (("source", source), ("target", target))}
        if how == "none":
            assert torch.equal(x["target"], vectors(target))
            continue
        assert torch.allclose(x["source"].mean(0), torch.zeros(D), atol=1e-5)
        assert torch.allclose(x["source"].square().mean(0), torch.ones(D))
        assert torch.allclose(x["target"].mean(0), torch.zeros(D), atol=1e-5) == (how == "domain")
        other = dataclasses.replace(source, domain=torch.full((24,), -1))
        assert torch.equal(method.rows(method.look(other)).x, x["source"])  # a domain that training never named


@EVERY
@pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
def test_rows_do_not_depend_on_their_batch(module, spec):
    source, target = sides(spec)
    method = fitted(module, source, target, spec, standardise="domain")
    together = method.predict(target)
    for row in (0, 7):
        alone = method.predict(_rotated.take(target, slice(row, row + 1)))
        for label, z in together.items():
            assert torch.allclose(alone[label][0], z[row], atol=1e-5)


@EVERY
def test_a_modality_that_is_missing_is_no_evidence(module):
    source, target = sides()
    source, target = without(source, "flow", [0, 5]), without(target, "flow", [2])
    method = fitted(module, source, target, standardise="domain")
    seen = method.rows(method.look(target))
    assert (seen.x[2, 6:] == 0).all()
    assert seen.present[2].tolist() == [True] * 6 + [False] * 5
    lacking = dataclasses.replace(target, x={"rgb": target.x["rgb"]}, present={"rgb": target.present["rgb"]})
    assert torch.allclose(method.predict(lacking)["label"][2], method.predict(target)["label"][2], atol=1e-6)


@EVERY
def test_encoded_features_are_those_of_the_net_and_follow_it(module):
    source, target = sides()
    method = fitted(module, source, target, features="encoded", standardise="none")
    f = method.net.encode(target)
    assert torch.equal(method.look(target)["v"], torch.cat([f["rgb"], f["flow"]], 1))
    sweep = lambda name: iter([{"source": source, "target": target}[name]])  # noqa: E731
    pooled = fitted(module, source, target)
    for each, changes in ((method, True), (pooled, False)):
        before = each.predict(target)["label"].clone()
        with torch.no_grad():
            for weight in each.net.F.parameters():
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
            each.begin_epoch(1, sweep)
        assert torch.equal(each.predict(target)["label"], before) != changes


@EVERY
def test_training_the_net_is_source_only_and_changes_no_prediction(module):
    source, target, _ = _rotated.problem()
    trained, untrained = (
        _rotated.train(_rotated.build(module), source, target, steps=steps, epoch=1) for steps in (1, 3)
    )
    assert not torch.equal(trained.net.F["rgb"].weight, untrained.net.F["rgb"].weight)
    assert torch.equal(trained.predict(target)["label"], untrained.predict(target)["label"])


@EVERY
@pytest.mark.parametrize("name", ["features", "standardise"])
def test_unknown_choices_are_named(module, name):
    with pytest.raises(ValueError, match=rf"no method.{name} 'al'; choose from"):
        build(module, **{name: "al"})


# ------------------------------------------------------------------------------------------------ logistic regression


def problem(rows=80, D=5, K=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(rows) % K
    return torch.randn(K, D, generator=g)[y] + 0.8 * torch.randn(rows, D, generator=g), y


def test_the_gradient_is_zero_at_the_solution():
    x, y = problem()
    W, b = fit_logistic(x, y, 4, 0.5)
    p = (x @ W.T + b).softmax(1)
    wrong = p - torch.eye(4)[y]
    assert torch.allclose(wrong.T @ x + W / 0.5, torch.zeros(4, 5), atol=5e-3)  # of the sum over 80 rows
    assert torch.allclose(wrong.sum(0), torch.zeros(4), atol=5e-3)


@pytest.mark.parametrize("C", [0.1, 10.0])
def test_it_is_the_one_of_scikit_learn(C):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = problem()
    W, b = fit_logistic(x, y, 4, C)
    theirs = linear_model.LogisticRegression(C=C, tol=1e-8, max_iter=10_000).fit(x.double().numpy(), y.numpy())
    assert torch.allclose(W, torch.tensor(theirs.coef_, dtype=torch.float32), atol=1e-3)
    assert torch.allclose(b - b.mean(), torch.tensor(theirs.intercept_, dtype=torch.float32), atol=1e-3)


@pytest.mark.parametrize("D", [16, 800])
def test_C_is_that_of_scikit_learn_after_its_scaler_for_features_of_any_size(D):
    linear_model = pytest.importorskip("sklearn.linear_model")
    scaler = pytest.importorskip("sklearn.preprocessing").StandardScaler()
    x, y = problem(rows=120, D=D)
    x = 5 + x * torch.arange(1, D + 1)
    spec = dataclasses.replace(_rotated.SPEC, shapes={"rgb": (D,)}, classes={"label": 4}, rows={"source": 80})
    source, target = _rotated.side(x[:80], y[:80]), _rotated.side(x[80:], domain=1)
    for C in (logistic_regression.Params().C, 1.0):
        z = fitted(logistic_regression, source, spec=spec, C=C).predict(target)["label"]
        theirs = linear_model.LogisticRegression(C=C, tol=1e-6, max_iter=1000)
        theirs.fit(scaler.fit_transform(x[:80].double().numpy()), y[:80].numpy())
        expected = torch.tensor(theirs.decision_function(scaler.transform(x[80:].double().numpy())))
        assert torch.allclose((z - z.mean(1, keepdim=True)).double(), expected, atol=0.02)


def test_the_default_does_not_underfit_long_features():
    """Few entries separate the classes, and strong components that all entries share hide them: W must be long."""
    g = torch.Generator().manual_seed(0)
    D, K, rows = 800, 10, 500
    shared, centre = torch.randn(5, D, generator=g), 0.8 * torch.randn(K, D, generator=g) * (torch.arange(D) < D // 8)
    y = torch.arange(2 * rows) % K
    x = torch.randn(2 * rows, 5, generator=g) @ shared + centre[y] + 2 * torch.randn(2 * rows, D, generator=g)
    spec = dataclasses.replace(_rotated.SPEC, shapes={"rgb": (D,)}, classes={"label": K}, rows={"source": rows})
    source, target = _rotated.side(x[:rows], y[:rows]), _rotated.side(x[rows:], domain=1)
    default, weak, strong = (
        _rotated.accuracy(fitted(logistic_regression, source, spec=spec, **C), target, y[rows:])
        for C in ({}, {"C": 1.0}, {"C": 1 / D})
    )
    assert default > weak - 0.05
    assert default > strong + 0.1


def test_two_symmetric_rows_by_hand():
    # z = ±w for x = ±1 with W = (w, -w): 2 log(1 + e^-2w) + 2 w² / (2C) is least where w (1 + e^2w) = 2C.
    W, b = fit_logistic(torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1]), 2, 1.0)
    w = W[0].item()
    assert w * (1 + torch.tensor(2 * w).exp().item()) == pytest.approx(2.0, rel=1e-3)
    assert W[1].item() == pytest.approx(-w, abs=1e-4)
    assert b.tolist() == pytest.approx([0, 0], abs=1e-5)


def test_a_strong_penalty_leaves_the_frequencies():
    x, y = problem()
    keep = (y != 3) & ~((y == 0) & (torch.arange(80) > 40))
    W, b = fit_logistic(x[keep], y[keep], 4, 1e-6)
    shares = torch.bincount(y[keep], minlength=4) / keep.sum()
    assert W.abs().max() < 1e-3
    assert b.softmax(0).tolist() == pytest.approx(shares.tolist(), abs=1e-3)  # an absent class has none


@pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
def test_scores_are_those_of_the_fit(spec):
    source, target = sides(spec)
    method = fitted(logistic_regression, source, target, spec, standardise="none", C=0.3)
    for label, z in method.predict(target).items():
        W, b = fit_logistic(vectors(source, spec), source.y[label], spec.classes[label], 0.3)
        assert torch.allclose(z, vectors(target, spec) @ W.T + b, atol=1e-4)


@pytest.mark.parametrize("q", [0.2, 0.5, 1.0])
def test_the_surest_rows_equal_the_naive_loop(q):
    p = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    expected = [-1] * 40
    for k in range(4):
        said = sorted((row for row in range(40) if p[row].argmax() == k), key=lambda row: -p[row, k].item())
        for row in said[: max(1, int(q * len(said)))]:
            expected[row] = k
    assert logistic_regression.surest(p, q).tolist() == expected


@pytest.mark.parametrize("spec", [SPEC, EK], ids=["one label", "two labels"])
def test_self_training_adds_the_surest_target_rows_and_fits_again(spec):
    source, target = sides(spec)
    method = fitted(logistic_regression, source, target, spec, standardise="none", rounds=2, q=0.4)
    x_s, x_t, C = vectors(source, spec), vectors(target, spec), logistic_regression.Params().C
    for label, z in method.predict(target).items():
        W, b = fit_logistic(x_s, source.y[label], spec.classes[label], C)
        for _ in range(2):
            y_t = logistic_regression.surest((x_t @ W.T + b).softmax(1), 0.4)
            joined = torch.cat([source.y[label], y_t[y_t >= 0]])
            W, b = fit_logistic(torch.cat([x_s, x_t[y_t >= 0]]), joined, spec.classes[label], C)
        assert torch.allclose(z, x_t @ W.T + b, atol=1e-3)


def test_self_training_needs_a_target():
    with pytest.raises(ValueError, match="method.rounds=5 .*name a target, or set rounds=0"):
        build(logistic_regression, dataclasses.replace(SPEC, rows={"source": 8}), rounds=5)


# ------------------------------------------------------------------------------------------------------- nearest mean


def test_means_and_distances_equal_the_naive_loops():
    source, target = sides()
    source, target = without(source, "flow", [0, 5, 6]), without(target, "flow", [2, 3])
    method = fitted(nearest_mean, source, target, standardise="none")
    x, y = vectors(source), source.y["label"].tolist()
    entries = [(m, d) for m in ("rgb", "flow") for d in range(6 if m == "rgb" else 5)]
    has = {m: source.has(m).tolist() for m in source.x}
    mean = []
    for k in range(4):
        mean.append([])
        for d, (m, _) in enumerate(entries):
            mine = [x[i, d].item() for i in range(24) if y[i] == k and has[m][i]]
            mean[k].append(sum(mine) / len(mine))
    within = [(x[i, d].item() - mean[y[i]][d]) ** 2 for i in range(24) for d, (m, _) in enumerate(entries) if has[m][i]]
    variance = sum(within) / len(within)
    said = method.predict(target)["label"]
    for i, row in enumerate(vectors(target).tolist()):
        for k in range(4):
            there = [d for d, (m, _) in enumerate(entries) if target.has(m)[i]]
            expected = -sum((row[d] - mean[k][d]) ** 2 for d in there) / (2 * variance)
            assert said[i, k].item() == pytest.approx(expected, rel=1e-3)


def test_absent_classes_are_never_said_and_lone_modalities_are_guessed():
    source, target = sides()
    source = _rotated.take(source, source.y["label"] != 2)
    source = without(source, "flow", source.y["label"] == 1)  # no row of class 1 has flow
    method = fitted(nearest_mean, source, target, standardise="none")
    z = method.predict(target)["label"]
    assert (z[:, 2] == -torch.inf).all()
    assert z[:, [0, 1, 3]].isfinite().all()
    flow = vectors(source)[:, 6:][source.has("flow")].mean(0)
    assert torch.allclose(method.get_buffer("mean:label")[1, 6:], flow, atol=1e-6)
    source = dataclasses.replace(source, x={m: torch.ones_like(x) for m, x in source.x.items()})
    assert (
        fitted(nearest_mean, source, target).predict(target)["label"][:, [0, 1, 3]].isfinite().all()
    )  # all rows equal


def test_the_class_does_not_depend_on_rotation_or_scale():
    source, target = sides()
    once = fitted(nearest_mean, source, standardise="none").predict(target)["label"]
    Q = {
        m: torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(D)))[0]
        for m, D in zip(SPEC.shapes, (6, 5), strict=True)
    }
    turned = [dataclasses.replace(s, x={m: 3 * x @ Q[m] for m, x in s.x.items()}) for s in (source, target)]
    assert torch.allclose(
        fitted(nearest_mean, turned[0], standardise="none").predict(turned[1])["label"], once, atol=1e-3
    )


# ----------------------------------------------------------------------------------------------------------- efficacy


@BOTH
def test_standardising_domains_undoes_a_shift_and_a_stretch(module):
    source, target, y = _rotated.problem(degrees=0)
    change = torch.tensor([[3.0, 0.2]])  # scales of the two entries
    shifted = dataclasses.replace(target, x={"rgb": target.x["rgb"] * change + torch.tensor([1.0, 5.0])})
    right = {
        how: _rotated.accuracy(fitted(module, source, shifted, _rotated.SPEC, standardise=how), shifted, y)
        for how in ("none", "source", "domain")
    }
    unshifted = fitted(module, source, target, _rotated.SPEC, standardise="domain")
    assert right["domain"] == pytest.approx(_rotated.accuracy(unshifted, target, y), abs=0.02)
    assert right["domain"] > 0.95
    assert max(right["none"], right["source"]) < right["domain"] - 0.2


@BOTH
def test_without_a_shift_it_is_as_good_as_a_trained_net(module):
    source, target, y = _rotated.problem(degrees=0)
    net = _rotated.train(_rotated.build(source_only), source, target)
    method = fitted(module, source, target, _rotated.SPEC)
    assert _rotated.accuracy(method, target, y) >= _rotated.accuracy(net, target, y) - 0.02


def test_losses_are_those_of_source_only():
    source, target = sides()
    method = fitted(logistic_regression, source, target)
    from heads.batch import Batch

    z = method.net.classify(method.net.encode(source))["label"]
    expected = cross_entropy(z, source.y["label"])
    assert torch.equal(method.losses(Batch(source, target), 0.0)["L_C"], expected)
