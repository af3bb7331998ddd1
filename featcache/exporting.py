"""Export: stores of one manifest to a file in another tool's format.

export_features([Path("stores/s04/rgb.zarr")], "hdf5", Path("s04.h5"))
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import bridges
from featcache.bridges import External, Times
from featcache.errors import ConfigError, FormatError, StoreError
from featcache.progress import Progress, silent
from featcache.store import FeatureStore

AT_ONCE = 64  #: rows of a store that are read together; they are asked for in order
LOSSES = {  #: words of bridges.WORDS -> what is lost without them
    "windows": "the window axis",
    "shape": "the shape of rows, which are flattened",
    "dtype": "float16, which becomes float32",
    "times": "start and stop of the windows",
    "recipe": "the recipe",
}


@dataclass
class Exported:
    """What went into a file, and what did not."""

    path: Path
    clips: dict[str, int] = field(default_factory=dict)  #: key in the file -> clips written
    left_out: list[tuple[str, str, str]] = field(default_factory=list)  #: (key, clip id, state and reason)
    lost: list[str] = field(default_factory=list)  #: what the format does not keep of these stores


def export_features(
    stores: Sequence[Path],
    format: str,
    out: Path,
    *,
    overwrite: bool = False,
    names: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> Exported:
    """Write the clips that are done of stores of one manifest into one file.

    names: store's name -> its key in the file; without it, the key that the store was imported from, else its
    modality; stores that share this are called by their own names. Raises FormatError when the format cannot hold
    these stores, or `out` exists or is in a store, StoreError when they are of different clips.
    """
    bridge = bridges.load(format)
    if not stores:
        raise ConfigError("no store to export; name one or more .zarr folders")
    _check_out(out, stores, bridge, overwrite)
    for path in stores:
        if not (path / "zarr.json").exists() and any(path.glob("*.zarr")):
            raise ConfigError(f"{path} is a folder of stores; name those to export, such as {min(path.glob('*.zarr'))}")
    opened = [FeatureStore.open(path) for path in stores]
    for store in opened[1:]:
        if store.rows != opened[0].rows:
            raise StoreError(f"{store.path} and {opened[0].path} are of different clips; export them one by one")
    if len(opened) > 1 and "several" not in bridge.KEEPS:
        raise FormatError(f"{format} holds one key; export these {len(opened)} stores one by one")
    keys = _keys(opened, names or {})
    report = Exported(out)
    tables = {}
    for key, store in zip(keys, opened, strict=True):
        tables[key] = store_table(store)
        report.clips[key] = len(tables[key].ids)
        if not tables[key].ids:
            raise StoreError(f"{store.path} has no clip that is done; there is nothing to export")
        frame = store.frame()
        for _, line in frame[frame["state"] != "done"].iterrows():
            reason = f"{line['state']}: {line['reason']}" if line["reason"] else str(line["state"])
            report.left_out.append((key, str(line["clip_id"]), reason))
    used = set().union(*(_used(store) for store in opened))
    report.lost = [loss for word, loss in LOSSES.items() if word in used - bridge.KEEPS]
    bridge.write(out, _counted(tables, progress))
    return report


def _check_out(out: Path, stores: Sequence[Path], bridge: Any, overwrite: bool) -> None:
    """FormatError when writing to `out` would harm a store, or replace what nobody asked to be replaced."""
    place = out.resolve()
    if any(place in (path.resolve(), *path.resolve().parents) for path in stores):
        raise FormatError(f"{out} holds a store that is to be exported; name another file")
    for folder in (place, *place.parents):
        if (folder / "zarr.json").exists():
            raise FormatError(f"{out} is in the store {folder}, which would be damaged; name another file")
    beside: list[Path] = bridge.companions(out) if hasattr(bridge, "companions") else []
    for path in (out, *beside):
        if path.exists() and not overwrite:
            raise FormatError(f"{path} exists; name another file, or replace it with --overwrite")


def _keys(stores: Sequence[FeatureStore], names: Mapping[str, str]) -> list[str]:
    """What each store is called in the file."""
    own = [store.path.stem for store in stores]
    for name in names:
        if name not in own:
            raise ConfigError(f"no store {name!r} to give a key; the stores are: {', '.join(own)}")
    origins = [str(store.recipe.get("external", {}).get("key", store.modality)) for store in stores]
    keys = [names.get(name, key) for name, key in zip(own, origins, strict=True)]
    if len(set(keys)) < len(keys):
        keys = [names.get(name, name) for name in own]
    if len(set(keys)) < len(keys):
        raise ConfigError(f"two of the stores would be called {keys}; export them one by one, or name them apart")
    return keys


def _used(store: FeatureStore) -> set[str]:
    """Which words of KEEPS matter for this store."""
    matters = {
        "windows": store.windows > 1,
        "shape": len(store.row_shape) != 1,
        "dtype": store.layout.dtype == "float16",
        "times": store_table(store).times is not None,
        "recipe": True,
    }
    return {word for word, does in matters.items() if does}


def _counted(tables: dict[str, External], progress: Progress) -> dict[str, External]:
    """The same tables, whose rows report when each is asked for the first time."""
    total, seen = sum(len(table.ids) for table in tables.values()), set()

    def counting(key: str, table: External) -> External:
        def row(k: int) -> NDArray[Any]:
            seen.add((key, k))
            progress(len(seen), total)
            return table.row(k)

        return replace(table, row=row)

    return {key: counting(key, table) for key, table in tables.items()}


def store_table(store: FeatureStore, rows: Sequence[int] | None = None) -> External:
    """A store's rows that are done (or these of them) as a bridge sees features."""
    there = np.flatnonzero(store.length > 0).tolist() if rows is None else list(rows)

    @lru_cache(maxsize=1)
    def some(first: int) -> NDArray[Any]:
        return store.read(there[first : first + AT_ONCE])

    def row(k: int) -> NDArray[Any]:
        return some(k // AT_ONCE * AT_ONCE)[k % AT_ONCE, : store.length[there[k]]]

    def times(k: int) -> Times:
        t = store.length[there[k]]
        return store.window_start[there[k], :t], store.window_stop[there[k], :t]

    known = np.isfinite(store.window_start[there]) | np.isfinite(store.window_stop[there])
    ids = [store.clip_ids[k] for k in there]
    return External(ids, row, times if (known & store.present[there]).any() else None, store.recipe)
