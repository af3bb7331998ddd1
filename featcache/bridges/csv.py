"""CSV table: a line per window with a column of clip ids, an optional column `window`, and columns of numbers.

The ids are in the first of the columns `clip_id`, `uid`, `video_id` and the like (ID_NAMES), or else in the first
column of the file; further columns of ids and columns of text are left out. Columns whose names describe clips
(`featcache.columns`) are keys of their own. The windows of a clip are its lines in the order of `window`, or in the
order of the file without that column. The key is `features`. Numbers are written in the shortest form that gives the
same float32 again.
"""

import csv
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.bridges import ID_NAMES, External
from featcache.bridges._arrays import ONE, choose_ids, survey, the_only
from featcache.columns import features_of
from featcache.errors import FormatError
from featcache.files import replacing
from featcache.spreadsheets import advice, fault
from featcache.untrusted import reading

KEEPS = frozenset({"windows", "ragged", "ids"})
ORDER = "window"  #: the optional column that orders the windows of a clip
NUMBER = re.compile(r"[-+]?[0-9]*\.?[0-9]+(e[-+]?[0-9]+)?", re.IGNORECASE)


def read(path: Path, ids: Sequence[str] | None = None) -> dict[str, External]:
    """Read the table as {"features": float32}, and a key for each column that describes clips.

    `ids` replaces the ids, in the order of first occurrence.
    """
    clips: dict[str, dict[int, NDArray[np.float32]]] = {}
    with reading(path, "CSV"), path.open(encoding="utf-8-sig", newline="") as file:
        if file.read()[-1:] not in ("", "\n", "\r"):
            raise FormatError(
                f"{path}: the last line has no line end, so the file may be cut off; if it is complete, add a line end"
            )
        file.seek(0)
        lines = csv.reader(file, strict=True)
        header = next(lines, [])
        if problem := fault(header):
            raise FormatError(f"{path} line 1: {problem}")
        if any(NUMBER.fullmatch(name) for name in header[:2]):
            raise FormatError(
                f"{path} line 1: {header[:2]} are not column names; add a header line such as clip_id,x1,x2"
            )
        id_column = next((header.index(name) for name in ID_NAMES if name in header), 0)
        order = header.index(ORDER) if ORDER in header else None
        columns = [k for k, name in enumerate(header) if k not in (id_column, order) and name not in ID_NAMES]
        if not columns:
            raise FormatError(f"{path} line 1: no columns of numbers")
        table = None
        for cells in lines:
            place = f"{path} line {lines.line_num}"
            if len(cells) != len(header):
                raise FormatError(f"{place}: {len(cells)} cells for {len(header)} columns{advice(cells)}")
            table = table or _Columns(header, columns, cells, place)
            windows = clips.setdefault(cells[id_column], {})
            count = str(len(windows)) if order is None else cells[order]
            if not (count.isascii() and count.isdecimal()):
                raise FormatError(f"{place}: {ORDER} {count!r} is not a whole number")
            number = int(count)
            if number in windows:
                raise FormatError(f"{place}: window {number} of clip {cells[id_column]!r} is a duplicate")
            windows[number] = table.numbers(cells, place)
    if table is None:
        raise FormatError(f"{path} has columns but no clips")
    rows = [np.stack([windows[number] for number in sorted(windows)]) for windows in clips.values()]
    return table.tables(choose_ids(list(clips), ids, len(rows), str(path)), rows, header[id_column], path)


class _Columns:
    """The columns of a file by what they hold: features, text, or numbers that describe clips."""

    def __init__(self, header: list[str], columns: list[int], cells: list[str], place: str) -> None:
        self.header = header
        names = set(features_of(header))
        wanted = [k for k in columns if header[k] in names and header[k].lower() != ORDER]
        text = [k for k in wanted if _number(cells[k]) is None]
        for k in text:
            if problem := fault(["", cells[k]]):
                raise FormatError(f"{place}: {problem}")
        self.text = text if len(text) < len(wanted) else []  # a file of text alone is refused when its numbers are read
        self.features = sorted(set(wanted) - set(self.text))
        self.others = sorted(set(columns) - set(wanted))

    def numbers(self, cells: list[str], place: str) -> NDArray[np.float32]:
        """Return the numbers of a line, of `features` and then of `others`, whose text becomes NaN."""
        for k in self.text:
            if _number(cells[k]) is not None:
                raise FormatError(f"{place}: column {self.header[k]!r} has a number here and text in the first line")
        others = [math.nan if (number := _number(cells[k])) is None else number for k in self.others]
        with np.errstate(over="ignore"):
            rest = np.array(others, np.float64).astype(np.float32)
        return np.concatenate([_numbers([cells[k] for k in self.features], place), rest]) if self.features else rest

    def tables(self, ids: list[str], rows: list[NDArray[np.float32]], of_id: str, path: Path) -> dict[str, External]:
        """Return the table of the features, and a table for each column, or label_0, label_1, ..., of the others."""
        places = {ONE: list(range(len(self.features)))} if self.features else {}
        stems = Counter(_stem(self.header[k]) for k in self.others)
        for place, k in enumerate(self.others, len(self.features)):
            name = self.header[k]
            if name.strip() and not any(np.isnan(row[:, place]).any() for row in rows):
                places.setdefault(_stem(name) if stems[_stem(name)] > 1 else name, []).append(place)
        if not places:
            raise FormatError(f"{path}: there are no columns of numbers; the columns are: {', '.join(self.header)}")
        taken = [self.header[k] for k in (*self.features, *self.others)]

        def table(key: str) -> External:
            columns = [taken[place] for place in places[key]]
            used = {*columns, of_id, ORDER}
            left_out = [name for name in self.header if name not in used]
            return External(ids, lambda k: rows[k][:, places[key]], columns=columns, left_out=left_out)

        return {key: table(key) for key in places}


def _stem(name: str) -> str:
    return re.sub(r"[\W_]*\d+$", "", name) or name


def write(path: Path, tables: dict[str, External]) -> None:
    """Write a line per window; windows with several axes are flattened."""
    key, table = the_only(tables, path, "CSV")
    columns = range(int(np.prod(survey(key, table).row_shape)))
    with replacing(path) as scratch, scratch.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(["clip_id", ORDER, *(f"{key}_{column}".replace(",", "_") for column in columns)]) + "\n")
        for k, clip_id in enumerate(table.ids):
            quoted = '"' + clip_id.replace('"', '""') + '"'  # keeps ids such as 007, and ids with a line break
            rows = table.row(k).astype(np.float32)
            for number, texts in enumerate(_texts(rows.reshape(len(rows), -1))):
                file.write(f"{quoted},{number},{','.join(texts)}\n")


def _texts(values: NDArray[np.float32]) -> NDArray[np.str_]:
    """The shortest text of each number that gives the same float32 when read as float64 and rounded."""
    texts = values.astype("U32")
    wrong = texts.astype(np.float64).astype(np.float32) != values  # rounding twice may differ in the last bit
    texts[wrong] = values[wrong].astype(np.float64).astype("U32")
    return texts


def _numbers(cells: list[str], place: str) -> NDArray[np.float32]:
    text = ",".join(cells)
    if not text.isascii() or "_" in text:  # float() would accept 1_0 and digits of other scripts
        raise FormatError(f"{place}: a cell is not a number{advice(cells)}")
    try:
        with np.errstate(over="ignore"):  # larger numbers become infinite, and the import reports their clips
            return np.array(cells, np.float64).astype(np.float32)
    except ValueError as error:
        raise FormatError(f"{place}: {error}{advice(cells)}") from None


def _number(cell: str) -> float | None:
    if not cell.isascii() or "_" in cell:
        return None
    try:
        return float(cell)
    except ValueError:
        return None
