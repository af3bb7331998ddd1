"""Import and export: other people's feature files to stores and back, joined by clip id.

import_features([Path("S04.npz")], "npz", manifest, Path("stores"))    -> one store per key of the files, and reports
export_features([Path("stores/s04/rgb.zarr")], "hdf5", Path("s04.h5"))
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import __version__, bridges
from featcache.bridges import External
from featcache.errors import ConfigError, FeatcacheError, FormatError, StoreError
from featcache.exporting import store_table
from featcache.importing import Imported, Source, check_target, from_files, from_store, store_name
from featcache.manifest import Manifest
from featcache.store import FeatureStore, StoreWriter
from featcache.store.writer import check_folder

__all__ = ["Exported", "Imported", "export_features", "import_features", "store_name"]

STORE = "store"  #: the "format" of our own stores
BLOCKS = 128  #: of a store that are filled at a time, of 24 to 48 MB each
LOSSES = {  #: words of bridges.WORDS -> what is lost without them
    "windows": "the window axis",
    "shape": "the shape of rows, which are flattened",
    "dtype": "float16, which becomes float32",
    "times": "start and stop of the windows",
    "recipe": "the recipe",
}

Progress = Callable[[int, int], None]


@dataclass
class Exported:
    """What went into a file, and what did not."""

    path: Path
    clips: dict[str, int] = field(default_factory=dict)  #: key in the file -> clips written
    left_out: list[tuple[str, str, str]] = field(default_factory=list)  #: (key, clip id, state and reason)
    lost: list[str] = field(default_factory=list)  #: what the format does not keep of these stores


def import_features(
    files: Sequence[Path],
    format: str,
    manifest: Manifest,
    stores: Path,
    *,
    ids: Sequence[str] | None = None,
    names: Mapping[str, str] | None = None,
    modalities: Mapping[str, str] | None = None,
    dtype: str | None = None,
    progress: Progress = lambda done, total: None,
) -> list[Imported]:
    """Fill `stores/<manifest>/<name>.zarr` for the keys of files, and put a copy of the manifest beside them.

    files: of one format, each clip of a key in one of them; their order does not matter.
    format: a name of `bridges.names()`, or "store" for a store of ours, of which rows are taken whose clips have not
    been edited since. ids: of a single file's clips in its order, where it has none. names: key -> name of its store;
    only these keys are taken (default: all, called after themselves). modalities: key -> modality (default: the file's
    word, or the key). dtype: float16 or float32 (default: the file's).
    A clip that the files lack becomes absent; in a copy of an extractor's store it becomes failed instead, so that
    `featcache extract --retry-failed` computes it. The same import once more tries failed clips again.
    Raises FormatError, ConfigError or StoreError before anything is written when no id matches, rows differ in shape,
    or a store in that folder was made from other clips or another file.
    """
    folder = stores / manifest.name
    try:
        check_folder(folder, manifest)
    except StoreError as error:
        raise StoreError(f"{error}, or remove that store") from None
    if format == STORE:
        if len(files) != 1:
            raise ConfigError(f"one store is imported at a time, and there are {len(files)}")
        sources = [from_store(files[0], manifest, folder, names, modalities, dtype, ids)]
    else:
        sources = from_files(files, format, manifest, folder, ids, names, modalities)
    done, total = 0, sum(len(source.report.matched) + len(manifest) for source in sources)

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    progress(done, total)
    surveys = [_survey(source, dtype, step) for source in sources]
    for source, (recipe, row_shape, windows) in zip(sources, surveys, strict=True):
        check_target(source.report.path, manifest, recipe, row_shape, windows)
    facts = {"featcache": __version__, **{name: version(name) for name in ("numpy", "zarr")}}
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                StoreWriter.open(
                    source.report.path, manifest, recipe, row_shape=row_shape, windows=windows, facts=facts
                )
            )
            for source, (recipe, row_shape, windows) in zip(sources, surveys, strict=True)
        ]
        manifest.write(folder / "manifest.csv")
        for source, writer in zip(sources, writers, strict=True):
            places = {clip_id: k for k, clip_id in enumerate(source.table.ids)}
            fresh = set(writer.pending)
            writer.retry_failed()
            for row in _in_order(writer, places, manifest):
                clip_id = manifest.clips[row].clip_id
                if row in fresh or clip_id not in source.other:  # what is no good now keeps its reason
                    _keep(writer, row, clip_id, source, places)
                step()
    for source in sources:
        _add_failures(source)
    progress(total, total)
    return [source.report for source in sources]


def export_features(
    stores: Sequence[Path],
    format: str,
    out: Path,
    *,
    overwrite: bool = False,
    names: Mapping[str, str] | None = None,
    progress: Progress = lambda done, total: None,
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


def _survey(source: Source, dtype: str | None, step: Callable[[], None]) -> tuple[dict[str, Any], tuple[int, ...], int]:
    """Read the matched clips through once: the store's recipe, row shape and T. Clips that are no good are noted."""
    matched = set(source.report.matched)
    shapes: dict[tuple[int, ...], str] = {}
    dtypes, windows = set(), source.windows
    for k, clip_id in enumerate(source.table.ids):
        if clip_id not in matched:
            continue
        step()
        try:
            row = source.table.row(k)
        except FeatcacheError as error:
            source.other[clip_id] = ("failed", str(error))
            continue
        if row.dtype.kind not in "fiu" or row.ndim < 2 or not row.size:
            source.other[clip_id] = ("failed", f"has {row.dtype} {row.shape}, not numbers (T, D)")
            continue
        shapes.setdefault(row.shape[1:], clip_id)
        dtypes.add(row.dtype)
        windows = max(windows, len(row))
    if not shapes:
        clip_id, (_, reason) = next(iter(source.other.items()))
        raise FormatError(f"{source.key}: no clip can be used; {clip_id!r}: {reason}")
    if len(shapes) > 1:
        (first, a), (second, b) = list(shapes.items())[:2]
        raise FormatError(
            f"{source.key}: rows differ in shape: a window is {first} in clip {a!r}, {second} in clip {b!r}"
        )
    halves, floats = {np.dtype("float16")}, {np.dtype("float16"), np.dtype("float32")}
    native = {kind.newbyteorder("=") for kind in dtypes}
    chosen = source.recipe.get("dtype") or dtype or ("float16" if native == halves else "float32")
    for kind in sorted(str(kind) for kind in native if kind not in floats or kind.itemsize > np.dtype(chosen).itemsize):
        source.report.notes.append(f"{kind} becomes {chosen}")
    return {**source.recipe, "dtype": chosen}, next(iter(shapes)), windows


def _in_order(writer: StoreWriter, places: Mapping[str, int], manifest: Manifest) -> list[int]:
    """The pending rows as they stand in the file, some blocks of the store after the other.

    A file may be slow to read in another order (parquet: a row group for each row), and a block is open, with two
    files, from its first row to its last.
    """
    span = BLOCKS * writer.layout.block_rows
    return sorted(writer.pending, key=lambda row: (row // span, places.get(manifest.clips[row].clip_id, -1)))


def _keep(writer: StoreWriter, row: int, clip_id: str, source: Source, places: Mapping[str, int]) -> None:
    """Hand a clip's rows, or the reason why there are none, to the store."""
    if clip_id in source.other:
        state, reason = source.other[clip_id]
        (writer.failed if state == "failed" else writer.absent)(row, reason)
        return
    try:
        features = source.table.row(places[clip_id])
        start = stop = np.full(len(features), np.nan)
        if source.table.times is not None:
            start, stop = source.table.times(places[clip_id])
            if start.shape != (len(features),) or stop.shape != start.shape:
                raise FormatError(f"{len(features)} windows with times of {start.shape} and {stop.shape}")
    except FeatcacheError as error:
        writer.failed(row, str(error))
        return
    if refusal := writer.refusal(features):
        writer.failed(row, refusal)
    else:
        writer.done(row, features, start, stop)


def _add_failures(source: Source) -> None:
    """Complete the report with the matched clips that the store has as failed, those of earlier calls included."""
    frame = FeatureStore.open(source.report.path).frame()
    frame = frame[(frame["state"] == "failed") & frame["clip_id"].isin(source.report.matched)]
    source.report.failed = list(zip(frame["clip_id"], frame["reason"], strict=True))
