"""HDF5 file: a group per key with one data set per clip, or one data set per key and a data set of ids.

    /rgb/P01_11 (T, D)                  groups that share a clip are keys; a single group is a key, too
    /P01_11 (T, D), /P01/11 (T, D)      otherwise the path is the clip's id and the key is `features`
    /rgb (n, T, D), /clip_id (n,)       `ids`, `uid`, `video_id` and the like are read, too
    /rgb (sum T, D), /offset (n+1)      ids as above, or given

`write` uses the first layout, with `window_start` and `window_stop` as attributes of the data sets and `recipe` (JSON)
as an attribute of the group. In names, / and % of keys and ids become %2F and %25; the file's attribute `featcache`
marks this.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featcache.bridges import ID_NAMES, External, Times
from featcache.bridges._arrays import (
    OFFSET_NAMES,
    ONE,
    RECIPE,
    START,
    STOP,
    as_recipe,
    checked_times,
    escaped,
    renamed,
    survey,
    unescaped,
    union,
)
from featcache.bridges._layouts import one_per_clip, tables_of
from featcache.errors import FormatError
from featcache.files import replacing, steady
from featcache.untrusted import reading
from featcache.untrusted.hdf5 import attribute, child

KEEPS = frozenset({"several", "windows", "ragged", "shape", "dtype", "ids", "times", "recipe"})
OURS = "featcache"  #: attribute of files with escaped names


def read(path: Path, ids: Sequence[str] | None = None) -> dict[str, External]:
    """Read key -> features; `ids` gives or replaces the ids, in the order of the file."""
    import h5py

    with reading(path, "HDF5"):
        file = h5py.File(path, "r")
        parts = {name: child(file, name, path) for name in file}
        groups = {name: _data_sets(part, path) for name, part in parts.items() if isinstance(part, h5py.Group)}
        top = {name: part for name, part in parts.items() if name not in groups}
        if attribute(file, OURS) and groups and not top:
            tables = {
                _unnamed(name): _table(file[name], {_unnamed(clip): data for clip, data in clips.items()}, path)
                for name, clips in groups.items()
            }
            return renamed(tables, union(tables), ids, path)
        if top and not groups and (ids is not None or any(name in top for name in (*ID_NAMES, *OFFSET_NAMES))):
            return tables_of(top, ids, path, ".")
        if groups and not top and set.intersection(*(set(clips) for clips in groups.values())):
            tables = {name: _table(file[name], clips, path) for name, clips in groups.items()}
        else:
            tables = {ONE: _table(file, _data_sets(file, path), path)}
        return renamed(tables, union(tables), ids, path)


def write(path: Path, tables: dict[str, External]) -> None:
    """Write all tables, clip by clip."""
    import h5py

    options: dict[str, Any] = {"libver": ("v108", "v108"), "track_order": True}
    with replacing(path) as scratch, steady(scratch) as raw, h5py.File(raw, "w", **options) as file:
        file.attrs[OURS] = 1  # format 1.8 allows attributes large enough for the times of thousands of windows
        for key, table in tables.items():
            dtype = survey(key, table).dtype
            group = file.create_group(_named(key), track_order=True)
            if table.recipe:
                group.attrs[RECIPE] = np.bytes_(json.dumps(table.recipe))  # fixed length, so that no heap is needed
            for k, clip_id in enumerate(table.ids):
                data = group.create_dataset(_named(clip_id), data=table.row(k).astype(dtype))
                if table.times is not None:
                    data.attrs[START], data.attrs[STOP] = table.times(k)
                if raw.error:
                    return


def _named(text: str) -> str:
    return "%2E" if text == "." else escaped(text, "/")  # "." would be the group itself


def _unnamed(name: str) -> str:
    return unescaped(name, "./")


def _table(group: Any, data_sets: dict[str, Any], path: Path) -> External:
    """The table of a group: its data sets by clip id, with its recipe."""

    def times(clip_id: str) -> Times:
        with reading(path, "window times"):
            start, stop = (attribute(data_sets[clip_id], name) for name in (START, STOP))
            return checked_times(start, stop, f"{path}: {clip_id}")

    timed = all(START in data.attrs and STOP in data.attrs for data in data_sets.values())
    recipe = attribute(group, RECIPE)
    recipe = as_recipe(recipe if isinstance(recipe, bytes) else None, f"{path}: {group.name}")
    return one_per_clip(data_sets, None, path, times if timed else None, recipe)


def _data_sets(group: Any, path: Path) -> dict[str, Any]:
    """Map each path below the group to its data set, in the order of the file."""
    import h5py

    data_sets, visited, todo = {}, set(), [("", group)]
    while todo:
        prefix, here = todo.pop(0)
        if here.id in visited:  # ids compare objects in the file, not handles
            raise FormatError(f"{path}: group {prefix} contains itself")
        visited.add(here.id)
        for name in here:
            part = child(here, name, path)
            if isinstance(part, h5py.Group):
                todo.append((f"{prefix}{name}/", part))
            else:
                data_sets[prefix + name] = part
    return data_sets
