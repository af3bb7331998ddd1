"""Media files to arrays: `read_clip` decodes a source once for all extractors that want it; `probe` describes it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from featcache.errors import FeatcacheError, MediaAbsentError
from featcache.extractors import WHOLE, Caption, Extractor, Joints, Numbers, Pictures, Sound
from featcache.manifest import Clip
from featcache.media import audio, numbers, skeleton
from featcache.media.pictures import Window, fill, planned
from featcache.media.reel import Reel
from featcache.media.source import Source, SourceInfo, open_source, probe, reported
from featcache.windows import Plan, placed

__all__ = ["SourceInfo", "Take", "probe", "read_clip"]

# Clips are what runs in parallel. Threads of OpenCV's own in each decoding thread gain nothing (extracting `kitchens`
# with two workers on two cores: 2 to 15 % more processor time), and on many cores they would be workers x cores.
cv2.setNumThreads(1)


@dataclass(frozen=True, eq=False)
class Take:
    """The windows of one clip as one extractor wants them, and the seconds of the source that each one shows."""

    windows: NDArray[np.generic]  #: (T, ...), each prepared by `Extractor.prepare`
    start: NDArray[np.float64]  #: (T,)
    stop: NDArray[np.float64]  #: (T,)


Taken = dict[str, Take | FeatcacheError]


def read_clip(path: Path, clip: Clip, plan: Plan, extractors: Sequence[Extractor]) -> Taken:
    """Windows for each extractor, by its name, or the reason why it gets none.

    MediaAbsentError: the source has no such modality by nature (a video without sound, a sound file, an image, a clip
    without a caption). MediaError: it is broken, or `Extractor.prepare` failed. Nothing is raised.

    The source is decoded once for all extractors of pictures, from the keyframe before the first picture that is
    needed. At any time only the pictures and the flow of windows that have begun and not ended are held, each once.
    """
    whole, heard, seen = (
        [extractor for extractor in extractors if isinstance(extractor.window, kind)]
        for kind in (WHOLE, Sound, Pictures)
    )
    taken = _each(path, partial(_whole, path, clip), whole)
    if not heard and not seen:
        return taken
    try:
        source = open_source(path, clip.fps)
        start, stop = source.interval(clip)
    except Exception as error:
        return taken | {extractor.name: reported(path, error) for extractor in (*heard, *seen)}
    taken |= _each(path, partial(_sounds, source, plan, start, stop), heard)
    taken |= _each(path, partial(_pictures, source, plan, start, stop), seen)
    return taken


def _each(path: Path, read: Callable[[Sequence[Extractor]], dict[str, Take]], extractors: Sequence[Extractor]) -> Taken:
    """What `read` gives for all of them at once, or where that fails, for each alone.

    So what one extractor gets never depends on which others were named: damage in a part that only one of them looks
    at, or an error in its code, does not cost the others their windows.
    """
    if not extractors:
        return {}
    try:
        return dict(read(extractors))
    except Exception as error:
        if len(extractors) == 1:
            return {extractors[0].name: reported(path, error)}
    return {extractor.name: _each(path, read, [extractor])[extractor.name] for extractor in extractors}


def _whole(path: Path, clip: Clip, extractors: Sequence[Extractor]) -> dict[str, Take]:
    return {extractor.name: _one(path, clip, extractor) for extractor in extractors}


def _one(path: Path, clip: Clip, extractor: Extractor) -> Take:
    """The one window of a clip; a caption, and what has no times, has no place in time (NaN)."""
    window, start, stop = extractor.window, np.nan, np.nan
    content: object
    if isinstance(window, Caption):
        if not clip.caption:
            raise MediaAbsentError(f"clip {clip.clip_id!r} has no caption")
        content = clip.caption
    elif isinstance(window, Joints):
        content = bodies = skeleton.read(path, clip)
        start, stop = bodies.start, bodies.stop
    else:
        assert isinstance(window, Numbers)
        table = numbers.read(path, clip, window.key, window.columns)
        content, start, stop = table.values, table.start, table.stop
    return Take(np.stack([extractor.prepare(content)]), np.array([start]), np.array([stop]))


def _sounds(source: Source, plan: Plan, start: float, stop: float, extractors: Sequence[Extractor]) -> dict[str, Take]:
    return {extractor.name: _sound(source, plan, start, stop, extractor) for extractor in extractors}


def _sound(source: Source, plan: Plan, start: float, stop: float, extractor: Extractor) -> Take:
    window, track = extractor.window, source.audio
    assert isinstance(window, Sound)
    if isinstance(track, FeatcacheError):
        raise track
    assert source.scan is not None
    length = window.seconds
    centres = plan.centres(start, stop, length).tolist()
    begins = np.array([placed(centre, start, stop, length) - length / 2 for centre in centres])
    shows = (np.maximum(begins, start) < track.stop) & (np.minimum(begins + length, stop) > track.start)
    if not shows.any():
        raise MediaAbsentError(
            f"{source.path} is silent in all windows of the clip [{start:.2f}, {stop:.2f}) s: "
            f"its sound lies on [{track.start:.2f}, {track.stop:.2f}) s"
        )
    sounds = audio.read(source.scan, track, begins.tolist(), length, window.rate)
    rows = np.stack([extractor.prepare(sound) for sound in sounds])
    first, last = min(0.0, track.start), max(source.stop, track.stop)  # beyond them lies no file, only padding
    return Take(rows, np.maximum(begins, first), np.minimum(begins + length, last))


def _pictures(
    source: Source, plan: Plan, start: float, stop: float, extractors: Sequence[Extractor]
) -> dict[str, Take]:
    if not isinstance(source.reel, Reel):
        raise source.reel
    windows = {e.name: planned(source.reel, e, plan, start, stop) for e in extractors}
    fill(source.reel, [window for row in windows.values() for window in row])
    return {name: _take(row) for name, row in windows.items()}


def _take(windows: Sequence[Window]) -> Take:
    return Take(
        np.stack([np.asarray(window.row) for window in windows]),
        np.array([window.start for window in windows]),
        np.array([window.stop for window in windows]),
    )
