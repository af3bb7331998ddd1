"""A clustering run from configuration to table, in both stages; what it may know of the target, and what it refuses."""

import dataclasses

import numpy as np
import pytest
import torch

from featcache import Manifest
from featcache.errors import ConfigError
from heads.methods import codt, source_only
from heads.nets import adapter, stgcn
from pipelines import experiments
from pipelines.config import Feed
from pipelines.data.opening import open_run
from pipelines.evaluation.evaluate import accuracies, evaluate, predictions
from pipelines.experiments import Experiment
from pipelines.measures.clusters import acc_hungarian
from pipelines.report import write as report
from pipelines.tables import build as tables
from pipelines.tables import choosing
from pipelines.tasks.clustering import TASK
from pipelines.training.runs import Run
from pipelines.training.train import train
from tests.helpers.skeleton_stores import CLASSES, JOINTS, LATE, manifest, run, write_all
from tests.helpers.weights import saved

OCM, CCM = codt.Params(lambda_cot=0), codt.Params()
TRUTH = np.repeat(np.arange(4), 2)  # of the target's test rows
BRANCHES = {"B0", "B1", "B0/kmeans", "B1/kmeans"}


@pytest.fixture(scope="module", autouse=True)
def ordinary_first_weights():
    """torch's own: from the paper's, it takes hundreds of steps until rows look different in eval mode."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stgcn, "draw_weights", lambda module: None)
        yield


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def stages():
    """BM, then +OCM and +OCM+CCM from where it ended, of which three points are kept."""
    first = run()
    second = {"init_from": first.id, "eval_every": 1, "keep": 3, "select": "mean"}
    return first, run(row="+OCM", method=OCM, **second), run(row="+OCM+CCM", method=CCM, **second)


@pytest.fixture(scope="module")
def made(stores, runs):
    """The folders of the three rows."""
    return [train(config, stores, runs) for config in stages()]


@pytest.fixture(scope="module")
def table(stores, made):
    """The rows of three methods, and their experiment."""
    return [row for folder in made for row in evaluate(folder, stores, "toy")], Experiment("toy", "Clusters.", stages())


# ------------------------------------------------------------------------------------------------- what a run may know


def test_classes_are_those_of_the_source_and_clusters_those_of_the_target(stores):
    opened = open_run(run(), stores)
    assert opened.spec.classes == {"label": 3}
    assert opened.spec.clusters == 4  # one of them in the test split alone
    assert opened.classes == {"label": CLASSES["utk"]}
    assert opened.spec.shapes == {store: (3, 8, V, 2) for store, V in JOINTS.items()}


def test_classes_of_the_source_are_numbered_among_themselves(stores):
    """In the manifest they come last."""
    rows = open_run(run(), stores).sides["source"]
    assert rows.y["label"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert set(rows.present) == {"shared"}


def test_no_side_but_the_source_has_labels(stores):
    opened = open_run(run(), stores)
    assert opened.sides["target"].y == opened.test().y == {}
    assert len(opened.sides["target"]) == 12
    assert len(opened.test()) == 8


def test_which_row_of_the_target_has_which_label_changes_nothing(stores, runs, made, tmp_path):
    """In another world its train clips have each other's labels, and its test clips too."""
    ids = [clip.clip_id for clip in manifest() if clip.domain == "msr"]
    labels = {clip.clip_id: clip.labels["label"] for clip in manifest()}
    other = {clip: labels[ids[k - 7]] for k, clip in enumerate(ids)}
    world = write_all(tmp_path, manifest(rename=other))
    for config, folder in zip(stages()[::2], made[::2], strict=True):
        again = train(config, world, tmp_path / "runs")
        assert (again / "log.jsonl").read_text() == (folder / "log.jsonl").read_text()
        before, after = saved(folder), saved(again)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_classification_between_domains_without_a_common_class_is_refused(stores, runs):
    flat = dataclasses.replace(stages()[0], method=source_only.Params(), net=adapter.Params(), target=None, epoch=4)
    complaint = r"no class of 'label' .*utk \(utk:carry, ...\) and msr \(msr:bow, ...\).* codt"
    with pytest.raises(ConfigError, match=complaint):
        train(flat, stores, runs)


# ------------------------------------------------------------------------------------------------------- what is kept


def test_features_are_kept_of_both_branches_and_clusters_of_the_second_stage(made):
    first, *second = (Run.open(folder).outputs for folder in made)
    assert first.keys() == {"rows", "feature_B0", "feature_B1"}
    for point_outputs in second:
        assert point_outputs.keys() == first.keys() | {"cluster_B0", "cluster_B1"}
        assert point_outputs["cluster_B0"].shape == point_outputs["cluster_B1"].shape == (3, 8, 4)
    assert first["feature_B1"].shape == (1, 8, 8)


def test_terms_of_the_stages(made):
    first, ocm, ccm = (set(Run.open(folder).log()[-1]) - {"step"} for folder in made)
    assert first == {"L_sup", "L_dec", "L_cont"}
    assert ocm == first | {"L_cls"}
    assert ccm == ocm | {"L_cot"}


def test_a_finished_method_is_built_again_with_its_clusters(made, stores):
    finished = Run.open(made[-1])
    method, test = finished.method(), open_run(finished.config, stores).test()
    with torch.no_grad():
        logits = torch.cat([method.predict(side)["cluster_B1"] for side in test.sweep()])
    assert np.allclose(finished.outputs["cluster_B1"][-1], logits, atol=1e-6)


def test_one_feed_serves_both_branches(stores, runs):
    folder = train(run(feeds={"shared": Feed("shared")}, steps=1), stores, runs)
    assert Run.open(folder).outputs.keys() == {"rows", "feature_B0", "feature_B1"}


# --------------------------------------------------------------------------------------------------- what is measured


def test_metrics_are_of_both_branches_by_classifier_and_kmeans(table):
    rows, experiment = table
    first, *second = ({row.metric for row in rows if row.run == config.id} for config in experiment.runs)
    assert {name.partition("/")[2] for name in first} == {"B0/kmeans", "B1/kmeans"}
    for metrics in second:
        assert {name.partition("/")[2] for name in metrics} == BRANCHES
        assert len(metrics) == 16  # no accuracy of classes, no norms, no validators


@pytest.fixture(scope="module")
def points(made):
    """Metrics of each kept point of +OCM."""
    kept = Run.open(made[1]).outputs
    return [
        TASK.measure({n: out[k] for n, out in kept.items() if n != "rows"}, {"label": TRUTH}, None, 4) for k in range(3)
    ]


def test_numbers_are_means_over_the_kept_points(points, table):
    expected = {name: np.mean([point[name] for point in points]) for name in points[0]}
    assert {row.metric: row.value for row in table[0] if row.row == "+OCM"} == pytest.approx(expected)
    assert points[0] != points[2]


def test_the_oracle_takes_the_best_point_by_hungarian(made, points):
    made = Run.open(made[1])
    other = dataclasses.replace(made, config=dataclasses.replace(made.config, select="oracle"))
    for best in range(3):
        moved = [{**point, "acc_hungarian/B0": 0.5 + 0.1 * (k == best)} for k, point in enumerate(points)]
        assert accuracies(other, moved.__getitem__) == moved[best]


# --------------------------------------------------------------------------------------------------------------- table


def cells(text, method):
    line = next(line for line in text.splitlines() if line.startswith(f"| {method} "))
    return [cell.strip() for cell in line.split("|")]


def test_the_headline_is_hungarian_by_kmeans_where_there_is_no_classifier(table):
    rows, experiment = table
    text = tables.render(rows, experiment)
    for method, metric in {"BM": "acc_hungarian/B0/kmeans", "+OCM": "acc_hungarian/B0"}.items():
        (value,) = [100 * r.value for r in rows if r.metric == metric and r.row == method]
        assert cells(text, method)[2].strip("*_") == f"{value:.1f}"
    printed = " ".join(text.split())
    assert "Accuracy (Hungarian matching) of clusters, branch B0 in per cent on the test rows" in printed
    assert "By k-means, because their runs have no classifier of clusters: BM." in printed
    assert "true numbers of classes (oracle K)" in printed
    assert "utk→msr" in printed
    assert "MISSING" not in printed


def test_other_metrics_have_tables_of_their_own(table):
    rows, experiment = table
    printed = " ".join(tables.render(rows, experiment, "nmi/B1/kmeans").split())
    assert "Normalised mutual information of clusters, branch B1, by k-means (mean of 10 starts) in per cent" in printed
    assert "By k-means, their results" not in printed
    with pytest.raises(ConfigError, match="no metric 'top1' in the results of 'toy'"):
        tables.render(rows, experiment, "top1")


def test_what_is_of_modalities_is_left_out_with_a_word(table):
    with pytest.raises(ConfigError, match="'toy'.*clustering.*norms"):
        tables.norms_table(*table)


def test_the_confusion_is_of_matched_clusters(made, stores):
    for folder in made:
        predicted, kept = predictions(folder, stores), Run.open(folder).outputs
        assert predicted.classes == CLASSES["msr"]
        assert predicted.truth.tolist() == TRUTH.tolist()
        if "cluster_B0" in kept:
            assert np.mean(predicted.predicted == TRUTH) == acc_hungarian(kept["cluster_B0"][-1].argmax(1), TRUTH)


def test_the_report_shows_it(table, stores, runs, tmp_path):
    rows, experiment = table
    report.write(experiment, rows, runs, stores, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    for word in ("Accuracy (Hungarian matching) of clusters, branch B0 per shift", "msr:draw", LATE):
        assert word in page
    assert "Feature norms" not in page


def test_candidates_are_compared_by_hungarian(table, runs):
    rows = [dataclasses.replace(row, row="same") for row in table[0] if row.row != "BM"]
    text = choosing.table(rows, choosing.evaluated(Experiment("toy", "", ()), rows, runs)).text()
    assert "acc_hungarian/B0" in text.splitlines()[0]
    assert {"oracle"} == {line.split("|")[3].strip() for line in text.splitlines()[2:]}


def test_published_numbers_stand_beside_ours(tmp_path):
    path = tmp_path / "mine.py"
    text = (
        "from tests.helpers.skeleton_stores import run\nRUNS = (run(),)\n"
        "PUBLISHED = {'BM': {'utk→msr': {'acc_hungarian/B0': 16.6, 'nmi/B1': 23.3, 'ari/B1/kmeans': 6.4}}}"
    )
    path.write_text(text)
    assert experiments.load(path).published_numbers("BM", "nmi/B1", headline=False) == {"utk→msr": 23.3}


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": None, "test": "msr"}, "method 'codt' needs target"),
        ({"source": ()}, "method 'codt' needs source"),
        ({"test": "flo"}, "test='flo', but a clustering run finds the clusters of its target 'msr'"),
        ({"holdout": 0.3}, "holdout=0.3 has no use"),
        ({"select": "snd"}, "select='snd' needs class predictions, but a clustering run has none"),
        ({"select": "source_val"}, "choose from last, mean, oracle"),
        ({"feeds": {"own": Feed("own", seen_by="target test")}}, "seen_by='target test' lacks source"),
        ({"feeds": {"shared": Feed("shared"), "own": Feed("own", seen_by="target")}}, "seen_by='target' lacks test"),
        ({"feeds": {"shared": Feed("shared", captions="own")}}, "a clustering net reads no captions"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes, message):
    with pytest.raises(ConfigError) as error:
        run(**changes)
    assert message in str(error.value)


def relabelled(folder, change):
    """A folder of stores whose manifest says something else of labels."""
    of = manifest()
    write_all(folder, Manifest("motions", tuple(dataclasses.replace(clip, labels=change(clip)) for clip in of)))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda clip: {}, "'motions' has: none"),
        (lambda clip: {"verb": "a", "noun": "b"}, "'motions' has: noun, verb"),
        (lambda clip: clip.labels if clip.domain == "utk" else {}, "domain 'msr' has 0 classes"),
        (lambda clip: {"label": clip.domain}, "domain 'msr' has 1 classes"),
    ],
)
def test_labels_that_tell_no_clusters_are_refused(change, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        open_run(run(), relabelled(tmp_path, change))


def test_more_clusters_than_test_rows_are_refused_before_training(tmp_path, stores):
    stores = relabelled(tmp_path, lambda clip: {"label": clip.clip_id if clip.domain == "msr" else clip.domain})
    with pytest.raises(ConfigError, match="8 test rows of msr .*20 clusters.*test_split"):
        train(run(), stores, tmp_path / "runs")


def test_a_test_row_without_a_label_is_not_scored(tmp_path):
    stores = relabelled(tmp_path, lambda clip: {} if clip.clip_id == "msr:bow-test1" else clip.labels)
    folder = train(run(steps=0), stores, tmp_path / "runs")
    rows = len(Run.open(folder).outputs["rows"])
    assert {row.n for row in evaluate(folder, stores)} == {rows - 1}
