"""Skeletons that pose estimators found in a clip, in the JSON of two data sets.

    OpenPose    ST-GCN's Kinetics: {"data": [{"frame_index": 1, "skeleton": [{"pose": [x, y, x, y, ...],
                "score": [...]}, ...]}, ...], ...}, 18 joints in the plane
    VIBE        Skeletics-152: {track: {"joints3d": (n, 49, 3), "frame_ids": (n,), ...}, ...}

OpenPose does not track people. Among a frame's first CANDIDATES people, the one with the highest mean score is body 0,
the next one body 1, and so on, as in ST-GCN's program, which then takes two. Only the first 15 of VIBE's joints are
read; they are OpenPose's, the layout `shared-15`. VIBE's y points down and its z away from the camera; both are turned
(UPRIGHT), so that people are upright as in Kinect's files. The longest tracks are kept, at most TRACKS.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import schema
from featcache.budget import Allowance
from featcache.errors import MediaError
from featcache.files import regular, remembered

CANDIDATES = 5  #: people of a frame that are read
OPENPOSE = 18  #: joints of a body in the file
VIBE, SHARED = 49, 15  #: joints of a body in the file, and those that are read
TRACKS = 6  #: bodies that are kept
UPRIGHT = np.array([1, -1, -1], np.float32)  #: factors of VIBE's x, y and z: half a turn about x
LONGEST = 100_000  #: limit of frame numbers; a larger one is damage and would fill the memory


@remembered(2)
def read(path: Path) -> NDArray[np.float32]:
    """Read a file's joints (M, T, V, 3), zeros where a body is missing; a file that has changed is read again.

    Raises MediaError if the file is damaged or is neither OpenPose's nor VIBE's.
    """
    data = regular(path, MediaError).read_bytes()
    content = schema.loads(data, str(path), error=MediaError, fix="copy or download it again")
    try:
        allowance = Allowance(path.stat().st_size, str(path), MediaError)
        return _openpose(content["data"], allowance) if "data" in content else _vibe(content, allowance)
    except KeyError as error:
        raise MediaError(f"{path} lacks the key {error} of skeletons by OpenPose or VIBE; correct the source") from None
    except MediaError:
        raise
    except (AttributeError, TypeError, ValueError, OverflowError, IndexError) as error:
        raise MediaError(f"{path} is not in the format of OpenPose or VIBE: {error}") from None


def _openpose(frames: Any, allowance: Allowance) -> NDArray[np.float32]:
    """Put each frame of the file at its number, as in ST-GCN's program; numbers begin at 1."""
    people_at = {
        _frame(frame["frame_index"]): [_candidate(person) for person in frame["skeleton"][:CANDIDATES]]
        for frame in frames
    }
    shape = (CANDIDATES, 1 + max(people_at, default=0), OPENPOSE, 3)
    allowance.take(4 * math.prod(shape))
    joints = np.zeros(shape, np.float32)
    for t, people in people_at.items():
        for m, person in enumerate(sorted(people, key=lambda person: -person[:, 2].mean())):
            joints[m, t] = person
    return joints


def _candidate(person: Any) -> NDArray[np.float32]:
    """Return a person's joints, (18, 3): x, y, score."""
    pose, score = (np.array(person[key], np.float32) for key in ("pose", "score"))
    if pose.shape != (2 * OPENPOSE,) or score.shape != (OPENPOSE,):
        raise ValueError(f"a body has {pose.size} coordinates and {score.size} scores; 36 and 18 are expected")
    return np.column_stack([pose.reshape(-1, 2), score])


def _vibe(tracks: Any, allowance: Allowance) -> NDArray[np.float32]:
    bodies = []
    for name, track in tracks.items():
        points, frames = np.array(track["joints3d"], np.float32), [_frame(number) for number in track["frame_ids"]]
        if points.shape != (len(frames), VIBE, 3):
            raise ValueError(
                f"track {name} has {len(frames)} frame_ids and joints3d {points.shape}; (frames, 49, 3) is expected"
            )
        bodies.append((frames, points[:, :SHARED] * UPRIGHT))
    bodies = sorted(bodies, key=lambda body: -len(body[0]))[:TRACKS]
    length = 1 + max((number for frames, _ in bodies for number in frames), default=0)
    allowance.take(4 * len(bodies) * length * SHARED * 3)
    joints = np.zeros((len(bodies), length, SHARED, 3), np.float32)
    for m, (frames, points) in enumerate(bodies):
        joints[m, frames] = points
    return joints


def _frame(number: Any) -> int:
    if type(number) is not int or not 0 <= number < LONGEST:
        raise ValueError(f"{str(number)[:40]!r} is not a frame number from 0 to {LONGEST - 1}")
    return number
