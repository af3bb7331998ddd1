"""Still images and folders of frames as reels.

A still image lasts one second by convention. The frames of a folder follow each other in the natural order of their
names (frame_2 before frame_10) at the clip's `fps`. Sixteen bits become eight, grey becomes RGB, transparency is laid
over black, and the orientation that a camera noted in the file is applied.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from featcache.errors import MediaError
from featcache.media.reel import Picture, Reel

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_WITH_ALPHA = (".png", ".tif", ".tiff", ".webp")


def still(path: Path) -> Reel:
    """One picture, shown on [0, 1) s."""
    return Reel(path, np.zeros(1), 1.0, lambda wanted: ((number, read(path)) for number in wanted))


def folder(path: Path, fps: float | None) -> Reel:
    """The images of a folder at `fps`; other files in it are ignored."""
    frames = sorted((p for p in path.iterdir() if is_image(p) and not p.name.startswith(".")), key=_natural)
    if not frames:
        raise MediaError(f"folder {path} holds no image ({', '.join(SUFFIXES)}); correct the source or fill it")
    if fps is None:
        raise MediaError(f"folder {path} holds frames, which have no times; add an fps column to the manifest")

    def decode(wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        return ((number, read(frames[number])) for number in wanted)

    return Reel(path, np.arange(len(frames)) / fps, len(frames) / fps, decode)


def is_image(path: Path) -> bool:
    """Whether the name is that of an image."""
    return path.suffix.lower() in SUFFIXES


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
    picture = None
    try:
        encoded = np.frombuffer(data, np.uint8)
        if path.suffix.lower() in _WITH_ALPHA:
            picture = _over_black(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED))
        if picture is None:
            picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    except cv2.error:
        picture = None
    if picture is None:
        raise MediaError(f"{path} is no image that OpenCV can decode; replace or convert it")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


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


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that compares runs of digits as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]
