"""Windows of pictures and of optical flow: the pictures that they need, shared while a reel is decoded.

A picture is resized once per size, and a field of flow is computed once, for any number of windows and extractors.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from featcache.errors import MediaError
from featcache.media.flow import METHODS
from featcache.media.reel import Picture, Reel
from featcache.windows import Flow, Pictures, Plan, Preparer, consecutive, interleaved, sample_times, stretches

LONGEST = 30_000  #: most pixels of the longer side after resizing


class Image(NamedTuple):
    """Picture `number`, in colour or grey, resized to a shorter side of `side` pixels (0: as decoded)."""

    number: int
    side: int
    grey: bool = False


class Field(NamedTuple):
    """The flow from picture `number` to picture `after`, both of shorter side `side`."""

    number: int
    after: int
    side: int
    method: str


@dataclass
class Window:
    """One window of one extractor: the pictures or fields of flow that it consists of."""

    extractor: Preparer
    items: Sequence[Image | Field]  #: in order of time; a picture that is shown at several sample times is repeated
    start: float
    stop: float
    number: int = 0  #: number of the window in the clip, from 0
    of: int = 1  #: windows of the clip

    @property
    def last(self) -> int:
        """The number of the picture that completes the window."""
        return max(item.after if isinstance(item, Field) else item.number for item in self.items)


@dataclass
class _Shelf:
    """The computed pictures and fields that windows still wait for; each is dropped once its last user has taken it."""

    waiting: Counter[Image | Field]  #: number of users that still wait for an item
    arrays: dict[Image | Field, Any] = field(default_factory=dict)

    def release(self, item: Image | Field) -> None:
        """Note that one user has taken the item."""
        self.waiting[item] -= 1
        if not self.waiting[item]:
            del self.arrays[item]


def planned(reel: Reel, extractor: Preparer, plan: Plan, start: float, stop: float) -> list[Window]:
    """Return the windows of an extractor in the clip [start, stop)."""
    kind = extractor.window
    assert isinstance(kind, Pictures)
    pace = kind.rate or len(reel.times) / reel.stop / kind.stride  # pictures of a window per second
    centres = plan.centres(start, stop, 0.0 if kind.spread else kind.count / pace)
    if kind.interleaved:
        of_windows = [(first, last) for first, last in interleaved(start, stop, len(centres), kind.count).tolist()]
    else:
        of_windows = list(pairwise(stretches(centres, start, stop).tolist()))
    return [
        replace(_window(reel, extractor, centre, (start, stop), stretch), number=number, of=len(centres))
        for number, (centre, stretch) in enumerate(zip(centres.tolist(), of_windows, strict=True))
    ]


def _window(
    reel: Reel, extractor: Preparer, centre: float, clip: tuple[float, float], stretch: tuple[float, float]
) -> Window:
    kind = extractor.window
    assert isinstance(kind, Pictures)
    first, last = reel.shown(np.array([clip[0], np.nextafter(clip[1], clip[0])]), *clip).tolist()
    flow = isinstance(kind, Flow)
    if kind.rate:
        times = sample_times(centre, *clip, kind.count + flow, kind.rate)
        half = 0.5 / kind.rate
        numbers = reel.shown(times, *clip)
        start, stop = max(clip[0], times[0] - half), min(clip[1], times[-1] + half)
    else:
        if kind.spread:
            step = (stretch[1] - stretch[0]) / kind.count
            numbers = reel.shown(stretch[0] + (np.arange(kind.count) + 0.5) * step, *clip)
        else:
            middle = int(reel.shown(np.array(centre), *clip))
            numbers = consecutive(middle, first, last, kind.count + flow, kind.stride)
        start, stop = _shown(reel, int(numbers[0]), int(numbers[-1]), clip)
    if not isinstance(kind, Flow):
        return Window(extractor, [Image(n, kind.side) for n in numbers.tolist()], start, stop)
    after = np.minimum(numbers + kind.stride, last) if kind.spread else numbers[1:]
    pairs = zip(numbers.tolist(), after.tolist(), strict=False)
    return Window(extractor, [Field(a, b, kind.side, kind.method) for a, b in pairs], start, stop)


def _shown(reel: Reel, first: int, last: int, clip: tuple[float, float]) -> tuple[float, float]:
    """Return the part of the clip, in seconds, in which the pictures from first to last are on screen."""
    ends = reel.times[last + 1] if last + 1 < len(reel.times) else reel.stop
    return max(clip[0], float(reel.times[first])), min(clip[1], float(ends))


def fill(reel: Reel, windows: Sequence[Window]) -> Iterator[tuple[Window, NDArray[np.generic]]]:
    """Decode once and yield each window, prepared, as soon as its last picture is decoded."""
    waiting = Counter(item for window in windows for item in set(window.items))
    fields: dict[int, list[Field]] = {}
    for pair in [item for item in waiting if isinstance(item, Field)]:
        fields.setdefault(pair.after, []).append(pair)
        waiting.update({Image(n, pair.side, grey=True) for n in (pair.number, pair.after)})
    images: dict[int, list[Image]] = {}
    for item in waiting:
        if isinstance(item, Image):
            images.setdefault(item.number, []).append(item)
    ending: dict[int, list[Window]] = {}
    for window in windows:
        ending.setdefault(window.last, []).append(window)
    shelf = _Shelf(waiting)
    for number, picture in reel.decode(sorted(images)):
        for image in images[number]:
            shelf.arrays[image] = made(picture, image.side, image.grey)
        for pair in fields.get(number, ()):
            a, b = (Image(n, pair.side, grey=True) for n in (pair.number, pair.after))
            shelf.arrays[pair] = _flow(shelf.arrays[a], shelf.arrays[b], pair, reel)
            for image in {a, b}:
                shelf.release(image)
        for window in ending.get(number, ()):
            yield window, _prepared(window, [shelf.arrays[item] for item in window.items], reel)
            for item in set(window.items):
                shelf.release(item)


def made(picture: Picture, side: int, grey: bool = False) -> NDArray[np.uint8]:
    """Resize a picture to a shorter side of `side` pixels: averaged over areas to shrink it, bilinear to enlarge it."""
    if grey:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    height, width = picture.shape[:2]
    scale = side / min(height, width)
    if not side or scale == 1:
        return picture
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    if max(size) > LONGEST:
        raise MediaError(f"a picture of {width} x {height} is too long and thin; crop it")
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, size, interpolation=method), np.uint8)


def viewed(array: NDArray[Any], kind: Pictures) -> NDArray[Any]:
    """Cut the view out of a picture or field of flow (height, width, ...), and mirror it if the view is a flip."""
    if kind.crop:
        top, left = (length - kind.crop for length in array.shape[:2])
        top = 0 if "top" in kind.view else top if "bottom" in kind.view else top // 2
        left = 0 if "left" in kind.view else left if "right" in kind.view else left // 2
        array = array[top : top + kind.crop, left : left + kind.crop]
    if kind.view.endswith("flip"):
        array = np.ascontiguousarray(array[:, ::-1])
        if isinstance(kind, Flow):
            array = array * np.array([-1, 1], array.dtype)
    return array


def _flow(a: NDArray[np.uint8], b: NDArray[np.uint8], pair: Field, reel: Reel) -> NDArray[np.float32]:
    if pair.number == pair.after:  # the clip's last picture, repeated: nothing moves
        return np.zeros((*a.shape, 2), np.float32)
    _check_sizes([a, b], reel)
    return METHODS[pair.method](a, b)


def _prepared(window: Window, arrays: list[NDArray[Any]], reel: Reel) -> NDArray[np.generic]:
    _check_sizes(arrays, reel)
    kind = window.extractor.window
    assert isinstance(kind, Pictures)
    views = {id(array): viewed(array, kind) for array in arrays}  # a picture may be shown several times
    return window.extractor.prepare([views[id(array)] for array in arrays])


def _check_sizes(pictures: Sequence[NDArray[Any]], reel: Reel) -> None:
    sizes = {picture.shape[:2] for picture in pictures}
    if len(sizes) > 1:
        listed = ", ".join(sorted(f"{width} x {height}" for height, width in sizes))
        raise MediaError(f"{reel.path}: its pictures change size within a window ({listed}); make them equal")
