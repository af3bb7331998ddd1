"""Media files to arrays: `windows_of` decodes a source once for all extractors that read it; `probe` describes it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from featcache.errors import DeviceError, FeatcacheError, MediaAbsentError, MediaError
from featcache.manifest import Clip
from featcache.media import audio, numbers, skeleton
from featcache.media.pictures import fill, is_stored, planned
from featcache.media.reel import Reel
from featcache.media.source import Source, SourceInfo, open_source, probe, reported
from featcache.windows import WHOLE, Caption, Joints, Numbers, Pictures, Plan, Preparer, Sound, placed

__all__ = ["Nothing", "Piece", "Pieces", "SourceInfo", "Take", "probe", "read_clip", "windows_of"]

# Clips run in parallel, so OpenCV's own threads in each decoding thread gain nothing (extracting `kitchens` with two
# workers on two cores: 2 to 15 % more processor time), and on many cores there would be workers x cores of them.
cv2.setNumThreads(1)


@dataclass(frozen=True, eq=False)
class Piece:
    """One window of a clip, prepared for one extractor, and the seconds of the source that it shows."""

    extractor: str
    number: int  #: number of the window, from 0
    of: int  #: windows that the clip has for this extractor
    window: NDArray[np.generic]  #: prepared by `Extractor.prepare`
    start: float
    stop: float
    note: str = ""  #: a note for the user on the source, such as which of several streams is taken


@dataclass(frozen=True, eq=False)
class Nothing:
    """The reason why an extractor gets no windows of a clip; windows that came before it do not count."""

    extractor: str
    reason: FeatcacheError


@dataclass(frozen=True, eq=False)
class Take:
    """All windows of one clip, prepared for one extractor."""

    windows: NDArray[np.generic]  #: (T, ...), each prepared by `Extractor.prepare`
    start: NDArray[np.float64]  #: (T,)
    stop: NDArray[np.float64]  #: (T,)


Pieces = Iterator[Piece | Nothing]


def read_clip(path: Path, clip: Clip, plan: Plan, extractors: Sequence[Preparer]) -> dict[str, Take | FeatcacheError]:
    """Return all windows of a clip, by the extractor's name, or the reason why there are none: see `windows_of`."""
    pieces: dict[str, dict[int, Piece]] = {extractor.name: {} for extractor in extractors}
    reasons: dict[str, FeatcacheError] = {}
    for piece in windows_of(path, clip, plan, extractors):
        if isinstance(piece, Nothing):
            reasons[piece.extractor] = piece.reason
        else:
            pieces[piece.extractor][piece.number] = piece
    return {name: reasons[name] if name in reasons else _take(windows) for name, windows in pieces.items()}


def _take(pieces: dict[int, Piece]) -> Take:
    ordered = [pieces[number] for number in sorted(pieces)]
    return Take(
        np.stack([piece.window for piece in ordered]),
        np.array([piece.start for piece in ordered]),
        np.array([piece.stop for piece in ordered]),
    )


def windows_of(path: Path, clip: Clip, plan: Plan, extractors: Sequence[Preparer]) -> Pieces:
    """Yield the windows of a clip for each extractor as they are decoded, or the reason why it gets none.

    The reason is a MediaAbsentError if the source has no such modality by nature (a video without sound, a sound file,
    an image, a clip without a caption), and a MediaError if it is broken or `Extractor.prepare` failed. Nothing is
    raised except MemoryError and DeviceError, which are not the clip's fault. A window may come twice if an error
    forced a new start.

    The source is decoded once for all extractors of pictures, from the keyframe before the first picture that is
    needed. Only the pictures and the flow of windows that have begun and not ended are held in memory, each once.
    """
    of_whole_clips, of_sound, of_pictures = (
        [extractor for extractor in extractors if isinstance(extractor.window, kind)]
        for kind in (WHOLE, Sound, Pictures)
    )
    if not clip.source:
        reason = MediaError("the clip has no source; name its file in the manifest's column `source`")
        lacking = [extractor for extractor in extractors if not isinstance(extractor.window, Caption)]
        yield from (Nothing(extractor.name, reason) for extractor in lacking)
        of_whole_clips = [extractor for extractor in of_whole_clips if extractor not in lacking]
        of_sound, of_pictures = [], []
    yield from _each(path, partial(_whole, path, clip), of_whole_clips)
    if not of_sound and not of_pictures:
        return
    try:
        source = open_source(path, clip.fps)
        start, stop = source.interval(clip)
    except Exception as error:
        yield from (Nothing(extractor.name, reported(path, error)) for extractor in (*of_sound, *of_pictures))
        return
    if of_sound:
        yield from _each(path, partial(_sounds, source, plan, start, stop), of_sound)
    if of_pictures:
        yield from _each(path, partial(_pictures, source, plan, start, stop), of_pictures)


def _each(path: Path, read: Callable[[Sequence[Preparer]], Pieces], extractors: Sequence[Preparer]) -> Pieces:
    """Yield the pieces of `read` for all extractors together, or, if that fails, for each extractor separately.

    So the windows of one extractor never depend on the others: damage in a part of the file that only one of them
    needs, or an error in its code, does not cost the others their windows.
    """
    try:
        yield from read(extractors)
    except (MemoryError, DeviceError):
        raise
    except Exception as error:
        if len(extractors) == 1:
            yield Nothing(extractors[0].name, reported(path, error))
        else:
            for extractor in extractors:
                yield from _each(path, read, [extractor])


def _whole(path: Path, clip: Clip, extractors: Sequence[Preparer]) -> Pieces:
    for extractor in extractors:
        yield _one(path, clip, extractor)


def _one(path: Path, clip: Clip, extractor: Preparer) -> Piece:
    """Return the one window of a clip. Its times are NaN for a caption and for numbers without a rate."""
    window, start, stop = extractor.window, np.nan, np.nan
    content: object
    if isinstance(window, Caption):
        if not any(mark.isprintable() and not mark.isspace() for mark in clip.caption or ""):  # nothing to read
            raise MediaAbsentError(f"clip {clip.clip_id!r} has no caption")
        content = clip.caption
    elif isinstance(window, Joints):
        content = bodies = skeleton.read(path, clip)
        start, stop = bodies.start, bodies.stop
    else:
        assert isinstance(window, Numbers)
        table = numbers.read(path, clip, window.key, window.columns)
        content, start, stop = table.values, table.start, table.stop
    return Piece(extractor.name, 0, 1, extractor.prepare(content), start, stop)


def _sounds(source: Source, plan: Plan, start: float, stop: float, extractors: Sequence[Preparer]) -> Pieces:
    for extractor in extractors:
        yield from _sound(source, plan, start, stop, extractor)


def _sound(source: Source, plan: Plan, start: float, stop: float, extractor: Preparer) -> Pieces:
    window, track = extractor.window, source.audio
    assert isinstance(window, Sound)
    if isinstance(track, FeatcacheError):
        yield Nothing(extractor.name, track)  # not raised: the source keeps it, and a raise adds a traceback
        return
    assert source.scan is not None
    length = window.seconds
    centres = plan.centres(start, stop, length).tolist()
    reach = (min(start, track.start), max(stop, track.stop)) if window.around else (start, stop)
    begins = np.array([placed(centre, *reach, length) - length / 2 for centre in centres])
    shows = (np.maximum(begins, reach[0]) < track.stop) & (np.minimum(begins + length, reach[1]) > track.start)
    if not shows.any():
        raise MediaAbsentError(
            f"{source.path} is silent in all windows of the clip [{start:.2f}, {stop:.2f}) s: "
            f"its sound lies on [{track.start:.2f}, {track.stop:.2f}) s"
        )
    first, last = min(0.0, track.start), max(source.stop, track.stop)  # beyond these the file ends and padding begins
    note = source.scan.choices.get("audio", "")
    sounds = audio.read(source.scan, track, begins.tolist(), length, window.rate)
    for number, (begin, sound) in enumerate(zip(begins.tolist(), sounds, strict=True)):
        shown = max(begin, first), min(begin + length, last)
        yield Piece(extractor.name, number, len(begins), extractor.prepare(sound), *shown, note)


def _pictures(source: Source, plan: Plan, start: float, stop: float, extractors: Sequence[Preparer]) -> Pieces:
    by_store = {stored: [e for e in extractors if is_stored(e.window) == stored] for stored in (False, True)}
    for stored, readers in by_store.items():
        if readers:
            yield from _of_reel(source, _reel(source, stored), plan, start, stop, readers)


def _reel(source: Source, stored: bool) -> Reel | MediaError | MediaAbsentError:
    """Return the source's pictures, or its stored pictures of flow, or the reason why there are none."""
    try:
        return source.flow() if stored else source.reel
    except (MediaError, MediaAbsentError) as error:
        return error


def _of_reel(
    source: Source,
    reel: Reel | MediaError | MediaAbsentError,
    plan: Plan,
    start: float,
    stop: float,
    extractors: Sequence[Preparer],
) -> Pieces:
    if not isinstance(reel, Reel):
        yield from (Nothing(extractor.name, reel) for extractor in extractors)
        return
    windows = [window for e in extractors for window in planned(reel, e, plan, start, stop)]
    note = source.scan.choices.get("video", "") if source.scan else ""
    for window, prepared in fill(reel, windows):
        yield Piece(window.extractor.name, window.number, window.of, prepared, window.start, window.stop, note)
