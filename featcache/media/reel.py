"""Pictures on a time line: the common form of a video, a still image and a folder of frames."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

Picture = NDArray[np.uint8]  #: RGB (height, width, 3), upright

#: Seconds that are ignored: a time computed as 0.5199999999 shows the picture that appears at 0.52.
EPSILON = 1e-6


@dataclass(frozen=True, eq=False)
class Reel:
    """Pictures with times. `decode` takes ascending picture numbers and yields (number, picture) in that order."""

    path: Path
    times: NDArray[np.float64]  #: (n,) second at which each picture appears; the first is 0
    stop: float  #: second at which the last picture disappears
    decode: Callable[[Sequence[int]], Iterator[tuple[int, Picture]]]

    def shown(self, times: ArrayLike, start: float, stop: float) -> NDArray[np.int64]:
        """Return the number of the picture on screen at each time, among the pictures shown in [start, stop)."""
        first = int(self._by(np.asarray(start)))
        last = max(first, int(np.searchsorted(self.times, stop - EPSILON)) - 1)
        return np.clip(self._by(times), first, last)

    def _by(self, times: ArrayLike) -> NDArray[np.int64]:
        return np.maximum(np.searchsorted(self.times, np.asarray(times) + EPSILON, side="right") - 1, 0)
