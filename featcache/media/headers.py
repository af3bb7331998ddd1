"""The size that an image file declares, read from its header without decoding it.

OpenCV decodes a file by its content, whatever its name, so each format that OpenCV decodes has its header here.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple


class Size(NamedTuple):
    """The largest raster that decoding an image allocates."""

    width: int
    height: int
    depth: int = 4  #: bytes of a pixel while it is decoded


def declared(data: bytes) -> Size | None:
    """Return the size in an image file's header; None if the file is none of the formats, or its header is cut off."""
    try:
        for magic, read in READERS.items():
            if data.startswith(magic):
                return read(data)
        if data[4:8] == b"ftyp":
            return _avif(data)
    except (struct.error, ValueError, IndexError, KeyError, TypeError):
        return None
    return None


def _png(data: bytes) -> Size:
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    return Size(width, height, max(bits // 8, 1) * (4 if colour in (3, 4, 6) else 3))


def _jpeg(data: bytes) -> Size | None:
    """Return the size in the frame header; thumbnails inside of other segments are passed over."""
    place = 2
    while place + 9 <= len(data):
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker == 0xFF:  # fill bytes
            place += 1
        elif marker in range(0xC0, 0xD0) and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return Size(width, height)
        elif marker in (0x01, *range(0xD0, 0xD8)):  # markers without a segment
            place += 2
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _webp(data: bytes) -> Size:
    """Return the larger of the canvas and the picture in it."""
    sizes: list[tuple[int, int]] = []
    place = 12
    while place + 18 <= len(data) and len(sizes) < 2:
        kind, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        body = data[place + 8 : place + 18]
        if kind == b"VP8X":
            sizes.append((1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")))
        elif kind == b"VP8L":
            bits = int.from_bytes(body[1:5], "little")
            sizes.append((1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)))
        elif kind == b"VP8 ":
            sizes.append((int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF))
        place += 8 + length + length % 2
    return Size(*max(sizes, key=lambda size: size[0] * size[1]))


def _bmp(data: bytes) -> Size:
    if int.from_bytes(data[14:18], "little") == 12:  # OS/2
        return Size(*struct.unpack("<HH", data[18:22]))
    width, height = struct.unpack("<ii", data[18:26])
    return Size(abs(width), abs(height))  # a negative height counts rows from the top


def _tiff(data: bytes) -> Size:
    """Return the larger of the first picture and one of its tiles."""
    tags: dict[int, int] = {}
    for tag, value in _tiff_tags(data):
        tags[tag] = max(value, tags.get(tag, 0))  # a tag that is repeated counts with its largest value
    depth = max(tags.get(258, 1) // 8, 1) * max(tags.get(277, 1), 3)
    raster, tile = (tags[256], tags[257]), (tags.get(322, 0), tags.get(323, 0))
    return Size(*max(raster, tile, key=lambda size: size[0] * size[1]), depth)


def _tiff_tags(data: bytes) -> Iterator[tuple[int, int]]:
    order = "<" if data[:2] == b"II" else ">"
    large = struct.unpack(f"{order}H", data[2:4])[0] == 43  # BigTIFF
    word, count, entry = ("Q", "Q", 20) if large else ("I", "H", 12)
    (place,) = struct.unpack_from(f"{order}{word}", data, 8 if large else 4)
    (number,) = struct.unpack_from(f"{order}{count}", data, place)
    place += struct.calcsize(count)
    for begin in range(place, place + entry * min(number, 4096), entry):
        tag, kind, values = struct.unpack_from(f"{order}HH{word}", data, begin)
        code = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
        if code and tag in (256, 257, 258, 277, 322, 323):
            where = begin + 4 + struct.calcsize(f"={word}")
            if values * struct.calcsize(code) > struct.calcsize(f"={word}"):  # the values are elsewhere
                (where,) = struct.unpack_from(f"{order}{word}", data, where)
            yield tag, struct.unpack_from(f"{order}{code}", data, where)[0]


def _netpbm(data: bytes) -> Size:
    words = re.sub(rb"#[^\n]*", b"", data[:4096]).split(maxsplit=4)
    if data.startswith(b"P7"):
        named = dict(re.findall(rb"(WIDTH|HEIGHT|DEPTH|MAXVAL)\s+(\d+)", data[:4096]))
        return Size(int(named[b"WIDTH"]), int(named[b"HEIGHT"]), 2 * int(named.get(b"DEPTH", b"3")))
    return Size(int(words[1]), int(words[2]), 12 if data[:2] in (b"PF", b"Pf") else 6)


def _gif(data: bytes) -> Size:
    return Size(*struct.unpack("<HH", data[6:10]))


def _jpeg2000(data: bytes) -> Size:
    """Return the size in the code stream; its samples take four bytes each while they are decoded."""
    place = data.index(b"\xff\x4f\xff\x51")
    right, bottom, left, top = struct.unpack(">IIII", data[place + 8 : place + 24])
    (components,) = struct.unpack(">H", data[place + 40 : place + 42])
    return Size(right - left, bottom - top, 4 * components)


def _avif(data: bytes) -> Size:
    sizes = [struct.unpack(">II", data[found.end() + 4 : found.end() + 12]) for found in re.finditer(b"ispe", data)]
    return Size(*max(sizes, key=lambda size: size[0] * size[1]))


def _sun(data: bytes) -> Size:
    return Size(*struct.unpack(">II", data[4:12]))


def _radiance(data: bytes) -> Size:
    height, width = re.findall(rb"[-+]Y (\d+) [-+]X (\d+)", data[:65536])[0]
    return Size(int(width), int(height), 12)


READERS = {  #: first bytes -> the reader of that format
    b"\x89PNG": _png,
    b"\xff\xd8": _jpeg,
    b"RIFF": _webp,
    b"BM": _bmp,
    **dict.fromkeys((b"II*\0", b"II+\0", b"MM\0*", b"MM\0+"), _tiff),
    **dict.fromkeys((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"P7", b"PF", b"Pf"), _netpbm),
    b"GIF8": _gif,
    b"\0\0\0\x0cjP  ": _jpeg2000,
    b"\xff\x4f\xff\x51": _jpeg2000,
    b"\x59\xa6\x6a\x95": _sun,
    b"#?R": _radiance,
}
