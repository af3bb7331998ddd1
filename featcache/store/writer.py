"""Write a store: rows are written to their place as they are computed, and whole blocks are committed.

    with StoreWriter.open(path, manifest, recipe, ...) as writer:
        for row in writer.pending:
            if writer.claim(row):                      # False while another writer has the row's block
                writer.done(row, features, start, stop)    # or writer.failed(row, reason), writer.absent(row, reason)

`writer.done_many` writes many rows at once, several times as fast. A block whose rows are all written is committed in
the background. Its errors, such as a full disk, are raised by the next call, or by `close`.

A writer may be killed at any moment. At the next `open`, `pending` has exactly the rows that are neither committed nor
in a journal with a correct checksum, and the finished store has the same bytes. Several writers share a store, block
by block.
"""

import contextlib
import errno
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from featcache.errors import StoreError
from featcache.files import (
    make_folder,
    making_folder,
    regular,
    remove_abandoned,
    remove_folder,
    sync_folder,
    write_file,
)
from featcache.manifest import Manifest
from featcache.store import _block, _lease, _metadata, digests
from featcache.store import _format as fmt
from featcache.store._background import Background
from featcache.store._block import Block
from featcache.store.reader import FeatureStore, open_unchecked, rows_csv

PATIENCE = 10.0  #: seconds to wait for a process that has the whole store
COMMITS = 2  #: most blocks that are being committed, or wait for that, while the next one is written
Many = Sequence[NDArray[np.floating]] | NDArray[np.floating]  #: of n rows: n arrays, or an array with n along axis 0
INFINITY = 0x7C00  #: the bits of infinity in float16; those of NaN are larger
SYNC_SECONDS = 2.0  #: seconds after which written rows are made durable, at the next row


class StoreWriter:
    """One of the writers of a store; each block has one owner at a time."""

    def __init__(self, store: FeatureStore, lock: BinaryIO) -> None:
        self.store = store
        self.layout = store.layout
        self.path = store.path
        self._lock, self._process = lock, os.getpid()
        self._commits = Background()
        self._retried: set[int] = set()  #: rows that have a record, and are to be written again
        self._renewed: set[int] = set()  #: those of them whatever their record is; the others have failed
        self._blocks: dict[int, Block] = {}  #: blocks that this writer has leased
        self._others: set[int] = set()  #: blocks that another writer had when this one tried to lease them
        self._finished: set[int] = set()  #: blocks that were complete when this writer released them
        self._synced = time.monotonic()
        make_folder(self.path / "journal")
        for log in self._logs():  # a complete block was interrupted during its commit: finish that
            block = Block.claim(self.path, int(log.stem), self.layout)
            if block is not None:
                block.commit(store) if block.complete else block.close()

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
        """Create a store, or resume one that was made by the same recipe from these clips or the first of them.

        Clips that the manifest has after the store's become pending rows; finished rows are not touched.

        recipe: all that determines the features, as JSON values; recipe["dtype"] is the dtype on disk.
        facts: all else about their making (versions of libraries that only carry the data), as JSON values.
        Raises StoreError when the recipe or the facts could not be read back, when another process is changing the
        store, or, with the differences, when the recipe or the clips differ.
        """
        attributes = _metadata.checked(
            path, {"format": fmt.FORMAT, "manifest": manifest.name, "recipe": recipe, "facts": facts}
        )
        recipe, rows = attributes["recipe"], rows_csv(manifest)
        make_folder(path.parent)
        remove_abandoned(path)
        until = time.monotonic() + PATIENCE  # creating or extending a store takes a fraction of this time
        while True:
            if (lock := _lease.lock(path, alone=False)) is not None:  # the usual case
                try:
                    if store := _ready_store(path, manifest, rows, recipe):
                        return cls(store, lock)
                except BaseException:
                    _lease.free(lock)
                    raise
                _lease.free(lock)
            if (lock := _lease.lock(path, alone=True)) is not None:
                try:
                    layout = fmt.Layout(len(manifest), windows, row_shape, recipe["dtype"])
                    _prepare(path, layout, manifest, rows, attributes)
                finally:
                    _lease.free(lock)
            elif time.monotonic() > until:
                raise StoreError(f"{path} is being written by another process; wait for that process or stop it")
            else:
                time.sleep(0.01)

    @property
    def pending(self) -> list[int]:
        """The rows that are still to be computed, in order, including rows that another writer is working on."""
        self._settle()
        missing = set(self._retried)
        for number in range(self.layout.blocks):
            missing.update(self._blocks[number].missing if number in self._blocks else self._untried(number))
        return sorted(missing)

    def _untried(self, number: int) -> list[int]:
        return _block.recorded(self.path, number, self.layout).untried(self.layout.span(number))

    def claim(self, row: int) -> bool:
        """Lease the row's block if needed; True when this writer has it and the row is still to be computed."""
        self._commits.check()
        if time.monotonic() - self._synced > SYNC_SECONDS:
            for block in self._blocks.values():
                block.sync()
            self._synced = time.monotonic()
        number = row // self.layout.block_rows
        if number not in self._blocks and number not in self._others | self._finished:
            self._check_process()
            try:
                leased = Block.claim(self.path, number, self.layout)
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                raise StoreError(
                    f"{self.path}: the system's limit of open files is reached, with {len(self._blocks)} open blocks "
                    "of two files each; write the rows in the order of `pending`, or raise the limit (ulimit -n)"
                ) from None
            if leased is None:
                self._others.add(number)
            else:
                self._blocks[number] = leased
                failed = (self._retried - self._renewed) & {*leased.span}
                mended = [r for r in failed if leased.state(r) != fmt.FAILED]
                self._retried.difference_update(mended)  # another writer has retried these
                self._commit_if_complete(number)
        return number in self._blocks and (row in self._retried or not self._blocks[number].state(row))

    def done(
        self,
        row: int,
        features: NDArray[np.floating],
        start: NDArray[np.floating],
        stop: NDArray[np.floating],
        note: str = "",
    ) -> None:
        """Write a row of t windows, 1 <= t <= T: features (t, *row_shape), start and stop (t,) in seconds or NaN.

        note: a remark that the store keeps with the row, such as which of several streams was taken.

        Raises StoreError when the values are not finite or too large for the store's dtype, when the row exists, or
        when another writer has its block.
        """
        self.done_many([row], features[None], [start], [stop], [note])

    def done_many(
        self,
        rows: Sequence[int],
        features: Many,
        start: Many,
        stop: Many,
        notes: Sequence[str] = (),
    ) -> None:
        """Write n rows, as `done` does; rows that follow each other in `rows` and in the store are written at once.

        features: an array (n, t, *row_shape), or n arrays (t, *row_shape), whose t may differ. start, stop: an array
        (n, t), or n arrays (t,). notes: n remarks, "" for none (default: no remarks).

        Raises StoreError as `done` does: before a row is written when the shape or the values of a row are wrong, and
        before a block is written when this writer may not write one of its rows.
        """
        if {len(features), len(start), len(stop), len(notes or rows)} != {len(rows)}:
            raise StoreError(
                f"{self.path}: {len(rows)} rows, but features of {len(features)}, start of {len(start)}, stop of "
                f"{len(stop)} and {len(notes)} notes; give one of each per row"
            )
        for row, *of in zip(rows, features, start, stop, strict=True):
            self._check_shapes(row, *of)
        self._check_values(rows, features)
        values, times = self._row_bytes(features), _block.times_bytes(start, stop)
        remarks = [note.encode(errors="backslashreplace") for note in notes or [""] * len(rows)]
        end = 0
        for number, group in groupby([int(row) for row in rows], lambda row: row // self.layout.block_rows):
            together = [*group]
            begin, end = end, end + len(together)
            self._check_pending(together)
            self._blocks[number].add_done(together, times[begin:end], values[begin:end], remarks[begin:end])
            self._retried.difference_update(together)
            self._commit_if_complete(number)

    def _check_shapes(self, row: int, features: NDArray[Any], start: NDArray[Any], stop: NDArray[Any]) -> None:
        expected = (self.layout.windows, *self.layout.row_shape)
        if features.shape[1:] != expected[1:] or not 1 <= len(features) <= expected[0]:
            raise StoreError(f"{self.path}: row {row} has shape {features.shape}, the store's rows have {expected}")
        if not np.shape(start) == np.shape(stop) == (len(features),):
            raise StoreError(
                f"{self.path}: row {row} has {len(features)} windows, but start of shape {np.shape(start)} and stop of "
                f"{np.shape(stop)}"
            )

    def _check_values(self, rows: Sequence[int], features: Many) -> None:
        """Raise StoreError if the values of a row cannot be stored."""
        if isinstance(features, np.ndarray) and not refusal(features, self.dtype):
            return
        for row, values in zip(rows, features, strict=True):
            if reason := refusal(values, self.dtype):
                raise StoreError(f"{self.path}: row {row} {reason}")

    def _check_pending(self, rows: Sequence[int]) -> None:
        """Raise StoreError unless this writer may write the rows."""
        self._check_process()
        if len({*rows}) < len(rows):
            row = next(row for row, count in Counter(rows).items() if count > 1)
            raise StoreError(f"{self.path}: row {row} is given twice")
        for row in rows:
            if self.claim(row):
                continue
            if (number := row // self.layout.block_rows) in self._others:
                span, owner = self.layout.span(number), _block.owner(self.path, number)
                name = f"rows {span.start}-{span.stop - 1}"
                raise StoreError(f"{self.path}: {name} are being written by {owner}; wait for it, or stop that process")
            raise StoreError(f"{self.path}: row {row} is already written")

    def _row_bytes(self, features: Many) -> NDArray[np.uint8]:
        """The bytes of whole rows on disk (n, row_bytes), with zeros for the windows that a row lacks."""
        dtype, whole = np.dtype(self.dtype).newbyteorder("<"), (self.layout.windows, *self.layout.row_shape)
        if isinstance(features, np.ndarray) and features.shape[1:] == whole:
            values = np.ascontiguousarray(features, dtype)
        else:
            values = np.zeros((len(features), *whole), dtype)
            for place, row in zip(values, features, strict=True):
                place[: len(row)] = row
        return values.view(np.uint8).reshape(len(values), self.layout.row_bytes)

    @property
    def dtype(self) -> str:
        """The dtype of the features on disk."""
        return self.layout.dtype

    def refusal(self, features: NDArray[np.floating]) -> str:
        """The reason why these values (t, *row_shape) cannot be stored, or ""."""
        if len(features) > self.layout.windows:
            return f"has {len(features)} windows, and the store has room for {self.layout.windows}"
        return refusal(features, self.dtype)

    def failed(self, row: int, reason: str) -> None:
        """Record that the row's clip could not be read, with the reason."""
        self._keep(row, fmt.FAILED, reason)

    def absent(self, row: int, reason: str) -> None:
        """Record that the row's clip does not have the modality, with the reason."""
        self._keep(row, fmt.ABSENT, reason)

    def retry_failed(self) -> None:
        """Make the failed rows pending again. Each keeps its reason until it is written again."""
        self._settle()
        self._finished.clear()
        for number in range(self.layout.blocks):
            states, entries = _block.recorded(self.path, number, self.layout)
            first = self.layout.span(number).start
            self._retried |= {first + int(place) for place in np.flatnonzero(states == fmt.FAILED)}
            self._retried |= {row for row, (state, _) in entries.items() if state == fmt.FAILED}

    def renew(self, rows: Iterable[int]) -> None:
        """Make these rows pending again, whatever they hold. Each keeps its content until it is written again."""
        self._settle()
        self._renewed |= {*rows}
        self._retried |= self._renewed
        self._finished.clear()

    def close(self) -> None:
        """Commit complete blocks, sync the journals and release the store's lock; raise the first error of these.

        When waiting is interrupted, the rest happens in the background. In a forked child it does nothing.
        """
        if os.getpid() == self._process:
            self._retried.clear()  # rows that were not tried again keep their reason
            self._commits.start(self._close)
            self._commits.wait()

    def _close(self) -> None:
        with ExitStack() as stack:  # when closing one block fails, the others are still closed
            stack.callback(_lease.free, self._lock)
            for number in list(self._blocks):
                stack.callback(self._close_block, number)

    def _close_block(self, number: int) -> None:
        block = self._blocks.pop(number)
        if block.complete:
            block.commit(self.store)
        else:
            block.close()

    def _settle(self) -> None:
        """Wait until the blocks that are being committed are in their places."""
        self._check_process()
        self._commits.wait()

    def _check_process(self) -> None:
        """Raise StoreError in a forked child: the threads that commit blocks are its parent's."""
        if os.getpid() != self._process:
            raise StoreError(f"{self.path} was opened for writing by process {self._process}; open it again here")

    def _logs(self) -> list[Path]:
        logs = (self.path / "journal").glob("*.log")
        return sorted(log for log in logs if log.stem.isdecimal() and int(log.stem) < self.layout.blocks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep(self, row: int, state: int, reason: str) -> None:
        """Write a row without features."""
        self._check_pending([row])
        number = row // self.layout.block_rows
        self._blocks[number].add(row, state, reason.encode(errors="backslashreplace"))
        self._retried.discard(row)
        self._commit_if_complete(number)

    def _commit_if_complete(self, number: int) -> None:
        block = self._blocks[number]
        if block.complete and self._retried.isdisjoint(block.span):
            self._finished.add(number)
            del self._blocks[number]
            self._commits.start(partial(block.commit, self.store))
            self._commits.wait(COMMITS)


def refusal(features: NDArray[np.floating], dtype: str) -> str:
    """Return the reason why these values cannot be stored in this dtype, or ""."""
    if features.dtype == np.float16:  # numpy is slow with float16; without the sign, its bits order the same way
        bits = np.ascontiguousarray(features).view(np.uint16)
        most = max(int(bits.view(np.int16).max(initial=0)), int(bits.max(initial=0)) & 0x7FFF)  # positive, negative
        return "" if most < INFINITY else "has values that are not finite"
    largest = max(float(features.max(initial=0.0)), -float(features.min(initial=0.0)))  # NaN if there is one
    if largest <= float(np.finfo(dtype).max):
        return ""
    if not np.isfinite(features).all():
        return "has values that are not finite"
    return f"reaches {largest:.3g}, beyond {dtype}"


def _begun(path: Path) -> bool:
    """Return whether a store holds any rows, or files that may hold rows, and so must not be deleted."""
    return any(any(path.glob(pattern)) for pattern in ("features/c/*", "state/c/*", "journal/*"))


def _ready_store(path: Path, manifest: Manifest, rows: bytes, recipe: dict[str, Any]) -> FeatureStore | None:
    """The store when it needs no creation or extension; StoreError when it has another recipe or other clips.

    rows: the content of rows.csv for the manifest.
    """
    if not (path / fmt.SUMS).exists() or (path / fmt.EXTENSION).exists():
        return None
    store = FeatureStore.open(path)
    if len(store) != len(manifest) and _begun(path):
        return None
    try:
        store.check_recipe(recipe)
        if store.rows_file != rows:
            store.check_rows(manifest)
    except StoreError:
        if _begun(path):
            raise
        return None
    return store


def _prepare(path: Path, layout: fmt.Layout, manifest: Manifest, rows: bytes, attributes: dict[str, Any]) -> None:
    """Create the store, or extend it to the manifest; the caller has the exclusive lock.

    rows: the content of rows.csv for the manifest.
    """
    if path.exists() and any(path.iterdir()) and not (path / fmt.SUMS).exists():
        if (path / "zarr.json").exists():
            raise StoreError(f"{path} lacks {fmt.SUMS}; `featcache repair {path}` may restore it")
        raise StoreError(f"{path} exists and is not a store; remove it, or choose another --stores folder")
    finish_extension(path)
    if path.exists() and not _begun(path):
        remove_folder(path)  # created, then interrupted before the first row: nothing to resume
    if path.exists():
        store = FeatureStore.open(path)
        store.check_recipe(attributes["recipe"])
        store.check_rows(manifest, extensible=True)
        if len(store) < len(manifest):
            layout = _extended(store, layout)
            _write_fixed(path / fmt.EXTENSION, layout, rows, store.attributes, fmt.read_bytes(path / "zarr.json"))
            finish_extension(path)
    else:
        _write_fixed(path, layout, rows, attributes)


def _extended(store: FeatureStore, layout: fmt.Layout) -> fmt.Layout:
    """Return the layout of a store with more rows; StoreError if its rows have no room for the new clips' windows."""
    if layout.windows > store.windows:
        raise StoreError(
            f"{store.path} has room for {store.windows} windows per clip, but a clip of the manifest has "
            f"{layout.windows}; extract into another --stores folder"
        )
    return replace(layout, windows=store.windows)


def _write_fixed(folder: Path, layout: fmt.Layout, rows: bytes, attributes: dict[str, Any], group: bytes = b"") -> None:
    """Write the files of a store that do not depend on its rows, in a scratch folder that is then renamed.

    rows: the content of rows.csv. group: the exact bytes of zarr.json of an existing store. Its blocks are sealed with
    these bytes, and a newer zarr may format them differently.
    """
    with making_folder(folder) as scratch:
        layout.create_arrays(scratch, {"featcache": attributes})
        if group:
            write_file(scratch / "zarr.json", group)
        write_file(scratch / "rows.csv", rows)
        write_file(scratch / fmt.SUMS, digests.fixed_sums(scratch))


def finish_extension(path: Path) -> None:
    """Move the files of a larger store, if there are any, into place; a repeated call finishes an interrupted one."""
    extension = path / fmt.EXTENSION
    if (extension / fmt.SUMS).exists():
        for name in (*fmt.FIXED_FILES, fmt.SUMS):
            write_file(regular(path / name, StoreError), fmt.read_bytes(extension / name))
        (extension / fmt.SUMS).unlink()  # from here on the folder only needs to be removed
        sync_folder(extension)
    if extension.exists():
        shutil.rmtree(extension)
        sync_folder(path)


def set_aside(path: Path, dtype: str) -> None:
    """Rename a store of this dtype that is to be made again, so that it exists until the new store is finished.

    Does nothing when another process has already done so. StoreError while another process writes the store.
    """
    lock = _lease.lock(path, alone=True)
    if lock is None:
        raise StoreError(f"{path} is being written by another process; stop that process first")
    try:
        if stored_dtype(path) == dtype:
            drop_aside(path)
            os.replace(path, _aside(path))
            sync_folder(path.parent)
    finally:
        _lease.free(lock)


def set_aside_undone(path: Path, recipe: dict[str, Any]) -> bool:
    """Set aside a store of another recipe in which no row is done, and return True; False if there is none."""
    try:
        store = FeatureStore.open(path)
    except StoreError:
        return False  # there is none, or `StoreWriter.open` names what is wrong with it
    logs = [int(log.stem) for log in (path / "journal").glob("*.log") if log.stem.isdecimal()]
    journalled = [entry[0] for number in logs for entry in _block.read_log(path, number, store.layout).entries.values()]
    if store.archived or store.has_recipe(recipe) or fmt.DONE in store.state or fmt.DONE in journalled:
        return False
    set_aside(path, store.layout.dtype)
    return True


def drop_aside(path: Path) -> None:
    """Delete the store that was set aside, if there is one."""
    remove_abandoned(_aside(path))
    with contextlib.suppress(FileNotFoundError):  # also if another process deletes it at the same time
        remove_folder(_aside(path))


def stored_dtype(path: Path) -> str:
    """The dtype of the features in a store; "" when there is no readable store."""
    try:
        return open_unchecked(path).layout.dtype
    except (OSError, StoreError):
        return ""


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.aside")


def check_folder(folder: Path, manifest: Manifest) -> None:
    """Raise StoreError, with the differences, unless all stores of a folder have the manifest's (first) clips.

    Stores that cannot be opened are skipped; `featcache check` reports them.
    """
    for path in sorted(folder.glob("*.zarr")):
        try:
            store = FeatureStore.open(path)
        except StoreError:
            continue
        store.check_rows(manifest, extensible=True)


def left(store: FeatureStore) -> int:
    """The number of rows that are neither committed nor in a journal."""
    layout = store.layout
    blocks = range(layout.blocks)
    return sum(len(_block.recorded(store.path, number, layout).untried(layout.span(number))) for number in blocks)


is_written = _lease.is_locked
