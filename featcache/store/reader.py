"""Reading a store.

>>> store = FeatureStore.open("stores/kitchens/hog.zarr")        # doctest: +SKIP
>>> store["loft_cut_003"].shape                                   # doctest: +SKIP
(5, 468)
"""

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import StoreError
from featcache.manifest import Manifest
from featcache.progress import Progress, silent
from featcache.store import _format as fmt
from featcache.store import _packed
from featcache.wording import first

if TYPE_CHECKING:
    import pandas as pd
    import torch


SHOWN = 3  #: differing rows that an error message spells out


class FeatureStore:
    """One extractor's frozen features of one manifest: N rows of T windows. Row i is row i of the manifest.

    `state` alone says which rows are there; `features` has zeros in the others.
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
        self.archived = archived  #: whether the features are compressed: see archive.py
        self._progress = progress
        self.attributes = attributes  #: of the zarr group: format, manifest, recipe, facts
        self.manifest: str = attributes["manifest"]  #: its name
        self.recipe: dict[str, Any] = attributes["recipe"]  #: what makes these features what they are
        self.facts: dict[str, Any] = attributes["facts"]  #: versions that carried them
        self.name: str = self.recipe["extractor"]
        self.modality: str = self.recipe["modality"]  #: what the rows describe: rgb, flow, audio, ...
        #: digest of the network's weights; "none" where rows are computed by rule, "untrained:SEED" where random
        self.weights_sha256: str = self.recipe["weights_sha256"]
        self.windows = layout.windows  #: T, windows per clip
        self.row_shape = layout.row_shape  #: shape of one window's feature

    @classmethod
    def open(cls, path: str | Path, progress: Progress = silent) -> "FeatureStore":
        """Open for reading; StoreError when there is no store or its metadata cannot be understood.

        progress: of an archive, whose features are all decoded into memory when the first are asked for: blocks
        (done, total).
        """
        path = Path(path)
        if is_extending(path):
            raise StoreError(
                f"clips are being appended to {path}, or that was interrupted; `featcache extract` with the same "
                "manifest or `featcache repair` finishes it"
            )
        try:
            attributes = json.loads((path / "zarr.json").read_text())["attributes"]["featcache"]
            if attributes["format"] != fmt.FORMAT:
                raise StoreError(
                    f"{path} has format {attributes['format']}; this featcache reads {fmt.FORMAT}; extract or import "
                    "it again, or read it with the featcache that wrote it"
                )
            features = json.loads((path / "features" / "zarr.json").read_text())
            rows, windows, *row_shape = features["shape"]
            layout = fmt.Layout(rows, windows, tuple(row_shape), features["data_type"])
            archived = (path / fmt.ARCHIVE).exists()
            if not archived and not layout.is_of(features):
                raise StoreError(
                    f"the features in {path} are not rows in order, as featcache writes them (other shards, chunks or "
                    "codecs), so they were written anew by something else; ask `featcache check`"
                )
            return cls(path, attributes, layout, archived, progress)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(f"no feature store at {path}; `featcache extract` makes one") from None
        except StoreError:
            raise
        except (LookupError, TypeError, ValueError) as error:
            raise StoreError(f"{path} is not a feature store of ours, or its metadata is damaged ({error!r})") from None

    @property
    def recipe_sha256(self) -> str:
        """Digest of the recipe: equal digests, equal kind of features."""
        return hashlib.sha256(fmt.json_bytes(self.recipe)).hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """Digest of recipe, rows and every committed block: equal fingerprints, equal content."""
        digest = hashlib.sha256(self.recipe_sha256.encode())
        digest.update((self.path / "rows.csv").read_bytes())
        digest.update(self._array("digest").tobytes())
        return digest.hexdigest()

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """What each row was decoded from: clip_id, source, start, stop, unit, fps, caption."""
        try:
            with (self.path / "rows.csv").open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise StoreError(f"{self.path / 'rows.csv'} is damaged ({error}); try `featcache repair`") from None
        if len(rows) != len(self) or any("clip_id" not in row for row in rows):
            raise StoreError(f"{self.path / 'rows.csv'} has {len(rows)} rows, the features {len(self)}: it was changed")
        return rows

    @cached_property
    def clip_ids(self) -> list[str]:
        """Clip id of each row."""
        return [row["clip_id"] for row in self.rows]

    @cached_property
    def state(self) -> NDArray[np.uint8]:
        """(N,) 0 not tried, 1 done, 2 failed, 3 absent in the source."""
        return self._array("state")

    @cached_property
    def window_start(self) -> NDArray[np.float64]:
        """(N, T) where each window begins, seconds within the source; NaN where nobody knows."""
        return self._array("window_start")

    @cached_property
    def window_stop(self) -> NDArray[np.float64]:
        """(N, T) where each window ends, seconds within the source; NaN where nobody knows."""
        return self._array("window_stop")

    @cached_property
    def length(self) -> NDArray[np.uint32]:
        """(N,) windows of each row, at most T; 0 in the rows that are not done."""
        return self._array("length")

    @property
    def present(self) -> NDArray[np.bool_]:
        """(N, T) which windows are there: the first `length` of the rows that are done."""
        return (np.arange(self.windows) < self.length[:, None]) & (self.state == fmt.DONE)[:, None]

    @property
    def features(self) -> NDArray[np.floating]:
        """(N, T, *row_shape), read afresh at each call."""
        return self.read()

    def read(self, rows: Any = None) -> NDArray[np.floating]:
        """Features of these rows (default: all) as they are stored, (n, T, *row_shape); zeros where not committed.

        rows: numbers, or a mask (N,).
        A shard holds its rows from byte 0 on, so that rows are copied straight from the mapped file: about as fast as
        reading a raw file, where zarr-python decodes chunk by chunk.
        """
        rows = row_numbers(rows, len(self))
        blocks, places = np.divmod(rows, self.layout.block_rows)
        done = self.state[rows] == fmt.DONE
        out = np.zeros((len(rows), self.windows, *self.row_shape), np.dtype(self.layout.dtype).newbyteorder("<"))
        flat = out.reshape(-1).view(np.uint8).reshape(len(rows), self.layout.row_bytes)
        for block in np.unique(blocks[done]).tolist():
            path = self.path / self.layout.files(block)["features"]
            here = np.flatnonzero(done & (blocks == block))
            span = self.layout.span(block)
            there = self._decoded[span.start : span.stop] if self.archived else self.layout.map_rows(path)
            if places[here].max() >= len(there):
                raise StoreError(f"{path} is missing or too short; `featcache check {self.path}` tells more")
            flat[here] = there[places[here]]
        return out

    @cached_property
    def _decoded(self) -> NDArray[np.uint8]:
        """(N, row_bytes) of an archive."""
        return _packed.features(self.path, self.layout, self._progress)

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickled store is opened again where it is unpickled."""
        return FeatureStore.open, (self.path,)

    @cached_property
    def failures(self) -> dict[int, str]:
        """Row -> why it failed or is absent."""
        if not np.isin(self.state, (fmt.FAILED, fmt.ABSENT)).any():
            return {}
        paths = (self.path / self.layout.file(block, "failures") for block in range(self.layout.blocks))
        entries = (entry for path in paths for entry in fmt.read_failures(path))
        return {entry["row"]: entry["reason"] for entry in entries if self.state[entry["row"]] != fmt.NOT_TRIED}

    def counts(self) -> dict[str, int]:
        """Rows per state, by the states' names."""
        found = Counter(self.state.tolist())
        return {name: found[state] for state, name in enumerate(fmt.STATES)}

    def __len__(self) -> int:
        return self.layout.rows

    def __getitem__(self, key: str | int | slice) -> NDArray[np.floating]:
        """The rows of a clip id (T, *row_shape), a row number (the same), or a slice of rows (n, T, *row_shape).

        A single row that is not done is an error; in a slice it is zeros, and `state` tells.
        """
        if isinstance(key, slice):
            return self.read(range(*key.indices(len(self))))
        row = self._row(key)
        if self.state[row] != fmt.DONE:
            reason = self.failures.get(row, "extraction has not come to it yet")
            raise StoreError(f"{self.path}: clip {self.clip_ids[row]!r} is {fmt.STATES[self.state[row]]}: {reason}")
        return self.read([row])[0]

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.floating]]]:
        """Pairs of clip id and features (T, *row_shape) of the rows that are done."""
        features = self.features
        return ((self.clip_ids[row], features[row]) for row in np.flatnonzero(self.state == fmt.DONE))

    def to_torch(self, rows: Any = None, device: str = "cpu") -> "torch.Tensor":
        """Features of these rows (default: all) as a float32 tensor (n, T, *row_shape)."""
        import torch

        return torch.from_numpy(self.read(rows)).to(device, torch.float32)

    def frame(self) -> "pd.DataFrame":
        """One line per row: what it was decoded from, its state, and the reason where it is not done."""
        import pandas as pd

        table = pd.DataFrame(self.rows)
        table["state"] = [fmt.STATES[state] for state in self.state]
        table["reason"] = [self.failures.get(row, "") for row in range(len(self))]
        return table

    def check_rows(self, manifest: Manifest, *, extensible: bool = False) -> None:
        """Raise StoreError, with the differences, unless the store was made from these clips in this order.

        extensible: the manifest may have more clips behind those of the store.
        """
        mine, theirs = (self.path / "rows.csv").read_bytes(), rows_csv(manifest)
        if theirs == mine or (extensible and theirs.startswith(mine)):
            return
        if theirs.startswith(mine):
            raise StoreError(
                f"{self.path} lacks the last {len(manifest) - len(self)} clips of manifest {manifest.name!r}; "
                f"`featcache extract` with that manifest and {self.name} appends them"
            )
        found = _differences({row["clip_id"]: row for row in self.rows}, [clip.identity() for clip in manifest])
        raise StoreError(
            f"{self.path} was made from other clips than manifest {manifest.name!r}:\n  "
            + "\n  ".join(found)
            + "\nnew clips may only follow the old ones; otherwise extract into another --stores folder, or give the "
            "manifest another name"
        )

    def check_recipe(self, recipe: dict[str, Any]) -> None:
        """Raise StoreError, with the differences, unless rows made by this recipe may be written to the store."""
        if self.archived:
            raise StoreError(f"{self.path} is an archive; `featcache unpack` makes a store of it that can be written")
        mine, theirs = flat(self.recipe), flat(recipe)
        if mine != theirs:
            differences = [
                f"{key}: {mine.get(key, 'nothing')!r} in the store, {theirs.get(key, 'nothing')!r} asked for"
                for key in sorted(mine.keys() | theirs.keys())
                if mine.get(key) != theirs.get(key)
            ]
            raise StoreError(
                f"{self.path} was made by another recipe:\n  "
                + "\n  ".join(differences)
                + "\nask for the same recipe, or extract into another --stores folder"
            )

    def _row(self, key: str | int) -> int:
        if isinstance(key, str):
            try:
                return self._row_of[key]
            except KeyError:
                raise StoreError(f"{self.path}: no clip {key!r} among {len(self)}") from None
        if not isinstance(key, int | np.integer):
            raise TypeError(f"a store is indexed by a clip id, a row number or a slice, not {type(key).__name__}")
        if not -len(self) <= key < len(self):
            raise IndexError(f"{self.path}: row {key} of {len(self)}")
        return int(key) % len(self)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {clip_id: row for row, clip_id in enumerate(self.clip_ids)}

    def _array(self, name: str) -> NDArray[Any]:
        """A small array, whole; zeros where its block is not committed. Its chunks are plain files, one per block."""
        dtype, row = {
            "window_start": ("<f8", (self.windows,)),
            "window_stop": ("<f8", (self.windows,)),
            "length": ("<u4", ()),
            "state": ("u1", ()),
            "digest": ("<u4", (len(fmt.BLOCK_FILES) + 1,)),
        }[name]
        out = np.zeros((self.layout.blocks if name == "digest" else len(self), *row), dtype)
        for block in committed(self.path, self.layout):
            place = slice(block, block + 1) if name == "digest" else self.layout.as_slice(block)
            path = self.path / self.layout.file(block, name)
            try:
                values = np.fromfile(path, dtype).reshape(-1, *row)
                if len(values) != (1 if name == "digest" else self.layout.block_rows):
                    raise ValueError("cut off")
                out[place] = values[: len(out[place])]
            except (OSError, ValueError):
                raise StoreError(f"{path} is missing or cut off; `featcache check {self.path}` tells more") from None
        return out


def is_extending(path: Path) -> bool:
    """Whether clips are being appended to a store, or that was interrupted."""
    return (path / fmt.EXTENSION).exists()


def committed(folder: Path, layout: fmt.Layout) -> list[int]:
    """The blocks that have a `state`."""
    there = set(os.listdir(path)) if (path := folder / layout.file(0, "state").parent).is_dir() else set()
    return [block for block in range(layout.blocks) if str(block) in there]


def row_numbers(rows: Any, count: int) -> NDArray[np.int64]:
    """Numbers in [0, count) of the rows meant: numbers, negative ones from the end; a mask (count,); None for all.

    Raises IndexError for what is outside, TypeError for what are no numbers of rows.
    """
    if rows is None:
        return np.arange(count)
    found = np.asarray(rows)
    if found.dtype == bool:
        if found.shape != (count,):
            raise IndexError(f"a mask of shape {found.shape} for {count} rows")
        return np.flatnonzero(found)
    if found.size and not np.issubdtype(found.dtype, np.integer):
        raise TypeError(f"rows are whole numbers or a mask, not {found.dtype}")
    found = found.astype(np.int64).reshape(-1)
    if found.size and not (-count <= found.min() and found.max() < count):
        raise IndexError(f"rows {found.min()} to {found.max()}, of {count}")
    return found % max(1, count)


def rows_csv(manifest: Manifest) -> bytes:
    """The file rows.csv of a store made from this manifest."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)  # a bare \r would end a row
    writer.writerow(manifest.clips[0].identity())
    writer.writerows(clip.identity().values() for clip in manifest)
    return out.getvalue().encode()


def _differences(mine: dict[str, dict[str, str]], theirs: list[dict[str, str]]) -> list[str]:
    """How the rows of a store (by clip id, in order) and those of a manifest differ, a few of each kind."""
    ids = [row["clip_id"] for row in theirs]
    row_of = {clip_id: row for row, clip_id in enumerate(ids)}
    kept = [clip_id for clip_id in mine if clip_id in row_of]
    last = row_of[kept[-1]] if kept else len(ids)
    kinds = {
        "removed": [repr(clip_id) for clip_id in mine if clip_id not in row_of],
        "edited": [
            f"{clip_id!r} ({key} {mine[clip_id][key]!r} in the store, {theirs[row_of[clip_id]][key]!r} in the manifest)"
            for clip_id in kept
            for key in mine[clip_id]
            if mine[clip_id][key] != theirs[row_of[clip_id]][key]
        ],
        "moved": [repr(b) for a, b in pairwise(kept) if row_of[b] < row_of[a]],
        "new, but not at the end": [repr(clip_id) for clip_id in ids[:last] if clip_id not in mine],
    }
    return [f"{kind}: {first(names, SHOWN)}" for kind, names in kinds.items() if names]


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": [{"c": 1}]}} -> {"a.b.0.c": 1}; lists of plain values and empty ones stay whole."""
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        value = {str(k): part for k, part in enumerate(value)}
    if not isinstance(value, dict) or (prefix and not value):
        return {prefix: value}
    return {
        key: leaf
        for name, part in value.items()
        for key, leaf in flat(part, f"{prefix}.{name}" if prefix else name).items()
    }
