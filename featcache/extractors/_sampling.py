"""How extractors of pictures sample a window, and how their uint8 pixels become what a network was trained on."""

from typing import Any

from torch import Tensor

from featcache.errors import ConfigError

SAMPLINGS = ("dense", "uniform")
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  #: mean and standard deviation of red, green, blue in [0, 1]
KINETICS = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)


def window(name: str, params: Any) -> dict[str, Any]:
    """The arguments of Pictures or Flow that `count`, `sampling`, `stride` and `rate` of an extractor stand for."""
    if params.sampling not in SAMPLINGS:
        raise ConfigError(f"{name}.sampling is {params.sampling!r}; choose from {', '.join(SAMPLINGS)}")
    spread = params.sampling == "uniform"
    if spread and params.rate:
        raise ConfigError(f"{name}.rate is {params.rate:g}, but sampling is uniform, whatever the rate; leave one out")
    return {"count": params.count, "rate": params.rate, "stride": params.stride, "spread": spread}


def channels_first(pixels: Tensor) -> Tensor:
    """(n, [T,] H, W, C) uint8 -> (n, C, [T,] H, W) float32."""
    return pixels.movedim(-1, 1).float()


def standardised(x: Tensor, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    """(n, 3, ...) in [0, 255] -> (x / 255 - mean) / std."""
    mean, std = (x.new_tensor(values).view(3, *[1] * (x.dim() - 2)) for values in statistics)
    return (x / 255 - mean) / std
