"""Pictures of a video file by number, exactly: decoded from the keyframe before them, identified by presentation time.

Everything runs in one thread, because clips run in parallel. Colours follow the stream's own matrix and range, ten
bits become eight, display rotation is applied; pixels that are not square stay as they are stored. There is no tone
mapping: high dynamic range (PQ, HLG) keeps its code values, so it is duller than in a player. There is no
deinterlacing: interlaced pictures keep both their fields, line by line.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Any, cast

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from featcache.errors import MediaError
from featcache.media.container import Scan, VideoTrack, opened, packets
from featcache.media.reel import Picture, Reel

#: Pictures that a counted video may lack at its end: packed B-frames (DivX) leave a packet without one.
_UNFILLED = 2


def reel(scan: Scan, track: VideoTrack) -> Reel:
    """Return the reel of a scanned video."""
    return Reel(scan.path, track.times, track.stop, lambda wanted: _decode(scan, track, wanted))


def _decode(scan: Scan, track: VideoTrack, wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
    with opened(scan.path) as container:
        decoder = _Decoder(container, scan, track)
        if track.counted:
            yield from decoder.count(wanted)
            return
        for run, key in _runs(track, wanted):
            missing = yield from decoder.follow(run, key)
            if missing:  # a wrong index can mislead a seek, so decode again from the start
                yield from _from_start(scan, track, missing)


def _from_start(scan: Scan, track: VideoTrack, wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
    with opened(scan.path) as container:
        decoder = _Decoder(container, scan, track)
        missing = yield from decoder.follow(wanted, 0)
        if missing:
            raise decoder.damaged(missing[0])


def _runs(track: VideoTrack, wanted: Sequence[int]) -> list[tuple[list[int], int]]:
    """Cut ascending picture numbers where a seek saves decoding: [(numbers, number of the keyframe to start at)]."""
    entries = np.maximum(np.searchsorted(track.keys, track.ticks[list(wanted)], side="right") - 1, 0)
    runs: list[tuple[list[int], int]] = []
    before = -2
    for number, key in zip(wanted, entries.tolist(), strict=True):
        if key > before + 1:
            runs.append(([], key))
        runs[-1][0].append(number)
        before = key
    return runs


class _Decoder:
    """One pass over the pictures of an open file."""

    def __init__(self, container: av.container.InputContainer, scan: Scan, track: VideoTrack) -> None:
        self.container, self.scan, self.track = container, scan, track
        self.stream = next(s for s in container.streams.video if s.index == track.stream)
        self.stream.codec_context.thread_count = 1
        self.reformatter = VideoReformatter()  # keeps the conversion's tables from picture to picture

    def follow(self, wanted: Sequence[int], key: int) -> Generator[tuple[int, Picture], None, list[int]]:
        """Seek to a keyframe (0: stay at the start) and yield the wanted pictures; return the missing numbers."""
        ticks = self.track.ticks
        entry = int(self.track.keys[key] if key else ticks[0])
        if key:
            self.container.seek(entry, stream=self.stream)
        todo = list(wanted)
        for frame in self._frames():
            if frame.pts is None:
                continue
            # Pictures shown before the keyframe may depend on skipped ones, and are not wanted here.
            if frame.is_corrupt and frame.pts >= entry:
                raise self.damaged(int(np.searchsorted(ticks, frame.pts)))
            if frame.pts == ticks[todo[0]]:
                yield todo.pop(0), self._picture(frame)
            if not todo or frame.pts > ticks[todo[0]]:
                break
        return todo

    def count(self, wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        """Decode from the start; the k-th decoded picture is picture k, whatever its time."""
        todo = list(wanted)
        last, number = None, -1
        for number, last in enumerate(self._frames()):
            if last.is_corrupt:
                raise self.damaged(number)
            if number == todo[0]:
                yield todo.pop(0), self._picture(last)
            if not todo:
                return
        for missing in todo:
            if last is None or missing > number + _UNFILLED:
                raise self.damaged(missing)
            yield missing, self._picture(last)  # the last picture stays on screen

    def damaged(self, number: int) -> MediaError:
        """Return the error for a picture that cannot be decoded."""
        time = self.track.times[min(number, len(self.track.times) - 1)]
        return MediaError(
            f"{self.scan.path} is damaged near {time:.2f} s and cannot be decoded there; replace or re-encode it"
        )

    def _frames(self) -> Iterator[av.VideoFrame]:
        """Decode the following frames; damage is reported with its place."""
        tick: int | None = None
        try:
            for packet in packets(self.container, self.stream):
                tick = packet.pts if packet.pts is not None else tick
                yield from self.stream.decode(packet)
        except av.FFmpegError:
            raise self.damaged(int(np.searchsorted(self.track.ticks, tick or 0))) from None

    def _picture(self, frame: av.VideoFrame) -> Picture:
        """Return a frame as uint8 RGB, upright."""
        picture = np.asarray(self.reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray(), np.uint8)
        matrix = frame.side_data.get("DISPLAYMATRIX")
        if matrix is not None:
            picture = _upright(picture, np.frombuffer(cast(Any, matrix), np.int32))
        return np.ascontiguousarray(picture)


def _upright(picture: Picture, matrix: NDArray[np.int32]) -> Picture:
    """Turn by quarters and mirror by the 3 x 3 display matrix: x' = a x + c y, y' = b x + d y."""
    a, b, c, d = matrix[[0, 1, 3, 4]].tolist()
    if abs(b) > abs(a):
        picture = picture.transpose(1, 0, 2)
    if a + c < 0:
        picture = picture[:, ::-1]
    if b + d < 0:
        picture = picture[::-1]
    return picture
