"""The sampling of a window's pictures, and the conversion of their uint8 pixels to a network's input."""

from typing import Any

from torch import Tensor

from featcache.errors import ConfigError

SAMPLINGS = ("dense", "uniform", "interleaved")
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  #: mean and standard deviation of red, green, blue in [0, 1]
KINETICS = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)


def window(name: str, params: Any) -> dict[str, Any]:
    """Return the arguments of Pictures or Flow for an extractor's `count`, `sampling`, `stride` and `rate`."""
    if params.sampling not in SAMPLINGS:
        raise ConfigError(f"{name}.sampling is {params.sampling!r}; choose from {', '.join(SAMPLINGS)}")
    spread, turns = params.sampling != "dense", params.sampling == "interleaved"
    if spread and params.rate:
        raise ConfigError(
            f"{name}.rate is {params.rate:g}, but {params.sampling} sampling has no rate; leave one of them out"
        )
    return {"count": params.count, "rate": params.rate, "stride": params.stride, "spread": spread, "interleaved": turns}


def channels_first(pixels: Tensor) -> Tensor:
    """(n, [T,] H, W, C) uint8 -> (n, C, [T,] H, W) float32."""
    return pixels.movedim(-1, 1).float()


def standardised(x: Tensor, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    """(n, 3, ...) in [0, 255] -> (x / 255 - mean) / std."""
    mean, std = (x.new_tensor(values).view(3, *[1] * (x.dim() - 2)) for values in statistics)
    return (x / 255 - mean) / std
