"""Read MATLAB files of version 5 to 7 (MAT-File Format, chapter 1, "Level 5"), checking every length.

SciPy's reader trusts the lengths in a file, and damaged files crash the interpreter; this reader does not.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.budget import Allowance
from featcache.errors import FormatError

MATRIX, COMPRESSED = 14, 15  #: types of elements that contain other elements
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
CELL, CHAR = 1, 4  #: classes of arrays
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
COMPLEX = 0x800  #: flag of arrays of complex numbers
HEAD = 128  #: bytes before the first element


def variables(data: bytes, place: str) -> dict[str, NDArray[Any]]:
    """Read a MATLAB file: name -> array, without variables of other classes (struct, sparse, ...).

    Cells become arrays of objects, and a char array becomes its lines.
    Raises FormatError, zlib.error, struct.error or UnicodeError when the bytes are not a valid MATLAB file.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[HEAD - 2 : HEAD])
    if order is None:
        raise FormatError(f"{place} is not a MATLAB file of version 5 to 7; in MATLAB, save(file, '-v7') writes one")
    arrays, allowance = {}, Allowance(len(data), place)
    for kind, body in _elements(memoryview(data)[HEAD:], order, place):
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(body, allowance.left + 1)
            allowance.take(len(unpacked))
            if not unpacker.eof:
                raise FormatError(f"{place}: an element is cut off")
            kind, body = next(_elements(memoryview(unpacked), order, place), (0, body))
        if kind == MATRIX:
            name, value = _matrix(body, order, place, allowance)
            if value is not None:
                arrays[name] = value
    return arrays


def _elements(data: memoryview, order: str, place: str) -> Iterator[tuple[int, memoryview]]:
    """Iterate over (type, content) of consecutive elements."""
    head = 0  # position of the element's head
    while head < len(data):
        if len(data) - head < 8:
            raise FormatError(f"{place} is cut off in the head of an element")
        kind, size = struct.unpack(f"{order}II", data[head : head + 8])
        begin = head + 8
        if kind >> 16:  # a content of up to 4 bytes is in the head itself
            kind, size, begin = kind & 0xFFFF, kind >> 16, head + 4
        end = begin + size
        if end > (head + 8 if begin == head + 4 else len(data)):
            raise FormatError(f"{place}: an element claims {size} bytes, more than it has")
        yield kind, data[begin:end]
        head = end if kind == COMPRESSED else end + -end % 8


def _matrix(
    body: memoryview, order: str, place: str, allowance: Allowance, *, in_cell: bool = False
) -> tuple[str, Any]:
    """The name and value of an array; the value is None for classes other than numbers, text and cells."""
    parts = _elements(body, order, place)
    try:
        (_, flags), (_, dims), (_, name) = next(parts), next(parts), next(parts)
        kind = struct.unpack(f"{order}I", flags[:4])[0]
        shape = tuple(np.frombuffer(dims, f"{order}i4").tolist())
        label = bytes(name).decode("ascii")
        if not shape or min(shape) < 0:
            raise FormatError(f"{place}: {label} has the shape {shape}")
        count = math.prod(shape)
        if kind & 0xFF == CELL and not in_cell:
            cells = np.empty(min(count, len(body) // 8), object)  # an element is 8 bytes or more
            if len(cells) < count:
                raise FormatError(f"{place}: {label} claims {count} cells, more than it has")
            for number in range(count):
                inner_kind, inner = next(parts)
                if inner_kind != MATRIX:
                    raise FormatError(f"{place}: {label}{{{number + 1}}} is not an array")
                value = _matrix(inner, order, place, allowance, in_cell=True)[1] if len(inner) else np.empty((0, 0))
                cells[number] = np.array("") if value is None else value
            return label, cells
        if kind & 0xFF not in (CHAR, *CLASSES) or kind & COMPLEX:
            return label, None
        stored, content = next(parts)
    except StopIteration:
        raise FormatError(f"{place}: an array ends too soon") from None
    if kind & 0xFF == CHAR:
        allowance.take(4 * len(content))  # Unicode
        return label, _lines(content, stored, shape, order, f"{place}: {label}")
    if stored not in NUMBERS or len(content) != count * np.dtype(NUMBERS[stored]).itemsize:
        raise FormatError(f"{place}: {label} {shape} does not fit into {len(content)} bytes of type {stored}")
    allowance.take(count * np.dtype(CLASSES[kind & 0xFF]).itemsize)
    values = np.frombuffer(content, order + NUMBERS[stored]).astype(CLASSES[kind & 0xFF], copy=False)
    return label, values.reshape(shape, order="F")


def _lines(content: memoryview, stored: int, shape: tuple[int, ...], order: str, place: str) -> NDArray[np.str_]:
    """The lines of a char array, which is stored column by column and filled with blanks."""
    if stored not in TEXTS:
        raise FormatError(f"{place} is text of the unknown type {stored}")
    ends = {"<": "-le", ">": "-be"}[order] if TEXTS[stored] in ("utf-16", "utf-32") else ""
    text = bytes(content).decode(TEXTS[stored] + ends)
    if shape[0] <= 1:
        return np.array([text])
    if len(text) != math.prod(shape):
        raise FormatError(f"{place} {shape} has {len(text)} characters")
    return np.array([text[line :: shape[0]].rstrip(" ") for line in range(shape[0])])
