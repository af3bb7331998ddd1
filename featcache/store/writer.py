"""Writing a store: rows go to a journal as they are computed, whole blocks are committed.

    with StoreWriter.open(path, manifest, recipe, ...) as writer:
        for row in writer.pending:
            writer.done(row, features, start, stop)        # or writer.failed(row, reason), writer.absent(row, reason)

Killed at any moment, the next `open` finds in `pending` exactly the rows that are neither committed nor in a journal
with a right checksum, and ends with the same bytes.
"""

import contextlib
import os
import shutil
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from featcache._files import sync_folder, write_file
from featcache.errors import StoreError
from featcache.manifest import Manifest
from featcache.store import _format as fmt
from featcache.store.reader import FeatureStore, rows_csv

RECORD = struct.Struct("<IBI")  #: row, state, bytes of the payload; the payload and a crc32c of both follow
SYNC_SECONDS = 2.0  #: a power cut costs at most the rows of this time


class StoreWriter:
    """The one writer of a store; a second one is refused while the first is alive."""

    def __init__(self, store: FeatureStore, lock: BinaryIO) -> None:
        self.store = store
        self.layout = store.layout
        self.path = store.path
        self._lock = lock
        self._retried: set[int] = set()
        self._blocks = {
            block: _Block.read(self.path, block, self.layout)
            for block in range(self.layout.blocks)
            if not (self.path / self.layout.files(block)["state"]).exists()
        }
        for path in (self.path / "journal").glob("*.log"):
            if int(path.stem) not in self._blocks:  # committed, but the kill came before the journal was removed
                path.unlink()
        for block in list(self._blocks):  # complete, but the kill came before or during the commit
            self._commit_if_full(block)

    @classmethod
    def open(
        cls,
        path: Path,
        manifest: Manifest,
        recipe: dict[str, Any],
        *,
        row_shape: tuple[int, ...],
        windows: int,
        facts: dict[str, Any],
    ) -> Self:
        """Create the store, or resume it when it was made from the same rows by the same recipe.

        recipe: everything that makes a feature what it is, as JSON values; recipe["dtype"] is the dtype on disk.
        facts: what does not (versions of libraries that only carry the data), as JSON values.
        Raises StoreError when another writer is at work, or the recipe or the rows differ, with the differences.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = fmt.lock(path)
        if lock is None:
            raise StoreError(f"{path} is being written by another process; wait for it or stop it")
        try:
            if path.exists() and any(path.iterdir()) and not (path / fmt.SUMS).exists():
                raise StoreError(f"{path} exists and is not a store; remove it, or choose another --stores folder")
            if path.exists() and not _begun(path):
                shutil.rmtree(path)  # made, then interrupted or given up before the first row: nothing to resume
            if not path.exists():
                layout = fmt.Layout(len(manifest), windows, row_shape, recipe["dtype"])
                _create(path, layout, manifest, recipe, facts)
            store = FeatureStore.open(path)
            store.check_recipe(recipe)
            store.check_rows(manifest)
            return cls(store, lock)
        except BaseException:
            lock.close()
            raise

    @property
    def pending(self) -> list[int]:
        """The rows that are to be computed, in order."""
        missing = {
            row for number, block in self._blocks.items() for row in self.layout.span(number) if row not in block.held
        }
        return sorted(missing | self._retried)

    def done(
        self, row: int, features: NDArray[np.floating], start: NDArray[np.floating], stop: NDArray[np.floating]
    ) -> None:
        """Keep a row of t windows, 1 <= t <= T: features (t, *row_shape), start and stop (t,) in seconds or NaN.

        Raises StoreError when the values are not finite or do not fit into the store's dtype.
        """
        expected = (self.layout.windows, *self.layout.row_shape)
        if features.shape[1:] != expected[1:] or not 1 <= len(features) <= expected[0]:
            raise StoreError(f"{self.path}: row {row} has shape {features.shape}, the store {expected}")
        if refusal := self.refusal(features):
            raise StoreError(f"{self.path}: row {row} {refusal}")
        self._keep(row, fmt.DONE, _Values(features.astype(self.layout.dtype), start, stop).to_bytes())

    def refusal(self, features: NDArray[np.floating]) -> str:
        """Why these values cannot be kept; "" when they can."""
        if not np.isfinite(features).all():
            return "has values that are not finite"
        largest = float(np.abs(features).max(initial=0.0))
        if largest > float(np.finfo(self.layout.dtype).max):
            return f"reaches {largest:.3g}, beyond {self.layout.dtype}; extract into a new store with --dtype float32"
        return ""

    def failed(self, row: int, reason: str) -> None:
        """Record that the row's clip could not be read, and why."""
        self._keep(row, fmt.FAILED, reason.encode())

    def absent(self, row: int, reason: str) -> None:
        """Record that the row's clip has no such modality."""
        self._keep(row, fmt.ABSENT, reason.encode())

    def retry_failed(self) -> None:
        """Make the failed rows pending again. Each keeps its reason until its new row comes."""
        for block in self._blocks.values():  # failures that are still in a journal
            self._retried |= {row for row, (state, _) in block.held.items() if state == fmt.FAILED}
        state = FeatureStore.open(self.path).state
        self._retried |= {int(row) for row in np.flatnonzero(state == fmt.FAILED)}

    def close(self) -> None:
        """Commit what is complete, sync the journals and let the next writer in."""
        self._retried.clear()  # what was not tried again keeps its reason
        try:
            for number in list(self._blocks):
                self._commit_if_full(number)
            for block in self._blocks.values():
                block.close()
        finally:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep(self, row: int, state: int, payload: bytes) -> None:
        number = row // self.layout.block_rows
        if row in self._retried:
            self._retried.remove(row)
            if number not in self._blocks:
                self._blocks[number] = self._reopened(number)
        elif number not in self._blocks or row in self._blocks[number].held:
            raise StoreError(f"{self.path}: row {row} is already there")
        self._blocks[number].append(row, state, payload)
        self._commit_if_full(number)

    def _commit_if_full(self, number: int) -> None:
        block = self._blocks[number]
        if len(block.held) < len(self.layout.span(number)) or any(row in self._retried for row in block.held):
            return
        content = block.content(self.store.clip_ids)
        for name, path in self.layout.files(number).items():
            if content[name] or name != "failures":
                write_file(self.path / path, content[name])
            elif (self.path / path).exists():
                (self.path / path).unlink()
                sync_folder((self.path / path).parent)
        del self._blocks[number]
        block.remove()

    def _reopened(self, number: int) -> "_Block":
        """The rows of a committed block as a journal; then the block is no longer vouched for."""
        block = _Block(self.path / "journal" / f"{number}.log", number, self.layout)
        store = FeatureStore.open(self.path)
        span = self.layout.span(number)
        part = slice(span.start, span.stop)
        start, stop, features = store.window_start[part], store.window_stop[part], store[part]
        for offset, row in enumerate(span):
            if store.state[row] == fmt.DONE:
                t = store.length[row]
                payload = _Values(features[offset, :t], start[offset, :t], stop[offset, :t]).to_bytes()
            else:
                payload = store.failures[row].encode()
            block.append(row, int(store.state[row]), payload)
        block.sync()
        state_file = self.path / self.layout.files(number)["state"]
        state_file.unlink()
        sync_folder(state_file.parent)
        return block


@dataclass
class _Values:
    """What a done row consists of."""

    features: NDArray[np.floating]
    start: NDArray[np.floating]
    stop: NDArray[np.floating]

    def to_bytes(self) -> bytes:
        return b"".join(
            (
                self.start.astype("<f8").tobytes(),
                self.stop.astype("<f8").tobytes(),
                np.ascontiguousarray(self.features).tobytes(),
            )
        )


@dataclass
class _Block:
    """The rows of an open block: what they are is in the journal, where in it they stand is in memory."""

    path: Path
    number: int
    layout: fmt.Layout
    held: dict[int, tuple[int, slice]] = field(default_factory=dict)  #: row -> state, place of the payload
    file: BinaryIO | None = None
    synced: float = 0.0

    @classmethod
    def read(cls, folder: Path, number: int, layout: fmt.Layout) -> "_Block":
        """What a journal holds, of each row the last word; a record that a kill tore is cut off the file as well."""
        block = cls(folder / "journal" / f"{number}.log", number, layout)
        if not block.path.exists():
            return block
        data = block.path.read_bytes()
        good = 0
        while (record := _record(data, good)) is not None:
            row, state, place = record
            block.held[row] = (state, place)
            good = place.stop + 4
        if good < len(data):
            os.truncate(block.path, good)
        return block

    def append(self, row: int, state: int, payload: bytes) -> None:
        """Add a record; an earlier one of the row no longer counts."""
        if self.file is None:
            self.path.parent.mkdir(exist_ok=True)
            self.file = self.path.open("ab")
            sync_folder(self.path.parent)
        head = RECORD.pack(row, state, len(payload))
        begin = self.file.tell()
        try:
            self.file.write(head + payload + fmt.crc(head + payload).to_bytes(4, "little"))
            self.file.flush()
        except OSError:  # the disk is full: leave no torn record behind which the next one would be lost
            self._abandon(begin)
            raise
        first = begin + RECORD.size
        self.held[row] = (state, slice(first, first + len(payload)))
        if time.monotonic() - self.synced > SYNC_SECONDS:
            self.sync()

    def _abandon(self, size: int) -> None:
        descriptor = os.dup(self.file.fileno())  # type: ignore[union-attr]
        with contextlib.suppress(OSError):
            self.file.close()  # type: ignore[union-attr]
        self.file = None
        os.ftruncate(descriptor, size)
        os.close(descriptor)

    def content(self, clip_ids: list[str]) -> dict[str, bytes]:
        """The bytes of every file of the finished block."""
        layout, span = self.layout, self.layout.span(self.number)
        T = layout.windows
        features = np.zeros((len(span), T, *layout.row_shape), layout.dtype)
        times = np.zeros((2, len(span), T))
        lengths = np.zeros(len(span), np.uint32)
        states = np.zeros(len(span), np.uint8)
        reasons = {}
        journal = self.path.read_bytes()
        for row, (state, place) in self.held.items():
            offset, payload = row - span.start, journal[place]
            states[offset] = state
            if state == fmt.DONE:
                t = lengths[offset] = len(payload) // (16 + layout.row_bytes // T)
                times[:, offset, :t] = np.frombuffer(payload, "<f8", 2 * t).reshape(2, t)
                values = np.frombuffer(payload, layout.dtype, offset=16 * t)
                features[offset, :t] = values.reshape(t, *layout.row_shape)
            else:
                reasons[row] = (state, payload.decode())
        files = {
            "features": layout.shard(features),
            "window_start": layout.padded(times[0], "float64"),
            "window_stop": layout.padded(times[1], "float64"),
            "failures": fmt.failure_lines(reasons, clip_ids),
            "length": layout.padded(lengths, "uint32"),
            "state": layout.padded(states, "uint8"),
        }
        return files | {"digest": fmt.digest_row(files)}

    def sync(self) -> None:
        """Make what is written durable."""
        if self.file is not None:
            os.fsync(self.file.fileno())
            self.synced = time.monotonic()

    def close(self) -> None:
        """Sync and close the file; the block can still be appended to."""
        if self.file is not None:
            self.sync()
            self.file.close()
            self.file = None

    def remove(self) -> None:
        """Delete the journal, when its rows are committed."""
        if self.file is not None:
            self.file.close()
            self.file = None
        self.path.unlink(missing_ok=True)


def _record(data: bytes, begin: int) -> tuple[int, int, slice] | None:
    """Row, state and place of the payload of the journal record at `begin`; None at the end and at a torn record."""
    first = begin + RECORD.size
    if len(data) < first:
        return None
    row, state, size = RECORD.unpack(data[begin:first])
    end = first + size
    if len(data) < end + 4 or fmt.crc(data[begin:end]) != int.from_bytes(data[end : end + 4], "little"):
        return None
    return row, state, slice(first, end)


def _begun(path: Path) -> bool:
    """Whether a store holds anything that must not be lost, or may not be."""
    return any(any(path.glob(pattern)) for pattern in ("features/c/*", "state/c/*", "journal/*"))


def _create(path: Path, layout: fmt.Layout, manifest: Manifest, recipe: dict[str, Any], facts: dict[str, Any]) -> None:
    """A store without rows, made beside its place and renamed into it; the caller holds the lock."""
    scratch = path.with_name(f".{path.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)  # a killed predecessor's
    attributes = {
        "format": fmt.FORMAT,
        "manifest": manifest.name,
        "recipe": recipe,
        "facts": facts,
    }
    try:
        layout.create_arrays(scratch, {"featcache": attributes})
        write_file(scratch / "rows.csv", rows_csv(manifest))
        write_file(scratch / fmt.SUMS, fmt.sums(scratch))
        for name in fmt.FIXED_FILES:  # zarr does not sync what it writes
            write_file(scratch / name, (scratch / name).read_bytes())
        os.replace(scratch, path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    sync_folder(path.parent)
