"""Numbers that earlier versions measured on features that are not classified: tables leave them out and say so."""

import json
from dataclasses import replace

import pytest

from featcache.errors import ConfigError
from heads.methods import adabn, nearest_mean, rna
from heads.nets import mtran
from pipelines.config import Feed
from pipelines.evaluation.evaluate import evaluate
from pipelines.experiments import Experiment
from pipelines.tables import choosing
from pipelines.tables.build import build, norms_table
from pipelines.tables.outdated import current, outdated
from pipelines.training.runs import NotTrainedError, Run, write_sums
from pipelines.training.train import train
from tests.helpers.result_rows import config, result
from tests.helpers.stores import run, write_all

PLAIN = config("RNA (UDA)", ("day",), "night", 0, target="night")
OWN = replace(PLAIN, row="AdaBN", method=adabn.Params())
EACH = replace(PLAIN, row="windows", feeds={m: replace(feed, test="each") for m, feed in PLAIN.feeds.items()})
FUSED = replace(PLAIN, row="fused", net=mtran.Params())
TOY = Experiment("toy", "", (PLAIN, OWN, EACH, FUSED))


def measured(metric, value=0.5, **changes):
    return [result(run, value, metric, **changes) for run in TOY.runs]


@pytest.mark.parametrize("metric", ["cv_st", "norm/target/rgb", "validator/dev"])
def test_only_numbers_of_other_features_are_left_out(metric):
    runs = tuple(replace(run, holdout=0.2) for run in TOY.runs)
    toy = replace(TOY, runs=runs)
    old = [result(run, 0.5, metric) for run in runs]
    table = build(old, toy, metric)
    assert [line.method for line in table.lines if line.measured] == ["RNA (UDA)"]
    (note,) = [note.text for note in table.notes if note.text.startswith("OUT OF DATE")]
    assert "AdaBN, windows, fused" in note
    assert toy.command in note
    again = build([replace(row, classified=True) for row in old], toy, metric)
    assert all(line.measured for line in again.lines)
    assert not any("OUT OF DATE" in note.text for note in again.notes)


def test_accuracies_are_left_out_only_where_dev_chose_them():
    table = build(measured("top1"), TOY)
    assert all(line.measured for line in table.lines)
    assert not any("OUT OF DATE" in note.text for note in table.notes)
    runs = tuple(replace(run, select="dev", holdout=0.2) for run in TOY.runs)
    chosen = build([result(run, 0.5) for run in runs], replace(TOY, runs=runs))
    assert [bool(line.measured) for line in chosen.lines] == [True, False, False, False]


@pytest.mark.parametrize("run", [replace(OWN, net=mtran.Params(), method=nearest_mean.Params()), FUSED])
def test_metrics_that_a_run_no_longer_has_are_left_out_once_it_is_measured_again(run):
    """An earlier version wrote norms of fused and of single features; each run classifies one kind or the other."""
    toy = replace(TOY, runs=(run,))
    kinds = ("fused",) if run is FUSED else ("rgb", "flow")
    old = [result(run, 1.0, f"norm/{side}/{m}") for side in ("source", "target") for m in ("rgb", "flow", "fused")]
    old += [result(run, 0.5, cv) for cv in ("cv_s", "cv_t", "cv_st")]
    new = [replace(row, classified=True) for row in old if row.metric.endswith(kinds)]
    new += [replace(row, classified=True) for row in old if row.metric.startswith("cv_") and run is not FUSED]
    latest = list({row.metric: row for row in (*old, *new)}.values())
    assert "OUT OF DATE" in norms_table(old, toy)
    text = norms_table(latest, toy)
    assert "OUT OF DATE" not in text
    assert "MISSING" not in text
    assert ("0.500" in text) == (run is not FUSED)
    assert ("one kind of features has norms: fused" in " ".join(text.split())) == (run is FUSED)
    gone = "norm/target/fused" if run is not FUSED else "norm/target/rgb"
    assert gone not in {row.metric for row in current(latest, toy)}
    assert outdated([row for row in latest if row.metric == gone], toy, latest) == []


def test_the_table_of_norms_and_choose_leave_them_out():
    text = norms_table(measured("cv_st"), TOY)
    assert "OUT OF DATE" in text
    assert "MISSING" in text
    with pytest.raises(ConfigError, match="two candidates"):
        choosing.table(measured("top1", select="dev"), TOY)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"))


def test_runs_that_kept_scores_by_dev_are_trained_again_and_others_are_not(stores, tmp_path):
    fact = "features of the validator dev"
    plain = run(steps=1, holdout=0.25, target="night", method=rna.Params())
    own = replace(plain, method=adabn.Params())
    without_dev = replace(own, holdout=0.0)
    each = replace(plain, feeds={m: Feed(feed.store, test="each") for m, feed in plain.feeds.items()})
    fused = replace(plain, net=mtran.Params(dim=8, layers=1))
    for one, has in ((without_dev, False), (own, True), (each, True), (fused, True)):
        folder = train(one, stores, tmp_path)
        facts = json.loads((folder / "run.json").read_text())
        assert (facts["read"].pop(fact, "") == "classified") == has
        (folder / "run.json").write_text(json.dumps(facts))  # as an earlier version wrote it
        write_sums(folder)
        if not has:
            assert all(row.classified for row in evaluate(folder, stores))
            continue
        with pytest.raises(NotTrainedError, match=fact):
            Run.open(folder).opened(stores)
