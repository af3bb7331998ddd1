"""The times of a media file's pictures and sound, found by demuxing it, without decoding.

The clock of a source: t = 0 is the first picture's presentation time, for the sound too, so that both stay in step. A
file without pictures starts at its own first sample. Times come from the packets' presentation times, never from
index / fps, so variable and fractional rates are exact.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from featcache.errors import MediaError
from featcache.files import remembered

#: Formats whose header announces the file's length, so that a copy that stopped half-way can be recognised.
_PROMISING = ("mov", "matroska", "avi")
#: Seconds by which a sound file's packets and header may differ: headers are rounded, encoders pad.
_SLACK = 0.5
#: Samples per second beyond which a header is not believed; resampling such a rate would need gigabytes.
_FASTEST = 1_000_000
#: Titles in another encoding than UTF-8 are no errors; PyAV 19 has no such option, and replaces them by itself.
_METADATA: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
#: Locks so that two threads never scan one file at once. Two files rarely share one, which costs a wait only.
_LOCKS = tuple(Lock() for _ in range(256))


@dataclass(frozen=True, eq=False)
class VideoTrack:
    """The picture stream: ticks count its own `time_base`, seconds are on the clock of the source."""

    stream: int  #: position among the container's streams
    time_base: Fraction  #: seconds per tick
    ticks: NDArray[np.int64]  #: (n,) presentation time of each picture, ascending
    times: NDArray[np.float64]  #: (n,) the same in seconds
    stop: float  #: second at which the last picture disappears
    keys: NDArray[np.int64]  #: (k,) ticks of pictures that can be decoded alone, ascending
    counted: bool  #: pictures have no usable times (AVI with B-frames) and are counted from the start instead
    width: int
    height: int


@dataclass(frozen=True)
class AudioTrack:
    """The sound stream, in [start, stop) seconds on the clock of the source."""

    stream: int  #: position among the container's streams
    time_base: Fraction  #: seconds per tick
    origin: Fraction  #: the container's time, in seconds, at t = 0
    start: float
    stop: float
    rate: int
    channels: int


@dataclass(frozen=True, eq=False)
class Scan:
    """One media file. A stream that cannot be used is an error that explains why; a missing one is None."""

    path: Path
    video: VideoTrack | MediaError | None
    audio: AudioTrack | MediaError | None
    promised: float | None  #: end in seconds that the header announces, if the packets stop before it


@contextmanager
def opened(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a media file; any error of FFmpeg inside the block becomes a MediaError that names the file."""
    try:
        # An absolute path is never taken for a protocol, and a playlist in disguise cannot reach the network.
        with av.open(str(path.absolute()), options={"protocol_whitelist": "file"}, **_METADATA) as container:
            yield container
    except (av.FFmpegError, OSError) as error:
        reason = (error.strerror or str(error)).rstrip(".")
        raise MediaError(f"{path} cannot be decoded ({reason}); replace or re-encode it") from None


def packets(container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet]:
    """Yield the packets of these streams, or of all streams that existed when the file was opened."""
    try:
        yield from container.demux(*streams)
    except IndexError:
        # PyAV does not handle a stream that appears while reading (MPEG-TS), and raises this error after all packets.
        return


def scan(path: Path) -> Scan:
    """Read every packet of a file once. The result is remembered, because clips often share a source."""
    try:
        with _LOCKS[hash(path) % len(_LOCKS)]:
            return _scan(path)
    except OSError as error:
        raise MediaError(f"{path} cannot be read ({error.strerror}); correct the source or restore the file") from None


class _Stamp(NamedTuple):
    """The times of one packet in ticks."""

    pts: int | None
    dts: int | None
    duration: int
    key: bool

    @property
    def time(self) -> int | None:
        """The presentation time, or the decoding time if the container stores no other."""
        return self.dts if self.pts is None else self.pts


@remembered(256)  # 16 bytes a picture and 8 a keyframe: 5 kB for ten seconds of video, 2 MB for an hour
def _scan(path: Path) -> Scan:
    if path.stat().st_size == 0:
        raise MediaError(f"{path} is empty (0 bytes); copy or download it again")
    with opened(path) as container:
        if container.format.name == "tty":  # FFmpeg renders plain text as a film of a terminal
            raise MediaError(f"{path} is text, not a media file; correct the source")
        stamps: dict[int, list[_Stamp]] = {stream.index: [] for stream in container.streams}
        for packet in packets(container):
            if packet.size and not packet.is_discard:  # discarded: an edit list keeps them only to decode others
                stamp = _Stamp(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe)
                stamps[packet.stream.index].append(stamp)
        # FFmpeg takes the cover of an album for a video stream.
        films = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic and stamps[s.index]]
        sounds = [s for s in container.streams.audio if stamps[s.index]]
        video = _video_track(films[0], stamps[films[0].index], path) if films else None
        ends = _sound_ends(sounds[0], stamps[sounds[0].index]) if sounds else (Fraction(0), Fraction(0))
        origin = int(video.ticks[0]) * video.time_base if isinstance(video, VideoTrack) else ends[0]
        audio = _audio_track(sounds[0], ends, origin, path) if sounds else None
        return Scan(path, video, audio, _promised(container, stamps, origin))


def _video_track(stream: av.VideoStream, stamps: Sequence[_Stamp], path: Path) -> VideoTrack | MediaError:
    context = stream.codec_context
    if context is None:
        return MediaError(f"{path}: FFmpeg does not know the codec of its pictures; re-encode it")
    if any(stamp.time is None for stamp in stamps) and _interlaced(path, stream.index):
        # In MPEG-TS each field may be a separate packet; only the first one has the time of the picture.
        stamps = [stamp for stamp in stamps if stamp.time is not None]
    from_avi = stream.container.format.name == "avi"  # AVI stores no presentation times; FFmpeg guesses them
    counted = any(stamp.pts is None for stamp in stamps) or (from_avi and bool(context.has_b_frames))
    shown = [stamp.dts if counted else stamp.pts for stamp in stamps]
    if None in shown or not shown:
        return MediaError(f"{path}: its pictures have no times; convert it with `ffmpeg -i IN OUT.mp4`")
    ticks, first = np.unique(np.array(shown, np.int64), return_index=True)
    last = stamps[first[-1]].duration or (int(np.median(np.diff(ticks))) if len(ticks) > 1 else 0)
    keys = sorted(stamp.pts for stamp in stamps if stamp.key and stamp.pts is not None)
    base = _time_base(stream)
    return VideoTrack(
        stream=stream.index,
        time_base=base,
        ticks=ticks,
        times=(ticks - ticks[0]) * base.numerator / base.denominator,
        stop=float((int(ticks[-1] - ticks[0]) + last) * base) if last else float(1 / (stream.guessed_rate or 25)),
        keys=np.array(keys, np.int64),
        counted=counted,
        width=context.width,
        height=context.height,
    )


def _interlaced(path: Path, index: int) -> bool:
    """True if the first picture of that stream consists of two fields; False if it cannot be decoded."""
    with suppress(MediaError), opened(path) as container:
        stream = next(s for s in container.streams.video if s.index == index)
        for packet in packets(container, stream):
            for frame in stream.decode(packet):
                return bool(frame.interlaced_frame)
    return False


def _sound_ends(stream: av.AudioStream, stamps: Sequence[_Stamp]) -> tuple[Fraction, Fraction]:
    """Return the container's times of the first sample and of the end of the last one, in seconds.

    `start_time` leaves out the samples that only prime a decoder.
    """
    first, last = stamps[0], stamps[-1]
    start = stream.start_time if stream.start_time is not None else first.time or 0
    return start * _time_base(stream), ((last.time or 0) + last.duration) * _time_base(stream)


def _audio_track(
    stream: av.AudioStream, ends: tuple[Fraction, Fraction], origin: Fraction, path: Path
) -> AudioTrack | MediaError:
    if stream.codec_context is None:
        return MediaError(f"{path}: FFmpeg does not know the codec of its sound; re-encode it")
    if not 0 < stream.codec_context.sample_rate <= _FASTEST:  # 0: the sound begins after the part that FFmpeg looks at
        return MediaError(
            f"{path}: its sound has {stream.codec_context.sample_rate} samples per second as far as FFmpeg can tell; "
            "re-encode it"
        )
    return AudioTrack(
        stream=stream.index,
        time_base=_time_base(stream),
        origin=origin,
        start=float(ends[0] - origin),
        stop=float(ends[1] - origin),
        rate=stream.codec_context.sample_rate,
        channels=stream.codec_context.channels,
    )


def _promised(
    container: av.container.InputContainer, stamps: dict[int, list[_Stamp]], origin: Fraction
) -> float | None:
    """Return the end announced by the header, if the packets of all streams stop clearly before it."""
    if not container.format.name.startswith(_PROMISING):
        return None
    announced = Fraction(container.duration or 0, av.time_base)  # Matroska counts it from 0, not from the first packet
    present = Fraction(0)
    for stream in container.streams:
        base = _time_base(stream)
        if stream.duration is not None:
            announced = max(announced, ((stream.start_time or 0) + stream.duration) * base)
        ends = [stamp.time + stamp.duration for stamp in stamps[stream.index] if stamp.time is not None]
        present = max(present, max(ends, default=0) * base)
    return float(announced - origin) if announced - present > _SLACK else None


def _time_base(stream: av.stream.Stream) -> Fraction:
    """Return the seconds per tick, FFmpeg's own for a stream without any (which has no packets either)."""
    return stream.time_base or Fraction(1, av.time_base)
