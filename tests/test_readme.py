"""The README and the pages of docs/ are run: commands exist, links resolve, Python works, tables are what there is."""

import configparser
import re
import shlex
import subprocess

import click
import pytest

from featcache import extractors
from pipelines.cli import main
from tests.conftest import ROOT
from tests.pipelines.test_cli import commands
from tests.test_layers import ROOMS

README = (ROOT / "README.md").read_text()
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("data_manifests/*.md")])
}
SESSION = re.search(r"<!-- session.*?<!-- /session -->", README, re.DOTALL).group()
DEMO = re.findall(r"^\$ (featcache .*)", SESSION, re.MULTILINE)
GLOSSARY = (
    "clip, manifest, window, window plan, extractor, recipe, store, block, row, table row, feed, view, side, draw, "
    "sweep, kept point, validator, oracle, shift, label, task, experiment, run, branch, keel, fidelity, surrogate, "
    "tier, bridge"
)


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


def test_the_picture_is_small():
    assert (ROOT / "docs" / "report.png").stat().st_size < 150 * 1024


def test_the_command_table_is_the_command_line():
    page = PAGES["docs/commands.md"].read_text()
    listed = re.findall(r"^\| `featcache ([a-z -]+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(" ".join(path) for path, _ in commands())


def test_the_extractor_table_has_every_extractor():
    table = PAGES["docs/extractors.md"].read_text().split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    listed = [name.partition(":")[0] for row in rows for name in re.findall(r"`(.*?)`", row)]
    assert sorted(listed) == extractors.names()


@pytest.mark.parametrize("page", PAGES)
def test_every_command_parses(page, tmp_path, monkeypatch):
    """Names and options only; nothing is run."""
    (tmp_path / "mine" / "methods").mkdir(parents=True)
    (tmp_path / "mine" / "methods" / "any.py").touch()
    monkeypatch.chdir(tmp_path)  # with the folder that pages name in --plugins
    text = PAGES[page].read_text()
    shell = "\n".join([*blocks("sh", text), *re.findall(r"^\$ (.*)", text, re.MULTILINE)]).replace("\\\n", " ")
    for command in re.split(r"\n|&&", shell):
        words = shlex.split(command, comments=True)
        if words and words[0] == "featcache":
            group, rest = main, words[1:]
            while isinstance(group, click.Group):
                group, rest = group.commands[rest[0]], rest[1:]
            with group.make_context(group.name, rest, resilient_parsing=False):
                pass  # at its end it forgets the plug-ins


def test_the_demo_is_the_makefiles():
    """The commands that the README lists for `make demo` are the ones that make would run."""
    dry = subprocess.run(["make", "-n", "-B", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    would = [line.split("bin/", 1)[1].split(" >")[0] for line in dry.splitlines() if "bin/featcache" in line]
    assert would == DEMO


def test_featcache_is_on_the_path_before_the_readme_calls_it():
    """`make` installs into the environment that the README activates, and the installation has the command."""
    assert README.index("\nmake ") < README.index("\nsource .venv/bin/activate") < README.index("\n$ featcache ")
    dry = subprocess.run(["make", "-n", "-B"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "-m venv .venv\n" in dry
    assert ".venv/bin/python -m pip install" in dry
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.entry_points"]["console_scripts"].strip() == "featcache = pipelines.cli:main"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", PAGES[page].read_text()):
        assert "://" in target or (PAGES[page].parent / target).exists(), target


@pytest.mark.parametrize("word", GLOSSARY.split(", "))
def test_the_glossary_has_the_words(word):
    glossary = PAGES["docs/architecture.md"].read_text().split("## Glossary")[1].split("\n## ")[0]
    assert f"**{word}**" in glossary


def test_the_rooms_are_in_the_architecture_in_their_order():
    page = PAGES["docs/architecture.md"].read_text()
    rows = re.findall(r"^\| `pipelines[./]([a-z]+)(?:\.py)?` \|", page, re.MULTILINE)
    assert rows == ROOMS


@pytest.mark.parametrize("path", sorted((ROOT / "featcache").iterdir()), ids=lambda path: path.name)
def test_the_rooms_of_featcache_are_in_the_architecture(path):
    section = PAGES["docs/architecture.md"].read_text().split("## The rooms of featcache")[1].split("\n## ")[0]
    assert path.name.startswith("__") or path.name == "py.typed" or f"`{path.name}`" in section


@pytest.mark.slow
def test_the_demo_gives_the_table(tmp_path):
    """The whole main job. Numbers differ between processors, RNA's by its spread (8 points); claims may not."""
    from click.testing import CliRunner

    printed = []
    for line in DEMO:
        words = line.replace("demo/", f"{tmp_path}/").split()[1:]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
        printed.append(result.stdout.replace(f"{tmp_path}/", "demo/"))
    for output in printed[:-2]:
        assert output in SESSION
    accuracy, norms = (numbers(text) for text in printed[-2:])
    promised = numbers(SESSION)
    for row, values in accuracy.items():
        assert values == pytest.approx(promised[row][: len(values)], abs=8), row
    (mean,) = [column for column, title in enumerate(printed[-2].splitlines()[0].split("|")) if "mean" in title]
    assert accuracy["supervised-target"][mean - 2] >= accuracy["source-only"][mean - 2] + 15
    for row, column in (("RNA (DG)", 0), ("RNA (UDA)", -1)):  # of the source, which DG sees; of both
        assert norms[row][column] <= norms["source-only"][column] / 2
    check_python(tmp_path)


def numbers(table):
    """Row name -> its means, without spreads and changes."""
    rows = {}
    for line in table.splitlines():
        name, *cells = [cell.strip(" *_†") for cell in line.strip().strip("|").split("|")]
        means = [float(match.group()) for cell in cells if (match := re.match(r"[+-]?\d+\.\d+", cell))]
        if means:
            rows.setdefault(name, []).extend(means)
    return rows


def check_python(demo):
    """The example of the README on the finished demo: it keeps clips and runs, and its objects fit together."""
    (code,) = blocks("python")[:1]
    names = {}
    exec(code.replace("demo/", f"{demo}/"), names)
    assert names["x"].shape[:2] == (len(names["manifest"]), names["store"].windows)
    assert names["y"].shape == (len(names["manifest"]),)
    assert {outcome.status for outcome in names["outcomes"]} == {"kept"}
    assert set(names["results"]["row"]) >= {line.method for line in names["table"].lines}
    assert set(names["classes"]["clip_id"]) == {clip.clip_id for clip in names["manifest"] if clip.domain == "loft"}
