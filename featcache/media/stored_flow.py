"""Pictures of optical flow on the disk as a reel: two grey pictures per field, one for each direction.

They are in the folder of a source, or, for a video NAME.mp4, in the folder NAME next to it, in one of these layouts:

    u/FILE and v/FILE                 EPIC-KITCHENS; also x/ and y/, flow_u/ and flow_v/, flow_x/ and flow_y/
    flow_x_FILE and flow_y_FILE       TSN, mmaction2; also flow_u_ and flow_v_, u_ and v_, x_ and y_

The first of each two is motion to the right, the second motion downwards. Grey 128 is rest.

Frames may also be in a folder u/, or be called u_1.png. So names of one letter are flow only if the pictures are grey.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from featcache.endings import DIRECTIONS
from featcache.errors import MediaError
from featcache.files import remembered
from featcache.media import images
from featcache.media.reel import Picture, Reel

LAYOUTS = "u/ and v/, x/ and y/, or flow_x_* and flow_y_*"
SETTING = "--set EXTRACTOR.method=pictures (for hof: --set hof.flow=pictures)"
COLOUR = 16  #: grey values by which the channels of a grey picture may differ, because JPEG rounds them
LAST = 3  #: most fields that may lack at the end of numbered ones; EPIC-KITCHENS computed each over up to 3 strides


class Parts(NamedTuple):
    """The pictures of a folder: frames, and those of flow to the right and downwards, as paths inside the folder."""

    frames: tuple[str, ...]
    right: tuple[str, ...] = ()
    down: tuple[str, ...] = ()


def parts(path: Path) -> Parts:
    """Return the pictures of a folder in order. Pictures of flow may be incomplete: `reel` checks them.

    Pictures named by one letter, such as u_1.png and v_1.png, are flow only if they are grey and both directions have
    the same fields.
    """
    named = _named(path)
    if _by_one_letter(named) and not (_are_grey(path, named) and (_in_folders(named) or _are_equal(named))):
        return Parts(images.names(path))
    return named


def in_folders(path: Path) -> bool:
    """Return whether a folder holds flow in two folders. Those of one letter must be grey and have the same fields."""
    named = _named(path)
    if not (named.right and named.down and _in_folders(named)):
        return False
    return not _by_one_letter(named) or (_are_grey(path, named) and _are_equal(named))


def _named(path: Path) -> Parts:
    """Return the pictures of a folder by their names, without a look at them."""
    names = images.names(path)
    for pair in DIRECTIONS:
        if any((path / name).is_dir() for name in pair):
            folders = [images.names(path / name) if (path / name).is_dir() else () for name in pair]
            right, down = (tuple(f"{name}/{file}" for file in files) for name, files in zip(pair, folders, strict=True))
            if right or down:
                return Parts(names, right, down)
    return _split(names)


def _in_folders(named: Parts) -> bool:
    return any("/" in names[0] for names in (named.right, named.down) if names)


def _by_one_letter(named: Parts) -> bool:
    return any(names[0][1] in "/_" for names in (named.right, named.down) if names)


def _are_equal(named: Parts) -> bool:
    """Return whether both directions have the same fields."""
    return {_field(name) for name in named.right} == {_field(name) for name in named.down}


def _are_grey(path: Path, named: Parts) -> bool:
    """Return whether the first picture of each direction is grey, or cannot be read, which is reported later."""
    with suppress(MediaError, OSError):
        return not any(_has_colour(path / names[0]) for names in (named.right, named.down) if names)
    return True


@remembered(64)
def _has_colour(path: Path) -> bool:
    return _is_colour(images.read(path))


def _is_colour(picture: Picture) -> bool:
    return int(np.ptp(picture[::4, ::4].astype(np.int16), axis=2).max()) > COLOUR


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
    found = _named(path) if path.is_dir() else Parts(())
    fields = _fields(path, found.right, found.down)
    count = len(fields.pairs)

    def decode(wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        return _decoded(path, fields.pairs, wanted)

    if shown is None:
        rate = images.checked_rate(path, fps)
        return Reel(path, np.arange(count) / rate, count / rate, decode)
    if fields.first is not None:
        _check_start(path, fields, found.frames)
    step = _step(count, len(shown.times), 1 if fields.first is None else LAST)
    if not step:
        raise MediaError(
            f"{path} has {count} fields of flow for {len(shown.times)} pictures of the source, which is neither one "
            "for each picture nor one for every second, third, ... picture; restore the missing ones"
        )
    return Reel(path, shown.times[::step][:count], shown.stop, decode)


def _step(count: int, of: int, last: int) -> int:
    """Return the pictures from one field to the next, if up to `last` fields lack at the end; 0: impossible.

    >>> _step(50, 50, 1), _step(49, 50, 1), _step(25, 50, 1), _step(24, 50, 1), _step(48, 50, 1), _step(2, 3, 1)
    (1, 1, 2, 2, 0, 1)
    """
    for lacking in range(1, last + 1):
        step = -(-of // (count + lacking))  # the smallest one, with which the fields that lack would be enough
        if step * (count - 1) < of:
            return step
    return 0


class _Fields(NamedTuple):
    """The pictures of each field, and the number in the name of the first; None if the names are not numbered."""

    pairs: tuple[tuple[str, str], ...]
    first: int | None


@lru_cache(16)
def _fields(path: Path, right: tuple[str, ...], down: tuple[str, ...]) -> _Fields:
    """Return the two pictures of each field; MediaError if one or both of them are missing."""
    if not right and not down:
        raise MediaError(
            f"{path} has no pictures of flow ({LAYOUTS}); add them, or let flow be computed: leave {SETTING} out"
        )
    of_right, of_down = _by_field(path, right), _by_field(path, down)
    if lonely := sorted(of_right.keys() ^ of_down.keys()):
        there = of_right.get(lonely[0]) or of_down[lonely[0]]
        raise MediaError(
            f"{path} has {len(right)} pictures of flow to the right and {len(down)} downwards: {there} has no "
            "counterpart; restore the missing ones"
        )
    numbers = _numbers(tuple(of_right))
    gaps = [after - before for before, after in pairwise(numbers)]
    if 0 in gaps:
        k = gaps.index(0)
        raise MediaError(f"{path}: {right[k]} and {right[k + 1]} have the same number; remove one of them")
    if gaps and max(gaps) > min(gaps):
        k = next(k for k, gap in enumerate(gaps) if gap > min(gaps))
        base, _, ending = right[k].rpartition(".")
        digits = re.findall(r"\d+", base)[-1]
        missing = f"{base.removesuffix(digits)}{numbers[k] + min(gaps):0{len(digits)}}.{ending}"
        raise MediaError(
            f"{path} has no {missing}: after {right[k]} comes {right[k + 1]}; restore the pictures between them"
        )
    return _Fields(tuple((name, of_down[field]) for field, name in of_right.items()), numbers[0] if numbers else None)


def _by_field(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Return field -> its picture; MediaError if there are two."""
    found: dict[str, str] = {}
    for name in names:
        if (other := found.setdefault(_field(name), name)) != name:
            raise MediaError(f"{path}: {other} and {name} are the same field; remove one of them")
    return found


def _numbers(names: Sequence[str]) -> list[int]:
    """Return the numbers at the ends of names; none if a name has no number, or another text before it.

    >>> _numbers(["frame_1", "frame_12"]), _numbers(["a", "b"]), _numbers(["a1", "b1"])
    ([1, 12], [], [])
    """
    found = [re.fullmatch(r"(.*?)(\d+)", name) for name in names]
    parts = [(one[1], int(one[2])) for one in found if one]
    return [number for _, number in parts] if len(parts) == len(names) and len(dict(parts)) == 1 else []


def _check_start(path: Path, fields: _Fields, frames: Sequence[str]) -> None:
    """Raise MediaError if the first fields seem to be missing: numbers begin with 0, 1, or that of the first frame."""
    starts = {0, 1, *_numbers([name.rpartition(".")[0] for name in frames[:1]])}
    if fields.first not in starts:
        raise MediaError(
            f"{path}: the first field of flow is {fields.pairs[0][0]}, but the numbers must begin with "
            f"{' or '.join(map(str, sorted(starts)))}; restore the missing ones, or number the pictures again"
        )


def _field(name: str) -> str:
    """`u/frame_1.jpg` and `flow_x_frame_1.png` -> frame_1: the name that both directions of a field share."""
    folder, _, file = name.rpartition("/")
    stem = file.rpartition(".")[0]
    direction = next((way for pair in DIRECTIONS for way in pair if not folder and stem.startswith(f"{way}_")), "")
    return stem[len(direction) + 1 :] if direction else stem


def _decoded(path: Path, pairs: Sequence[tuple[str, str]], wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
    """Read fields; MediaError if one has another size than the first of them."""
    first: Picture | None = None
    for number in wanted:
        picture = _read(path, *pairs[number])
        first = picture if first is None else first
        if picture.shape != first.shape:
            raise _sizes_differ(path, (pairs[number][0], picture), (pairs[wanted[0]][0], first))
        yield number, picture


def _read(path: Path, right: str, down: str) -> Picture:
    """Read a field as (height, width, 2) uint8."""
    both = [images.read(path / name) for name in (right, down)]
    for name, picture in zip((right, down), both, strict=True):
        if _is_colour(picture):
            raise MediaError(f"{path / name} is in colour, but pictures of flow are grey, one for each direction")
    if both[0].shape != both[1].shape:
        raise _sizes_differ(path, (right, both[0]), (down, both[1]))
    return np.stack([picture[..., 0] for picture in both], axis=2)


def _sizes_differ(path: Path, *pictures: tuple[str, Picture]) -> MediaError:
    (one, its), (other, others) = [(name, f"{p.shape[1]} x {p.shape[0]}") for name, p in pictures]
    return MediaError(f"{path}: {one} is {its}, but {other} is {others}; all pictures of flow must have one size")
