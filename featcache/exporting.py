"""Export stores of one manifest to a file in another tool's format.

export_features([Path("stores/s04/rgb.zarr")], "hdf5", Path("s04.h5"))
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import bridges
from featcache.arguments import Pairs, PathLike, pairs, paths
from featcache.bridges import External, Times
from featcache.errors import ConfigError, FormatError, StoreError
from featcache.files import claimed
from featcache.progress import Progress, reporting
from featcache.store import FeatureStore
from featcache.store.places import local

AT_ONCE = 64  #: rows of a store that are read together; bridges request them in order
LOSSES = {  #: word of bridges.WORDS -> the loss in a format without it
    "windows": "the window axis",
    "shape": "the shape of rows, which are flattened",
    "dtype": "float16, which becomes float32",
    "times": "start and stop of the windows",
    "recipe": "the recipe",
}


@dataclass
class Exported:
    """The result of an export: the clips written, the clips left out, and the losses of the format."""

    path: Path
    clips: dict[str, int] = field(default_factory=dict)  #: key in the file -> clips written
    left_out: list[tuple[str, str, str]] = field(default_factory=list)  #: (key, clip id, state and reason)
    lost: list[str] = field(default_factory=list)  #: parts of these stores that the format does not keep


def export_features(
    stores: PathLike | Sequence[PathLike],
    format: str,
    out: PathLike,
    *,
    key: Pairs = (),
    overwrite: bool = False,
    progress: Progress | bool = False,
) -> Exported:
    """Write the clips with state done, from stores of one manifest, into one file.

    stores: one or several, by their paths or URLs. format: a name of `featcache list formats`. out: the file.
    key: {"STORE": "KEY IN THE FILE"} or "STORE=KEY". Without it, the key is the one that the store was imported from,
    else the store's modality; stores that share it have their own names as keys. overwrite: replace a file at `out`.
    progress: True for a bar, or a callback (rows written, all). Raises FormatError when the format cannot
    hold these stores, or `out` exists or is in a store, and StoreError when the stores have different clips.
    """
    bridge, out, names = bridges.load(format), Path(out), pairs("--key", key, "STORE=NAME")
    folders = tuple(map(local, paths(stores)))
    if not folders:
        raise ConfigError("no store to export; name one or more .zarr folders")
    _check_out(out, folders, bridge, overwrite)
    for path in folders:
        if not (path / "zarr.json").exists() and any(path.glob("*.zarr")):
            raise ConfigError(
                f"{path} is a folder of stores; name the stores to export, such as {min(path.glob('*.zarr'))}"
            )
    opened = [FeatureStore.open(path) for path in folders]
    for store in opened[1:]:
        if store.rows != opened[0].rows:
            raise StoreError(f"{store.path} and {opened[0].path} have different clips; export them one by one")
    if len(opened) > 1 and "several" not in bridge.KEEPS:
        raise FormatError(f"a {format} file holds only one store; export these {len(opened)} stores one by one")
    keys = _keys(opened, names)
    report = Exported(out)
    tables = {}
    for key, store in zip(keys, opened, strict=True):
        tables[key] = store_table(store)
        report.clips[key] = len(tables[key].ids)
        if not tables[key].ids:
            raise StoreError(f"{store.path} has no clip with state done, so there is nothing to export")
        for clip_id, state, reason in store.outcomes():
            if state != "done":
                report.left_out.append((key, clip_id, f"{state}: {reason}" if reason else state))
    for store in opened:
        store.verify()  # before the file is begun
    needed = set().union(*(_needed(store) for store in opened))
    report.lost = [loss for word, loss in LOSSES.items() if word in needed - bridge.KEEPS]
    with claimed(Path(os.path.abspath(out))):  # "." has no name
        _check_out(out, folders, bridge, overwrite)  # another process may have just written it
        with reporting(progress, f"export {out.name}", "clip") as moved:
            bridge.write(out, _counted(tables, moved))
    return report


def _check_out(out: Path, stores: Sequence[Path], bridge: Any, overwrite: bool) -> None:
    """Raise FormatError when writing to `out` would harm a store, or replace a file without `overwrite`."""
    place = out.resolve()
    if any(place in (path.resolve(), *path.resolve().parents) for path in stores):
        raise FormatError(f"{out} holds a store that is to be exported; name another file")
    for folder in (place, *place.parents):
        if (folder / "zarr.json").exists():
            raise FormatError(f"{out} is in the store {folder} and would damage it; name another file")
    companions: list[Path] = bridge.companions(out) if hasattr(bridge, "companions") else []
    for path in (out, *companions):
        if path.exists() and not overwrite:
            raise FormatError(f"{path} exists; name another file, or replace it with --overwrite")


def _keys(stores: Sequence[FeatureStore], names: Mapping[str, str]) -> list[str]:
    """The key of each store in the file."""
    store_names = [store.path.stem for store in stores]
    for name in names:
        if name not in store_names:
            raise ConfigError(f"no store {name!r} to give a key; the stores are: {', '.join(store_names)}")
    origins = [str(store.recipe.get("external", {}).get("key", store.modality)) for store in stores]
    keys = [names.get(name, key) for name, key in zip(store_names, origins, strict=True)]
    if len(set(keys)) < len(keys):
        keys = [names.get(name, name) for name in store_names]
    if len(set(keys)) < len(keys):
        raise ConfigError(
            f"two of the stores would have the same key: {keys}; export them one by one, or give them different keys"
        )
    return keys


def _needed(store: FeatureStore) -> set[str]:
    """The words of KEEPS that matter for this store."""
    matters = {
        "windows": store.windows > 1,
        "shape": len(store.row_shape) != 1,
        "dtype": store.layout.dtype == "float16",
        "times": store_table(store).times is not None,
        "recipe": True,
    }
    return {word for word, needed in matters.items() if needed}


def _counted(tables: dict[str, External], progress: Progress) -> dict[str, External]:
    """The same tables, reporting progress when a row is read for the first time."""
    total, rows_read = sum(len(table.ids) for table in tables.values()), set()

    def counting(key: str, table: External) -> External:
        def row(k: int) -> NDArray[Any]:
            rows_read.add((key, k))
            progress(len(rows_read), total)
            return table.row(k)

        return replace(table, row=row)

    return {key: counting(key, table) for key, table in tables.items()}


def store_table(store: FeatureStore, rows: Sequence[int] | None = None) -> External:
    """A store's rows with state done, or only `rows` of these, as the table that bridges use.

    Its recipe holds the fact `trained_on`, too, so that it is not lost in files; `training_data.of` reads it.
    """
    store_rows = np.flatnonzero(store.length > 0).tolist() if rows is None else list(rows)

    @lru_cache(maxsize=1)
    def read_together(first: int) -> NDArray[Any]:
        return store.read(store_rows[first : first + AT_ONCE])

    def row(k: int) -> NDArray[Any]:
        return read_together(k // AT_ONCE * AT_ONCE)[k % AT_ONCE, : store.length[store_rows[k]]]

    def times(k: int) -> Times:
        t = store.length[store_rows[k]]
        return store.window_start[store_rows[k], :t], store.window_stop[store_rows[k], :t]

    timed = np.isfinite(store.window_start[store_rows]) | np.isfinite(store.window_stop[store_rows])
    ids = [store.clip_ids[k] for k in store_rows]
    recorded = store.facts.get("trained_on")
    recipe = store.recipe | ({"trained_on": recorded} if recorded else {})
    return External(ids, row, times if (timed & store.present[store_rows]).any() else None, recipe)
