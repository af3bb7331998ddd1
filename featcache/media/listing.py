"""The pictures of a video as its decoder gives them, for files whose packets do not tell which picture is which."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import av
from av.video.frame import PictureType

from featcache.errors import MediaError
from featcache.media.packets import opened, steady

#: Kinds of pictures that need others: a decoder that begins with one shows grey.
_DEPENDENT = (PictureType.P, PictureType.B, PictureType.S, PictureType.SP)


def frames(
    stream: av.VideoStream, source: Iterable[tuple[int, av.Packet]], failed: Callable[[av.Packet], None]
) -> Iterator[av.VideoFrame]:
    """Decode packets and yield the frames that are shown; `failed` is called with each packet that has errors.

    Until the decoder has given a picture that stands alone, pictures that depend on others are left out, because what
    they depend on was cut off.
    """
    started, trusted = False, None
    for number, packet in source:
        packet.opaque = number
        trusted = packet.is_keyframe if trusted is None else trusted
        started = started or (packet.is_keyframe and packet.is_discard)  # decoded, but not given, by an edit list
        try:
            decoded = stream.codec_context.decode(packet)
        except av.EOFError:
            return
        except av.FFmpegError:
            failed(packet)
            continue
        for frame in decoded:
            kind = frame.pict_type  # some decoders do not tell; those of MPEG-4 also when they make up a grey one
            independent = trusted if kind == PictureType.NONE else kind not in _DEPENDENT
            started = started or frame.key_frame or bool(independent)
            if started:
                yield frame


def _numbered(container: av.container.InputContainer, index: int) -> Iterator[tuple[int, av.Packet]]:
    """Yield the packets of a stream with their numbers, from the start; the empty last one flushes the decoder."""
    number = 0
    for packet, _ in steady(container):
        if packet.stream.index == index and (packet.size or packet.dts is None):
            yield number, packet
            number += bool(packet.size)


def listed(path: Path, index: int, most: int | None = None) -> list[tuple[int, int | None]]:
    """Decode the video stream with that index: the packet and the time in ticks of each frame, in the order shown."""
    result: list[tuple[int, int | None]] = []
    with suppress(MediaError), opened(path) as container:
        stream = next(s for s in container.streams.video if s.index == index)
        stream.codec_context.thread_count = 1
        stream.codec_context.copy_opaque = True
        for frame in islice(frames(stream, _numbered(container, index), lambda packet: None), most):
            packet = frame.opaque if isinstance(frame.opaque, int) else len(result)
            result.append((packet, frame.pts))
    return result


def stands_alone(path: Path, index: int, place: int) -> bool:
    """True if the picture of a packet is the same, decoded by itself, as decoded after all packets before it."""
    pictures = []
    for first in (0, place):
        with suppress(MediaError), opened(path) as container:
            stream = next(s for s in container.streams.video if s.index == index)
            stream.codec_context.thread_count = 1
            stream.codec_context.copy_opaque = True
            source = ((number, packet) for number, packet in _numbered(container, index) if number >= first)
            shown = (frame for frame in frames(stream, source, lambda packet: None) if frame.opaque == place)
            pictures += [frame.to_ndarray(format="rgb24").tobytes() for frame in islice(shown, 1)]
    return len(pictures) == 2 and pictures[0] == pictures[1]


def interlaced(path: Path, index: int) -> bool:
    """True if the first picture of that stream consists of two fields; False if it cannot be decoded."""
    with suppress(MediaError), opened(path) as container:
        stream = next(s for s in container.streams.video if s.index == index)
        for packet, _ in steady(container):
            if packet.stream.index == index:
                for frame in stream.decode(packet):
                    return bool(frame.interlaced_frame)
    return False
