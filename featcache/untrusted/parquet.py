"""The bytes that the columns of a Parquet file unpack to, from its footer and the heads of its pages, without pyarrow.

A page of a few bytes can hold a billion equal numbers, and pyarrow trusts every size. Some damage in a footer makes
pyarrow end the process when the sizes are asked for, so the footer is parsed here (Thrift's compact protocol).
"""

import os
from collections.abc import Collection, Container, Iterator
from pathlib import Path
from typing import IO, Any

from featcache.budget import Allowance
from featcache.errors import FormatError
from featcache.untrusted import reading

HEAD = 1 << 14  #: bytes in which the head of a page fits, even with statistics
WIDTHS = {0: 1, 1: 4, 2: 8, 3: 12, 4: 4, 5: 8, 6: 8, 7: 2}  #: bytes of a value in memory, by physical type
STRUCT = 12  #: the type of a struct
SIZES = {1: 1, 2: 1, 3: 1, 7: 8}  #: bytes of the types of a fixed size
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
        for column in _columns(_Thrift(file.read(length))):
            if column[3][0].decode() in columns:
                _take_pages(file, column, size, allowance)


def _columns(footer: "_Thrift") -> Iterator[dict[int, Any]]:
    """Yield the metadata of each column of each row group; the rest of the footer, which may be large, is skipped."""
    for groups in footer.fields({4}):
        for group in footer.items(groups):
            chunks = 0
            for columns in footer.fields({1}, group):
                for chunk in footer.items(columns):
                    chunks += 1
                    found = [footer.struct({1, 3, 7, 9, 11}, kind) for kind in footer.fields({3}, chunk)]
                    yield from found or [{}]
            if not chunks:
                raise ValueError("a row group has no columns")


def _take_pages(file: IO[bytes], column: dict[int, Any], size: int, allowance: Allowance) -> None:
    """Take the bytes of a column's pages: those of the page, and those of its values once they are decoded."""
    place = min(column[9], column.get(11) or column[9])
    end = place + column[7]
    if not 0 <= place <= end <= size:
        raise ValueError("a column lies outside of the file")
    while place < end:
        file.seek(place)
        reader = _Thrift(file.read(HEAD))
        page = reader.struct({2, 3, 5, 7, 8}, inner={1})
        head: dict[int, Any] = page.get(5) or page.get(8) or page.get(7) or {}
        if min(page[2], page[3]) < 0:
            raise ValueError("a page has a negative size")
        allowance.take(max(page[2], head.get(1, 0) * WIDTHS.get(column[1], 8)))
        place += reader.place + page[3]


class _Thrift:
    """A reader of structs. Fields are read in their order, and those that are not wanted are skipped, not kept."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def fields(self, wanted: Container[int], kind: int = STRUCT) -> Iterator[int]:
        """Yield the type of each wanted field of a struct, for the caller to read the value."""
        return (kind for _, kind in self._fields(wanted, kind))

    def items(self, kind: int) -> Iterator[int]:
        """Yield the type of each item of a list, for the caller to read the value."""
        if kind not in (9, 10):
            raise ValueError(f"its metadata has a value of type {kind} instead of a list")
        head = self._byte()
        for _ in range(head >> 4 if head >> 4 < 15 else self._varint()):
            yield head & 15

    def struct(self, wanted: Container[int], kind: int = STRUCT, inner: Container[int] = ()) -> dict[int, Any]:
        """Return number -> value of the wanted fields of a struct; `inner` fields of the structs in it."""
        return {number: self._value(kind, inner) for number, kind in self._fields(wanted, kind)}

    def _fields(self, wanted: Container[int], kind: int) -> Iterator[tuple[int, int]]:
        if kind != STRUCT:
            raise ValueError(f"its metadata has a value of type {kind} instead of a struct")
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._number()
            if number in wanted:
                yield number, head & 15
            elif head & 15 > 2:  # the type of a truth value is its value
                self._skip(head & 15)

    def _value(self, kind: int, inner: Container[int]) -> Any:
        if kind in (4, 5, 6):
            return self._number()
        if kind == 8:
            return self._bytes(self._varint())
        if kind == STRUCT:
            return self.struct(inner)
        return [self._bytes(self._varint()) for item in self.items(kind) if item == 8]

    def _skip(self, kind: int, depth: int = 0) -> None:
        """Skip a value."""
        if depth > DEEPEST:
            raise ValueError("its metadata is nested too deeply")
        if kind in (4, 5, 6):
            self._varint()
        elif kind in SIZES:
            self._pass(SIZES[kind])
        elif kind == 8:
            self._pass(self._varint())
        elif kind in (9, 10):
            head = self._byte()
            count, kind = head >> 4 if head >> 4 < 15 else self._varint(), head & 15
            if kind in SIZES:
                self._pass(count * SIZES[kind])
            else:
                for _ in range(count):
                    self._skip(kind, depth + 1)
        elif kind == STRUCT:
            while head := self._byte():
                if not head >> 4:
                    self._varint()
                if head & 15 > 2:
                    self._skip(head & 15, depth + 1)
        else:
            raise ValueError(f"its metadata has a value of type {kind}")

    def _byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]

    def _pass(self, count: int) -> None:
        self.place += count
        if self.place > len(self.data):
            raise ValueError("its metadata is cut off")

    def _bytes(self, count: int) -> bytes:
        self._pass(count)
        return self.data[self.place - count : self.place]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.place]
            self.place += 1
            if byte < 128:
                return value | byte << shift
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number in its metadata is too long")

    def _number(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
