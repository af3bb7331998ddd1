"""Files of predictions, and ensembles of seeds."""

import csv
import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from featcache.errors import ConfigError, FeatcacheError
from pipelines.cli import main
from pipelines.evaluation import predictions
from pipelines.evaluation.ensembles import ensemble
from pipelines.evaluation.evaluate import evaluate
from pipelines.experiments import Experiment
from pipelines.tables.build import build
from pipelines.tables.ensembles import with_ensembles
from pipelines.training.runs import NotTrainedError, Run
from pipelines.training.train import train
from tests.helpers import caption_stores, skeleton_stores
from tests.helpers.stores import manifest, run, write_all


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Clips with two kinds of labels."""
    two = manifest(labels=lambda d, split, name: {"verb": name, "noun": {"chop": "leek"}.get(name, "soup")})
    return write_all(tmp_path_factory.mktemp("stores"), two)


SEEDS = [run(seed=seed, steps=4, eval_every=2, keep=2, row="plain") for seed in (0, 1, 2)]


@pytest.fixture(scope="module")
def folders(stores, tmp_path_factory):
    """Three runs that differ in their seeds."""
    base = tmp_path_factory.mktemp("runs")
    return [train(config, stores, base) for config in SEEDS]


def softmax(z):
    return np.exp(z) / np.exp(z).sum(1, keepdims=True)


def test_a_parquet_file_comes_back_as_it_was(stores, folders, tmp_path):
    path = tmp_path / "new.parquet"
    predictions.write(path, [(config, folder, stores) for config, folder in zip(SEEDS, folders, strict=True)])
    table = pd.read_parquet(path)
    assert len(table) == 3 * 6 * 2  # runs, test clips, label kinds
    names = table.attrs["classes"]["toy"]["verb"]
    assert names == ["chop", "peel", "stir"]
    for config, folder in zip(SEEDS, folders, strict=True):
        made, clips = Run.open(folder), manifest().clips
        part = table[(table.run == config.id) & (table.label == "verb")]
        assert part.clip_id.tolist() == [clips[row].clip_id for row in made.outputs["rows"]]
        assert part.truth.tolist() == [clips[row].labels["label"] for row in made.outputs["rows"]]
        assert np.stack(part.probabilities) == pytest.approx(softmax(made.outputs["verb"][-1]), abs=1e-6)
        assert part.predicted.tolist() == [names[k] for k in made.outputs["verb"][-1].argmax(1)]
        assert {*part.seed} == {config.seed}
        assert (part.row.iloc[0], part.source.iloc[0], part.test.iloc[0], part.step.iloc[0]) == (
            "plain",
            "day",
            "night",
            4,
        )
        (top1,) = [each.value for each in evaluate(folder, stores) if each.metric == "top1/verb"]
        assert (part.truth == part.predicted).mean() == pytest.approx(top1)


def test_a_csv_file_has_the_same_values(stores, folders, tmp_path):
    runs = [(SEEDS[0], folders[0], stores)]
    for name in ("p.csv", "p.parquet"):
        predictions.write(tmp_path / name, runs)
    with (tmp_path / "p.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    table = pd.read_parquet(tmp_path / "p.parquet")
    assert list(lines[0]) == list(table.columns)
    assert [line["predicted"] for line in lines] == table.predicted.tolist()
    for line, probabilities in zip(lines, table.probabilities, strict=True):
        assert json.loads(line["probabilities"]) == pytest.approx(probabilities.tolist(), abs=1e-6)


def test_nothing_is_written_if_a_run_cannot_be_read(stores, folders, tmp_path):
    runs = [(SEEDS[0], folders[0], stores), (SEEDS[1], tmp_path / SEEDS[1].id, stores)]
    with pytest.raises(NotTrainedError):
        predictions.write(tmp_path / "p.parquet", runs)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "old.csv").write_text("mine")
    predictions.check(tmp_path / "old.csv", SEEDS, overwrite=True)
    for name, match in (("old.csv", "--overwrite"), ("p.txt", r"\.parquet or \.csv"), ("", "folder|must end")):
        with pytest.raises(FeatcacheError, match=match):
            predictions.check(tmp_path / name, SEEDS, overwrite=False)
    with pytest.raises(ConfigError, match="retrieval.*featcache search"):
        predictions.check(tmp_path / "p.csv", [caption_stores.run()], overwrite=False)
    with pytest.raises(ConfigError, match="classification and clustering"):
        predictions.check(tmp_path / "p.csv", [run(), skeleton_stores.run()], overwrite=False)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(FeatcacheError, match="pip install pyarrow"):
        predictions.check(tmp_path / "p.parquet", SEEDS, overwrite=False)
    assert (tmp_path / "old.csv").read_text() == "mine"


def test_clusters_of_each_branch(tmp_path):
    stores = skeleton_stores.write_all(tmp_path / "stores")
    config = skeleton_stores.run()
    folder = train(config, stores, tmp_path / "runs")
    predictions.write(tmp_path / "p.parquet", [(config, folder, stores)])
    table = pd.read_parquet(tmp_path / "p.parquet")
    made = Run.open(folder)
    assert set(table.branch) == {name.removeprefix("feature_") for name in made.outputs if name.startswith("feature_")}
    for _, part in table.groupby("branch"):
        assert len(part) == len(made.outputs["rows"])
        assert part.groupby("cluster").predicted.nunique().max() == 1  # a cluster is paired with one class
    assert "probabilities" not in table


def test_the_command_writes_or_refuses(stores, folders, tmp_path, capsys):
    file = tmp_path / "toy.py"
    file.write_text(
        "'''Toy.'''\nfrom tests.helpers.stores import run\n\n"
        "RUNS = [run(seed=seed, steps=4, eval_every=2, keep=2, row='plain') for seed in (0, 1, 2)]\n"
    )
    out = tmp_path / "p.csv"
    words = ["evaluate", str(file), "--stores", str(stores), "--runs", str(folders[0].parent), "--workers", "1"]
    main([*words, "--predictions", str(out)], standalone_mode=False)
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    before = out.read_bytes()
    with pytest.raises(SystemExit):
        main([*words, "--predictions", str(out)])
    main([*words, "--predictions", str(out), "--overwrite"], standalone_mode=False)
    assert out.read_bytes() == before
    with pytest.raises(SystemExit):
        main([*words, "--seeds", "0,9", "--predictions", str(tmp_path / "q.csv")])  # seed 9 is not trained
    assert not (tmp_path / "q.csv").exists()


# ----------------------------------------------------------------------------------------------------------- ensembles


def naive_ensemble(folders, label, points, measure):
    """The mean over points of the measure of the mean of probabilities."""
    runs = [Run.open(folder) for folder in folders]
    clips = manifest().clips
    truth = np.array([["chop", "peel", "stir"].index(clips[row].labels["label"]) for row in runs[0].outputs["rows"]])
    return np.mean([measure(np.mean([softmax(r.outputs[label][k]) for r in runs], 0), truth) for k in points])


def top1(p, y):
    return (p.argmax(1) == y).mean()


def test_an_ensemble_is_the_metric_of_the_mean_probability(stores, folders):
    found = ensemble([Run.open(folder) for folder in folders], stores)
    assert found["top1/verb"] == pytest.approx(naive_ensemble(folders, "verb", [-1], top1))
    one = ensemble([Run.open(folders[0])], stores)
    single = {each.metric: each.value for each in evaluate(folders[0], stores)}
    assert one == pytest.approx({name: single[name] for name in one})


def test_an_ensemble_of_runs_with_several_selected_points_is_the_mean_over_points(stores, tmp_path):
    configs = [dataclasses.replace(config, select="mean") for config in SEEDS]
    made = [train(config, stores, tmp_path) for config in configs]
    found = ensemble([Run.open(folder) for folder in made], stores)["top1/verb"]
    assert found == pytest.approx(naive_ensemble(made, "verb", [0, 1], top1))


def test_runs_on_other_clips_make_no_ensemble(stores, folders, tmp_path):
    other = train(dataclasses.replace(SEEDS[0], test_split="train"), stores, tmp_path)
    with pytest.raises(ConfigError, match="different clips"):
        ensemble([Run.open(folders[0]), Run.open(other)], stores)


def test_the_table_marks_ensembles(stores, folders):
    of = Experiment("toy", "Toy.", tuple(SEEDS))
    found = [row for folder in folders for row in evaluate(folder, stores, "toy")]
    table = with_ensembles(build(found, of, "top1/verb"), of, stores, folders[0].parent)
    (line,) = table.lines
    assert line.ensemble.value == pytest.approx(100 * naive_ensemble(folders, "verb", [-1], top1))
    assert line.ensemble.seeds == (0, 1, 2)
    assert line.mean == build(found, of, "top1/verb").lines[0].mean
    assert f"{line.ensemble.value:.1f} (N = 3)" in table.text("markdown")
    assert "plain,ensemble," in table.text("csv")
    assert "(N = 3)" in table.text("latex")
    with pytest.raises(ConfigError, match="norm/target/rgb"):
        with_ensembles(build(found, of, "norm/target/rgb/verb"), of, stores, folders[0].parent)
    alone = Experiment("toy", "Toy.", (SEEDS[0],))
    single = with_ensembles(build(found, alone, "top1/verb"), alone, stores, folders[0].parent)
    assert single.lines[0].ensemble is None
    assert "No ensemble" in single.text("markdown")
