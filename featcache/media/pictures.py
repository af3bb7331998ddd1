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
from featcache.media.flow import STORED, enough, flows
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
    solver: str = "opencv"
    device: str = "cpu"


class Stored(NamedTuple):
    """The stored flow number `number`, resized. Motion is multiplied by the scale of the size and by `pace`."""

    number: int
    side: int
    bound: float
    pace: float = 1.0


Item = Image | Field | Stored


@dataclass
class Window:
    """One window of one extractor: the pictures or fields of flow that it consists of."""

    extractor: Preparer
    items: Sequence[Item]  #: in order of time; a picture that is shown at several sample times is repeated
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

    waiting: Counter[Item]  #: number of users that still wait for an item
    arrays: dict[Item, Any] = field(default_factory=dict)

    def has(self, window: Window) -> bool:
        """Return whether all parts of a window are there."""
        return all(item in self.arrays for item in window.items)

    def release(self, item: Item) -> None:
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
    flow = isinstance(kind, Flow) and not is_stored(kind)  # from each of count + 1 pictures to the next
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
    if is_stored(kind):
        pace = len(reel.times) / reel.stop / kind.rate if kind.rate else 1.0
        return Window(extractor, [Stored(n, kind.side, kind.bound, pace) for n in numbers.tolist()], start, stop)
    after = np.minimum(numbers + kind.stride, last) if kind.spread else numbers[1:]
    pairs = zip(numbers.tolist(), after.tolist(), strict=False)
    how = kind.method, kind.solver, str(getattr(extractor, "device", "cpu")) if kind.solver != "opencv" else "cpu"
    return Window(extractor, [Field(a, b, kind.side, *how) for a, b in pairs], start, stop)


def _shown(reel: Reel, first: int, last: int, clip: tuple[float, float]) -> tuple[float, float]:
    """Return the part of the clip, in seconds, in which the pictures from first to last are on screen."""
    ends = reel.times[last + 1] if last + 1 < len(reel.times) else reel.stop
    return max(clip[0], float(reel.times[first])), min(clip[1], float(ends))


def is_stored(kind: Any) -> bool:
    """Return whether a window consists of stored pictures of flow."""
    return isinstance(kind, Flow) and kind.method == STORED


def fill(reel: Reel, windows: Sequence[Window]) -> Iterator[tuple[Window, NDArray[np.generic]]]:
    """Decode once and yield each window, prepared, as soon as its last picture is decoded.

    Windows of flow by torch may come later: fields are left until there are enough to be solved together.
    """
    waiting = Counter(item for window in windows for item in set(window.items))
    fields: dict[int, list[Field]] = {}
    for pair in [item for item in waiting if isinstance(item, Field)]:
        fields.setdefault(pair.after, []).append(pair)
        waiting.update({Image(n, pair.side, grey=True) for n in (pair.number, pair.after)})
    pictures: dict[int, list[Image | Stored]] = {}
    for item in waiting:
        if not isinstance(item, Field):
            pictures.setdefault(item.number, []).append(item)
    ending: dict[int, list[Window]] = {}
    for window in windows:
        ending.setdefault(window.last, []).append(window)
    shelf, last, open_fields, ended = _Shelf(waiting), max(pictures, default=0), list[Field](), list[Window]()
    for number, picture in reel.decode(sorted(pictures)):
        for part in pictures[number]:
            shelf.arrays[part] = (
                field_of(picture, part) if isinstance(part, Stored) else made(picture, part.side, part.grey)
            )
        open_fields += fields.get(number, ())
        ended += ending.get(number, ())
        due = [f for f in open_fields if number == last or len(open_fields) >= enough(f.solver, f.device)]
        if due:
            _solve(due, shelf, reel)
            open_fields = [f for f in open_fields if f not in shelf.arrays]
        whole, ended = [w for w in ended if shelf.has(w)], [w for w in ended if not shelf.has(w)]
        for window in whole:
            yield window, _prepared(window, [shelf.arrays[item] for item in window.items], reel)
            for item in set(window.items):
                shelf.release(item)


def _solve(fields: Sequence[Field], shelf: _Shelf, reel: Reel) -> None:
    """Compute fields whose pictures are on the shelf, those of one method together, and release the pictures."""
    by_way: dict[tuple[str, str, str], list[Field]] = {}
    for each in fields:
        by_way.setdefault((each.method, each.solver, each.device), []).append(each)
    for way, alike in by_way.items():
        ends = {f: [Image(n, f.side, grey=True) for n in (f.number, f.after)] for f in alike}
        pairs = {f: (shelf.arrays[a], shelf.arrays[b]) for f, (a, b) in ends.items()}
        for a, b in pairs.values():
            _check_sizes([a, b], reel)
        moving = [f for f in alike if f.number != f.after]  # the clip's last picture, repeated, does not move
        shelf.arrays.update(zip(moving, flows([pairs[f] for f in moving], *way), strict=True))
        for f in alike:
            if f.number == f.after:
                shelf.arrays[f] = np.zeros((*pairs[f][0].shape, 2), np.float32)
            for image in set(ends[f]):
                shelf.release(image)


def field_of(picture: NDArray[np.uint8], stored: Stored) -> NDArray[np.float32]:
    """Turn stored flow (height, width, 2), eight bits with rest at 128, into pixels of the size `stored.side`."""
    values = (picture.astype(np.float32) - 128) * np.float32(stored.bound / 127.5 * stored.pace)
    resized = resize(values, stored.side)
    scale = [new / old for new, old in zip(resized.shape[1::-1], values.shape[1::-1], strict=True)]
    return resized * np.array(scale, np.float32)


def made(picture: Picture, side: int, grey: bool = False) -> NDArray[np.uint8]:
    """Resize a picture to a shorter side of `side` pixels: averaged over areas to shrink it, bilinear to enlarge it."""
    if grey:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    return np.asarray(resize(picture, side), np.uint8)


def resize(picture: NDArray[Any], side: int) -> NDArray[Any]:
    """Resize (height, width, ...) to a shorter side of `side` pixels; 0: as it is."""
    height, width = picture.shape[:2]
    scale = side / min(height, width)
    if not side or scale == 1:
        return picture
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    if max(size) > LONGEST:
        raise MediaError(f"a picture of {width} x {height} is too long and thin; crop it")
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR))


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
