"""NumPy .npz archive: arrays over all clips with ids, all clips end to end with offsets, or one array per clip.

    rgb (n, T, D) or (n, D), clip_id (n,)            `ids`, `uid`, `video_id` and the like are read, too
    left (sum T, 8), right (sum T, 8), offset (n+1)  every array of that length is a key; ids as above, or given
    <clip id> (D,) or (T, D)                         one array per clip; the key is `features`

`write` makes KEY, `clip_id` (KEY.clip_id if the keys have different clips), KEY.offset if T differs,
KEY.window_start, KEY.window_stop and KEY.recipe.
"""

import zipfile
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bridges import External
from featcache.bridges._arrays import rows_of, survey, write_npy
from featcache.bridges._layouts import descriptions, tables_of
from featcache.errors import FormatError
from featcache.files import replacing
from featcache.untrusted import reading
from featcache.untrusted.npy import check_npz, parse_npy

KEEPS = frozenset({"several", "windows", "ragged", "shape", "dtype", "ids", "times", "recipe"})


class _Member:
    """An array of the archive, loaded when a part of it is first read."""

    def __init__(
        self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, header: tuple[tuple[int, ...], np.dtype[Any]]
    ) -> None:
        self._archive, self._info = archive, info
        self._place = f"{path}: {info.filename}"
        self.shape, self.dtype = header

    def __getitem__(self, place: Any) -> Any:
        return self._values[place]

    @cached_property
    def _values(self) -> NDArray[Any]:
        return parse_npy(self._archive.read(self._info), self._place)


def read(path: Path, ids: Sequence[str] | None = None) -> dict[str, External]:
    """Read key -> features; `ids` gives or replaces the ids, in the order of the file."""
    with reading(path, "npz"):
        archive = zipfile.ZipFile(path)
        headers = check_npz(path)
        arrays: dict[str, _Member] = {}
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name == info.filename:
                raise FormatError(f"{path}: {name!r} is not an array (.npy); is this an npz file?")
            if name in arrays:
                raise FormatError(f"{path} holds the array {name!r} twice")
            arrays[name] = _Member(archive, info, path, headers[info.filename])
        return tables_of(arrays, ids, path, ".")


def write(path: Path, tables: dict[str, External]) -> None:
    """Write all tables, row by row."""
    surveys = {key: survey(key, table) for key, table in tables.items()}
    with replacing(path) as scratch, zipfile.ZipFile(scratch, "w") as archive:
        for name, array in descriptions(tables, surveys, ".").items():
            _add(archive, name, array.shape, array.dtype, [array])
        for key, table in tables.items():
            dtype = surveys[key].dtype
            _add(archive, key, surveys[key].stacked(), dtype, rows_of(table, dtype))


def _add(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], parts: Iterable[NDArray[Any]]
) -> None:
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
        write_npy(file, shape, dtype, parts)
