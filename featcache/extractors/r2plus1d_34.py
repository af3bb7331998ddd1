"""R(2+1)D-34 [Tran et al. 2018; Ghadiyaram et al. 2019], trained on 65 million Instagram videos: ACP's actions.

Pictures of shorter side 128, the middle 112 x 112, Kinetics' mean and deviation; 512 numbers after the last pool.
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
    """The choice of a window's pictures. There are weights for 32 and for 8; other counts use the weights for 32."""

    count: int = bounded(32, 1, 512)  #: pictures of a window
    sampling: str = "dense"  #: dense: at the window's centre | uniform: over its stretch | interleaved: over the clip
    stride: int = bounded(1, 1, 64)  #: dense: every stride-th picture
    rate: float = bounded(0.0, 0, 1000)  #: dense: pictures per second instead of the source's own; 0: its own


class R2Plus1D(Frozen):
    """An extractor of the motion and appearance of a window."""

    name: str = "r2plus1d-34"
    modality: str = "rgb"
    sizes = (1, 16)
    layout: ClassVar[str] = "r2plus1d-34"

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.weights = f"r2plus1d-34-ig65m-{8 if params.count == 8 else 32}"
        self.window = Pictures(**_sampling.window(self.name, params), side=128, crop=112)
        self.row_shape = (512,)

    def build(self) -> nn.Module:
        """R(2+1)D with 34 layers."""
        from featcache.backbones.r2plus1d import R2Plus1D34

        return R2Plus1D34()

    def prepare(self, window: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Pictures -> (count, 112, 112, 3)."""
        return np.stack(window)

    def transform(self, windows: Tensor) -> Tensor:
        """(n, count, 112, 112, 3) uint8 -> (n, 3, count, 112, 112)."""
        return _sampling.standardised(_sampling.channels_first(windows), _sampling.KINETICS)


EXTRACTOR = R2Plus1D
