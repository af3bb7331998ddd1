"""I3D over RGB [Carreira & Zisserman 2017], trained on ImageNet and Kinetics; MM-SADA, Kim et al. and MTRAN use it.

Pictures of shorter side 256, the middle 224 x 224, values in [-1, 1]; 16 pictures give one vector after the last
pool. The vectors of longer windows are averaged over time.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from featcache.extractors import _sampling, bounded
from featcache.extractors._frozen import Frozen
from featcache.windows import Pictures


@dataclass(frozen=True)
class Params:
    """The choice of a window's pictures, and their scale."""

    count: int = bounded(16, 9, 512)  #: pictures of a window; the network pools time by 8
    sampling: str = "dense"  #: dense: at the window's centre | uniform: over its stretch | interleaved: over the clip
    stride: int = bounded(1, 1, 64)  #: dense: every stride-th picture; MM-SADA takes every second one
    rate: float = bounded(0.0, 0, 1000)  #: dense: pictures per second instead of the source's own; 0: its own
    divisor: int = bounded(255, 255, 256)  #: pixels become 2 x / divisor - 1; MM-SADA divides by 256


class I3DRgb(Frozen):
    """An extractor of the appearance and short motion of a window."""

    name: str = "i3d-rgb"
    modality: str = "rgb"
    layout: ClassVar[str] = "i3d"
    weights: str = "i3d-rgb"

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.window = Pictures(**_sampling.window(self.name, params), side=256, crop=224)
        self.row_shape = (1024,)

    def build(self) -> nn.Module:
        """I3D with three channels."""
        from featcache.backbones.i3d import I3D

        return I3D(3)

    def prepare(self, window: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Pictures -> (count, 224, 224, 3)."""
        return np.stack(window)

    def transform(self, windows: Tensor) -> Tensor:
        """(n, count, 224, 224, 3) uint8 -> (n, 3, count, 224, 224) in [-1, 1]."""
        return _sampling.channels_first(windows) * (2 / self.params.divisor) - 1


EXTRACTOR = I3DRgb
