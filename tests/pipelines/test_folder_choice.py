"""The experiment of a folder of stores, as words choose it: methods, feeds, shifts, net and task."""

import csv
import dataclasses
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import pipelines
from featcache import plugins
from featcache.errors import ArgumentsError, ConfigError, WordError
from pipelines import experiments
from pipelines.cli import main
from pipelines.config import Feed
from pipelines.experiments import Choice, kitchens, runs, suite
from pipelines.training import engine
from tests.conftest import ROOT
from tests.helpers.stores import manifest, write_all, write_store

DOMAINS = ("day", "dusk", "night")
FIRST, LAST = "source-only", "supervised-target"
QUICK = ("--seeds", "0", "--set", "steps=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of three stores, hog, hof and i3d, of three domains. Do not change it."""
    stores = write_all(tmp_path_factory.mktemp("stores"), manifest(domains=DOMAINS))
    write_store(stores / "toy", manifest(domains=DOMAINS), "i3d")
    return stores / "toy"


def load(folder, **chosen):
    return experiments.load(folder, Choice(**chosen))


def ids(experiment):
    return {run.id for run in experiment.runs}


def run_cli(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_without_words_it_is_the_default_experiment_with_its_ids(folder, tmp_path):
    stores = write_all(tmp_path)
    feeds = {"flow": Feed("hof"), "rgb": Feed("hog")}
    shifts = [("day", "night"), ("night", "day")]
    made = experiments.grid("toy", feeds, shifts, **kitchens.RECIPE)
    assert [(run.id, run.row) for run in experiments.load(stores / "toy").runs] == [(run.id, run.row) for run in made]
    assert load(stores / "toy").runs == experiments.load(stores / "toy").runs
    assert ids(load(stores / "toy", methods=("rna",), shifts=("all",), feeds=("all",), net="adapter")) == ids(
        experiments.load(stores / "toy")
    )


@pytest.mark.parametrize(
    ("methods", "rows"),
    [
        (("dann,mcd", "shot"), ["DANN", "MCD", "SHOT"]),
        (("cdan",), ["CDAN", "CDAN+E"]),
        (("cdan+e,Sinkhorn",), ["CDAN+E", "Sinkhorn"]),
        (("nearest mean, by domain",), ["nearest mean, by domain"]),
        (("mtran",), ["source-only, transformer", "MTRAN"]),
        (("rna,source_only",), ["RNA (DG)", "RNA (UDA)", "source-only, per modality"]),
    ],
)
def test_words_of_methods_are_rows_between_the_first_and_the_reference(folder, methods, rows):
    chosen = load(folder, methods=methods, shifts=("day:night",))
    assert list(chosen.rows) == [FIRST, *rows, LAST]
    assert {(run.source or ("day",), run.test) for run in chosen.runs if run.row != LAST} == {(("day",), "night")}


@pytest.mark.slow
def test_all_methods_of_several_feeds(folder):
    every = load(folder, methods=("all",), shifts=("day:night",))
    assert set(suite(modalities=True)) - set(every.rows) == {"Gradient Blending"}  # there are too few clips
    assert "MTRAN" in every.rows
    on_adapter = load(folder, methods=("all",), net="adapter", shifts=("day:night",))
    assert "TA3N, because" in on_adapter.note


def test_all_methods_but_those_that_feeds_or_net_cannot_serve(folder):
    """These are named with the reason; a method that is named is refused with it."""
    alone = load(folder, methods=("all",), shifts=("day:night",), feeds=("hog",))
    assert "RNA (DG), because method rna without a target aligns modalities" in alone.note
    assert {"RNA (DG)", "XMC modality"} & set(alone.rows) == set()
    assert {"DANN", "RNA (UDA)", "XMC final"} <= set(alone.rows)
    with pytest.raises(ConfigError, match="'gradient_blending' cannot run.*holdout"):
        load(folder, methods=("dann,gradient_blending",))
    with pytest.raises(ConfigError, match="'ta3n' cannot run.*use net trn"):
        load(folder, methods=("ta3n",), net="adapter")


def test_a_net_that_fuses_modalities_leaves_out_methods_that_need_each(folder):
    with pytest.raises(ConfigError, match="'mdann' cannot run.*net mtran classifies fused features"):
        load(folder, methods=("mdann",), net="mtran", shifts=("day:night",))
    chosen = load(folder, methods=("mmd",), net="mtran", shifts=("day:night",))
    assert {type(run.net).__module__ for run in chosen.runs} == {"heads.nets.mtran"}


def test_feeds_are_read_together_or_compared(folder):
    together = load(folder, feeds=("hog,hof",))
    assert together.runs[0].feeds == {"rgb": Feed("hog"), "flow": Feed("hof")}
    assert set(together.rows) == {FIRST, "RNA (DG)", "RNA (UDA)", LAST}
    compared = load(folder, methods=("dann",), feeds=("hog", "i3d,hof"), shifts=("day:night",))
    on = ("hog", "i3d+hof")
    assert list(compared.rows) == [f"{row}, {name}" for row in (FIRST, "DANN", LAST) for name in on]
    read = {run.row: [feed.store for feed in run.feeds.values()] for run in compared.runs}
    assert (read["DANN, hog"], read["DANN, i3d+hof"]) == (["hog"], ["i3d", "hof"])
    assert ids(load(folder, feeds=("rgb",))) == ids(load(folder, feeds=("hog",)))  # a modality names its only store
    (renamed, *_) = compared.changed(["feeds.rgb.store=i3d"], only=["DANN, hog"]).rows
    assert renamed == "DANN, hog, feeds.rgb.store=i3d"


def test_one_more_extractor_changes_nothing_where_feeds_are_named(tmp_path):
    stores = write_all(tmp_path)
    before = load(stores / "toy", feeds=("hog,hof",)), load(stores / "toy")
    write_store(stores / "toy", manifest(), "i3d")
    assert ids(load(stores / "toy", feeds=("hog,hof",))) == ids(before[0])
    assert ids(load(stores / "toy")).isdisjoint(ids(before[1]))


def test_shifts_have_one_source_or_several(folder):
    chosen = load(folder, shifts=("day:night", "day+dusk->night", "dusk→day"))
    rows = {(run.source, run.test) for run in chosen.runs if run.row == FIRST}
    assert rows == {(("day",), "night"), (("day", "dusk"), "night"), (("dusk",), "day")}


def test_names_of_domains_may_have_colons(tmp_path):
    stores = write_all(tmp_path, manifest(domains=("a:b", "c")))
    assert {run.source for run in load(stores / "toy", shifts=("a:b:c",)).runs if run.row == FIRST} == {("a:b",)}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"methods": ("dan",)}, "no method 'dan'; did you mean 'dann'.*rna"),
        ({"feeds": ("hog,hogg",)}, "no feed 'hogg'; did you mean 'hog'.*hof"),
        ({"shifts": ("day:nigt",)}, "no domain 'nigt' in shift 'day:nigt'; did you mean 'night'.*dusk"),
        ({"shifts": ("noon+day:night",)}, "no domain 'noon'"),
        ({"shifts": ("day",)}, "no shift 'day'; write SOURCE:TARGET"),
        ({"shifts": ("day:day",)}, "'day:day' names a domain twice"),
        ({"net": "adpter"}, "no net 'adpter'; did you mean 'adapter'"),
        ({"task": "clasification"}, "no task 'clasification'; did you mean 'classification'.*retrieval"),
        ({"methods": ("acp,mcd",)}, "acp .retrieval., mcd .classification."),
        ({"net": "ce", "task": "clustering"}, "net 'ce' does retrieval, not clustering"),
        ({"methods": ("mcd",), "net": "stgcn"}, "method 'mcd' does classification, not clustering"),
        ({"methods": ("dann,,mcd",)}, "empty word"),
    ],
)
def test_unknown_words_are_named_with_the_choices(folder, words, complaint):
    with pytest.raises(WordError, match=complaint):
        load(folder, **words)


def test_what_is_known_but_cannot_be_used_is_named_with_the_reason(tmp_path):
    clips = manifest(labels=lambda d, split, name: {} if d == "night" else {"label": name})
    stores = write_all(tmp_path, clips)
    write_store(stores / "toy", clips, "half", stop_after=3)
    for words, complaint in (
        ({"feeds": ("half",)}, "store 'half' cannot be used, because it is unfinished"),
        ({"shifts": ("night:day",)}, "night is no source, because none of its clips has a label"),
        ({"methods": ("acp",)}, "no store of captions"),
    ):
        with pytest.raises(ConfigError, match=complaint) as caught:
            load(stores / "toy", **words)
        assert not isinstance(caught.value, WordError)


def test_a_target_without_labels_has_no_reference_row(tmp_path):
    clips = manifest(domains=DOMAINS, labels=lambda d, split, name: {} if d == "night" else {"label": name})
    chosen = load(write_all(tmp_path, clips) / "toy", methods=("dann",))
    assert {(run.source, run.test) for run in chosen.runs if run.row == "DANN"} == {
        (("day",), "dusk"), (("dusk",), "day"), (("day",), "night"), (("dusk",), "night")
    }  # fmt: skip
    assert {run.test for run in chosen.runs if run.row == LAST} == {"day", "dusk"}
    assert chosen.note == ""


def test_words_belong_to_folders_of_stores(folder):
    for name in ("kitchens", ROOT / "pipelines" / "experiments" / "kitchens.py"):
        with pytest.raises(ArgumentsError, match="--method and --net .*kitchens.* --only"):
            experiments.load(name, Choice(methods=("dann",), net="adapter"))
    with pytest.raises(ArgumentsError, match="--feeds"):
        pipelines.experiment(experiments.load(folder), feeds="hog")
    for command in ("train-head", "evaluate", "table", "report", "sweep"):
        assert run_cli(command, folder, "--shift", "day:nigt").exit_code == 2
    assert run_cli("table", "kitchens", "--method", "dann").exit_code == 2
    assert run_cli("compare", folder, FIRST, "DANN", "--method", "dan").exit_code == 2
    assert run_cli("evaluate", "--all", "--net", "adapter").exit_code == 2


@pytest.mark.slow
def test_every_command_takes_the_same_words(folder, tmp_path):
    words = (folder, "--runs", tmp_path, "--method", "dann,mcd", "--feeds", "hog", "--shift", "day:night", *QUICK)
    for command in ("train-head", "evaluate"):
        result = run_cli(command, *words, "--workers", 1)
        assert result.exit_code == 0, result.output
    assert len([path for path in tmp_path.iterdir() if path.is_dir() and path.name[0] != "."]) == 4
    table = run_cli("table", *words, "--format", "csv")
    lines = list(csv.DictReader(table.stdout.splitlines()))
    assert {(line["method"], line["column"]) for line in lines if line["column"] == "day→night"} == {
        (row, "day→night") for row in (FIRST, "DANN", "MCD", LAST)
    }
    assert "MISSING" not in table.stdout
    assert "steps: 300 -> 2 (--set)" in table.stdout
    assert run_cli("report", *words, "--out", tmp_path / "page.html").exit_code == 0
    page = (tmp_path / "page.html").read_text()
    assert "steps: 300 -&gt; 2" in page
    assert "--method dann,mcd --feeds hog --shift day:night" in page  # the commands that make it again
    compared = run_cli("compare", folder, FIRST, "DANN", *words[1:])
    assert compared.exit_code == 0, compared.output
    assert "night→day" not in compared.stdout
    swept = run_cli("sweep", *words, "--workers", 1, "--only", "DANN", "--grid", "method.lambda_d=0.5,1")
    assert swept.exit_code == 0, swept.output
    assert "DANN, lambda_d = 0.5" in swept.stdout


SWEEP = pytest.param(("sweep", "--grid", "method.lambda_g=0.1,1"), id="sweep", marks=pytest.mark.slow)


@pytest.mark.parametrize("command", [pytest.param(("train-head",), id="train-head"), SWEEP])
def test_what_is_left_out_is_printed_before_training(folder, tmp_path, command):
    words = (folder, "--runs", tmp_path, "--method", "rna", "--feeds", "hog", "--shift", "day:night", *QUICK)
    printed = run_cli(*command, *words, "--only", "RNA (UDA)", "--workers", 1).stderr
    before, _, after = printed.partition("RNA (DG), because")
    assert " trained in " in after
    assert " trained in " not in before


def test_a_method_of_a_plug_in_has_a_row(folder, tmp_path):
    (tmp_path / "methods").mkdir()
    text = (ROOT / "heads" / "methods" / "entropy.py").read_text()
    (tmp_path / "methods" / "surest.py").write_text(text)
    with plugins.added([tmp_path]):
        chosen = load(folder, methods=("surest",), shifts=("day:night",))
        assert list(chosen.rows) == [FIRST, "surest", LAST]
        assert "surest" in load(folder, methods=("all",), shifts=("day:night",), feeds=("hog",)).rows


def test_the_experiment_of_the_guide_runs(tmp_path, monkeypatch):
    """The file is the one of the page, with other domains; its runs are trained here for a step each."""
    page = (ROOT / "docs" / "guide.md").read_text()
    (text,) = re.findall(r"<!-- experiment:.*?-->\n```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "mine.py").write_text(text.replace("kitchen_a", "day").replace("kitchen_b", "night"))
    stores = write_all(tmp_path / "stores", dataclasses.replace(manifest(), name="videos"))
    mine = experiments.load(tmp_path / "mine.py")
    assert {"DANN, λ = 0.3", "MCD", "SHOT", LAST} < set(mine.rows)
    assert mine.note
    short = mine.changed(["steps=1"], seeds="0").runs
    outcomes = engine.run_all([run for run in short if run.test == "night"], stores, tmp_path / "runs")
    assert {outcome.status for outcome in outcomes} == {"trained"}
    table = page[page.index("These names of `pipelines.experiments`") :]
    for name in re.findall(r"`(\w+)\(", table.partition("A file may also")[0]):
        assert name in experiments.__all__


def test_runs_and_rows_are_public():
    assert experiments.runs is runs
    assert all(getattr(experiments, name).__doc__ for name in ("Row", "Whole", "Passes", "Choice", "runs", "suite"))


@pytest.mark.slow
def test_a_target_without_labels_from_folders_to_predictions(videos, tmp_path):
    """Two folders, one with class folders; every command on the way, and none reads a label of the target."""
    labels = {row["clip_id"]: row for row in csv.DictReader((videos / "kitchens.csv").open())}
    for name, row in labels.items():
        place = tmp_path / ("source/" + row["label"] if row["domain"] == "loft" else "target/day")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(videos / row["source"], place / f"{name}{Path(row['source']).suffix}")
    both, stores, runs_at = tmp_path / "both.csv", tmp_path / "stores", ("--runs", tmp_path / "runs")
    assert run_cli("manifest", "scan", tmp_path / "source", "--domain", "A", "--test-share", "0.1").exit_code == 0
    assert run_cli("manifest", "scan", tmp_path / "target", "--domain", "B", "--unlabelled").exit_code == 0
    parts = (tmp_path / "source" / "source.csv", tmp_path / "target" / "target.csv")
    assert run_cli("manifest", "join", *parts, both).exit_code == 0
    words = (stores / "both", *runs_at, "--method", "dann,shot", *QUICK)
    for command in (
        ("check", both),
        ("extract", both, "hog", "--stores", stores),
        ("info", stores / "both" / "hog.zarr"),
        ("train-head", *words, "--workers", 1),
        ("evaluate", *words),
        ("table", *words),
        ("table", *words, "--metric", "validator/infomax"),
        ("report", *words),
        ("check", stores / "both"),
    ):
        result = run_cli(*command)
        assert result.exit_code == 0, (command, result.output)
        if command[0] == "evaluate":
            assert "nothing to compare" in result.stderr
            assert "featcache predict" in result.stderr
        if command[0] in ("table", "report"):
            assert "MISSING" not in result.output
    (folder,) = (tmp_path / "runs").glob("shot_*")
    out = tmp_path / "predictions.csv"
    assert run_cli("predict", folder, tmp_path / "target", "--out", out).exit_code == 0
    assert len(list(csv.DictReader(out.open()))) == sum(row["domain"] != "loft" for row in labels.values())


BROKEN = """

class Broken(METHOD):
    def __init__(self, *args, **kwargs):
        raise RuntimeError("no luck")


METHOD = Broken
"""


def test_a_mistake_in_a_plug_in_fails_its_own_runs(folder, tmp_path):
    for kind, name in (("methods", "entropy"), ("nets", "adapter")):
        (tmp_path / kind).mkdir()
        text = (ROOT / "heads" / kind / f"{name}.py").read_text() + BROKEN
        (tmp_path / kind / "unlucky.py").write_text(text.replace("METHOD", "NET") if kind == "nets" else text)
    with plugins.added([tmp_path]):
        chosen = load(folder, methods=("dann,unlucky",), feeds=("hog",), shifts=("day:night",))
        assert list(chosen.rows) == [FIRST, "DANN", "unlucky", LAST]
        short = chosen.changed(["steps=1"], seeds="0").runs
        outcomes = engine.run_all(short, folder.parent, tmp_path / "runs", workers=1)
        assert [outcome.config.row for outcome in outcomes if outcome.status != "trained"] == ["unlucky"]
        assert load(folder, net="unlucky", shifts=("day:night",)).runs


SEVERAL = """

class Several(METHOD):
    def __init__(self, params, spec, net):
        super().__init__(params, spec, net)
        if len(spec.domains) < 3:
            raise ValueError("method several needs two sources")


METHOD = Several
"""


def test_a_method_that_needs_several_sources_is_left_out_only_where_it_has_one(folder, tmp_path):
    (tmp_path / "methods").mkdir()
    text = (ROOT / "heads" / "methods" / "entropy.py").read_text() + SEVERAL
    (tmp_path / "methods" / "several.py").write_text(text)
    one, two = ("day:night",), ("day:dusk", "day+dusk:night")
    with plugins.added([tmp_path]):
        chosen = load(folder, methods=("dann,several",), feeds=("hog",), shifts=two)
        assert list(chosen.rows) == [FIRST, "DANN", "several", LAST]
        assert {run.source for run in chosen.runs if run.row == "several"} == {("day", "dusk")}
        assert {run.source for run in chosen.runs if run.row == "DANN"} == {("day",), ("day", "dusk")}
        assert chosen.note == "LEFT OUT: several with one source, because method several needs two sources."
        assert ids(chosen) >= ids(load(folder, methods=("dann",), feeds=("hog",), shifts=two))
        with pytest.raises(ConfigError, match="'several' cannot run.*needs two sources"):
            load(folder, methods=("dann,several",), feeds=("hog",), shifts=one)
        everywhere = load(folder, methods=("rna",), feeds=("hog",), shifts=two).note
        assert everywhere.count("RNA (DG), because") == 1  # with any number of sources


def test_the_word_all_stands_next_to_others(folder):
    """Each word next to it is checked, and adds what `all` lacks."""
    for words in ({"methods": ("dannn,all",)}, {"shifts": ("all", "day:nigt")}, {"feeds": ("hogg,all",)}):
        with pytest.raises(WordError, match="did you mean"):
            load(folder, **words)
    every = {((a,), b) for a in DOMAINS for b in DOMAINS if a != b}
    chosen = load(folder, shifts=("day+dusk:night", "all"), feeds=("hog,all",))
    assert {(run.source, run.test) for run in chosen.runs if run.row == FIRST} == every | {(("day", "dusk"), "night")}
    assert {feed.store for feed in chosen.runs[0].feeds.values()} == {"hog", "hof", "i3d"}
    one = {"feeds": ("hog",), "shifts": ("day:night",)}
    assert load(folder, methods=("dann,all",), **one).note == load(folder, methods=("all",), **one).note


@pytest.mark.parametrize(("word", "method"), [("RNA", "rna"), ("Entropy", "entropy"), ("ADABN", "adabn")])
def test_methods_are_named_in_any_case(folder, word, method):
    one = {"feeds": ("hog,hof",), "shifts": ("day:night",)}
    assert load(folder, methods=(word,), **one).rows == load(folder, methods=(method,), **one).rows


@pytest.mark.parametrize(
    ("words", "text"),
    [({"methods": ("dann", "mcd,,shot")}, "--method 'mcd,,shot'"), ({"methods": ("",)}, "--method ''"),
     ({"feeds": ("hog", "hof,")}, "--feeds 'hof,'")],
)  # fmt: skip
def test_an_empty_word_is_named_with_its_option(folder, words, text):
    with pytest.raises(WordError, match=f"{text} has an empty word"):
        load(folder, **words)


def test_a_plug_in_that_cannot_be_loaded_hides_no_typo(folder, tmp_path):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "b.py").write_text("nothing\n")
    with plugins.added([tmp_path]), pytest.raises(WordError, match="no method 'dan'; did you mean 'dann'"):
        load(folder, methods=("dan",))


def test_a_damaged_store_is_left_out_unless_it_is_named(tmp_path):
    stores = write_all(tmp_path)
    before = ids(load(stores / "toy"))
    (stores / "toy" / "bad.zarr").mkdir()
    chosen = load(stores / "toy")
    assert ids(chosen) == before
    assert "bad, because no feature store" in chosen.note
    assert "bad" not in load(stores / "toy", feeds=("hog",)).note
    with pytest.raises(ConfigError, match="store 'bad' cannot be used, because no feature store"):
        load(stores / "toy", feeds=("hog,bad",))
    for store in ("hog", "hof"):
        shutil.rmtree(stores / "toy" / f"{store}.zarr")
    with pytest.raises(ConfigError, match="no finished store.*bad .no feature store"):
        load(stores / "toy")


def test_the_help_of_each_word_has_its_default():
    text = " ".join(run_cli("train-head", "--help").output.split())
    for option, following in (("--method", "--feeds"), ("--net", "--task"), ("--task", "--shift")):
        assert "[default:" in text.partition(f"{option} N")[2].partition(f" {following} ")[0]
    assert "featcache list nets" in text
