"""An open block: journal/B.shard holds its features, each row in its place; journal/B.log holds a record per row.

A record is row, state and payload, with a checksum. The payload of a done row is start and stop of its windows and the
checksum of its features; the payload of a failed or absent row is the reason. The last record of a row counts. A note
on a done row is a record of its own, before that of the row.

The checksum of the whole shard follows from those of the rows, so a commit does not read the features again.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from featcache import schema
from featcache.errors import StoreError
from featcache.files import disk_errors, make_folder, regular, sync_folder, write_file
from featcache.store import _format as fmt
from featcache.store import digests
from featcache.store._checksums import joined
from featcache.store._lease import free, lease
from featcache.store.reader import FeatureStore

RECORD = struct.Struct("<IBI")  #: row, state, bytes of the payload; the payload and a crc32c of all follow
OWNER = 255  #: the state of a record that names the holder of the lease
NOTE = 254  #: the state of a record with a note on the row, whose own record follows

WINDOWS = ("window_start", "window_stop")


@dataclass(frozen=True)
class _Owner:
    """The holder of a lease."""

    pid: int
    host: str


Entries = dict[int, tuple[int, bytes]]  #: row -> state, payload


class Log(NamedTuple):
    """The content of the journal of a block."""

    entries: Entries  #: the valid ones
    notes: dict[int, bytes]  #: row -> the note before the row's last record, b"" if there is none
    size: int  #: bytes that are whole records


class Block:
    """An open block, leased by this process.

    A block may have been committed before, and is open again because failed clips are tried again or clips were
    appended. It stays readable until its next commit: its rows are copied when the first new row is added.
    """

    def __init__(self, folder: Path, number: int, layout: fmt.Layout, log: BinaryIO) -> None:
        self.number, self.layout, self.span = number, layout, layout.span(number)
        self._folder, self._log, self._folder_synced = folder, log, False
        self._shard_path = folder / "journal" / f"{number}.shard"
        self._paths = {name: folder / path for name, path in layout.files(number).items()}
        self._committed = committed_states(folder, number, layout)
        self._taken_over = not self._committed.any()
        if not self._shard_path.exists() and not self._committed.any() and self._paths["features"].exists():
            os.replace(self._paths["features"], self._shard_path)  # the process was killed during the commit
        shard = os.open(regular(self._shard_path, StoreError), os.O_RDWR | os.O_CREAT)
        self._shard = os.fdopen(shard, "r+b", buffering=0)
        self.entries, self._notes, self._end = read_log(folder, number, layout)
        os.ftruncate(log.fileno(), self._end)
        self._missing = {row for row in self.span if not self.state(row)}
        with disk_errors(folder):
            owner = fmt.json_bytes({"pid": os.getpid(), "host": socket.gethostname()})
            self._record(_record_bytes(self.span.start, OWNER, owner))

    @classmethod
    def claim(cls, folder: Path, number: int, layout: fmt.Layout) -> "Block | None":
        """Lease the block and read its journal; None while another writer holds the lease."""
        log = lease(folder / "journal" / f"{number}.log")
        if log is None:
            return None
        try:
            return cls(folder, number, layout, log)
        except BaseException:
            free(log)
            raise

    def state(self, row: int) -> int:
        """The row's state, as it will be committed."""
        return self.entries[row][0] if row in self.entries else int(self._committed[row - self.span.start])

    @property
    def missing(self) -> frozenset[int]:
        """The rows that have not been written."""
        return frozenset(self._missing)

    @property
    def complete(self) -> bool:
        """True when every row has been written."""
        return not self._missing

    def add(self, row: int, state: int, reason: bytes) -> None:
        """Add a failed or absent row, in place of an earlier record of it."""
        with disk_errors(self._folder):
            self._take_over()
            self._put(row, state, reason)

    def add_done(
        self, rows: Sequence[int], times: Sequence[bytes], features: NDArray[np.uint8], notes: Sequence[bytes]
    ) -> None:
        """Add done rows, in place of earlier records of them.

        times: `times_bytes` of the rows. features: bytes (rows, row_bytes). notes: a remark on each row, or b"".
        """
        with disk_errors(self._folder):
            self._take_over()
            self._put_done(rows, times, features, notes)

    def commit(self, store: FeatureStore) -> None:
        """Move the complete block to its place, unless nothing was added, and release the lease."""
        try:
            if self.entries:
                with disk_errors(self._folder):
                    self._take_over()
                    self._put_in_place(self._files(store))
            self._shard_path.unlink(missing_ok=True)
            Path(self._log.name).unlink()
        finally:
            self._free()

    def _put_in_place(self, files: dict[str, bytes]) -> None:
        sums = {name: fmt.crc(data) for name, data in files.items()} | {"features": self._finish_shard()}
        files["digest"] = digests.digest_row(self._folder, self.number, sums)
        os.fsync(self._shard.fileno())
        if self._committed.any():  # from here on only the journal vouches for the rows
            self.sync()
            _remove(self._paths["state"])
        make_folder(self._paths["features"].parent)
        os.replace(self._shard_path, self._paths["features"])
        sync_folder(self._paths["features"].parent)
        for name in ("window_start", "window_stop", "length", "failures", "digest", "state"):
            if files[name] or name != "failures":
                write_file(regular(self._paths[name], StoreError), files[name])
            elif self._paths[name].exists():
                _remove(self._paths[name])

    def sync(self) -> None:
        """Make all that was written durable."""
        with disk_errors(self._folder):
            os.fsync(self._shard.fileno())
            os.fsync(self._log.fileno())
        if not self._folder_synced:
            sync_folder(self._shard_path.parent)
            self._folder_synced = True

    def close(self) -> None:
        """Sync and release the block; its rows stay in the journal for the next owner."""
        try:
            if self.entries:
                self.sync()
            else:  # nothing was added: leave no files
                self._shard_path.unlink()
                Path(self._log.name).unlink()
        finally:
            self._free()

    def _free(self) -> None:
        self._shard.close()
        if not self._log.closed:
            free(self._log)

    def _take_over(self) -> None:
        """Copy the rows that have no newer record from the committed block, if there is one."""
        if self._taken_over:
            return
        if damage := digests.damaged(self._folder, self.number, self.layout):
            raise StoreError(f"{self._folder}: {damage}; `featcache repair` makes its clips pending again")
        rows = self.layout.map_rows(self._paths["features"])
        start, stop = (fmt.read_chunk(self._paths[name], "<f8").reshape(-1, self.layout.windows) for name in WINDOWS)
        lengths = fmt.read_chunk(self._paths["length"], "<u4")
        reasons = fmt.read_failures(self._paths["failures"], self.span)
        for k, row in enumerate(self.span):
            state, t = int(self._committed[k]), lengths[k]
            if row in self.entries:
                continue
            if state == fmt.DONE:
                times = times_bytes([start[k, :t]], [stop[k, :t]])
                self._put_done([row], times, rows[k : k + 1], [reasons.get(row, "").encode()])
            elif state != fmt.NOT_TRIED:
                self._put(row, state, reasons.get(row, "no reason recorded").encode())
        self._taken_over = True

    def _put(self, row: int, state: int, payload: bytes) -> None:
        self._record(_record_bytes(row, state, payload))
        self.entries[row], self._notes[row] = (state, payload), b""
        self._missing.discard(row)

    def _put_done(
        self, rows: Sequence[int], times: Sequence[bytes], features: NDArray[np.uint8], notes: Sequence[bytes]
    ) -> None:
        for row in rows:
            if self.entries.get(row, (fmt.DONE,))[0] == fmt.DONE:  # an earlier record does not vouch for new features
                self.entries.pop(row, None)
                self._missing.add(row)
        self._write(rows, features)
        payloads = [of + fmt.crc(row).to_bytes(4, "little") for of, row in zip(times, features, strict=True)]
        records = []
        for row, payload, note in zip(rows, payloads, notes, strict=True):
            records += [_record_bytes(row, NOTE, note)] if note else []
            records.append(_record_bytes(row, fmt.DONE, payload))
        self._record(b"".join(records))
        self.entries.update((row, (fmt.DONE, payload)) for row, payload in zip(rows, payloads, strict=True))
        self._notes.update(zip(rows, notes, strict=True))
        self._missing.difference_update(rows)

    def _write(self, rows: Sequence[int], features: NDArray[np.uint8]) -> None:
        """Write the bytes of rows (rows, row_bytes) to their places, and those of consecutive rows at once."""
        begin = 0
        for end in range(1, len(rows) + 1):
            if end == len(rows) or rows[end] != rows[end - 1] + 1:
                place = (rows[begin] - self.span.start) * self.layout.row_bytes
                _write_all(self._shard.fileno(), features[begin:end].reshape(-1).data, place)
                begin = end

    def _record(self, data: bytes) -> None:
        """Append records to the journal, all or none."""
        try:
            _write_all(self._log.fileno(), data, self._end)
        except OSError:  # the disk is full: remove the torn record, behind which the next one would be lost
            with contextlib.suppress(OSError):
                os.ftruncate(self._log.fileno(), self._end)
            raise
        self._end += len(data)

    def _finish_shard(self) -> int:
        """Fill the shard up to whole inner chunks and append its index; return its checksum.

        Rows that are not done are zeros: a killed process may have left half of an earlier attempt.
        """
        zeros = np.zeros((1, self.layout.row_bytes), np.uint8)
        checksums = np.full(len(self.span), fmt.crc(zeros), np.uint32)
        for row, (state, payload) in self.entries.items():
            if state == fmt.DONE:
                checksums[row - self.span.start] = int.from_bytes(payload[-4:], "little")
            else:
                self._write([row], zeros)
        payload_bytes, index = self.layout.shard_index(len(self.span))
        end = len(self.span) * self.layout.row_bytes
        tail = bytes(payload_bytes - end) + index
        os.ftruncate(self._shard.fileno(), end)
        _write_all(self._shard.fileno(), tail, end)  # a hole in a full tmpfs cannot be mapped
        return int(google_crc32c.extend(joined(checksums, self.layout.row_bytes), tail))

    def _files(self, store: FeatureStore) -> dict[str, bytes]:
        """The bytes of the block's small files."""
        layout, first = self.layout, self.span.start
        times, lengths = self._times()
        states = np.zeros(len(self.span), np.uint8)
        reasons = {}
        for row, (state, payload) in self.entries.items():
            states[row - first] = state
            if state != fmt.DONE:
                reasons[row] = (state, payload.decode(errors="backslashreplace"))
            elif note := self._notes.get(row):
                reasons[row] = (state, note.decode())
        return {
            "window_start": layout.padded(times[0], "float64"),
            "window_stop": layout.padded(times[1], "float64"),
            "length": layout.padded(lengths, "uint32"),
            "failures": fmt.failure_lines(reasons, store.clip_ids) if reasons else b"",
            "state": layout.padded(states, "uint8"),
        }

    def _times(self) -> tuple[NDArray[np.float64], NDArray[np.uint32]]:
        """The start and stop of windows (2, rows, T), and the number of windows of each row; zeros where not done."""
        times = np.zeros((2, len(self.span), self.layout.windows))
        lengths = np.zeros(len(self.span), np.uint32)
        done: dict[int, list[int]] = {}  # rows by the size of their payload
        for row, (state, payload) in self.entries.items():
            if state == fmt.DONE:
                done.setdefault(len(payload) - 4, []).append(row)
        for size, rows in done.items():
            data = b"".join(self.entries[row][1][:-4] for row in rows)
            values = np.frombuffer(data, "<f8").reshape(len(rows), 2, -1)
            places = np.array(rows) - self.span.start
            lengths[places] = t = size // 16
            times[:, places, :t] = values.swapaxes(0, 1)
        return times, lengths


def times_bytes(
    start: Sequence[NDArray[np.floating]] | NDArray[np.floating],
    stop: Sequence[NDArray[np.floating]] | NDArray[np.floating],
) -> list[bytes]:
    """The payloads of done rows, without the checksums of their features. start, stop: those of each row's windows."""
    if len({len(of) for of in start}) == 1:
        both = np.array((start, stop), "<f8").swapaxes(0, 1)
        data, size = both.tobytes(), both[0].nbytes
        return [data[begin : begin + size] for begin in range(0, len(data), size)]
    return [np.array(both, "<f8").tobytes() for both in zip(start, stop, strict=True)]


def committed_states(folder: Path, number: int, layout: fmt.Layout) -> NDArray[np.uint8]:
    """The states of a block's rows in the array `state`, all 0 when not committed; StoreError when cut off."""
    path = folder / layout.files(number)["state"]
    try:
        states = fmt.read_chunk(path, "u1")
    except fmt.MISSING:
        return np.zeros(len(layout.span(number)), np.uint8)
    if len(states) != layout.block_rows or (states > fmt.ABSENT).any():
        raise StoreError(f"{path} is damaged; `featcache repair {folder}` makes its clips pending again")
    return states[: len(layout.span(number))]


class Recorded(NamedTuple):
    """The content of a block that another writer may be writing."""

    states: NDArray[np.uint8]  #: the committed states of its rows
    entries: Entries  #: the valid entries of its journal

    def untried(self, span: range) -> list[int]:
        """Return the rows of the block that are neither committed nor in the journal."""
        return [row for row, state in zip(span, self.states, strict=True) if not (state or row in self.entries)]


def recorded(folder: Path, number: int, layout: fmt.Layout) -> Recorded:
    """Read the committed states and the journal of a block, so that no row is missed while another writer commits it.

    A commit writes `state` before it removes the journal. Where the block was committed before, it first removes
    `state`. So `state` is read before and after the journal.
    """
    before = committed_states(folder, number, layout)
    entries = read_log(folder, number, layout).entries
    after = committed_states(folder, number, layout)
    return Recorded(np.where(after != fmt.NOT_TRIED, after, before), entries)


def read_log(folder: Path, number: int, layout: fmt.Layout) -> Log:
    """Read the journal of a block; an empty one when there is no file."""
    path = folder / "journal" / f"{number}.log"
    entries: Entries = {}
    pending: dict[int, bytes] = {}
    notes: dict[int, bytes] = {}
    size, data = 0, b""
    with contextlib.suppress(*fmt.MISSING):
        data = fmt.read_bytes(path)
    for row, state, payload, end in _records(data):
        size = end
        if state == NOTE:
            pending[row] = payload
        elif state != OWNER:
            entries[row], notes[row] = (state, payload), pending.pop(row, b"")
    if not entries:
        return Log({}, {}, size)
    shard, first = path.with_suffix(".shard"), layout.span(number).start
    rows = layout.map_rows(shard)
    if not len(rows) and not shard.exists():  # another writer is committing the block: the shard is in its place
        rows = layout.map_rows(folder / layout.files(number)["features"])

    def is_valid(row: int, state: int, payload: bytes) -> bool:
        if row not in layout.span(number):
            return False
        if state != fmt.DONE:
            return state in (fmt.FAILED, fmt.ABSENT)
        times = len(payload) - 4  # start and stop of 1 to T windows
        return (
            times in range(16, 16 * layout.windows + 1, 16)
            and row - first < len(rows)
            and fmt.crc(rows[row - first]) == int.from_bytes(payload[-4:], "little")
        )

    return Log({row: entry for row, entry in entries.items() if is_valid(row, *entry)}, notes, size)


def owner(folder: Path, number: int) -> str:
    """The present or last holder of a block's lease: "process 123 on host"."""
    holder = "another process"
    path = folder / "journal" / f"{number}.log"
    with contextlib.suppress(OSError, StoreError):
        for _, state, payload, _ in _records(fmt.read_bytes(path)):
            if state == OWNER:
                process = schema.parse(payload, _Owner, "", error=StoreError)
                holder = f"process {process.pid} on {process.host}"
    return holder


def _record_bytes(row: int, state: int, payload: bytes) -> bytes:
    data = RECORD.pack(row, state, len(payload)) + payload
    return data + fmt.crc(data).to_bytes(4, "little")


def _records(data: bytes) -> Iterator[tuple[int, int, bytes, int]]:
    """Iterate over (row, state, payload, end of the record) up to the first torn record."""
    begin = 0
    while len(data) >= begin + RECORD.size:
        row, state, size = RECORD.unpack_from(data, begin)
        end = begin + RECORD.size + size
        if len(data) < end + 4 or fmt.crc(data[begin:end]) != int.from_bytes(data[end : end + 4], "little"):
            return
        yield row, state, data[begin + RECORD.size : end], end + 4
        begin = end + 4


def _remove(path: Path) -> None:
    path.unlink()
    sync_folder(path.parent)


def _write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all bytes at an offset; OSError, for instance ENOSPC, when that is not possible."""
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
