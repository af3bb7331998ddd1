"""Experiments by name, file and folder; and the engine that trains them."""

import dataclasses
import pickle
import re
import sys
import textwrap
from math import ceil
from pathlib import Path

import pytest

from featcache.errors import ConfigError
from heads.methods import rna, shot, source_only
from heads.nets import adapter
from pipelines import experiments
from pipelines.config import Feed, Optim
from pipelines.experiments import Experiment, kitchens
from pipelines.experiments._rows import Passes, Row, Whole, runs
from pipelines.experiments._suite import COUNTING
from pipelines.tables.build import build, render
from pipelines.training import engine
from pipelines.training.runs import Run
from tests.helpers.result_rows import result
from tests.helpers.stores import STORES, manifest, run, write_all, write_store

OWN = "from tests.helpers.stores import run"
ROWS = ("source-only", "RNA (DG)", "RNA (UDA)", "supervised-target")


@pytest.mark.parametrize("name", experiments.names())
def test_every_experiment_loads_and_explains_itself(name):
    experiment = experiments.load(name)
    assert "featcache train-head" in experiment.doc
    assert len({config.id for config in experiment.runs}) == len(experiment.runs)
    assert {config.id for config in experiment.runs if not config.row} <= {c.init_from for c in experiment.runs}
    assert all(config.optim.clip_norm > 0 for config in experiment.runs if isinstance(config.method, rna.Params))


def test_kitchens_is_the_grid_of_four_rows():
    experiment = experiments.load("kitchens")
    assert experiment.rows == ROWS
    assert len(experiment.runs) == 4 * 2 * 3
    assert {config.seed for config in experiment.runs} == {0, 1, 2}


#: experiments in which a batch has the same source rows whether or not there is a target -> reason in their docstrings
FIXED_SOURCE = {
    **dict.fromkeys(("rna_epic100", "rna_epic100_modalities", "rna_epic100_drop", "rna_epic100_rivals"), "TA3N's code"),
    **dict.fromkeys(("acp_images", "acp_msrvtt_msvd", "acp_lsmdc_msvd", "acp_ablation", "pairs"), "negatives of L_R"),
    **dict.fromkeys(("acp_language", "acp_convergence"), "negatives of L_R"),
}


@pytest.mark.parametrize("name", experiments.names())
def test_rows_without_a_target_draw_the_whole_batch_from_the_source_or_have_a_reason(name):
    """As in MM-SADA's code: in an experiment, all rows see equally many clips per step, from one side or from two."""
    experiment = experiments.load(name)
    trained = [run for run in experiment.runs if run.steps]
    if name not in FIXED_SOURCE:
        seen = {
            tuple(n for n, side in zip(run.batch, (run.source, run.target), strict=True) if side) for run in trained
        }
        assert len({sum(rows) for rows in seen}) == 1, seen
        return
    assert len({(run.source, run.batch[0]) for run in trained}) == len({run.source for run in trained})
    referred = re.findall(r"`(\w+)`", experiment.doc)
    docs = [experiment.doc, *(experiments.load(other).doc for other in referred if other in experiments.names())]
    assert FIXED_SOURCE[name] in " ".join(" ".join(docs).split())


def test_a_whole_batch_is_halved_between_two_sides():
    assert Whole(32).sides(source=True, target=True) == Whole(32).halves == (16, 16)
    assert Whole(32).sides(source=True, target=False) == Whole(32).sides(source=False, target=True) == (32, 32)
    for size in (33, 0, -2):
        with pytest.raises(ConfigError, match=f"Whole.{size}.*even"):
            Whole(size)


def test_grid_rows_differ_in_method_and_sides_alone():
    shifts = [("a", "b"), ("c", "b")]
    configs = experiments.grid("toy", {"rgb": Feed("hog"), "flow": Feed("hof")}, shifts, seeds=(0,), **kitchens.RECIPE)
    rows = [(c.row, c.source, c.target, c.test, type(c.method)) for c in configs]
    assert rows == [
        ("source-only", ("a",), None, "b", source_only.Params),
        ("source-only", ("c",), None, "b", source_only.Params),
        ("RNA (DG)", ("a",), None, "b", rna.Params),
        ("RNA (DG)", ("c",), None, "b", rna.Params),
        ("RNA (UDA)", ("a",), "b", "b", rna.Params),
        ("RNA (UDA)", ("c",), "b", "b", rna.Params),
        ("supervised-target", ("b",), None, "b", source_only.Params),
    ]
    # without a target 64 of the source
    assert [c.batch for c in configs] == [(64, 64)] * 4 + [(32, 32)] * 2 + [(64, 64)]
    same = {"row": "", "source": ("x",), "target": None, "test": "y", "method": source_only.Params(), "batch": (1, 1)}
    assert len({dataclasses.replace(config, **same).id for config in configs}) == 1


def test_default_experiment_of_a_folder(tmp_path):
    stores = write_all(tmp_path, manifest(domains=("day", "dusk", "night")))
    experiment = experiments.load(stores / "toy")
    assert (experiment.name, experiment.rows) == ("toy", ROWS)
    assert len(experiment.runs) == 3 * (3 * 6 + 3)
    assert experiment.runs[0].feeds == {"flow": Feed("hof"), "rgb": Feed("hog")}
    assert experiment.runs[0].absent == "refuse"


@pytest.mark.slow
def test_default_experiment_takes_what_is_usable(tmp_path):
    """Two stores of one modality go by name, gaps are masked, unfinished and empty stores are left out."""
    clips = manifest(labels=lambda d, split, name: {} if (d, split) == ("night", "train") else {"label": name})
    clips.write(tmp_path / "toy" / "manifest.csv")
    write_store(tmp_path / "toy", clips, "hog")
    write_store(tmp_path / "toy", clips, "audio", states={0: "absent"})
    write_store(tmp_path / "toy", clips, "silent", states=dict.fromkeys(range(36), "absent"))
    write_store(tmp_path / "toy", clips, "hof", stop_after=3)
    write_store(tmp_path / "toy", dataclasses.replace(clips, clips=clips.clips[:30]), "shorter")
    experiment = experiments.load(tmp_path / "toy")
    assert experiment.runs[0].feeds == {"audio": Feed("audio"), "rgb": Feed("hog")}
    assert {config.absent for config in experiment.runs} == {"mask"}
    assert {(c.row, c.source, c.test) for c in experiment.runs} == {(row, ("day",), "night") for row in ROWS[:3]}
    assert engine.run_all(experiment.runs[:1], tmp_path, tmp_path / "runs")[0].status == "trained"
    clip = next(clip.clip_id for clip in clips if (clip.domain, clip.split) == ("night", "train"))
    assert f"night is no source, because 12 of its 12 train clips have no label (clip {clip!r})" in experiment.note
    assert "day is no" not in experiment.note
    assert "hof, because it is unfinished" in experiment.note
    assert "shorter, because its clips are not those of the manifest" in experiment.note
    assert "silent, because none of its 36 clips has features" in experiment.note


def test_default_experiment_names_the_domains_that_it_leaves_out(tmp_path):
    """Else a table of two domains looks as if there were no third one."""
    clips = manifest(domains=("day", "dusk", "night"))
    kept = tuple(clip for clip in clips if (clip.domain, clip.split) != ("dusk", "train"))
    stores = write_all(tmp_path, dataclasses.replace(clips, clips=kept))
    experiment = experiments.load(stores / "toy")
    assert {run.test for run in experiment.runs} == {"day", "night"}
    assert experiment.note == (
        "LEFT OUT: dusk is no source, because it has no train clips; dusk is no target, because it has no train clips."
    )
    assert experiments.load(write_all(tmp_path / "whole") / "toy").note == ""


@pytest.mark.parametrize(("split", "sides"), [("test", ["target"]), ("train", ["source", "target"])])
def test_default_experiment_leaves_out_domains_without_features(tmp_path, split, sides):
    """All rows would have the numbers of a head that sees zeros."""
    clips = manifest(domains=("day", "dusk", "night"))
    states = dict.fromkeys(clips.rows(domain="night", split=split), "failed")
    experiment = experiments.load(write_all(tmp_path, clips, states=states) / "toy")
    count = len(clips.rows(domain="night", split=split))
    reason = f"none of its {count} {split} clips has features"
    assert [s for s in ("source", "target") if f"night is no {s}, because {reason}" in experiment.note] == sides
    assert "night" not in {run.test for run in experiment.runs}
    assert ("night" in {run.source[0] for run in experiment.runs}) == (sides == ["target"])


def test_default_experiment_on_train_clips_only_is_transductive(tmp_path):
    """It tests the train clips, as is usual for such sets, and has no row that would be tested on what it learned."""
    clips = manifest(test=0)
    experiment = experiments.load(write_all(tmp_path, clips) / "toy")
    assert experiment.rows == ROWS[:3]
    assert {run.test_split for run in experiment.runs} == {"train"}
    assert "NO SUPERVISED ROW" in experiment.note
    short = [dataclasses.replace(run, steps=1) for run in experiment.runs if run.seed == 0 and run.target == "night"]
    (outcome,) = engine.run_all(short, tmp_path, tmp_path / "runs")
    assert outcome.status == "trained"
    assert Run.open(outcome.folder).outputs["rows"].tolist() == clips.rows(domain="night", split="train")


def test_a_missing_test_split_is_named_with_the_setting(tmp_path):
    stores = write_all(tmp_path, manifest(test=0))
    (outcome,) = engine.run_all([run()], stores, tmp_path / "runs")
    assert "no test rows of night" in outcome.note
    assert "test_split=train" in outcome.note
    assert "--only" in outcome.note


def test_default_experiment_leaves_out_stores_that_describe_clips(tmp_path):
    clips = manifest()
    clips.write(tmp_path / "toy" / "manifest.csv")
    for name in ("label", "timestamps"):
        write_store(tmp_path / "toy", clips, name)
    with pytest.raises(ConfigError, match="only stores that describe clips by their names: label, timestamps"):
        experiments.load(tmp_path / "toy")
    write_store(tmp_path / "toy", clips, "hog")
    experiment = experiments.load(tmp_path / "toy")
    assert experiment.runs[0].feeds == {"rgb": Feed("hog")}
    assert "label, timestamps" in experiment.note


def test_one_store_has_no_row_that_aligns_modalities(tmp_path):
    clips = manifest()
    clips.write(tmp_path / "toy" / "manifest.csv")
    write_store(tmp_path / "toy", clips, "hog")
    experiment = experiments.load(tmp_path / "toy")
    assert experiment.rows == ("source-only", "RNA (UDA)", "supervised-target")
    short = [dataclasses.replace(config, steps=1) for config in experiment.runs if config.seed == 0]
    assert {outcome.status for outcome in engine.run_all(short, tmp_path, tmp_path / "runs")} == {"trained"}


def test_views_belong_to_the_store_that_they_are_views_of(tmp_path):
    stores = write_all(tmp_path)
    for name in ("hog@flip", "hog@top-left", "lost@flip"):
        write_store(stores / "toy", manifest(), name)
    feeds = experiments.load(stores / "toy").runs[0].feeds
    assert feeds["rgb"] == Feed("hog", views=("hog@flip", "hog@top-left"))
    assert feeds["lost-flip"] == Feed("lost@flip")  # its extractor has no store here
    assert len(feeds) == len(STORES) + 1


def test_a_feed_has_the_name_of_the_stores_folder(tmp_path):
    """Which may be another than its extractor's: `hf:OWNER/MODEL` fills hf-OWNER--MODEL.zarr."""
    stores = write_all(tmp_path)
    (stores / "toy" / "hof.zarr").rename(stores / "toy" / "hf-a--b.zarr")
    assert Feed("hf-a--b") in experiments.load(stores / "toy").runs[0].feeds.values()


def test_two_stores_of_one_modality_go_by_their_names(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("tests.helpers.stores", fromlist=["STORES"]).STORES, "hog2", ("rgb", 4, 1.0))
    stores = write_all(tmp_path)
    assert set(experiments.load(stores / "toy").runs[0].feeds) == {"flow", "hog", "hog2"}


@pytest.mark.parametrize(
    ("clips", "complaint"),
    [
        (manifest(domains=("day",)), "has no shift to train on.*test_split='train'"),
        (manifest(labels=lambda *_: {}), "has no shift to train on"),
    ],
)
def test_default_experiment_without_a_shift_is_refused(clips, complaint, tmp_path):
    with pytest.raises(ConfigError, match=complaint):
        experiments.load(write_all(tmp_path, clips) / "toy")


def test_default_experiment_without_stores_is_refused(tmp_path):
    clips = manifest()
    clips.write(tmp_path / "toy" / "manifest.csv")
    write_store(tmp_path / "toy", clips, "hog", stop_after=3)
    with pytest.raises(ConfigError, match="no finished store .*toy; there are: hog.*featcache extract"):
        experiments.load(tmp_path / "toy")


def test_an_experiment_of_ones_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        textwrap.dedent(
            '''
            """My table."""
            from tests.helpers.stores import run
            RUNS = (run(), run(seed=1))
            PUBLISHED = {"source-only": {"day→night": 51.2}}
            '''
        )
    )
    experiment = experiments.load(path)
    assert (experiment.name, experiment.doc, len(experiment.runs)) == ("mine", "My table.", 2)
    assert experiment.published == {"source-only": {"day→night": 51.2}}


@pytest.mark.parametrize(
    ("quoted", "found"),
    [
        ("('SCAN',)", "SCAN"),
        ("()", "SCAN.*QUOTED"),
        ("('SCAN', 'source-only')", "QUOTED 'source-only'"),
        ("('SCAN', 'VSRN')", "QUOTED 'VSRN'"),
        ("5", "QUOTED .*tuple.*5"),
        ("'SCAN'", "QUOTED .*tuple.*'SCAN'"),
    ],
)
def test_rows_of_a_paper_that_no_run_makes_are_named(tmp_path, quoted, found):
    path = tmp_path / "mine.py"
    rows = "{'source-only': {'mean': 40.0}, 'SCAN': {'mean': 41.0}}"
    path.write_text(f"from tests.helpers.stores import run\nRUNS = (run(),)\nPUBLISHED = {rows}\nQUOTED = {quoted}\n")
    if quoted == "('SCAN',)":
        assert experiments.load(path).quoted == ("SCAN",)
    else:
        with pytest.raises(ConfigError, match=found):
            experiments.load(path)


def test_an_experiment_names_the_metric_of_its_table_and_of_its_published_numbers(tmp_path):
    path = tmp_path / "mine.py"
    numbers = {"day→night": 51.25, "mean": {"top1": 60.5}}
    text = "from tests.helpers.stores import run\nRUNS = (run(),)\nPUBLISHED = {'source-only': %r}\n" % numbers  # noqa: UP031
    for metric in ("", "mean_class"):
        path.write_text(f"{text}METRIC = {metric!r}")
        experiment = experiments.load(path)
        assert experiment.headline() == experiment.changed(seeds="3").headline() == (metric or "top1")
        table = build([], experiment)
        assert table.metric == (metric or "top1")
        (line,) = table.lines
        assert line.cells["day→night"].published == 51.25
        assert build([], experiment, "top1").lines[0].cells["day→night"].published == (None if metric else 51.25)
        assert "(51.2" in render([], experiment)


FILES = {name: Path(experiments.__file__).with_name(f"{name}.py").read_text() for name in experiments.names()}


@pytest.mark.parametrize("name", [name for name, text in FILES.items() if "\nPUBLISHED" in text])
def test_the_default_table_of_an_experiment_prints_a_published_number(name):
    """Before and after there are results: without results, the headline of a task is its first choice."""
    experiment = experiments.load(name)
    table = build([], experiment)
    assert any(cell.published is not None for line in table.lines for cell in (*line.cells.values(), line.mean))
    run = next(run for run in experiment.runs if run.row)
    names = dict.fromkeys(("top1", "acc_hungarian/B0", "t2v/R@1", experiment.headline()))
    measured = [result(run, 0.5, metric=metric) for metric in names]
    assert build(measured, experiment).metric == table.metric


def test_a_file_imports_the_modules_next_to_it_and_no_others_of_their_names(tmp_path):
    """Neighbours named as a module of Python or of this program do not take its place, in the file and afterwards."""
    for folder, seed in (("a", 1), ("b", 2)):
        (tmp_path / folder / "package").mkdir(parents=True)
        (tmp_path / folder / "shared.py").write_text(
            "from enum import Enum\nfrom package.deep import SEED\nclass Time(str, Enum):\n    DAY = 'day'\n"
        )
        (tmp_path / folder / "package" / "deep.py").write_text(f"SEED = {seed}\n")
        for name in ("heads", "colorsys"):
            (tmp_path / folder / f"{name}.py").write_text("raise RuntimeError('a neighbour was imported instead')\n")
        (tmp_path / folder / "table.py").write_text(
            "import colorsys, heads.batch, shared, package.deep\nfrom dataclasses import dataclass\n"
            "from tests.helpers.stores import run\nRUNS = (run(seed=shared.SEED, source=(shared.Time.DAY,)),)\n"
            "@dataclass\nclass Choice:\n    seed: 'int' = 3\n"
        )
        before = list(sys.path)
        (loaded,) = experiments.load(tmp_path / folder / "table.py").runs
        assert loaded == pickle.loads(pickle.dumps(loaded)) == run(seed=seed, source=("day",))  # for worker processes
        assert sys.path == before
        assert not {"shared", "package", "package.deep"} & set(sys.modules)
    assert "colorsys" in sys.modules


@pytest.mark.parametrize(
    ("table", "shared", "complaint"),
    [
        ("\n\nRUNS = (Runconfig(),)", "", "table.py line 3: NameError"),
        (f"{OWN}\nRUNS = (run(steps=-1),)", "", "table.py line 2: steps=-1"),
        ("\nRUNS = (", "", "table.py line 2: .*never closed"),
        ("\nraise SystemExit(3)", "", "table.py line 2: SystemExit: 3"),
        ("\nimport shared", "\n\n1 / 0", "table.py line 2: shared.py line 3: ZeroDivisionError"),
        ("\nimport shared", "\nx = (", "table.py line 2: shared.py line 2: .*never closed"),
        ("\nimport shared\nRUNS = shared.f()", f"{OWN}\nf = lambda: run(steps=-1)", "line 3: shared.py line 2: steps"),
    ],
)
@pytest.mark.parametrize("form", ["table.py", "./table.py", "../here/table.py"])
def test_errors_in_files_name_the_line_for_any_form_of_the_path(tmp_path, monkeypatch, form, table, shared, complaint):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("table.py").write_text(table)
    Path("shared.py").write_text(shared)
    with pytest.raises(ConfigError, match=complaint):
        experiments.load(form)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("kitchen", None, "no experiment 'kitchen'; did you mean 'kitchens'"),
        ("away.py", None, "no experiment file .*away.py"),
        ("torn.py", "RUNS = (", "torn.py line 1: '\\(' was never closed"),
        ("empty.py", "RUNS = ()", "experiment 'empty' .* needs RUNS, a tuple of RunConfig"),
        ("none.py", "x = 1", "experiment 'none' .* needs RUNS"),
        ("others.py", "RUNS = (1, 2)", "experiment 'others' .* needs RUNS"),
        ("typo.py", "\n\nRUNS = (Runconfig(),)", "typo.py line 3: NameError: name 'Runconfig' is not defined"),
        ("gone.py", "x = 1\nimport nowhere_at_all", "gone.py line 2: ModuleNotFoundError: .*nowhere_at_all"),
        ("null.py", "x = '\0'", "null.py: .*null bytes"),
        ("bad.py", f"{OWN}\nRUNS = (run(steps=-1),)", "bad.py line 2: steps=-1 must be at least 0"),
        ("list.py", f"{OWN} ; RUNS = (run(),); PUBLISHED = [3]", r"PUBLISHED must be {row: .*, not \[3\]"),
        ("flat.py", f"{OWN} ; RUNS = (run(),); PUBLISHED = {{'source-only': 3}}", "its row 'source-only' has 3"),
        ("row.py", f"{OWN} ; RUNS = (run(),); PUBLISHED = {{'source only': {{}}}}", "did you mean 'source-only'"),
        ("shift.py", f"{OWN} ; RUNS = (run(),); PUBLISHED = {{'source-only': {{'day->night': 3}}}}", "'day→night'"),
        (
            "metric.py",
            f"{OWN} ; RUNS = (run(),); PUBLISHED = {{'source-only': {{'mean': {{'top2': 3}}}}}}",
            "no metric 'top2'",
        ),
        (
            "share.py",
            f"{OWN} ; RUNS = (run(),); PUBLISHED = {{'source-only': {{'mean': {{'top5': 300}}}}}}",
            "=300 must",
        ),
        ("mistyped.py", f"{OWN} ; RUNS = (run(),); METRIC = 'top2'", "METRIC: no metric 'top2'"),
        ("task.py", f"{OWN} ; RUNS = (run(),); METRIC = 't2v/R@1'", r"METRIC='t2v/R@1' .*classification.*top1"),
        ("gain.py", f"{OWN} ; RUNS = (run(),); METRIC = 'delta_acc'", "METRIC=.delta_acc. compares rows"),
        ("number.py", f"{OWN} ; RUNS = (run(),); METRIC = 5", "METRIC must be .*, not 5"),
        ("word.py", f"{OWN} ; RUNS = (run(),); PUBLISHED = {{'source-only': {{'mean': '3'}}}}", "='3' .*per cent"),
    ],
)
def test_what_is_no_experiment_is_named(tmp_path, name, text, complaint):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        experiments.load(tmp_path / name if name.endswith(".py") else name)


def test_what_is_near_a_folder_of_stores_names_it(tmp_path):
    """`train-head stores`, a store, a manifest, a misspelled folder, an empty folder."""
    stores = write_all(tmp_path / "stores")
    (tmp_path / "empty").mkdir()
    for path, words in {
        stores: f"give one of them: {stores / 'toy'}",
        stores / "toy" / "hog.zarr": f"give the folder {stores / 'toy'}",
        stores / "toy" / "manifest.csv": f"give the folder {stores / 'toy'}",
        stores / "tory": "did you mean 'toy'",
        tmp_path / "empty": "no manifest.csv",
    }.items():
        with pytest.raises(ConfigError) as raised:
            experiments.load(path)
        assert words in str(raised.value)
        assert "kitchens" not in str(raised.value)


def staged():
    """Two rows: source-only, and RNA that starts from it."""
    first = run(row="source-only")
    return Experiment("staged", "", (first, run(row="RNA", method=rna.Params(), init_from=first.id)))


def test_a_stage_of_a_chosen_row_is_trained_but_is_no_row():
    chosen = staged().changed(only=("RNA",))
    first, adapted = chosen.runs
    assert chosen.rows == ("RNA",)
    assert (first.row, first.id, adapted.init_from) == ("", staged().runs[0].id, first.id)
    assert staged().changed(only=("RNA", "source-only")).runs == staged().runs


def test_an_unknown_row_is_told_the_nearest_first_in_quotes():
    """Names of rows have commas in them; upper and lower case make no row."""
    named = (run(row=row) for row in ("source-only", "CBST", "CBST, per modality"))
    several = Experiment("several", "", tuple(named))
    with pytest.raises(
        ConfigError, match="'cbst'; did you mean 'CBST'. there are: 'CBST', 'source-only', 'CBST, per modality'$"
    ):
        several.changed(only=("cbst",))
    with pytest.raises(ConfigError, match="did you mean 'CBST, per modality'. there are: 'CBST, per modality', 's"):
        several.changed(only=("CBST, by modality",))


def test_settings_move_a_stage_with_its_row_but_for_those_of_the_method():
    """λ_g is RNA's: the stage's method has none. Steps are everybody's, and the row starts from the changed stage."""
    before = staged().runs[0]
    first, adapted = staged().changed(("method.lambda_g=2", "steps=7"), only=("RNA",)).runs
    assert (adapted.method.lambda_g, adapted.steps) == (2.0, 7)
    assert (first.method, first.steps, adapted.init_from) == (before.method, 7, first.id)
    first, adapted = staged().changed(seeds="4").runs
    assert (first.seed, adapted.seed, adapted.init_from) == (4, 4, first.id)


def test_a_setting_that_a_row_lacks_names_the_row():
    with pytest.raises(ConfigError, match="row 'source-only': no setting 'lambda_g' in method; .*--only"):
        staged().changed(("method.lambda_g=2",))
    with pytest.raises(ConfigError, match="^row 'RNA': no setting 'lamda_g' in method; did you mean 'lambda_g'[^-]*$"):
        staged().changed(("method.lamda_g=2",), only=("RNA",))


@pytest.mark.parametrize("setting", ["preparation.units=foo", "net.dim=0", "method.lamda_g=2"])
def test_a_setting_that_no_row_takes_recommends_no_rows(setting):
    with pytest.raises(ConfigError, match=f"row .*{setting.split('=')[0].split('.')[1]}") as caught:
        staged().changed((setting,))
    assert "--only" not in str(caught.value)


def test_the_remedy_of_a_missing_test_split_works_as_it_is_written(tmp_path):
    """`supervised-target` would be tested on clips whose labels it learned; the other rows run."""
    grid = experiments.load(write_all(tmp_path, manifest(test=1)) / "toy")
    with pytest.raises(ConfigError, match="row 'supervised-target'.*--only"):
        grid.changed(("test_split=train",))
    assert grid.changed(("test_split=train",), only=("source-only", "RNA (UDA)")).rows == ("source-only", "RNA (UDA)")


@pytest.mark.parametrize(
    ("name", "row", "settings", "renamed"),
    [
        ("kitchens", "RNA (DG)", ["method=source_only"], "method=source_only"),
        ("kitchens", "RNA (UDA)", ["method=dann", "method.lambda_d=3"], "method=dann, method.lambda_d=3"),
        ("kitchens", "RNA (UDA)", ["method.lambda_g=0.5", "steps=9", "net.dim=8"], ""),
        ("kitchens", "RNA (UDA)", ["method=rna"], ""),
        ("kitchens", "RNA (UDA)", ["method.lambda_g=0"], "method.lambda_g=0"),
        ("kitchens", "RNA (UDA)", ["feeds.rgb.store=i3d-rgb"], ""),
        ("kitchens", "source-only", ["net=trn", "steps=9"], "net=trn"),
        ("shifts", "SHOT", ["init_from=source_only_0123456789"], "init_from=source_only"),
        ("kitchens", "source-only", ["method=mmd", "target=loft", "source=cottage"], "method=mmd, target=loft"),
        ("shifts", "CDAN+E", ["method.entropy=false"], "method.entropy=false"),
        ("shifts", "CDAN+E", ["method=cdan"], "method=cdan"),
        ("shifts", "MM-SADA", ["method.lambda_d=0.3"], ""),
        ("shifts", "MM-SADA", ["method.lambda_d=0"], "method.lambda_d=0"),
        ("shifts", "logistic regression, self-trained", ["method.rounds=3"], ""),
        ("xmc_epic8_ablations", "XMC final, T = 0.9", ["method.T=0.7"], "method.T=0.7"),
        ("xmc_epic8_ablations", "XMC final", ["method.T=0.7"], ""),
        ("rna_epic100_drop", "RNA (DG), no audio", ["feeds.audio.seen_by=source target test"], "feeds.audio.seen_by=s"),
    ],
)  # fmt: skip
def test_a_row_that_settings_make_another_row_is_named_so(name, row, settings, renamed):
    """Hyper-parameters keep the row's name, under which `choose` compares them."""
    changed = experiments.load(name).changed(settings, only=(row,))
    (shown,) = changed.rows
    assert shown == row if not renamed else shown.startswith(f"{row}, {renamed}")
    assert changed.settings == tuple(settings)


def test_a_changed_experiment_knows_the_runs_it_was():
    ids = {config.id for config in staged().runs}
    assert staged().changed(("steps=7",), only=("RNA",)).earlier_ids == ids


# ------------------------------------------------------------------------------------------------------------ engine


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("stores"))


def test_stages_are_trained_in_order_whatever_the_list_says(stores, tmp_path):
    first = run()
    second = run(seed=1, init_from=first.id)
    third = run(seed=2, init_from=second.id)
    told = []
    outcomes = engine.run_all(
        [third, second, first],
        stores,
        tmp_path,
        report=lambda outcome, done, total: told.append((outcome, done, total)),
    )
    assert [outcome.config for outcome in outcomes] == [first, second, third]
    assert told == [(outcome, k, 3) for k, outcome in enumerate(outcomes, 1)]


def test_a_failing_run_costs_only_those_that_start_from_it(stores, tmp_path):
    bad = run(optim=Optim(lr=1e18), steps=30)
    after, fine = run(seed=1, init_from=bad.id), run(seed=2)
    outcomes = {outcome.config.id: outcome for outcome in engine.run_all([after, bad, fine], stores, tmp_path)}
    assert [outcomes[c.id].status for c in (bad, after, fine)] == ["failed", "failed", "trained"]
    assert "term L_C" in outcomes[bad.id].note
    assert f"failed: {bad.id}" in outcomes[after.id].note
    assert outcomes[bad.id].folder is None


def test_a_first_stage_that_is_not_there_is_named(stores, tmp_path):
    (outcome,) = engine.run_all([run(init_from="nowhere_0")], stores, tmp_path)
    assert outcome.status == "failed"
    assert "init_from names nowhere_0" in outcome.note


def test_finished_runs_are_kept_and_stale_ones_say_why(tmp_path):
    stores = write_all(tmp_path / "stores")
    assert [o.status for o in engine.run_all([run()], stores, tmp_path)] == ["trained"]
    assert [o.status for o in engine.run_all([run()], stores, tmp_path)] == ["kept"]
    relabelled = manifest(labels=lambda d, s, name: {"label": {"chop": "stir", "stir": "chop"}.get(name, name)})
    relabelled.write(stores / "toy" / "manifest.csv")
    (outcome,) = engine.run_all([run()], stores, tmp_path)
    assert outcome.status == "trained"
    assert outcome.note.endswith(" changed: manifest")


def test_a_mistake_of_ours_keeps_its_traceback(stores, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "train_unless_done", lambda *_: 1 / 0)
    (outcome,) = engine.run_all([run()], stores, tmp_path)
    assert "ZeroDivisionError" in outcome.note


def test_a_folder_that_cannot_be_written_is_one_sentence(stores, tmp_path):
    (tmp_path / "file").write_text("in the way")
    (outcome,) = engine.run_all([run()], stores, tmp_path / "file" / "runs")
    assert outcome.status == "failed"
    assert outcome.note.startswith("Not a directory")


@pytest.mark.slow
def test_processes_give_the_same_logs_as_one(stores, tmp_path):
    configs = [run(), run(seed=1), run(method=rna.Params(), target="night")]
    alone = engine.run_all(configs, stores, tmp_path / "alone")
    together = engine.run_all(configs, stores, tmp_path / "together", workers=2)
    logs = [{o.config.id: Run.open(o.folder).log() for o in outcomes} for outcomes in (alone, together)]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 3


def test_rows_are_given_what_their_methods_may_see():
    """Source-free rows start from another row's runs; supervised ones are trained once per target."""
    rows = {
        "source-only": Row(source_only.Params()),
        "RNA": Row(rna.Params(), target=True),
        "SHOT": Row(shot.Params(), start="source-only", changes={"steps": 7}),
        "supervised": Row(source_only.Params(), supervised=True),
    }
    common = {"manifest": "toy", "net": adapter.Params(), "feeds": {"rgb": Feed("hog")}, "steps": 5}
    made = runs(rows, [("a", "c"), (("a", "b"), "c")], (0, 1), **common)
    assert [(run.row, run.source, run.target, run.test, run.seed, run.steps) for run in made] == [
        ("source-only", ("a",), None, "c", 0, 5),
        ("source-only", ("a",), None, "c", 1, 5),
        ("source-only", ("a", "b"), None, "c", 0, 5),
        ("source-only", ("a", "b"), None, "c", 1, 5),
        ("RNA", ("a",), "c", "c", 0, 5),
        ("RNA", ("a",), "c", "c", 1, 5),
        ("RNA", ("a", "b"), "c", "c", 0, 5),
        ("RNA", ("a", "b"), "c", "c", 1, 5),
        ("SHOT", (), "c", "c", 0, 7),
        ("SHOT", (), "c", "c", 1, 7),
        ("SHOT", (), "c", "c", 0, 7),
        ("SHOT", (), "c", "c", 1, 7),
        ("supervised", ("c",), None, "c", 0, 5),
        ("supervised", ("c",), None, "c", 1, 5),
    ]
    assert [run.init_from for run in made[8:12]] == [run.id for run in made[:4]]
    assert {run.epoch for run in made[:8]} == {"source"}
    assert {run.epoch for run in made[8:12]} == {"target"}


@pytest.mark.parametrize("name", ["epic8_narrations", "actionsense", "rna_cogbeacon"])
def test_methods_that_count_epochs_come_equally_far_on_all_shifts(name):
    """As many rounds from a large source as from a small one: epochs of steps, or runs of as many passes."""
    counting = [run for run in experiments.load(name).runs if isinstance(run.method, COUNTING)]
    clips = {"V1": 2240, "V2": 2432, "V3": 2300}
    passes = [run.epoch if isinstance(run.epoch, int) else ceil(clips[run.source[0]] / 64) for run in counting]
    epochs = {run.steps / steps for run, steps in zip(counting, passes, strict=True)}
    assert epochs == {90 if name == "rna_cogbeacon" else 12}


def test_passes_are_over_the_source_or_without_one_over_the_target():
    """A pass: 10 clips in batches of 4 are 3 steps, 19 are 5, the 6 of the target in batches of 2 are 3."""
    rows = {
        "source-only": Row(source_only.Params()),
        "SHOT": Row(shot.Params(), start="source-only"),
        "fixed": Row(source_only.Params(), changes={"steps": 1}),
        "supervised": Row(source_only.Params(), supervised=True),
    }
    common = {"manifest": "toy", "net": adapter.Params(), "feeds": {"rgb": Feed("hog")}, "batch": (4, 2)}
    lengths = Passes(5, {"a": 10, "b": 9, "c": 6})
    made = runs(rows, [("a", "c"), (("a", "b"), "c")], (0,), steps=lengths, **common)
    assert [(run.row, run.steps) for run in made] == [
        ("source-only", 15),
        ("source-only", 25),
        ("SHOT", 15),
        ("SHOT", 15),
        ("fixed", 1),
        ("fixed", 1),
        ("supervised", 10),
    ]


def test_passes_count_halves_of_a_whole_batch_so_that_rows_have_equal_steps():
    rows = {
        "source-only": Row(source_only.Params()),
        "RNA (UDA)": Row(rna.Params(), target=True),
        "SHOT": Row(shot.Params(), start="source-only"),
        "supervised": Row(source_only.Params(), supervised=True),
    }
    common = {"manifest": "toy", "net": adapter.Params(), "feeds": {"rgb": Feed("hog")}, "batch": Whole(8)}
    made = runs(rows, [("a", "b")], (0,), steps=Passes(5, {"a": 10, "b": 6}), **common)
    assert [(run.row, run.batch, run.steps) for run in made] == [
        ("source-only", (8, 8), 15),
        ("RNA (UDA)", (4, 4), 15),
        ("SHOT", (8, 8), 10),  # passes over the target, as without Whole
        ("supervised", (8, 8), 10),
    ]
