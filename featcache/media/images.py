"""Still images and folders of frames as reels.

A still image lasts one second by convention. The frames of a folder follow each other in the natural order of their
names (frame_2 before frame_10) at the clip's `fps`. Sixteen bits become eight, grey and CMYK become RGB, transparency
is laid over black, and the orientation that a camera noted in the file is applied. Of a TIFF of several pages the first
is the picture; animations are refused.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from featcache.endings import IMAGE
from featcache.errors import MediaError
from featcache.files import remembered
from featcache.media.reel import Picture, Reel

_PNG, _WEBP, _TIFF, _NETPBM = (b"\x89PNG",), (b"RIFF",), (b"II*", b"MM\0*"), (b"P2", b"P3", b"P5", b"P6")

# What is wrong with a file we say ourselves, in one sentence; OpenCV prints several lines of its own.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def still(path: Path) -> Reel:
    """One picture, shown on [0, 1) s."""
    return Reel(path, np.zeros(1), 1.0, lambda wanted: ((number, read(path)) for number in wanted))


def folder(path: Path, fps: float | None) -> Reel:
    """The images of a folder at `fps`; other files in it are ignored."""
    try:
        frames = _frames(path)
    except OSError as error:
        raise MediaError(f"{path} cannot be read ({error.strerror}); correct the source or restore it") from None
    if not frames:
        raise MediaError(f"folder {path} holds no image ({', '.join(sorted(IMAGE))}); correct the source or fill it")
    if fps is None:
        raise MediaError(f"folder {path} holds frames, which have no times; add an fps column to the manifest")
    if not fps > 0:
        raise MediaError(f"folder {path} cannot be shown at {fps:g} frames per second; correct its fps")

    def decode(wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        return ((number, read(path / frames[number])) for number in wanted)

    return Reel(path, np.arange(len(frames)) / fps, len(frames) / fps, decode)


@remembered(64)  # about 100 bytes a frame
def _frames(path: Path) -> tuple[str, ...]:
    """Names of a folder's images in order; remembered while the folder stays the same, as clips often share one."""
    return tuple(sorted((name for name in os.listdir(path) if is_image(name) and name[0] != "."), key=_natural))


def is_image(path: str | Path) -> bool:
    """Whether the name is that of an image."""
    return os.path.splitext(path)[1].lower() in IMAGE


def read(path: Path) -> Picture:
    """One image file as RGB; a file that stops half-way is an error, not a picture with a grey lower half."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MediaError(f"{path} cannot be read ({error.strerror}); correct the source or restore the file") from None
    if not data:
        raise MediaError(f"{path} is empty (0 bytes); copy or download it again")
    if _is_cut(data):
        raise MediaError(f"{path} stops before the end of the image; copy or download it again")
    if _is_animation(data):
        raise MediaError(f"{path} is an animation; make a video of it, or images of its frames")
    try:
        picture = _decoded(data)
    except (cv2.error, ValueError, IndexError):  # the latter two for the header of a PGM or PPM
        picture = None
    if picture is None:
        raise MediaError(f"{path} is no image that OpenCV can decode; replace or convert it")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _decoded(data: bytes) -> np.ndarray | None:
    """BGR in 8 bits; None if OpenCV cannot decode it."""
    encoded, picture = np.frombuffer(data, np.uint8), None
    if _may_be_transparent(data):
        picture = _over_black(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED))
    elif data.startswith(_NETPBM):
        picture = _scaled(cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH), data)
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR) if picture is None else picture


def _may_be_transparent(data: bytes) -> bool:
    """A PNG says so before its pixels: by its type of colour, or with a chunk tRNS."""
    if data.startswith(_PNG):
        return data[25:26] in (b"\x04", b"\x06") or b"tRNS" in _header(data)
    return data.startswith(_WEBP + _TIFF)


def _is_animation(data: bytes) -> bool:
    if data.startswith(_PNG):
        return b"acTL" in _header(data)
    return data.startswith(_WEBP) and data[12:16] == b"VP8X" and bool(int.from_bytes(data[20:21]) & 2)


def _header(data: bytes) -> bytes:
    """What stands before the pixels of a PNG."""
    return data[: data.find(b"IDAT")]


def _scaled(picture: np.ndarray | None, data: bytes) -> np.ndarray | None:
    """A PGM or PPM whose white is what its header says, 1023 for instance; OpenCV takes it for 255 or 65535."""
    if picture is None or (picture.dtype == np.uint8 and data.startswith((b"P2", b"P3"))):  # these it does scale
        return picture
    white = int(re.sub(rb"#[^\n]*", b"", data[:1000]).split(maxsplit=4)[3])
    return np.round(picture * (255 / white)).clip(0, 255).astype(np.uint8)


def _over_black(picture: np.ndarray | None) -> np.ndarray | None:
    """BGR of a picture with transparency laid over black; None if it has none."""
    if picture is None or picture.ndim != 3 or picture.shape[2] != 4:
        return None
    full = np.iinfo(picture.dtype).max if picture.dtype.kind == "u" else 1
    alpha = picture[..., 3:].astype(np.float32) / full
    return np.round(picture[..., :3] * alpha * (255 / full)).clip(0, 255).astype(np.uint8)


def _is_cut(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end mark; OpenCV fills what is missing without a word."""
    if data.startswith(b"\xff\xd8"):  # the end must follow the last scan: thumbnails have ends of their own
        return data.find(b"\xff\xd9", data.rfind(b"\xff\xda")) < 0
    return data.startswith(b"\x89PNG") and b"IEND" not in data


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that compares runs of digits as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
