"""Skeletons as CoDT and CrosSCLR train on them: a clip's joints on a fixed number of frames, nothing learnt.

Frames before the first and after the last one with a body are dropped. The next steps are, in this order:

    bodies     keep the bodies that are in the most frames (CrosSCLR: the file's first two), in the order in which they
               appear; missing bodies are zeros
    joints     select the joints by name from the source's layout, in metres if its unit is known; a joint that is
               missing for a while is interpolated linearly in time within the body, and held constant before its first
               and after its last frame
    centre     subtract the layout's centre joint from every body, frame by frame
    resize     resample linearly to `frames` frames, as OpenCV's INTER_LINEAR does: frame k of F shows the moment
               (k + 1/2) T / F - 1/2 of T. A body is zero before it comes and after it leaves
    rotate     turn every frame and body about the y axis, so that the left shoulder leads to the right one along +x

Joints in the plane (`coco-17`) are x, y and a score. In rows, x and y count from the picture's middle, and a joint that
was not found, whose score is 0, is at 0, as in ST-GCN's program for Kinetics. Only the resize interpolates, and a body
is zero in the frames where it is missing, because the first body in one frame of such files may be the second in the
next. Bodies are neither centred nor turned, because both need joints in space.

These steps follow CrosSCLR's program, which decides the sense of the turn once for a whole sequence and adds 0.0001 to
a length; here every frame is turned exactly by the angle of its own shoulders. CrosSCLR's data type is called
"relative", but its function of that name changes nothing; the centre is subtracted before it. CoDT needs the centring:
on joints metres away from the camera, its loss of the decoded joints grows without bound (λ_dec 20, rate 0.1).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ConfigError, MediaError
from featcache.extractors import Extractor, bounded
from featcache.joints import FILES, LAYOUTS, ROWS
from featcache.media.skeleton import Skeleton
from featcache.windows import Joints

FAR = 10  #: coordinates in picture sizes beyond which x and y must be in pixels
REACH = (0.05, 5.0)  #: range in metres of the median distance of people's joints from their centre


@dataclass(frozen=True)
class Params:
    """The joints and frames of a row, and the steps that make it."""

    layout: str = "ntu-25"  #: layout of the rows: ntu-25, kinect-20, shared-15, kinect-15 or coco-17
    source: str = ""  #: layout of the files; "": found by their number of joints, and checked by people's size
    frames: int = bounded(50, 1, 100_000)  #: frames of a row
    bodies: int = bounded(2, 1, 1000)  #: bodies of a row
    centre: bool = True  #: move the centre joint of every frame to 0; false for joints in the plane
    resize: bool = True  #: resample to `frames` frames; false: the first `frames` frames, then zeros
    rotate: bool = True  #: turn the shoulders parallel to the x axis; false for joints in the plane


class Skeletons(Extractor):
    """An extractor of the joints of the bodies in a clip, (3, frames, V, bodies)."""

    name = "skeleton"
    modality = "skeleton"

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        for field, choices in (("layout", ROWS), ("source", ("", *FILES))):
            if (name := getattr(params, field)) not in choices:
                listed = ", ".join(choice or '""' for choice in choices)
                raise ConfigError(f"skeleton.{field} is {name!r}; allowed: {listed}")
        self.layout = LAYOUTS[params.layout]
        if self.layout.plane and (params.centre or params.rotate):
            raise ConfigError(
                f"joints of {params.layout} are in the plane, but skeleton.centre and skeleton.rotate need joints in "
                "space; set both to false"
            )
        if params.source:
            self._fitting([params.source])
        self.window = Joints()
        self.row_shape = (3, params.frames, len(self.layout.names), params.bodies)

    @property
    def store(self) -> str:
        """The name of its store, such as `skeleton-ntu-25`: a folder may have one per layout; CoDT reads two."""
        return f"{self.name}-{self.params.layout}"

    def prepare(self, window: Skeleton) -> NDArray[np.float32]:
        """The clip's bodies -> (3, frames, V, bodies). MediaError for an unknown layout, or for a joint in no frame."""
        row = np.zeros((self.params.bodies, *self.row_shape[1:3], 3))
        name = self._source(window)
        source = LAYOUTS[name]
        places, centre = source.places(self.layout.names), self.layout.names.index(self.layout.centre)
        present = window.there
        in_frame = present.max(axis=2)  # (M, T)
        numbers = np.sort(np.argsort(-in_frame.sum(1), kind="stable")[: self.params.bodies])
        if self.params.rotate and not window.joints[numbers][present[numbers]][:, 2].any():
            raise MediaError(
                "the clip's joints have no depth (z is 0), so nobody can be turned; set skeleton.rotate=false"
            )
        frames = np.flatnonzero(in_frame[numbers].max(axis=0))
        first, stop = frames[0], frames[-1] + 1
        for slot, number in enumerate(numbers):
            fill = self._in_plane if self.layout.plane else self._filled
            joints = fill(window.joints[number][:, places], present[number][:, places], int(number))
            if not (self.layout.plane or self.params.source):
                _check_reach(source.metres * (joints - joints[:, [centre]])[in_frame[number]], name)
            if self.params.centre:
                joints -= joints[:, [centre]]
            row[slot] = source.metres * self._timed(joints[first:stop], in_frame[number, first:stop])
        if self.params.rotate:
            row = _rotated(row, *self.layout.places(("left shoulder", "right shoulder")))
        return np.ascontiguousarray(row.transpose(3, 1, 2, 0), np.float32)

    def __call__(self, windows: NDArray[Any]) -> NDArray[np.float32]:
        """Rows (n, *row_shape), which `prepare` has already computed, unchanged."""
        return np.array(windows, np.float32)

    def _source(self, window: Skeleton) -> str:
        """Return the name of the layout of the clip's file."""
        count, given = window.joints.shape[2], self.params.source
        sizes = {name: len(LAYOUTS[name].names) for name in FILES}
        if given and sizes[given] != count:
            raise MediaError(
                f"the clip's bodies have {count} joints, but skeleton.source, {given!r}, has {sizes[given]}"
            )
        if same_size := [name for name, size in sizes.items() if size == count]:
            return self._fitting([given] if given else same_size)
        listed = ", ".join(f"{name} ({size})" for name, size in sizes.items())
        raise MediaError(
            f"the clip's bodies have {count} joints, but the known layouts have others: {listed}; "
            "convert the file to one of these"
        )

    def _fitting(self, sources: list[str]) -> str:
        """Return the first of these layouts that has all joints of the rows."""
        missing = {name: [joint for joint in self.layout.names if joint not in LAYOUTS[name].names] for name in sources}
        for name, joints in missing.items():
            if not joints:
                return name
        reasons = " and ".join(f"{name} has no joint {joints[0]!r}" for name, joints in missing.items())
        fits = [row for row in ROWS if any(set(LAYOUTS[row].names) <= set(LAYOUTS[name].names) for name in sources)]
        raise ConfigError(
            f"skeleton.layout is {self.params.layout!r}, but {reasons}; allowed for it: {', '.join(fits)}"
        )

    def _filled(self, joints: NDArray[np.float32], present: NDArray[np.bool_], body: int) -> NDArray[np.float64]:
        """Fill the gaps of a body, (T, V, 3); values before it comes and after it leaves have no meaning."""
        times, filled = np.arange(len(joints)), joints.astype(np.float64)
        for joint in np.flatnonzero(~present.min(axis=0)):
            in_frame = present[:, joint]
            if not in_frame.any():
                name = self.layout.names[joint]
                raise MediaError(
                    f"joint {name!r} of body {body} (from 0) is missing in all frames of the clip; leave the clip out, "
                    "or set skeleton.layout to one without this joint"
                )
            for axis in range(3):
                filled[:, joint, axis] = np.interp(times, times[in_frame], joints[in_frame, joint, axis])
        return filled

    def _in_plane(self, joints: NDArray[np.float32], present: NDArray[np.bool_], body: int) -> NDArray[np.float64]:
        """Return a body in the plane, (T, V, 3), with zeros for missing joints."""
        filled = np.where(present[..., None], joints, 0.0)
        x_y, score = filled[..., :2], filled[..., 2:]
        if score.min() < 0 or not score.any():
            raise MediaError(
                f"body {body} (from 0) has no scores: the third coordinate of {self.params.layout} is a score from "
                "0 on; save x, y, score"
            )
        if np.abs(x_y).max() > FAR:
            raise MediaError(
                f"body {body} (from 0) has x or y of {np.abs(x_y).max():g}, but these are fractions of the picture's "
                "width and height; divide pixels by them"
            )
        return np.where(score > 0, filled - [0.5, 0.5, 0], 0)

    def _timed(self, joints: NDArray[np.float64], in_frame: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(T, V, 3) and (T,) -> (frames, V, 3), zeros before the body comes and after it leaves."""
        length, count = len(joints), self.params.frames
        times = (np.arange(count) + 0.5) * length / count - 0.5 if self.params.resize else np.arange(float(count))
        begin, end = np.flatnonzero(in_frame)[[0, -1]]
        inside = (np.rint(times) >= begin) & (np.rint(times) <= end)
        times = np.clip(times, begin, end)
        before = np.floor(times).astype(int)
        after = np.minimum(before + 1, end)
        share = (times - before)[:, None, None]
        timed = (1 - share) * joints[before] + share * joints[after]
        timed[~inside] = 0
        return timed


def _check_reach(joints: NDArray[np.float64], source: str) -> None:
    """Raise MediaError if joints (T, V, 3), from the body's centre, have another unit or layout than people's have."""
    reach = float(np.median(np.linalg.norm(joints, axis=-1)))
    nearest, farthest = REACH
    if not nearest < reach < farthest:
        unit = "metres" if LAYOUTS[source].metres == 1 else "millimetres"
        far = f"farther than {farthest:g}" if reach > nearest else f"nearer than {nearest:g}"
        others = [name for name in FILES if len(LAYOUTS[name].names) == len(LAYOUTS[source].names)]
        raise MediaError(
            f"read as {source} in {unit}, joints are {far} m from the body's centre, which does not fit people; set "
            f"skeleton.source to the files' layout ({', '.join(others)}) to use the joints without this check"
        )


def _rotated(row: NDArray[np.float64], left: int, right: int) -> NDArray[np.float64]:
    """Turn bodies (M, T, V, 3) about y, each frame of each body by the angle of its shoulders in the xz plane."""
    x, z = row[..., 0], row[..., 2]
    angle = np.arctan2(z[..., right] - z[..., left], x[..., right] - x[..., left])[..., None]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * x + sin * z, row[..., 1], cos * z - sin * x], axis=-1)


EXTRACTOR = Skeletons
