"""Still images and folders of frames as reels.

A still image lasts one second by convention. The frames of a folder follow each other in the natural order of their
names (frame_2 before frame_10) at the clip's `fps`. Sixteen bits become eight, grey and CMYK become RGB, transparency
is laid over black, and the orientation that a camera recorded in the file is applied. A TIFF with several pages gives
its first page; animations are refused.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from featcache.budget import check_pixels
from featcache.endings import IMAGE
from featcache.errors import MediaError
from featcache.files import regular, remembered
from featcache.media.headers import declared, netpbm
from featcache.media.reel import Picture, Reel

#: Rows of a picture that are converted at a time.
_BAND = 64
_PNG, _WEBP, _TIFF, _NETPBM = (b"\x89PNG",), (b"RIFF",), (b"II*", b"MM\0*"), (b"P2", b"P3", b"P5", b"P6")

# Our errors describe a bad file in one sentence; OpenCV would print several lines.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def still(path: Path) -> Reel:
    """Return the reel of one picture, shown in [0, 1) s."""
    return Reel(path, np.zeros(1), 1.0, lambda wanted: ((number, read(path)) for number in wanted))


def folder(path: Path, frames: Sequence[str], fps: float | None) -> Reel:
    """Return the reel of a folder's images, the `frames`, at `fps`."""
    if not frames:
        raise MediaError(f"folder {path} has no image ({', '.join(sorted(IMAGE))}); correct the source or add images")
    rate = checked_rate(path, fps)

    def decode(wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        return ((number, read(path / frames[number])) for number in wanted)

    return Reel(path, np.arange(len(frames)) / rate, len(frames) / rate, decode)


def checked_rate(path: Path, fps: float | None) -> float:
    """Return the frames per second of a folder; MediaError if the manifest gives none, or none above 0."""
    if fps is None:
        raise MediaError(f"folder {path} holds frames, which have no times; add an fps column to the manifest")
    if not fps > 0:
        raise MediaError(f"folder {path} cannot be shown at {fps:g} frames per second; correct its fps")
    return fps


def names(path: Path) -> tuple[str, ...]:
    """Return the names of a folder's images in order, without other files. MediaError if it cannot be read."""
    try:
        return _names(path)
    except OSError as error:
        raise MediaError(f"{path} cannot be read ({error.strerror}); correct the source or restore it") from None


@remembered(64)  # about 100 bytes a frame
def _names(path: Path) -> tuple[str, ...]:
    """Return the names of a folder's images. They are remembered, because clips often share a folder."""
    return tuple(sorted((name for name in os.listdir(path) if is_image(name) and name[0] != "."), key=_natural))


def is_image(path: str | Path) -> bool:
    """True if the name ends like an image's."""
    return os.path.splitext(path)[1].lower() in IMAGE


def read(path: Path) -> Picture:
    """Read an image file as RGB; a file that stops half-way is an error, not a picture with a grey lower half."""
    try:
        data = regular(path, MediaError).read_bytes()
    except OSError as error:
        raise MediaError(f"{path} cannot be read ({error.strerror}); correct the source or restore the file") from None
    if not data:
        raise MediaError(f"{path} is empty (0 bytes); copy or download it again")
    if _is_cut(data):
        raise MediaError(f"{path} stops before the end of the image; copy or download it again")
    if _is_animation(data):
        raise MediaError(f"{path} is an animation; make a video of it, or images of its frames")
    size, picture = declared(data), None
    if size:  # only formats whose size is known before they are decoded are decoded
        check_pixels(size.width, size.height, str(path), MediaError, size.depth)
        with suppress(cv2.error, ValueError, IndexError):  # the last two from the header of a PGM or PPM
            picture = _decoded(data)
    if picture is None:
        raise MediaError(f"{path} is not an image that OpenCV can decode; replace or convert it")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _decoded(data: bytes) -> np.ndarray | None:
    """Return the picture as BGR in 8 bits, or None if OpenCV cannot decode it."""
    encoded, picture = np.frombuffer(data, np.uint8), None
    if _may_be_transparent(data):
        picture = _over_black(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED))
    elif data.startswith(_NETPBM):
        picture = _scaled(cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH), data)
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR) if picture is None else picture


def _may_be_transparent(data: bytes) -> bool:
    """True if a picture may have transparency. A PNG declares it by its colour type or by a chunk tRNS."""
    if data.startswith(_PNG):
        return data[25:26] in (b"\x04", b"\x06") or b"tRNS" in _header(data)
    return data.startswith(_WEBP + _TIFF)


def _is_animation(data: bytes) -> bool:
    if data.startswith(_PNG):
        return b"acTL" in _header(data)
    return data.startswith(_WEBP) and data[12:16] == b"VP8X" and bool(int.from_bytes(data[20:21]) & 2)


def _header(data: bytes) -> bytes:
    """The bytes of a PNG before its pixels."""
    return data[: data.find(b"IDAT")]


def _scaled(picture: np.ndarray | None, data: bytes) -> np.ndarray | None:
    """Scale a PGM or PPM to 8 bits by the white value in its header, such as 1023; OpenCV assumes 255 or 65535."""
    if picture is None or (picture.dtype == np.uint8 and data.startswith((b"P2", b"P3"))):  # OpenCV scales these
        return picture
    white = netpbm(data)[2]
    return _banded(picture, lambda rows: np.round(rows * (255 / white)))


def _over_black(picture: np.ndarray | None) -> np.ndarray | None:
    """Return a picture with transparency laid over black, as BGR, or None if it has no transparency."""
    if picture is None or picture.ndim != 3 or picture.shape[2] != 4:
        return None
    full = np.iinfo(picture.dtype).max if picture.dtype.kind == "u" else 1

    def laid(rows: np.ndarray) -> np.ndarray:
        alpha = rows[..., 3:].astype(np.float32) / full
        return np.round(rows[..., :3] * alpha * (255 / full))

    return _banded(picture, laid)


def _banded(picture: np.ndarray, convert: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Convert a picture to 8 bits, some rows at a time, because the numbers in between take up to 24 bytes a pixel."""
    out = np.empty((*picture.shape[:2], *(min(size, 3) for size in picture.shape[2:])), np.uint8)
    for top in range(0, len(picture), _BAND):
        out[top : top + _BAND] = convert(picture[top : top + _BAND]).clip(0, 255)
    return out


def _is_cut(data: bytes) -> bool:
    """True if a JPEG or PNG lacks its end mark; OpenCV silently fills in the missing part."""
    if data.startswith(b"\xff\xd8"):  # the mark must follow the last scan, because thumbnails have marks too
        return data.find(b"\xff\xd9", data.rfind(b"\xff\xda")) < 0
    return data.startswith(b"\x89PNG") and b"IEND" not in data


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that compares runs of digits as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
