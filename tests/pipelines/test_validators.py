"""Validators: equations against loops, numbers by hand, invariances, limits; choosing by them, labels unseen."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch

from featcache.errors import ConfigError
from heads.methods import rna
from heads.nets import adapter
from pipelines.config import Feed, Optim, RunConfig, override
from pipelines.data.opening import open_run
from pipelines.evaluation.evaluate import evaluate, predictions
from pipelines.measures import validators
from pipelines.measures.accuracy import topk_accuracy
from pipelines.measures.validators import (
    RULES,
    VALIDATORS,
    Predictions,
    best,
    bnm,
    density_ratio,
    dev,
    infomax,
    mean_entropy,
    snd,
)
from pipelines.tables.build import build, render
from pipelines.training.outputs import features, scores
from pipelines.training.runs import Run, write_sums
from pipelines.training.train import train
from tests.helpers.result_rows import experiment, result, rows
from tests.helpers.stores import manifest, run, write_all

OF_PREDICTIONS = [mean_entropy, infomax, snd, bnm]


def predicted(n=7, k=4, seed=0, sharp=2.0):
    generator = torch.Generator().manual_seed(seed)
    return (sharp * torch.randn(n, k, generator=generator, dtype=torch.float64)).softmax(1)


def named(of):
    return pytest.mark.parametrize("of", of, ids=lambda function: function.__name__)


# ----------------------------------------------------------------------------------------------------------- equations


def test_entropy_and_information_equal_loops():
    p = predicted().tolist()
    h = [-sum(x * math.log(x) for x in row) for row in p]
    mean = [sum(row[k] for row in p) / len(p) for k in range(4)]
    assert mean_entropy(predicted()) == pytest.approx(sum(h) / len(p))
    assert infomax(predicted()) == pytest.approx(-sum(x * math.log(x) for x in mean) - sum(h) / len(p))


@pytest.mark.parametrize("block", [1, 10, 1 << 20])
def test_neighbourhood_density_equals_a_double_loop_whatever_the_block(block, monkeypatch):
    monkeypatch.setattr(validators, "BLOCK", block)
    p, total = predicted().tolist(), 0.0
    for i, a in enumerate(p):
        near = []
        for j, b in enumerate(p):
            if j != i:
                cosine = sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
                near.append(math.exp(cosine / 0.05))
        total -= sum(x / sum(near) * math.log(x / sum(near)) for x in near)
    assert snd(predicted()) == pytest.approx(total / 7, rel=1e-4)


def test_the_nuclear_norm_is_the_sum_of_singular_values():
    """Of [[a, b], [b, a]] they are a + b = 1 and a - b."""
    assert bnm(torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)) == pytest.approx((1 + 0.8) / 2)
    p = predicted()
    eigenvalues = np.linalg.eigvalsh((p.T @ p).numpy())
    assert bnm(p) == pytest.approx(np.sqrt(eigenvalues).sum() / math.sqrt(28))


def test_the_risk_equals_a_loop_and_a_number_by_hand():
    """w = 1, 3 and l = 1, 0: mean wl = 1/2, Cov(wl, w) = -1/2, Var w = 1, so eta = 1/2 and R = 1/2 + 1 - 1/2."""
    assert dev(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0])) == pytest.approx(1.0)
    w, loss = torch.rand(9, dtype=torch.float64), torch.rand(9, dtype=torch.float64)
    wl = [float(a * b) for a, b in zip(w, loss, strict=True)]
    cov = np.cov(wl, w.numpy())
    eta = -cov[0, 1] / cov[1, 1]
    assert dev(w, loss) == pytest.approx(np.mean(wl) + eta * float(w.mean()) - eta)


def test_the_risk_of_equal_weights_is_the_mean_loss():
    assert dev(torch.ones(4), torch.tensor([1.0, 0.0, 0.0, 0.0])) == 0.25


def test_the_control_variate_takes_the_noise_of_the_weights_away():
    """Of a constant loss every weighted mean is off by the mean of the weights; the controlled one is exact."""
    w = torch.rand(20, dtype=torch.float64)
    assert dev(w, torch.full((20,), 0.3, dtype=torch.float64)) == pytest.approx(0.3)


def gaussians(shift, n, d=1):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=generator), shift + torch.randn(n, d, generator=generator)


def test_the_density_ratio_of_two_gaussians_is_known():
    """N(m, 1) over N(0, 1) is exp(m x - m²/2), whatever the numbers of rows."""
    (source, target), at = gaussians(1.0, n=2000), torch.tensor([[-1.0], [0.0], [0.5], [2.0]])
    expected = (at.double() - 0.5).exp().squeeze(1)
    for target_rows in (2000, 1000):
        assert torch.allclose(density_ratio(source, target[:target_rows], at), expected, rtol=0.15)


def test_the_density_ratio_is_the_optimum_of_the_stated_objective():
    """Gradient by hand at the optimum: Σ (σ(z) - d) x + w = 0, and Σ (σ(z) - d) = 0 for the bias."""
    (source, target), d = gaussians(0.5, n=60, d=3), 3
    both = torch.cat([source, target]).double()
    x = (both - both.mean(0)) / both.std(0, correction=0) / math.sqrt(d)
    z = density_ratio(source, target, both.float()).log()  # equal numbers of rows: the ratio is exp(z)
    w = torch.linalg.lstsq(torch.cat([x, torch.ones(120, 1).double()], 1), z[:, None]).solution.squeeze(1)
    off = z.sigmoid() - torch.cat([torch.zeros(60), torch.ones(60)])
    assert torch.allclose(off @ x + w[:3], torch.zeros(3).double(), atol=1e-3)
    assert float(off.sum()) == pytest.approx(0, abs=1e-3)


def test_the_density_ratio_does_not_depend_on_units_and_ignores_constant_features():
    source, target = gaussians(0.7, n=50, d=3)
    plain = density_ratio(source, target, source)
    scale = torch.tensor([1e-3, 1.0, 1e3])
    assert torch.allclose(density_ratio(source * scale, target * scale, source * scale), plain, rtol=1e-2)
    zeros = torch.zeros(50, 1)
    dead = [torch.cat([f, zeros], 1) for f in (source, target, source)]
    assert density_ratio(*dead).isfinite().all()
    assert torch.allclose(density_ratio(zeros, zeros, zeros), torch.ones(50).double())


# -------------------------------------------------------------------------------------------- invariances and limits


@named(OF_PREDICTIONS)
def test_order_of_rows_and_names_of_classes_do_not_matter(of):
    p, generator = predicted(), torch.Generator().manual_seed(1)
    moved = p[torch.randperm(7, generator=generator)][:, torch.randperm(4, generator=generator)]
    assert of(moved) == pytest.approx(of(p), rel=1e-5)


N, K = 12, 3
CASES = {
    "certain and balanced": torch.eye(K).repeat(N // K, 1),
    "certain, one class": torch.eye(K)[[0] * N],
    "uniform": torch.full((N, K), 1 / K),
}
LIMITS = {
    mean_entropy: (0, 0, math.log(K)),
    infomax: (math.log(K), 0, 0),
    snd: (math.log(N // K - 1), math.log(N - 1), math.log(N - 1)),  # the own class is near; all are
    bnm: (1, 1 / math.sqrt(K), 1 / K),
}


@named(OF_PREDICTIONS)
def test_limits(of):
    """What docs/choosing.md says of heads that collapse: entropy and snd are at their best there."""
    assert [of(p) for p in CASES.values()] == pytest.approx(LIMITS[of], abs=1e-5)


@named(OF_PREDICTIONS)
def test_one_row_and_impossible_classes_have_scores(of):
    assert math.isfinite(of(torch.tensor([[0.25, 0.75]])))
    assert math.isfinite(of(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])))


@named(OF_PREDICTIONS)
def test_several_tasks_are_averaged(of):
    name = "entropy" if of is mean_entropy else of.__name__
    p = {"verb": predicted(seed=1), "noun": predicted(k=6, seed=2)}
    mean = (of(p["verb"]) + of(p["noun"])) / 2
    assert VALIDATORS[name].score(Predictions({"target": p}, {}, {})) == pytest.approx(mean)


def test_best_knows_the_direction_and_takes_the_latest_of_equal_ones():
    assert [best(rule, [0.1, 0.3, 0.3, 0.2]) for rule in ("snd", "oracle", "source_val")] == [2, 2, 2]
    assert [best(rule, [0.2, 0.1, 0.1, 0.3]) for rule in ("entropy", "dev")] == [2, 2]


# ------------------------------------------------------------------------------------------------------- configuration


ADAPTED = {"method": rna.Params(), "target": "night", "net": adapter.Params(dim=64), "optim": Optim(clip_norm=5.0)}


@pytest.mark.parametrize("rule", ["entropy", "infomax", "snd", "bnm", "dev"])
def test_a_rule_that_looks_at_the_target_needs_one(rule):
    with pytest.raises(ConfigError, match=f"select='{rule}'.*set target"):
        run(select=rule, holdout=0.25)


def test_a_rule_that_looks_at_held_out_rows_needs_them():
    for rule in ("source_val", "dev"):
        with pytest.raises(ConfigError, match=f"select='{rule}'.*held-out source rows: set holdout"):
            run(**ADAPTED, select=rule)
    assert run(**ADAPTED, select="dev", holdout=0.25).select == "dev"


def test_every_rule_is_a_choice_and_an_unknown_one_lists_them():
    with pytest.raises(ConfigError, match=f"select='nd'.* {', '.join(RULES)}$"):
        run(select="nd")
    for rule in RULES:
        config = run(**ADAPTED, holdout=0.25, select=rule)
        assert RunConfig.from_json(config.to_json()) == config


# -------------------------------------------------------------------------------------------------------- a whole run


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"))


BASE = override(run(**ADAPTED, holdout=0.25, eval_every=2, keep=6, steps=12), "optim.lr=0.01", "seed=4")


@pytest.fixture(scope="module")
def trained(stores, tmp_path_factory):
    """Rule -> the folder of a run that differs in nothing else: one is trained, the others are its copies."""
    runs = tmp_path_factory.mktemp("runs")
    folders = {"last": train(BASE, stores, runs)}
    for rule in RULES[1:]:
        config = override(BASE, f"select={rule}")
        folders[rule] = shutil.copytree(folders["last"], runs / config.id)
        (folders[rule] / "config.json").write_text(json.dumps(config.to_json()))
        write_sums(folders[rule])
    return folders


def values(folder, stores):
    return {result.metric: result.value for result in evaluate(folder, stores)}


def truth(folder):
    clips = manifest()
    return np.array(
        [clips.classes["label"].index(clips.clips[k].labels["label"]) for k in Run.open(folder).outputs["rows"]]
    )


def test_every_point_has_every_score_and_choosing_changes_no_number(trained, stores, tmp_path):
    points = Run.open(trained["last"]).points
    assert all(point.keys() == {"step", *VALIDATORS} for point in points)
    chosen = Run.open(train(override(BASE, "select=oracle"), stores, tmp_path))
    assert (chosen.points, chosen.folder.name) == (points, trained["oracle"].name)


@pytest.mark.parametrize("rule", VALIDATORS)
def test_the_point_that_a_validator_likes_best_is_the_result(rule, trained, stores):
    made, metrics = Run.open(trained[rule]), values(trained[rule], stores)
    liked = [point[rule] for point in made.points]
    assert len(set(liked)) > 1, "the test is blind if all points are alike"
    k = liked.index((max if VALIDATORS[rule].higher else min)(liked))
    if liked.count(liked[k]) == 1:
        assert metrics["top1"] == topk_accuracy(made.outputs["label"][k], truth(made.folder), 1)
        assert metrics["validator/snd"] == made.points[k]["snd"]
    assert metrics[f"validator/{rule}"] == liked[k]


def test_the_oracle_takes_the_point_that_is_best_on_the_test_rows(trained, stores):
    made = Run.open(trained["oracle"])
    right = [topk_accuracy(z, truth(made.folder), 1) for z in made.outputs["label"]]
    assert len(set(right)) > 1, "the test is blind if all points are alike"
    k = max(k for k, share in enumerate(right) if share == max(right))
    assert values(made.folder, stores)["top1"] == max(right)
    assert {result.select for result in evaluate(made.folder, stores)} == {"oracle"}
    assert predictions(made.folder, stores).predicted.tolist() == made.outputs["label"][k].argmax(1).tolist()
    assert "oracle" not in made.points[k]


def test_scores_of_a_mean_are_means(trained, stores):
    points, metrics = Run.open(trained["mean"]).points, values(trained["mean"], stores)
    assert metrics["validator/bnm"] == pytest.approx(sum(point["bnm"] for point in points) / 6)
    assert "validator/oracle" not in metrics


def test_scores_are_those_of_the_heads_own_predictions_and_features(trained, stores):
    """The last point again, from the weights: target train rows, held-out rows, features of all modalities."""
    made, opened = Run.open(trained["last"]), open_run(BASE, stores)
    method, sides = made.method(), open_run(BASE, stores).sides
    with torch.no_grad():
        whole_side = {name: next(rows.sweep()) for name, rows in sides.items()}
        p = {
            name: method.net.classify(method.net.encode(side))["label"].softmax(1) for name, side in whole_side.items()
        }
        f = {name: torch.cat(list(method.net.encode(side).values()), 1) for name, side in whole_side.items()}
    wrong = (p["source_val"].argmax(1) != sides["source_val"].y["label"]).double()
    expected = {validator.__name__: validator(p["target"]) for validator in (infomax, snd, bnm)} | {
        "entropy": mean_entropy(p["target"]),
        "source_val": 1 - float(wrong.mean()),
        "dev": dev(density_ratio(f["source"], f["target"], f["source_val"]), wrong),
    }
    assert len(sides["target"]) == 12
    assert opened.manifest.rows(domain="night", split="train") == sides["target"].rows
    assert {name: made.points[-1][name] for name in VALIDATORS} == pytest.approx(expected, rel=1e-4)


def test_a_run_without_target_or_held_out_rows_is_scored_by_what_it_has(stores, tmp_path):
    assert Run.open(train(run(steps=2), stores, tmp_path)).points[0].keys() == {"step"}
    assert Run.open(train(run(steps=2, holdout=0.25), stores, tmp_path)).points[0].keys() == {"step", "source_val"}
    finished = Run.open(train(run(**ADAPTED, steps=2), stores, tmp_path))
    assert finished.points[0].keys() == {"step", "entropy", "infomax", "snd", "bnm"}


def test_labels_of_the_target_change_no_score(trained, tmp_path):
    """The target's labels are others, in train and in test rows: all scores, and what they choose, are the same."""
    other = {"chop": "peel", "peel": "stir", "stir": "chop"}
    rolled = manifest(labels=lambda domain, _, name: {"label": other[name] if domain == "night" else name})
    stores = write_all(tmp_path / "stores", rolled)
    assert Run.open(train(BASE, stores, tmp_path / "runs")).points == Run.open(trained["last"]).points


class Watcher(rna.Rna):
    """Writes down which labels it is shown when it predicts, and in which mode its net encodes."""

    def predict(self, side):
        self.saw = [*getattr(self, "saw", []), (tuple(side.y), self.training)]
        return super().predict(side)


@pytest.mark.parametrize("training", [True, False])
def test_scoring_hides_labels_draws_nothing_and_restores_the_mode(training, stores):
    opened = open_run(BASE, stores)
    method = Watcher(BASE.method, opened.spec, adapter.Adapter(BASE.net, opened.spec)).train(training)
    encode, encoded = method.net.encode, []
    method.net.encode = lambda side: (encoded.append((tuple(side.y), method.net.training)), encode(side))[1]
    state = torch.get_rng_state()
    assert scores(method, opened) == scores(method, opened)
    assert set(method.saw) == set(encoded) == {((), False)}
    assert torch.equal(torch.get_rng_state(), state)
    assert (method.training, method.net.training) == (training, training)
    assert all(parameter.grad is None for parameter in method.parameters())


def test_features_are_of_the_modalities_that_all_sides_have(stores):
    feeds = {"rgb": Feed("hog", seen_by="source test"), "flow": Feed("hof")}
    opened = open_run(dataclasses.replace(BASE, feeds=feeds), stores)
    method = rna.Rna(BASE.method, opened.spec, adapter.Adapter(BASE.net, opened.spec))
    f = features(method, opened.sides)
    assert {side: tuple(features_of_side.shape) for side, features_of_side in f.items()} == {
        "source": (9, 64),
        "source_val": (3, 64),
        "target": (12, 64),
    }
    flow = method.eval().net.encode(next(opened.sides["target"].sweep()))["flow"]
    assert torch.equal(f["target"], flow)
    assert math.isfinite(scores(method, opened)["dev"])


# -------------------------------------------------------------------------------------------------------------- tables


def chosen_by(rule, of):
    runs = [dataclasses.replace(one, select=rule, holdout=0.1) if one.row.startswith("RNA") else one for one in of.runs]
    return dataclasses.replace(of, runs=tuple(runs))


@pytest.mark.parametrize("format", ["markdown", "csv", "latex"])
def test_an_oracle_is_called_one_in_every_format(format):
    toy = chosen_by("oracle", experiment())
    text = " ".join(render(rows(toy), toy, format=format).split())
    assert "RNA (UDA) (oracle)" in text
    assert "ORACLE: RNA (UDA) (oracle)" in text
    assert "oracle" not in render(rows(experiment()), experiment(), format=format).lower()


def test_an_oracle_never_wins_nor_hides_what_is_missing():
    toy = chosen_by("oracle", experiment(published={"RNA (UDA)": {"mean": 50.0}}))
    table = build(rows(toy)[:-1], toy)
    assert [(line.method, line.fair) for line in table.lines] == [
        ("source-only", True), ("RNA (UDA) (oracle)", False), ("supervised-target", False)
    ]  # fmt: skip
    assert table.lines[1].mean.published == 50.0
    some = [row for row in rows(toy) if not (row.row == "RNA (UDA)" and row.seed == 2)]
    assert "MISSING: RNA (UDA) (oracle) 2 of 6 (day→night, night→day seed 2)." in " ".join(render(some, toy).split())


def test_a_row_that_is_chosen_by_validator_says_which_and_by_what():
    toy = chosen_by("entropy", experiment())
    text = " ".join(render(rows(toy), toy).split())
    assert "entropy (the kept outputs with the lowest mean entropy on the target's train rows): RNA (UDA)." in text
    assert "ORACLE" not in text


def test_a_table_of_a_validator_is_in_its_units_and_leaves_out_who_has_none():
    toy = experiment()
    scored = [result(one, 0.25 + one.seed / 8, "validator/snd") for one in toy.runs if one.target]
    text = render([*rows(toy), *scored], toy, "validator/snd")
    table = build([*rows(toy), *scored], toy, "validator/snd")
    assert [line.method for line in table.lines] == ["RNA (UDA)"]
    assert "0.375 ± 0.125" in text
    assert "MISSING" not in text
    words = " ".join(text.split())
    assert "Validator/snd: soft neighbourhood density on the target's train rows (higher is better); mean ±" in words
    assert "per cent" not in words
    with pytest.raises(ConfigError, match=r"no run of 'toy' has 'validator/dev'; validators: source_val, entropy"):
        render([], toy, "validator/dev")


def test_results_of_older_lines_need_no_score(trained, stores, tmp_path):
    """A run from before there were validators is evaluated as ever."""
    folder = shutil.copytree(trained["last"], tmp_path / trained["last"].name)
    facts = json.loads((folder / "run.json").read_text())
    facts["points"] = [{"step": point["step"], "source_val": point["source_val"]} for point in facts["points"]]
    (folder / "run.json").write_text(json.dumps(facts))
    write_sums(folder)
    metrics = {metric for metric in values(folder, stores) if metric.startswith("validator/")}
    assert metrics == {"validator/source_val"}
