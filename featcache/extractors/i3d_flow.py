"""I3D over optical flow [Carreira & Zisserman 2017], trained on Kinetics. TV-L1 takes a core-minute per five windows.

Flow between pictures of shorter side 256, the middle 224 x 224. As published, it is clipped at +-20 pixels and stored
in eight bits, with rest at 128: round(128 + 255 f / 40), in [0, 255]; the network takes 2 x / 255 - 1. The weights were
trained on TV-L1; `--set i3d-flow.method=dis` is about 100 times faster.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from featcache.extractors import _flow, _sampling, bounded, later
from featcache.extractors._frozen import Frozen
from featcache.windows import Flow


@dataclass(frozen=True)
class Params:
    """The choice and computation of a window's fields of flow."""

    count: int = bounded(16, 9, 512)  #: fields of a window, from count + 1 pictures
    sampling: str = "dense"  #: dense: at the window's centre | uniform: over its stretch | interleaved: over the clip
    stride: int = bounded(1, 1, 64)  #: pictures between the two of a field; 2: flow at half the frame rate (EPIC)
    rate: float = bounded(0.0, 0, 1000)  #: dense: pictures per second instead of the source's own; 0: its own
    method: str = "tvl1"  #: tvl1: used to train the weights | dis: about 100 times faster | pictures: of the source
    solver: str = later("opencv")  #: of tvl1: opencv | torch: on --device, many fields at once
    bound: float = bounded(20.0, 1, 1000)  #: pixels at which flow is clipped, and those of pictures of flow


class I3DFlow(Frozen):
    """An extractor of the motion of a window."""

    name: str = "i3d-flow"
    modality: str = "flow"
    layout: ClassVar[str] = "i3d"
    weights: str = "i3d-flow"

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        _flow.check(self.name, params.method, params.solver)
        sampled, how = _sampling.window(self.name, params), _flow.window(params.method, params.solver, params.bound)
        self.window = Flow(**sampled, side=256, crop=224, **how)
        self.row_shape = (1024,)

    def build(self) -> nn.Module:
        """I3D with two channels."""
        from featcache.backbones.i3d import I3D

        return I3D(2)

    def prepare(self, window: list[NDArray[np.float32]]) -> NDArray[np.uint8]:
        """Fields -> (count, 224, 224, 2), eight bits."""
        return np.stack([_flow.quantised(field, self.params.bound) for field in window])

    def transform(self, windows: Tensor) -> Tensor:
        """(n, count, 224, 224, 2) uint8 -> (n, 2, count, 224, 224) in [-1, 1]."""
        return _sampling.channels_first(windows) * (2 / 255) - 1


EXTRACTOR = I3DFlow
