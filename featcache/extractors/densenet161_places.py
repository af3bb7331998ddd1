"""DenseNet-161 [Huang et al. 2017], trained on Places365, on single pictures, averaged over the window: ACP's scenes.

Pictures of shorter side 256, the middle 224 x 224, ImageNet's mean and deviation; 2208 numbers after ReLU and pool.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from featcache.extractors._per_picture import PerPicture, Sampled


@dataclass(frozen=True)
class Params(Sampled):
    """The choice of a window's pictures."""


class DenseNet161Places(PerPicture):
    """An extractor of the place in the pictures of a window."""

    name: str = "densenet161-places"
    layout: ClassVar[str] = "densenet161"
    weights: str = "densenet161-places365"
    row_shape = (2208,)

    def build(self) -> nn.Module:
        """DenseNet-161."""
        from featcache.backbones.densenet import DenseNet161

        return DenseNet161()


EXTRACTOR = DenseNet161Places
