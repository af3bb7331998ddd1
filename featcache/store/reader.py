"""Read a store.

>>> store = FeatureStore.open("stores/kitchens/hog.zarr")        # doctest: +SKIP
>>> store["loft_cut_003"].shape                                   # doctest: +SKIP
(5, 468)
"""

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import StoreError
from featcache.manifest import Manifest, typed
from featcache.progress import Progress, silent
from featcache.store import _format as fmt
from featcache.store import _metadata, _packed, digests
from featcache.wording import first, shortened

if TYPE_CHECKING:
    import pandas as pd
    import torch


SHOWN = 3  #: differing rows that an error message spells out


class FeatureStore:
    """One extractor's frozen features of one manifest: N rows of T windows. Row i is row i of the manifest.

    Only rows whose `state` is done have features; in `features` the others are zeros.
    """

    def __init__(
        self,
        path: Path,
        attributes: dict[str, Any],
        layout: fmt.Layout,
        archived: bool = False,
        progress: Progress = silent,
    ) -> None:
        self.path = path
        self.layout = layout
        self.archived = archived  #: True for an archive, whose features are compressed: see archive.py
        self._progress = progress
        self.attributes = attributes  #: attributes of the zarr group: format, manifest, recipe, facts
        self.manifest: str = attributes["manifest"]  #: the manifest's name
        self.recipe: dict[str, Any] = attributes["recipe"]  #: all that determines these features
        self.facts: dict[str, Any] = attributes["facts"]  #: all else about their making, such as library versions
        self.name: str = self.recipe["extractor"]
        self.modality: str = self.recipe["modality"]  #: the modality of the rows: rgb, flow, audio, ...
        #: digest of the network's weights; "none" for extractors without weights, "untrained:SEED" for random weights
        self.weights_sha256: str = self.recipe["weights_sha256"]
        self.windows = layout.windows  #: T, windows per clip
        self.row_shape = layout.row_shape  #: shape of one window's feature

    @classmethod
    def open(cls, path: str | Path, progress: Progress = silent) -> "FeatureStore":
        """Open a store for reading; StoreError when there is no store, or its metadata is damaged.

        progress: blocks (done, total) of an archive, which is decoded into memory at the first read.
        """
        path = Path(path)
        if is_extending(path):
            raise StoreError(
                f"clips are being appended to {path}, or appending was interrupted; `featcache extract` with the same "
                "manifest or `featcache repair` finishes it"
            )
        store = open_unchecked(path, progress)
        try:
            digests.check_metadata(path)
            _metadata.check_arrays(path, store.layout)
        except fmt.MISSING as error:
            raise StoreError(f"{error.filename} is missing; try `featcache repair {path}`") from None
        return store

    @property
    def recipe_sha256(self) -> str:
        """Digest of the recipe: equal digests mean the same kind of features."""
        return recipe_digest(self.recipe)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of recipe, rows and every committed block: equal fingerprints mean equal content."""
        digest = hashlib.sha256(self.recipe_sha256.encode())
        digest.update(self.rows_file)
        digest.update(self._digests.tobytes())
        return digest.hexdigest()

    @cached_property
    def rows_file(self) -> bytes:
        """The content of rows.csv; equal contents mean equal clips in equal order."""
        return digests.fixed_file(self.path, "rows.csv")

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """The clip that each row was decoded from: clip_id, source, start, stop, unit, fps, caption."""
        try:
            rows = list(csv.DictReader(io.StringIO(self.rows_file.decode(), newline="")))
        except (UnicodeDecodeError, csv.Error) as error:
            raise StoreError(
                f"{self.path / 'rows.csv'} is damaged ({error}); try `featcache repair {self.path}`"
            ) from None
        if len(rows) != len(self) or any(row.get("clip_id") is None or None in (*row, *row.values()) for row in rows):
            raise StoreError(
                f"{self.path / 'rows.csv'} was changed: it has {len(rows)} rows, the features have {len(self)}; "
                f"try `featcache repair {self.path}`"
            )
        return rows

    @cached_property
    def clip_ids(self) -> list[str]:
        """The clip id of each row."""
        return [row["clip_id"] for row in self.rows]

    @cached_property
    def state(self) -> NDArray[np.uint8]:
        """The state of each row (N,): 0 not tried, 1 done, 2 failed, 3 absent in the source."""
        return self._checked("state", self._array("state"), len(fmt.STATES) - 1)

    @cached_property
    def window_start(self) -> NDArray[np.float64]:
        """The start of each window (N, T), seconds within the source; NaN where unknown."""
        return self._array("window_start")

    @cached_property
    def window_stop(self) -> NDArray[np.float64]:
        """The end of each window (N, T), seconds within the source; NaN where unknown."""
        return self._array("window_stop")

    @cached_property
    def length(self) -> NDArray[np.uint32]:
        """The number of windows of each row (N,), at most T; 0 for rows that are not done."""
        return self._checked("length", self._array("length"), self.windows)

    @property
    def present(self) -> NDArray[np.bool_]:
        """A mask of the windows that exist (N, T): the first `length` of each row that is done."""
        done = self.state == fmt.DONE
        if done.any():
            self._check_windows()
            return (np.arange(self.windows) < self.length[:, None]) & done[:, None]
        return np.zeros((len(self), self.windows), bool)

    @property
    def features(self) -> NDArray[np.floating]:
        """All features (N, T, *row_shape), read from disk at each access."""
        return self.read()

    def read(self, rows: Any = None) -> NDArray[np.floating]:
        """Read these rows (default: all) in the stored dtype, (n, T, *row_shape); rows not committed are zeros.

        rows: numbers, or a mask (N,).
        A shard holds its rows from byte 0 on, so rows are copied directly from the mapped file. This is about as fast
        as reading a raw file; zarr-python decodes chunk by chunk. Their blocks are verified first, see `verify`.
        """
        rows = row_numbers(rows, len(self))
        self.verify(rows)
        blocks, places = np.divmod(rows, self.layout.block_rows)
        done = self.state[rows] == fmt.DONE
        out = np.zeros((len(rows), self.windows, *self.row_shape), np.dtype(self.layout.dtype).newbyteorder("<"))
        flat = out.reshape(-1).view(np.uint8).reshape(len(rows), self.layout.row_bytes)
        for block in np.unique(blocks[done]).tolist():
            path = self.path / self.layout.files(block)["features"]
            wanted = np.flatnonzero(done & (blocks == block))
            span = self.layout.span(block)
            block_rows = self._decoded[span.start : span.stop] if self.archived else self.layout.map_rows(path)
            if places[wanted].max() >= len(block_rows):
                raise StoreError(f"{path} is missing or too short; `featcache check {self.path}` shows the details")
            flat[wanted] = block_rows[places[wanted]]
        return out

    def verify(self, rows: Any = None) -> None:
        """Compare the features of the blocks that hold these rows (default: all) with the blocks' digests.

        A block is read once per process for this, unless it changes; `read` does the same. rows: as in `read`.
        Raises StoreError with the damaged file and the fix.
        """
        rows = row_numbers(rows, len(self))
        blocks = np.unique(rows[self.state[rows] == fmt.DONE] // self.layout.block_rows)
        if self.archived:
            _ = self._decoded if len(blocks) else None  # decoding compares every block
            return
        for block in blocks.tolist():
            path = self.path / self.layout.file(block, "features")
            try:
                checksum = digests.shard_crc(path)
            except fmt.MISSING:
                raise self._missing(block, path) from None
            digests.check(self.path, block, self.layout, "features", checksum, self._digests)

    @cached_property
    def _digests(self) -> NDArray[np.uint32]:
        """The array `digest`."""
        if not self.archived:
            return digests.digests(self.path, self.layout, committed(self.path, self.layout))
        rows = np.zeros((self.layout.blocks, digests.SEAL + 1), "<u4")
        for block in committed(self.path, self.layout):
            row = self._small_file(block, "digest")
            if len(row) != rows[block].nbytes:
                path = self.path / self.layout.file(block, "digest")
                raise StoreError(f"{path} is cut off; get another copy of the archive")
            rows[block] = np.frombuffer(row, "<u4")
        return rows

    @cached_property
    def _archive(self) -> _packed.Archive:
        return _packed.Archive(self.path)

    @cached_property
    def _decoded(self) -> NDArray[np.uint8]:
        """All rows of an archive, (N, row_bytes)."""
        return _packed.features(self._archive, self.layout, self._progress)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path only, so that the store is opened again where it is unpickled."""
        return FeatureStore.open, (self.path,)

    @cached_property
    def failures(self) -> dict[int, str]:
        """Row -> the reason why it failed or is absent."""
        if not np.isin(self.state, (fmt.FAILED, fmt.ABSENT)).any():
            return {}
        return self._reasons(fmt.FAILED, fmt.ABSENT)

    @cached_property
    def notes(self) -> dict[int, str]:
        """Row -> a note on a row that is done, such as which of several streams of its source was taken."""
        return self._reasons(fmt.DONE)

    def _reasons(self, *states: int) -> dict[int, str]:
        """Row -> reason or note of the rows in these states."""
        reasons: dict[int, str] = {}
        for block in committed(self.path, self.layout):
            path = self.path / self.layout.file(block, "failures")
            reasons |= fmt.failures(self._small_file(block, "failures"), path, self.layout.span(block))
        return {row: reason for row, reason in reasons.items() if self.state[row] in states}

    def counts(self) -> dict[str, int]:
        """Name of a state -> number of rows in that state."""
        counter = Counter(self.state.tolist())
        return {name: counter[state] for state, name in enumerate(fmt.STATES)}

    def __len__(self) -> int:
        return self.layout.rows

    def __getitem__(self, key: str | int | slice) -> NDArray[np.floating]:
        """The features of a clip id or a row number (T, *row_shape), or of a slice of rows (n, T, *row_shape).

        A single row that is not done is an error; in a slice it is zeros (see `state`).
        """
        if isinstance(key, slice):
            return self.read(range(*key.indices(len(self))))
        row = self._row(key)
        if self.state[row] != fmt.DONE:
            reason = self.failures.get(row, "it has not been extracted yet")
            raise StoreError(f"{self.path}: clip {self.clip_ids[row]!r} is {fmt.STATES[self.state[row]]}: {reason}")
        return self.read([row])[0]

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.floating]]]:
        """Iterate over (clip id, features (T, *row_shape)) of the rows that are done."""
        features = self.features
        return ((self.clip_ids[row], features[row]) for row in np.flatnonzero(self.state == fmt.DONE))

    def to_torch(self, rows: Any = None, device: str = "cpu") -> "torch.Tensor":
        """Features of these rows (default: all) as a float32 tensor (n, T, *row_shape)."""
        import torch

        return torch.from_numpy(self.read(rows)).to(device, torch.float32)

    def outcomes(self) -> list[tuple[str, str, str]]:
        """Clip id, state, and the reason where a clip failed or is absent (else "") of each row."""
        states = [fmt.STATES[state] for state in self.state.tolist()]
        return [(self.clip_ids[row], state, self.failures.get(row, "")) for row, state in enumerate(states)]

    def frame(self, manifest: Manifest | None = None) -> "pd.DataFrame":
        """A table with one line per row: its clip, its state, and a reason where it is not done.

        Only the columns that some clip uses; start, stop and fps are numbers, NaN where a cell is empty.
        Domain, split and labels of the clips are those of `manifest` (default: that of the manifest.csv next to the
        store), empty for clips that it does not have. Without any manifest the table has no such columns.
        """
        import pandas as pd

        table = typed(pd.DataFrame(self.rows, dtype=str))
        if not {"start", "stop"} & set(table):
            table = table.drop(columns="unit", errors="ignore")
        place = self.path.parent / "manifest.csv"
        if manifest or place.is_file():
            clips = (manifest or Manifest.read(place)).frame().set_index("clip_id")
            described = [name for name in map(str, clips) if name in ("domain", "split") or name.startswith("label")]
            matched = clips[described].reindex(table["clip_id"]).fillna("").reset_index(drop=True)
            table = pd.concat([table[["clip_id"]], matched, table.drop(columns="clip_id")], axis=1)
        _, table["state"], table["reason"] = zip(*self.outcomes(), strict=True) if len(self) else ((), (), ())
        return table

    def __repr__(self) -> str:
        place = os.path.join(*self.path.parts[-2:]) if self.path.parts else "."
        try:
            states = ", ".join(f"{count} {state}" for state, count in self.counts().items() if count)
        except (StoreError, OSError) as error:
            states = f"damaged: {error}"
        head = f"FeatureStore {place}: {len(self)} clips of manifest {self.manifest!r} ({states})"
        rows = f"{self.windows} windows of {self.row_shape} {self.layout.dtype}"
        plan = self.recipe.get("plan", "unknown")
        tail = f"extractor {self.name}, modality {self.modality}, {rows} per clip, plan {plan}"
        return f"{shortened(head)}\n{shortened(tail)}"

    def _repr_html_(self) -> str:
        head, tail = map(escape, repr(self).split("\n"))
        return f"<p>{head}<br>{tail}</p>\n{self.frame().to_html(max_rows=10)}"

    def check_rows(self, manifest: Manifest, *, extensible: bool = False) -> None:
        """Raise StoreError, with the differences, unless the store was made from these clips in this order.

        extensible: the manifest may have more clips after those of the store.
        """
        stored, expected = self.rows_file, rows_csv(manifest)
        if expected == stored or (extensible and expected.startswith(stored)):
            return
        if expected.startswith(stored):
            raise StoreError(
                f"{self.path} lacks the last {len(manifest) - len(self)} clips of manifest {manifest.name!r}; "
                f"`featcache extract` with that manifest and {self.name} appends them"
            )
        differences = _differences({row["clip_id"]: row for row in self.rows}, [clip.identity() for clip in manifest])
        raise StoreError(
            f"{self.path} was made from other clips than manifest {manifest.name!r}:\n  "
            + "\n  ".join(differences)
            + "\nadd new clips only after the old ones, extract into another --stores folder, or give the manifest "
            "another name"
        )

    def check_recipe(self, recipe: dict[str, Any]) -> None:
        """Raise StoreError, with the differences, unless rows made by this recipe may be written to the store."""
        if self.archived:
            raise StoreError(f"{self.path} is an archive; `featcache unpack` makes a store of it that can be written")
        if differences := recipe_differences(self.recipe, recipe):
            lines = [
                f"{key}: {stored!r} in the store, {requested!r} requested" for key, stored, requested in differences
            ]
            raise StoreError(
                f"{self.path} was made by another recipe:\n  "
                + "\n  ".join(lines)
                + "\nuse the store's recipe, or extract into another --stores folder"
            )

    def has_recipe(self, recipe: dict[str, Any]) -> bool:
        """Return True if rows made by this recipe have what the store's rows have."""
        return not recipe_differences(self.recipe, recipe)

    def _row(self, key: str | int) -> int:
        if isinstance(key, str):
            try:
                return self._row_of[key]
            except KeyError:
                raise StoreError(f"{self.path}: no clip {key!r} among {len(self)}") from None
        if not isinstance(key, int | np.integer):
            raise TypeError(f"a store is indexed by a clip id, a row number or a slice, not {type(key).__name__}")
        if not -len(self) <= key < len(self):
            raise IndexError(f"{self.path}: no row {key} among {len(self)}")
        return int(key) % len(self)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {clip_id: row for row, clip_id in enumerate(self.clip_ids)}

    def _check_windows(self) -> None:
        """Raise StoreError if the metadata declares more windows than the files of the first block have."""
        times = self.path / self.layout.file(committed(self.path, self.layout)[0], "window_start")
        expected = 8 * self.layout.block_rows * self.windows
        if times.is_file() and times.stat().st_size != expected:
            raise StoreError(
                f"{self.path} declares {self.windows} windows a row, which take {expected} bytes in {times}, but it "
                f"has {times.stat().st_size}; `featcache check {self.path}` shows the details"
            )

    def _checked(self, name: str, values: NDArray[Any], most: int) -> NDArray[Any]:
        """Return the values; StoreError if one is larger than `most`."""
        if (values > most).any():
            row = int(np.argmax(values > most))
            raise StoreError(
                f"{self.path}: {name} of row {row} is {values[row]}, and at most {most} is possible; "
                f"`featcache check {self.path}` shows the details"
            )
        return values

    def _array(self, name: str) -> NDArray[Any]:
        """Read a whole small array, with zeros for blocks not committed. Its chunks are plain files, one per block."""
        dtype, row = {
            "window_start": ("<f8", (self.windows,)),
            "window_stop": ("<f8", (self.windows,)),
            "length": ("<u4", ()),
            "state": ("u1", ()),
        }[name]
        out = np.zeros((len(self), *row), dtype)
        for block in committed(self.path, self.layout):
            place, data = self.layout.as_slice(block), self._small_file(block, name)
            try:
                values = np.frombuffer(data, dtype).reshape(-1, *row)
                if len(values) != self.layout.block_rows:
                    raise ValueError("cut off")
            except ValueError:
                path = self.path / self.layout.file(block, name)
                raise StoreError(f"{path} is cut off; `featcache check {self.path}` shows the details") from None
            out[place] = values[: len(out[place])]
        return out

    def _small_file(self, block: int, name: str) -> bytes:
        """Read a small file of a committed block, and compare it with its digest; b"" for a block without failures."""
        path = self.layout.file(block, name)
        if self.archived:
            return self._archive.read(str(path)) if name != "failures" or str(path) in self._archive.packed else b""
        try:
            data = fmt.read_bytes(self.path / path)
        except fmt.MISSING:
            if name != "failures":
                raise self._missing(block, self.path / path) from None
            data = b""
        digests.check(self.path, block, self.layout, name, fmt.crc(data), self._digests)
        return data

    def _missing(self, block: int, path: Path) -> StoreError:
        """Make the error for a file that a committed block lacks; StoreError if the block is being written again."""
        digests.check_committed(self.path, block, self.layout)
        return StoreError(f"{path} is missing; `featcache check {self.path}` shows the details")


def open_unchecked(path: Path, progress: Progress = silent) -> FeatureStore:
    """Open a store whose small arrays may have damaged metadata; they are not compared with the features."""
    try:
        attributes = _metadata.attributes(path)
        archived = (path / fmt.ARCHIVE).exists()
        return FeatureStore(path, attributes, _metadata.layout(path, archived=archived), archived, progress)
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"no feature store at {path}; `featcache extract` makes one") from None


def recipe_digest(recipe: dict[str, Any]) -> str:
    """Digest of a recipe: equal digests mean the same kind of features."""
    return hashlib.sha256(fmt.json_bytes(recipe)).hexdigest()


check_recorded = _metadata.check_recorded


def recipe_differences(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (name of the parameter, value of one, value of the other) where two recipes differ; "nothing" if unset."""
    a, b = flat(one), flat(other)
    unequal = {name for name in a.keys() | b.keys() if a.get(name) != b.get(name)}
    names = sorted(name for name in unequal if repr(a.get(name)) != repr(b.get(name)))  # NaN is unequal to itself
    return [(name, a.get(name, "nothing"), b.get(name, "nothing")) for name in names]


def is_extending(path: Path) -> bool:
    """Return whether clips are being appended to a store, or appending was interrupted."""
    return (path / fmt.EXTENSION).exists()


def committed(folder: Path, layout: fmt.Layout) -> list[int]:
    """The blocks that have a `state`."""
    names = os.listdir(path) if (path := folder / layout.file(0, "state").parent).is_dir() else []
    blocks = (int(name) for name in names if name.isascii() and name.isdecimal() and str(int(name)) == name)
    return sorted(block for block in blocks if block < layout.blocks)


def row_numbers(rows: Any, count: int) -> NDArray[np.int64]:
    """Convert `rows` to row numbers in [0, count): numbers, negative from the end; a mask (count,); None for all.

    Raises IndexError for rows outside, TypeError for anything else than whole numbers or a mask.
    """
    if rows is None:
        return np.arange(count)
    numbers = np.asarray(rows)
    if numbers.dtype == bool:
        if numbers.shape != (count,):
            raise IndexError(f"a mask of shape {numbers.shape} for {count} rows")
        return np.flatnonzero(numbers)
    if numbers.size and not np.issubdtype(numbers.dtype, np.integer):
        raise TypeError(f"rows are whole numbers or a mask, not {numbers.dtype}")
    numbers = numbers.astype(np.int64).reshape(-1)
    if numbers.size and not (-count <= numbers.min() and numbers.max() < count):
        raise IndexError(f"rows {numbers.min()} to {numbers.max()} reach outside the {count} rows")
    return numbers % max(1, count)


def rows_csv(manifest: Manifest) -> bytes:
    """The content of rows.csv for a store made from this manifest."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)  # a bare \r would end a row
    writer.writerow(manifest.clips[0].identity())
    writer.writerows(clip.identity().values() for clip in manifest)
    return out.getvalue().encode()


def _differences(stored: dict[str, dict[str, str]], clips: list[dict[str, str]]) -> list[str]:
    """The differences between a store's rows (by clip id, in order) and a manifest's clips, a few of each kind."""
    ids = [clip["clip_id"] for clip in clips]
    row_of = {clip_id: row for row, clip_id in enumerate(ids)}
    kept = [clip_id for clip_id in stored if clip_id in row_of]
    last = row_of[kept[-1]] if kept else len(ids)
    kinds = {
        "removed": [repr(clip_id) for clip_id in stored if clip_id not in row_of],
        "edited": [
            f"{clip_id!r} ({key} {value!r} in the store, {clips[row_of[clip_id]][key]!r} in the manifest)"
            for clip_id in kept
            for key, value in stored[clip_id].items()
            if value != clips[row_of[clip_id]][key]
        ],
        "moved": [repr(b) for a, b in pairwise(kept) if row_of[b] < row_of[a]],
        "new, but not at the end": [repr(clip_id) for clip_id in ids[:last] if clip_id not in stored],
    }
    return [f"{kind}: {first(names, SHOWN)}" for kind, names in kinds.items() if names]


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested values: {"a": {"b": [{"c": 1}]}} -> {"a.b.0.c": 1}; lists of plain values stay whole."""
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        value = {str(k): part for k, part in enumerate(value)}
    if not isinstance(value, dict) or (prefix and not value):
        return {prefix: value}
    return {
        key: leaf
        for name, part in value.items()
        for key, leaf in flat(part, f"{prefix}.{name}" if prefix else name).items()
    }
