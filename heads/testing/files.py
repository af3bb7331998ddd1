"""Checks of what a method file and a net file have in common."""

import ast
import dataclasses
import inspect
import re
import textwrap
from types import ModuleType
from typing import Any, ClassVar

import pytest

from heads.params import ranges


def short_name(module: ModuleType) -> str:
    """Return the name of the file: `heads.methods.rna` -> `rna`."""
    return module.__name__.rpartition(".")[2]


#: end of a field's comment: the source of its default, and details of it
PROVENANCE = re.compile(r"\[(paper|code|ours)(?:[,:] [^\]]+)?\]$")


def provenance(params: Any) -> dict[str, str]:
    """Return field -> paper, code or ours, the source of its default; "" where its comment does not end with it.

    >>> from heads.methods import mtran
    >>> provenance(mtran.Params)["lambda_1"]
    'paper'
    """
    found = {field: PROVENANCE.search(line) for field, line in _lines(params).items()}
    return {field: match[1] if match else "" for field, match in found.items()}


def _lines(params: Any) -> dict[str, str]:
    """Return field -> the line that declares it, or "" if no line of the class does."""
    source = textwrap.dedent(inspect.getsource(params)).splitlines()
    names = [field.name for field in dataclasses.fields(params)]
    return {name: next((line for line in source if line.startswith(f"    {name}:")), "") for name in names}


def check_params(module: ModuleType) -> None:
    """Check `Params`: frozen, and each field with a comment and the source of its default; numbers with a range."""
    name, params = f"{short_name(module)}.Params", module.Params
    frozen = getattr(getattr(params, "__dataclass_params__", None), "frozen", False)
    assert frozen, f"{name} is no frozen dataclass; write @dataclass(frozen=True)"
    lines, sources = _lines(params), provenance(params)
    for field in dataclasses.fields(params):
        assert lines[field.name], f"{name}.{field.name} is not declared in the class itself"
        assert "#: " in lines[field.name], f"{name}.{field.name} has no comment; describe it on its line, after #:"
        assert sources[field.name], (
            f"{name}.{field.name} does not name the source of its default {field.default!r}; end its comment with "
            "[paper], [code] or [ours], or with details as in [paper, Eq. 3] or [ours: the paper has none]"
        )
        if field.type in (int, float, "int", "float"):
            assert field.name in ranges(params), (
                f"{name}.{field.name} has no range; write {field.name} = within({field.default}, low, high), with "
                "`within` of heads.params"
            )


DROPOUT = re.compile(r"((nn\.)?functional|nn|F)\.\w*[dD]ropout\w*")
DRAW = re.compile(  #: names of functions and methods of torch that draw random numbers
    r"(rand|randn|randint|randperm)(_like)?|normal|bernoulli|multinomial|poisson|r?sample|gumbel_softmax|rrelu"
    r"|(random|normal|uniform|bernoulli|exponential|geometric|cauchy|log_normal)_"
)


def draws_elsewhere(module: ModuleType) -> list[str]:
    """Return what a file draws without `heads.noise`, such as "torch.rand in line 7", even where no test comes by.

    Constructors, and functions outside of classes that they may call, can draw weights; generators can be passed.
    """
    tree = ast.parse(inspect.getsource(module))
    methods = [part for node in tree.body if isinstance(node, ast.ClassDef) for part in node.body]
    methods = [part for part in methods if getattr(part, "name", "__init__") != "__init__"]
    found = list[str]()
    for pattern, nodes in ((DROPOUT, [tree]), (DRAW, methods)):
        for call in (node for part in nodes for node in ast.walk(part) if isinstance(node, ast.Call)):
            text, given = ast.unparse(call.func), any(keyword.arg == "generator" for keyword in call.keywords)
            name = text.removeprefix("torch.") if pattern is DROPOUT else text.rpartition(".")[2]
            if pattern.fullmatch(name) and not given and not text.startswith(("noise.", "self.")):
                found.append(f"{text} in line {call.lineno}")
    return found


def check_draws(module: ModuleType) -> None:
    """Check that the file draws random numbers only through `heads.noise`."""
    found = draws_elsewhere(module)
    assert found == [], f"{', '.join(found)}: draw by `heads.noise`, and drop by noise.Dropout"


class FileTests:
    """Base of the contracts: the files under test, and each test once per file.

    A subclass sets `module`, or overrides `modules` to test several files.
    """

    module: ClassVar[ModuleType]  #: the file under test
    contents: ClassVar[tuple[str, ...]]  #: names that the file must have

    @classmethod
    def modules(cls) -> list[ModuleType]:
        """Return the files under test."""
        if not hasattr(cls, "module"):
            raise pytest.Collector.CollectError(f"{cls.__name__}.module is not set; write `module = your_file`")
        return [cls.module]

    @classmethod
    def checked_modules(cls) -> list[ModuleType]:
        """Return the files under test, all of which have the names that the contract needs."""
        modules = cls.modules()
        for module in modules:
            missing = [name for name in cls.contents if not hasattr(module, name)]
            if missing:
                raise pytest.Collector.CollectError(
                    f"{cls.__name__} tests {module!r}, which has no {' and no '.join(missing)}; "
                    f"`module` must be a Python file with {' and '.join(cls.contents)}"
                )
        return modules

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a test with the argument `module` once per file."""
        if "module" in metafunc.fixturenames:
            metafunc.parametrize("module", [pytest.param(m, id=short_name(m)) for m in self.checked_modules()])
