"""Runs that are trained in one pass: they end as they would have alone, each in its own folder."""

import dataclasses
import json

import pytest
import torch

from featcache.files import claimed
from heads.methods import adabn, bnm, cbst, dann, mcd, mmd, rna, source_only, xmc
from heads.nets import adapter
from pipelines.config import Feed, Optim, Preparation, override
from pipelines.evaluation import results
from pipelines.evaluation.evaluate import evaluate
from pipelines.training import engine, groups
from pipelines.training.runs import Run
from tests.helpers import caption_stores
from tests.helpers.stores import manifest, run, write_all
from tests.pipelines.test_views import VIEWS, viewed, write_view

CLOSE = {"rel": 1e-3, "abs": 1e-3}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"))


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Whatever a pass gains on this machine at this moment, and also three runs."""
    monkeypatch.setattr(groups, "GAIN", 0)
    monkeypatch.setattr(groups, "FEWEST", 3)


def adapting(method=None, **changes):
    return run(method=method or rna.Params(), target="night", net=adapter.Params(dim=16), epoch=4, **changes)


def both_ways(configs, stores, tmp_path, **options):
    """Return {id: (outcome, run) or (outcome, None)}, trained together and one by one."""
    ended = []
    for batch in ("auto", "off"):
        outcomes = engine.run_all(configs, stores, tmp_path / batch, batch=batch, **options)
        ended.append({o.config.id: (o, o.folder and Run.open(o.folder)) for o in outcomes})
    return ended


def check_equal(together, alone, batched):
    """Compare logs, weights, points and outputs of the runs that finished, and notes of those that did not."""
    assert together.keys() == alone.keys()
    for id, (outcome, one) in together.items():
        other, single = alone[id]
        assert (outcome.status, outcome.note) == (other.status, other.note)
        if one is None:
            continue
        assert one.facts.batched == batched
        assert single.facts.batched == 0
        for ours, theirs in zip(one.log(), single.log(), strict=True):
            assert ours == pytest.approx(theirs, **CLOSE)
        for ours, theirs in zip(one.points, single.points, strict=True):
            assert ours == pytest.approx(theirs, **CLOSE)
        theirs = single.method().state_dict()
        for name, weights in one.method().state_dict().items():
            assert torch.allclose(weights.float(), theirs[name].float(), rtol=1e-3, atol=1e-3), name
        for name, out in one.outputs.items():
            assert out == pytest.approx(single.outputs[name], **CLOSE), name
        assert {f.name for f in one.folder.iterdir()} == {f.name for f in single.folder.iterdir()}
        for file in one.folder.iterdir():  # a view of stacked weights would save those of all runs
            assert file.stat().st_size < 1.2 * (single.folder / file.name).stat().st_size + 200


@pytest.mark.parametrize(
    "configs",
    [
        [adapting(seed=seed) for seed in range(3)],
        [adapting(rna.Params(lambda_g=w, lambda_im=w / 2)) for w in (0.1, 0.3, 1.0)],
        [adapting(seed=k, optim=Optim(lr=lr, clip_norm=5.0)) for k, lr in enumerate((0.01, 0.03, 0.03, 0.02))],
        [adapting(seed=k, optim_for={"D": Optim(name="adam", lr=1e-3 * (1 + k))}) for k in range(3)],
        [run(seed=k, holdout=0.25, eval_every=4, keep=3, select="source_val") for k in range(3)],
        [adapting(cbst.Params(first=1, epochs=1), seed=k % 2, optim=Optim(lr=0.01 * (1 + k))) for k in range(3)],
        [adapting(cbst.Params(first=1, epochs=1, lambda_st=1.0 + k), eval_every=5, keep=2) for k in range(3)],
        [adapting(mcd.Params(n=2, lambda_dis=1.0 + k), seed=k) for k in range(3)],
        [
            run(seed=k, feeds={"rgb": Feed("hog", train="random:2"), "flow": Feed("hof", train="mean")})
            for k in range(3)
        ],
        [adapting(dann.Params(), seed=k, preparation=Preparation(units="source")) for k in range(3)],
        [run(seed=k, net=adapter.Params(dim=8, batch_norm=True)) for k in range(3)],
    ],
    ids=[
        "seeds",
        "weights",
        "rates",
        "adam",
        "held out",
        "pools",
        "pools of one seed",
        "mcd",
        "windows",
        "units",
        "bn",
    ],
)
def test_runs_in_one_pass_end_as_they_would_have_alone(configs, stores, tmp_path):
    check_equal(*both_ways(configs, stores, tmp_path), batched=len(configs))


def test_captions_are_drawn_as_for_each_run_alone(tmp_path):
    stores = caption_stores.write_all(tmp_path / "stores", uncaptioned=(1,))  # absent=mask: a clip lacks an expert
    check_equal(*both_ways([caption_stores.run(seed=k, steps=4) for k in range(3)], stores, tmp_path), batched=3)


def test_views_and_missing_features_are_drawn_as_for_each_run_alone(tmp_path):
    manifest().write(tmp_path / "stores" / "toy" / "manifest.csv")
    for modality, names in VIEWS.items():
        for view, name in enumerate(names):
            lacking = {1: "moov atom not found"} if modality == "flow" else {}
            write_view(tmp_path / "stores" / "toy", name, view, modality=modality, lacking=lacking, width=8)
    configs = [viewed("random:1", seed=k, method=source_only.Params(), target=None, steps=6) for k in range(3)]
    check_equal(*both_ways(configs, tmp_path / "stores", tmp_path), batched=3)


def test_a_second_stage_starts_from_the_first_of_its_own_seed(stores, tmp_path):
    first = [run(seed=k) for k in range(3)]
    second = [run(seed=k, init_from=first[k].id, steps=6) for k in range(3)]
    check_equal(*both_ways([*second, *first], stores, tmp_path), batched=3)


def test_a_run_that_explodes_is_named_and_the_others_end_as_they_would_have(stores, tmp_path):
    configs = [adapting(seed=k, optim=Optim(lr=1e18 if k == 0 else 0.01, clip_norm=5.0)) for k in range(4)]
    together, alone = both_ways(configs, stores, tmp_path)
    check_equal(together, alone, batched=4)
    assert [together[c.id][0].status for c in configs] == ["failed", "trained", "trained", "trained"]
    assert "lower optim.lr" in together[configs[0].id][0].note


def test_a_run_that_explodes_in_linear_algebra_stops_no_other(stores, tmp_path):
    """The SVD of bnm fails for all heads at once."""
    configs = [adapting(bnm.Params(), seed=k, optim=Optim(lr=1e30 if k == 0 else 0.01)) for k in range(4)]
    together, alone = both_ways(configs, stores, tmp_path)
    exploded = [ended.pop(configs[0].id)[0] for ended in (together, alone)]
    assert [outcome.status for outcome in exploded] == ["failed", "failed"]
    assert exploded[0].note == exploded[1].note
    assert "one by one, because a step of 1 of 4 also fails alone (_LinAlgError: " in str(exploded[0].plan)
    check_equal(together, alone, batched=3)
    assert {outcome.status for outcome, _ in together.values()} == {"trained"}


def test_a_run_whose_method_cannot_be_built_stops_no_other(stores, tmp_path, monkeypatch):
    built = dann.Dann.__init__

    def fails(self, params, *args):
        if params.lambda_d == 2:
            raise RuntimeError("no memory")
        built(self, params, *args)

    monkeypatch.setattr(dann.Dann, "__init__", fails)
    configs = [adapting(dann.Params(lambda_d=float(k))) for k in (1, 2, 3, 4)]
    together, alone = both_ways(configs, stores, tmp_path)
    check_equal(together, alone, batched=3)
    assert [together[c.id][0].status for c in configs] == ["trained", "failed", "trained", "trained"]


@pytest.mark.parametrize("first", [True, False])
def test_a_run_that_has_failed_holds_up_no_other(stores, tmp_path, monkeypatch, first):
    """Its state is that of an earlier epoch."""
    lambdas = (2, 1, 3) if first else (1, 2, 3)

    def begin_epoch(self, epoch, sweep):
        if epoch == 1 and self.params.lambda_mmd == 2:
            raise ValueError("no rows of class 2")
        self.level = 1.0 + epoch

    losses = mmd.Mmd.losses
    monkeypatch.setattr(mmd.Mmd, "level", 1.0, raising=False)
    monkeypatch.setattr(mmd.Mmd, "begin_epoch", begin_epoch)
    monkeypatch.setattr(
        mmd.Mmd, "losses", lambda self, *args: {name: v * self.level for name, v in losses(self, *args).items()}
    )
    configs = [adapting(mmd.Params(lambda_mmd=float(k)), seed=1) for k in lambdas]
    together, alone = both_ways(configs, stores, tmp_path)
    check_equal(together, alone, batched=3)
    assert sorted(outcome.status for outcome, _ in together.values()) == ["failed", "trained", "trained"]


@pytest.mark.slow
def test_a_net_whose_domains_have_their_own_statistics_is_trained_one_by_one(stores, tmp_path):
    net = adapter.Params(dim=8, batch_norm=True)
    configs = [run(method=adabn.Params(), target="night", net=net, seed=k) for k in range(3)]
    together, alone = both_ways(configs, stores, tmp_path)
    check_equal(together, alone, batched=0)
    assert {outcome.status for outcome, _ in together.values()} == {"trained"}
    assert all("a pass of 3 is not possible" in str(outcome.plan) for outcome, _ in together.values())


def test_a_result_has_the_number_of_runs_of_its_pass(stores, tmp_path):
    configs = [run(seed=k, steps=3) for k in range(3)]
    together, alone = both_ways(configs, stores, tmp_path)
    for ended, batched in ((together, 3), (alone, 0)):
        path = tmp_path / f"{batched}.jsonl"
        results.append(path, [row for _, one in ended.values() for row in evaluate(one.folder, stores)])
        assert {row.batched for row in results.read(path)} == {batched}
        assert {json.loads(line).get("batched") for line in path.read_text().splitlines()} == {batched or None}


def test_a_run_that_fails_at_the_beginning_of_an_epoch_is_named(stores, tmp_path, monkeypatch):
    def begin_epoch(self, epoch, sweep):
        if epoch == 1 and self.params.lambda_mmd == 2:
            raise ValueError("no rows of class 2")

    monkeypatch.setattr(mmd.Mmd, "begin_epoch", begin_epoch)
    configs = [adapting(mmd.Params(lambda_mmd=float(k)), seed=1) for k in (1, 2, 3)]
    together, alone = both_ways(configs, stores, tmp_path)
    check_equal(together, alone, batched=3)
    assert together[configs[1].id][0].note == "no rows of class 2"


def test_a_method_that_no_pass_can_take_is_trained_one_by_one_with_the_reason(stores, tmp_path, monkeypatch):
    losses = source_only.SourceOnly.losses
    monkeypatch.setattr(
        source_only.SourceOnly, "losses", lambda self, *args: {"L_C": losses(self, *args)["L_C"] * 1.0}
        if float(next(self.parameters()).sum()) < torch.inf else {}
    )  # fmt: skip
    together, alone = both_ways([run(seed=k) for k in range(3)], stores, tmp_path)
    check_equal(together, alone, batched=0)
    plans = {str(outcome.plan) for outcome, _ in together.values()}
    assert len(plans) == 1
    assert "source-only: one by one, because a pass of 3 is not possible (RuntimeError: " in plans.pop()


def test_state_outside_of_buffers_is_noticed(stores, tmp_path, monkeypatch):
    def begin_epoch(self, epoch, sweep):
        self.level = float(next(self.parameters()).sum())

    monkeypatch.setattr(source_only.SourceOnly, "begin_epoch", begin_epoch)
    together, alone = both_ways([run(seed=k) for k in range(3)], stores, tmp_path)
    check_equal(together, alone, batched=0)
    assert all("level" in str(outcome.plan) for outcome, _ in together.values())


def test_a_pass_that_gains_too_little_is_not_made(stores, tmp_path, monkeypatch):
    monkeypatch.setattr(groups, "GAIN", 1e9)
    configs = [run(seed=k) for k in range(3)]
    together, alone = both_ways(configs, stores, tmp_path)
    for id, (outcome, one) in together.items():
        assert "source-only: one by one, because a pass of 3 gains only " in str(outcome.plan)
        assert one.log() == alone[id][1].log()  # to the bit: measuring has drawn nothing
        assert "batched" not in json.loads((one.folder / "run.json").read_text())


def test_the_plan_names_what_it_does(stores, tmp_path):
    configs = [adapting(row="RNA", seed=k) for k in range(3)] + [
        adapting(xmc.Params(), row="X", seed=k) for k in (0, 1)
    ]
    outcomes = engine.run_all(configs, stores, tmp_path)
    plans = {str(outcome.plan) for outcome in outcomes}
    assert {plan.partition(",")[0] for plan in plans} == {"RNA: 3 runs in one pass", "X: one by one"}
    assert any(plan.startswith("X: one by one, because its rounds ") for plan in plans)
    assert {outcome.plan for outcome in engine.run_all(configs, stores, tmp_path)} == {None}  # nothing is left to train


def test_the_plan_names_rows_of_few_runs_once(stores, tmp_path):
    configs = [run(seed=k, row=row, steps=steps) for row, steps in (("A", 2), ("B", 3)) for k in (0, 1)]
    assert {outcome.plan for outcome in engine.run_all(configs, stores, tmp_path)} == {groups.FEW}
    assert [outcome.plan for outcome in engine.run_all(configs[:1], stores, tmp_path / "single")] == [None]


def test_runs_on_features_larger_than_memory_are_trained_one_by_one(stores, tmp_path):
    configs = [run(seed=k) for k in range(3)]
    results, plans = groups.train_together(configs, stores, tmp_path, "cpu", 1, 1)
    assert results == {}
    assert {plan.why for plan in plans.values()} == {groups.STREAMING}
    assert {outcome.status for outcome in engine.run_all(configs, stores, tmp_path)} == {"trained"}


def test_finished_and_busy_runs_of_a_group_are_left_out(stores, tmp_path):
    configs = [run(seed=k) for k in range(5)]
    engine.run_all(configs[:1], stores, tmp_path)
    seen = []

    def report(outcome, *_):
        seen.append((outcome.config.seed, outcome.status))
        if outcome.status == "busy":
            busy.close()

    busy = claimed(tmp_path / configs[1].id)
    with busy:
        busy.close = lambda: None
        outcomes, _ = groups.train_together(configs, stores, tmp_path, "cpu", None, 1)
    assert set(outcomes) == {config.id for config in configs[2:]}
    assert {Run.open(tmp_path / id).facts.batched for id in outcomes} == {3}
    engine.run_all(configs, stores, tmp_path, report=report)
    assert sorted(seen) == [(0, "kept"), (1, "trained"), (2, "kept"), (3, "kept"), (4, "kept")]


@pytest.mark.slow
def test_workers_share_the_groups(stores, tmp_path):
    configs = [run(seed=k) for k in range(6)]
    outcomes = engine.run_all(configs, stores, tmp_path, workers=2)
    assert {outcome.status for outcome in outcomes} == {"trained"}


def sizes(configs, workers=1, device="cpu"):
    return sorted(len(group) for group in groups.groups(configs, workers, device))


def test_groups_hold_runs_that_differ_in_numbers_only():
    grid = [adapting(rna.Params(lambda_g=g), seed=k) for g in (0.1, 0.3, 1.0) for k in range(5)]
    assert sizes(grid) == [15]
    assert sizes([override(config, f"optim.lr={0.01 * (1 + k)}") for k, config in enumerate(grid)]) == [15]
    assert sizes([dataclasses.replace(config, row=str(k)) for k, config in enumerate(grid)]) == [15]
    with_zero = [adapting(rna.Params(lambda_d=d), seed=k) for d in (0.0, 0.2, 0.5) for k in range(3)]
    assert sizes(with_zero) == [3, 6]  # without discriminators; with them
    for change in ("net.dim=8", "steps=11", "test=day", "method.mod=false", "optim.name=adam", "batch=6,5"):
        assert sizes([*grid[:4], *(override(config, change) for config in grid[:4])]) == [4, 4], change


def test_groups_leave_no_worker_idle_and_are_not_larger_than_a_pass():
    seeds = [run(seed=k) for k in range(25)]
    assert sizes(seeds) == [12, 13]
    assert sizes(seeds, workers=5) == [5] * 5
    assert sizes(seeds, device="cuda") == [25]
    assert sizes(seeds[:4], workers=2) == [1] * 4  # on a CPU a pass of two gains nothing
    shifts = [run(seed=k, steps=steps) for steps in range(1, 7) for k in range(5)]
    assert sizes(shifts, workers=2) == [5] * 6
    assert sizes([adapting(xmc.Params(), seed=k) for k in range(5)]) == [1] * 5
    assert sizes([run(seed=k, steps=0) for k in range(5)]) == [1] * 5
    assert sizes([]) == []
