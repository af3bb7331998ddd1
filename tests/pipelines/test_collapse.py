"""Collapse on features of very different norms: the recipe of a folder of stores stands them; a collapse is told."""

import pytest
import torch
from click.testing import CliRunner

from featcache.manifest import Manifest
from heads.methods import nearest_mean
from pipelines import experiments
from pipelines.cli import main
from pipelines.config import Preparation, override
from pipelines.evaluation.evaluate import evaluate
from pipelines.experiments import kitchens
from pipelines.training.outputs import one_class, remedy, stuck
from pipelines.training.runs import Run
from pipelines.training.train import train
from tests.helpers.stores import manifest, run, write_all
from tests.helpers.uneven import NORMS, write

QUICK = ("net.dim=64", "steps=60")  # the recipe, in less time; narrower nets collapse sooner
RAW = ("preparation.units=none", "net.dropout_at=features")  # the recipe of before


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("stores"))


def row(folder, name, *settings, seed=0):
    """The run of this row on a→b."""
    runs = experiments.load(folder).runs
    (config,) = (run for run in runs if (run.row, run.source, run.test, run.seed) == (name, ("a",), "b", seed))
    return override(config, *settings) if settings else config


def accuracy(made, folder):
    (top1,) = (result.value for result in evaluate(made, folder.parent) if result.metric == "top1")
    return top1


def test_the_recipe_of_a_folder_measures_units(folder):
    assert {run.preparation for run in experiments.load(folder).runs} == {Preparation(units="source")}
    assert kitchens.RECIPE["preparation"] == Preparation(units="source")


@pytest.mark.slow
def test_the_recipe_stands_uneven_norms_and_a_collapse_is_told_with_its_cure(folder, tmp_path):
    """On raw features most modalities die; train-head, evaluate and the table name them, and their cure is one."""
    arguments = [str(folder), "--runs", str(tmp_path), "--only", "RNA (UDA)", "--seeds", "0"]
    arguments += [word for setting in (*QUICK, *RAW) for word in ("--set", setting)]
    told = CliRunner().invoke(main, ["train-head", *arguments, "--workers", "1"])
    assert told.exit_code == 0
    config = row(folder, "RNA (UDA)", *QUICK, *RAW)
    cure = "--set preparation.units=source"
    dead = Run.open(tmp_path / config.id).facts.collapsed
    assert {"audio", "flow"} <= set(dead)
    vanished = f"the features of {', '.join(dead)} have vanished"
    assert f"COLLAPSED: RNA (UDA) ({config.id}): {vanished}" in told.stderr
    assert cure in told.stderr
    assert "of 2 runs collapsed: RNA (UDA)" in told.stderr
    again = CliRunner().invoke(main, ["train-head", *arguments, "--workers", "1"])
    assert "COLLAPSED: RNA (UDA)" in again.stderr  # kept, and still dead
    measured = CliRunner().invoke(main, ["evaluate", *arguments])
    assert f"{config.id}: {vanished}" in measured.stderr
    table = " ".join(CliRunner().invoke(main, ["table", *arguments]).stdout.split())
    assert "**COLLAPSED FEATURES: RNA (UDA) a→b (seed 0): audio" in table
    assert cure in table

    assert remedy(config).endswith(cure)
    cured = Run.open(train(override(config, "preparation.units=source"), folder.parent, tmp_path))
    assert (cured.facts.collapsed, cured.facts.one_class) == ((), ())
    assert accuracy(cured.folder, folder) > 0.4 > 0.3 > accuracy(tmp_path / config.id, folder)  # of 8 classes


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["RNA (DG)", "RNA (UDA)"])
def test_the_whole_recipe_balances_norms_and_loses_nothing(folder, tmp_path, name, seed):
    plain, balanced = (train(row(folder, each, seed=seed), folder.parent, tmp_path) for each in ("source-only", name))
    assert Run.open(balanced).facts.collapsed == ()
    assert accuracy(balanced, folder) > accuracy(plain, folder) - 0.03
    cv = [next(r.value for r in evaluate(each, folder.parent) if r.metric == "cv_st") for each in (plain, balanced)]
    assert cv[1] < cv[0]


@pytest.mark.slow
def test_the_cure_of_a_narrow_net_is_to_widen_it(folder, tmp_path):
    """Units alone do not help four features per modality."""
    config = row(folder, "RNA (UDA)", "net.dim=4")
    assert Run.open(train(config, folder.parent, tmp_path)).facts.collapsed == tuple(sorted(NORMS))
    assert remedy(config).endswith("take --set net.dim=64")
    assert Run.open(train(override(config, "net.dim=64"), folder.parent, tmp_path)).facts.collapsed == ()


def test_one_class_for_every_test_clip_is_told_without_a_label(folder, tmp_path):
    """Of a net that was not trained, whose bias is larger than anything else."""
    made = Run.open(train(row(folder, "source-only", "steps=0"), folder.parent, tmp_path))
    opened = made.opened(folder.parent)
    scores = made.outputs["label"][-1].copy()
    assert one_class({"label": scores}, opened) == [*made.facts.one_class] == []
    scores[:, 3] = 1e9
    assert one_class({"label": scores}, opened) == ["c3"]
    assert one_class({"label": scores[:1]}, opened) == []


def test_test_clips_that_are_of_one_class_are_no_collapse(tmp_path):
    """Neither in training nor in evaluation; a net that gives all training clips that class has collapsed."""
    clips = manifest()
    kept = tuple(clip for clip in clips if (clip.domain, clip.split) != ("night", "test") or "_chop_" in clip.clip_id)
    stores = write_all(tmp_path / "stores", Manifest("toy", kept))
    config = run(method=nearest_mean.Params(), source=("night",), steps=0)
    made = Run.open(train(config, stores, tmp_path))
    opened, method = made.opened(stores), made.method()
    last = {"label": made.outputs["label"][-1]}
    assert one_class(last, opened) == ["chop"]
    assert made.facts.one_class == () == evaluate(made.folder, stores)[0].one_class
    method.predict = lambda side: {"label": torch.eye(3)[0].expand(len(side.index), 3)}
    assert stuck(method, last, opened) == ["chop"]


def test_settings_of_a_net_are_no_remedy_where_no_trained_net_predicts():
    assert "--set" in remedy(run())
    assert "--set" in remedy(run(method=nearest_mean.Params(features="encoded")))
    assert "--set" not in remedy(run(method=nearest_mean.Params()))
    assert "--set" not in remedy(run(steps=0))
