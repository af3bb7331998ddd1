"""ResNeXt-101 [Xie et al. 2017] over single pictures, averaged over the window: the object features of ACP.

Pictures of shorter side 256, the middle 224 x 224, ImageNet's mean and deviation; 2048 numbers after the last pool.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from featcache.errors import ConfigError
from featcache.extractors import Pictures, _sampling, bounded
from featcache.extractors._frozen import Frozen

WEIGHTS = {8: "resnext101-32x8d", 48: "resnext101-32x48d-wsl"}


@dataclass(frozen=True)
class Params:
    """Which network, and which pictures a window has."""

    width: int = bounded(8, 8, 48)  #: of each of 32 groups: 8 (ImageNet) or 48 (WSL: Instagram, then ImageNet)
    count: int = bounded(8, 1, 512)  #: pictures of a window
    sampling: str = "uniform"  #: uniform: spread over the window's stretch of the clip | dense: around its centre
    stride: int = bounded(1, 1, 64)  #: dense: every stride-th picture
    rate: float = bounded(0.0, 0, 1000)  #: dense: pictures per second instead of the source's own; 0: its own


class ResNeXt101(Frozen):
    """Objects in the pictures of a window."""

    name: str = "resnext101"
    modality: str = "rgb"
    batch: int = 8
    layout: ClassVar[str] = "resnext101"

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        if params.width not in WEIGHTS:
            raise ConfigError(f"resnext101.width is {params.width}; allowed: 8 or 48")
        self.weights = WEIGHTS[params.width]
        self.window = Pictures(**_sampling.window(self.name, params), side=256, crop=224)
        self.row_shape = (2048,)

    def build(self) -> nn.Module:
        """ResNeXt-101 of that width."""
        from featcache.backbones import resnext

        return resnext.ResNeXt101(self.params.width)

    def prepare(self, window: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Pictures -> (count, 224, 224, 3)."""
        return np.stack(window)

    def transform(self, windows: Tensor) -> Tensor:
        """(n, count, 224, 224, 3) uint8 -> (n * count, 3, 224, 224)."""
        return _sampling.standardised(_sampling.channels_first(windows.flatten(0, 1)), _sampling.IMAGENET)

    def pool(self, features: Tensor) -> Tensor:
        """(n * count, 2048) -> (n, 2048)."""
        return features.unflatten(0, (-1, self.params.count)).mean(1)


EXTRACTOR = ResNeXt101
