"""The examples in docstrings are true, and docstrings begin with a verb or a noun."""

import ast
import doctest
import importlib
import re

import pytest

from tests.conftest import ROOT

PACKAGES = ("featcache", "heads", "pipelines")
FILES = [path.relative_to(ROOT) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
WEAK = {"What", "Which", "Where", "Whether", "How", "Who", "Those", "Of", "As", "That", "When", "Why", "If"}
WITH_EXAMPLES = [path for path in FILES if ">>> " in (ROOT / path).read_text()]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=str)
def test_examples(path):
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("path", FILES, ids=str)
def test_docstrings_begin_with_a_verb_or_a_noun(path):
    """Also the strings that explain a constant. "Whether x" is "True if x"; "What y has" is "The parts of y"."""
    weak = []
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            first = re.match(r"\s*(\w*)", node.value.value).group(1)
            if first.capitalize() in WEAK:
                weak.append(f"line {node.lineno}: {node.value.value.strip().splitlines()[0]}")
    assert not weak, f"{path}: a docstring begins with none of {', '.join(sorted(WEAK))}"
