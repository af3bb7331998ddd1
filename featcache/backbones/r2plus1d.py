"""R(2+1)D-34 [Tran et al. 2018], as trained on 65 million videos of Instagram (IG-65M) [Ghadiyaram et al. 2019].

ResNet-34 in which each 3 x 3 x 3 convolution is split into one over space and one over time, with a ReLU between them.
Names are torchvision's (VideoResNet); arithmetic is that of the original in Caffe2:

  1. The width between the two keeps the number of weights of a 3 x 3 x 3 kernel. It is computed for each convolution.
     torchvision gives the second convolution of a block the width of the first, so it cannot take these weights where
     the two widths differ (288, 576 and 1152 in the first blocks of layers 2, 3 and 4).
  2. Batch normalisation divides by sqrt(var + 1e-3).

Left out of the official file: `fc.weight` and `fc.bias`.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from featcache.backbones._input import check


def norm(width: int) -> nn.BatchNorm3d:
    """Batch normalisation as in Caffe2."""
    return nn.BatchNorm3d(width, eps=1e-3)


def conv2plus1d(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A 1 x 3 x 3 convolution, batch normalisation, ReLU, a 3 x 1 x 1 convolution; strides in space and in time."""
    between = (27 * inputs * outputs) // (9 * inputs + 3 * outputs)
    return nn.Sequential(
        nn.Conv3d(inputs, between, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
        norm(between),
        nn.ReLU(inplace=True),
        nn.Conv3d(between, outputs, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
    )


class BasicBlock(nn.Module):
    """x + (two (2+1)D convolutions)(x)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(conv2plus1d(inputs, outputs, stride), norm(outputs))
        self.conv2 = nn.Sequential(conv2plus1d(outputs, outputs, 1), norm(outputs))
        self.downsample = nn.Sequential()  # if left empty, the identity
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride, bias=False), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T, H, W) -> (B, outputs, T / stride, H / stride, W / stride), rounded up."""
        y = F.relu(self.conv1(x), inplace=True)
        return F.relu(self.conv2(y) + self.downsample(x), inplace=True)


class R2Plus1D34(nn.Module):
    """R(2+1)D-34 over RGB, mean and deviation of Kinetics; trained on 8 or 32 frames of 112 x 112, any size works."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, 45, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            norm(45),
            nn.ReLU(inplace=True),
            nn.Conv3d(45, 64, (3, 1, 1), padding=(1, 0, 0), bias=False),
            norm(64),
            nn.ReLU(inplace=True),
        )
        self.layer1 = _stage(64, 64, 3, stride=1)
        self.layer2 = _stage(64, 128, 4, stride=2)
        self.layer3 = _stage(128, 256, 6, stride=2)
        self.layer4 = _stage(256, 512, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, 512)."""
        check(x, "R2Plus1D34", 3, (1, 1, 1))
        x = self.layer1(self.stem(x))  # 32 x 112 x 112 -> (B, 64, 32, 56, 56)
        x = self.layer3(self.layer2(x))  # (B, 128, 16, 28, 28), (B, 256, 8, 14, 14)
        return self.layer4(x).mean((2, 3, 4))  # (B, 512, 4, 7, 7)


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(inputs, outputs, stride), *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1))
    )
