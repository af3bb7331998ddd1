"""Unpack the skeleton pickles of PYSKL and mmaction2, one per data set, into arrays that can be read in parts.

    {"split": {"xview_train": [frame_dir, ...], ...}, "annotations": [{"frame_dir": "S001...", "label": 0,
     "img_shape": (height, width), "keypoint": (M, T, V, C), "keypoint_score": (M, T, V), ...}, ...]}

For skeletons in the plane C is 2, in pixels, with scores and the shape of the picture. In space, as from VIBE, C is 3.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ManifestError
from featcache.files import replacing
from featcache.manifest import Clip
from featcache.media.poses import UPRIGHT
from featcache.untrusted import pickles

MOST = 6  #: maximum number of bodies in a clip, as in the reader of arrays


def unpack(
    path: Path,
    domain: str,
    splits: Mapping[str, str],
    label: Callable[[str, int], str],
    *,
    joints: tuple[int, ...],
    kept: int,
    plane: bool,
) -> list[Clip]:
    """Write the joints of these splits to an .npy named like the pickle; return the clips.

    The array is (T, M, V, 3): all frames, clip after clip, zeros for missing bodies. It holds x y z with y up, or x and
    y as shares of the picture's width and height and a score. splits: name in the pickle -> in the manifest. label:
    name of the clip and number of its class -> class. joints: allowed numbers of joints, of which the first `kept`
    are written. ManifestError if a value is missing or has the wrong shape.
    """
    chosen = [(split, _checked(entry, path, joints, plane)) for split, entry in _chosen(path, splits)]
    ends = np.cumsum([entry["keypoint"].shape[1] for _, entry in chosen], dtype=np.int64).tolist()
    clips = [
        Clip(
            clip_id=entry["frame_dir"],
            domain=domain,
            split=split,
            source=f"{path.stem}.npy",
            start=stop - entry["keypoint"].shape[1],
            stop=stop,
            unit="frames",
            labels={"label": label(entry["frame_dir"], int(entry["label"]))},
        )
        for (split, entry), stop in zip(chosen, ends, strict=True)
    ]
    bodies = max(len(entry["keypoint"]) for _, entry in chosen)

    def padded(entry: dict[str, Any]) -> NDArray[np.float32]:
        points = _in_pictures(entry) if plane else entry["keypoint"] * UPRIGHT
        M, T = points.shape[:2]
        array = np.zeros((T, bodies, kept, 3), np.float32)
        array[:, :M] = points[:, :, :kept].swapaxes(0, 1)
        return array

    with replacing(path.with_suffix(".npy")) as scratch, scratch.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (ends[-1], bodies, kept, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        for _, entry in chosen:
            file.write(padded(entry).tobytes())
    return clips


def _chosen(path: Path, splits: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    """Read (split, annotation) of the clips, split by split."""
    content = pickles.load(path)
    parts = {"split": dict, "annotations": list}
    if type(content) is not dict or any(type(content.get(key)) is not kind for key, kind in parts.items()):
        raise ManifestError(f"{path} is {pickles.describe(content)}; a dict of split and annotations is expected")
    for k, entry in enumerate(content["annotations"]):
        if type(entry) is not dict or type(entry.get("frame_dir")) is not str:
            raise ManifestError(
                f"{path}: annotation {k} is {pickles.describe(entry)}; a dict with a frame_dir is expected"
            )
    by_name, chosen = {entry["frame_dir"]: entry for entry in content["annotations"]}, []
    for official, split in splits.items():
        if not content["split"].get(official):
            raise ManifestError(f"{path} has no split {official!r}; it has: {', '.join(map(str, content['split']))}")
        for name in content["split"][official]:
            if name not in by_name:
                raise ManifestError(f"{path}: split {official!r} lists {name!r}, which has no annotation")
            chosen.append((split, by_name[name]))
    return chosen


def _checked(entry: dict[str, Any], path: Path, joints: tuple[int, ...], plane: bool) -> dict[str, Any]:
    def wrong(key: str, expected: str) -> ManifestError:
        return ManifestError(
            f"{path}: {key} of {entry['frame_dir']!r} is {pickles.describe(entry.get(key))}; {expected} is expected"
        )

    points: Any = entry.get("keypoint")
    scores: Any = entry.get("keypoint_score")
    size: Any = entry.get("img_shape")
    floats = isinstance(points, np.ndarray) and points.dtype.kind == "f"
    shape: tuple[int, ...] = points.shape if floats else ()
    C = 2 if plane else 3
    if len(shape) != 4 or not 1 <= shape[0] <= MOST or not shape[1] or shape[2] not in joints or shape[3] != C:
        counts = " or ".join(map(str, joints))
        raise wrong("keypoint", f"an array of (at most {MOST} bodies, frames, {counts}, {C})")
    if plane and (not isinstance(scores, np.ndarray) or scores.dtype.kind != "f" or scores.shape != shape[:3]):
        raise wrong("keypoint_score", f"an array {shape[:3]}")
    if plane and not (type(size) in (tuple, list) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)):
        raise wrong("img_shape", "(height, width)")
    if not isinstance(entry.get("label"), int | np.integer):
        raise wrong("label", "a number")
    return entry


def _in_pictures(entry: dict[str, Any]) -> NDArray[np.float32]:
    """The joints (M, T, V, 3): x and y as shares of the picture's width and height, and the score."""
    height, width = entry["img_shape"]
    points = entry["keypoint"].astype(np.float32) / np.array([width, height], np.float32)
    return np.concatenate([points, entry["keypoint_score"][..., None].astype(np.float32)], axis=3)
