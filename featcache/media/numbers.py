"""Tables of numbers that a user has made: EEG statistics, key points, descriptors.

    .csv             a line per row, cells separated by commas, with or without a line of column names
    .npy             an array (rows, ...); the axes after the first are flattened into one row. (D,) is one row
    .npz, .h5, .hdf5 the same, selected by its key, or the only array of numbers

A CSV file has column names if its first line has a cell that is not a number. A column with a number must have one in
every line. A column without numbers is text, and is left out unless it is selected, as is a column that describes clips
by its name (`featcache.columns`), such as label, timestamp, or pandas' index. A clip's bounds in frames count
rows from 0; bounds in seconds need the rows per second, the manifest's `fps`.
"""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.budget import check_growth
from featcache.columns import features_of
from featcache.endings import NUMBERS
from featcache.errors import MediaError
from featcache.files import regular, remembered
from featcache.manifest import Clip
from featcache.media import arrays
from featcache.media.source import check_exists
from featcache.spreadsheets import UTF8, advice, fault
from featcache.wording import quoted


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of a clip."""

    values: NDArray[np.float64]  #: (rows, columns), finite
    start: float  #: second at which the first row begins; NaN if rows have no rate
    stop: float  #: second at which the last row ends


def read(path: Path, clip: Clip, key: str = "", columns: str = "") -> Table:
    """Read the clip's rows.

    key: name of the array in an .npz or HDF5 file; "": the only one. columns: names in a CSV file, separated by commas;
    "": all columns of numbers. Raises MediaError if the file is damaged or empty or lacks the key or a column, if the
    clip starts after the file's end, and for a value that is not finite, with its place.
    """
    rows = arrays.span(clip, clip.fps, path)
    part = _part(path, rows, key, columns)
    arrays.check_start(rows, part.count, path, "rows")
    if len(bad := np.argwhere(~np.isfinite(part.values))):
        row, column = bad[0].tolist()
        raise MediaError(
            f"{path} {part.place(rows.start + row, column)}: {part.values[row, column]} is not a finite number; "
            "correct it, or leave its row out of the clip"
        )
    rate = clip.fps or np.nan
    return Table(part.values, rows.start / rate, (rows.start + len(part.values)) / rate)


def width(path: Path, key: str = "", columns: str = "") -> int:
    """Return the number of columns; errors as for `read`."""
    return _part(path, slice(0, 1), key, columns).values.shape[1]


@dataclass(frozen=True, eq=False)
class Choice:
    """The columns of a CSV file, or the array of another file, that `read` takes."""

    taken: Sequence[str]  #: names of columns, or of the array; () if they have none
    left_out: Sequence[str]  #: names of other columns, or of other arrays of numbers
    by_name: bool = False  #: True if numbers were left out because of their names (`featcache.columns`)


def choice(path: Path, key: str = "", columns: str = "") -> Choice:
    """Return what `read` takes; errors as for `read`."""
    _part(path, slice(0, 1), key, columns)
    if path.suffix.lower() == ".csv":
        return _csv(path, columns).choice
    names = arrays.numeric(path)
    if not names:
        return Choice((), ())
    taken = key.strip("/") or (names[0] if len(names) == 1 else features_of(names)[0])
    return Choice((taken,), [name for name in names if name != taken], not key and len(names) > 1)


@dataclass(frozen=True, eq=False)
class _Part:
    values: NDArray[np.float64]  # (rows, columns) of the requested rows
    count: int  # number of all rows of the file
    place: Callable[[int, int], str]  # row and column in the file -> a description of that place


def _part(path: Path, rows: slice, key: str, columns: str) -> _Part:
    ending = path.suffix.lower()
    if ending not in NUMBERS:
        raise MediaError(f"{path} is not a table of numbers; allowed endings: {', '.join(sorted(NUMBERS))}")
    check_exists(path)
    if ending == ".csv":
        if key:
            raise MediaError(f"{path} is a CSV file, which has no arrays; leave the key {key!r} out")
        table = _csv(path, columns)
        lines, names = table.lines, table.names
        return _Part(table.values[rows], len(lines), lambda row, column: f"line {lines[row]}, column {names[column]}")
    if columns:
        raise MediaError(f"{path} is not a CSV file, so its columns have no names; leave {columns!r} out")
    array, shape = arrays.load(path, key, rows=rows)
    if len(shape) < 2:
        array, shape = array.reshape(1, -1)[rows], (1, math.prod(shape))
    if not math.prod(shape[1:]):
        raise MediaError(f"{path} has shape {shape}: rows without numbers; replace it")
    check_growth(8 * array.size, path.stat().st_size, str(path), MediaError)
    values = array.reshape(len(array), math.prod(shape[1:])).astype(np.float64)
    return _Part(values, shape[0], lambda row, column: f"row {row}, column {column} (both from 0)")


@dataclass(frozen=True, eq=False)
class _Csv:
    values: NDArray[np.float64]  # (rows, columns)
    names: list[str]  # each column's name in messages
    lines: list[int]  # each row's line number
    choice: Choice


def _csv(path: Path, columns: str) -> _Csv:
    try:
        return _parsed(path, columns)
    except UnicodeDecodeError as error:
        raise MediaError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); {UTF8}") from None
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror}") from None


@remembered(2)
def _parsed(path: Path, columns: str) -> _Csv:
    """Parse the whole file. It is remembered, because clips of one file follow each other."""
    header, cells, lines = _cells(path)
    wanted = _wanted(path, header, columns)
    features = set(features_of(header or []))
    names, values, taken = [], [], list[int]()
    for number in range(len(cells[0])) if wanted is None else wanted:
        if wanted is None and header and header[number] not in features:
            continue
        numbers = [_number(row[number]) for row in cells]
        if wanted is None and all(value is None for value in numbers) and any(row[number].strip() for row in cells):
            if problem := fault(["", cells[0][number]]):
                raise MediaError(f"{path} line {lines[0]}, column {number + 1}: {problem}")
            continue
        name = f"{number + 1} ({header[number]!r})" if header else str(number + 1)
        if None in numbers:
            row = numbers.index(None)
            cell = cells[row][number]
            raise MediaError(
                f"{path} line {lines[row]}, column {name}: "
                + (f"{cell!r} is not a number" if cell else "the cell is empty")
                + ((cell and advice(["", cell])) or "; write a number")
            )
        names.append(name)
        values.append(numbers)
        taken.append(number)
    others = sorted(set(range(len(cells[0]))).difference(taken))
    left_out = [header[number] for number in others] if header else []
    numeric = any(_number(row[number]) is not None for number in others for row in cells)
    if not names:
        besides = f" besides {quoted(left_out, 10)}, which describe clips; select one by its name" if numeric else ""
        raise MediaError(f"{path} has no column of numbers{besides or _separator(cells[0][0])}")
    table = np.array(values, np.float64).T
    table.setflags(write=False)
    by_name = numeric and wanted is None
    return _Csv(table, names, lines, Choice([header[k] for k in taken] if header else [], left_out, by_name))


def _cells(path: Path) -> tuple[list[str] | None, list[list[str]], list[int]]:
    """Read the column names, if the file has any, the cells of every other line, and those lines' numbers."""
    cells, lines = [], []
    with regular(path, MediaError).open(encoding="utf-8-sig", newline="") as file:
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
            hint = advice(cells[0]) or advice(row)
            raise MediaError(f"{path} line {line}: {len(row)} cells, but {len(cells[0])} in line {lines[0]}{hint}")
    first = [cell.strip() for cell in cells[0]]
    if len(first) > 1 and first == [str(number) for number in range(len(first))]:
        raise MediaError(
            f"{path} line {lines[0]}: 0 to {len(first) - 1} may be column names or numbers; "
            "write names with letters, or leave the line out"
        )
    if all(_number(cell) is not None for cell in first):
        return None, cells, lines
    if len(cells) == 1:
        word = next(cell for cell in first if _number(cell) is None)
        raise MediaError(f"{path} has column names but no rows: {word!r} is not a number{_separator(word)}")
    return first, cells[1:], lines[1:]


def _separator(cell: str) -> str:
    """Return advice for cells that seem to be separated by another character than a comma, else ""."""
    return next((f"; cells are separated by commas, not by {c!r}" for c in ";\t " if c in cell), "")


def _wanted(path: Path, header: Sequence[str] | None, columns: str) -> list[int] | None:
    """Return the numbers of the selected columns, or None for all columns of numbers."""
    if not columns:
        return None
    if header is None:
        raise MediaError(f"{path} line 1 has no column names, so {columns!r} cannot be selected; leave it out")
    names = [name.strip() for name in columns.split(",")]
    for name in names:
        if header.count(name) != 1:
            problem = "occurs more than once" if name in header else "is missing"
            raise MediaError(f"{path} line 1: column {name!r} {problem}; columns: {', '.join(header)}")
    return [header.index(name) for name in names]


def _number(cell: str) -> float | None:
    if not cell.isascii() or "_" in cell:  # float() reads 1_0 and other scripts' digits
        return None
    try:
        return float(cell)
    except ValueError:
        return None
