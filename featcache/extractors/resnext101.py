"""ResNeXt-101 [Xie et al. 2017] on single pictures, averaged over the window: the object features of ACP.

Pictures of shorter side 256, the middle 224 x 224, ImageNet's mean and deviation; 2048 numbers after the last pool.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from featcache.errors import ConfigError
from featcache.extractors import bounded
from featcache.extractors._per_picture import PerPicture, Sampled

WEIGHTS = {8: "resnext101-32x8d", 48: "resnext101-32x48d-wsl"}


@dataclass(frozen=True)
class Params(Sampled):
    """The width of the network, and the choice of a window's pictures."""

    width: int = bounded(8, 8, 48)  #: channels of each of 32 groups: 8 (ImageNet) or 48 (WSL: Instagram, then ImageNet)


class ResNeXt101(PerPicture):
    """An extractor of the objects in the pictures of a window."""

    name: str = "resnext101"
    layout: ClassVar[str] = "resnext101"
    row_shape = (2048,)

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        if params.width not in WEIGHTS:
            raise ConfigError(f"resnext101.width is {params.width}; allowed: 8 or 48")
        self.weights = WEIGHTS[params.width]

    def build(self) -> nn.Module:
        """ResNeXt-101 of that width."""
        from featcache.backbones import resnext

        return resnext.ResNeXt101(self.params.width)


EXTRACTOR = ResNeXt101
