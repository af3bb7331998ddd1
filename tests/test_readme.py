"""The README is run: its commands exist, its Python works, its table is what the demo gives."""

import re
import shlex
import subprocess

import click
import pytest

from pipelines.cli import main
from tests.conftest import ROOT
from tests.pipelines.test_cli import commands

README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_command_table_is_the_command_line():
    listed = re.findall(r"^\| `featcache ([a-z -]+)` \|", README, re.MULTILINE)
    assert sorted(listed) == sorted(" ".join(path) for path, _ in commands())


def test_every_command_in_the_readme_parses():
    """Names and options only; nothing is run."""
    for command in re.split(r"\n|&&", "\n".join(blocks("sh"))):
        words = shlex.split(command, comments=True)
        if words and words[0] == "featcache":
            group, rest = main, words[1:]
            while isinstance(group, click.Group):
                group, rest = group.commands[rest[0]], rest[1:]
            group.make_context(group.name, rest, resilient_parsing=False)


def test_the_demo_is_the_makefiles():
    """The commands that the README lists for `make demo` are the ones that make would run."""
    dry = subprocess.run(["make", "-n", "-B", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    would = [line.split("bin/", 1)[1].split(" >")[0] for line in dry.splitlines() if "bin/featcache" in line]
    (listed,) = [block for block in blocks("sh") if "manifest build kitchens" in block]
    assert would == listed.splitlines()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in target or (ROOT / target).exists(), target


@pytest.mark.slow
def test_the_demo_gives_the_table(tmp_path):
    """The whole main job. Numbers differ between processors, RNA's by its spread (8 points); claims may not."""
    from click.testing import CliRunner

    (listed,) = [block for block in blocks("sh") if "manifest build kitchens" in block]
    printed = []
    for line in listed.splitlines():
        words = line.replace("demo/", f"{tmp_path}/").split()[1:]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
        printed.append(result.stdout)
    accuracy, norms = (numbers(text) for text in printed[-2:])
    promised = numbers(re.search(r"<!-- table.*?<!-- /table -->", README, re.DOTALL).group())
    for row, values in accuracy.items():
        assert values == pytest.approx(promised[row][: len(values)], abs=8), row
    (mean,) = [column for column, title in enumerate(printed[-2].splitlines()[0].split("|")) if "mean" in title]
    assert accuracy["supervised-target"][mean - 2] >= accuracy["source-only"][mean - 2] + 15
    for row in ("RNA (DG)", "RNA (UDA)"):
        assert norms[row][-1] <= norms["source-only"][-1] / 2
    check_python(tmp_path)


def numbers(table):
    """Row name -> its means, without spreads and changes."""
    rows = {}
    for line in table.splitlines():
        name, *cells = [cell.strip(" *†") for cell in line.strip().strip("|").split("|")]
        means = [float(match.group()) for cell in cells if (match := re.match(r"[+-]?\d+\.\d+", cell))]
        if means:
            rows.setdefault(name, []).extend(means)
    return rows


def check_python(demo):
    (code,) = blocks("python")[:1]
    names = {}
    exec(code.replace("demo/", f"{demo}/"), names)
    assert names["x"].shape[:2] == (len(names["train"]), names["store"].windows)
    assert names["one"].shape == names["x"].shape[1:]
