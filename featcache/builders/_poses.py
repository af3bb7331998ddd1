"""Pickles of skeletons as PYSKL and mmaction2 publish them, one for a data set, made arrays that are read in parts.

    {"split": {"xview_train": [frame_dir, ...], ...}, "annotations": [{"frame_dir": "S001...", "label": 0,
     "img_shape": (height, width), "keypoint": (M, T, V, C), "keypoint_score": (M, T, V), ...}, ...]}

C is 2 in the plane, in pixels, and there are scores and a shape of the picture; or it is 3, in space, as VIBE has it.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ManifestError
from featcache.manifest import Clip
from featcache.media.poses import UPRIGHT
from featcache.untrusted import pickles

MOST = 6  #: bodies of a clip, as the reader of arrays has them


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
    """The clips of these splits (name in the pickle -> in the manifest); their joints in an .npy of the pickle's name.

    That is (T, M, V, 3), all frames one clip after another, zeros where there is no body: x y z upright, or x and y of
    the picture's width and height and a score. label: name and number of the class -> class. joints: as many as a body
    may have, of which the first `kept` stay. ManifestError for what is missing or has another shape.
    """
    chosen = [(split, _checked(one, path, joints, plane)) for split, one in _chosen(path, splits)]
    ends = np.cumsum([one["keypoint"].shape[1] for _, one in chosen], dtype=np.int64).tolist()
    clips = [
        Clip(
            clip_id=one["frame_dir"],
            domain=domain,
            split=split,
            source=f"{path.stem}.npy",
            start=stop - one["keypoint"].shape[1],
            stop=stop,
            unit="frames",
            labels={"label": label(one["frame_dir"], int(one["label"]))},
        )
        for (split, one), stop in zip(chosen, ends, strict=True)
    ]
    partial, bodies = path.with_suffix(".partial"), max(len(one["keypoint"]) for _, one in chosen)
    array = np.lib.format.open_memmap(partial, "w+", np.float32, (ends[-1], bodies, kept, 3))
    for (_, one), stop in zip(chosen, ends, strict=True):
        points = _in_pictures(one) if plane else one["keypoint"] * UPRIGHT
        M, T = points.shape[:2]
        array[stop - T : stop, :M] = points[:, :, :kept].swapaxes(0, 1)
    array.flush()
    os.replace(partial, path.with_suffix(".npy"))
    return clips


def _chosen(path: Path, splits: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    """(split, annotation) of the clips, split by split."""
    content = pickles.load(path)
    parts = {"split": dict, "annotations": list}
    if type(content) is not dict or any(type(content.get(key)) is not kind for key, kind in parts.items()):
        raise ManifestError(f"{path} is {pickles.describe(content)}; a dict of split and annotations is expected")
    for k, one in enumerate(content["annotations"]):
        if type(one) is not dict or type(one.get("frame_dir")) is not str:
            raise ManifestError(f"{path}: annotation {k} is {pickles.describe(one)}; one with a frame_dir is expected")
    named, chosen = {one["frame_dir"]: one for one in content["annotations"]}, []
    for theirs, ours in splits.items():
        if not content["split"].get(theirs):
            raise ManifestError(f"{path} has no split {theirs!r}; it has: {', '.join(map(str, content['split']))}")
        for name in content["split"][theirs]:
            if name not in named:
                raise ManifestError(f"{path}: split {theirs!r} names {name!r}, which has no annotation")
            chosen.append((ours, named[name]))
    return chosen


def _checked(one: dict[str, Any], path: Path, joints: tuple[int, ...], plane: bool) -> dict[str, Any]:
    def wrong(key: str, expected: str) -> ManifestError:
        return ManifestError(
            f"{path}: {key} of {one['frame_dir']!r} is {pickles.describe(one.get(key))}; {expected} is expected"
        )

    points: Any = one.get("keypoint")
    scores: Any = one.get("keypoint_score")
    size: Any = one.get("img_shape")
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
    if not isinstance(one.get("label"), int | np.integer):
        raise wrong("label", "a number")
    return one


def _in_pictures(one: dict[str, Any]) -> NDArray[np.float32]:
    """(M, T, V, 3) x and y of the picture's width and height, and score."""
    height, width = one["img_shape"]
    points = one["keypoint"].astype(np.float32) / np.array([width, height], np.float32)
    return np.concatenate([points, one["keypoint_score"][..., None].astype(np.float32)], axis=3)
