"""BN-Inception [Ioffe & Szegedy 2015], one stream of TBN [Kazakos et al. 2019] and of TSN [Wang et al. 2016].

Inception with batch normalisation, in which two 3 x 3 kernels replace each 5 x 5 one. Names and arithmetic are those of
yjxiong's conversion from Caffe, which TBN uses:

  1. Convolutions have a bias although batch normalisation follows.
  2. Pools round their size up, as in Caffe; the average pools count the padding as zeros.
  3. Blocks 3c and 4e halve the size: their 3 x 3 kernels move by 2, and the pool is joined without a projection.
  4. The pool branch averages in blocks 3 to 5a, except 3c and 4e, and takes the maximum in 5b.

Left out of the official file: `fc.weight` and `fc.bias`.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featcache.backbones._input import check


class Block(NamedTuple):
    """The widths of a block's branches. A block with `one` and `pool` of 0 halves the size."""

    one: int  #: 1 x 1
    three: tuple[int, int]  #: 1 x 1, then 3 x 3
    double: tuple[int, int]  #: 1 x 1, then 3 x 3 twice
    pool: int  #: pool, then 1 x 1


BLOCKS = {
    "3a": Block(64, (64, 64), (64, 96), 32),
    "3b": Block(64, (64, 96), (64, 96), 64),
    "3c": Block(0, (128, 160), (64, 96), 0),
    "4a": Block(224, (64, 96), (96, 128), 128),
    "4b": Block(192, (96, 128), (96, 128), 128),
    "4c": Block(160, (128, 160), (128, 160), 128),
    "4d": Block(96, (128, 192), (160, 192), 128),
    "4e": Block(0, (128, 192), (192, 256), 0),
    "5a": Block(352, (192, 320), (160, 224), 128),
    "5b": Block(352, (192, 320), (192, 224), 128),
}


class BNInception(nn.Module):
    """BN-Inception over RGB (3 channels, in the order BGR), stacked flow (10) or a spectrogram (1).

    Height and width are 32m - 1 to 32m + 6 pixels, m = 1, 2, ...: 224 and 256 fit. At other sizes
    the convolutions and the pool of blocks 3c and 4e round differently, so that their outputs cannot be joined.
    """

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        self._add("conv1_7x7_s2", in_channels, 64, 7, 2)
        self._add("conv2_3x3_reduce", 64, 64, 1)
        self._add("conv2_3x3", 64, 192, 3)
        width = 192
        for name, (one, three, double, pool) in BLOCKS.items():
            stride = 1 if one else 2
            if one:
                self._add(f"inception_{name}_1x1", width, one, 1)
            self._add(f"inception_{name}_3x3_reduce", width, three[0], 1)
            self._add(f"inception_{name}_3x3", *three, 3, stride)
            self._add(f"inception_{name}_double_3x3_reduce", width, double[0], 1)
            self._add(f"inception_{name}_double_3x3_1", *double, 3)
            self._add(f"inception_{name}_double_3x3_2", double[1], double[1], 3, stride)
            if pool:
                self._add(f"inception_{name}_pool_proj", width, pool, 1)
            width = one + three[1] + double[1] + (pool or width)

    def _add(self, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        self.add_module(name, nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(outputs))

    def _unit(self, name: str, x: Tensor) -> Tensor:
        """Convolution, batch normalisation, ReLU."""
        return F.relu(getattr(self, f"{name}_bn")(getattr(self, name)(x)), inplace=True)

    def _block(self, name: str, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the branches' outputs, concatenated along the channels."""
        prefix, block = f"inception_{name}", BLOCKS[name]
        three = self._unit(f"{prefix}_3x3", self._unit(f"{prefix}_3x3_reduce", x))
        double = self._unit(f"{prefix}_double_3x3_1", self._unit(f"{prefix}_double_3x3_reduce", x))
        double = self._unit(f"{prefix}_double_3x3_2", double)
        if not block.one:
            return torch.cat([three, double, F.max_pool2d(x, 3, 2, ceil_mode=True)], 1)
        pool = F.max_pool2d(x, 3, 1, 1) if name == "5b" else F.avg_pool2d(x, 3, 1, 1)
        return torch.cat([self._unit(f"{prefix}_1x1", x), three, double, self._unit(f"{prefix}_pool_proj", pool)], 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, 1024)."""
        check(x, "BNInception", self.in_channels, (31, 31))
        if any((size + 1) % 32 > 7 for size in x.shape[2:]):
            h, w = x.shape[2:]
            raise ValueError(f"BNInception takes sizes of 32m - 1 to 32m + 6, such as 224 or 256, not {h} x {w}")
        x = self._unit("conv1_7x7_s2", x)  # 224 x 224 -> (B, 64, 112, 112)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)  # (B, 64, 56, 56)
        x = self._unit("conv2_3x3", self._unit("conv2_3x3_reduce", x))  # (B, 192, 56, 56)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)  # (B, 192, 28, 28)
        for name in BLOCKS:
            x = self._block(name, x)  # 3c: (B, 576, 14, 14); 4e: (B, 1056, 7, 7); 5b: (B, 1024, 7, 7)
        return x.mean((2, 3))
