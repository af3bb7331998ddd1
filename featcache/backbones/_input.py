"""The check of the input that all networks share."""

from torch import Tensor


def check(x: Tensor, net: str, channels: int, smallest: tuple[int, ...]) -> None:
    """Raise a ValueError unless x is (B, channels, *sizes) and the sizes, [T,] H and W, are at least `smallest`."""
    shape = tuple(x.shape)
    if len(shape) != 2 + len(smallest) or shape[1] != channels:
        axes = ", ".join("THW"[-len(smallest) :])
        raise ValueError(f"{net} takes (B, {channels}, {axes}), not {shape}")
    if any(size < least for size, least in zip(shape[2:], smallest, strict=True)):
        raise ValueError(
            f"{net} needs at least {' x '.join(map(str, smallest))}, not {' x '.join(map(str, shape[2:]))}"
        )
