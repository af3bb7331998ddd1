"""Pictures of optical flow on the disk as a reel: two grey pictures per field, one for each direction.

They are in the folder of a source, or, for a video NAME.mp4, in the folder NAME next to it, in one of these layouts:

    u/FILE and v/FILE                 EPIC-KITCHENS; also x/ and y/, flow_u/ and flow_v/, flow_x/ and flow_y/
    flow_x_FILE and flow_y_FILE       TSN, mmaction2; also flow_u_ and flow_v_, u_ and v_, x_ and y_

The first of each two is motion to the right, the second motion downwards. Grey 128 is rest.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from featcache.endings import DIRECTIONS
from featcache.errors import MediaError
from featcache.media import images
from featcache.media.reel import Picture, Reel

LAYOUTS = "u/ and v/, x/ and y/, or flow_x_* and flow_y_*"
COLOUR = 16  #: grey values by which the channels of a grey picture may differ, because JPEG rounds them


class Parts(NamedTuple):
    """The pictures of a folder: frames, and those of flow to the right and downwards, as paths inside the folder."""

    frames: tuple[str, ...]
    right: tuple[str, ...] = ()
    down: tuple[str, ...] = ()


def parts(path: Path) -> Parts:
    """Return the pictures of a folder in order. Pictures of flow may be incomplete: `reel` checks them."""
    names = images.names(path)
    for pair in DIRECTIONS:
        if any((path / name).is_dir() for name in pair):
            folders = [images.names(path / name) if (path / name).is_dir() else () for name in pair]
            right, down = (tuple(f"{name}/{file}" for file in files) for name, files in zip(pair, folders, strict=True))
            if right or down:
                return Parts(names, right, down)
    return _split(names)


@lru_cache(64)
def _split(names: tuple[str, ...]) -> Parts:
    """Take the pictures of flow out of the names in a folder."""
    for right, down in DIRECTIONS:
        of_right, of_down = (tuple(n for n in names if n.startswith(f"{way}_")) for way in (right, down))
        if of_right and of_down:
            flow = {*of_right, *of_down}
            return Parts(tuple(name for name in names if name not in flow), of_right, of_down)
    return Parts(names)


def reel(path: Path, fps: float | None, shown: Reel | None = None) -> Reel:
    """Return the reel of the flow in a folder, at `fps`, or on the clock of the frames or video next to it.

    shown: the pictures next to the flow. Each of them has a field of flow, or every second, third, ... one.
    The pictures of the reel have two channels: motion to the right and downwards. MediaError if any is missing.
    """
    found = parts(path) if path.is_dir() else Parts(())
    pairs = _pairs(path, found.right, found.down)
    count = len(pairs)

    def decode(wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        return ((number, _read(path, *pairs[number])) for number in wanted)

    if shown is None:
        rate = images.checked_rate(path, fps)
        return Reel(path, np.arange(count) / rate, count / rate, decode)
    of = len(shown.times)
    step = max(1, round(of / count))
    if abs(of - step * count) > max(2 * step, of // 100):
        raise MediaError(
            f"{path} has {count} fields of flow for {of} pictures of the source, which is neither one for each picture "
            "nor one for every second, third, ... picture; restore the missing ones"
        )
    times = shown.times[::step][:count]
    return Reel(path, times, shown.stop, decode)


@lru_cache(16)
def _pairs(path: Path, right: tuple[str, ...], down: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return the two pictures of each field; MediaError if one of them is missing."""
    if not right and not down:
        raise MediaError(
            f"{path} has no pictures of flow ({LAYOUTS}); add them, or let flow be computed: leave method=pictures out"
        )
    of_down = {_field(name): name for name in down}
    of_right = {_field(name): name for name in right}
    if lonely := sorted(of_right.keys() ^ of_down.keys()):
        there = of_right.get(lonely[0]) or of_down[lonely[0]]
        raise MediaError(
            f"{path} has {len(right)} pictures of flow to the right and {len(down)} downwards: {there} has no "
            "counterpart; restore the missing ones"
        )
    return tuple((name, of_down[_field(name)]) for name in right)


def _field(name: str) -> str:
    """`u/frame_1.jpg` and `flow_x_frame_1.png` -> frame_1: the name that both directions of a field share."""
    folder, _, file = name.rpartition("/")
    stem = file.rpartition(".")[0]
    direction = next((way for pair in DIRECTIONS for way in pair if not folder and stem.startswith(f"{way}_")), "")
    return stem[len(direction) + 1 :] if direction else stem


def _read(path: Path, right: str, down: str) -> Picture:
    """Read a field as (height, width, 2) uint8."""
    both = [images.read(path / name) for name in (right, down)]
    for name, picture in zip((right, down), both, strict=True):
        if int(np.ptp(picture[::4, ::4].astype(np.int16), axis=2).max()) > COLOUR:
            raise MediaError(f"{path / name} is in colour, but pictures of flow are grey, one for each direction")
    sizes = [f"{picture.shape[1]} x {picture.shape[0]}" for picture in both]
    if sizes[0] != sizes[1]:
        raise MediaError(f"{path}: {right} is {sizes[0]}, but {down} is {sizes[1]}; both must have one size")
    return np.stack([picture[..., 0] for picture in both], axis=2)
