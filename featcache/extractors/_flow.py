"""Flow in eight bits, as two-stream networks were trained on it: cut at a bound, with rest at 128."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ConfigError

#: Methods of featcache.media.flow, which is not imported because --help would then load OpenCV.
METHODS = ("dis", "tvl1", "pictures")
SOLVERS = ("opencv", "torch")


def check(name: str, method: str, solver: str, parameter: str = "method") -> None:
    """Raise ConfigError for an unknown method of flow, or a solver that does not have it."""
    if method not in METHODS:
        raise ConfigError(f"{name}.{parameter} is {method!r}; choose from {', '.join(METHODS)}")
    if solver not in SOLVERS:
        raise ConfigError(f"{name}.solver is {solver!r}; choose from {', '.join(SOLVERS)}")
    if solver == "torch" and method != "tvl1":
        raise ConfigError(
            f"{name}.solver is 'torch', which computes only tvl1, but {name}.{parameter} is {method!r}; set one of them"
        )


def window(method: str, solver: str, bound: float) -> dict[str, Any]:
    """Return arguments of Flow; its bound is that of stored pictures."""
    return {"method": method, "solver": solver} | ({"bound": bound} if method == "pictures" else {})


def quantised(field: NDArray[np.float32], bound: float) -> NDArray[np.uint8]:
    """Quantise flow f in pixels, clipped to [-bound, bound]: round(128 + 255 f / (2 bound)) in [0, 255].

    >>> quantised(np.array([-99.0, -20.0, 0.0, 10.0, 20.0], np.float32), 20.0)
    array([  0,   0, 128, 192, 255], dtype=uint8)
    """
    return np.clip(np.rint(128 + field * np.float32(127.5 / bound)), 0, 255).astype(np.uint8)
