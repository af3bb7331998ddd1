"""Pickles from unknown sources, read as data: nothing that they name is imported or called.

A pickle is a program for a stack machine. `load` is such a machine without the dangerous instructions: it supports
numbers, text, bytes, lists, tuples, dicts, sets, and a few names (MAKERS) that stand for arrays and tensors. Each name
is mapped to a function of this module, which makes the array from its bytes; numpy's own functions are not called with
a file's content, because some follow pointers. Anything else is a FormatError. Memory stays in proportion to the size
of the file; time can grow with its square, for keys whose hashes collide.
"""

import io
import mmap
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from featcache.errors import FormatError
from featcache.untrusted import check_numbers, reading, tensors

DTYPES = re.compile(r"[<>=|]?(f[248]|[iu][1248]|b1|O8?|[Mm]8|[US][1-9][0-9]{0,5})")  # of features, ids, times
UNITS = re.compile("[YMWDhms]|[munpfa]s")  # of times
GROWTH = 16  # bytes made per byte of the file; only a file that uses one part many times makes more


@dataclass(eq=False)
class _Name:
    """An allowed name that the file requires; it can only be called."""

    name: str
    make: Callable[..., Any]


@dataclass(eq=False)
class Unfinished:
    """An array or dtype that the file has begun and whose content follows."""

    build: Callable[..., Any]
    value: Any = None


@dataclass(eq=False)
class _Storage:
    """The values of one or more torch tensors."""

    flat: Any
    size: int  #: number of bytes in the file


def load(path: Path, more: Mapping[tuple[str, str], Callable[..., Any]] | None = None) -> Any:
    """Read a pickle of any protocol as plain values and numpy arrays; torch tensors become arrays, too.

    Arrays may be read-only. Text of Python 2 is read as Latin-1. FormatError names anything else that the file needs.
    more: further makers, also of objects that are made empty and then receive their state.
    """
    if not path.is_file():
        raise FormatError(f"{path} is not a file" if path.exists() else f"no file {path}")
    with reading(path, "a pickle"), path.open("rb") as file:
        head = file.read(2)
        if head == b"PK":
            raise FormatError(f"{path} is a zip archive, as torch.save and numpy.savez write it, not a pickle")
        if not head:
            raise FormatError(f"{path} is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Machine(len(data), str(path), more or {}).run(cast(IO[bytes], data))


def loads(data: bytes, place: str) -> Any:
    """Read a pickle inside another file, as `load` does. place: the words for it in messages."""
    return _Machine(len(data), place, {}).run(io.BytesIO(data))


def dump(value: Any, file: IO[bytes]) -> None:
    """Write a pickle that Python 3.4 and numpy 1 can also read."""
    _Portable(file, protocol=4).dump(value)


class _Portable(pickle.Pickler):
    """A pickler that names no numpy module that has moved: numpy._core was numpy.core before numpy 2."""

    def reducer_override(self, value: Any) -> Any:
        """Reduce an array to an empty array and its state."""
        if type(value) is not np.ndarray or value.dtype.hasobject:
            return NotImplemented
        return np.ndarray, ((0,), "b"), (1, value.shape, value.dtype, False, value.tobytes())


def checked(value: Any, place: str, expected: str, axes: int = 1) -> NDArray[Any]:
    """Return the value; FormatError unless it is an array of numbers with at least `axes` axes."""
    if not isinstance(value, np.ndarray) or value.ndim < axes or not value.size:
        raise FormatError(f"{place} is {describe(value)}; an array {expected} is expected")
    check_numbers(value.dtype, place)
    return value


def describe(value: Any) -> str:
    """Describe a value for messages, without all of its content, which may be very long."""
    if isinstance(value, dict):
        return f"a dict with {', '.join(map(str, value))[:200] or 'nothing in it'}"
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} of {value.dtype}"
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
PUSHED = NUMBERS | TEXTS | BYTES  # instructions that push their argument
FRESH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
GATHERED: dict[str, Callable[[list[Any]], Any]] = {
    "TUPLE": tuple,
    "LIST": list,
    "DICT": lambda items: _pairs(items),
    "FROZENSET": lambda items: _set(items),
}
REFUSED = {  # other instruction -> its purpose
    "PERSID": "a part that is not in the pickle",
    "BINPERSID": "a part that is not in the pickle, as files of torch.save do",
    "NEXT_BUFFER": "a buffer that is not in the pickle",
    **dict.fromkeys(["EXT1", "EXT2", "EXT4"], "the registry of extensions"),
    **dict.fromkeys(["NEWOBJ", "NEWOBJ_EX", "OBJ"], "an object of a class"),
}


class _Machine:
    """The stack machine. `pickletools` parses the instructions and checks that each is complete."""

    def __init__(self, size: int, place: str, more: Mapping[tuple[str, str], Callable[..., Any]]) -> None:
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below the marks
        self.memo: dict[int, Any] = {}
        self.left = GROWTH * size + 2**16
        self.makers = {**MAKERS, **more}
        self.objects = bool(more)  # True when the file may make objects
        self.place = place

    def run(self, data: IO[bytes]) -> Any:
        """Run all instructions, and return the value that they leave on the stack."""
        for code, argument, _ in pickletools.genops(data):
            name = code.name
            if name == "STOP":
                return self.stack.pop()
            done = self.push(name, argument) or self.collect(name) or self.make(name, argument)
            if not done and name not in ("PROTO", "FRAME", "READONLY_BUFFER"):
                raise FormatError(f"{self.place}: the pickle requires {REFUSED.get(name, name)}, which is not loaded")
        raise ValueError("it has no end")

    def push(self, name: str, argument: Any) -> bool:
        """Put a value on the stack, or copy the top value to the memo; False for other instructions."""
        stack = self.stack
        if name in PUSHED:
            stack.append(argument)
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[len(self.memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            value = self.memo[cast(int, argument)]
            finished = type(value) is Unfinished and value.value is not None
            stack.append(value.value if finished else value)
        elif name in FRESH:
            stack.append(FRESH[name]())
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            return False
        return True

    def collect(self, name: str) -> bool:
        """Gather values of the stack into one, or drop them; False for other instructions."""
        stack = self.stack
        if name == "MARK":
            self.outer.append(stack)
            self.stack = []
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [_tuple(stack[-count:], count)]
        elif name in GATHERED:
            items = self.marked()
            self.stack.append(GATHERED[name](items))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self.marked()
            _is(self.stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self.marked()
            _is(self.stack[-1], dict).update(_pairs(items))
        elif name == "ADDITEMS":
            items = self.marked()
            _is(self.stack[-1], set).update(_set(items))
        elif name == "POP_MARK" or (name == "POP" and not stack):
            self.marked()
        elif name == "POP":
            stack.pop()
        else:
            return False
        return True

    def make(self, name: str, argument: Any) -> bool:
        """Push a maker, call it, or finish an unfinished value; False for other instructions."""
        stack = self.stack
        if name == "GLOBAL":
            stack.append(_name(str(argument).split(" ", 1), self.place, self.makers))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [_name(stack[-2:], self.place, self.makers)]
        elif name == "INST":
            raise FormatError(f"{self.place}: the pickle requires {str(argument)[:200]}, which is not loaded")
        elif name == "REDUCE" or (name == "NEWOBJ" and self.objects):
            arguments, function = stack.pop(), stack.pop()
            stack.append(self.called(_is(function, _Name).make, _is(arguments, tuple)))
        elif name == "BUILD":
            state, target = stack.pop(), stack.pop()
            if type(target) is not Unfinished:
                raise FormatError(
                    f"{self.place}: the pickle sets the attributes of {describe(target)}, which is not loaded"
                )
            target.value = self.called(target.build, (state,) if type(state) is dict else _is(state, tuple))
            stack.append(target.value)
        else:
            return False
        return True

    def marked(self) -> list[Any]:
        """Remove the last mark and the values above it, and return these values."""
        items, self.stack = self.stack, self.outer.pop()
        return items

    def called(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Call a maker; ValueError once all values made are too large for the size of the file."""
        value = function(*arguments)
        self.left -= _size(value)
        if self.left < 0:
            raise ValueError(f"it would grow to more than {GROWTH} times its size")
        return value


#: package that a pickle requires -> the way out
HINTS = {
    "pandas": "; save it without pandas: features as arrays, ids as a list, tables as Parquet",
    **dict.fromkeys(("datetime", "decimal", "uuid"), "; save such values as text"),
}


def _name(parts: list[Any], place: str, makers: Mapping[tuple[str, str], Callable[..., Any]]) -> _Name:
    """The stand-in for a module and a name in it, both exactly as in the file: "a.b" is not a path here."""
    module, name = (_is(part, str) for part in parts)
    maker = makers.get((module, name))
    if maker is None:
        hint = HINTS.get(module.partition(".")[0], "")
        raise FormatError(f"{place}: the pickle requires {f'{module}.{name}'[:200]}; nothing was run{hint}")
    return _Name(f"{module}.{name}", maker)


def _is(value: Any, kind: type | tuple[type, ...]) -> Any:
    """Return the value; ValueError unless it has exactly this type."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if type(value) not in kinds:
        raise ValueError(f"{describe(value)} where {' or '.join(k.__name__.lstrip('_') for k in kinds)} is expected")
    return value


def _size(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, _Storage):
        return value.size
    return len(value) * (1 if isinstance(value, bytes | bytearray) else 8) if hasattr(value, "__len__") else 0


def _tuple(items: list[Any], count: int) -> tuple[Any, ...]:
    if len(items) < count:
        raise ValueError("its stack is empty")
    return tuple(items)


KEYS = (str, bytes, int, float, bool, type(None))  # types of keys: their hashes need no recursion


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip((_is(key, KEYS) for key in items[::2]), items[1::2], strict=True))


def _set(items: list[Any] | tuple[Any, ...]) -> set[Any]:
    return {_is(item, KEYS) for item in items}


def _shape(values: Any) -> tuple[int, ...]:
    shape = (values,) if type(values) is int else tuple(_is(values, (tuple, list)))
    if any(_is(size, int) < 0 for size in shape):
        raise ValueError("an array has a negative size")
    return shape


def _array(shape: Any, dtype: Any, raw: Any, order: Any) -> NDArray[Any]:
    """Make an array from its bytes, or, for objects, from a list of values that the machine has made."""
    shape = _shape(shape)
    if not isinstance(dtype, np.dtype):
        raise ValueError(f"{describe(dtype)} where a dtype is expected")
    if dtype.hasobject:
        flat = np.empty(len(_is(raw, list)), object)
        for k, value in enumerate(raw):
            flat[k] = value
        order = "C"  # values are listed row by row in both orders
    else:
        raw = raw.encode("latin-1") if isinstance(raw, str) else _is(raw, (bytes, bytearray))
        flat = np.frombuffer(raw, dtype) if raw else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _array_state(*state: Any) -> NDArray[Any]:
    shape, dtype, fortran, raw = state[-4:]  # a version comes first, except in very old files
    return _array(shape, dtype, raw, "F" if _is(fortran, (bool, int)) else "C")


def _empty_array(*_: Any) -> Unfinished:
    """Begin an array: it is made empty, and receives its shape and content later."""
    return Unfinished(_array_state)


def _dtype(code: Any, *_: Any) -> Unfinished:
    if not DTYPES.fullmatch(_is(code, str)):
        raise ValueError(f"dtype {code[:50]!r}, but only numbers, text and times are read")
    dtype = np.dtype(code)

    def build(_: Any, order: Any, *rest: Any) -> np.dtype[Any]:
        if _is(order, str) not in tuple("<>=|") or any(part is not None for part in rest[:3]):
            raise ValueError("a dtype with fields")
        if dtype.kind in "mM":
            return _of_times(dtype, *_is(_is(rest[-1], tuple)[-1], tuple)).newbyteorder(order)
        return dtype.newbyteorder(order)

    return Unfinished(build)


def _of_times(dtype: np.dtype[Any], unit: Any, count: Any, *_: Any) -> np.dtype[Any]:
    """Return the type of times in so many of a unit, as (b"ns", 1, ...)."""
    unit = unit.decode("latin-1") if type(unit) is bytes else _is(unit, str)
    if not UNITS.fullmatch(unit) or not 0 < _is(count, int) < 2**31:
        raise ValueError(f"times in {count} {unit[:50]!r}")
    return np.dtype(f"{dtype.kind}8[{count}{unit}]")


def _encode(text: Any, encoding: Any) -> bytes:
    if _is(encoding, str) not in ("latin1", "latin-1"):
        raise ValueError("bytes in an encoding that is not Latin-1")
    return cast(bytes, _is(text, str).encode("latin-1"))


def _bytearray(*arguments: Any) -> bytearray:
    """Make bytearray(b"..") or bytearray("..", "latin-1"), but not bytearray(10**12)."""
    if len(arguments) == 2:
        return bytearray(_encode(*arguments))
    (content,) = arguments or (b"",)
    return bytearray(_is(content, bytes))


def _dict(*arguments: Any) -> dict[Any, Any]:
    """Make OrderedDict() or defaultdict(kind), whose items follow, or OrderedDict([[key, value], ...])."""
    pairs = [pair for argument in arguments if type(argument) is list for pair in argument]
    return _pairs([value for pair in pairs for value in _tuple(_is(pair, (list, tuple)), 2)[:2]])


def _storage(data: Any) -> _Storage:
    """Read a torch storage, which is a whole file of torch.save inside the pickle."""
    import torch

    storage = tensors.load(_is(data, bytes), "a tensor of the pickle")
    if not isinstance(storage, torch.storage.TypedStorage):
        raise ValueError(f"{describe(storage)} where the values of a tensor are expected")
    flat: Any = torch.empty(0, dtype=storage.dtype)
    return _Storage(flat.set_(storage), len(data))


def _tensor(stored: Any, offset: Any, size: Any, stride: Any, *_: Any) -> NDArray[Any]:
    view = _is(stored, _Storage).flat.as_strided(_shape(size), _shape(stride), _is(offset, int))
    return tensors.array(view, stored.size, "a tensor of the pickle")


MAKERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _empty_array,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _dict,
    ("collections", "defaultdict"): _dict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: _is(data, np.ndarray),
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch", "Size"): _shape,
}
for _core in ("numpy.core", "numpy._core"):
    MAKERS[f"{_core}.multiarray", "_reconstruct"] = _empty_array
    MAKERS[f"{_core}.multiarray", "scalar"] = lambda dtype, raw: _array((), dtype, raw, "C")[()]
    MAKERS[f"{_core}.numeric", "_frombuffer"] = lambda raw, dtype, shape, order: _array(shape, dtype, raw, order)
for _builtins in ("builtins", "__builtin__"):
    MAKERS[_builtins, "bytes"] = lambda: b""
    MAKERS[_builtins, "bytearray"] = _bytearray
    MAKERS[_builtins, "dict"] = _dict
    MAKERS[_builtins, "list"] = lambda values=(): list(_is(values, (list, tuple)))
    MAKERS[_builtins, "set"] = lambda values=(): _set(_is(values, (list, tuple)))
    MAKERS[_builtins, "frozenset"] = lambda values=(): _set(_is(values, (list, tuple)))
