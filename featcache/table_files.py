"""Tables about clips from anywhere, read as columns of text: the input of `featcache manifest from-csv`.

    .csv, .tsv, .txt            cells separated by commas, semicolons or tabs, with names in the first line
    .json, .jsonl               objects in a list, a list per column, an object per id (its column is `key`), objects in
                                lines, or what pandas' `to_json` writes
    .parquet                    columns (needs pyarrow)
    .h5, .hdf5                  a data set per column, one of named fields, or a frame of `DataFrame.to_hdf`
    .pkl, .pickle               a pickled pandas frame, a dict of columns or a list of dicts; nothing in it is executed
    a folder                    a data set of Hugging Face: saved by `save_to_disk`, or a copy of its repository

Numbers become their shortest text (3, not 3.0), dates and times their ISO text, bytes their text in UTF-8, and what is
missing (None, NaN) becomes "". Of an object such as a file of Hugging Face, {"path": ...}, its path is read. Columns of
anything else, such as lists, are left out: `Columns.left_out` has their types. A table whose cells are many times
larger than its file is refused (`budget`): a pickle may use one text a million times.
"""

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import schema
from featcache.budget import Allowance
from featcache.errors import FormatError
from featcache.files import near, read_bytes
from featcache.manifest import number
from featcache.spreadsheets import UTF8, advice
from featcache.untrusted import LeftOut, arrow, frames, hdf5_tables, pickles, reading
from featcache.wording import first


class Columns(dict[str, list[str]]):
    """The columns of a table, name -> cells."""

    def __init__(self, columns: Mapping[str, list[str]], left_out: Mapping[str, str]) -> None:
        super().__init__(columns)
        self.left_out = dict(left_out)  #: column that is not read -> its type in words


#: words for the splits in tables and in names of files
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
KEY = "key"  #: column of the ids of objects that are listed by id
FINER = ("ns", "ps", "fs", "as")  #: units of times that are finer than those of Python
CELL = 8  #: bytes of a cell in memory, besides its text
FILE_NAME = "file_name"  #: column of data sets of Hugging Face: a path from the folder of its metadata file


def read(path: Path) -> Columns:
    """Read a table as column -> cells; FormatError if it is damaged, empty, or in no format that is read."""
    if not path.exists():
        raise FormatError(f"no table {path}: the file does not exist{near(path)}")
    if path.is_dir():
        columns = _data_set(path)
    elif path.suffix.lower() in READERS:
        columns = READERS[path.suffix.lower()](path)
    else:
        raise FormatError(f"{path} is no table that is read; there are: {', '.join(READERS)}, or a data set folder")
    if not columns:
        others = first(f"{name} holds {kind}" for name, kind in columns.left_out.items())
        raise FormatError(f"{path} has no columns of text, numbers or times{f'; {others}' if others else ''}")
    if not next(iter(columns.values())):
        raise FormatError(f"{path} has columns but no rows")
    return columns


def _texts(columns: Mapping[Any, Sequence[Any] | NDArray[Any] | LeftOut], path: Path) -> Columns:
    """Return columns of values as text, without those that hold anything else."""
    found, left_out, allowance = dict[str, list[str]](), dict[str, str](), _allowance(path)
    for key, values in columns.items():
        name = _name(key)
        if isinstance(values, LeftOut):
            left_out[name] = values.kind
            continue
        allowance.take(CELL * len(values))
        cells, size = list[str](), 0
        for value in values:
            cell = _text(value)
            if isinstance(cell, LeftOut):
                left_out[name] = cell.kind
                break
            cells.append(cell)
            size += len(cell)
            if size > allowance.left:  # before texts are made of more bytes
                break
        else:
            found[name] = cells
        allowance.take(size)
    if len({len(column) for column in found.values()}) > 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in found.items())
        raise FormatError(f"{path}: the columns differ in length: {lengths}")
    return Columns(found, left_out)


def _allowance(path: Path) -> Allowance:
    """Return the bytes that the cells of a table may take."""
    return Allowance(path.stat().st_size, str(path))


def _name(key: Any) -> str:
    """Return the name of a column as text."""
    name = _text(key)
    return str(key) if isinstance(name, LeftOut) else name


def _text(value: Any) -> str | LeftOut:
    """Return a value as text; lists and other values of several parts are left out."""
    if isinstance(value, dict) and "path" in value:
        value = value["path"]
    if isinstance(value, np.datetime64 | np.timedelta64) and np.datetime_data(value.dtype)[0] in FINER:
        value = value.astype(f"{value.dtype.kind}8[us]")
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return ""
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, Decimal):
        text = "" if value.is_nan() else f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, float):
        return "" if math.isnan(value) else number(value) if math.isfinite(value) else str(value)
    if isinstance(value, timedelta):
        minutes, seconds = divmod(abs(value.total_seconds()), 60)
        return f"{'-' * (value < timedelta())}{minutes // 60:.0f}:{minutes % 60:02.0f}:{seconds:09.6f}"
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, bytes | bytearray):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return LeftOut("bytes that are no text in UTF-8")
    kinds = {dict: "objects", list | tuple | set: "lists", np.ndarray: "arrays"}
    return LeftOut(next((words for kind, words in kinds.items() if isinstance(value, kind)), type(value).__name__))


def _records(rows: Sequence[Any], path: Path) -> Columns:
    """Return the columns of a list of objects."""
    names: dict[Any, None] = {}
    for k, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise FormatError(f"{path} row {k} is a {type(row).__name__}; an object with named values is expected")
        names |= dict.fromkeys(row)
    _allowance(path).take(CELL * (len(names) * len(rows) + sum(map(len, rows))))
    return _texts({name: [row.get(name) for row in rows] for name in names}, path)


def _csv(path: Path) -> Columns:
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); {UTF8}") from None
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        if repeated := [name for name in header if header.count(name) > 1]:
            raise FormatError(f"{path} line 1: column {repeated[0]!r} occurs twice; rename or remove one")
        columns: dict[str, list[str]] = {name: [] for name in header}
        for cells in filter(None, lines):
            if len(cells) != len(header):
                place = f"{path} line {lines.line_num}"
                raise FormatError(f"{place}: {len(cells)} cells for {len(header)} columns{advice(cells)}")
            for column, cell in zip(columns.values(), cells, strict=True):
                column.append(cell)
    except csv.Error as error:
        raise FormatError(f"{path} line {lines.line_num}: not CSV ({error})") from None
    return Columns(columns, {})


def _json(path: Path) -> Columns:
    return _plain(schema.loads(read_bytes(path), str(path), error=FormatError), path)


def _json_lines(path: Path) -> Columns:
    lines = [(k, line) for k, line in enumerate(read_bytes(path).splitlines(), 1) if line.strip()]
    return _records([schema.loads(line, f"{path} line {k}", error=FormatError) for k, line in lines], path)


def _pickle(path: Path) -> Columns:
    content = frames.load(path)
    with reading(path, "a pickled table"):
        return _plain(content, path)


def _plain(content: Any, path: Path) -> Columns:
    """Return the columns of a list of objects, a list per column, or an object per id."""
    if isinstance(content, list):
        return _records(content, path)
    if isinstance(content, dict) and content.keys() == {"columns", "index", "data"}:  # orient="split" of pandas
        return _records([_named(content["columns"], row, path) for row in _listed_rows(content["data"], path)], path)
    if isinstance(content, dict) and content.keys() == {"schema", "data"}:  # orient="table"
        return _records(_listed_rows(content["data"], path), path)
    if isinstance(content, dict) and content and all(isinstance(value, dict) for value in content.values()):
        if _numbered(rows := next(iter(content.values())), content):  # orient="columns"
            return _texts({KEY: [*rows], **{name: [*cells.values()] for name, cells in content.items()}}, path)
        _allowance(path).take(CELL * sum(map(len, content.values())))
        return _records([{KEY: name, **row} for name, row in content.items()], path)
    if isinstance(content, dict):
        return _texts({name: _listed(values) for name, values in content.items()}, path)
    raise FormatError(f"{path} holds {pickles.describe(content)}; a table, a list of objects or lists are expected")


def _numbered(rows: dict[Any, Any], content: dict[Any, dict[Any, Any]]) -> bool:
    """Return whether the objects are columns, each with the same row numbers as keys, in the same order."""
    numbers = bool(rows) and all(str(row).isdecimal() for row in rows)
    return numbers and all([*cells] == [*rows] for cells in content.values())


def _listed_rows(rows: Any, path: Path) -> list[Any]:
    if not isinstance(rows, list):
        raise FormatError(f"{path}: data holds {pickles.describe(rows)}; a list of rows is expected")
    return rows


def _named(names: Any, cells: Any, path: Path) -> dict[Any, Any]:
    """Return the cells of a row by the names of their columns."""
    if not isinstance(names, list) or not isinstance(cells, list) or len(names) != len(cells):
        raise FormatError(f"{path}: a row of data does not have a cell for each of its columns")
    return {_name(name): cell for name, cell in zip(names, cells, strict=True)}


def _listed(values: Any) -> Sequence[Any] | NDArray[Any] | LeftOut:
    """Return the values of a column; anything that does not list values is left out."""
    if isinstance(values, list | tuple | LeftOut) or (isinstance(values, np.ndarray) and values.ndim):
        return values
    return LeftOut(f"{pickles.describe(values)} instead of a list")


READERS: dict[str, Callable[[Path], Columns]] = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), _csv),
    ".json": _json,
    ".jsonl": _json_lines,
    ".parquet": lambda path: _texts(arrow.parquet(path), path),
    **dict.fromkeys((".h5", ".hdf5"), lambda path: _texts(hdf5_tables.load(path), path)),
    **dict.fromkeys((".pkl", ".pickle"), _pickle),
}
ARROW: dict[str, Callable[[Path], Columns]] = {".arrow": lambda path: _texts(arrow.stream(path), path)}


def _data_set(folder: Path) -> Columns:
    """Read the tables of a data set folder as one table, with the split of each in a column `split`."""
    for endings in ((".arrow",), (".parquet",), (".csv", ".tsv"), (".jsonl",)):
        files = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in endings and not _hidden(path, folder)
        )
        if files:
            return _joined({path: (READERS | ARROW)[path.suffix.lower()](path) for path in files}, folder)
    raise FormatError(f"{folder} is no data set folder: it has no .arrow, .parquet, .csv or .jsonl files")


def _hidden(path: Path, folder: Path) -> bool:
    """Return True for hidden files, and for the caches that `datasets` leaves."""
    parts = path.relative_to(folder).parts
    return any(part.startswith(".") for part in parts) or parts[-1].startswith("cache-")


def _joined(tables: Mapping[Path, Columns], folder: Path) -> Columns:
    names = dict.fromkeys(name for columns in tables.values() for name in columns)
    left_out = {name: kind for columns in tables.values() for name, kind in columns.left_out.items()}
    joined: dict[str, list[str]] = {name: [] for name in names if name not in left_out}
    splits: list[str] = []
    for path, columns in tables.items():
        count = len(next(iter(columns.values()), []))
        home = path.parent.relative_to(folder)
        for name in joined:
            cells = columns.get(name, [""] * count)
            joined[name] += [(home / cell).as_posix() for cell in cells] if name == FILE_NAME else cells
        splits += [_split_of(path.relative_to(folder))] * count
    if "split" not in joined and all(splits):
        joined["split"] = splits
    return Columns(joined, left_out)


def _split_of(path: Path) -> str:
    """Return the split that the name of a file or folder has, as in data/train-00000-of-00001.parquet; or ""."""
    return next((SPLIT_WORDS[word] for word in _words(path) if word in SPLIT_WORDS), "")


def _words(path: Path) -> Iterator[str]:
    for part in path.parts:
        yield from "".join(c if c.isalnum() else " " for c in part.lower()).split()
