"""Skeletons as CoDT and CrosSCLR train on them: a clip's joints on a fixed number of frames, nothing learnt.

Of the clip the stretch from the first to the last frame with somebody in it counts. Then, in this order:

    bodies     those seen in the most frames (CrosSCLR: the file's first two), in the order in which they appear; zeros
               for those who are not there
    joints     by name from the source's layout, in metres where its unit is known; a joint that is missing for a while
               is interpolated linearly between its neighbours in time within the body, and held before the first and
               after the last of them
    centre     every body minus its layout's centre joint, frame by frame
    resize     linearly to `frames` frames, as OpenCV's INTER_LINEAR does: frame k of F shows the moment
               (k + 1/2) T / F - 1/2 of T. A body is zero before it comes and after it leaves
    rotate     every frame and body about the y axis, such that the left shoulder leads to the right one along +x

Joints in the plane (`coco-17`) are x, y and a score. In rows x and y count from the picture's middle, and a joint that
was not found, whose score is 0, is at 0: as ST-GCN's program does for Kinetics. Nothing is interpolated but by the
resize, and a body is zero in the frames that it is missing from: who is first in one frame of such files may be second
in the next. Nobody is centred or turned: both are of joints in space.

CrosSCLR's program, from which these steps are taken, decides the sense of the turn once for a whole sequence and adds
0.0001 to a length; here every frame is turned exactly as far as its own shoulders ask for. Its data type is called
"relative", and its function of that name changes nothing; the centre is taken away before. CoDT cannot do without: on
joints that stand metres away from the camera its loss of the decoded joints grows without bound (λ_dec 20, rate 0.1).
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

FAR = 10  #: pictures' widths that nobody is away; pixels are
REACH = (0.05, 5.0)  #: metres between which the distance of people's joints from their centre lies, by the median


@dataclass(frozen=True)
class Params:
    """What a row is made of."""

    layout: str = "ntu-25"  #: of the rows: ntu-25, kinect-20, shared-15, kinect-15 or coco-17
    source: str = ""  #: layout of the files; "": one of as many joints that has the rows', if people are of that size
    frames: int = bounded(50, 1, 100_000)  #: of a row
    bodies: int = bounded(2, 1, 1000)  #: of a row
    centre: bool = True  #: move the centre joint of every frame to 0; false for joints in the plane
    resize: bool = True  #: to `frames` frames; false: the first `frames` frames, then zeros
    rotate: bool = True  #: turn the shoulders parallel to the x axis; false for joints in the plane


class Skeletons(Extractor):
    """Joints of the bodies in a clip, (3, frames, V, bodies)."""

    name = "skeleton"
    modality = "skeleton"

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        for field, choices in (("layout", ROWS), ("source", ("", *FILES))):
            if (name := getattr(params, field)) not in choices:
                known = ", ".join(choice or '""' for choice in choices)
                raise ConfigError(f"skeleton.{field} is {name!r}; allowed: {known}")
        self.layout = LAYOUTS[params.layout]
        if self.layout.plane and (params.centre or params.rotate):
            raise ConfigError(
                f"joints of {params.layout} are in the plane, and skeleton.centre and skeleton.rotate are of joints in "
                "space: set both to false"
            )
        if params.source:
            self._fitting([params.source])
        self.window = Joints()
        self.row_shape = (3, params.frames, len(self.layout.names), params.bodies)

    @property
    def store(self) -> str:
        """`skeleton-ntu-25`: a folder may have one for each layout, as CoDT's branches read two."""
        return f"{self.name}-{self.params.layout}"

    def prepare(self, window: Skeleton) -> NDArray[np.float32]:
        """The clip's bodies -> (3, frames, V, bodies). MediaError where the joints are others, or one is never seen."""
        row = np.zeros((self.params.bodies, *self.row_shape[1:3], 3))
        name = self._source(window)
        source = LAYOUTS[name]
        places, centre = source.places(self.layout.names), self.layout.names.index(self.layout.centre)
        there = window.there
        seen = there.max(axis=2)  # (M, T)
        numbers = np.sort(np.argsort(-seen.sum(1), kind="stable")[: self.params.bodies])
        if self.params.rotate and not window.joints[numbers][there[numbers]][:, 2].any():
            raise MediaError(
                "the clip's joints have no depth (z is 0), so nobody can be turned; set skeleton.rotate=false"
            )
        present = np.flatnonzero(seen[numbers].max(axis=0))
        first, stop = present[0], present[-1] + 1
        for slot, number in enumerate(numbers):
            found = window.joints[number][:, places]
            fill = self._in_plane if self.layout.plane else self._filled
            joints = fill(found, there[number][:, places], int(number))
            if not (self.layout.plane or self.params.source):
                _check_reach(source.metres * (joints - joints[:, [centre]])[seen[number]], name)
            if self.params.centre:
                joints -= joints[:, [centre]]
            row[slot] = source.metres * self._timed(joints[first:stop], seen[number, first:stop])
        if self.params.rotate:
            row = _rotated(row, *self.layout.places(("left shoulder", "right shoulder")))
        return np.ascontiguousarray(row.transpose(3, 1, 2, 0), np.float32)

    def __call__(self, windows: NDArray[Any]) -> NDArray[np.float32]:
        """Nothing is left to do."""
        return np.array(windows, np.float32)

    def _source(self, window: Skeleton) -> str:
        """The layout of the clip's file."""
        count, given = window.joints.shape[2], self.params.source
        sizes = {name: len(LAYOUTS[name].names) for name in FILES}
        if given and sizes[given] != count:
            raise MediaError(
                f"the clip's bodies have {count} joints, but skeleton.source, {given!r}, has {sizes[given]}"
            )
        if found := [name for name, size in sizes.items() if size == count]:
            return self._fitting([given] if given else found)
        known = ", ".join(f"{name} ({size})" for name, size in sizes.items())
        raise MediaError(
            f"the clip's bodies have {count} joints, as none of the known layouts has: {known}; "
            "put them into one of these"
        )

    def _fitting(self, sources: list[str]) -> str:
        """The first of these layouts that has all joints of the rows."""
        missing = {name: [joint for joint in self.layout.names if joint not in LAYOUTS[name].names] for name in sources}
        for name, joints in missing.items():
            if not joints:
                return name
        reasons = " and ".join(f"{name} has no joint {joints[0]!r}" for name, joints in missing.items())
        fits = [row for row in ROWS if any(set(LAYOUTS[row].names) <= set(LAYOUTS[name].names) for name in sources)]
        raise ConfigError(
            f"skeleton.layout is {self.params.layout!r}, but {reasons}; allowed for it: {', '.join(fits)}"
        )

    def _filled(self, joints: NDArray[np.float32], there: NDArray[np.bool_], body: int) -> NDArray[np.float64]:
        """(T, V, 3) of a body without gaps; before it comes and after it leaves, its values mean nothing."""
        times, filled = np.arange(len(joints)), joints.astype(np.float64)
        for joint in np.flatnonzero(~there.min(axis=0)):
            known = there[:, joint]
            if not known.any():
                name = self.layout.names[joint]
                raise MediaError(
                    f"joint {name!r} of body {body} (from 0) is missing in all frames of the clip; leave the clip out, "
                    "or set skeleton.layout to one without this joint"
                )
            for axis in range(3):
                filled[:, joint, axis] = np.interp(times, times[known], joints[known, joint, axis])
        return filled

    def _in_plane(self, joints: NDArray[np.float32], there: NDArray[np.bool_], body: int) -> NDArray[np.float64]:
        """(T, V, 3) of a body in the plane, zeros where nothing was found."""
        filled = np.where(there[..., None], joints, 0.0)
        x_y, score = filled[..., :2], filled[..., 2:]
        if score.min() < 0 or not score.any():
            raise MediaError(
                f"body {body} (from 0) has no scores: of {self.params.layout} the third coordinate is one, from 0; "
                "save x, y, score"
            )
        if np.abs(x_y).max() > FAR:
            raise MediaError(
                f"body {body} (from 0) is at {np.abs(x_y).max():g} pictures: x and y are of the picture's width and "
                "height; divide pixels by them"
            )
        return np.where(score > 0, filled - [0.5, 0.5, 0], 0)

    def _timed(self, joints: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(T, V, 3) and (T,) -> (frames, V, 3), zeros where the body has not come yet or has left."""
        length, count = len(joints), self.params.frames
        times = (np.arange(count) + 0.5) * length / count - 0.5 if self.params.resize else np.arange(float(count))
        begin, end = np.flatnonzero(seen)[[0, -1]]
        here = (np.rint(times) >= begin) & (np.rint(times) <= end)
        times = np.clip(times, begin, end)
        before = np.floor(times).astype(int)
        after = np.minimum(before + 1, end)
        share = (times - before)[:, None, None]
        timed = (1 - share) * joints[before] + share * joints[after]
        timed[~here] = 0
        return timed


def _check_reach(joints: NDArray[np.float64], source: str) -> None:
    """MediaError where joints (T, V, 3), from the body's centre, are not those of people: of another unit or layout."""
    reach = float(np.median(np.linalg.norm(joints, axis=-1)))
    nearest, farthest = REACH
    if not nearest < reach < farthest:
        unit = "metres" if LAYOUTS[source].metres == 1 else "millimetres"
        far = f"farther than {farthest:g}" if reach > nearest else f"nearer than {nearest:g}"
        others = [name for name in FILES if len(LAYOUTS[name].names) == len(LAYOUTS[source].names)]
        raise MediaError(
            f"taken for {source} in {unit}, joints are {far} m from the body's centre, as people's are not; name the "
            f"files' layout by skeleton.source ({', '.join(others)}), and they are taken as they are"
        )


def _rotated(row: NDArray[np.float64], left: int, right: int) -> NDArray[np.float64]:
    """(M, T, V, 3) turned about y, each frame of each body by the angle that its shoulders have in the xz plane."""
    x, z = row[..., 0], row[..., 2]
    angle = np.arctan2(z[..., right] - z[..., left], x[..., right] - x[..., left])[..., None]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * x + sin * z, row[..., 1], cos * z - sin * x], axis=-1)


EXTRACTOR = Skeletons
