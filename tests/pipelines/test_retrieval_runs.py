"""A retrieval run from configuration to table: what is kept, what is measured, what a target's captions can change."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch

from featcache.errors import ConfigError
from heads.methods import cdan_keels, coral, dann, mmd, sinkhorn
from heads.nets import ce
from pipelines.config import Optim
from pipelines.data.opening import open_run
from pipelines.evaluation import results
from pipelines.evaluation.evaluate import evaluate, predictions
from pipelines.experiments import Experiment
from pipelines.measures.outcomes import decode
from pipelines.report import write as report
from pipelines.tables import build as tables
from pipelines.tables import choosing
from pipelines.training import engine
from pipelines.training.outputs import scores
from pipelines.training.runs import Run
from pipelines.training.train import train
from tests.helpers.caption_stores import captions, clips, run, write_all
from tests.helpers.weights import saved


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"), uncaptioned=(25,))


PLAIN = {"holdout": 0.3, "optim": Optim("adam", lr=0.02), "seed": 3}


def three_points(**changes):
    """A run that looks three times, on held-out rows as well; there it is best at the first."""
    return run(**{"steps": 60, "eval_every": 20, "keep": 3, **PLAIN, **changes})


@pytest.fixture(scope="module")
def kept(stores, tmp_path_factory):
    """The run with all of its points."""
    return train(three_points(select="mean"), stores, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def chosen(stores, tmp_path_factory):
    """The run with the point that source_val takes."""
    return train(three_points(select="source_val"), stores, tmp_path_factory.mktemp("runs"))


def adapting(module=mmd, **changes):
    return run(**{"method": module.Params(), "target": "night", "row": module.__name__, **changes})


def values(folder, stores):
    return {result.metric: result.value for result in evaluate(folder, stores)}


# ------------------------------------------------------------------------------------------------------- what is kept


def test_clips_and_captions_of_the_test_are_kept_with_who_is_whose(kept, stores):
    kept_outputs, clip_manifest, texts = Run.open(kept).outputs, clips(), captions(clips(), [25])
    assert kept_outputs["rows"].tolist() == list(range(24, 30))
    assert kept_outputs["visual"].shape == (3, 6, 8)
    assert kept_outputs["text"].shape == (3, 10, 8)  # 1 + 0 + 3 + 1 + 2 + 3
    assert [texts.clips[c].of for c in kept_outputs["captions"]] == [
        clip_manifest.clips[kept_outputs["rows"][k]].clip_id for k in kept_outputs["clip"]
    ]
    assert 1 not in kept_outputs["clip"]


def test_kept_embeddings_are_those_of_the_trained_net(kept, stores):
    method, test = Run.open(kept).method(), open_run(run(), stores).test()
    kept_outputs = Run.open(kept).outputs
    with torch.no_grad():
        visual = torch.cat([method.net.encode(side)["visual"] for side in test.sweep()])
        text = torch.cat([method.net.encode(side)["text"] for side in test.captions.sweep()])
    assert np.allclose(kept_outputs["visual"][-1], visual, atol=1e-6)
    assert np.allclose(kept_outputs["text"][-1], text, atol=1e-6)


def test_of_a_chosen_point_outputs_and_weights_are_kept_and_nothing_of_the_others(kept, chosen, stores, tmp_path):
    every, one = Run.open(kept), Run.open(chosen)
    first, *later = [point["source_val"] for point in every.points]
    assert first > max(later)
    assert one.points == every.points[:1]
    for name in ("visual", "text"):
        assert np.array_equal(one.outputs[name], every.outputs[name][:1])
    short = saved(train(run(steps=20, **PLAIN), stores, tmp_path))
    long, best = (saved(folder) for folder in (kept, chosen))
    assert all(torch.equal(best[name], weights) for name, weights in short.items())
    assert not all(torch.equal(long[name], weights) for name, weights in short.items())


def test_of_equal_points_the_latest_is_kept(stores, tmp_path):
    """Of a net that does not learn."""
    made = Run.open(train(three_points(select="source_val", optim=Optim("sgd", lr=1e-30)), stores, tmp_path))
    assert [point["step"] for point in made.points] == [60]


# --------------------------------------------------------------------------------------------------- what is measured


def naive(text, visual, clip):
    """Recall at 1 both ways, by loops; no ties here."""
    xi = text @ visual.T
    t2v = [int((xi[c] > xi[c, clip[c]]).sum()) for c in range(len(text))]
    v2t = []
    for v in range(len(visual)):
        own = [xi[c, v] for c in range(len(text)) if clip[c] == v]
        if own:
            v2t.append(int((xi[:, v] > max(own)).sum()))
    return t2v, v2t


def test_metrics_are_those_of_the_point_that_is_chosen(kept, chosen, stores):
    run_, metrics = Run.open(kept), values(chosen, stores)
    kept_outputs, points = run_.outputs, [point["source_val"] for point in run_.points]
    k = max(range(3), key=lambda k: (points[k], k))
    t2v, v2t = naive(kept_outputs["text"][k], kept_outputs["visual"][k], kept_outputs["clip"])
    for way, ranks, n in (("t2v", t2v, 10), ("v2t", v2t, 5)):  # the clip without captions asks for nothing
        assert len(ranks) == n
        recalls = [np.mean([rank < k for rank in ranks]) for k in (1, 5, 10)]
        assert [metrics[f"{way}/R@{k}"] for k in (1, 5, 10)] == pytest.approx(recalls)
        assert metrics[f"{way}/GM"] == pytest.approx(np.prod(recalls) ** (1 / 3))
        assert metrics[f"{way}/MedR"] == np.median(ranks) + 1
        assert metrics[f"{way}/MeanR"] == pytest.approx(np.mean(ranks) + 1)
    assert metrics["validator/source_val"] == points[k]
    assert len(metrics) == 13  # no accuracy, no norms


def test_outcomes_are_those_of_the_captions_of_each_clip_and_of_each_captioned_clip(kept, stores):
    found = {row.metric: (decode(row.clips), row) for row in evaluate(kept, stores) if row.clips}
    assert set(found) == {"t2v/R@1", "v2t/R@1"}
    for metric, (outcomes, row) in found.items():
        assert outcomes.value == pytest.approx(row.value), metric
        assert len(outcomes.right) == row.n, metric
    run = Run.open(kept)
    per_clip = np.bincount(run.outputs["clip"], minlength=len(run.outputs["rows"])) * len(run.points)
    assert (found["t2v/R@1"][0].answers == per_clip).all()


def test_source_val_is_measured_on_held_out_source_rows(kept, stores):
    opened = open_run(Run.open(kept).config, stores)
    method, held = Run.open(kept).method(), opened.sides["source_val"]
    with torch.no_grad():
        (clip,), (text,) = ([method.net.encode(s) for s in rows.sweep()] for rows in (held, held.captions))
    ranks = naive(text["text"].numpy(), clip["visual"].numpy(), held.captions.row.tolist())
    gm = [np.prod([np.mean([rank < k for rank in way]) for k in (1, 5, 10)]) ** (1 / 3) for way in ranks]
    assert scores(method, opened) == pytest.approx({"source_val": np.mean(gm)})
    assert Run.open(kept).points[-1]["source_val"] == pytest.approx(np.mean(gm))


def test_selection_rules(stores, tmp_path):
    base = {"steps": 30, "eval_every": 10, "keep": 3, "optim": Optim("adam", lr=0.05)}
    metrics = {rule: values(train(run(select=rule, **base), stores, tmp_path), stores) for rule in ("mean", "oracle")}
    kept_outputs = Run.open(tmp_path / run(select="mean", **base).id).outputs
    ranks = [naive(kept_outputs["text"][k], kept_outputs["visual"][k], kept_outputs["clip"]) for k in range(3)]
    assert metrics["mean"]["t2v/MeanR"] == pytest.approx(np.mean([np.mean(t2v) + 1 for t2v, _ in ranks]))
    gm = [np.mean([np.prod([np.mean(np.array(w) < k) for k in (1, 5, 10)]) ** (1 / 3) for w in r]) for r in ranks]
    best = max(range(3), key=lambda k: (gm[k], k))
    assert metrics["oracle"]["t2v/MeanR"] == pytest.approx(np.mean(ranks[best][0]) + 1)


def test_training_finds_what_clips_and_captions_share(tmp_path):
    """Both see the same points; 24 candidates, of which chance finds one in 24."""
    stores = write_all(tmp_path, of=clips(train=40, test=24), lacking=())
    config = run(net=ce.Params(dim=16), batch=(20, 0), steps=60, optim=Optim("adam", lr=0.02))
    before, after = (values(train(dataclasses.replace(config, steps=k), stores, tmp_path), stores) for k in (0, 60))
    assert before["t2v/R@1"] < 0.25
    assert after["t2v/R@1"] > 0.6
    assert after["v2t/R@1"] > 0.6


# ------------------------------------------------------------------------------------------------------ what is hidden


def test_captions_of_the_target_change_nothing_of_the_training(tmp_path):
    """In one world its train clips have none, in another they cannot be read: log and weights are the same."""
    night = [c for c, text in enumerate(captions(clips())) if text.of.startswith("night-train")]
    worlds = {"bare": {"uncaptioned": range(15, 24)}, "unread": {"unread": night}, "plain": {}}
    logs, heads = [], []
    for world, options in worlds.items():
        stores = write_all(tmp_path / world, lacking=(), **options)
        folder = train(adapting(absent="refuse"), stores, tmp_path / world / "runs")
        logs.append((folder / "log.jsonl").read_text())
        heads.append(saved(folder))
    assert set(json.loads(logs[0].splitlines()[0])) == {"step", "L_R", "L_mmd"}
    assert logs[0] == logs[1] == logs[2]
    for name, weights in heads[0].items():
        assert torch.equal(heads[1][name], weights)
        assert torch.equal(heads[2][name], weights)


@pytest.mark.parametrize("module", [coral, dann, sinkhorn], ids=lambda m: m.__name__.split(".")[-1])
def test_methods_of_alignment_train_on_captioned_clips(module, stores, tmp_path):
    folder = train(adapting(module, steps=2), stores, tmp_path)
    last = Run.open(folder).log()[-1]
    assert len(last) == 3
    assert np.isfinite(list(last.values())).all()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_what_training_warns_of_is_told_in_words(workers, stores, tmp_path):
    runs = [adapting(cdan_keels, method=cdan_keels.Params(K=4), steps=1, seed=seed) for seed in (0, 1)]
    outcomes = engine.run_all(runs, stores, tmp_path, workers=workers)
    warning = "method.K=4 keels of 9 clips of the target: most keels represent only one or two rows"
    assert [(outcome.status, outcome.warnings) for outcome in outcomes] == [("trained", (warning,))] * 2


def test_a_caption_that_moves_to_another_clip_makes_the_run_out_of_date(stores, kept, tmp_path):
    folder = write_all(tmp_path, uncaptioned=(25,))
    path = folder / "clips_captions" / "manifest.csv"
    path.write_text(path.read_text().replace("night-test3\n", "night-test4\n"))
    with pytest.raises(ConfigError, match="captions has changed since run"):
        evaluate(kept, folder)


# --------------------------------------------------------------------------------------------------------------- table


@pytest.fixture(scope="module")
def table(stores, tmp_path_factory):
    """The rows of two methods over two seeds, their experiment and the folder of runs."""
    runs = tmp_path_factory.mktemp("runs")
    configs = [config for seed in (0, 1) for config in (run(seed=seed), adapting(row="MMD", seed=seed))]
    rows = [row for config in configs for row in evaluate(train(config, stores, runs), stores, "toy")]
    return rows, Experiment("toy", "Captions.", tuple(configs)), runs


def cells(text, method):
    return next(line for line in text.splitlines() if line.startswith(f"| {method}"))


def test_the_headline_is_recall_at_one_in_per_cent(table):
    rows, experiment, _ = table
    text = tables.render(rows, experiment)
    mean = np.mean([100 * r.value for r in rows if r.metric == "t2v/R@1" and r.row == "MMD"])
    assert re.search(rf" (\*\*|_)?{mean:.1f} ± ", cells(text, "MMD"))
    assert "Recall at 1, text to video in per cent on the test rows" in " ".join(text.split())
    assert "DIFFERENT" not in text


def test_ranks_are_plain_numbers_and_lower_is_better(table):
    rows, experiment, _ = table
    text = tables.render(rows, experiment, "v2t/MeanR")
    mean = np.mean([r.value for r in rows if r.metric == "v2t/MeanR" and r.row == "MMD"])
    assert re.search(rf" (\*\*|_)?{mean:.1f} ± ", cells(text, "MMD"))
    assert "Mean rank, video to text (lower is better) on the test rows" in " ".join(text.split())
    assert "Recall at 10, video to text in per cent" in tables.render(rows, experiment, "v2t/R@10")


def test_what_is_of_classes_is_left_out_with_a_word(table, stores, tmp_path):
    rows, experiment, runs = table
    with pytest.raises(ConfigError, match="'toy'.*retrieval.*norms"):
        tables.norms_table(rows, experiment)
    with pytest.raises(ConfigError, match="is a retrieval run; a confusion matrix needs classes"):
        predictions(runs / experiment.runs[0].id, stores)
    report.write(experiment, rows, runs, stores, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    for word in ("Example queries", "Embeddings of clips and captions", "Recall at 1, text to video per shift"):
        assert word in page
    assert "clips_captions/words" in page
    results.append(tmp_path / "results.jsonl", rows)
    assert {(r.run, r.metric): r.value for r in results.read(tmp_path / "results.jsonl")} == {
        (r.run, r.metric): r.value for r in rows
    }


def test_candidates_are_compared_by_recall(stores, tmp_path):
    rows = []
    for lr in (0.001, 0.05):
        config = run(holdout=0.3, optim=Optim("adam", lr=lr))
        rows += evaluate(train(config, stores, tmp_path), stores, "toy")
    toy = choosing.evaluated(Experiment("toy", "", ()), rows, tmp_path)
    text = choosing.table(rows, toy).text()
    assert "t2v/R@1" in text.splitlines()[0]
    assert {"source_val", "oracle"} == {line.split("|")[3].strip() for line in text.splitlines()[2:]}
    with pytest.raises(ConfigError, match="'t2v/MedR'.*top1"):
        choosing.table(rows, toy, "t2v/MedR")


def test_published_ranks_may_be_above_a_hundred(tmp_path):
    from pipelines import experiments

    path = tmp_path / "mine.py"
    text = (
        "from tests.helpers.caption_stores import run\nRUNS = (run(),)\n"
        "PUBLISHED = {'gated': {'day→night': {METRIC: 160.0}}}"
    )
    path.write_text(text.replace("METRIC", "'t2v/MedR'"))
    assert experiments.load(path).published_numbers("gated", "t2v/MedR", headline=False) == {"day→night": 160.0}
    for metric, most in {
        "t2v/R@1": "per cent from 0 to 100",
        "a_distance/joint": "A-distance from 0 to 2",
    }.items():
        path.write_text(text.replace("METRIC", repr(metric)))
        with pytest.raises(ConfigError, match=rf"{metric}'\]=160.0 .*{most}"):
            experiments.load(path)
