"""Numbers from the user's own files: a clip's row is the row of its file, or the mean over the clip's rows.

none        the clip has one row in the file, which is kept as it is
mean        mean of the clip's rows, (D,)
mean-std    mean and standard deviation (over n, not n - 1), (2 D,): CogBeacon's face descriptors
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ConfigError, MediaError
from featcache.extractors import Extractor, bounded
from featcache.media import numbers
from featcache.windows import Numbers
from featcache.wording import first, quoted

REDUCE = ("none", "mean", "mean-std")


@dataclass(frozen=True)
class Params:
    """The choice of the numbers, and their reduction."""

    key: str = ""  #: name of the array in an .npz or HDF5 file; "": the only one but for labels and the like
    columns: str = ""  #: names of columns of a CSV file, separated by commas; "": all with numbers but for labels, ...
    modality: str = "vector"  #: subject of the numbers, in letters: eeg, face, ...
    reduce: str = "none"  #: none, mean or mean-std, over the clip's rows
    dims: int = bounded(0, 0, 1_000_000_000)  #: numbers of a row; 0: as in the first source


class Vector(Extractor):
    """An extractor of numbers as they are, or of their statistics over a clip."""

    name = "vector"

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        _check(params)
        if params.dims == 0:
            raise ConfigError("vector.dims is 0; allowed: from 1 on; Vector.complete() reads it from a source")
        self.modality = params.modality
        self.window = Numbers(params.key, params.columns)
        self.row_shape = (params.dims,)

    @classmethod
    def complete(cls, params: Params, source: Path) -> Params:
        """Return the parameters with `dims` as in this source. MediaError if it cannot be read.

        If the source has other numbers that were left out because of their names, `columns` or `key` is filled in, too.
        """
        _check(params)
        if params.dims and (params.key or params.columns):
            return params
        choice = numbers.choice(source, params.key, params.columns)
        if choice.by_name:
            is_csv = source.suffix.lower() == ".csv"
            if is_csv and any("," in name or choice.taken.count(name) > 1 for name in choice.taken):
                raise MediaError(f"{source} has a column whose name occurs twice or has a comma; rename it")
            names = ",".join(choice.taken)
            params = replace(params, columns=names) if is_csv else replace(params, key=names)
        if params.dims:
            return params
        columns = numbers.width(source, params.key, params.columns)
        return replace(params, dims=2 * columns if params.reduce == "mean-std" else columns)

    def note(self, source: Path) -> str:
        """Return a note that names the columns or the array taken, and the others; "" for a file without names."""
        choice = numbers.choice(source, self.params.key, self.params.columns)
        if not choice.taken:
            return ""
        kind, setting = ("columns", "columns") if source.suffix.lower() == ".csv" else ("array", "key")
        how = f" (to take others: --set vector.{setting}=NAME)"
        rest = f"; leaves out {quoted(choice.left_out, 10)}{how}" if choice.left_out else ""
        return f"takes the {kind} {first(choice.taken)}{rest}"

    @property
    def store(self) -> str:
        """The name of its store, `vector`, or `vector-eeg`: a folder may have one per modality."""
        return self.name if self.modality == "vector" else f"{self.name}-{self.modality}"

    def prepare(self, window: NDArray[np.float64]) -> NDArray[np.float32]:
        """(rows, columns) -> (dims,). MediaError for a wrong number of columns, or several rows without `reduce`."""
        if self.params.reduce == "none":
            if len(window) != 1:
                raise MediaError(
                    f"the clip has {len(window)} rows of numbers where one is expected; set vector.reduce to mean or "
                    "mean-std, or give start_frame and stop_frame"
                )
            row = window[0]
        else:
            row = window.mean(axis=0)
        if self.params.reduce == "mean-std":
            row = np.concatenate([row, window.std(axis=0)])
        if row.shape != self.row_shape:
            raise MediaError(
                f"the clip gives {len(row)} numbers, but vector.dims is {self.params.dims}; make all rows equally "
                "long, or leave the clip out"
            )
        with np.errstate(over="ignore"):
            row = row.astype(np.float32)
        if not np.isfinite(row).all():
            raise MediaError("the clip's numbers are too large for float32; scale them down")
        return row

    def __call__(self, windows: NDArray[Any]) -> NDArray[np.float32]:
        """Rows (n, dims), which `prepare` has already computed, unchanged."""
        return np.array(windows, np.float32)


def _check(params: Params) -> None:
    if params.reduce not in REDUCE:
        raise ConfigError(f"vector.reduce is {params.reduce!r}; allowed: {', '.join(REDUCE)}")
    if not re.fullmatch("[a-zA-Z]+", params.modality):
        raise ConfigError(f"vector.modality is {params.modality!r}; allowed: letters a to z, such as eeg")


EXTRACTOR = Vector
