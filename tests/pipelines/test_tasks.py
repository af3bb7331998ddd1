"""Tasks: each one is complete, metrics are found by name, and one line in the file of a task adds a metric."""

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from featcache import Clip, Manifest, registry
from featcache.errors import ConfigError
from pipelines import tasks
from pipelines.cli import main
from pipelines.evaluation.evaluate import evaluate
from pipelines.experiments import Experiment
from pipelines.measures.validators import VALIDATORS
from pipelines.tables.build import render
from pipelines.training.train import train
from tests.helpers.stores import run, write_all

TASKS = registry.names(tasks)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_complete(name):
    task = tasks.load(name)
    assert task.name == name
    assert task.headlines
    assert {*task.headlines, *(headline + task.stand_in for headline in task.headlines)} <= task.metrics.keys()
    assert set(task.validators) <= VALIDATORS.keys()
    assert bool(task.stand_in) == bool(task.stand_in_words)
    assert all(note.endswith(".") for note in task.notes)


@pytest.mark.parametrize("name", TASKS)
def test_a_report_has_the_parts_of_a_task(name):
    report = importlib.import_module(f"pipelines.report.{name}")
    assert callable(report.sections)
    assert report.LIMITS
    assert all(limit.endswith(".") for limit in report.LIMITS)


@pytest.mark.parametrize("name", tasks.metrics())
def test_a_metric_has_words_a_unit_and_a_range(name):
    metric = tasks.metric(name)
    assert metric.words
    assert metric.unit
    assert metric.most > 0
    assert metric.is_share == (metric.unit == "per cent")


def test_no_two_tasks_have_a_metric_of_the_same_name():
    metrics = [name for task in TASKS for name in tasks.load(task).metrics]
    assert len(set(metrics)) == len(metrics) == len(tasks.metrics()) - len(VALIDATORS)


def test_a_label_or_a_modality_may_follow_the_name_of_a_metric():
    assert tasks.metric("top1/verb").words == "top-1 accuracy (verb)"
    assert tasks.metric("top1/verb").is_share
    assert tasks.metric("norm/target/rgb").unit == tasks.metric("norm").unit
    assert tasks.metric("top1/action") is tasks.metrics()["top1/action"]


@pytest.mark.parametrize(("name", "nearest"), [("top_1", "top1"), ("t2v/Med", "t2v/MedR"), ("validator/snb", "snd")])
def test_an_unknown_metric_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(ConfigError, match=f"no metric '{name}'; did you mean '.*{nearest}'.*mean_class"):
        tasks.metric(name)


def listed():
    result = CliRunner().invoke(main, ["list", "metrics"], catch_exceptions=False)
    return [line.split()[0] for line in result.stdout.splitlines()]


def test_list_metrics_prints_every_name():
    assert listed() == list(tasks.metrics())


# -------------------------------------------------------------------------------------------------------- a new metric

LINE = '    "top2": Metric("top-2 accuracy", lambda scores, y: topk_accuracy(scores, y, 2)),\n'


@pytest.fixture
def one_line_more(tmp_path, monkeypatch):
    """The task `classification` from a copy of its file that has one line more."""
    name = "pipelines.tasks.classification"
    source = Path(importlib.import_module(name).__file__).read_text()
    path = tmp_path / "classification.py"
    path.write_text(source.replace("PER_LABEL = {\n", "PER_LABEL = {\n" + LINE))
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, name, module)
    for cached in (tasks.load, tasks.metrics):
        cached.cache_clear()
    yield
    for cached in (tasks.load, tasks.metrics):
        cached.cache_clear()


def test_one_line_adds_a_metric(one_line_more, tmp_path):
    assert "top2" in listed()
    stores = write_all(tmp_path / "stores")
    config = run(row="source-only", steps=3)
    results = evaluate(train(config, stores, tmp_path / "runs"), stores, "toy")
    values = {result.metric: result.value for result in results}
    assert values["top1"] <= values["top2"] <= 1
    table = render(results, Experiment("toy", "Toy.", (config,)), "top2")
    assert f"{100 * values['top2']:.1f}" in table
    assert "Top-2 accuracy in per cent" in table


def limits(train, test):
    """What is told about clips of these labels: one in "a", several kinds in {kind: name}."""
    labels = [name if isinstance(name, dict) else {"label": name} for name in (*train, *test)]
    clips = tuple(Clip(str(k), "d", "train", "v", labels=of) for k, of in enumerate(labels))
    rows = list(range(len(clips)))
    return tasks.load("classification").limits(Manifest("m", clips), rows[: len(train)], rows[len(train) :])


def test_classes_that_limit_what_accuracy_means():
    assert limits("xyxy", "xyy") == ()
    assert limits("xyz", "xy") == ()  # a class that the target lacks takes nothing from the numbers
    assert limits("", "xy") == ()  # without a source nothing is known
    (both,) = limits("xx", "x")
    assert both.startswith("ONE CLASS: the train clips of the source and the test clips all have the label 'x'")
    (test,) = limits("xy", "yy")
    assert test.startswith("ONE CLASS: the test clips all have the label 'y'")
    (unseen,) = limits("xy", "xyzzw")
    assert "3 of 5 test clips" in unseen
    assert "(w, z)" in unseen
    assert "at most 40.0 % can be right" in unseen
    kinds = [{"verb": "cut", "noun": noun} for noun in ("egg", "leek")]
    assert [text.split(" all have ")[1][:14] for text in limits(kinds, kinds)] == ["the verb 'cut'"]
