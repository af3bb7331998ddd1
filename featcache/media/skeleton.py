"""Skeleton sequences: the joints of the bodies in a clip.

    .skeleton    Kinect text as in NTU RGB+D: the number of frames; for each frame the number of bodies; for each body
                 a line that begins with its id, the number of joints, and a line per joint that begins with x y z
    .txt         Kinect text as in PKU-MMD: a line per frame, x y z of the 25 joints of one body, then of another
    .json        the output of OpenPose or VIBE, as in ST-GCN's Kinetics skeletons or in Skeletics-152 (`poses.py`)
    .npy, .npz   one array (T, V, C), (M, T, V, C), (T, M, V, C) or (C, T, V, M), the last as NTU's tools write it:
                 T frames, V joints, M bodies, C = 3 (x y z) or 2 (x y, to which z = 0 is added). An .npz holds one
                 array of numbers, or one called `keypoint`, `joints` or `frames`

A joint in the plane has a score in place of z. C is the first or the last axis, and M is at most 6, the number of
bodies that a Kinect tracks. If several orders of the axes fit, those with C of 3 are preferred; if several are still
left, the shape is refused. A body is identified by its id in text and by its number in arrays. A body whose joints are
all zero in a frame is missing there, and so is a joint with a coordinate that is not finite. Files have no clock: their
frames come at the manifest's `fps`, else at 30 per second, the Kinect's rate. Only the clip's frames are read from an
.npy whose first axis is T.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.budget import check_growth
from featcache.endings import SKELETON
from featcache.errors import MediaError
from featcache.files import regular, remembered
from featcache.manifest import Clip
from featcache.media import arrays, poses
from featcache.media.source import check_exists

FPS = 30.0  #: a Kinect's frames per second
KEYS = ("keypoint", "joints", "frames")  #: names of the array to read from an .npz file with several
LAYOUTS = {3: ("TVC",), 4: ("MTVC", "TMVC", "CTVM")}  #: orders of an array's axes, by their number
PKU = (2, 25, 3)  #: bodies, joints and coordinates in a line of PKU-MMD
POINT = 12  #: bytes of x y z
MOST = 6  #: most bodies of an array, which distinguishes M from T


@dataclass(frozen=True, eq=False)
class Skeleton:
    """The bodies in a clip, in the order in which they appear."""

    joints: NDArray[np.float32]  #: (M, T, V, 3) x y z in the source's unit, or x y score; NaN: the joint is missing
    fps: float
    start: float = 0.0  #: second of the source at which the first frame appears

    @property
    def there(self) -> NDArray[np.bool_]:
        """True for each joint that is not missing, (M, T, V)."""
        return np.isfinite(self.joints.sum(axis=3, dtype=np.float64))

    @property
    def stop(self) -> float:
        """The second of the source at which the last frame disappears."""
        return self.start + self.joints.shape[1] / self.fps


def read(path: Path, clip: Clip) -> Skeleton:
    """Read the clip's frames, and the bodies that are in at least one of them.

    Raises MediaError if the file is damaged, empty or of an unknown layout, if the clip starts after the file's end, or
    if nobody is in the clip.
    """
    ending = path.suffix.lower()
    if ending not in SKELETON:
        raise MediaError(f"{path} is not a file of skeletons; allowed endings: {', '.join(sorted(SKELETON))}")
    check_exists(path)
    fps = clip.fps or FPS
    rows = arrays.span(clip, fps, path)
    if parse := {".skeleton": _kinect, ".txt": _pku, ".json": poses.read}.get(ending):
        try:
            joints = parse(path)
        except OSError as error:
            raise MediaError(f"{path} cannot be read: {error.strerror}") from None
        arrays.check_start(rows, joints.shape[1], path, "frames")
        joints = joints[:, rows].copy()
    else:
        joints = _array(path, rows)
    joints[~joints.any(axis=(2, 3))] = np.nan  # NaN counts as true
    everybody = Skeleton(joints, fps, rows.start / fps)
    joints[~everybody.there] = np.nan
    present = everybody.there.max(axis=2, initial=False)  # (M, T)
    if not present.any():
        frames = f"frames {rows.start} to {rows.start + joints.shape[1] - 1}"
        raise MediaError(
            f"{path}: nobody is in {frames}: there is no body with a joint that is finite and not all zero; "
            "correct start and stop, or leave the clip out"
        )
    bodies = np.flatnonzero(present.max(axis=1))
    order = bodies[np.argsort(present[bodies].argmax(axis=1), kind="stable")]
    return Skeleton(joints[order], fps, everybody.start)


def _array(path: Path, rows: slice) -> NDArray[np.float32]:
    """Read these frames of an array file, (M, T, V, 3)."""
    _, shape = arrays.load(path, usual=KEYS, rows=slice(0))
    axes = _axes(shape, path)
    arrays.check_start(rows, shape[axes.index("T")], path, "frames")
    array, _ = arrays.load(path, usual=KEYS, rows=rows if axes[0] == "T" else slice(None))
    if axes[0] != "T":
        array = array[(slice(None),) * axes.index("T") + (rows,)]
    check_growth(2 * POINT * array.size // 3, path.stat().st_size, str(path), MediaError)
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, and so missing
        array = array.astype(np.float32)
    if "M" not in axes:
        array, axes = array[None], f"M{axes}"
    array = array.transpose([axes.index(axis) for axis in "MTVC"])
    return array if array.shape[3] == 3 else np.pad(array, ((0, 0),) * 3 + ((0, 1),))


def _axes(shape: tuple[int, ...], path: Path) -> str:
    """Return the order of the axes of an array of this shape, such as MTVC."""
    layouts = LAYOUTS.get(len(shape), ())
    sizes = [dict(zip(axes, shape, strict=True)) for axes in layouts]
    fits = [size for size in sizes if size["C"] in (2, 3) and size.get("M", 1) <= MOST]
    fits = [size for size in fits if size["C"] == 3] or fits
    if shape[:2] == (1, 1):  # one body in one frame, so the order does not matter
        fits = fits[:1]
    if len(fits) != 1:
        accepted = ", ".join(f"({', '.join(axes)})" for axes in (*LAYOUTS[3], *LAYOUTS[4]))
        fitting = " or ".join(f"({', '.join(size)})" for size in fits)
        reason = f"could be {fitting}" if fits else "is none of them"
        advice = "; save it as (C, T, V, M) with C of 3" if fits else ""
        raise MediaError(
            f"{path} has shape {shape}, which {reason}; accepted: {accepted}, with C of 2 or 3 and M of at most {MOST}"
            + advice
        )
    return "".join(fits[0])


@remembered(2)
def _kinect(path: Path) -> NDArray[np.float32]:
    """Read a text file, (M, T, V, 3), M in order of appearance. Remembered, as clips of one file follow each other."""
    try:
        lines = _Lines(path, regular(path, MediaError).read_text(encoding="utf-8-sig").splitlines())
    except UnicodeDecodeError:
        raise MediaError(f"{path} is not a Kinect skeleton file: it is not text") from None
    frames, width = _frames(lines)
    if not frames:
        raise MediaError(f"{path} has no frames; replace it")
    ids = list(dict.fromkeys(body for frame in frames for body in frame))
    check_growth(len(ids) * len(frames) * width * POINT, path.stat().st_size, str(path), MediaError)
    joints = np.full((len(ids), len(frames), width, 3), np.nan, np.float32)
    number = {body: m for m, body in enumerate(ids)}
    with np.errstate(over="ignore"):
        for t, frame in enumerate(frames):
            for body, points in frame.items():
                joints[number[body], t] = points
    joints.setflags(write=False)
    return joints


@remembered(2)
def _pku(path: Path) -> NDArray[np.float32]:
    """Read a text file with a line per frame, (2, T, 25, 3), remembered like those of `_kinect`."""
    try:
        text = regular(path, MediaError).read_text(encoding="utf-8-sig")
        if not text.strip():
            raise MediaError(f"{path} is empty; copy or download it again")
        frames = np.loadtxt(text.splitlines(), np.float32, comments=None, ndmin=2)
    except ValueError as error:
        raise MediaError(f"{path} is not text with a line of numbers per frame ({error})") from None
    if frames.shape[1] != np.prod(PKU):
        raise MediaError(f"{path} has {frames.shape[1]} numbers in a line; a frame of PKU-MMD has {np.prod(PKU)}")
    joints = frames.reshape(-1, *PKU).swapaxes(0, 1)
    joints.setflags(write=False)
    return joints


Points = list[tuple[float, float, float]]


def _frames(lines: "_Lines") -> tuple[list[dict[str, Points]], int]:
    """Return a dict from body id to joints for each frame, and the number of joints of a body (0: there is nobody)."""
    frames: list[dict[str, Points]] = []
    joints = values = 0  # joints of a body, numbers in a joint's line; the first body and line set them
    for t in range(lines.count("number of frames")):
        frame: dict[str, Points] = {}
        for _ in range(lines.count(f"number of bodies in frame {t}")):
            body = lines.next(f"body in frame {t}")[0]
            if body in frame:
                raise lines.error(f"body {body} occurs twice in frame {t}")
            count = lines.count(f"number of joints in frame {t}")
            joints = joints or count
            if count != joints or not count:
                raise lines.error(f"body {body} has {count} joints in frame {t}, {joints or 'more'} are expected")
            points: Points = []
            for joint in range(joints):
                cells = lines.next(f"joint {joint} of body {body} in frame {t}")
                values = values or len(cells)
                if len(cells) != values or values < 3:
                    raise lines.error(f"joint {joint} has {len(cells)} numbers, {max(values, 3)} are expected")
                try:
                    points.append((float(cells[0]), float(cells[1]), float(cells[2])))
                except ValueError:
                    raise lines.error(f"{' '.join(cells[:3])!r} are not the numbers x y z of joint {joint}") from None
            frame[body] = points
        frames.append(frame)
    lines.end()
    return frames, joints


class _Lines:
    """The lines of a text file that are not blank, read one after the other, and errors with their numbers."""

    def __init__(self, path: Path, lines: list[str]) -> None:
        self.path, self.number = path, 0
        self._all = len(lines)
        self._left: Iterator[tuple[int, str]] = ((n, line) for n, line in enumerate(lines, 1) if line.strip())

    def next(self, item: str) -> list[str]:
        """Return the cells of the next line, which should hold `item`."""
        self.number, line = next(self._left, (0, ""))
        if not self.number:
            if not self._all:
                raise MediaError(f"{self.path} is empty; copy or download it again")
            raise MediaError(
                f"{self.path} stops after line {self._all}, where the {item} should follow; copy or download it again"
            )
        return line.split()

    def count(self, item: str) -> int:
        """Return the next line as a whole number."""
        cells = self.next(item)
        if len(cells) != 1 or not (cells[0].isascii() and cells[0].isdecimal()):
            raise self.error(f"{' '.join(cells)[:40]!r} is not the {item}")
        return int(cells[0])

    def end(self) -> None:
        """Raise MediaError if lines are left."""
        if rest := next(self._left, None):
            self.number = rest[0]
            raise self.error("the file continues after its last frame")

    def error(self, reason: str) -> MediaError:
        """Return an error about the line that was read last."""
        return MediaError(f"{self.path} line {self.number}: {reason}")
