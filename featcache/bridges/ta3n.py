"""TA3N's frame folders: a folder per video with one torch file per frame or segment.

    ROOT/RGB-Feature/<video>/img_00001.t7     a folder per modality; the key is the part before "-Feature"
    ROOT/<video>/img_00001.pt                 no folder per modality; the key is `features`

The windows of a video are its frames in the order of their numbers, (D,) each. The id is the path of the video's
folder and may contain /. The files were written by torch.save, whatever their suffix (.t7, .pt, .pth), and hold only
tensors; files of Lua's Torch7 are refused. `write` makes ROOT/KEY-Feature/<id>/img_00001.t7 and so on.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bridges import External
from featcache.bridges._arrays import ONE, survey
from featcache.bridges._folders import check_folder, named, replacing_folder
from featcache.errors import FormatError
from featcache.files import read_bytes, steady
from featcache.untrusted import check_numbers, reading, tensors

KEEPS = frozenset({"several", "windows", "ragged", "shape", "dtype"})
MODALITY = re.compile(r"(.+)-[Ff]eature(_.*)?", re.DOTALL)  # "RGB-Feature", or "RGB-feature_resnet101"
FRAME = re.compile(r"(.*?)([0-9]+)\.(t7|pt|pth)", re.DOTALL)


def read(path: Path, ids: Sequence[str] | None = None) -> dict[str, External]:
    """Read modality -> features; `ids` replaces the ids, in the order of the folders. Frames are read on demand."""
    check_folder(path, "ta3n")
    with reading(path, "a folder of TA3N features"):
        roots: dict[str, Path] = {}
        for name in sorted(os.listdir(path)):
            key = _modality(name)
            if key and (path / name).is_dir():
                if key in roots:
                    raise FormatError(f"{path} has {roots[key].name} and {name}, both for the key {key}; rename one")
                roots[key] = path / name
        roots = roots or {_modality(path.resolve().name) or ONE: path}
        videos = {key: _videos(root) for key, root in roots.items()}
        if not any(videos.values()):
            raise FormatError(f"{path} has no folder with frames such as img_00001.t7 or img_00001.pt")
        return {key: _table(chosen, videos[key]) for key, chosen in named(videos, ids, path).items()}


def _modality(name: str) -> str | None:
    match = MODALITY.fullmatch(name)
    return match and match[1] + (match[2] or "")


def _videos(root: Path) -> dict[str, list[Path]]:
    """The frames of each video below a folder, in the order of their numbers."""
    videos = {}
    for folder, _, names in os.walk(root):
        numbers: dict[int, tuple[str, str]] = {}
        others = [name for name in names if not name.startswith(".") and not FRAME.fullmatch(name)]
        for name in sorted(names):
            match = FRAME.fullmatch(name)
            if match is None or name.startswith("."):
                continue
            prefix, number = match[1], int(match[2])
            first_prefix, other = next(iter(numbers.values()), (prefix, name))
            if number in numbers or first_prefix != prefix:
                other = numbers.get(number, (first_prefix, other))[1]
                raise FormatError(f"{folder} has {other} and {name}; one file per frame of a single video is expected")
            numbers[number] = prefix, name
        if numbers and others:
            raise FormatError(
                f"{folder} has frames and {others[0]}, which is not a frame; names like img_00001.t7 are expected"
            )
        if numbers:
            files = [Path(folder) / numbers[number][1] for number in sorted(numbers)]
            videos[Path(folder).relative_to(root).as_posix()] = files
    return videos


def _table(chosen: dict[str, str], videos: dict[str, list[Path]]) -> External:
    names = list(chosen)

    def row(k: int) -> NDArray[Any]:
        frames = [_frame(file) for file in videos[names[k]]]
        for file, frame in zip(videos[names[k]], frames, strict=True):
            if frame.shape != frames[0].shape or frame.dtype != frames[0].dtype:
                raise FormatError(
                    f"{file} is {frame.shape} of {frame.dtype}, but the video's first frame is {frames[0].shape} of"
                    f" {frames[0].dtype}"
                )
        return np.stack(frames)

    return External(list(chosen.values()), row)


def _frame(file: Path) -> NDArray[Any]:
    with reading(file, "a torch file"):
        data = read_bytes(file)
        frame = tensors.array(tensors.load(data, str(file)), len(data), str(file))
        if not frame.size or not frame.ndim:
            raise FormatError(f"{file} holds a tensor {frame.shape}; (D,) is expected")
        check_numbers(frame.dtype, str(file))
        return frame


def write(path: Path, tables: dict[str, External]) -> None:
    """Write a file per window; a folder that featcache did not write is never replaced."""
    import torch

    surveys = {key: survey(key, table) for key, table in tables.items()}
    for key, table in tables.items():
        if "/" in key or key.startswith("."):
            raise FormatError(f"key {key!r} cannot be a folder name, which ta3n needs; rename it")
        for clip_id in table.ids:
            _check_id(clip_id)
    with replacing_folder(path, tables) as scratch:
        for key, table in tables.items():
            for k, clip_id in enumerate(table.ids):
                folder = scratch / f"{key}-Feature" / clip_id
                folder.mkdir(parents=True)
                for number, frame in enumerate(table.row(k), 1):
                    tensor = torch.from_numpy(np.array(frame, surveys[key].dtype))
                    with steady(folder / f"img_{number:05d}.t7") as file:
                        torch.save(tensor, file)


def _check_id(clip_id: str) -> None:
    for part in clip_id.split("/"):
        if not part or part.startswith(".") or FRAME.fullmatch(part) or len(os.fsencode(part)) > 255:
            raise FormatError(
                f"clip id {clip_id!r} cannot be a folder path, which ta3n needs: no part of it may be empty, begin with"
                " a dot, look like a frame or be longer than 255 bytes; write hdf5"
            )
