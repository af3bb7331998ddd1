"""Rows of stores -> another store, as they are: features, times, notes, and the reasons of rows without features."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featcache.progress import Progress, silent
from featcache.store import _format as fmt
from featcache.store.provenance import Record, of_files
from featcache.store.reader import FeatureStore
from featcache.store.writer import StoreWriter

PIECE = 64 << 20  #: bytes of features that are read at a time


class Place(NamedTuple):
    """The place of a row in the store that is written, and in the store that it is copied from."""

    row: int
    store: FeatureStore
    there: int  #: its row in `store`


class _Row(NamedTuple):
    """The content of a row that is done."""

    features: NDArray[np.floating]  #: (t, *row_shape)
    start: NDArray[np.float64]  #: (t,)
    stop: NDArray[np.float64]  #: (t,)
    note: str


def copy(
    writer: StoreWriter, places: Sequence[Place], progress: Progress = silent, known: Mapping[int, str] = {}
) -> None:
    """Copy rows to the places of a writer that are pending; those that another process writes are left to it.

    The record of the media files that the rows were made from is copied, too. Every file of the other stores is
    compared with its digest when it is read; StoreError for a damaged one.
    progress: rows (done, all). known: row of the only other store -> description of its file, where the record of that
    store has an older one or none (`provenance.news`).
    """
    progress(0, len(places))
    record = Record(writer.path)
    sources = {id(place.store): place.store for place in places}
    files = {key: {**Record(store.path).files(), **known} for key, store in sources.items() if of_files(store)}
    size = max(1, PIECE // writer.layout.row_bytes)
    for begin in range(0, len(places), size):
        piece = [place for place in places[begin : begin + size] if writer.claim(place.row)]
        rows: dict[int, _Row] = {}
        record.append(*(str(place.row) for place in piece if id(place.store) in files))
        for store in sources.values():
            rows |= _rows(store, [place for place in piece if place.store is store])
        if done := sorted(rows):  # rows in order, because those that follow each other are written at once
            columns = zip(*(rows[row] for row in done), strict=True)
            writer.done_many(done, *map(list, columns))
        for place in piece:
            if place.row not in rows:
                write = writer.failed if place.store.state[place.there] == fmt.FAILED else writer.absent
                write(place.row, place.store.failures[place.there])
        made = {place.row: files.get(id(place.store), {}).get(place.there) for place in piece}
        record.append(*(f"{row} {described}" for row, described in made.items() if described))
        progress(min(begin + size, len(places)), len(places))


def _rows(store: FeatureStore, places: Sequence[Place]) -> dict[int, _Row]:
    """Return row -> its content, of the rows of a store that are done."""
    done = [place for place in places if store.state[place.there] == fmt.DONE]
    there = [place.there for place in done]
    return {
        place.row: _Row(row[:t], start[:t], stop[:t], store.notes.get(place.there, ""))
        for place, row, t, start, stop in zip(
            done,
            store.read(there),
            store.length[there],
            store.window_start[there],
            store.window_stop[there],
            strict=True,
        )
    }
