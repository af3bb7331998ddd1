"""Official state dicts for tests, made by rule: no file of weights is needed, and everybody gets the same.

data/backbones.json holds the names and shapes of the official state dicts; data/backbones.npz what the official
definitions give for these weights and for inputs that test_backbones.py makes by rule.
"""

import functools
import json
import re
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from featcache.backbones import layouts
from featcache.backbones.bninception import BNInception
from featcache.backbones.densenet import DenseNet161
from featcache.backbones.i3d import I3D
from featcache.backbones.r2plus1d import R2Plus1D34
from featcache.backbones.resnext import ResNeXt101
from tests.conftest import ROOT

DATA = ROOT / "tests" / "data"
OFFICIAL = json.loads((DATA / "backbones.json").read_text())
REFERENCES = np.load(DATA / "backbones.npz")


class Net(NamedTuple):
    make: Callable[..., nn.Module]
    layout: str
    left_out: set[str]  #: names of the official state dict that the network does without


NETS = {
    "i3d": Net(I3D, "i3d", {"logits.conv3d.weight", "logits.conv3d.bias"}),
    "bninception": Net(BNInception, "tbn-rgb", {"fc.weight", "fc.bias"}),
    "resnext101": Net(ResNeXt101, "resnext101", {"fc.weight", "fc.bias"}),
    "densenet161": Net(DenseNet161, "densenet161", {"classifier.weight", "classifier.bias"}),
    "r2plus1d-34": Net(R2Plus1D34, "r2plus1d-34", {"fc.weight", "fc.bias"}),
}
FIRST = {"i3d": "Conv3d_1a_7x7.conv3d.weight", "bninception": "conv1_7x7_s2.weight"}


def by_rule(name: str, shape: list[int]) -> Tensor:
    """An entry of a state dict, by its name and kind, of a size that keeps features of order one."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    n = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        n = 1 + 0.2 * np.abs(n)
    elif len(shape) == 1:
        n = 1 + 0.1 * n if name.endswith("weight") else 0.1 * n
    else:
        n = n * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    return torch.from_numpy(n)


@functools.cache
def weights(net: str, channels: int = 3) -> dict[str, Tensor]:
    """The official state dict with its classifier. Do not change it: tests share it."""
    shapes = dict(OFFICIAL[net])
    if channels != 3:
        shapes[FIRST[net]] = [64, channels, *shapes[FIRST[net]][2:]]
    return {name: by_rule(name, shape) for name, shape in shapes.items()}


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """A network without memory, which knows shapes only."""
    with torch.device("meta"):
        return make().eval()


def filled(make: Callable[[], nn.Module], state: dict[str, Tensor]) -> nn.Module:
    module = on_meta(make)
    layouts.fill(module, state, "the file")
    return module


def used(net: str, channels: int = 3) -> dict[str, Tensor]:
    return {name: value for name, value in weights(net, channels).items() if name not in NETS[net].left_out}


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


def hassony2(state):
    """I3D's names in hassony2/kinetics_i3d_pytorch and v-iashin/video_features."""
    parts = {"b0": "branch_0", "b1a": "branch_1.0", "b1b": "branch_1.1", "b2a": "branch_2.0", "b2b": "branch_2.1"}
    parts |= {"b3b": "branch_3.1", "bn": "batch3d"}

    def name(key):
        first, *rest = key.split(".")
        first = "conv3d_0c_1x1" if first == "logits" else first[0].lower() + first[1:]
        return ".".join([first, *(parts.get(part, part) for part in rest)])

    return {name(key): value for key, value in state.items()}


def places365(state):
    """DenseNet's names under PyTorch 0.2: a dot before the number in layers, and only there."""
    names = {key: re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key) for key in state}
    return {"state_dict": {f"module.{names[key]}": value for key, value in state.items()}, "arch": "densenet161"}


def tbn(wanted, state):
    """A TBN checkpoint whose stream `wanted` is `state`; the others hold nothing that fits."""
    streams = {
        stream: state if stream == wanted else {key: torch.zeros(1) for key in state} for stream in layouts.STREAMS
    }
    named = {f"module.{stream}.{key}": value for stream, part in streams.items() for key, value in part.items()}
    named |= {"module.fusion_classification_net.fc_verb.weight": torch.zeros(97, 512)}
    return {"epoch": 80, "arch": "BNInception", "state_dict": named, "best_prec1": 36.7}


def old_tsn(state):
    """TSN under PyTorch 0.3: `base_model.`, batch normalisation in (1, C), no count of batches."""
    return {
        f"base_model.{key.replace('fc.', 'fc_action.')}": value[None] if "_bn." in key else value
        for key, value in state.items()
        if value.dim()
    }


def module_wrapped(state):
    return {"state_dict": {f"module.{key}": value for key, value in state.items()}}


def untouched(state):
    return state
