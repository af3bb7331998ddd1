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

from featcache.budget import PIXELS
from featcache.errors import MediaError
from featcache.media.container import Scan, VideoTrack
from featcache.media.listing import frames
from featcache.media.packets import opened, replay
from featcache.media.reel import Picture, Reel

_CONTRADICTION = "the times of its pictures contradict their order; convert it with `ffmpeg -i IN OUT.mp4`"


def reel(scan: Scan, track: VideoTrack) -> Reel:
    """Return the reel of a scanned video."""
    return Reel(scan.path, track.times, track.stop, lambda wanted: _decode(scan, track, wanted))


def _decode(scan: Scan, track: VideoTrack, wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
    with opened(scan.path) as container:
        decoder = _Decoder(container, scan, track)
        if track.counted is not None:
            yield from decoder.count(wanted)
            return
        for run, key in _runs(track, wanted):
            missing = yield from decoder.follow(run, key)
            if missing:  # neither the keyframe nor its index may be what it seems, so decode again from the start
                yield from _from_start(scan, track, missing, key)


def _from_start(scan: Scan, track: VideoTrack, wanted: Sequence[int], key: int) -> Iterator[tuple[int, Picture]]:
    with opened(scan.path) as container:
        yield from _Decoder(container, scan, track).follow(wanted, key, from_start=True)


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

    def follow(
        self, wanted: Sequence[int], key: int, *, from_start: bool = False
    ) -> Generator[tuple[int, Picture], None, list[int]]:
        """Yield the wanted pictures, decoded from a keyframe on; return the numbers that are missing there.

        From the start, none is missing: a picture for which the decoder gives none shows the one before, and one that
        depends on what was cut off before the first keyframe shows the first whole one.
        """
        ticks, from_start = self.track.ticks, from_start or not key
        entry = int(self.track.keys[key]) if len(self.track.keys) else int(ticks[0])
        todo, held = list(wanted), None
        for frame in self._frames(key, entry, from_start):
            if frame.pts is None or (frame.pts < entry and (frame.is_corrupt or not from_start)):
                continue  # pictures shown before the keyframe may depend on skipped ones
            if frame.is_corrupt:
                raise self.damaged(int(np.searchsorted(ticks, frame.pts)))
            if held is None and not from_start and (frame.pts > entry or not frame.key_frame):
                return todo  # the file calls it a keyframe, but the decoder does not
            if held is not None and held.pts is not None and frame.pts < held.pts:
                raise MediaError(f"{self.scan.path}: {_CONTRADICTION}")
            while todo and ticks[todo[0]] < frame.pts:
                if not from_start:
                    return todo
                yield todo.pop(0), self._picture(held or frame)
            if todo and frame.pts == ticks[todo[0]]:
                yield todo.pop(0), self._picture(frame)
            if not todo:
                return []
            held = frame
        if from_start and held is not None:  # the last picture stays on screen
            yield from ((number, self._picture(held)) for number in todo)
            return []
        if from_start:
            raise self.damaged(todo[0])
        return todo

    def count(self, wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        """Decode from the start; picture k is the frame that the scan has counted for it, whatever its time."""
        assert self.track.counted is not None
        todo = [(number, int(self.track.counted[number])) for number in wanted]
        for count, frame in enumerate(self._frames(0, None, True)):
            if frame.is_corrupt:
                raise self.damaged(int(np.searchsorted(self.track.counted, count)))
            while todo and todo[0][1] == count:
                yield todo.pop(0)[0], self._picture(frame)
            if not todo:
                return
        raise self.damaged(todo[0][0])

    def damaged(self, number: int) -> MediaError:
        """Return the error for a picture that cannot be decoded."""
        time = self.track.times[min(number, len(self.track.times) - 1)]
        context = self.stream.codec_context
        if self.track.width and not context.coded_width:  # FFmpeg refused the size, and does not keep it
            return MediaError(
                f"{self.scan.path}: its pictures are {self.track.width} x {self.track.height} at first, and change at "
                f"{time:.2f} s to a size with more pixels than the limit of {PIXELS.value}, or to none; if you trust "
                f"it, set {PIXELS.variable} to a larger number"
            )
        return MediaError(
            f"{self.scan.path} is damaged near {time:.2f} s and cannot be decoded there; replace or re-encode it"
        )

    def _frames(self, key: int, entry: int | None, from_start: bool) -> Iterator[av.VideoFrame]:
        """Decode the frames from a keyframe on; damage is reported with its place.

        Errors in pictures before `entry`, or before the first frame if there is no such time, are no damage.
        """
        tick, begun = entry, False

        def failed(packet: av.Packet) -> None:
            nonlocal tick
            tick = packet.pts if packet.pts is not None else tick
            if tick is not None and (begun if entry is None else tick >= entry):
                raise self.damaged(int(np.searchsorted(self.track.ticks, tick)))

        start = 0 if from_start else int(self.track.entries[key])
        source = replay(
            self.container,
            self.scan.path,
            self.stream,
            self.track.marks,
            start,
            None if from_start or self.scan.joined else entry,
        )
        for frame in frames(self.stream, ((place, packet) for place, packet in source if place >= start), failed):
            begun = True
            yield frame

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
