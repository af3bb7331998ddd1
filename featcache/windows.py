"""Kinds of windows, and the positions of a clip's windows: arithmetic on seconds and picture numbers, no media.

The centres of a clip's windows are planned once, for all modalities, and a window that would leave the clip is moved
inside. So window k is the same moment in pictures, motion and sound, except near the ends of the clip, where a longer
window is moved further. When a clip is shorter than the window, the window is centred on the clip: before and after
the clip, pictures repeat its first and last one, and sound is that of the file, silent beyond the file's ends. No other
window reaches outside its clip, except sound windows with `around`, as in TBN.

A window plan is written `kind:number` on the command line and in recipes.

    segments:T   centres of T equal segments of the clip (TSN, TBN: T = 25; MTRAN: T = 5)
    uniform:T    T centres spread evenly between the clip's ends, ends excluded
    inner:T      the same between the outermost positions where the window fits: the test windows of MM-SADA (T = 5,
                 16 pictures of stride 2); windows of different lengths then have different centres
    all:S        one centre in the middle of each S seconds of the clip, at least one: clips differ in their number

A plan places the windows; the extractor's `sampling` chooses the pictures of a window: `dense` takes every `stride`-th
picture around the centre, `uniform` spreads them over the window's stretch. The stretch is the part of the clip that is
nearer to this centre than to any other (with `segments:T`, the segment). `interleaved` spreads the pictures of each
window over the whole clip, and the windows take turns: the plan only gives their number.
"""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featcache import budget
from featcache.errors import ConfigError


@dataclass(frozen=True)
class Pictures:
    """A window of `count` RGB pictures, sampled by presentation time.

    Choice of pictures: `rate` pictures per second; or, at rate 0, every `stride`-th picture of the source; or, with
    `spread`, evenly spread over the window's stretch of the clip (nearer to its centre than to any other), or with
    `interleaved` as well over the whole clip.
    Size of pictures: as decoded; or, with `side`, resized to that shorter side; or, with `crop` as well, cut to
    crop x crop, in the middle or as the view names.
    """

    count: int
    rate: float = 0.0
    stride: int = 1
    spread: bool = False
    side: int = 0
    crop: int = 0
    view: str = "centre"  #: "centre" or one of VIEWS
    interleaved: bool = False  #: spread over the whole clip; see `interleaved`


@dataclass(frozen=True)
class Flow(Pictures):
    """A window of `count` fields of optical flow: from each of count pictures to the next one at the same pace.

    `method` computes the flow on grey pictures of shorter side `side`, in pixels of that size; the flow is then
    cropped. In a mirrored view, motion to the right becomes motion to the left.
    With the method "pictures", nothing is computed: the source holds pictures of flow (featcache/media/stored_flow.py),
    and `count`, `stride` and `spread` choose among them. Their motion is scaled to the size `side`, and, if there is a
    `rate`, from the time between two of them to 1 / rate seconds.
    """

    method: str = "tvl1"  #: a name of featcache.media.flow.METHODS, or "pictures"
    solver: str = "opencv"  #: library that computes the flow: opencv, or torch, which only has TV-L1
    bound: float = 20.0  #: pixels that the ends of the scale of stored pictures stand for


@dataclass(frozen=True)
class Sound:
    """A window of mono sound: `seconds` long, resampled to `rate` samples per second.

    It is moved inside the clip like every window. With `around`, it stays at its centre, may reach outside the clip,
    and is moved only to lie inside the file's sound.
    """

    rate: int
    seconds: float
    around: bool = False


@dataclass(frozen=True)
class Caption:
    """The clip's caption; one window with every plan."""


@dataclass(frozen=True)
class Tokens(Caption):
    """The first `count` tokens of the clip's caption; in a store, each token is a window."""

    count: int = 0


@dataclass(frozen=True)
class Joints:
    """The clip's skeletons, `featcache.media.skeleton.Skeleton`; one window with every plan."""


@dataclass(frozen=True)
class Numbers:
    """The clip's part of a table of numbers (rows, columns); one window with every plan."""

    key: str = ""  #: name of the array in an npz or HDF5 file; "": the only one
    columns: str = ""  #: columns of a CSV file, separated by commas; "": all columns


LATER = {"interleaved": False, "solver": "opencv", "bound": 20.0}  #: parameters that older recipes lack, with defaults
Window = Pictures | Flow | Sound | Caption | Joints | Numbers


def described(window: Window) -> dict[str, Any]:
    """The window as JSON values of a recipe, without `LATER` ones at their defaults, so older recipes stay equal."""
    values = {"kind": type(window).__name__.lower(), **asdict(window)}
    return {name: value for name, value in values.items() if name not in LATER or value != LATER[name]}


WHOLE = (Caption, Joints, Numbers)  #: kinds with one window per clip, with every window plan

CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")
VIEWS = ("flip", *CORNERS, *(f"{corner}-flip" for corner in CORNERS))  #: together with the centre, TSN's ten crops


class Preparer(Protocol):
    """The part of an extractor that the media use: its kind of window, and how it prepares one."""

    @property
    def name(self) -> str:
        """The extractor's name, which identifies its windows."""

    @property
    def window(self) -> Window:
        """The kind of window, with its parameters."""

    def prepare(self, window: Any) -> NDArray[np.generic]:
        """Turn one decoded window into an array of a batch."""


COUNTED = ("segments", "uniform", "inner")  #: kinds of plans whose number is a count of windows
KINDS = (*COUNTED, "all")


@dataclass(frozen=True)
class Plan:
    """A window plan: the number of a clip's windows and their positions. `number`: windows, or seconds for `all`."""

    kind: str = "segments"
    number: float = 5

    @classmethod
    def parse(cls, text: str) -> "Plan":
        """`segments:5` -> Plan("segments", 5)."""
        kind, _, number = text.partition(":")
        try:
            value = int(number) if kind in COUNTED else float(number)
        except ValueError:
            value = 0
        if kind not in KINDS or not (number.isascii() and 0 < value < 1e6):
            raise ConfigError(
                f"no window plan {text!r}; write KIND:COUNT, with KIND one of {', '.join(COUNTED)}, or all:SECONDS"
            )
        plan = cls(kind, value)
        if kind in COUNTED:
            plan.count(0.0, 1.0)  # raises if there are too many for any clip
        return plan

    def __str__(self) -> str:
        return f"{self.kind}:{self.number:g}"

    def count(self, start: float, stop: float) -> int:
        """Number of windows of the clip [start, stop); ConfigError if there are too many (`featcache.budget`)."""
        counted = self.kind in COUNTED
        count = self.number if counted else (stop - start) / self.number + 1e-6
        clip = "" if counted else f" of a clip of {stop - start:g} s"
        count = int(count) if count < budget.NO_LIMIT else count  # a duration may be infinite
        budget.check_windows(count, stop - start, f"window plan {self}{clip}")
        return max(1, int(count))

    def centres(self, start: float, stop: float, length: float = 0.0) -> NDArray[np.float64]:
        """Centres of the clip's windows of that length, in seconds, ascending, shape (count,)."""
        T = self.count(start, stop)
        if self.kind == "segments":
            return start + (np.arange(T) + 0.5) * (stop - start) / T
        if self.kind == "all":
            return np.minimum(start + (np.arange(T) + 0.5) * self.number, (start + stop) / 2 if T == 1 else np.inf)
        margin = min(length, stop - start) / 2 if self.kind == "inner" else 0.0
        return np.linspace(start + margin, stop - margin, T + 2)[1:-1]


def stretches(centres: NDArray[np.float64], start: float, stop: float) -> NDArray[np.float64]:
    """Bounds (count + 1,) of the stretches of the clip [start, stop): each is nearest to one of the centres.

    >>> stretches(np.array([1.0, 3.0]), 0.0, 4.0)
    array([0., 2., 4.])
    """
    return np.concatenate([[start], (centres[1:] + centres[:-1]) / 2, [stop]])


def interleaved(start: float, stop: float, windows: int, count: int) -> NDArray[np.float64]:
    """Bounds (windows, 2) of the stretches of windows of `count` pictures that are spread over the clip and take turns.

    Of each of `count` equal parts of the clip, every window takes one moment: the middle of its own equal share. So a
    stretch is the clip, moved by less than half a part; its pictures, the middles of its parts, are inside the clip.

    >>> interleaved(0.0, 8.0, windows=2, count=4)
    array([[-0.5,  7.5],
           [ 0.5,  8.5]])
    """
    shift = ((np.arange(windows) + 0.5) / windows - 0.5) * (stop - start) / count
    return np.stack([start + shift, stop + shift], 1)


def placed(centre: float, start: float, stop: float, length: float) -> float:
    """Centre of a window of that length, moved inside [start, stop), or to the middle when the window does not fit.

    >>> placed(0.1, 0.0, 10.0, 2.0), placed(5.0, 0.0, 10.0, 2.0), placed(0.1, 0.0, 1.0, 2.0)
    (1.0, 5.0, 0.5)
    """
    if length > stop - start:
        return (start + stop) / 2
    return min(max(centre, start + length / 2), stop - length / 2)


def sample_times(centre: float, start: float, stop: float, count: int, rate: float) -> NDArray[np.float64]:
    """Times in seconds of `count` samples at `rate` per second around a centre, inside the clip [start, stop).

    The window lasts count / rate seconds, and its samples are the middles of `count` equal steps. A window that would
    leave the clip is moved inside. When the clip is shorter than the window, the window is centred on the clip, and
    times outside the clip are set to its nearest end, so that edge frames repeat.

    >>> sample_times(1.0, 0.0, 2.0, count=4, rate=8.0)
    array([0.8125, 0.9375, 1.0625, 1.1875])
    """
    times = placed(centre, start, stop, count / rate) + (np.arange(count) + 0.5 - count / 2) / rate
    return np.clip(times, start, np.nextafter(stop, start))


def consecutive(centre: int, first: int, last: int, count: int, stride: int = 1) -> NDArray[np.int64]:
    """Numbers of `count` pictures, every `stride`-th one, around the picture `centre`, inside [first, last].

    The window is moved inside, as in `placed`. When the clip has too few pictures, the window is centred on the clip,
    and edge pictures repeat.

    >>> consecutive(10, 0, 99, 4, stride=2), consecutive(1, 0, 99, 4), consecutive(0, 5, 6, 4)
    (array([ 7,  9, 11, 13]), array([0, 1, 2, 3]), array([5, 5, 6, 6]))
    """
    span = (count - 1) * stride + 1
    if span > last - first + 1:
        begin = (first + last + 1 - span) // 2
    else:
        begin = min(max(centre - span // 2, first), last - span + 1)
    return np.clip(begin + stride * np.arange(count), first, last)
