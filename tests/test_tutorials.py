"""The tutorials of docs/ run from top to bottom, as notebooks do, and print what they promise."""

import ast
import contextlib
import doctest
import io
import re

import pytest

from tests.conftest import ROOT

PAGES = sorted({*(ROOT / "docs").glob("*tutorial*.md"), *(ROOT / "docs" / "tutorials").glob("*.md")})
CELL = re.compile(r"^```python\n(.*?)^```(?:\n+```text\n(.*?)^```)?", re.DOTALL | re.MULTILINE)
SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def cells(page):
    """Yield (code, the text block that follows it, or "", first line) of the blocks of Python."""
    text = page.read_text()
    for match in CELL.finditer(text):
        yield match[1], match[2] or "", text.count("\n", 0, match.start(1)) + 1


def shown(code, place, names):
    """Run a cell; return what it prints, and what a notebook shows of its last expression."""
    tree, last = ast.parse(code, place), None
    if isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body.pop().value)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(tree, place, "exec"), names)
        value = eval(compile(last, place, "eval"), names) if last else None
    if value is not None:
        assert isinstance(getattr(value, "_repr_html_", lambda: "")(), str)
        print(repr(value), file=out)
    return out.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tutorials_are_python(page):
    assert [ast.parse(code, f"{page.name} line {line}") for code, _, line in cells(page)]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tutorials_run_and_print_what_they_promise(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "tutorial"}
    for code, promised, line in cells(page):
        printed = shown(code, f"{page.name} line {line}", names)
        same = not promised or doctest.OutputChecker().check_output(promised, printed, SAME)
        assert same, f"{page.name} line {line} promises\n{promised}\nand prints\n{printed}"
