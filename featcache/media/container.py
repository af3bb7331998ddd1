"""The times of a media file's pictures and sound, found by demuxing it, without decoding.

The clock of a source: t = 0 is the first picture's presentation time, for the sound too, so that both stay in step. A
file without pictures starts at its own first sample. Times come from the packets' presentation times, never from
index / fps, so variable and fractional rates are exact.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple, TypeVar

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from featcache import budget
from featcache.errors import MediaError
from featcache.files import remembered
from featcache.media.listing import interlaced, listed, stands_alone
from featcache.media.packets import declared, mark, opened, steady

_S = TypeVar("_S", bound=av.stream.Stream)

#: Formats whose header announces the file's length, so that a copy that stopped half-way can be recognised.
_PROMISING = ("mov", "matroska", "avi")
#: Seconds by which a sound file's packets and header may differ: headers are rounded, encoders pad.
_SLACK = 0.5
#: Packets at the end of a stream among which the last one shown is looked for: more than any codec reorders.
_TAIL = 200
#: Codecs whose keyframes need nothing but themselves and the header. For others, the second keyframe is decoded by
#: itself and after those before it, if it is one of the first packets.
_SELF_CONTAINED = (
    *("h264", "hevc", "libdav1d", "av1", "vp8", "vp9"),
    *("mpeg4", "mpeg1video", "mpeg2video", "prores", "ffv1"),
)
#: Packets within which the second keyframe is compared.
_NEAR = 12
#: Packets of a stream by an AVI header that was never completed, as when it is written to a pipe.
_NEVER_COMPLETED = 2**30
#: Side data of a packet that later packets depend on.
_STATE: tuple[Literal["palette", "new_extradata", "param_change"], ...] = ("palette", "new_extradata", "param_change")
#: Codecs of sound whose samples depend on all before them: speech, and differences without a state to begin with.
_CARRIES = re.compile(r"(amr|evrc|g72|gsm|ilbc|qcelp|sipr|speex|truespeech).*|.*dpcm(?!_(ima_wav|ima_qt|ms|swf)$).*")
#: Seconds by which decoding times may go back before a file is refused.
_BACK = 1.0
#: Frames that are decoded to see whether the decoder puts pictures into another order than their packets.
_PEEK = 32
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
    entries: NDArray[np.int64]  #: (k,) packet of each of `keys`, counted from the start of the stream
    marks: NDArray[np.int64]  #: one number per packet, by which a packet is recognised after a seek
    #: (n,) for a file whose packets have no usable times: the decoded frame that each picture shows, ascending
    counted: NDArray[np.int64] | None
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class AudioTrack:
    """The sound stream, in [start, stop) seconds on the clock of the source."""

    stream: int  #: position among the container's streams
    time_base: Fraction  #: seconds per tick
    origin: Fraction  #: the container's time, in seconds, at t = 0
    start: float
    stop: float
    rate: int
    channels: int
    from_start: bool  #: its codec cannot begin inside the file
    ticks: NDArray[np.int64]  #: one per packet: the time at which it begins, ascending
    marks: NDArray[np.int64]  #: one number per packet, by which a packet is recognised after a seek


@dataclass(frozen=True, eq=False)
class Scan:
    """One media file. A stream that cannot be used is an error that explains why; a missing one is None."""

    path: Path
    video: VideoTrack | MediaError | None
    audio: AudioTrack | MediaError | None
    promised: float | None  #: end in seconds that the header announces, if the packets stop before it
    joined: bool  #: the file's clock starts again inside it, so times are only right when reading from the start
    choices: dict[str, str]  #: "video" or "audio", if the file has several of these streams: a note on the one taken


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
    shown: bool  #: False for packets that an edit list keeps only to decode others
    mark: int

    @property
    def time(self) -> int | None:
        """The presentation time, or the decoding time if the container stores no other."""
        return self.dts if self.pts is None else self.pts


@remembered(256)  # 24 bytes a picture, 16 a keyframe and a packet of sound: 15 kB for ten seconds, 5 MB for an hour
def _scan(path: Path) -> Scan:
    if path.stat().st_size == 0:
        raise MediaError(f"{path} is empty (0 bytes); copy or download it again")
    with opened(path) as container:
        if container.format.name == "tty":  # FFmpeg renders plain text as a film of a terminal
            raise MediaError(f"{path} is text, not a media file; correct the source")
        stamps: dict[int, list[_Stamp]] = {stream.index: [] for stream in container.streams}
        joined, stateful = False, set()
        pictures = {stream.index for stream in container.streams.video}
        for packet, joined in steady(container):  # noqa: B007  # after the last packet: of the whole file
            if packet.size:
                key, index = packet.is_keyframe, packet.stream_index
                times = packet.pts, packet.dts, packet.duration or 0
                stamps[index].append(_Stamp(*times, key, not packet.is_discard, mark(packet)))
                if key and index in pictures and any(packet.has_sidedata(kind) for kind in _STATE):
                    stateful.add(index)
        # FFmpeg takes the cover of an album for a video stream.
        films = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        choices: dict[str, str] = {}
        film, sound = _chosen(films, stamps, choices), _chosen(container.streams.audio, stamps, choices)
        video = _video_track(film, stamps[film.index], path, film.index in stateful) if film else None
        ends = _sound_ends(sound, stamps[sound.index]) if sound else (Fraction(0), Fraction(0))
        origin = int(video.ticks[0]) * video.time_base if isinstance(video, VideoTrack) else ends[0]
        audio = _audio_track(sound, stamps[sound.index], ends, origin, path) if sound else None
        promised = _promised(container, [s for s in (film, sound) if s], stamps, origin)
        return Scan(path, video, audio, promised, joined, choices)


def _shown(stamps: Sequence[_Stamp]) -> Sequence[_Stamp]:
    """Return the packets that are shown: all but those that an edit list keeps only to decode others."""
    return [stamp for stamp in stamps if stamp.shown]


def _chosen(streams: Sequence[_S], stamps: dict[int, list[_Stamp]], choices: dict[str, str]) -> _S | None:
    """Return the stream that players take: the first one that is marked as default, or else the first one.

    A choice among several is noted in `choices`.
    """
    filled = [stream for stream in streams if any(stamp.shown for stamp in stamps[stream.index])]
    marked = [stream for stream in filled if stream.disposition & Disposition.default]
    chosen = next(iter(marked or filled), None)
    if chosen and len(filled) > 1:
        numbers = ", ".join(str(stream.index) for stream in filled)
        reason = "the default" if marked else "the first one"
        choices[chosen.type] = f"the source has {chosen.type} streams {numbers}; {chosen.index} is taken, {reason}"
    return chosen


def _clock_error(stamps: Sequence[_Stamp], base: Fraction, path: Path, content: str) -> MediaError | None:
    """Return an error if the times of packets go back, as in recordings that were laid end to end."""
    ticks = np.array([stamp.dts for stamp in stamps if stamp.dts is not None], np.int64)
    back = np.flatnonzero(np.diff(ticks) < -_BACK / float(base))
    if not len(back):
        return None
    seconds = float((int(ticks[back[0]]) - int(ticks[0])) * base)
    return MediaError(
        f"{path}: the clock of its {content} goes back after {seconds:.2f} s; give it one clock with "
        "`ffmpeg -i IN -vf setpts=N/FRAME_RATE/TB -af asetpts=N/SR/TB OUT`"
    )


def _video_track(
    stream: av.VideoStream, stamps: Sequence[_Stamp], path: Path, stateful: bool
) -> VideoTrack | MediaError:
    context, base = stream.codec_context, _time_base(stream)
    if context is None:
        return MediaError(f"{path}: FFmpeg does not know the codec of its pictures; re-encode it")
    try:  # FFmpeg forgets the size of a picture that it has refused to decode
        size = (context.width, context.height) if context.width else declared(path, stream.index)
        budget.check_pixels(*size, str(path), MediaError)
    except MediaError as too_many:
        return too_many
    shown = _shown(stamps)
    error = _clock_error(shown, base, path, "pictures")
    if error:
        return error
    if any(stamp.pts is None and stamp.dts is None for stamp in shown) and interlaced(path, stream.index):
        # In MPEG-TS each field may be a separate packet; only the first one has the time of the picture.
        shown = [stamp for stamp in shown if stamp.time is not None]
    counted = None
    if _contradictory(stream, shown, path):
        listing = _counted(stream, stamps, path)
        if isinstance(listing, MediaError):
            return listing
        ticks, counted = listing
    else:
        ticks = _presented(stream, shown, path)
    end = int(ticks[-1])
    last = next((stamp.duration for stamp in reversed(shown) if stamp.time == end), 0)
    last = last or (int(np.median(np.diff(ticks))) if len(ticks) > 1 else 0)
    keys = sorted((s.pts, place) for place, s in enumerate(stamps) if s.key and s.shown and s.pts is not None)
    near = len(keys) > 1 and keys[1][1] <= _NEAR and context.name not in _SELF_CONTAINED
    if stateful or (near and not stands_alone(path, stream.index, keys[1][1])):
        keys = keys[:1]  # the first packet brings what all pictures need, such as a palette: all are decoded from there
    return VideoTrack(
        stream=stream.index,
        time_base=base,
        ticks=ticks,
        times=(ticks - ticks[0]) * base.numerator / base.denominator,
        stop=float((int(ticks[-1] - ticks[0]) + last) * base) if last else float(1 / (stream.guessed_rate or 25)),
        keys=np.array([pts for pts, _ in keys], np.int64),
        entries=np.array([place for _, place in keys], np.int64),
        marks=np.array([stamp.mark for stamp in stamps], np.int64),
        counted=counted,
        width=context.width,
        height=context.height,
    )


def _contradictory(stream: av.VideoStream, stamps: Sequence[_Stamp], path: Path) -> bool:
    """True if the times of packets do not tell which picture is shown when, so that only the decoder can."""
    delayed = bool(stream.codec_context.has_b_frames)
    if stream.container.format.name == "avi" and delayed:  # AVI stores no presentation times; FFmpeg guesses them
        return True
    times = [stamp.pts for stamp in stamps if stamp.pts is not None]
    if len(times) < len(stamps) or len(set(times)) < len(times):
        return True
    if not delayed or times != sorted(times):
        return False
    # Packets in the order of their times, yet the decoder puts pictures into another order: their times may be false.
    shown = [pts for _, pts in listed(path, stream.index, _PEEK) if pts is not None]
    return shown != sorted(shown)


def _presented(stream: av.VideoStream, stamps: Sequence[_Stamp], path: Path) -> NDArray[np.int64]:
    """Return the times of the pictures, ascending.

    Pictures before the first keyframe that depend on what was cut off are left out, as FFmpeg leaves them out.
    """
    ticks = np.array(sorted(stamp.pts for stamp in stamps if stamp.pts is not None), np.int64)
    first = stamps[0].pts
    if first is not None and ticks[0] < first:
        shown = [pts for _, pts in listed(path, stream.index, 1) if pts is not None]
        ticks = ticks[ticks >= min([first, *shown])]
    return ticks


def _counted(
    stream: av.VideoStream, stamps: Sequence[_Stamp], path: Path
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | MediaError:
    """Return the time of each picture and the decoded frame that it shows, for packets without usable times.

    Where frames have ascending times, these are the pictures. Elsewhere each packet is a picture, in the order of the
    decoding times: it shows the frame that the decoder gives for it, or else the one before.
    """
    listing = listed(path, stream.index)
    if not listing:
        return MediaError(f"{path}: none of its pictures can be decoded; replace or re-encode it")
    times = np.array([-1 if pts is None else pts for _, pts in listing], np.int64)
    timed = all(pts is not None for _, pts in listing) and bool((np.diff(times) > 0).all())
    if timed and stream.container.format.name != "avi":
        return times, np.arange(len(times))
    slots = [stamp.dts for stamp in stamps if stamp.shown]
    ticks = np.array([slot for slot in slots if slot is not None], np.int64)
    if len(ticks) < len(slots) or not len(ticks) or (np.diff(ticks) <= 0).any():
        return MediaError(f"{path}: its pictures have no times; convert it with `ffmpeg -i IN OUT.mp4`")
    skipped = np.cumsum([not stamp.shown for stamp in stamps])
    places, place = [], -1
    for packet in sorted(packet for packet, _ in listing):
        place = max(packet - int(skipped[min(packet, len(skipped) - 1)]), place + 1)  # one packet may hold two frames
        places.append(place)
    return ticks, np.maximum(np.searchsorted(places, np.arange(len(ticks)), side="right") - 1, 0)


def _sound_ends(stream: av.AudioStream, stamps: Sequence[_Stamp]) -> tuple[Fraction, Fraction]:
    """Return the container's times of the first sample and of the end of the last one, in seconds.

    `start_time` leaves out the samples that only prime a decoder.
    """
    shown = _shown(stamps)
    first, last = shown[0], shown[-1]
    start = stream.start_time if stream.start_time is not None else first.time or 0
    return start * _time_base(stream), ((last.time or 0) + last.duration) * _time_base(stream)


def _audio_track(
    stream: av.AudioStream,
    stamps: Sequence[_Stamp],
    ends: tuple[Fraction, Fraction],
    origin: Fraction,
    path: Path,
) -> AudioTrack | MediaError:
    if stream.codec_context is None:
        return MediaError(f"{path}: FFmpeg does not know the codec of its sound; re-encode it")
    rate = stream.codec_context.sample_rate
    if rate < 1:  # 0: the sound begins after the part that FFmpeg looks at
        return MediaError(f"{path}: its sound has {rate} samples per second as far as FFmpeg can tell; re-encode it")
    try:
        budget.check_rate(rate, f"{path}: its sound", MediaError)
    except MediaError as refused:
        return refused
    error = _clock_error(stamps, _time_base(stream), path, "sound")
    if error:
        return error
    lowest = np.iinfo(np.int64).min
    times = [s.pts if s.pts is not None else lowest if s.dts is None else s.dts for s in stamps]
    return AudioTrack(
        stream=stream.index,
        time_base=_time_base(stream),
        origin=origin,
        start=float(ends[0] - origin),
        stop=float(ends[1] - origin),
        rate=stream.codec_context.sample_rate,
        channels=stream.codec_context.channels,
        from_start=_CARRIES.fullmatch(stream.codec_context.name) is not None,
        ticks=np.maximum.accumulate(np.array(times, np.int64)),
        marks=np.array([stamp.mark for stamp in stamps], np.int64),
    )


def _promised(
    container: av.container.InputContainer,
    streams: Sequence[av.stream.Stream],
    stamps: dict[int, list[_Stamp]],
    origin: Fraction,
) -> float | None:
    """Return the end announced by the header for these streams, if their packets stop clearly before it.

    Other streams do not count: chapters, subtitles and time code may announce more than the film. A header that was
    never completed, as in an AVI that was written to a pipe, announces nothing.
    """
    if not container.format.name.startswith(_PROMISING):
        return None
    announced = present = Fraction(0)
    for stream in streams:
        base = _time_base(stream)
        if stream.duration is not None and stream.frames != _NEVER_COMPLETED:
            announced = max(announced, ((stream.start_time or 0) + stream.duration) * base)
        elif stream.duration is None:
            announced = max(announced, _tagged(container, stream))
        last = [stamp for stamp in stamps[stream.index][-_TAIL:] if stamp.shown]
        ends = [stamp.time + stamp.duration for stamp in last if stamp.time is not None]
        present = max(present, max(ends, default=0) * base)
    return float(announced - origin) if announced - present > _SLACK else None


def _tagged(container: av.container.InputContainer, stream: av.stream.Stream) -> Fraction:
    """Return the second at which a Matroska stream ends by its tag, or else the whole file if it has no other kinds."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if match:
        hours, minutes, seconds = match.groups()
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    alone = all(other.type in ("video", "audio") for other in container.streams)
    return Fraction(container.duration or 0, av.time_base) if alone else Fraction(0)


def _time_base(stream: av.stream.Stream) -> Fraction:
    """Return the seconds per tick, FFmpeg's own for a stream without any (which has no packets either)."""
    return stream.time_base or Fraction(1, av.time_base)
