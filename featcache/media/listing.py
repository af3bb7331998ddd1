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


def listed(path: Path, index: int, most: int | None = None) -> list[tuple[int, int | None]]:
    """Decode the video stream with that index: the packet and the time in ticks of each frame, in the order shown."""

    def numbered(container: av.container.InputContainer) -> Iterator[tuple[int, av.Packet]]:
        number = 0
        for packet, _ in steady(container):
            if packet.stream.index == index and (packet.size or packet.dts is None):
                yield number, packet
                number += bool(packet.size)

    result: list[tuple[int, int | None]] = []
    with suppress(MediaError), opened(path) as container:
        stream = next(s for s in container.streams.video if s.index == index)
        stream.codec_context.thread_count = 1
        stream.codec_context.copy_opaque = True
        for frame in islice(frames(stream, numbered(container), lambda packet: None), most):
            packet = frame.opaque if isinstance(frame.opaque, int) else len(result)
            result.append((packet, frame.pts))
    return result


def interlaced(path: Path, index: int) -> bool:
    """True if the first picture of that stream consists of two fields; False if it cannot be decoded."""
    with suppress(MediaError), opened(path) as container:
        stream = next(s for s in container.streams.video if s.index == index)
        for packet, _ in steady(container):
            if packet.stream.index == index:
                for frame in stream.decode(packet):
                    return bool(frame.interlaced_frame)
    return False
