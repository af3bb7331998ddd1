"""`featcache show`: every entry of every registry can be shown, and every parameter has a meaning."""

import dataclasses
import os
import re
import subprocess
import sys
from dataclasses import dataclass

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from featcache import plugins
from featcache.builders import names as benchmarks
from featcache.errors import ConfigError
from featcache.parameters import parameters
from pipelines import catalogue
from pipelines.cli import main
from pipelines.config import Feed
from tests.conftest import ROOT

SET = ("extractor", "method", "net")  #: kinds whose entries have Params


def check_table(entry):
    """Each parameter is a row of five cells: a bar in a text would begin another cell."""
    rows = [line for line in entry.markdown().splitlines() if line.startswith("| `")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [6] * len(entry.parameters), entry.name


@pytest.mark.parametrize("kind", [kind for kind in catalogue.KINDS if kind != "experiment"])
def test_every_entry_can_be_shown(kind):
    for name in catalogue.names(kind):
        entry = catalogue.show(kind, name)
        assert str(entry).startswith(f"{kind} {name}\n\n")
        assert len(entry.title) > 5, name
        assert entry.markdown().startswith(f"## {name}\n")
        check_table(entry)


@pytest.mark.parametrize("kind", SET)
def test_every_parameter_has_a_meaning_and_a_default(kind):
    for name in catalogue.names(kind):
        for parameter in catalogue.show(kind, name).parameters:
            assert len(parameter.meaning) > 2, f"{kind} {name}: {parameter.name} has no comment after #:"
            assert parameter.default != "required", f"{kind} {name}: {parameter.name}"


@pytest.mark.parametrize("name", ["kitchens", pytest.param(None, marks=pytest.mark.slow)])
def test_every_setting_of_an_experiment_has_a_meaning(name):
    for experiment in [name] if name else catalogue.names("experiment"):
        entry = catalogue.show("experiment", experiment)
        check_table(entry)
        assert {"optim.lr", "preparation.units", "steps"} <= {p.name for p in entry.parameters}
        for parameter in entry.parameters:
            assert len(parameter.meaning) > 2, f"{parameter.name} has no comment after #:"
        assert f"featcache train-head {experiment}" in str(entry)
    for parameter in parameters(Feed):
        assert parameter.meaning, parameter.name


def test_the_values_are_those_of_the_experiments_runs():
    of = {p.name: p.default for p in catalogue.show("experiment", "kitchens").parameters}
    assert (of["optim.clip_norm"], of["preparation.units"], of["steps"]) == ("5.0", "'source'", "300")
    assert of["batch"] == "(64, 64), (32, 32)"  # without a target, and with one


def test_comments_are_read_where_they_are():
    @dataclass(frozen=True)
    class Base:
        dim: int = 3  #: entries [paper, Eq. 3]
        bare: str = "x"

    @dataclass(frozen=True)
    class Params(Base):
        #: the first line
        #: and the second one [ours]
        gain: float = dataclasses.field(default=1.0, metadata={"low": 0, "high": 2})

        def method(self) -> None:
            other: int = 3  #: no field
            del other

    dim, bare, gain = parameters(Params)
    assert (dim.name, dim.type, dim.default, dim.meaning, dim.source) == ("dim", "int", "3", "entries", "paper, Eq. 3")
    assert (bare.default, bare.meaning) == ("'x'", "")
    assert (gain.allowed, gain.meaning, gain.source) == ("0 to 2", "the first line and the second one", "ours")


def test_an_extractor_is_shown_with_its_window_and_weights():
    facts = catalogue.show("extractor", "i3d-rgb@flip").facts
    assert (facts["modality"], facts["row"]) == ("rgb", "1024")
    assert "count 16" in facts["window"]
    assert "flip" in facts["window"]
    assert "Apache-2.0" in facts["weights"]
    for name in ("hf:facebook/dinov2-base", "hf:facebook/dinov2-base@flip"):  # its window is in the files of the model
        assert catalogue.show("extractor", name).set_by.startswith("--set hf:facebook/dinov2-base.")


def test_a_benchmark_is_shown_with_its_card():
    for name in benchmarks():
        assert catalogue.show("benchmark", name).card == (ROOT / "data_manifests" / f"{name}.md").read_text()


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("extractor i3d_rgb", "i3d-rgb"),
        ("method rma", "rna"),
        ("net adaptor", "adapter"),
        ("experiment kitchen", "kitchens"),
        ("benchmark kitchen", "kitchens"),
        ("metric top11", "top1"),
        ("task clusterin", "clustering"),
        ("format npzz", "npz"),
    ],
)
def test_an_unknown_name_is_one_sentence_with_the_nearest(words, near):
    result = CliRunner().invoke(main, ["show", *words.split()])
    assert result.exit_code == 1
    assert f"did you mean {near!r}?" in result.output
    with pytest.raises(ConfigError, match="'extracter'.*did you mean 'extractor'"):
        catalogue.show("extracter", "hog")


@pytest.mark.parametrize("place", ["show method --plugins {0}", "--plugins {0} show method"])
def test_the_shell_completes_names_of_plug_ins(tmp_path, place):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "surest.py").write_text("raise SystemExit")
    words = place.format(tmp_path).split()
    found = ShellComplete(main, {}, "featcache", "_FEATCACHE_COMPLETE").get_completions(words, "sure")
    assert [item.value for item in found] == ["surest"]
    assert plugins.folders() == ()


def test_the_shell_completes_nothing_for_a_wrong_folder(monkeypatch):
    shell = ShellComplete(main, {}, "featcache", "_FEATCACHE_COMPLETE")
    assert [item.value for item in shell.get_completions(["show", "method"], "rn")] == ["rna"]
    assert "top1" in [item.value for item in shell.get_completions(["show", "metric"], "top")]
    assert shell.get_completions(["show", "method", "--plugins", "gone"], "rn") == []
    monkeypatch.setenv(plugins.VARIABLE, "/gone")
    assert shell.get_completions(["show", "method"], "rn") == []


def complete(words):
    """The completions of the last word, and the heavy modules that were imported for them."""
    code = (
        "import sys; from pipelines.cli import main; sys.argv[0] = 'featcache'\n"
        "try: main()\n"
        "finally: print(*({'torch', 'zarr', 'pandas', 'cv2'} & set(sys.modules)), file=sys.stderr)"
    )
    variables = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_FEATCACHE_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout.split(), done.stderr.strip()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("featcache show method rn", ["plain,rna"]),
        pytest.param("featcache extract m.csv i3d", ["plain,i3d-flow", "plain,i3d-rgb"], marks=pytest.mark.slow),
        pytest.param("featcache train-head kitch", ["file,kitch", "plain,kitchens"], marks=pytest.mark.slow),
        pytest.param("featcache evaluate kitch", ["file,kitch", "plain,kitchens"], marks=pytest.mark.slow),
        pytest.param("featcache manifest build kitch", ["plain,kitchens"], marks=pytest.mark.slow),
        pytest.param("featcache export --format npz", ["plain,npz"], marks=pytest.mark.slow),
        pytest.param("featcache import npz", ["plain,npz"], marks=pytest.mark.slow),
        pytest.param("featcache weights fetch tsn", ["plain,tsn-kinetics-flow"], marks=pytest.mark.slow),
        pytest.param("featcache list meth", ["plain,methods"], marks=pytest.mark.slow),
    ],
)
def test_the_shell_completes_names_without_torch(words, expected):
    assert complete(words) == (expected, "")


@pytest.mark.slow
def test_python_can_run_the_package():
    done = subprocess.run(
        [sys.executable, "-m", "featcache", "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.startswith("Usage: python -m featcache ")
    assert "train-head" in done.stdout


def test_a_plug_in_is_shown_with_its_place(tmp_path, monkeypatch):
    (tmp_path / "nets").mkdir()
    shipped = (ROOT / "heads" / "nets" / "gated.py").read_text()
    (tmp_path / "nets" / "mine.py").write_text(re.sub(r"\bGated\b", "Mine", shipped))
    with plugins.added([tmp_path]):
        entry = catalogue.show("net", "mine")
        assert entry.facts["from"] == str(tmp_path / "nets" / "mine.py")
        assert [p.name for p in entry.parameters] == [p.name for p in catalogue.show("net", "gated").parameters]
    assert "from" not in catalogue.show("net", "gated").facts
