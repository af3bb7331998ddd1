"""Tables of numbers that a user has made: EEG statistics, key points, descriptors.

    .csv             a line per row, cells separated by commas, with a line of names or without
    .npy             an array (rows, ...); what follows the first axis makes one long row. (D,) is one row
    .npz, .h5, .hdf5 the same, called by its key, or the only array of numbers

A CSV file has names if its first line has a cell that is no number. A column with a number in it must have one in every
line; a column without any is text, and left out unless it is asked for. A clip's bounds in frames count rows from 0;
bounds in seconds need the rows per second, the manifest's `fps`.
"""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.endings import NUMBERS
from featcache.errors import MediaError
from featcache.files import remembered
from featcache.manifest import Clip
from featcache.media import arrays
from featcache.media.source import check_exists


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of a clip."""

    values: NDArray[np.float64]  #: (rows, columns), finite
    start: float  #: second at which the first row begins; NaN where rows have no rate
    stop: float  #: second at which the last one ends


def read(path: Path, clip: Clip, key: str = "", columns: str = "") -> Table:
    """The clip's rows.

    key: of the array in an .npz or HDF5 file, "" for the only one. columns: names in a CSV file, separated by commas,
    "" for all with numbers. Raises MediaError when the file is damaged or empty or lacks what is asked for, when the
    clip starts after its end, and for a value that is no finite number, with its place.
    """
    rows = arrays.span(clip, clip.fps, path)
    part = _part(path, rows, key, columns)
    arrays.check_start(rows, part.count, path, "rows")
    if len(bad := np.argwhere(~np.isfinite(part.values))):
        row, column = bad[0].tolist()
        raise MediaError(
            f"{path} {part.place(rows.start + row, column)}: {part.values[row, column]} is no finite number; "
            "mend it, or leave its row out of the clip"
        )
    rate = clip.fps or np.nan
    return Table(part.values, rows.start / rate, (rows.start + len(part.values)) / rate)


def width(path: Path, key: str = "", columns: str = "") -> int:
    """How many numbers a row has; errors as `read`."""
    return _part(path, slice(0, 1), key, columns).values.shape[1]


@dataclass(frozen=True, eq=False)
class _Part:
    values: NDArray[np.float64]  # of the rows that were asked for
    count: int  # rows that there are in all
    place: Callable[[int, int], str]  # row and column of the whole -> words for where that is


def _part(path: Path, rows: slice, key: str, columns: str) -> _Part:
    ending = path.suffix.lower()
    if ending not in NUMBERS:
        raise MediaError(f"{path} is no table of numbers, whose names end in {', '.join(sorted(NUMBERS))}")
    check_exists(path)
    if ending == ".csv":
        if key:
            raise MediaError(f"{path} is a CSV file, which has no arrays; leave the key {key!r} out")
        table = _csv(path, columns)
        lines, names = table.lines, table.names
        return _Part(table.values[rows], len(lines), lambda row, column: f"line {lines[row]}, column {names[column]}")
    if columns:
        raise MediaError(f"{path} is no CSV file, so its columns have no names; leave {columns!r} out")
    array, shape = arrays.load(path, key, rows=rows)
    if len(shape) < 2:
        array, shape = array.reshape(1, -1)[rows], (1, math.prod(shape))
    if not math.prod(shape[1:]):
        raise MediaError(f"{path} has shape {shape}: rows without numbers; replace it")
    values = array.reshape(len(array), math.prod(shape[1:])).astype(np.float64)
    return _Part(values, shape[0], lambda row, column: f"row {row}, column {column} (both from 0)")


@dataclass(frozen=True, eq=False)
class _Csv:
    values: NDArray[np.float64]  # (rows, columns)
    names: list[str]  # how a message calls each column
    lines: list[int]  # where each row stands


def _csv(path: Path, columns: str) -> _Csv:
    try:
        return _parsed(path, columns)
    except UnicodeDecodeError as error:
        raise MediaError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror}") from None


@remembered(2)
def _parsed(path: Path, columns: str) -> _Csv:
    """The whole file. Clips of one file follow each other: it is kept."""
    header, cells, lines = _cells(path)
    wanted = _wanted(path, header, columns)
    names, values = [], []
    for number in range(len(cells[0])) if wanted is None else wanted:
        numbers = [_number(row[number]) for row in cells]
        if wanted is None and all(value is None for value in numbers) and any(row[number].strip() for row in cells):
            continue
        name = f"{number + 1} ({header[number]!r})" if header else str(number + 1)
        if None in numbers:
            row = numbers.index(None)
            cell = cells[row][number]
            raise MediaError(
                f"{path} line {lines[row]}, column {name}: "
                + (f"{cell!r} is no number" if cell else "the cell is empty")
                + "; write one"
            )
        names.append(name)
        values.append(numbers)
    if not names:
        raise MediaError(f"{path} has no column of numbers{_separator(cells[0][0])}")
    table = np.array(values, np.float64).T
    table.setflags(write=False)
    return _Csv(table, names, lines)


def _cells(path: Path) -> tuple[list[str] | None, list[list[str]], list[int]]:
    """The names, if there are any, the cells of every other line, and the lines' numbers."""
    cells, lines = [], []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for row in reader:
                if len(row) > 1 or "".join(row).strip():
                    cells.append(row)
                    lines.append(reader.line_num)
        except csv.Error as error:
            raise MediaError(f"{path} line {reader.line_num}: not CSV ({error})") from None
    if not cells:
        raise MediaError(f"{path} is empty; copy or download it again")
    for row, line in zip(cells, lines, strict=True):
        if len(row) != len(cells[0]):
            raise MediaError(f"{path} line {line}: {len(row)} cells, but {len(cells[0])} in line {lines[0]}")
    first = [cell.strip() for cell in cells[0]]
    if len(first) > 1 and first == [str(number) for number in range(len(first))]:
        raise MediaError(
            f"{path} line {lines[0]}: 0 to {len(first) - 1} may be names of columns or numbers; "
            "write names with letters, or leave the line out"
        )
    if all(_number(cell) is not None for cell in first):
        return None, cells, lines
    if len(cells) == 1:
        word = next(cell for cell in first if _number(cell) is None)
        raise MediaError(f"{path} has names of columns but no rows: {word!r} is no number{_separator(word)}")
    return first, cells[1:], lines[1:]


def _separator(cell: str) -> str:
    """Advice where other separators than commas may be to blame."""
    return next((f"; cells are separated by commas, not by {c!r}" for c in ";\t " if c in cell), "")


def _wanted(path: Path, header: Sequence[str] | None, columns: str) -> list[int] | None:
    """Numbers of the columns that are asked for; None for all with numbers."""
    if not columns:
        return None
    if header is None:
        raise MediaError(f"{path} line 1 has no names of columns, so none can be asked for: {columns!r}")
    names = [name.strip() for name in columns.split(",")]
    for name in names:
        if header.count(name) != 1:
            found = "stands twice" if name in header else "is not there"
            raise MediaError(f"{path} line 1: column {name!r} {found}; columns: {', '.join(header)}")
    return [header.index(name) for name in names]


def _number(cell: str) -> float | None:
    if not cell.isascii() or "_" in cell:  # float() reads 1_0 and other scripts' digits
        return None
    try:
        return float(cell)
    except ValueError:
        return None
