"""Where the windows of a clip lie: arithmetic on seconds, no media.

The centres of a clip's windows are planned once, for all modalities, and a window that would leave the clip is moved
inside. So window k is the same moment in pictures, motion and sound, except near the ends of the clip, where a longer
window is moved further. A clip shorter than the window lies in its middle: around it pictures repeat the clip's first
and last one, and sound is that of the file, silent beyond its ends. No other window shows what lies outside its clip.

A plan is written `kind:count` on the command line and in recipes.

    segments:T   centres of T equal segments of the clip (TSN, TBN)
    uniform:T    T centres spread evenly between the clip's ends, which are not among them
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ConfigError

KINDS = ("segments", "uniform")


@dataclass(frozen=True)
class Plan:
    """How many windows a clip gets, and where."""

    kind: str = "segments"
    count: int = 5

    @classmethod
    def parse(cls, text: str) -> "Plan":
        """`segments:5` -> Plan("segments", 5)."""
        kind, _, count = text.partition(":")
        if kind not in KINDS or not count.isdecimal() or int(count) == 0:
            raise ConfigError(f"no window plan {text!r}; write KIND:COUNT with KIND one of {', '.join(KINDS)}")
        return cls(kind, int(count))

    def __str__(self) -> str:
        return f"{self.kind}:{self.count}"

    def centres(self, start: float, stop: float) -> NDArray[np.float64]:
        """Centres in seconds of the windows of the clip [start, stop), ascending, shape (count,)."""
        if self.kind == "segments":
            return start + (np.arange(self.count) + 0.5) * (stop - start) / self.count
        return np.linspace(start, stop, self.count + 2)[1:-1]


def placed(centre: float, start: float, stop: float, length: float) -> float:
    """Centre of a window of that length, moved to lie inside [start, stop), or to its middle where it does not fit.

    >>> placed(0.1, 0.0, 10.0, 2.0), placed(5.0, 0.0, 10.0, 2.0), placed(0.1, 0.0, 1.0, 2.0)
    (1.0, 5.0, 0.5)
    """
    if length > stop - start:
        return (start + stop) / 2
    return min(max(centre, start + length / 2), stop - length / 2)


def sample_times(centre: float, start: float, stop: float, count: int, rate: float) -> NDArray[np.float64]:
    """Times in seconds of `count` samples at `rate` per second around a centre, inside the clip [start, stop).

    The window lasts count / rate seconds and its samples are the middles of `count` equal steps. A window that would
    leave the clip is moved to lie inside. A clip shorter than the window keeps the window centred on the clip, and the
    times outside the clip are set to its nearest end, so that edge frames repeat.

    >>> sample_times(1.0, 0.0, 2.0, count=4, rate=8.0)
    array([0.8125, 0.9375, 1.0625, 1.1875])
    """
    times = placed(centre, start, stop, count / rate) + (np.arange(count) + 0.5 - count / 2) / rate
    return np.clip(times, start, np.nextafter(stop, start))
