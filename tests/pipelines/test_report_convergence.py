"""The curves of a report over evaluation points: numbers of the kept outputs, by hand and by real runs."""

import re
from dataclasses import replace

import numpy as np
import pytest

from heads.methods import mmd
from pipelines.evaluation.evaluate import by_step, evaluate
from pipelines.experiments import Experiment
from pipelines.report.convergence import convergence
from pipelines.report.plots import Curve, curves
from pipelines.report.write import write
from pipelines.tables.build import build
from pipelines.training.runs import Run
from pipelines.training.train import train
from tests.helpers import stores
from tests.helpers.words import retrieval_run, retrieval_stores
from tests.pipelines.test_report import HOSTILE, Page


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds with three kept points each, and their results."""
    folder = tmp_path_factory.mktemp("curves")
    retrieval_stores(folder / "stores", copies=2)
    runs = tuple(retrieval_run(steps=6, eval_every=2, keep=3, select="last", seed=seed) for seed in (0, 1))
    made = [train(run, folder / "stores", folder / "runs") for run in runs]
    results = [result for run in made for result in evaluate(run, folder / "stores")]
    return folder, Experiment("films", "Films.", runs), results


def test_the_last_number_of_a_curve_is_the_result_and_each_is_the_mean_over_seeds(trained):
    folder, experiment, results = trained
    table = build(results, experiment)
    by_seed = [by_step(folder / "runs" / run.id, folder / "stores") for run in experiment.runs]
    assert [list(of) for of in by_seed] == [[2, 4, 6]] * 2
    for of, run in zip(by_seed, experiment.runs, strict=True):
        (result,) = (r for r in results if r.run == run.id and r.metric == table.metric)
        assert of[6][table.metric] == result.value
    text = convergence(experiment, table, folder / "runs", folder / "stores")
    tips = [float(tip) for tip in re.findall(r"<title>[^<]*, \d+: ([\d.]+)</title>", text)]
    assert tips == pytest.approx([100 * np.mean([of[k][table.metric] for of in by_seed]) for k in (2, 4, 6)], rel=1e-3)


def test_the_page_has_curves_only_where_runs_keep_several_points(trained, tmp_path):
    folder, experiment, results = trained
    one = replace(experiment, runs=tuple(replace(run, keep=1, eval_every=0) for run in experiment.runs))
    for of, expected in ((experiment, True), (one, False)):
        write(of, results, folder / "runs", folder / "stores", tmp_path / "page.html")
        texts = Page((tmp_path / "page.html").read_text()).texts
        assert ("Convergence" in texts) == expected


def test_a_missing_run_leaves_a_sentence_with_its_row(trained, tmp_path):
    folder, experiment, results = trained
    row, table = experiment.rows[0], build(results, experiment)
    assert f"No curve of {row}" in convergence(experiment, table, tmp_path, folder / "stores")
    assert "no run has a result" in convergence(experiment, build([], experiment), folder / "runs", folder / "stores")


@pytest.mark.slow
def test_every_metric_of_a_table_has_curves_or_a_reason(tmp_path):
    """Norms need the trained weights and gains two rows, so kept points have neither."""

    def labels(domain, split, name):
        return {"noun": name, "verb": name}

    stores.write_all(tmp_path / "stores", stores.manifest(labels=labels))
    first = stores.run(eval_every=4, keep=3, select="mean")
    experiment = Experiment("toy", "Toy.", (first, replace(first, method=mmd.Params(), target="night", row="MMD")))
    made = [train(run, tmp_path / "stores", tmp_path / "runs") for run in experiment.runs]
    results = [result for run in made for result in evaluate(run, tmp_path / "stores", "toy")]
    runs = zip(experiment.rows, map(Run.open, made), strict=True)
    points = {(row, point["step"]): point for row, run in runs for point in run.points}
    reasons = {}
    for metric in sorted({result.metric for result in results} | {"delta_acc"}):
        of = replace(experiment, metric=metric)
        text = convergence(of, build(results, of), tmp_path / "runs", tmp_path / "stores")
        tips = re.findall(r"<title>(\S+), (\d+): ([-\d.e]+)</title>", text)
        reasons[metric] = f"have no {metric}" in text
        assert reasons[metric] == (not tips)
        if metric.startswith("validator/"):
            name = metric.removeprefix("validator/")
            for row, step, value in tips:
                assert float(value) == pytest.approx(points[row, int(step)][name], rel=1e-3)
    assert {metric.split("/")[0] for metric, missing in reasons.items() if missing} == {
        "delta_acc",
        "norm",
        "cv_s",
        "cv_t",
        "cv_st",
    }
    assert any(metric.startswith("validator/") for metric in reasons)


def test_steps_are_named_where_only_the_last_points_are_kept(trained):
    folder, experiment, _ = trained
    late = replace(experiment, runs=tuple(replace(run, keep=2) for run in experiment.runs))
    for of, expected in ((experiment, False), (late, True)):
        text = convergence(of, build([], of), folder / "runs", folder / "stores")
        assert ("steps 4 to 6" in text) == expected


@pytest.mark.parametrize("scale", [1e-4, 1.0, 3e5])
def test_curves_are_inside_their_axes_and_equal_distances_stay_equal(scale):
    picture = curves([Curve(HOSTILE, ((scale, 2 * scale), (2 * scale, 4 * scale), (3 * scale, 6 * scale)))], "x", "alt")
    Page(picture)
    assert HOSTILE not in picture
    (corners,) = re.findall(r'points="([^"]+)"/>', picture)
    (x1, y1), (x2, y2), (x3, y3) = ([float(n) for n in corner.split(",")] for corner in corners.split())
    assert 44 <= x1 < x2 < x3 <= 408
    assert 10 <= y3 < y2 < y1 <= 214
    assert (x2 - x1, y2 - y1) == pytest.approx((x3 - x2, y3 - y2), abs=0.2)


def test_a_curve_of_one_number_is_drawn():
    assert "NaN" not in curves([Curve("m", ((5.0, 0.0),))], "step", "alt")
