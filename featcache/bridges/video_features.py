"""Folders of video_features (v-iashin): one .npy file per video and stream, called after the video's file.

    <stem>_rgb.npy, <stem>_flow.npy           (T, D), of I3D; others end with _r21d, _s3d, _vggish, _resnet, _clip ...
    <stem>_fps.npy, <stem>_timestamps_ms.npy  () and (T,), for some models
    <stem>.npy                                (T, D) or (D,) without a stream: other tools' folders, key `features`

Ids are the stems, so they hold no /. The stems are known from the second line's files; where there are none, the stream
is the last word of the name if all names end with one of STREAMS, and there is none if no name does. A video that is
too short for the model has an empty array and no features here. No pickle is loaded from any of them.

timestamps_ms, as video_features sets them: for models that take frames one by one, when the frame begins, and the first
is 0; for stacks (I3D), when the first frame after the stack begins, which is where the stack stops. Stacks are equally
long and the first begins with the video, so they begin timestamps_ms[0] before they stop. This is only said of files
beside an fps; elsewhere the start is unknown (NaN). Timestamps whose number is not T say nothing.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bridges import External, Times
from featcache.bridges._arrays import ONE, as_windows, survey
from featcache.bridges._folders import check_folder, content, named, order, replacing_folder
from featcache.errors import FormatError
from featcache.untrusted import check_numbers, reading
from featcache.untrusted.npy import parse_npy

KEEPS = frozenset({"several", "windows", "ragged", "shape", "dtype"})
STREAMS = ("rgb", "flow", "r21d", "s3d", "vggish", "resnet", "clip", "timm", "raft", "audio")
FPS, MARKS = "fps", "timestamps_ms"
EMPTY = 128  # bytes of a .npy file with nothing in it


def read(path: Path, ids: Sequence[str] | None = None) -> dict[str, External]:
    """Stream -> features; ids: of all videos, in the order of their stems. Files are read when asked for."""
    check_folder(path, "video_features")
    with reading(path, "a folder of video_features"):
        names = {name.removesuffix(".npy") for name in os.listdir(path) if name.endswith(".npy") and name[0] != "."}
        found: dict[str, dict[str, Path]] = {}
        for name, (stem, key) in _split(names, order(path)[1], path).items():
            if not _is_empty(path / f"{name}.npy"):
                found.setdefault(key, {})[stem] = path / f"{name}.npy"
        if not found:
            inner = ", ".join(sorted(name for name in os.listdir(path) if (path / name).is_dir())[:5])
            hint = f"; is it in one of its folders ({inner})?" if inner else ""
            raise FormatError(f"{path} has no features: no .npy file with numbers in it{hint}")
        return {key: _table(chosen, found[key], path) for key, chosen in named(found, ids, path).items()}


def _split(names: set[str], known: Iterable[str], path: Path) -> dict[str, tuple[str, str]]:
    """File name -> (stem, stream), without the files that say when; FormatError where that is not clear."""
    described = {name for name in names if name.endswith((f"_{FPS}", f"_{MARKS}"))}
    stems = {name.removesuffix(f"_{FPS}").removesuffix(f"_{MARKS}") for name in described} | set(known)
    found, plain = {}, []
    for name in sorted(names - described):
        ends = [k for k, character in enumerate(name) if character == "_" and name[:k] in stems]
        if not ends and name.rpartition("_")[2] in STREAMS and name.rpartition("_")[0]:
            ends = [name.rindex("_")]
        if ends:
            found[name] = name[: ends[-1]], name[ends[-1] + 1 :]
        else:
            plain.append(name)
    if found and plain:
        raise FormatError(
            f"{path} has {next(iter(found))}.npy, which names a stream, and {plain[0]}.npy, which names none of"
            f" {', '.join(STREAMS)}; put them into folders of their own"
        )
    return found or {name: (name, ONE) for name in plain}


def _is_empty(file: Path) -> bool:
    if file.stat().st_size > EMPTY:
        return False
    try:
        return not _load(file).size
    except FormatError:  # its clip will fail alone
        return False


def _load(file: Path) -> NDArray[Any]:
    with reading(file, "an array (.npy)"):
        array = parse_npy(content(file), str(file))
        check_numbers(array.dtype, str(file))
        return array


def _table(chosen: dict[str, str], files: dict[str, Path], path: Path) -> External:
    stems = list(chosen)

    def row(k: int) -> NDArray[Any]:
        array = _load(files[stems[k]])
        if not array.ndim or not array.size:
            raise FormatError(f"{files[stems[k]]} has shape {array.shape}; (T, D) or (D,) is expected")
        return as_windows(array)

    def times(k: int) -> Times:
        marks, fps = (path / f"{stems[k]}_{name}.npy" for name in (MARKS, FPS))
        with reading(marks, "timestamps"):
            return _times(
                _load(marks) / 1000 if marks.exists() else np.empty(0),
                float(_load(fps).reshape(-1)[0]) if fps.exists() else None,
                len(row(k)),
            )

    timed = any((path / f"{stem}_{MARKS}.npy").exists() for stem in stems)
    return External(list(chosen.values()), row, times if timed else None)


def _times(marks: NDArray[np.float64], fps: float | None, count: int) -> Times:
    """Start and stop (T,) of T windows from their marks in seconds."""
    unknown = np.full(count, np.nan)
    if marks.shape != (count,):
        return unknown, unknown
    if marks[0] == 0:
        return marks, marks + 1 / fps if fps else unknown
    return (marks - marks[0] if fps else unknown), marks


def write(path: Path, tables: dict[str, External]) -> None:
    """Write <id>_KEY.npy for each clip and key; a folder that featcache did not write is not replaced."""
    surveys = {key: survey(key, table) for key, table in tables.items()}
    names: dict[str, tuple[str, str]] = {}
    for key, table in tables.items():
        for clip_id in table.ids:
            name = f"{clip_id}_{key}"
            if not clip_id or "/" in name or name.startswith(".") or len(os.fsencode(name)) > 255 - len(".npy"):
                raise FormatError(
                    f"clip id {clip_id!r} and key {key!r} cannot be the name of a file, which video_features needs: the"
                    " id may not be empty or begin with a dot, / may not be in it, nor more than 255 bytes; write ta3n"
                    " or hdf5"
                )
            if name in names:
                raise FormatError(f"{names[name]} and {(clip_id, key)} would both be called {name}.npy; rename one")
            names[name] = clip_id, key
    ids = [clip_id for clip_id, _ in names.values()]
    for name, taken in {**dict.fromkeys(names), **_split(set(names), ids, path)}.items():
        if taken != names[name]:
            raise FormatError(f"{name}.npy would not be read back as {names[name]}; rename the clip or the key")
    with replacing_folder(path, tables) as scratch:
        for key, table in tables.items():
            for k, clip_id in enumerate(table.ids):
                np.save(scratch / f"{clip_id}_{key}.npy", np.array(table.row(k), surveys[key].dtype))
