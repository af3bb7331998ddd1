"""Hyper-parameters of every method and net: each number states its range, and a run refuses what lies outside."""

import dataclasses
import math
import re
import sys

import pytest

from featcache import registry
from featcache.errors import ConfigError
from heads import methods, nets
from heads.nets import Retrieval
from heads.params import Range, ranges, within
from heads.testing.problems import SIMPLE
from pipelines.config import Feed, RunConfig, override

REGISTRIES = {"method": methods, "net": nets}
METHODS = [registry.load(methods, name, "method") for name in registry.names(methods)]
PARAMS = [
    (what, name, registry.load(folder, name, what).Params)
    for what, folder in REGISTRIES.items()
    for name in registry.names(folder)
]
NUMBERS = [
    pytest.param(what, cls, field, id=f"{name}.{field.name}")
    for what, name, cls in PARAMS
    for field in dataclasses.fields(cls)
    if field.type in (int, float)
]
EVERY = pytest.mark.parametrize(("what", "cls", "field"), NUMBERS)


def run(what, cls):
    """A run with these Params, and what else they need."""
    module = sys.modules[cls.__module__]
    task = module.NET.task if what == "net" else module.METHOD.tasks[0]
    method = module if what == "method" else next(file for file in METHODS if task in file.METHOD.tasks)
    net = module if what == "net" else sys.modules[SIMPLE[task].__module__]
    sides = {"source": ("a",), "target": "b", "init_from": "first"}
    text = {"text": Feed("text", "source test", captions="own")}
    feeds = {"rgb": Feed("rgb")} | (text if issubclass(net.NET, Retrieval) else {})
    parts = {"method": method.Params(), "net": net.Params(), what: cls()}
    needed = {side: given for side, given in sides.items() if side in method.METHOD.needs}
    return RunConfig("m", **parts, feeds=feeds, test="b", epoch=1, **needed)


@EVERY
def test_every_number_states_a_range_and_its_default_lies_in_it(what, cls, field):
    assert field.name in ranges(cls), f"{cls.__module__}: write {field.name} = within({field.default}, low, high)"
    assert field.default in ranges(cls)[field.name]
    assert math.isfinite(ranges(cls)[field.name].low)


@EVERY
def test_a_run_refuses_what_lies_outside(what, cls, field):
    config, of, name = run(what, cls), ranges(cls)[field.name], f"{what}.{field.name}"
    outside = [of.low if of.above else of.low - 1]
    if of.high < math.inf:
        outside.append(of.high if of.below else of.high + 1)
    for value in map(field.type, outside):
        with pytest.raises(ConfigError, match=re.escape(f"{name}={value} must be {of}")):
            override(config, f"{name}={value}")
    for value in (of.low + of.above, of.high - of.below):
        if math.isfinite(value) and value in of:
            assert getattr(getattr(override(config, f"{name}={field.type(value)}"), what), field.name) == value


def test_ends_belong_to_a_range_unless_said_otherwise():
    for above in (False, True):
        for below in (False, True):
            of = Range(0, 1, above, below)
            assert [value in of for value in (-0.1, 0, 0.5, 1, 1.1)] == [False, not above, True, not below, False]
            assert math.nan not in of
            assert str(of) == f"in {'(' if above else '['}0, 1{')' if below else ']'}"
    assert (str(Range(2, math.inf, False, False)), str(Range(2, math.inf, True, False))) == ("at least 2", "above 2")
    assert math.nan not in Range(0, math.inf, False, False)


def test_a_field_with_a_range_is_a_field():
    @dataclasses.dataclass(frozen=True)
    class Params:
        q: float = within(0.5, 0, 1, above=True)
        name: str = "none"

    assert Params() == Params(0.5)
    assert ranges(Params) == ranges(Params(q=7.0)) == {"q": Range(0, 1, True, False)}
