"""Checks of what a method file and a net file have in common."""

import dataclasses
import inspect
import textwrap
from types import ModuleType
from typing import ClassVar

import pytest

from heads.params import ranges


def short_name(module: ModuleType) -> str:
    """Return the name of the file: `heads.methods.rna` -> `rna`."""
    return module.__name__.rpartition(".")[2]


def check_params(module: ModuleType) -> None:
    """Check that `Params` is a frozen dataclass, and that its fields have a comment on their line; numbers a range."""
    name, params = f"{short_name(module)}.Params", module.Params
    frozen = getattr(getattr(params, "__dataclass_params__", None), "frozen", False)
    assert frozen, f"{name} is no frozen dataclass; write @dataclass(frozen=True)"
    source = textwrap.dedent(inspect.getsource(params)).splitlines()
    for field in dataclasses.fields(params):
        lines = [line for line in source if line.startswith(f"    {field.name}:")]
        assert lines, f"{name}.{field.name} is not declared in the class itself"
        assert "#: " in lines[0], f"{name}.{field.name} has no comment; describe it on its line, after #:"
        if field.type in (int, float, "int", "float"):
            assert field.name in ranges(params), (
                f"{name}.{field.name} has no range; write {field.name} = within({field.default}, low, high), with "
                "`within` of heads.params"
            )


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
