"""Folders of video_features (v-iashin): one .npy file per video and stream, named after the video's file.

    <stem>_rgb.npy, <stem>_flow.npy           (T, D), of I3D; others end with _r21d, _s3d, _vggish, _resnet, _clip ...
    <stem>_fps.npy, <stem>_timestamps_ms.npy  () and (T,), for some models
    <stem>.npy                                (T, D) or (D,) without a stream: other tools' folders, key `features`

Ids are the stems, so they contain no /. The files of the second line give the stems. Without such files, the stream is
the last word of the name if all names end with one of STREAMS; if no name does, there are no streams. A video that is
too short for the model has an empty array, and no features here. Pickled arrays are refused.

Meaning of timestamps_ms: models that take single frames record the start of each frame, and the first is 0. Models that
take stacks (I3D) record the start of the first frame after the stack, which is the stop of the stack. Stacks are
equally long and the first begins with the video, so a stack starts timestamps_ms[0] before it stops. This holds only
if there is an fps file; otherwise the start is unknown (NaN). Timestamps are ignored if their number is not T.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bridges import External, Times
from featcache.bridges._arrays import ONE, as_windows, survey
from featcache.bridges._folders import check_folder, named, order, replacing_folder
from featcache.errors import FormatError
from featcache.files import read_bytes
from featcache.untrusted import check_numbers, reading
from featcache.untrusted.npy import parse_npy

KEEPS = frozenset({"several", "windows", "ragged", "shape", "dtype"})
STREAMS = ("rgb", "flow", "r21d", "s3d", "vggish", "resnet", "clip", "timm", "raft", "audio")
FPS, MARKS = "fps", "timestamps_ms"
EMPTY = 128  #: size in bytes of a .npy file without values


def read(path: Path, ids: Sequence[str] | None = None) -> dict[str, External]:
    """Read stream -> features; `ids` replaces the ids, in the order of the stems. Files are read on demand."""
    check_folder(path, "video_features")
    with reading(path, "a folder of video_features"):
        names = {name.removesuffix(".npy") for name in os.listdir(path) if name.endswith(".npy") and name[0] != "."}
        files: dict[str, dict[str, Path]] = {}
        for name, (stem, key) in _split(names, order(path)[1], path).items():
            if not _is_empty(path / f"{name}.npy"):
                files.setdefault(key, {})[stem] = path / f"{name}.npy"
        if not files:
            inner = ", ".join(sorted(name for name in os.listdir(path) if (path / name).is_dir())[:5])
            hint = f"; is it in one of its folders ({inner})?" if inner else ""
            raise FormatError(f"{path} has no features: it has no .npy file with numbers{hint}")
        return {key: _table(chosen, files[key], path) for key, chosen in named(files, ids, path).items()}


def _split(names: set[str], known_stems: Iterable[str], path: Path) -> dict[str, tuple[str, str]]:
    """Map file names to (stem, stream), without files of times; FormatError if the streams are ambiguous."""
    time_files = {name for name in names if name.endswith((f"_{FPS}", f"_{MARKS}"))}
    stems = {name.removesuffix(f"_{FPS}").removesuffix(f"_{MARKS}") for name in time_files} | set(known_stems)
    split, plain = {}, []
    for name in sorted(names - time_files):
        ends = [k for k, character in enumerate(name) if character == "_" and name[:k] in stems]
        if not ends and name.rpartition("_")[2] in STREAMS and name.rpartition("_")[0]:
            ends = [name.rindex("_")]
        if ends:
            split[name] = name[: ends[-1]], name[ends[-1] + 1 :]
        else:
            plain.append(name)
    if split and plain:
        raise FormatError(
            f"{path} has {next(iter(split))}.npy, which names a stream, and {plain[0]}.npy, which names none of"
            f" {', '.join(STREAMS)}; put them into separate folders"
        )
    return split or {name: (name, ONE) for name in plain}


def _is_empty(file: Path) -> bool:
    if file.stat().st_size > EMPTY:
        return False
    try:
        return not _load(file).size
    except FormatError:  # reading this clip will fail later, without the others
        return False


def _load(file: Path) -> NDArray[Any]:
    with reading(file, "an array (.npy)"):
        array = parse_npy(read_bytes(file), str(file))
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
    """Compute start and stop (T,) of T windows from their timestamps in seconds."""
    unknown = np.full(count, np.nan)
    if marks.shape != (count,):
        return unknown, unknown
    if marks[0] == 0:
        return marks, marks + 1 / fps if fps else unknown
    return (marks - marks[0] if fps else unknown), marks


def write(path: Path, tables: dict[str, External]) -> None:
    """Write <id>_KEY.npy for each clip and key; a folder that featcache did not write is never replaced."""
    surveys = {key: survey(key, table) for key, table in tables.items()}
    names: dict[str, tuple[str, str]] = {}
    for key, table in tables.items():
        for clip_id in table.ids:
            name = f"{clip_id}_{key}"
            if not clip_id or "/" in name or name.startswith(".") or len(os.fsencode(name)) > 255 - len(".npy"):
                raise FormatError(
                    f"clip id {clip_id!r} and key {key!r} cannot be a file name, which video_features needs: the id may"
                    " not be empty or begin with a dot, and the name may not contain / or exceed 255 bytes; write ta3n"
                    " or hdf5"
                )
            if name in names:
                raise FormatError(f"{names[name]} and {(clip_id, key)} would both be called {name}.npy; rename one")
            names[name] = clip_id, key
    ids = [clip_id for clip_id, _ in names.values()]
    for name, read_back in {**dict.fromkeys(names), **_split(set(names), ids, path)}.items():
        if read_back != names[name]:
            raise FormatError(f"{name}.npy would not be read back as {names[name]}; rename the clip or the key")
    with replacing_folder(path, tables) as scratch:
        for key, table in tables.items():
            for k, clip_id in enumerate(table.ids):
                np.save(scratch / f"{clip_id}_{key}.npy", np.array(table.row(k), surveys[key].dtype))
