"""Media files to arrays: `read_clip` decodes a source once for all extractors that want it; `probe` describes it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.errors import FeatcacheError, MediaAbsentError, MediaError
from featcache.extractors import Caption, Extractor, Pictures, Sound
from featcache.manifest import Clip
from featcache.media import audio
from featcache.media.reel import Picture, Reel
from featcache.media.source import Source, SourceInfo, open_source, probe
from featcache.windows import Plan, sample_times

__all__ = ["SourceInfo", "Take", "probe", "read_clip"]


@dataclass(frozen=True, eq=False)
class Take:
    """The windows of one clip as one extractor wants them, and the seconds of the source that each one shows."""

    windows: NDArray[np.generic]  #: (T, ...), each prepared by `Extractor.prepare`
    start: NDArray[np.float64]  #: (T,)
    stop: NDArray[np.float64]  #: (T,)


def read_clip(path: Path, clip: Clip, plan: Plan, extractors: Sequence[Extractor]) -> dict[str, Take | FeatcacheError]:
    """Windows for each extractor, by its name, or the reason why it gets none.

    MediaAbsentError: the source has no such modality by nature (a video without sound, a sound file, an image, a clip
    without a caption). MediaError: it is broken. Nothing else is raised for a bad file.

    The source is decoded once for all extractors of pictures, from the keyframe before the first picture that is
    needed. At any time only the pictures of windows that have begun and not ended are held, each once.
    """
    taken: dict[str, Take | FeatcacheError] = {}
    for extractor in extractors:
        if isinstance(extractor.window, Caption):
            taken[extractor.name] = _caption(clip, extractor)
    heard = [extractor for extractor in extractors if isinstance(extractor.window, Sound)]
    seen = [extractor for extractor in extractors if isinstance(extractor.window, Pictures)]
    if not heard and not seen:
        return taken
    try:
        source = open_source(path, clip.fps)
        start, stop = source.interval(clip)
    except FeatcacheError as error:
        return taken | {extractor.name: error for extractor in (*heard, *seen)}
    for extractor in heard:
        try:
            taken[extractor.name] = _sound(source, plan, start, stop, extractor)
        except FeatcacheError as error:
            taken[extractor.name] = error
    try:
        if seen:
            taken |= _pictures(source, plan, start, stop, seen)
    except FeatcacheError as error:
        taken |= {extractor.name: error for extractor in seen}
    return taken


def _caption(clip: Clip, extractor: Extractor) -> Take | FeatcacheError:
    """One window, which has no place in time (NaN)."""
    if not clip.caption:
        return MediaAbsentError(f"clip {clip.clip_id!r} has no caption")
    nowhere = np.full(1, np.nan)
    return Take(np.stack([extractor.prepare(clip.caption)]), nowhere, nowhere)


def _sound(source: Source, plan: Plan, start: float, stop: float, extractor: Extractor) -> Take:
    window, track = extractor.window, source.audio
    assert isinstance(window, Sound)
    if isinstance(track, FeatcacheError):
        raise track
    if stop <= track.start or start >= track.stop:
        raise MediaAbsentError(
            f"{source.path} is silent in the clip [{start:.2f}, {stop:.2f}) s: "
            f"its sound lies on [{track.start:.2f}, {track.stop:.2f}) s"
        )
    assert source.scan is not None
    begins = np.array([audio.place(track, centre, window.seconds) for centre in plan.centres(start, stop)])
    sounds = audio.read(source.scan, track, begins.tolist(), window.seconds, window.rate)
    rows = [extractor.prepare(sound) for sound in sounds]
    return Take(np.stack(rows), np.maximum(begins, track.start), np.minimum(begins + window.seconds, track.stop))


@dataclass
class _Window:
    """One window of one extractor while its pictures come in."""

    extractor: Extractor
    numbers: list[int]  # picture numbers, ascending, repeated where a picture is shown at several sample times
    start: float
    stop: float
    row: NDArray[np.generic] | None = None


def _pictures(
    source: Source, plan: Plan, start: float, stop: float, extractors: Sequence[Extractor]
) -> dict[str, Take]:
    if not isinstance(source.reel, Reel):
        raise source.reel
    windows = {
        extractor.name: [_window(source.reel, extractor, c, start, stop) for c in plan.centres(start, stop)]
        for extractor in extractors
    }
    _fill(source.reel, [window for row in windows.values() for window in row])
    return {
        name: Take(
            np.stack([np.asarray(window.row) for window in row]),
            np.array([window.start for window in row]),
            np.array([window.stop for window in row]),
        )
        for name, row in windows.items()
    }


def _window(reel: Reel, extractor: Extractor, centre: float, start: float, stop: float) -> _Window:
    plan = extractor.window
    assert isinstance(plan, Pictures)
    times = sample_times(centre, start, stop, plan.count, plan.rate)
    half = 0.5 / plan.rate
    numbers = reel.shown(times, start, stop).tolist()
    return _Window(extractor, numbers, max(start, times[0] - half), min(stop, times[-1] + half))


def _fill(reel: Reel, windows: Sequence[_Window]) -> None:
    """Decode once and hand each window its pictures as soon as its last one is there."""
    waiting = Counter(number for window in windows for number in set(window.numbers))
    ending: dict[int, list[_Window]] = {}
    for window in windows:
        ending.setdefault(window.numbers[-1], []).append(window)
    held: dict[int, Picture] = {}
    for number, picture in reel.decode(sorted(waiting)):
        held[number] = picture
        for window in ending.get(number, ()):
            window.row = window.extractor.prepare(_same_size([held[n] for n in window.numbers], reel))
            for n in set(window.numbers):
                waiting[n] -= 1
                if not waiting[n]:
                    del held[n]


def _same_size(pictures: list[Picture], reel: Reel) -> list[Picture]:
    sizes = {picture.shape for picture in pictures}
    if len(sizes) > 1:
        found = ", ".join(sorted(f"{width} x {height}" for height, width, _ in sizes))
        raise MediaError(f"{reel.path}: its pictures change size within a window ({found}); make them equal")
    return pictures
