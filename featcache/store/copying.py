"""Rows of stores -> another store, as they are: features, times, notes, and the reasons of rows without features."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featcache.progress import Progress, silent
from featcache.store import _format as fmt
from featcache.store.reader import FeatureStore
from featcache.store.writer import StoreWriter

PIECE = 64 << 20  #: bytes of features that are read at a time


class Place(NamedTuple):
    """The place of a row in the store that is written, and in the store that it is copied from."""

    row: int
    store: FeatureStore
    there: int  #: its row in `store`


def copy(writer: StoreWriter, places: Sequence[Place], progress: Progress = silent) -> None:
    """Copy rows to the places of a writer that are pending; those that another process writes are left to it.

    Every file of the other stores is compared with its digest when it is read; StoreError for a damaged one.
    progress: rows (done, all).
    """
    progress(0, len(places))
    size = max(1, PIECE // writer.layout.row_bytes)
    for begin in range(0, len(places), size):
        piece = [place for place in places[begin : begin + size] if writer.claim(place.row)]
        features = dict(_features(piece))
        for place in piece:
            _write(writer, place, features.get(place.row))
        progress(min(begin + size, len(places)), len(places))


def _features(places: Sequence[Place]) -> Iterator[tuple[int, NDArray[np.floating]]]:
    """Yield row -> its features (t, *row_shape), of the rows that are done, store by store."""
    stores = {id(place.store): place.store for place in places}
    for key, store in stores.items():
        done = [p for p in places if id(p.store) == key and store.state[p.there] == fmt.DONE]
        rows = store.read([place.there for place in done])
        yield from ((place.row, row[: store.length[place.there]]) for place, row in zip(done, rows, strict=True))


def _write(writer: StoreWriter, place: Place, features: NDArray[np.floating] | None) -> None:
    store, there = place.store, place.there
    if features is not None:
        length = len(features)
        start, stop = store.window_start[there, :length], store.window_stop[there, :length]
        writer.done(place.row, features, start, stop, store.notes.get(there, ""))
    else:
        write = writer.failed if store.state[there] == fmt.FAILED else writer.absent
        write(place.row, store.failures[there])
