"""TBN's flow stream [Kazakos et al. 2019]: BN-Inception over five consecutive fields of flow.

Flow as for I3D: shorter side 256, the middle 224 x 224, eight bits with rest at 128; the network takes x - 128, in ten
channels: right and down of the first field, of the second, and so on.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from featcache.extractors import _flow, bounded, later
from featcache.extractors._frozen import Frozen
from featcache.windows import Flow

FIELDS = 5


@dataclass(frozen=True)
class Params:
    """The computation of flow."""

    stride: int = bounded(1, 1, 64)  #: pictures between the two of a field; 2: flow at half the frame rate (EPIC)
    method: str = "tvl1"  #: tvl1: used to train the weights | dis: about 100 times faster | pictures: of the source
    solver: str = later("opencv")  #: of tvl1: opencv | torch: on --device, many fields at once
    bound: float = bounded(20.0, 1, 1000)  #: pixels at which flow is clipped, and those of pictures of flow


class TbnFlow(Frozen):
    """An extractor of the motion of a moment."""

    name: str = "tbn-flow"
    modality: str = "flow"
    sizes = (8, 64)
    layout: ClassVar[str] = "tbn-flow"
    weights: str = "tbn-epic-100"

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        _flow.check(self.name, params.method, params.solver)
        how = _flow.window(params.method, params.solver, params.bound)
        self.window = Flow(FIELDS, stride=params.stride, side=256, crop=224, **how)
        self.row_shape = (1024,)

    def build(self) -> nn.Module:
        """BN-Inception with ten channels."""
        from featcache.backbones.bninception import BNInception

        return BNInception(2 * FIELDS)

    def prepare(self, window: list[NDArray[np.float32]]) -> NDArray[np.uint8]:
        """Fields -> (5, 224, 224, 2), eight bits."""
        return np.stack([_flow.quantised(field, self.params.bound) for field in window])

    def transform(self, windows: Tensor) -> Tensor:
        """(n, 5, 224, 224, 2) uint8 -> (n, 10, 224, 224), rest at 0."""
        return windows.movedim(-1, 2).flatten(1, 2).float() - 128


EXTRACTOR = TbnFlow
