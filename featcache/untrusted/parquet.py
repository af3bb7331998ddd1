"""The bytes that the columns of a Parquet file unpack to, from its footer and the heads of its pages, without pyarrow.

A page of a few bytes can hold a billion equal numbers, and pyarrow trusts every size. Some damage in a footer makes
pyarrow end the process when the sizes are asked for, so the footer is parsed here (Thrift's compact protocol).
"""

import os
import struct
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

from featcache.budget import Allowance
from featcache.errors import FormatError
from featcache.untrusted import reading

HEAD = 1 << 14  #: bytes in which the head of a page fits, even with statistics
WIDTHS = {0: 1, 1: 4, 2: 8, 3: 12, 4: 4, 5: 8, 6: 8, 7: 2}  #: bytes of a value in memory, by physical type
DEEPEST = 16  #: structs inside of structs


def check_pages(path: Path, columns: Collection[str], allowance: Allowance) -> None:
    """Take the bytes of these columns from the allowance, which raises FormatError if there are too many."""
    with reading(path, "parquet"), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 8, 0))
        length = int.from_bytes(file.read(4), "little")
        if file.read() != b"PAR1" or length > size - 8:
            raise FormatError(f"{path} is not parquet, or it is cut off")
        file.seek(size - 8 - length)
        footer = _Thrift(file.read(length)).struct()
        for group in footer[4]:
            for chunk in group[1]:
                column = chunk[3]
                if column[3][0].decode() in columns:
                    _take_pages(file, column, size, allowance)


def _take_pages(file: IO[bytes], column: dict[int, Any], size: int, allowance: Allowance) -> None:
    """Take the bytes of a column's pages: those of the page, and those of its values once they are decoded."""
    place = min(column[9], column.get(11) or column[9])
    end = place + column[7]
    if not 0 <= place <= end <= size:
        raise ValueError("a column lies outside of the file")
    while place < end:
        file.seek(place)
        reader = _Thrift(file.read(HEAD))
        page = reader.struct()
        head: dict[int, Any] = page.get(5) or page.get(8) or page.get(7) or {}
        if min(page[2], page[3]) < 0:
            raise ValueError("a page has a negative size")
        allowance.take(max(page[2], head.get(1, 0) * WIDTHS.get(column[1], 8)))
        place += reader.place + page[3]


class _Thrift:
    """A reader of structs: field number -> value. Numbers, bytes, lists and structs are values; maps are not used."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Read a struct."""
        if depth > DEEPEST:
            raise ValueError("its metadata is nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._number()
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2, 3):
            return self._byte()
        if kind in (4, 5, 6):
            return self._number()
        if kind == 7:
            return struct.unpack("<d", self._bytes(8))[0]
        if kind == 8:
            return self._bytes(self._varint())
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            if count > len(self.data) - self.place:
                raise ValueError("a list in its metadata is cut off")
            return [self._value(head & 15, depth + 1) for _ in range(count)]
        if kind == 12:
            return self.struct(depth + 1)
        raise ValueError(f"its metadata has a value of type {kind}")

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, count: int) -> bytes:
        part = self.data[self.place : self.place + count]
        if len(part) != count:
            raise ValueError("its metadata is cut off")
        self.place += count
        return part

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a number in its metadata is too long")

    def _number(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
