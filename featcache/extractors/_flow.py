"""Flow in eight bits, as two-stream networks were trained on it: cut at a bound, with rest at 128."""

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ConfigError

METHODS = ("dis", "tvl1")  #: those of featcache.media.flow, which is not imported because --help would then load OpenCV


def check(name: str, method: str) -> None:
    """Raise ConfigError for an unknown method of flow."""
    if method not in METHODS:
        raise ConfigError(f"{name}.method is {method!r}; choose from {', '.join(METHODS)}")


def quantised(field: NDArray[np.float32], bound: float) -> NDArray[np.uint8]:
    """Quantise flow f in pixels, clipped to [-bound, bound]: round(128 + 255 f / (2 bound)) in [0, 255].

    >>> quantised(np.array([-99.0, -20.0, 0.0, 10.0, 20.0], np.float32), 20.0)
    array([  0,   0, 128, 192, 255], dtype=uint8)
    """
    return np.clip(np.rint(128 + field * np.float32(127.5 / bound)), 0, 255).astype(np.uint8)
