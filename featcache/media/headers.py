"""The size that an image file declares, read from its header without decoding it.

OpenCV decodes a file by its content, whatever its name, so each format that OpenCV decodes has its header here. Where
a part of a file may look like a header, the largest size counts: such a part can make a file refused, never accepted.
"""

import re
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

SEGMENTS = 1 << 14  #: of a JPEG before its frame header; cameras write fewer than 100
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_GAP = rb"(?:\s|#[^\r\n]*[\r\n])*"  #: between the numbers of a PBM, PGM or PPM, after the byte that ends each number
_NUMBERS = re.compile(rb"P[1-6]" + _GAP + rb"(\d+)(?s:.)" + _GAP + rb"(\d+)(?:(?s:.)" + _GAP + rb"(\d+))?")


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
    except (struct.error, ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return None
    return None


def _png(data: bytes) -> Size:
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    return Size(width, height, max(bits // 8, 1) * (4 if colour in (3, 4, 6) else 3))


def _largest(sizes: Iterable[Size]) -> Size:
    return max(sizes, key=lambda size: size.width * size.height * size.depth)


def _jpeg(data: bytes) -> Size | None:
    """Return the size in the frame header; thumbnails inside of other segments are passed over."""
    place = 2
    for _ in range(SEGMENTS):
        found = _MARKER.search(data, place)  # like libjpeg, pass over stray bytes between segments
        if not found:
            return None
        marker, place = found[0][-1], found.end()
        if marker in range(0xC0, 0xD0) and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[place + 3 : place + 7])
            return Size(width, height)
        if marker not in (0x01, *range(0xD0, 0xD9)):  # these have no segment
            place += max(int.from_bytes(data[place : place + 2], "big"), 2)
    return None


def _webp(data: bytes) -> Size:
    """Return the larger of the canvas and the picture in it."""
    sizes = []
    if data[12:16] == b"VP8X":
        sizes.append(Size(1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")))
    for found in re.finditer(rb"(?s)VP8L....\x2f(....)", data):
        bits = int.from_bytes(found[1], "little")
        sizes.append(Size(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)))
    for found in re.finditer(rb"(?s)VP8 .{7}\x9d\x01\x2a(..)(..)", data):
        sizes.append(Size(*(int.from_bytes(side, "little") & 0x3FFF for side in found.groups())))
    return _largest(sizes)


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
    return _largest([Size(*raster, depth), Size(*tile, depth)])


def _tiff_tags(data: bytes) -> Iterator[tuple[int, int]]:
    order = "<" if data[:2] == b"II" else ">"
    large = struct.unpack(f"{order}H", data[2:4])[0] == 43  # BigTIFF
    word, count, entry = ("Q", "Q", 20) if large else ("I", "H", 12)
    (place,) = struct.unpack_from(f"{order}{word}", data, 8 if large else 4)
    (number,) = struct.unpack_from(f"{order}{count}", data, place)
    place += struct.calcsize(count)
    for begin in range(place, place + entry * min(number, 1 << 16), entry):
        tag, kind, values = struct.unpack_from(f"{order}HH{word}", data, begin)
        code = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}.get(kind)
        if code and tag in (256, 257, 258, 277, 322, 323):
            where = begin + 4 + struct.calcsize(f"={word}")
            if values * struct.calcsize(code) > struct.calcsize(f"={word}"):  # the values are elsewhere
                (where,) = struct.unpack_from(f"{order}{word}", data, where)
            yield tag, struct.unpack_from(f"{order}{code}", data, where)[0]


def netpbm(data: bytes) -> list[int]:
    """Return width, height and, except in a PBM, the white value of a PBM, PGM or PPM, read as OpenCV reads them."""
    found = _NUMBERS.match(data)
    return [int(number) for number in found.groups(b"1")] if found else []


def _netpbm(data: bytes) -> Size:
    width, height, _ = netpbm(data)
    return Size(width, height, 6)


def _pam(data: bytes) -> Size:
    """Return the largest values; a line may be repeated, or be part of a comment."""
    named = {b"DEPTH": 3}
    for name, value in re.findall(rb"(WIDTH|HEIGHT|DEPTH)\W*(\d+)", data):
        named[name] = max(int(value), named.get(name, 0))
    return Size(named[b"WIDTH"], named[b"HEIGHT"], 2 * named[b"DEPTH"])


def _pfm(data: bytes) -> Size:
    width, height = re.match(rb"P[Ff]\s*\+?(\d+)\S*\s+\+?(\d+)", data).groups()  # type: ignore[union-attr]
    return Size(int(width), int(height), 12)


def _gif(data: bytes) -> Size:
    return Size(*struct.unpack("<HH", data[6:10]))


def _jpeg2000(data: bytes) -> Size:
    """Return the size in the code stream; its samples take four bytes each while they are decoded."""
    sizes = []
    for found in re.finditer(rb"(?s)\xff\x51\x00(.)..(.{16}).{16}(..)", data):
        right, bottom, left, top = struct.unpack(">IIII", found[2])
        components = int.from_bytes(found[3], "big")
        if found[1][0] == 38 + 3 * components:  # the length of the segment
            sizes.append(Size(right - left, bottom - top, 4 * components))
    return _largest(sizes)


def _avif(data: bytes) -> Size:
    return _largest(Size(*struct.unpack(">II", found[1])) for found in re.finditer(rb"(?s)ispe....(.{8})", data))


def _sun(data: bytes) -> Size:
    return Size(*struct.unpack(">II", data[4:12]))


def _radiance(data: bytes) -> Size:
    found = re.findall(rb"-Y\s*\+?(\d+)\s*\+X\s*\+?(\d+)", data)
    return _largest(Size(int(width), int(height), 12) for height, width in found)


READERS = {  #: first bytes -> the reader of that format
    b"\x89PNG": _png,
    b"\xff\xd8": _jpeg,
    b"RIFF": _webp,
    b"BM": _bmp,
    **dict.fromkeys((b"II*\0", b"II+\0", b"MM\0*", b"MM\0+"), _tiff),
    **dict.fromkeys((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), _netpbm),
    **dict.fromkeys((b"PF", b"Pf"), _pfm),
    b"P7": _pam,
    b"GIF8": _gif,
    b"\0\0\0\x0cjP  ": _jpeg2000,
    b"\xff\x4f\xff\x51": _jpeg2000,
    b"\x59\xa6\x6a\x95": _sun,
    b"#?R": _radiance,
}
