"""ResNeXt-101 [Xie et al. 2017]: ResNet-101 whose 3 x 3 convolutions are split into 32 groups of channels.

Names and arithmetic are torchvision's; the weights of the WSL models (32 x 8d to 32 x 48d) have the same names. A
residual block takes its stride in the 3 x 3 convolution.

Left out of the official file: `fc.weight` and `fc.bias`.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from featcache.backbones._input import check

GROUPS = 32
EXPANSION = 4  #: a block's output channels per channel of its nominal width


class Bottleneck(nn.Module):
    """x + (1 x 1 down, 3 x 3 in groups, 1 x 1 up)(x)."""

    def __init__(self, inputs: int, planes: int, group_width: int, stride: int) -> None:
        super().__init__()
        inner = planes * group_width // 64 * GROUPS
        outputs = planes * EXPANSION
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=GROUPS, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()  # if left empty, the identity
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 4 planes, H / stride, W / stride), rounded up."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


class ResNeXt101(nn.Module):
    """ResNeXt-101 32 x `group_width`d over RGB, ImageNet mean and deviation; any height and width."""

    def __init__(self, group_width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, 3, group_width, stride=1)
        self.layer2 = _stage(256, 128, 4, group_width, stride=2)
        self.layer3 = _stage(512, 256, 23, group_width, stride=2)
        self.layer4 = _stage(1024, 512, 3, group_width, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2048)."""
        check(x, "ResNeXt101", 3, (1, 1))
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # 224 x 224 -> (B, 64, 112, 112)
        x = F.max_pool2d(x, 3, 2, 1)  # (B, 64, 56, 56)
        x = self.layer2(self.layer1(x))  # (B, 256, 56, 56), (B, 512, 28, 28)
        x = self.layer4(self.layer3(x))  # (B, 1024, 14, 14), (B, 2048, 7, 7)
        return x.mean((2, 3))


def _stage(inputs: int, planes: int, blocks: int, group_width: int, stride: int) -> nn.Sequential:
    rest = (Bottleneck(planes * EXPANSION, planes, group_width, 1) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(inputs, planes, group_width, stride), *rest)
