"""Writing a store: rows go to a journal as they are computed, whole blocks are committed.

    with StoreWriter.open(path, manifest, recipe, ...) as writer:
        for row in writer.pending:
            writer.done(row, features, start, stop)        # or writer.failed(row, reason), writer.absent(row, reason)

Killed at any moment, the next `open` finds in `pending` exactly the rows that are neither committed nor in a journal
with a right checksum, and ends with the same bytes.
"""

import contextlib
import fcntl
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
        state = store.state
        self._blocks = {
            block: _Block.read(self.path, block, self.layout)
            for block in range(self.layout.blocks)
            if not (self.path / self.layout.files(block)["state"]).exists()
        }
        self.pending = [
            row
            for row in range(self.layout.rows)
            if state[row] == fmt.NOT_TRIED and row not in self._blocks[row // self.layout.block_rows].held
        ]
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
        if not (path / "zarr.json").exists():
            layout = fmt.Layout(len(manifest), windows, row_shape, recipe["dtype"])
            _create(path, layout, manifest, recipe, facts)
        lock = _lock(path)
        try:
            store = FeatureStore.open(path)
            store.check_recipe(recipe)
            store.check_rows(manifest)
            return cls(store, lock)
        except BaseException:
            lock.close()
            raise

    def done(
        self, row: int, features: NDArray[np.floating], start: NDArray[np.floating], stop: NDArray[np.floating]
    ) -> None:
        """Keep a row: features (T, *row_shape), start and stop (T,) in seconds.

        Raises StoreError when the values are not finite or do not fit into the store's dtype.
        """
        expected = (self.layout.windows, *self.layout.row_shape)
        if features.shape != expected:
            raise StoreError(f"{self.path}: row {row} has shape {features.shape}, the store {expected}")
        if not np.isfinite(features).all():
            raise StoreError(f"{self.path}: row {row} has values that are not finite")
        largest = float(np.abs(features).max(initial=0.0))
        if largest > float(np.finfo(self.layout.dtype).max):
            raise StoreError(
                f"{self.path}: row {row} reaches {largest:.3g}, beyond {self.layout.dtype}; "
                "extract into a new store with --dtype float32"
            )
        self._keep(row, fmt.DONE, _Values(features.astype(self.layout.dtype), start, stop).to_bytes())

    def failed(self, row: int, reason: str) -> None:
        """Record that the row's clip could not be read, and why."""
        self._keep(row, fmt.FAILED, reason.encode())

    def absent(self, row: int, reason: str) -> None:
        """Record that the row's clip has no such modality."""
        self._keep(row, fmt.ABSENT, reason.encode())

    def retry_failed(self) -> None:
        """Make the failed rows pending again; the other rows of their blocks move back into the journal first."""
        failed = np.flatnonzero(self.store.state == fmt.FAILED)
        for block_number in sorted({int(row) // self.layout.block_rows for row in failed}):
            self._blocks[block_number] = self._reopened(block_number, keep=(fmt.DONE, fmt.ABSENT))
        for block in self._blocks.values():  # failures that are still in a journal
            block.forget(fmt.FAILED)
        self.pending = [
            row
            for number, block in sorted(self._blocks.items())
            for row in self.layout.span(number)
            if row not in block.held
        ]

    def close(self) -> None:
        """Sync the journals and let the next writer in."""
        try:
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
        block = self._blocks.get(number)
        if block is None or row in block.held:
            raise StoreError(f"{self.path}: row {row} is already there")
        block.append(row, state, payload)
        self._commit_if_full(number)

    def _commit_if_full(self, number: int) -> None:
        block = self._blocks[number]
        if len(block.held) < len(self.layout.span(number)):
            return
        content = block.content(self.store.clip_ids)
        for name, path in self.layout.files(number).items():
            if name == "failures" and not content[name]:
                (self.path / path).unlink(missing_ok=True)
                continue
            fmt.write_file(self.path / path, content[name])
        del self._blocks[number]
        block.remove()

    def _reopened(self, number: int, keep: tuple[int, ...]) -> "_Block":
        """The rows of a committed block in these states, as a journal; then the block is no longer vouched for."""
        block = _Block(self.path / "journal" / f"{number}.log", number, self.layout)
        span = self.layout.span(number)
        part = slice(span.start, span.stop)
        start, stop, features = self.store.window_start[part], self.store.window_stop[part], self.store[part]
        reasons = self.store.failures
        for offset, row in enumerate(span):
            state = int(self.store.state[row])
            if state == fmt.DONE and state in keep:
                values = _Values(features[offset], start[offset], stop[offset])
                block.append(row, state, values.to_bytes())
            elif state in keep:
                block.append(row, state, reasons[row].encode())
        block.sync()
        state_file = self.path / self.layout.files(number)["state"]
        state_file.unlink()
        fmt.sync_folder(state_file.parent)
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
    """The rows of an open block, in its journal and in memory."""

    path: Path
    number: int
    layout: fmt.Layout
    held: dict[int, tuple[int, bytes]] = field(default_factory=dict)  #: row -> state, payload
    file: BinaryIO | None = None
    synced: float = 0.0

    @classmethod
    def read(cls, folder: Path, number: int, layout: fmt.Layout) -> "_Block":
        """What a journal holds; a record that a kill cut off is cut off from the file as well."""
        block = cls(folder / "journal" / f"{number}.log", number, layout)
        if not block.path.exists():
            return block
        data = block.path.read_bytes()
        good = 0
        while (record := _record(data, good)) is not None:
            row, state, payload, good = record
            block.held[row] = (state, payload)
        if good < len(data):
            os.truncate(block.path, good)
        return block

    def append(self, row: int, state: int, payload: bytes) -> None:
        if self.file is None:
            self.path.parent.mkdir(exist_ok=True)
            self.file = self.path.open("ab")
        body = RECORD.pack(row, state, len(payload)) + payload
        size = self.file.tell()
        try:
            self.file.write(body + fmt.crc(body).to_bytes(4, "little"))
            self.file.flush()
        except OSError:  # the disk is full: leave no torn record behind which the next one would be lost
            self._abandon(size)
            raise
        self.held[row] = (state, payload)
        if time.monotonic() - self.synced > SYNC_SECONDS:
            self.sync()

    def _abandon(self, size: int) -> None:
        descriptor = os.dup(self.file.fileno())  # type: ignore[union-attr]
        with contextlib.suppress(OSError):
            self.file.close()  # type: ignore[union-attr]
        self.file = None
        os.ftruncate(descriptor, size)
        os.close(descriptor)

    def forget(self, state: int) -> None:
        """Drop the rows in this state, from the journal as well."""
        kept = {row: record for row, record in self.held.items() if record[0] != state}
        if len(kept) == len(self.held):
            return
        self.remove()
        self.held = {}
        for row, (kept_state, payload) in kept.items():
            self.append(row, kept_state, payload)
        self.sync()

    def content(self, clip_ids: list[str]) -> dict[str, bytes]:
        """The bytes of every file of the finished block."""
        layout, span = self.layout, self.layout.span(self.number)
        T = layout.windows
        features = np.zeros((len(span), T, *layout.row_shape), layout.dtype)
        times = np.zeros((2, len(span), T))
        states = np.zeros(len(span), np.uint8)
        reasons = {}
        for row, (state, payload) in self.held.items():
            offset = row - span.start
            states[offset] = state
            if state == fmt.DONE:
                times[:, offset] = np.frombuffer(payload, "<f8", 2 * T).reshape(2, T)
                features[offset] = np.frombuffer(payload, layout.dtype, offset=16 * T).reshape(features.shape[1:])
            else:
                reasons[row] = (state, payload.decode())
        files = {
            "features": layout.shard(features),
            "window_start": layout.padded(times[0], "float64"),
            "window_stop": layout.padded(times[1], "float64"),
            "failures": fmt.failure_lines(reasons, clip_ids),
            "state": layout.padded(states, "uint8"),
        }
        return files | {"digest": fmt.digest_row(files)}

    def sync(self) -> None:
        if self.file is not None:
            os.fsync(self.file.fileno())
            self.synced = time.monotonic()

    def close(self) -> None:
        if self.file is not None:
            self.sync()
            self.file.close()
            self.file = None

    def remove(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None
        self.path.unlink(missing_ok=True)


def _record(data: bytes, offset: int) -> tuple[int, int, bytes, int] | None:
    """The journal record at an offset and where the next one starts; None at the end and at a torn record."""
    head = data[offset : offset + RECORD.size]
    if len(head) < RECORD.size:
        return None
    row, state, size = RECORD.unpack(head)
    end = offset + RECORD.size + size
    if len(data) < end + 4 or fmt.crc(data[offset:end]) != int.from_bytes(data[end : end + 4], "little"):
        return None
    return row, state, data[offset + RECORD.size : end], end + 4


def _create(path: Path, layout: fmt.Layout, manifest: Manifest, recipe: dict[str, Any], facts: dict[str, Any]) -> None:
    """A store without rows, made beside its place and renamed into it."""
    if path.exists() and any(path.iterdir()):
        raise StoreError(f"{path} exists and is not a store; choose another --stores folder or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.partial")
    attributes = {
        "format": fmt.FORMAT,
        "manifest": manifest.name,
        "recipe": recipe,
        "facts": facts,
    }
    try:
        layout.create_arrays(scratch, {"featcache": attributes})
        fmt.write_file(scratch / "rows.csv", rows_csv(manifest))
        fmt.write_file(scratch / fmt.SUMS, fmt.sums(scratch))
        os.replace(scratch, path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    fmt.sync_folder(path.parent)


def _lock(path: Path) -> BinaryIO:
    """An advisory lock that the kernel lets go when its holder dies, so a dead writer never blocks the next one."""
    file = (path / ".lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise StoreError(f"{path} is being written by another process; wait for it or stop it") from None
    return file
