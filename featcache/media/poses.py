"""Skeletons that pose estimators found in a clip, in the JSON of two data sets.

    OpenPose    ST-GCN's Kinetics: {"data": [{"frame_index": 1, "skeleton": [{"pose": [x, y, x, y, ...],
                "score": [...]}, ...]}, ...], ...}, 18 joints in the plane
    VIBE        Skeletics-152: {track: {"joints3d": (n, 49, 3), "frame_ids": (n,), ...}, ...}

Nobody is tracked in OpenPose's: of a frame's first CANDIDATES people the one with the highest mean score is body 0, the
next one body 1, and so on, as in ST-GCN's program, which then takes two. Of VIBE's joints the first 15 are read, which
are OpenPose's: the layout `shared-15`. VIBE's y points down and its z away from the camera; both are turned (UPRIGHT),
so that people stand as Kinect's do. The longest tracks are kept, at most TRACKS.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import MediaError
from featcache.files import remembered

CANDIDATES = 5
OPENPOSE = 18  #: joints
VIBE, SHARED = 49, 15  #: joints that there are, and those that are read
TRACKS = 6
UPRIGHT = np.array([1, -1, -1], np.float32)  #: of VIBE: half a turn about x
LONGEST = 100_000  #: frames: a larger number is damage, and would fill the memory


@remembered(2)
def read(path: Path) -> NDArray[np.float32]:
    """(M, T, V, 3) of a file, zeros where a body is missing; a file that has changed is read again.

    MediaError where it is damaged, or has not the bodies of either.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise MediaError(f"{path} is no JSON ({error}); copy or download it again") from None
    try:
        return _openpose(content["data"]) if "data" in content else _vibe(content)
    except KeyError as error:
        raise MediaError(f"{path} lacks {error}, which skeletons of OpenPose or VIBE have") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise MediaError(f"{path} has no skeletons as OpenPose or VIBE write them: {error}") from None


def _openpose(frames: Any) -> NDArray[np.float32]:
    """A frame of the file stands at its number: as in ST-GCN's program, where they begin at 1."""
    found = {_frame(of["frame_index"]): [_candidate(one) for one in of["skeleton"][:CANDIDATES]] for of in frames}
    joints = np.zeros((CANDIDATES, 1 + max(found, default=0), OPENPOSE, 3), np.float32)
    for t, people in found.items():
        for m, person in enumerate(sorted(people, key=lambda person: -person[:, 2].mean())):
            joints[m, t] = person
    return joints


def _candidate(person: Any) -> NDArray[np.float32]:
    """(18, 3) x y score."""
    pose, score = (np.array(person[key], np.float32) for key in ("pose", "score"))
    if pose.shape != (2 * OPENPOSE,) or score.shape != (OPENPOSE,):
        raise ValueError(f"a body has {pose.size} coordinates and {score.size} scores; 36 and 18 are expected")
    return np.column_stack([pose.reshape(-1, 2), score])


def _vibe(tracks: Any) -> NDArray[np.float32]:
    found = []
    for track, of in tracks.items():
        points, frames = np.array(of["joints3d"], np.float32), [_frame(number) for number in of["frame_ids"]]
        if points.shape != (len(frames), VIBE, 3):
            raise ValueError(
                f"track {track} has {len(frames)} frame_ids and joints3d {points.shape}; (frames, 49, 3) is expected"
            )
        found.append((frames, points[:, :SHARED] * UPRIGHT))
    found = sorted(found, key=lambda track: -len(track[0]))[:TRACKS]
    length = 1 + max((number for frames, _ in found for number in frames), default=0)
    joints = np.zeros((len(found), length, SHARED, 3), np.float32)
    for m, (frames, points) in enumerate(found):
        joints[m, frames] = points
    return joints


def _frame(number: Any) -> int:
    if type(number) is not int or not 0 <= number < LONGEST:
        raise ValueError(f"{str(number)[:40]!r} is no number of a frame, from 0 to {LONGEST - 1}")
    return number
