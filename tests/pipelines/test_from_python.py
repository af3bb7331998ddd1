"""Commands as functions: what they return, what it shows in a notebook, and that nothing is printed."""

import json
import re
from dataclasses import fields, replace

import numpy as np
import pytest

import featcache
import pipelines
from featcache import FeatureStore, Manifest
from featcache.errors import ArgumentsError, ConfigError, ManifestError
from pipelines.commands.jobs import job
from pipelines.evaluation.results import Result
from pipelines.training import engine
from pipelines.training.runs import NotTrainedError
from tests.helpers.stores import manifest, run, write_all, write_store
from tests.pipelines.test_cli import run as command

ROWS = ("source-only", "RNA (UDA)")
QUICK = {"seeds": (0, 1), "set": {"steps": 2}, "only": ROWS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stores of two domains, and the evaluated runs of two rows."""
    folder = tmp_path_factory.mktemp("door")
    write_all(folder / "stores", states={3: "failed", 5: "absent"})
    toy = folder / "stores" / "toy"
    outcomes = pipelines.train(toy, runs=folder / "runs", workers=1, set={**QUICK["set"], "absent": "drop"}, **OTHERS)
    assert {outcome.status for outcome in outcomes} == {"trained"}
    return folder


OTHERS = {name: QUICK[name] for name in ("seeds", "only")}


@pytest.fixture(scope="module")
def given(folder):
    """The arguments that name the experiment of `folder`."""
    changes = {"set": {"steps": 2, "absent": "drop"}, **OTHERS}
    return {"experiment": folder / "stores" / "toy", "runs": folder / "runs", **changes}


@pytest.fixture(scope="module")
def evaluation(given):
    arguments = {**given, "experiments": given["experiment"]}
    del arguments["experiment"]
    return pipelines.evaluate(**arguments, workers=1)


def two_lines(thing, *facts):
    text = repr(thing)
    assert len(text) <= 330, text
    assert len(text.splitlines()) <= 2, text
    for fact in facts:
        assert fact in text, (fact, text)


# ------------------------------------------------------------------------------------------------ manifests and stores


def test_a_manifest_says_what_it_is():
    clips = manifest()
    two_lines(clips, "'toy'", "36 clips", "24 train", "12 test", "day, night", "3 classes", "chop, peel, stir")
    many = Manifest("many", tuple(featcache.Clip(f"c{k}", f"d{k}" * 30, "train", "a.mp4") for k in range(1000)))
    two_lines(many, "1000 clips", "no labels")
    kinds = manifest(labels=lambda domain, split, name: {"verb": name, "noun": "a\nb"})
    two_lines(kinds, "1 class of noun", "3 classes of verb")
    assert "<table" in clips._repr_html_()


def test_the_frame_of_a_manifest_has_the_columns_of_its_file(tmp_path):
    clips = [
        featcache.Clip("007", "day", "train", "a.mp4", 0.0, 2.5, labels={"label": "NA"}, caption="a, b"),
        featcache.Clip("b", "night", "test", "b.mp4", None, 1.0),
    ]
    made = Manifest("odd", tuple(clips), tmp_path)
    frame = made.frame()
    made.write(tmp_path / "odd.csv")
    assert list(frame) == (tmp_path / "odd.csv").read_text().splitlines()[0].split(",")
    assert frame["clip_id"].tolist() == ["007", "b"]
    assert frame["label"].tolist() == ["NA", ""]
    assert frame["stop_seconds"].tolist() == [2.5, 1.0]
    assert frame["start_seconds"].isna().tolist() == [False, True]


def test_labels_are_the_class_numbers_of_rows():
    clips = manifest()
    rows = clips.rows(domain="night", split="test")
    names = [clips.classes["label"][number] for number in clips.labels(rows)]
    assert names == [clips.clips[row].labels["label"] for row in rows]
    assert clips.labels().shape == (36,)
    assert clips.labels([]).tolist() == []
    mask = np.zeros(36, bool)
    mask[rows] = True
    assert clips.labels(mask).tolist() == clips.labels(rows).tolist()
    some = Manifest("some", (*clips.clips[:2], featcache.Clip("new", "day", "test", "n.mp4")))
    assert some.labels([-1, 0]).tolist() == [-1, 0]
    kinds = manifest(labels=lambda domain, split, name: {"verb": name, "noun": "pan"})
    assert kinds.labels([0, 1], "noun").tolist() == [0, 0]
    for call in (kinds.labels, lambda: kinds.labels(kind="adverb"), lambda: some.select(split="test").labels([0])):
        if call is kinds.labels:
            with pytest.raises(ManifestError, match="'noun', 'verb'"):
                call()
    with pytest.raises(ManifestError, match="no label kind 'adverb'.*noun, verb"):
        kinds.labels(kind="adverb")
    with pytest.raises(IndexError):
        clips.labels([36])


def test_a_store_says_what_it_is_and_its_frame_has_the_labels(folder, tmp_path):
    store = FeatureStore.open(folder / "stores" / "toy" / "hog.zarr")
    two_lines(store, "toy/hog.zarr", "36 clips", "34 done", "1 failed", "1 absent", "extractor hog", "rgb", "(8,)")
    two_lines(store, "3 windows", "float32")
    frame = store.frame()
    assert list(frame)[:4] == ["clip_id", "domain", "split", "label"]
    assert frame["label"].tolist() == manifest().frame()["label"].tolist()
    assert frame["state"].value_counts().to_dict() == {"done": 34, "failed": 1, "absent": 1}
    assert frame[["state", "reason"]].iloc[3].tolist() == ["failed", "moov atom not found"]
    assert "<table" in store._repr_html_()
    assert not {"start", "stop", "unit", "fps", "caption"} & set(frame)  # no clip has any
    other = Manifest("other", manifest().clips[1:])
    assert store.frame(other)["domain"].tolist() == ["", *frame["domain"][1:]]
    alone = tmp_path / "alone.zarr"
    (folder / "stores" / "toy" / "hog.zarr").rename(alone)
    try:
        assert "domain" not in FeatureStore.open(alone).frame()
    finally:
        alone.rename(folder / "stores" / "toy" / "hog.zarr")


def test_the_numbers_of_a_clip_are_numbers_in_the_frames_of_its_manifest_and_store(tmp_path):
    cut = [
        replace(clip, start=None if k else 0.1, stop=k + 1.5, fps=None if k % 2 else 12.5, caption="wash" * (k == 2))
        for k, clip in enumerate(manifest())
    ]
    clips = replace(manifest(), clips=tuple(cut))
    clips.write(tmp_path / "toy" / "manifest.csv")
    write_store(tmp_path / "toy", clips, "hog")
    made, of_clips = FeatureStore.open(tmp_path / "toy" / "hog.zarr").frame(), clips.frame()
    for ours, theirs in (("start", "start_seconds"), ("stop", "stop_seconds"), ("fps", "fps")):
        assert made[ours].dtype == of_clips[theirs].dtype == float
        assert made[ours].tolist() == pytest.approx(of_clips[theirs].tolist(), nan_ok=True)
    assert set(made["unit"]) == {"seconds"}
    assert made["caption"].tolist() == of_clips["caption"].tolist()


def test_a_damaged_store_still_has_a_repr(tmp_path):
    write_all(tmp_path)
    store = FeatureStore.open(tmp_path / "toy" / "hog.zarr")
    for file in (tmp_path / "toy" / "hog.zarr" / "state").rglob("*"):
        if file.is_file() and file.name != "zarr.json":
            file.write_bytes(b"x")
    two_lines(store, "damaged", "extractor hog")


# -------------------------------------------------------------------------------------------------- runs and results


def test_runs_experiments_and_outcomes_say_what_they_are(folder, given):
    outcomes = pipelines.train(**given, workers=1)
    assert {outcome.status for outcome in outcomes} == {"kept"}
    two_lines(outcomes[0], "kept", outcomes[0].config.id)
    one = outcomes[0].run
    two_lines(one, one.config.id, one.config.row, "hog", "2 steps", "day", "night")
    assert pipelines.Run.open(str(one.folder)).config == one.config
    assert one.frame().to_dict("records") == one.log()
    assert "night, no target" in repr(replace(one, config=run(source=("day",), target=None, test="night")))
    experiment = pipelines.experiment(given["experiment"], seeds="0,1", only=ROWS)
    two_lines(experiment, "'toy'", "classification", "seeds 0, 1", "day→night", *ROWS)
    assert {run.seed for run in experiment.runs} == {0, 1}
    two_lines(pipelines.experiment("kitchens"), "'kitchens'", "24", "loft→cottage")


def test_results_are_a_frame_with_the_fields_of_a_result(folder, evaluation):
    two_lines(evaluation, "results.jsonl", "8 measured")
    assert evaluation.whole
    frame = evaluation.frame()
    assert list(frame) == [each.name for each in fields(Result)]
    top1 = frame[frame["metric"] == "top1"]
    assert len(top1) == 8
    assert set(top1["row"]) == set(ROWS)
    lines = [json.loads(line) for line in evaluation.path.read_text().splitlines()]
    assert sorted(top1["value"]) == sorted(line["value"] for line in lines if line["metric"] == "top1")
    both = pipelines.results(folder / "runs")
    two_lines(both, f"{len(both)} numbers", "8 runs")
    assert both.frame().equals(frame)
    assert "<table" in evaluation._repr_html_()


@pytest.mark.parametrize(
    "options",
    [{}, {"metric": "norms"}, {"by": "class"}, {"by": "domain"}, {"ensemble": True}],
)
def test_a_table_prints_what_the_command_prints(folder, given, evaluation, options):
    table = pipelines.table(**given, **options)
    words = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]
    words += ["--set=steps=2", "--set=absent=drop", "--seeds=0,1", *(f"--only={row}" for row in ROWS)]
    printed = command("table", given["experiment"], "--runs", given["runs"], *words).stdout
    assert str(table).strip() == printed.strip()
    two_lines(table, "'toy'")
    assert table._repr_markdown_() == str(table)
    shown = table._repr_html_()
    assert shown.count("<tr>") == len(table.grid)
    assert shown.count("<li>") == len(table.below)
    frame = table.frame()
    assert set(ROWS) <= set(frame["method"])
    assert frame["mean"].dtype == float
    csv = command("table", given["experiment"], "--runs", given["runs"], *words, "--format=csv").stdout
    if options.get("metric") != "norms":
        assert list(frame) == csv.splitlines()[0].split(",")
        assert len(frame) == len(csv.splitlines()) - 2


def test_a_table_has_the_best_number_in_bold(given, evaluation):
    table = pipelines.table(**given)
    bold = {re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<strong>[\d.]+ ± .*?</strong>", table._repr_html_())}
    assert bold == set(re.findall(r"\*\*([\d.]+ ± [\d.]+)\*\*", str(table)))
    rows = [line.split("|")[1].strip() for line in str(table).splitlines() if line.startswith("|") and "**" in line]
    two_lines(table, "2 rows", "shift", *[repr(row) for row in rows if table.marks.get((row, "mean")) == "best"])


def test_names_and_entries_print_what_the_commands_print_and_show_themselves():
    listed, entry = pipelines.names("methods"), pipelines.show("method", "rna")
    assert repr(listed) == command("list", "methods").stdout.strip()
    assert list(listed.frame()["name"]) == [each.name for each in listed]
    assert listed._repr_html_().count("<tr>") == len(listed) + 1
    assert repr(entry) == str(entry) == command("show", "method", "rna").stdout.rstrip("\n")
    assert entry._repr_markdown_() == entry.markdown()
    card = pipelines.show("benchmark", "kitchens")
    assert card._repr_markdown_() == f"{card.markdown()}\n{card.card}"


@pytest.mark.slow
def test_a_comparison_a_choice_and_a_sweep_are_objects(folder, given, evaluation, tmp_path):
    del (arguments := dict(given))["only"]
    experiment = arguments.pop("experiment")
    compared = pipelines.compare(experiment, *ROWS, **arguments, clips=tmp_path / "clips.csv")
    two_lines(compared, "A: source-only", "B: RNA (UDA)")
    assert list(compared.frame()) == (tmp_path / "clips.csv").read_text().splitlines()[0].split(",")
    assert "McNemar" in str(compared)
    assert "McNemar" in compared._repr_html_()
    grid = {"method.lambda_g": [0.1, 1]}
    noted = []
    made = pipelines.sweep(**{**given, "only": "RNA (UDA)"}, grid=grid, workers=1, note=noted.append)
    two_lines(made, "'toy'", "2 settings", "8 runs")
    assert made.whole
    assert any("2 settings" in line for line in noted)
    assert set(made.table.frame()["method"]) == {"RNA (UDA), lambda_g = 0.1", "RNA (UDA), lambda_g = 1"}
    assert "oracle" in set(made.choices.frame()["rule"])
    two_lines(made.choices, "'toy'", "top1")
    assert len(made.frame()["run"].unique()) == 8
    assert made._repr_html_().count("<table>") == 2
    chosen = pipelines.choose(given["experiment"], given["runs"])
    assert set(chosen.frame()["row"]) == {"RNA (UDA)"}
    two = pipelines.table(**{**given, "only": "RNA (UDA)"}, grid="method.lambda_g=0.1,1")
    assert two.frame().equals(made.table.frame())


def test_a_run_of_ones_own_is_trained_evaluated_and_tabulated(folder, tmp_path):
    ours = [run(row="", steps=2, seed=seed, absent="drop") for seed in (0, 1)]
    where = {"stores": folder / "stores", "runs": tmp_path / "runs"}
    (outcome,) = pipelines.train(ours[0], **where, workers=1)
    assert outcome.run.config.id == ours[0].id
    pipelines.train(ours, **where, workers=1)
    assert pipelines.evaluate(ours, **where, workers=1).whole
    frame = pipelines.table(ours, **where).frame()
    assert frame["method"].unique().tolist() == ["source_only"]
    assert frame["n_seeds"].tolist() == [2, 2]
    assert pipelines.evaluate(all=True, **where, workers=1).whole
    with pytest.raises(ConfigError, match="no features of rgb"):
        _ = engine.Outcome(ours[0], None, "failed", note="no features of rgb").run


def test_nothing_is_printed_unless_it_is_asked_for(folder, given, evaluation, capfd, tmp_path):
    pipelines.train(**given, workers=1)
    pipelines.evaluate(given["experiment"], runs=given["runs"], **OTHERS, set=given["set"], workers=1)
    pipelines.table(**given)
    featcache.check(folder / "stores", fast=True)
    featcache.pack(folder / "stores" / "toy" / "hof.zarr", tmp_path / "packed.zarr")
    featcache.info(str(tmp_path / "packed.zarr"))
    assert capfd.readouterr() == ("", "")
    counts = []
    pipelines.train(**given, workers=1, progress=lambda done, total: counts.append((done, total)))
    assert (counts[0], counts[-1]) == ((0, 16), (16, 16))  # 8 runs of 2 steps
    assert capfd.readouterr() == ("", "")
    pipelines.train(**given, workers=1, progress=True)
    featcache.check(folder / "stores", fast=True, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "train toy" in err
    assert "check hog.zarr" in err


def test_ctrl_c_still_gives_the_summary(given, monkeypatch):
    from pipelines.commands import train

    def stopped(*args, report, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run_all", stopped)
    lines = []
    with pytest.raises(KeyboardInterrupt), train.summarised(lines.append) as report:
        pipelines.train(**given, report=report)
    assert re.match(r"0 trained in [\d.]+ s", lines[0])
    assert engine.run_all is not stopped


def test_words_and_values_are_the_same_settings(given):
    words = job(given["experiment"], set=["steps=2", "optim.lr=0.5"], seeds="0..2", only="source-only")
    values = job(given["experiment"], set={"steps": 2, "optim.lr": 0.5}, seeds=range(3), only=["source-only"])
    assert words.experiment.runs == values.experiment.runs
    assert words.experiment.arguments.endswith("--seeds 0..2 --only source-only")
    assert "--seeds 0,1,2" in values.experiment.arguments


def test_arguments_that_exclude_each_other(given):
    for call in (
        lambda: pipelines.evaluate(),
        lambda: pipelines.evaluate("kitchens", all=True),
        lambda: pipelines.evaluate(all=True, seeds=0),
        lambda: pipelines.evaluate("kitchens", overwrite=True),
        lambda: pipelines.table("kitchens", stress=True, ensemble=True),
        lambda: pipelines.compare("a", "b", seeds=0),
    ):
        with pytest.raises(ArgumentsError):
            call()
    result = command("table", "kitchens", "--stress", "--ensemble")
    assert (result.exit_code, "Usage: " in result.stderr) == (2, True)
    for name, call in {
        "workers": lambda: pipelines.train(**given, workers="2"),
        "k": lambda: pipelines.search("runs", "a dog", "3"),
        "weights_seed": lambda: featcache.extract(manifest(), "hog", weights_seed="3"),
        "fps": lambda: featcache.scan("videos", domain="a", fps="25"),
        "seed": lambda: featcache.from_csv("t.csv", clip_id="id", seed="0"),
    }.items():
        with pytest.raises(ArgumentsError, match=f"{name} is '.*'.*number"):
            call()
    with pytest.raises(NotTrainedError, match="is a folder of runs; name one of them: "):
        pipelines.Run.open(given["runs"])
    with pytest.raises(ConfigError, match="json.*markdown, csv, latex"):
        pipelines.table(**given).text("json")


def test_a_swept_experiment_is_trained_by_sweep_and_recorded_under_its_rows(given, tmp_path):
    chosen = {name: given[name] for name in ("set", "only")} | {"seeds": 0, "grid": {"method.lambda_g": [0.1, 1]}}
    swept = pipelines.experiment(given["experiment"], **chosen | {"only": "RNA (UDA)"})
    with pytest.raises(ConfigError) as caught:
        pipelines.evaluate(swept, runs=tmp_path / "none")
    assert "featcache sweep " in str(caught.value)
    assert "train-head" not in str(caught.value)
    pipelines.train(swept, runs=tmp_path / "runs", workers=1)
    assert pipelines.evaluate(swept, runs=tmp_path / "runs", workers=1).whole
    assert {row.row for row in pipelines.results(tmp_path / "runs")} == {"RNA (UDA)"}
    assert pipelines.choose(swept, tmp_path / "runs").records()


def test_runs_of_python_are_not_named_by_commands(given, folder, tmp_path):
    configs = list(job(given["experiment"], set=given["set"], seeds=given["seeds"], only=ROWS).experiment.runs)
    with pytest.raises(ConfigError) as caught:
        pipelines.evaluate(configs, folder / "stores", tmp_path / "none")
    assert "pipelines.train(...)" in str(caught.value)
    assert "featcache " not in str(caught.value)
    made = job(configs).experiment
    assert "featcache" not in made.command + made.call("sweep", "--grid a=1")


def test_an_experiment_of_a_folder_keeps_the_folder_of_all_stores(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = pipelines.experiment(given["experiment"])
    assert job(made).stores == given["experiment"].parent
    assert job(made, set="steps=1").experiment.home == str(given["experiment"].parent)


def test_arguments_say_the_words_that_are_not_defaults(given):
    toy = given["experiment"]
    assert "--stores stores" in job(toy, "stores").experiment.arguments
    assert "--stores" not in job(toy, toy.parent).experiment.arguments
    assert "--stores" not in job("kitchens", "stores").experiment.arguments
    named = [replace(run, row="only") for run in job(toy, only="source-only", seeds=0).experiment.runs]
    assert job(named, only="only").experiment.arguments.endswith("--only only")
