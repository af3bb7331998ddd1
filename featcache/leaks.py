"""Search for features that give the label away: one-hot columns, and columns that are a function of the label.

Rows are checked one by one. Features of a network settle the search within a few rows, so that a store of any size
takes milliseconds.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.manifest import Manifest
from featcache.store import DONE, FeatureStore
from featcache.wording import first

AT_ONCE = 64  #: rows of a store that are read together
MOST_CLIPS = 4096  #: clips of a store that are checked, spread evenly
MOST_BITS = 1 << 26  #: windows x columns of zeros and ones that are held in memory
WARNING = "LABELS IN FEATURES, or one-hot columns"  #: the beginning of notes and warnings
ENOUGH = 5  #: clips per class that repeat the place of the largest number
LEAST = 4  #: clips that repeat what other clips of their class have shown; fewer prove nothing


def leaks(store: FeatureStore, manifest: Manifest) -> list[str]:
    """Describe the features of a store that give a label of the manifest away; [] if there are none."""
    rows = np.flatnonzero(store.state == DONE)
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_CLIPS)).astype(int)] if len(rows) else rows
    search = Search()
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        for row, values in zip(part, store.read(part), strict=True):
            search.add(values[: store.length[row]], manifest.clips[row].labels)
        if search.settled:
            break
    return search.findings()


class Search:
    """The search over the rows of one store or file."""

    def __init__(self, columns: Sequence[str] = ()) -> None:
        self.columns = columns  #: their names; () if they have none
        self.settled = False  #: True if no further row can change the findings, which are none
        self._bits = _Bits()
        self._labels: dict[str, _ByLabel] = {}  # label kind -> its search

    def add(self, row: NDArray[Any], labels: Mapping[str, str]) -> None:
        """Add a clip: its features (T, ...), and label kind -> class, {} if it has none."""
        if self.settled or not row.size or row.dtype.kind not in "fiu":
            return
        windows = row.reshape(len(row), -1)
        self._bits.add(windows)
        for label, value in labels.items():
            self._labels.setdefault(label, _ByLabel()).add(windows, value)
        searches: list[_Bits | _ByLabel] = [self._bits, *self._labels.values()]
        self.settled = bool(self._labels or not labels) and all(search.settled for search in searches)

    def findings(self) -> list[str]:
        """Describe what was found, a sentence without its full stop each."""
        texts = []
        for start, stop in self._bits.blocks():
            names = self._named(range(start, stop), self._bits.width)
            texts.append(f"{names} are one-hot in all {self._bits.clips} clips")
        for label, search in self._labels.items():
            clips = f"all {search.clips} clips that have one"
            if found := search.functions():
                verb, noun = ("is", "a function") if len(found) == 1 else ("are", "functions")
                texts.append(f"{self._named(found, search.width)} {verb} {noun} of the {label} in {clips}")
            elif search.is_classifier():
                texts.append(f"the place of a row's largest number is a function of the {label} in {clips}")
        return texts

    def _named(self, columns: Sequence[int], width: int) -> str:
        if len(columns) == width > 1:
            return f"all {width} numbers of a row"
        if self.columns:
            return first((repr(self.columns[k]) for k in columns), 5)
        if len(columns) > 2 and columns[-1] - columns[0] == len(columns) - 1:
            return f"numbers {columns[0]} to {columns[-1]} of {width} (from 0)"
        return f"number{'s' * (len(columns) > 1)} {first(map(str, columns), 5)} of {width} (from 0)"


class _ByLabel:
    """The search for functions of one label."""

    def __init__(self) -> None:
        self.width = 0
        self._clips = Counter[str]()  # class -> clips
        self._columns = np.arange(0)  # columns that have had one value in each class so far
        self._values: dict[str, NDArray[Any]] = {}  # class -> the value of each of these columns
        self._largest: dict[str, int] | None = {}  # class -> place of the largest number; None: it differs
        self._shares = True  # all rows are at least 0 and have the sum 1

    @property
    def settled(self) -> bool:
        return not len(self._columns) and self._largest is None

    @property
    def clips(self) -> int:
        return self._clips.total()

    @property
    def _repeats(self) -> int:
        return self.clips - len(self._clips)

    def add(self, windows: NDArray[Any], value: str) -> None:
        """Add the windows (T, D) of a clip of class `value`."""
        if not self._clips:
            self.width = windows.shape[1]
            self._columns = np.arange(self.width)
        self._clips[value] += 1
        if self._largest is not None:
            places = windows.argmax(1)
            if (places != self._largest.setdefault(value, int(places[0]))).any():
                self._largest = None
            self._shares &= bool((windows >= 0).all()) and np.allclose(windows.sum(1, dtype=np.float64), 1, atol=0.01)
        part = windows[:, self._columns]
        same = (part == self._values.setdefault(value, part[0].copy())).all(0)
        if not same.all():
            self._columns = self._columns[same]
            self._values = {name: values[same] for name, values in self._values.items()}

    def functions(self) -> list[int]:
        """Return the columns that have one value per class, and several over all classes with two clips or more."""
        repeated = [values for name, values in self._values.items() if self._clips[name] > 1]
        if len(repeated) < 2 or self._repeats < max(LEAST, 2 + log2(self.width)):
            return []
        table = np.stack(repeated)
        found: list[int] = self._columns[(table != table[0]).any(0)].tolist()
        return found

    def is_classifier(self) -> bool:
        """Return True if the largest number has another place in each class: probabilities or logits of the classes."""
        places = self._largest or {}
        if len(places) < 2 or self._repeats < ENOUGH * len(places):
            return False
        # Two classes that differ in some numbers often have their largest numbers apart, too. Only probabilities, which
        # have the sum 1, or three classes and more prove that the numbers belong to classes.
        logits = len(places) > 2 and self.width <= 2 * len(places)
        return (self._shares or logits) and len(set(places.values())) == len(places)


class _Bits:
    """The search for one-hot columns."""

    def __init__(self) -> None:
        self.width = self.clips = self._held = 0
        self._columns: NDArray[np.int64] | None = None  # columns with zeros and ones only
        self._windows: list[tuple[NDArray[np.int64], NDArray[np.bool_]]] = []  # such columns -> (T, columns), True: one

    @property
    def settled(self) -> bool:
        return self._columns is not None and len(self._columns) < 2

    def add(self, windows: NDArray[Any]) -> None:
        """Add the windows (T, D) of a clip."""
        if self._columns is None:
            self.width = windows.shape[1]
            self._columns = np.arange(self.width)
        if self.settled:
            return
        self.clips += 1
        part = windows[:, self._columns]
        bits = part == 1
        binary = (bits | (part == 0)).all(0)
        self._columns = self._columns[binary]
        self._windows.append((self._columns, bits[:, binary]))
        self._held += bits.size
        if self._held > MOST_BITS:
            self._columns = self._columns[:0]
        if self.settled:
            self._windows = []

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Iterate over the ranges (start, stop) of adjacent columns of which exactly one is 1 in every window."""
        columns = self._columns
        if columns is None or len(columns) < 2 or self.clips < max(LEAST, 2 + log2(len(columns))):
            return
        bits = np.concatenate([part[:, np.isin(kept, columns)] for kept, part in self._windows])
        for run in np.split(np.arange(len(columns)), np.flatnonzero(np.diff(columns) > 1) + 1):
            counts = np.cumsum(bits[:, run], axis=1, dtype=np.int32)
            before = np.zeros((len(bits), 1), np.int32)
            sums = np.concatenate([before, counts], axis=1).T  # (columns + 1, windows): ones before each column
            last = {line.tobytes(): k for k, line in enumerate(sums)}
            k = 0
            while k < len(run):
                stop = last.get((sums[k] + 1).astype(np.int32).tobytes(), k)
                if stop > k and bits[:, run[k:stop]].any(0).sum() > 1:
                    yield int(columns[run[k]]), int(columns[run[stop - 1]]) + 1
                k = stop if stop > k else k + 1
