"""The packets of a media file, in the same order and with the same times on every reading, from any place on."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from featcache.budget import PIXELS
from featcache.errors import MediaError
from featcache.files import regular

#: Titles in another encoding than UTF-8 are no errors; PyAV 19 has no such option, and replaces them by itself.
_METADATA: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
#: Flag of formats whose clock may start again inside a file (MPEG-TS, program streams): AVFMT_TS_DISCONT.
_MAY_JOIN = 0x200
#: Pixels of the margins of a small picture.
_MARGIN = 1 << 16
#: Seconds of FFmpeg: a clock that jumps by more, or goes back by more, has started again.
_JUMP, _BACK = 10, Fraction(1, 10)


@contextmanager
def opened(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a media file; any error of FFmpeg inside the block becomes a MediaError that names the file.

    FFmpeg refuses to decode pictures with more pixels than `featcache.budget` allows, with room for the margins that
    decoders add. The scan compares the declared size with the limit itself; see `declared`.
    """
    regular(path, MediaError)
    limit = {"max_pixels": str(min(PIXELS.value * 5 // 4 + _MARGIN, 2**31 - 1))}
    try:
        # An absolute path is never taken for a protocol, and a playlist in disguise cannot reach the network.
        options = {"protocol_whitelist": "file", **limit}
        with av.open(str(path.absolute()), options=options, **_METADATA) as container:
            for stream in container.streams.video:
                if stream.codec_context is not None:
                    stream.codec_context.options = limit
            yield container
    except (av.FFmpegError, OSError) as error:
        reason = (error.strerror or str(error)).rstrip(".")
        raise MediaError(f"{path} cannot be decoded ({reason}); replace or re-encode it") from None


def declared(path: Path, index: int) -> tuple[int, int]:
    """Return width and height of a video stream as its container declares them, without opening a decoder."""
    options = {"protocol_whitelist": "file", "codec_whitelist": "none"}
    with av.open(str(path.absolute()), options=options, **_METADATA) as container:
        context = next(s for s in container.streams.video if s.index == index).codec_context
        return (context.width, context.height) if context else (0, 0)


def packets(container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet]:
    """Yield the packets of these streams, or of all streams that existed when the file was opened."""
    try:
        yield from container.demux(*streams)
    except IndexError:
        # PyAV does not handle a stream that appears while reading (MPEG-TS), and raises this error after all packets.
        return


def steady(container: av.container.InputContainer) -> Iterator[tuple[av.Packet, bool]]:
    """Yield all packets from the start, and whether the clock has started again before each.

    Recordings laid end to end start their clock again at each joint. As in FFmpeg's own program, times go on where the
    part before the joint ended.
    """
    if not int(container.format.flags) & _MAY_JOIN:
        yield from ((packet, False) for packet in packets(container))
        return
    shift = Fraction(0)
    ends: dict[int, tuple[Fraction, Fraction]] = {}  # by stream: the last decoding time and the end of that packet
    for packet in packets(container):
        if packet.dts is not None and packet.stream.type in ("video", "audio"):
            time = packet.dts * packet.time_base + shift
            last, end = ends.get(packet.stream.index, (time, time))
            if abs(time - end) > _JUMP or time + _BACK < last:
                shift += end - time
                time = end
            ends[packet.stream.index] = time, time + (packet.duration or 0) * packet.time_base
        if shift and packet.pts is not None:
            packet.pts += round(shift / packet.time_base)
        if shift and packet.dts is not None:
            packet.dts += round(shift / packet.time_base)
        yield packet, bool(shift)


def mark(packet: av.Packet) -> int:
    """Return a number by which a packet is recognised: made of its time, its place in the file and its size."""
    return hash((packet.pts, packet.pos, packet.size))


def replay(
    container: av.container.InputContainer,
    path: Path,
    stream: av.stream.Stream,
    marks: NDArray[np.int64],
    number: int,
    seek: int | None,
) -> Iterator[tuple[int, av.Packet]]:
    """Yield the packets of a stream and their numbers, from `number` or a little earlier on, as the scan read them.

    Packets are numbered from the start of the stream. `seek` is the time, in ticks, at which a seek is tried. What it
    brings is compared with the scan's `marks`: where it differs, the packets are read from the start of the file. With
    None they are read from there at once; for packet 0 with the given reader, which must be new. The last packet is
    empty and flushes the decoder.
    """
    place, begun = number, False
    if seek is not None:
        for at, packet in _after_seek(container, stream, marks, number, seek):
            yield at, packet
            if not packet.size:
                return
            place, begun = at + 1, True
    with ExitStack() as stack:
        if seek is not None or number:  # the reader is no longer at the start
            container = stack.enter_context(opened(path))
            if not begun:
                stream.codec_context.flush_buffers()
        count = 0
        for packet, _ in steady(container):
            if packet.stream.index != stream.index or (not packet.size and packet.dts is not None):
                continue  # an empty packet with a time is a picture that was not recorded; it would flush the decoder
            if count >= place:
                yield count, packet
            count += bool(packet.size)


def _after_seek(
    container: av.container.InputContainer,
    stream: av.stream.Stream,
    marks: NDArray[np.int64],
    number: int,
    seek: int,
) -> Iterator[tuple[int, av.Packet]]:
    """Seek, and yield packets as long as they are those of the scan, the first of them not after `number`."""
    place: int | None = None
    try:
        container.seek(seek, stream=stream)
        for packet in packets(container, stream):
            if not packet.size:
                if packet.dts is None and place == len(marks):
                    yield place, packet
                continue
            if place is None:
                places = np.flatnonzero(marks[: number + 1] == mark(packet))
                place = int(places[-1]) if len(places) else len(marks)
            if place >= len(marks) or marks[place] != mark(packet):
                return
            yield place, packet
            place += 1
    except av.FFmpegError:
        return
