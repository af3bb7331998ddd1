r"""The media files that the rows of a store were made from, so that a file that was replaced since is noticed.

    .NAME.zarr.files        next to the store NAME.zarr: a line per event, and the last line of a row counts
        ROW                 the row is being written, so the file of its features is not known
        ROW SIZE TIME DIGEST    the row was made from a file in this state; without DIGEST if that was not read

The record of a store below a URL is an object of the same name, with one line per row; see `pushing.py`.

Lines are only appended, each in one write: ROW before a row is read, and the state that its file had then after the row
is kept. So whatever is killed, and whoever else writes, a row never has the line of a file that is newer than that of
its features. A line that is cut off names no file that exists, at worst of another row. Lines begin with \n, so that
nothing is joined to such a line.
"""

import os
import re
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

from featcache.errors import StoreError
from featcache.files import disk_errors, regular, write_file
from featcache.manifest import Manifest
from featcache.store import _block
from featcache.store import _format as fmt
from featcache.store.content import State, digest_of, state_of
from featcache.store.reader import FeatureStore
from featcache.store.writer import Many, StoreWriter

LINE = re.compile(r"(\d+)(?: (\d*(?: \d*(?: [0-9a-f]*)?)?))?")  #: also one that is cut off
MADE = (fmt.DONE, fmt.ABSENT)  #: states of rows that are made from a file; failed ones have their own way to be retried


class Files:
    """The media files as they are when they are first looked at; each is read once."""

    def __init__(self) -> None:
        self.state = cache(state_of)
        self.digest = cache(digest_of)
        self.described = cache(self._described)

    def _described(self, path: Path) -> str:
        """Return state and digest of a file; only the state it had, if it has changed since `state` was read."""
        before, digest = self.state(path), self.digest(path)
        return f"{before} {digest}" if before and before == state_of(path) else str(before or "")


class Record:
    """The file with the lines of a store; several processes may append to it."""

    def __init__(self, store: Path) -> None:
        store = store.resolve()
        self.path = store.with_name(f".{store.name}.files")
        self._file = -1  # its descriptor, once there is something to append

    def append(self, *lines: str) -> None:
        """Append lines without their newline."""
        if not lines:
            return
        text = "".join(f"\n{line}" for line in lines).encode()
        with disk_errors(self.path):
            if self._file < 0:
                path = regular(self.path, StoreError)
                self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
                weakref.finalize(self, os.close, self._file)
            while text := text[os.write(self._file, text) :]:
                pass  # a disk that is nearly full takes a part of it

    def files(self) -> dict[int, str]:
        """Return row -> "SIZE TIME DIGEST" of its file, "" if that is not known; rows without a line are left out."""
        try:
            return parsed(regular(self.path, StoreError).read_bytes(), self.path)
        except FileNotFoundError:
            return {}


def content(files: Mapping[int, str]) -> bytes:
    """Return the content of a record with one line per row."""
    return "".join(f"\n{row} {described}".rstrip(" ") for row, described in sorted(files.items())).encode()


def parsed(data: bytes, place: object) -> dict[int, str]:
    """Return row -> description, as `Record.files` does, of the content of a record. place: named by errors."""
    found = {}
    for line in filter(None, data.decode("ascii", errors="replace").splitlines()):
        if not (match := LINE.fullmatch(line)):
            raise StoreError(f"{place} is damaged: {line[:80]!a}; remove it, and the store if files were replaced")
        found[int(match[1])] = match[2] or ""
    return found


def restore(path: Path, data: bytes) -> None:
    """Give a store that was fetched the record that was fetched with it.

    The file of a row without a line is not known, because the time when the row was fetched shows nothing. A damaged
    record is kept as it is, for those who need it to report.
    """
    store, place = FeatureStore.open(path), Record(path).path
    if of_files(store):
        made = {int(row): "" for row in np.flatnonzero(np.isin(store.state, MADE))}
        with suppress(StoreError):
            data = content(made | parsed(data, place))
        write_file(place, data, shared=True)


class RecordingWriter:
    """A writer of a store that also records the files of the rows."""

    def __init__(self, writer: StoreWriter, manifest: Manifest, files: Files) -> None:
        self.writer, self.manifest, self.files = writer, manifest, files
        self.record = Record(writer.path)
        self.dtype, self.refusal = writer.dtype, writer.refusal
        self._path_of = cache(manifest.root.joinpath)  # of a source, which many clips may share

    @property
    def pending(self) -> list[int]:
        """The rows that are still to be computed."""
        return self.writer.pending

    def claim(self, row: int) -> bool:
        """Return whether this writer has the row's block; if so, the row's file is to be read next."""
        ours = self.writer.claim(row)
        if ours:
            self.files.state(self._path(row))
            self.record.append(str(row))
        return ours

    def done_many(
        self,
        rows: Sequence[int],
        features: Many,
        start: Many,
        stop: Many,
        notes: Sequence[str] = (),
    ) -> None:
        """Write rows of features."""
        self.writer.done_many(rows, features, start, stop, notes)
        self._made(*rows)

    def failed(self, row: int, reason: str) -> None:
        """Record that the row's clip could not be read."""
        self.writer.failed(row, reason)

    def absent(self, row: int, reason: str) -> None:
        """Record that the row's clip does not have the modality."""
        self.writer.absent(row, reason)
        self._made(row)

    def _made(self, *rows: int) -> None:
        described = {row: self.files.described(self._path(row)) for row in rows}
        self.record.append(*(f"{row} {state}" for row, state in described.items() if state))

    def _path(self, row: int) -> Path:
        return self._path_of(self.manifest.clips[row].source)


def replaced(path: Path, manifest: Manifest, files: Files, *, settle: bool = False) -> dict[int, bool]:
    """Return the rows of a store whose features are not known to be of the clips' present files.

    Row -> True if its file was replaced for sure, False if it may have been. Files of equal content are the same, and
    files that are gone are left out, as are captions and imported features. Rows without a line, of earlier versions,
    are those of the present file if that was there, in this state, before they were committed.
    settle: record what was found, because that time may change at the next commit.
    """
    found, news = _compared(path, manifest, files)
    if settle and news:
        Record(path).append(*(f"{row} {known}".rstrip() for row, known in news.items()))
    return found


def news(path: Path, manifest: Manifest, files: Files, rows: Collection[int]) -> dict[int, str]:
    """Return what `replaced` would record of these rows, for the record of another store that they are copied to."""
    return _compared(path, manifest, files, rows)[1]


def _compared(
    path: Path, manifest: Manifest, files: Files, rows: Collection[int] | None = None
) -> tuple[dict[int, bool], dict[int, str]]:
    """Return what `replaced` returns, and row -> description of its file, where the record has another or none."""
    found, news = dict[int, bool](), dict[int, str]()
    try:
        store = FeatureStore.open(path)
    except StoreError:  # there is none, or whoever uses it says so
        return found, news
    if not of_files(store):
        return found, news
    recorded = Record(path).files()
    for row, committed in _made_rows(store):
        clip = manifest.clips[row] if row < len(manifest) and (rows is None or row in rows) else None
        if not clip or not clip.source or not (now := files.state(manifest.path(clip))):
            continue
        before = recorded.get(row)
        known = _before(now, committed) if before is None else before
        state, digest = known.split()[:2], known.split()[2:]
        if state != str(now).split() and digest and digest == [files.digest(manifest.path(clip))]:
            known = f"{now} {digest[0]}"
        elif state != str(now).split():
            found[row] = bool(known)
        if known != before:
            news[row] = known
    return found, news


def of_files(store: FeatureStore) -> bool:
    """Return whether the features of a store were made from media files: not from captions, and not imported."""
    return store.modality != "text" and store.recipe.get("recipe") != "external"


def unfinished(store: FeatureStore) -> set[int]:
    """Return the rows of a store that a journal has, too, because writing them again was interrupted."""
    states = store.state  # before the journals, because rows of a first commit that ends meanwhile are finished
    logs = [int(log.stem) for log in (store.path / "journal").glob("*.log") if log.stem.isdecimal()]
    rows = (row for number in logs if number < store.layout.blocks for row in store.layout.span(number))
    return {row for row in rows if states[row] in MADE}


def _before(now: State, committed: State | None) -> str:
    """Return the present state of a file if it was in it before the row was committed, or ""."""
    earlier = committed and now.modified < committed.modified and now.changed < committed.changed
    return str(now) if earlier else ""


def _made_rows(store: FeatureStore) -> Iterator[tuple[int, State | None]]:
    """Yield the rows that have been made, also those in journals, and the state of the file that they are in."""
    layout = store.layout
    for number in range(layout.blocks):
        span = layout.span(number)
        committed = state_of(store.path / layout.files(number)["state"]) or state_of(store.path / "zarr.json")
        log = state_of(store.path / "journal" / f"{number}.log")
        if store.archived:
            states, entries = _block.Recorded(store.state[span.start : span.stop], {})
        else:
            states, entries = _block.recorded(store.path, number, layout)
        made = {row for row, state in zip(span, states, strict=True) if state in MADE}
        yield from ((row, committed) for row in sorted(made))
        yield from ((row, log) for row, (state, _) in entries.items() if state in MADE and row not in made)
