"""The examples in docstrings are true, and docstrings begin with a verb or a noun."""

import ast
import doctest
import importlib
import re

import pytest

from tests.conftest import ROOT
from tests.test_layers import FILES, nodes_of

WEAK = {"What", "Which", "Where", "Whether", "How", "Who", "Those", "Of", "As", "That", "When", "Why", "If"}
WITH_EXAMPLES = [path for path in FILES if ">>> " in (ROOT / path).read_text()]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=str)
def test_examples(path):
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_docstrings_begin_with_a_verb_or_a_noun():
    """Also the strings that explain a constant. "Whether x" is "True if x"; "What y has" is "The parts of y"."""
    weak = []
    for path in FILES:
        for node in nodes_of(path):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                first = re.match(r"\s*(\w*)", node.value.value).group(1)
                if first.capitalize() in WEAK:
                    weak.append(f"{path} line {node.lineno}: {node.value.value.strip().splitlines()[0]}")
    assert not weak, f"a docstring begins with none of {', '.join(sorted(WEAK))}"
