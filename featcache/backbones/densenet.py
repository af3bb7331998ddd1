"""DenseNet-161 [Huang et al. 2017]: each layer takes the outputs of all layers before it in its block.

Names and arithmetic are torchvision's; the weights trained on Places365 have the same names with extra dots, `norm.1`
for `norm1`. Batch normalisation and ReLU come before each convolution.

Left out of the official file: `classifier.weight` and `classifier.bias`.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featcache.backbones._input import check

GROWTH = 48  #: channels that each layer adds
LAYERS = (6, 12, 36, 24)  #: number of layers in each of the four blocks


class DenseLayer(nn.Module):
    """A 1 x 1 convolution to four times the growth, then a 3 x 3 convolution to the growth."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * GROWTH, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * GROWTH)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, inputs + 48, H, W): the input, then this layer's 48 channels."""
        y = self.conv1(F.relu(self.norm1(x), inplace=True))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y), inplace=True))], 1)


class DenseNet161(nn.Module):
    """DenseNet-161 over RGB, ImageNet mean and deviation; at least 29 x 29 pixels."""

    def __init__(self) -> None:
        super().__init__()
        width = 2 * GROWTH
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(3, width, 7, 2, 3, bias=False),  # 224 x 224 -> (B, 96, 112, 112)
            norm0=nn.BatchNorm2d(width),
            relu0=nn.ReLU(inplace=True),
            pool0=nn.MaxPool2d(3, 2, 1),  # (B, 96, 56, 56)
        )
        # Blocks give (B, 384, 56, 56), (B, 768, 28, 28), (B, 2112, 14, 14) and (B, 2208, 7, 7).
        for number, layers in enumerate(LAYERS, 1):
            block = nn.Sequential()
            for k in range(layers):
                block.add_module(f"denselayer{k + 1}", DenseLayer(width + k * GROWTH))
            parts[f"denseblock{number}"] = block
            width += layers * GROWTH
            if number < len(LAYERS):  # between blocks, halve the channels and the size
                parts[f"transition{number}"] = _transition(width)
                width //= 2
        parts["norm5"] = nn.BatchNorm2d(width)
        self.features = nn.Sequential(parts)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2208)."""
        check(x, "DenseNet161", 3, (29, 29))
        return F.relu(self.features(x), inplace=True).mean((2, 3))


def _transition(width: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(width),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(width, width // 2, 1, bias=False),
            pool=nn.AvgPool2d(2, 2),
        )
    )
