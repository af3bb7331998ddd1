"""Import other tools' feature files, or one of our own stores, into stores, matched with a manifest by clip id.

import_features([Path("S04.npz")], "npz", manifest, Path("stores"))    -> one store per key of the files, and reports
"""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import __version__, bridges, plugins
from featcache.arguments import Pairs, PathLike, manifest_of, pairs, paths
from featcache.bridges import ID_NAMES, External, Times
from featcache.columns import features_of
from featcache.errors import ConfigError, FeatcacheError, FormatError, StoreError
from featcache.exporting import store_table
from featcache.files import file_sha256, folder_sha256
from featcache.leaks import WARNING, Search
from featcache.manifest import Manifest
from featcache.naming import renamed
from featcache.progress import Progress, reporting
from featcache.remote.urls import on_disk
from featcache.store import FeatureStore, StoreWriter
from featcache.store.reader import is_extending
from featcache.store.writer import check_folder
from featcache.wording import first, quoted

STORE = "store"  #: the format name of our own stores
BLOCKS = 128  #: blocks of a store that are filled at a time; a block has 24 to 48 MB
RUN_BYTES = 8 << 20  #: features that are written at once
SHOWN = 10  #: names in a note
ANOTHER_STORE = "to import anyway, name another store with --key KEY=NAME, or remove that one"
KEPT_FACTS = ("licence", "trained_on")  #: facts of a store that are true of its copies, too
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  #: a store's name, which becomes a folder's name

#: number of a row, its features, start and stop of its windows, and a note
Row = tuple[int, NDArray[Any], NDArray[np.float64], NDArray[np.float64], str]
Survey = tuple[dict[str, Any], tuple[int, ...], int]  #: a store's recipe, row shape and T


@dataclass
class Imported:
    """The result of importing one key of the files: the store, and the clips by outcome."""

    key: str
    path: Path  #: path of the store
    matched: list[str] = field(default_factory=list)  #: clips of the manifest that the file has
    missing: list[str] = field(default_factory=list)  #: clips of the manifest that the file lacks
    extra: list[str] = field(default_factory=list)  #: clips of the file that the manifest lacks
    edited: list[tuple[str, str]] = field(default_factory=list)  #: (id, changes) of clips edited since: not imported
    failed: list[tuple[str, str]] = field(default_factory=list)  #: (id, reason) of matched clips that are unusable
    notes: list[str] = field(default_factory=list)  #: conversions, such as of the dtype


@dataclass(frozen=True)
class Source:
    """The features and the recipe of one store to be made."""

    key: str
    table: External
    recipe: dict[str, Any]  #: without "dtype" where the file decides it
    windows: int  #: T, at least
    report: Imported
    without: dict[str, tuple[str, str]] = field(default_factory=dict)  #: clip without features -> (state, reason)
    files: Sequence[Path] = ()
    notes: dict[str, str] = field(default_factory=dict)  #: clip -> note that a store has on it
    facts: dict[str, Any] = field(default_factory=dict)  #: facts of the store that the features come from

    def portable(self, error: FeatcacheError) -> str:
        """Return a reason in which the files have their names as in the recipe, without folders."""
        return renamed(str(error), {path: path.name for path in self.files})


def import_features(
    files: PathLike | Sequence[PathLike],
    format: str,
    manifest: Manifest | PathLike,
    stores: PathLike = "stores",
    *,
    ids: os.PathLike[str] | Sequence[str | Sequence[str] | os.PathLike[str]] | None = None,
    key: Pairs = (),
    modality: Pairs = (),
    dtype: str | None = None,
    progress: Progress | bool = False,
) -> list[Imported]:
    """Fill `stores/<manifest>/<name>.zarr` for the keys of files, and copy the manifest into the same folder.

    files: files of one format, in any order; each clip of a key is in one of them.
    manifest: a manifest, or the path of its file. stores: folder of all stores.
    format: a name of `bridges.names()`, or "store" for one of our own stores; only rows of clips that have not been
    edited since are taken from a store. ids: clip ids in the order of a file: one list per file, or one list for each
    of the files (default: FILE.ids.txt next to FILE, or else the ids in FILE).
    key: only these keys, {"KEY": "NAME OF ITS STORE"}, "KEY=NAME" or "KEY" (default: all, each into a store of its
    name). modality: {"KEY": "MODALITY"} (default: the modality that the file names, or the key). dtype: float16 or
    float32 (default: the file's). progress: True for a bar, or a callback (rows read and written, all).
    A clip that the files lack becomes absent. In a copy of an extractor's store it becomes failed instead, so that
    `featcache extract --retry-failed` computes it. Repeating an import tries failed clips again.
    Raises FormatError, ConfigError or StoreError before anything is written when no id matches, rows differ in shape,
    or a store in that folder was made from other clips or another file.
    """
    manifest, lists = manifest_of(manifest), _lists(ids)
    names = {name: store or store_name(name) for name, store in pairs("--key", key, named=False).items()}
    modalities, given, folder = pairs("--modality", modality), paths(files), on_disk(stores, "--stores") / manifest.name
    try:
        check_folder(folder, manifest)
    except StoreError as error:
        raise StoreError(f"{error}, or remove that store") from None
    if format == STORE:
        if len(given) != 1:
            raise ConfigError(f"{len(given)} stores are named; import one store at a time")
        sources = [_from_store(given[0], manifest, folder, names, modalities, dtype, lists)]
    else:
        sources = _from_files(given, format, manifest, folder, lists, names, modalities)
    done, total = 0, sum(len(source.report.matched) + len(manifest) for source in sources)
    with reporting(progress, f"import {' and '.join(path.name for path in given)}", "clip") as report:

        def step() -> None:
            nonlocal done
            done += 1
            report(done, total)

        report(done, total)
        surveys = [_survey(source, dtype, manifest, step) for source in sources]
        for source, (recipe, row_shape, windows) in zip(sources, surveys, strict=True):
            _check_target(source.report.path, manifest, recipe, row_shape, windows)
        _write(sources, surveys, manifest, step)
        for source in sources:
            _add_failures(source)
        report(total, total)
    return [source.report for source in sources]


def _lists(ids: Any) -> list[list[str]] | None:
    """Return lists of clip ids: one for each file, or one for all; text files with ids are read."""
    if ids is None:
        return None
    if isinstance(ids, os.PathLike) or all(isinstance(clip_id, str) for clip_id in ids):
        ids = [ids]
    return [bridges.read_ids(Path(each)) if isinstance(each, os.PathLike) else list(each) for each in ids] or None


def _survey(source: Source, dtype: str | None, manifest: Manifest, step: Callable[[], None]) -> Survey:
    """Read the matched clips once, for the store's recipe, row shape and T; record unusable clips as failed."""
    matched = set(source.report.matched)
    labels, search = {clip.clip_id: clip.labels for clip in manifest}, Search(source.table.columns)
    shapes: dict[tuple[int, ...], str] = {}
    dtypes, windows = set(), source.windows
    for k, clip_id in enumerate(source.table.ids):
        if clip_id not in matched:
            continue
        step()
        try:
            row = source.table.row(k)
        except FeatcacheError as error:
            source.without[clip_id] = ("failed", source.portable(error))
            continue
        if row.dtype.kind not in "fiu" or row.ndim < 2 or not row.size:
            source.without[clip_id] = ("failed", f"has {row.dtype} {row.shape}, not numbers (T, D)")
            continue
        shapes.setdefault(row.shape[1:], clip_id)
        dtypes.add(row.dtype)
        windows = max(windows, len(row))
        if len(shapes) == 1:
            search.add(row, labels[clip_id])
    if not shapes:
        clip_id, (_, reason) = next(iter(source.without.items()))
        raise FormatError(f"{source.key}: no clip can be used; {clip_id!r}: {reason}")
    if len(shapes) > 1:
        (first, a), (second, b) = list(shapes.items())[:2]
        raise FormatError(
            f"{source.key}: rows differ in shape: a window has shape {first} in clip {a!r}, {second} in clip {b!r}"
        )
    halves, floats = {np.dtype("float16")}, {np.dtype("float16"), np.dtype("float32")}
    native = {kind.newbyteorder("=") for kind in dtypes}
    chosen = source.recipe.get("dtype") or dtype or ("float16" if native == halves else "float32")
    for kind in sorted(str(kind) for kind in native if kind not in floats or kind.itemsize > np.dtype(chosen).itemsize):
        source.report.notes.append(f"{kind} becomes {chosen}")
    source.report.notes += [f"{WARNING}: {leak}" for leak in search.findings()]
    return {**source.recipe, "dtype": chosen}, next(iter(shapes)), windows


def _write(sources: Sequence[Source], surveys: Sequence[Survey], manifest: Manifest, step: Callable[[], None]) -> None:
    """Fill the stores of the sources, and write a copy of the manifest into their folder."""
    facts = {"featcache": __version__, **{name: version(name) for name in ("numpy", "zarr")}}
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                StoreWriter.open(
                    source.report.path,
                    manifest,
                    recipe,
                    row_shape=row_shape,
                    windows=windows,
                    facts=facts | {name: source.facts[name] for name in KEPT_FACTS if name in source.facts},
                )
            )
            for source, (recipe, row_shape, windows) in zip(sources, surveys, strict=True)
        ]
        manifest.write(sources[0].report.path.parent / "manifest.csv")
        for source, writer in zip(sources, writers, strict=True):
            places = {clip_id: k for k, clip_id in enumerate(source.table.ids)}
            fresh = set(writer.pending)
            writer.retry_failed()
            run = _Run(writer)
            for row in _in_order(writer, places, manifest):
                clip_id = manifest.clips[row].clip_id
                if row in fresh or clip_id not in source.without:  # a clip that is still unusable keeps its reason
                    _keep(run, row, clip_id, source, places)
                step()
            run.write()


def _in_order(writer: StoreWriter, places: Mapping[str, int], manifest: Manifest) -> list[int]:
    """The pending rows in the file's order within each group of blocks.

    A file may be slow to read in another order (parquet: a row group for each row). Blocks are grouped because each
    has two open files from its first row to its last.
    """
    span = BLOCKS * writer.layout.block_rows
    return sorted(writer.pending, key=lambda row: (row // span, places.get(manifest.clips[row].clip_id, -1)))


@dataclass
class _Run:
    """Rows that are to be written to a store at once."""

    writer: StoreWriter
    rows: list[Row] = field(default_factory=list)
    size: int = 0  #: bytes of their features

    def add(self, row: Row) -> None:
        """Add a row, and write all when they are many."""
        self.rows.append(row)
        self.size += row[1].nbytes
        if self.size >= RUN_BYTES:
            self.write()

    def write(self) -> None:
        """Write the rows that have been added."""
        if self.rows:
            rows, features, start, stop, notes = zip(*sorted(self.rows, key=itemgetter(0)), strict=True)
            self.writer.done_many(rows, features, start, stop, notes)
            self.rows, self.size = [], 0


def _keep(run: _Run, row: int, clip_id: str, source: Source, places: Mapping[str, int]) -> None:
    """Add a clip's features to the run, or write the reason why it has none to the store."""
    writer = run.writer
    if clip_id in source.without:
        state, reason = source.without[clip_id]
        (writer.failed if state == "failed" else writer.absent)(row, reason)
        return
    try:
        features = np.array(source.table.row(places[clip_id]))  # a copy: a view may keep a large part of a file
        start = stop = np.full(len(features), np.nan)
        if source.table.times is not None:
            start, stop = source.table.times(places[clip_id])
            if start.shape != (len(features),) or stop.shape != start.shape:
                raise FormatError(f"{len(features)} windows with times of {start.shape} and {stop.shape}")
    except FeatcacheError as error:
        writer.failed(row, source.portable(error))
        return
    if refusal := writer.refusal(features):
        writer.failed(row, refusal)
    else:
        run.add((row, features, start, stop, source.notes.get(clip_id, "")))


def _add_failures(source: Source) -> None:
    """Add the matched clips that failed to the report, including those that failed in earlier calls."""
    matched, outcomes = set(source.report.matched), FeatureStore.open(source.report.path).outcomes()
    source.report.failed = [
        (clip_id, reason) for clip_id, state, reason in outcomes if state == "failed" and clip_id in matched
    ]


def _from_files(
    files: Sequence[Path],
    format: str,
    manifest: Manifest,
    folder: Path,
    ids: list[list[str]] | None,
    names: Mapping[str, str],
    modalities: Mapping[str, str],
) -> list[Source]:
    """The sources for the keys of foreign files; FormatError when a key has no clip of the manifest."""
    parts = _read_files(files, format, ids, manifest)
    named = " and ".join(map(str, files))
    wanted = names or {key: store_name(key) for key in features_of(parts)}
    if not wanted:
        raise FormatError(
            f"{named} has only keys that describe clips by their names: {quoted(parts)}; import one with --key KEY"
        )
    for key in (*wanted, *modalities):
        if key not in parts:
            raise ConfigError(f"{named} has no key {key!r}; it has: {', '.join(parts)}")
    _check_names(wanted)
    digests = {path: _digest(path) for path in files}
    code = plugins.digests(bridges.load(format).__name__)
    sources = []
    for key, name in wanted.items():
        tables = parts[key]
        table = _joined(key, tables)
        report = _matched(key, table, manifest, folder / f"{name}.zarr", named)
        entries = [_origin(path, digests[path], tables[path]) for path in tables]
        entries.sort(key=lambda entry: (entry["file"], entry["sha256"]))  # clips join by id, so any order is the same
        recipe = {
            "recipe": "external",
            "extractor": name,
            "version": 1,
            "modality": modalities.get(key) or _modality(key, tables),
            "weights_sha256": "external",
            "external": {"format": format, "key": key, "files": entries},
            "plan": "external",
            **({"plugin": code} if code else {}),
        }
        lacking = _lacking(report.missing, " or ".join(entry["file"] for entry in entries))
        sources.append(Source(key, table, recipe, 1, report, lacking, files))
    _note_choice(sources, parts, by_name=bool(names))
    return sources


def _note_choice(sources: list[Source], parts: Mapping[str, Mapping[Path, External]], *, by_name: bool) -> None:
    """Note the columns that each key consists of, and in the first report what the files have besides."""
    taken = {source.key for source in sources}
    for source in sources:
        taken |= set(source.table.columns)
        if source.table.columns:
            source.report.notes.append(f"takes the columns {first(source.table.columns)}")
    left_out = [] if by_name else [key for key in parts if key not in taken]
    taken |= {*left_out, *(name for key in left_out for table in parts[key].values() for name in table.columns)}
    others = [name for source in sources for name in source.table.left_out if name not in taken]
    if left_out:
        keys = " ".join(f"--key {shlex.quote(key)}" for key in left_out[:SHOWN])
        sources[0].report.notes.append(f"leaves out {quoted(left_out, SHOWN)}, by name (to import it: {keys})")
    if others:
        sources[0].report.notes.append(f"leaves out {quoted(dict.fromkeys(others), SHOWN)}")


def _read_files(
    files: Sequence[Path], format: str, ids: list[list[str]] | None, manifest: Manifest
) -> dict[str, dict[Path, External]]:
    """Read the files: key -> file -> the file's features of that key."""
    bridge = bridges.load(format)
    if not files:
        raise ConfigError("no file to import; name one or more")
    lists: list[Any] = [None] if ids is None else ids
    if len(lists) not in (1, len(files)):
        raise ConfigError(
            f"--ids is given {len(lists)} times for {len(files)} files; give it once per file, in the order of the"
            " files, or once if all files have the same clips in the same order"
        )
    parts: dict[str, dict[Path, External]] = {}
    for path, own in zip(files, lists * (len(files) // len(lists)), strict=True):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise FormatError(f"{path} is neither a file nor a folder; save its content to a file")
        try:
            tables = _read_file(bridge, path, own, manifest)
        except FormatError as error:
            shared = "; --ids is given once, for each of the files: give it once per file, in their order"
            raise FormatError(f"{error}{shared if own and len(lists) < len(files) else ''}") from None
        for key, table in tables.items():
            parts.setdefault(key, {})[path] = table
    return parts


def _read_file(bridge: Any, path: Path, ids: Sequence[str] | None, manifest: Manifest) -> dict[str, External]:
    """Read a file with `ids`, or else with those in FILE.ids.txt next to it, or else with its own.

    FormatError if the file has ids of clips of the manifest inside, and FILE.ids.txt has others.
    """
    beside = bridges.ids_file(path)
    if ids is not None or not beside.is_file() or hasattr(bridge, "companions"):  # such a bridge reads it itself
        return bridge.read(path, ids)
    listed = bridges.read_ids(beside)
    try:
        tables = bridge.read(path, None)
        inside = dict.fromkeys(clip_id for table in tables.values() for clip_id in table.ids)
    except FeatcacheError:
        inside = {}  # it cannot be read without a list of ids
    if list(inside) == listed:
        return tables
    try:
        tables = bridge.read(path, listed)
    except FormatError as error:
        raise FormatError(f"{error}; the ids are those of {beside}: correct that file or move it away") from None
    if not inside.keys().isdisjoint(clip.clip_id for clip in manifest):
        raise FormatError(
            f"{path} has ids of its own, {quoted(inside)}, and {beside.name} next to it has others, {quoted(listed)};"
            f" move {beside.name} away, or choose it with --ids"
        )
    return tables


def _matched(key: str, table: External, manifest: Manifest, path: Path, named: str) -> Imported:
    """A report that lists the matched, missing and extra clips of a key; FormatError when no clip matches."""
    clip_ids = dict.fromkeys(clip.clip_id for clip in manifest)
    table_ids = set(table.ids)
    report = Imported(key, path)
    report.matched = [clip_id for clip_id in clip_ids if clip_id in table_ids]
    report.missing = [clip_id for clip_id in clip_ids if clip_id not in table_ids]
    report.extra = [clip_id for clip_id in table.ids if clip_id not in clip_ids]
    if not report.matched:
        raise FormatError(
            f"{named}: no clip of {key} is in manifest {manifest.name!r}; the file has {quoted(table.ids)}, "
            f"the manifest has {quoted(clip_ids)}; if the file has no ids, {bridges.GIVE_IDS}"
        )
    return report


def _modality(key: str, tables: Mapping[Path, External]) -> str:
    """The modality that the files name, or the key; ConfigError when two files name different ones."""
    first, *others = dict.fromkeys(str(part.recipe.get("modality", key.lower())) for part in tables.values())
    if others:
        raise ConfigError(
            f"{key} has modality {first} in one file and {others[0]} in another; choose with --modality {key}=NAME"
        )
    return first


def _origin(path: Path, digest: str, table: External) -> dict[str, Any]:
    """The entry of one file in the recipe."""
    return {
        "file": path.name,
        "sha256": digest,
        "ids_sha256": hashlib.sha256(json.dumps(list(table.ids)).encode()).hexdigest(),
        **({"columns": list(table.columns)} if set(table.left_out) - set(ID_NAMES) and table.columns else {}),
        **({"recipe": json.loads(json.dumps(table.recipe, default=str))} if table.recipe else {}),
    }


def _joined(key: str, tables: Mapping[Path, External]) -> External:
    """The clips of several files, file after file; FormatError when two of the files have the same clip."""
    first: dict[str, Path] = {}
    for path, table in tables.items():
        for clip_id in table.ids:
            if first.setdefault(clip_id, path) != path:
                raise FormatError(
                    f"clip {clip_id!r} of {key} is in {first[clip_id]} and in {path}; import one of them, or each with"
                    f" a command of its own, into another store (--key KEY=NAME). If the files have no ids,"
                    f" {bridges.GIVE_IDS}"
                )
    places = [(table, k) for table in tables.values() for k in range(len(table.ids))]

    def row(k: int) -> NDArray[Any]:
        table, place = places[k]
        return table.row(place)

    def times(k: int) -> Times:
        table, place = places[k]
        if table.times is not None:
            return table.times(place)
        unknown = np.full(len(table.row(place)), np.nan)
        return unknown, unknown

    timed = any(table.times is not None for table in tables.values())
    ids = [clip_id for table in tables.values() for clip_id in table.ids]
    columns = next(iter(tables.values())).columns
    left_out = dict.fromkeys(name for table in tables.values() for name in table.left_out)
    return External(ids, row, times if timed else None, columns=columns, left_out=list(left_out))


def _from_store(
    path: Path,
    manifest: Manifest,
    folder: Path,
    names: Mapping[str, str],
    modalities: Mapping[str, str],
    dtype: str | None,
    ids: object,
) -> Source:
    """The source for one of our own stores: the rows whose clips are unchanged in the manifest, and the recipe."""
    if modalities or ids is not None or dtype not in (None, FeatureStore.open(path).layout.dtype):
        raise ConfigError(f"{path} is a store, and its ids, modality and dtype are kept; remove these options")
    store = FeatureStore.open(path)
    wanted = dict(names or {store.modality: path.stem})
    if list(wanted) != [store.modality]:
        raise ConfigError(f"{path} has no key {', '.join(wanted)!r}; its only key is its modality, {store.modality}")
    _check_names(wanted)
    target = folder / f"{wanted[store.modality]}.zarr"
    if target.resolve() == path.resolve():
        raise ConfigError(f"{path} would be imported into itself; choose another --stores folder")
    report = Imported(store.modality, target)
    row_of = {clip_id: row for row, clip_id in enumerate(store.clip_ids)}
    taken, without, states = [], {}, [state for _, state, _ in store.outcomes()]
    for clip in manifest:
        row = row_of.get(clip.clip_id)
        changes = "" if row is None else _changes(store.rows[row], clip.identity())
        if row is not None and changes:
            report.edited.append((clip.clip_id, changes))
            without[clip.clip_id] = ("failed", f"edited since {path.name} was made: {changes}")
        elif row is None or not store.state[row]:
            report.missing.append(clip.clip_id)
        else:
            report.matched.append(clip.clip_id)
            if store.length[row]:
                taken.append(row)
            else:
                without[clip.clip_id] = (states[row], store.failures[row])
    clip_ids = dict.fromkeys(clip.clip_id for clip in manifest)
    report.extra = [clip_id for clip_id in store.clip_ids if clip_id not in clip_ids]
    if not taken:
        edited = f"; edited since: {quoted(clip_id for clip_id, _ in report.edited)}" if report.edited else ""
        raise FormatError(
            f"{path}: no clip with state done is in manifest {manifest.name!r}; the store has "
            f"{quoted(store.clip_ids)}, the manifest has {quoted(clip_ids)}{edited}"
        )
    store.verify(taken)  # before anything is written: the new digests of the copy would hide damage
    without |= _lacking(report.missing, path.name, "absent" if store.recipe.get("recipe") == "external" else "failed")
    notes = {store.clip_ids[row]: note for row, note in store.notes.items()}
    table = store_table(store, taken)
    return Source(
        store.modality, table, store.recipe, store.windows, report, without, [path], notes=notes, facts=store.facts
    )


def _lacking(missing: list[str], file: str, state: str = "absent") -> dict[str, tuple[str, str]]:
    return dict.fromkeys(missing, (state, f"not in {file}"))


def _check_target(
    path: Path, manifest: Manifest, recipe: dict[str, Any], row_shape: tuple[int, ...], windows: int
) -> None:
    """Raise StoreError when `path` holds anything other than this import or a part of it."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())) or is_extending(path):
        return  # the writer finishes an extension that was interrupted
    store = None
    try:
        store = FeatureStore.open(path)
        journals = any((path / "journal").glob("*"))  # before `state`, which a commit writes before it removes these
        if not journals and not store.state.any():
            return  # created, then interrupted before its first row; the writer creates it again
        store.check_recipe(recipe)
        store.check_rows(manifest, extensible=True)
        if store.row_shape != row_shape or store.windows < windows:
            raise StoreError(
                f"{path} has rows of up to {store.windows} windows of {store.row_shape}; new clips have up to "
                f"{windows} of {row_shape}"
            )
    except StoreError as error:
        raise StoreError(f"{error}\n{_all_files(store, recipe) if store else ''}{ANOTHER_STORE}") from None


def _all_files(store: FeatureStore, recipe: dict[str, Any]) -> str:
    """The command that fills a store from further files, if the store has the same key of other files; else ""."""
    stored, now = (made.get("external", {}) for made in (store.recipe, recipe))
    if not now or any(stored.get(name) != now[name] for name in ("format", "key")):
        return ""
    names = [entry.get("file") for entry in stored.get("files", [])]
    further = [entry["file"] for entry in now["files"] if entry["file"] not in names]
    if not further:
        return ""
    command = " ".join(map(shlex.quote, [*names, *further]))
    return (
        f"one command fills a store from all its files: remove {store.path}, then "
        f"`featcache import {now['format']} {command} MANIFEST`;\n"
    )


def _digest(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the sorted names and digests of a folder's files."""
    if not path.is_dir():
        return file_sha256(path)
    return folder_sha256(path, [p.relative_to(path).as_posix() for p in sorted(path.rglob("*")) if p.is_file()])


def store_name(key: str) -> str:
    """The default name of a key's store."""
    return re.sub(r"[^a-z0-9_.-]+", "_", key.lower()).strip("._-") or "features"


def _check_names(names: Mapping[str, str]) -> None:
    for key, name in names.items():
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"{key}={name}: a store's name may have only letters, digits and _ . - and may not begin with . or -"
            )
        if list(names.values()).count(name) > 1:
            raise ConfigError(f"two keys would become the store {name!r}; give them other names with --key KEY=NAME")


def _changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The differences between a clip as it was decoded and as it is now; "" when there are none."""
    return ", ".join(f"{key} {before[key]!r} then, {now[key]!r} now" for key in before if before[key] != now[key])
