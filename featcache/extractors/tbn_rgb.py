"""TBN's RGB stream [Kazakos et al. 2019]: BN-Inception on one picture per segment; RNA and TA3N use 25 segments.

Pictures of shorter side 256, the middle 224 x 224, in the order BGR, minus the mean (104, 117, 128).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from featcache.extractors import _sampling
from featcache.extractors._frozen import Frozen
from featcache.windows import Pictures

MEAN = (104.0, 117.0, 128.0)  #: blue, green, red


@dataclass(frozen=True)
class Params:
    """The parameters: none."""


class TbnRgb(Frozen):
    """An extractor of the appearance of a picture."""

    name: str = "tbn-rgb"
    modality: str = "rgb"
    sizes = (8, 64)
    layout: ClassVar[str] = "tbn-rgb"
    weights: str = "tbn-epic-100"

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.window = Pictures(1, side=256, crop=224)
        self.row_shape = (1024,)

    def build(self) -> nn.Module:
        """BN-Inception with three channels."""
        from featcache.backbones.bninception import BNInception

        return BNInception(3)

    def prepare(self, window: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The picture, (224, 224, 3)."""
        return np.ascontiguousarray(window[0])

    def transform(self, windows: Tensor) -> Tensor:
        """(n, 224, 224, 3) uint8 RGB -> (n, 3, 224, 224) BGR minus the mean."""
        x = _sampling.channels_first(windows).flip(1)
        return x - x.new_tensor(MEAN).view(3, 1, 1)


EXTRACTOR = TbnRgb
