"""State that the methods of a pass hold outside of parameters and buffers: what may differ is noticed."""

from dataclasses import dataclass
from functools import partial
from operator import mul

import numpy as np
import pytest
import torch
from torch import nn

from heads.methods import source_only
from heads.stacked import Stack
from heads.testing.methods import build
from heads.testing.problems import SPEC


@dataclass
class Level:
    value: float


class Opaque:
    def __init__(self, value):
        self.value = value


def method_with(**state):
    method = build(source_only, SPEC, ("source",))
    for name, value in state.items():
        setattr(method, name, value)
    return method


def filled(k):
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, k)
    return layer


STATE = {  #: of the method number k
    "a private number": lambda k: k,
    "a text": lambda k: str(k),
    "a tensor": lambda k: torch.full((2,), float(k)),
    "a tensor of another shape": lambda k: torch.zeros(k + 1),
    "an array": lambda k: np.full(1, k),
    "layers in a tuple": lambda k: (filled(k),),
    "parameters in a list": lambda k: [filled(k).weight],
    "a partial": lambda k: partial(mul, k),
    "a dataclass": lambda k: Level(k),
    "a dictionary": lambda k: {"level": [k]},
    "a set": lambda k: {k},
    "a function": lambda k: lambda x: k * x,
    "an object": lambda k: Opaque(k),
    "a type that changes": lambda k: [None, 1, "1"][k],
}


@pytest.mark.parametrize("name", ["_bank", "level"])
@pytest.mark.parametrize("state", STATE.values(), ids=STATE)
def test_state_that_may_differ_is_named(state, name):
    with pytest.raises(ValueError, match=name):
        Stack([method_with(**{name: state(k)}) for k in range(3)])


def test_state_that_only_one_method_has_is_named():
    with pytest.raises(ValueError, match="_level"):
        Stack([method_with(), method_with(_level=1)])


COMPARED = set(STATE) - {"layers in a tuple", "a function", "an object"}  #: two of these are equal only if they are one


@pytest.mark.parametrize("state", [STATE[name] for name in sorted(COMPARED)], ids=sorted(COMPARED))
def test_equal_state_can_be_stacked(state):
    Stack([method_with(_state=state(1)) for _ in range(3)])


def test_modules_parameters_and_functions_of_the_methods_themselves_can_be_stacked():
    methods = [method_with() for _ in range(3)]
    for method in methods:
        method.parts_of = [method.net, (method.net.classifier,), [*method.parameters()], method.predict, mul, Level]
    Stack(methods)
    methods[1].parts_of[0] = methods[1].net.classifier
    with pytest.raises(ValueError, match="parts_of"):
        Stack(methods)
