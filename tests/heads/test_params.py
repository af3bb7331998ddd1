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
from heads.testing.files import provenance
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


# ---------------------------------------------------------------------------------------------- sources of the defaults


@pytest.mark.parametrize(("what", "name", "cls"), PARAMS, ids=[f"{what} {name}" for what, name, _ in PARAMS])
def test_every_field_names_the_source_of_its_default(what, name, cls):
    sources = provenance(cls)
    assert sources.keys() == {field.name for field in dataclasses.fields(cls)}
    lacking = [field for field, source in sources.items() if source not in ("paper", "code", "ours")]
    assert lacking == [], f"end the comment of {', '.join(lacking)} with [paper], [code] or [ours]"


FACTS = """
    method.mcd.lambda_dis            1      code     MCD, image adaptation
    method.mcd.n                     4      code
    method.mcd.lambda_d              1      code     MM-SADA's --lambda_in; its scripts of other methods pass 0.2
    method.xmc.lambda_               1.25   paper    below Eq. 7
    method.xmc.tau                   0.1    paper    implementation details
    method.xmc.delta                 0.5    paper    above Eq. 8
    method.xmc.T                     0.8    paper    Sec. 3.3
    method.xmc.projection            128    ours
    method.mtran.lambda_1            3      paper    Sec. 4.2, as the next four
    method.mtran.lambda_2            1      paper
    method.mtran.lambda_3            0.05   paper
    method.mtran.alpha               0.85   paper
    method.mtran.tau                 0.9    paper
    method.codt.lambda_sup           1      paper    supplement, as the next seven
    method.codt.lambda_dec           20     paper
    method.codt.lambda_cont          1      paper
    method.codt.lambda_cls           5      paper
    method.codt.lambda_cot           10     paper
    method.codt.alpha                0.999  paper
    method.codt.xi                   10     paper
    method.codt.mask                 0.3    paper
    method.codt.rho                  0.07   code     the supplement has 7
    method.rna.lambda_g              1      ours     no public source, as the next three
    method.rna.lambda_c              0.1    ours
    method.rna.lambda_d              0.2    ours
    method.rna.lambda_im             0.1    ours
    method.acp.N                     512    paper    implementation details
    method.acp.K                     1024   paper    implementation details
    method.acp.lambda_s              1      ours     in a supplement that was not available
    method.hcl.lambda_id             0.5    code     script of the target stage
    method.mm_sada.lambda_c          5      paper
    method.shot.beta                 0.3    code
    method.cbst.q                    0.2    code     CRST
    method.ta3n.beta_r               0.75   code     for EK100
    method.mcc.temperature           2.5    code
    method.label_propagation.k       50     code
    method.label_propagation.alpha   0.8    ours     the papers have 0.99
    net.mtran.layers                 6      paper    Sec. 4.2, as the next two
    net.mtran.dim                    1024   paper
    net.mtran.dropout                0.3    paper
    net.trn.relation_dim             1024   paper    RNA, Sec. 4.2.1
    net.trn.frame_dim                1024   ours     RNA states none
    net.cogbeacon.dim                64     paper    RNA, Sec. 4.7.4
    net.stgcn.dim                    256    code
    net.ce.dim                       768    code
"""


@pytest.mark.parametrize("fact", [line.split()[:3] for line in FACTS.strip().splitlines()], ids=lambda fact: fact[0])
def test_known_defaults_and_their_sources(fact):
    path, value, source = fact
    what, name, field = path.split(".")
    cls = registry.load(REGISTRIES[what], name, what).Params
    assert (getattr(cls(), field), provenance(cls)[field]) == (float(value), source)
