"""JSON documents, read into frozen dataclasses whose types, ranges and depth are checked.

>>> @dataclass(frozen=True)
... class Size:
...     width: Annotated[int, Range(1, 100)]
...     unit: str = "pixels"
>>> parse(b'{"width": 7}', Size, "size.json")
Size(width=7, unit='pixels')
>>> parse(b'{"width": 700}', Size, "size.json")
Traceback (most recent call last):
featcache.errors.ConfigError: size.json: width=700 must be from 1 to 100

Only these types are supported: str, int, float, bool, Any, X | None, int | str, tuple, dict[str, X], Annotated numbers
with a Range, other dataclasses, and `Params`, whose class is named by its file ({"name": "rna", "lambda_g": 1.0}).
An int has 64 bits, and a float is finite unless it is an AnyFloat; numbers in an Any may be of any size, and NaN. A
document is UTF-8, names no key twice, and is at most DEEPEST levels deep. Texts and keys that become part of a value
can be printed and be part of a file name; `loads` alone does not check this.
"""

import json
import math
import reprlib
import types
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from featcache.errors import ConfigError, FeatcacheError, NoEntryError
from featcache.files import regular
from featcache.wording import unknown

T = TypeVar("T")
Registry = Callable[[str], type]  #: name -> the dataclass of that name, or ConfigError

DEEPEST = 64  #: levels of lists and groups in a document
LARGEST = 2**63 - 1  #: of whole numbers


class Named:
    """A marker in the annotation of a `Params` field: the registry that its class comes from."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry


@dataclass(frozen=True)
class Range:
    """A marker in the annotation of a number: the interval [low, high] that it is in."""

    low: float
    high: float = LARGEST

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        """Return the range as text, to follow "must be"."""
        return f"at least {self.low}" if self.high == LARGEST else f"from {self.low} to {self.high}"


Count = Annotated[int, Range(0)]
AnyFloat = Annotated[float, "inf and nan, too"]


def read(
    path: Path,
    kind: type[T],
    place: str | None = None,
    *,
    error: type[FeatcacheError] = ConfigError,
    fix: str = "",
    newer: bool = False,
) -> T:
    """Read a JSON file into a dataclass, as `parse` does. FileNotFoundError if there is no file."""
    place = str(path) if place is None else place
    return parse(regular(path, error).read_bytes(), kind, place, error=error, fix=fix, newer=newer)


def parse(
    data: bytes | str,
    kind: type[T],
    place: str,
    *,
    error: type[FeatcacheError] = ConfigError,
    fix: str = "",
    newer: bool = False,
) -> T:
    """Parse a JSON document into a dataclass; `error` names the place in the document, the value and `fix`.

    place: the file; "" if the caller names it. newer: keys that the dataclass lacks are ignored, because a newer
    version may have added them.
    """
    content = loads(data, place, error=error, fix=fix)
    try:
        value: T = from_json(content, kind, newer=newer)
    except ConfigError as problem:
        kind_of_error = NoEntryError if isinstance(problem, NoEntryError) and issubclass(NoEntryError, error) else error
        raise kind_of_error(_sentence(place, str(problem), fix)) from None
    return value


def loads(data: bytes | str, place: str, *, error: type[FeatcacheError] = ConfigError, fix: str = "") -> Any:
    """Parse JSON of any form; `error` if it is not UTF-8 or not JSON, is too deep, or has a key twice.

    Numbers and texts are not checked; `from_json` does that.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        content = json.loads(text, object_pairs_hook=_unique)
        if not _is_flat(content):
            raise RecursionError
        return content
    except RecursionError:
        reason = f"it is nested more than {DEEPEST} levels deep"
    except UnicodeDecodeError as problem:
        reason = f"it is not UTF-8 text ({problem.reason} at byte {problem.start})"
    except ValueError as problem:
        reason = f"it is not JSON ({problem})"
    raise error(_sentence(place, reason, fix))


def from_json(data: Any, kind: Any, where: str = "", *, newer: bool = False) -> Any:
    """Convert JSON to a value of type `kind`; missing keys take their `earlier` value, or else their default.

    ConfigError for unknown keys (unless `newer`), wrong types and numbers out of range.
    """
    if registry := registry_of(kind):
        data = dict(_is(data, dict, where))
        return from_json(data, registry(_text(data.pop("name", None), join(where, "name"))), where)
    if is_dataclass(kind):
        return _dataclass(data, kind, where, newer)
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _number(data, args[0], where, args[1])
    if origin is dict:
        return {
            _text(key, where): from_json(part, args[1], join(where, key), newer=newer)
            for key, part in _is(data, dict, where).items()
        }
    if origin is tuple:
        parts = _is(data, list, where)
        if args[-1] is not ... and len(parts) != len(args):
            raise ConfigError(f"{where}: {reprlib.repr(parts)} must have {len(args)} values")
        return tuple(from_json(part, args[0], f"{where}[{k}]", newer=newer) for k, part in enumerate(parts))
    if origin in (Union, types.UnionType):
        for option in args:
            if (data is None) == (option is type(None)) and not isinstance(_attempt(data, option), ConfigError):
                return from_json(data, option, where)
        raise ConfigError(f"{where}: {reprlib.repr(data)} is not {spelled(kind)}")
    if kind in (int, float):
        return _number(data, kind, where, None)
    if kind is str:
        return _text(data, where)
    return _plain(data, where) if kind is Any else _is(data, kind, where)


def _dataclass(data: Any, kind: Any, where: str, newer: bool) -> Any:
    hints = hints_of(kind)
    for key in _is(data, dict, where):
        if not newer:
            check_key(key, hints, where)
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in required if name not in data]:
        raise ConfigError(f"{where + ': ' if where else ''}{', '.join(map(repr, missing))} is missing")
    values = {
        key: from_json(part, hints[key], join(where, key), newer=newer) for key, part in data.items() if key in hints
    }
    return kind(**earlier(kind) | values)


def verify(value: Any, kind: Any, where: str) -> None:
    """Raise ConfigError if a value made in Python has another type, or holds a number that is not finite."""
    if kind is Any or (kind in (str, int, bool) and type(value) is kind):  # most of them
        return
    origin, args = get_origin(kind), get_args(kind)
    if registry_of(kind) or is_dataclass(kind):
        kind = type(value) if registry_of(kind) else kind
        if not isinstance(value, kind):
            raise ConfigError(f"{where}={reprlib.repr(value)} must be {kind.__name__}(...)")
        for key, hint in hints_of(kind).items():
            verify(getattr(value, key), hint, join(where, key))
    elif origin is dict:
        for key, part in _is(value, dict, where).items():
            verify(part, args[1], join(where, str(_is(key, str, where))))
    elif origin is tuple:
        if not isinstance(value, tuple) or (args[-1] is not ... and len(value) != len(args)):
            many = "" if args[-1] is ... else f" of {len(args)} values"
            fix = f": {tuple(value)!r}" if isinstance(value, list) and len(value) < 9 else ""
            raise ConfigError(f"{where}={reprlib.repr(value)} must be a tuple{many}{fix}")
        for part in value:
            verify(part, args[0], where)
    elif origin in (Union, types.UnionType):
        if not any(_fits(value, option) for option in args):
            raise ConfigError(f"{where}={reprlib.repr(value)} is not {spelled(kind)}")
    elif kind is float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise ConfigError(f"{where}={reprlib.repr(value)} is not a finite number")
    else:
        _is(value, kind, where)


# ------------------------------------------------------------------------------------------------------------- helpers


def registry_of(kind: Any) -> Registry | None:
    """Return the registry of a `Params` annotation, or None for any other type."""
    marks = [mark for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, Named)]
    return marks[0].registry if marks else None


def spelled(kind: Any) -> str:
    """Return the text for a type in an error message."""
    words = {
        list: "a list",
        dict: "a group of settings",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        type(None): "none",
    }
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(spelled(option) for option in args)
    if origin is tuple:
        return f"a list of {spelled(args[0])}, separated by commas"
    if is_dataclass(kind) or registry_of(kind) or origin is dict:
        return "a group of settings"
    return words.get(kind, str(kind))


def check_key(key: str, choices: Iterable[str], where: str) -> None:
    """Raise ConfigError, with the choices, for a key that is not one of them."""
    choices = list(choices)
    if key not in choices:
        raise unknown("setting", key, choices, where)


def _field_hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


hints_of: Callable[[Any], dict[str, Any]] = cache(_field_hints)  #: field of a dataclass -> its type


def _before(kind: Any) -> dict[str, Any]:
    return {field.name: field.metadata["before"] for field in fields(kind) if "before" in field.metadata}


#: field that was added to a dataclass -> its value in documents without it, as the field's metadata give it ("before")
earlier: Callable[[Any], dict[str, Any]] = cache(_before)


def join(where: str, key: str) -> str:
    """Return the place of a key in a document: ("feeds.rgb", "store") -> "feeds.rgb.store"."""
    return f"{where}.{key}" if where else key


def _is(data: Any, kind: type, where: str) -> Any:
    """Return `data`, or raise ConfigError if it is not of that type. True does not count as a whole number."""
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise ConfigError(f"{where + ': ' if where else ''}{reprlib.repr(data)} is not {spelled(kind)}")
    return data


def _number(data: Any, kind: type, where: str, mark: Any) -> Any:
    """Return a number of the kind int or float that is in the range `mark`; without a range, any finite number."""
    if kind is int or not isinstance(data, float):
        data = _is(data, int if isinstance(data, int) else kind, where)
        if abs(data) > LARGEST:
            raise ConfigError(f"{where}={reprlib.repr(data)} has more than 64 bits")
    elif mark is None and not math.isfinite(data):
        raise ConfigError(f"{where}={data} is not a finite number")
    if isinstance(mark, Range) and data not in mark:
        raise ConfigError(f"{where}={data} must be {mark}")
    return kind(data)


def _text(data: Any, where: str) -> str:
    """Return text that can be printed and name a file: without null characters and unpaired surrogates."""
    text: str = _is(data, str, where)
    if "\0" in text or (not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)):
        raise ConfigError(f"{where + ': ' if where else ''}{reprlib.repr(text)!a} has characters that are no text")
    return text


def _plain(data: Any, where: str) -> Any:
    """Return JSON of any form after a check of its texts; its numbers may be of any size, and NaN."""
    if isinstance(data, str):
        return _text(data, where)
    if isinstance(data, dict):
        return {_text(key, where): _plain(part, join(where, key)) for key, part in data.items()}
    return [_plain(part, where) for part in data] if isinstance(data, list) else data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a group of its keys and values; ValueError for a key that comes twice."""
    group = dict(pairs)
    if len(group) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"key {twice[:100]!a} comes twice")
    return group


def _is_flat(content: Any) -> bool:
    """Return whether a value has at most DEEPEST levels; iterative, because recursion has limits of its own."""
    level = [content]
    for _ in range(DEEPEST + 1):
        level = [
            part
            for value in level
            if isinstance(value, dict | list)
            for part in (value.values() if isinstance(value, dict) else value)
        ]
    return not level


def _attempt(data: Any, kind: Any) -> Any:
    try:
        return from_json(data, kind)
    except ConfigError as error:
        return error


def _fits(value: Any, kind: Any) -> bool:
    try:
        verify(value, kind, "")
    except ConfigError:
        return False
    return True


def _sentence(place: str, problem: str, fix: str) -> str:
    return (f"{place}: " if place else "") + problem + (f"; {fix}" if fix else "")
