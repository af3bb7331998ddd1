"""Extractors whose network takes single pictures: a window's row is the mean over its pictures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from featcache.extractors import _sampling, bounded
from featcache.extractors._frozen import Frozen
from featcache.windows import Pictures


@dataclass(frozen=True)
class Sampled:
    """The choice of a window's pictures."""

    count: int = bounded(8, 1, 512)  #: pictures of a window
    sampling: str = "uniform"  #: uniform: over the window's stretch | interleaved: over the clip | dense: at its centre
    stride: int = bounded(1, 1, 64)  #: dense: every stride-th picture
    rate: float = bounded(0.0, 0, 1000)  #: dense: pictures per second instead of the source's own; 0: its own


class PerPicture(Frozen):
    """An extractor of pictures of shorter side 256, the middle 224 x 224, with ImageNet's mean and deviation."""

    modality: str = "rgb"
    sizes = (1, 16)

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.window = Pictures(**_sampling.window(self.name, params), side=256, crop=224)

    def prepare(self, window: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Pictures -> (count, 224, 224, 3)."""
        return np.stack(window)

    def transform(self, windows: Tensor) -> Tensor:
        """(n, count, 224, 224, 3) uint8 -> (n * count, 3, 224, 224)."""
        return _sampling.standardised(_sampling.channels_first(windows.flatten(0, 1)), _sampling.IMAGENET)

    def pool(self, features: Tensor) -> Tensor:
        """(n * count, D) -> (n, D)."""
        return features.unflatten(0, (-1, self.params.count)).mean(1)
