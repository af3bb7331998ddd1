"""docs/methods.md lists every method, and says what each may see."""

import re

import pytest

from featcache import registry
from heads import methods
from pipelines import experiments
from pipelines.experiments._papers import PAPERS, cells
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "methods.md").read_text()
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
SEES = {name: cells[2] for cells in ROWS for name in re.findall(r"`(\w+)`", re.sub(r"\(nets? .*?\)", "", cells[0]))}
WORDS = {"s": "source", "t": "target", "run": "init_from", "val": "source_val"}


def test_every_method_is_on_the_page_once():
    assert sorted(SEES) == registry.names(methods)


@pytest.mark.parametrize("name", registry.names(methods))
def test_the_page_says_what_a_method_sees(name):
    method = registry.load(methods, name, "method").METHOD
    needs = {WORDS[word] for word in re.sub(r"\(\w+\)", "", SEES[name]).split()}
    may = {WORDS[word] for word in re.findall(r"\((\w+)\)", SEES[name])}
    assert (set(method.needs), set(method.may)) == (needs, may)


@pytest.mark.parametrize("name", registry.names(methods))
def test_surrogates_stand_under_their_heading(name):
    below = PAGE.index("**Surrogates**") < PAGE.index(f"`{name}`", PAGE.index("| --- |"))
    assert bool(registry.load(methods, name, "method").METHOD.surrogate) == below


SECTION = PAGE.partition("## What is not here, and why")[2]
PRINTED = list(dict.fromkeys((cell.paper, cell.table, cell.row) for cell in cells()))


@pytest.mark.parametrize("paper", PAPERS)
def test_a_row_of_a_paper_is_run_or_the_page_says_why_not(paper):
    """A rival's own row, such as "source-only of TA3N", is named by its kind, "source-only of"."""
    systems = [name for name in experiments.names() if name.split("_")[0] == paper.lower()]
    run = {row for name in systems for row in experiments.load(name).rows}
    quoted = {row for name in systems for row in experiments.load(name).quoted}
    assert not run & quoted
    for _, table, row in (printed for printed in PRINTED if printed[0] == paper):
        if row not in run:
            method = row.partition(", ")[0]
            kind = re.match(r"(.* of )|", method).group()
            assert f"**{method}**" in SECTION or (kind and f"`{kind}" in SECTION), f"{table}: {row}"
