"""Frozen dataclasses as JSON, and `a.b=value` settings that know the type of what they set.

The types used in configurations are enough: str, int, float, bool, X | None, int | str, tuple, dict[str, X], other
dataclasses, and `Params`, whose class is named by the folder it stands in ({"name": "rna", "lambda_g": 1.0}).
"""

import math
import reprlib
import types
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from featcache.errors import ConfigError
from featcache.wording import unknown

Registry = Callable[[str], type]  #: name -> the dataclass of that name; ConfigError when there is none


class Named:
    """Annotation marker of a `Params` field: which registry its class comes from."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry


def to_json(value: Any, kind: Any) -> Any:
    """A value of that type as JSON: equal values give equal JSON (1 in a float field is 1.0)."""
    if registry_of(kind):
        return {"name": name_of(value), **to_json(value, type(value))}
    if is_dataclass(kind):
        return {name: to_json(getattr(value, name), hint) for name, hint in _hints(kind).items()}
    origin, args = get_origin(kind), get_args(kind)
    if origin is dict:
        return {key: to_json(part, args[1]) for key, part in value.items()}
    if origin is tuple:
        return [to_json(part, args[0]) for part in value]
    return float(value) if kind is float else value


def from_json(data: Any, kind: Any, where: str = "") -> Any:
    """The value back; unknown keys and wrong types are ConfigErrors, missing keys take their defaults."""
    if registry := registry_of(kind):
        data = dict(_is(data, dict, where))
        return from_json(data, registry(_is(data.pop("name", None), str, f"{where}.name")), where)
    if is_dataclass(kind):
        hints = _hints(kind)
        for key in _is(data, dict, where):
            _known(key, hints, where)
        values = {key: from_json(part, hints[key], _join(where, key)) for key, part in data.items()}
        return _construct(kind, values, where)
    origin, args = get_origin(kind), get_args(kind)
    if origin is dict:
        return {key: from_json(part, args[1], _join(where, key)) for key, part in _is(data, dict, where).items()}
    if origin is tuple:
        parts = _is(data, list, where)
        if args[-1] is not ... and len(parts) != len(args):
            raise ConfigError(f"{where}: {parts!r} must have {len(args)} values")
        return tuple(from_json(part, args[0], where) for part in parts)
    if origin in (Union, types.UnionType):
        for option in args:
            if (data is None) == (option is type(None)) and not isinstance(_attempt(data, option), ConfigError):
                return from_json(data, option, where)
        raise ConfigError(f"{where}: {data!r} is not {spelled(kind)}")
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    return _is(data, kind, where)


def verify(value: Any, kind: Any, where: str) -> None:
    """ConfigError where a value made in Python is not of its type, or a number in it is not finite."""
    if kind is Any or (kind in (str, int, bool) and type(value) is kind):  # most of them
        return
    origin, args = get_origin(kind), get_args(kind)
    if registry_of(kind) or is_dataclass(kind):
        kind = type(value) if registry_of(kind) else kind
        if not isinstance(value, kind):
            raise ConfigError(f"{where}={reprlib.repr(value)} must be {kind.__name__}(...)")
        for key, hint in _hints(kind).items():
            verify(getattr(value, key), hint, _join(where, key))
    elif origin is dict:
        for key, part in _is(value, dict, where).items():
            verify(part, args[1], _join(where, str(_is(key, str, where))))
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


def assign(data: Any, kind: Any, path: str, text: str, where: str = "") -> Any:
    """JSON `data` of that type, with the value at `path` replaced by what `text` says."""
    if not path:
        return _read(text, kind, where)
    if registry := registry_of(kind):
        return {"name": data["name"], **assign(data, registry(data["name"]), path, text, where)}
    if is_dataclass(kind):
        key, _, rest = path.partition(".")
        hints = _hints(kind)
        _known(key, hints, where)
        return {**data, key: assign(data.get(key), hints[key], rest, text, _join(where, key))}
    if get_origin(kind) is dict:
        # keys may hold dots (optim_for takes prefixes of parameter names), so the longest that fits is meant
        fitting = [key for key in data if path == key or path.startswith(f"{key}.")]
        key = max(fitting, key=len) if fitting else path.partition(".")[0]
        _known(key, data, where)
        return {**data, key: assign(data[key], get_args(kind)[1], path[len(key) + 1 :], text, _join(where, key))}
    raise ConfigError(f"{where} is {spelled(kind)} and has no part {path!r}")


def _read(text: str, kind: Any, where: str) -> Any:
    """Text of a setting -> JSON of that type."""
    if registry_of(kind):
        return {"name": text}
    origin, args = get_origin(kind), get_args(kind)
    if origin is tuple:
        parts = [part.strip() for part in text.strip().strip("()[]").split(",")]
        return [_read(part, args[0], where) for part in parts if part]
    if origin in (Union, types.UnionType):
        if type(None) in args and text.lower() in ("none", "null", ""):
            return None
        for option in (option for option in args if option is not type(None)):
            if not isinstance(read := _attempt_text(text, option), ConfigError):
                return read
    elif kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    elif kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    elif kind is str:
        return text
    raise ConfigError(f"{where}={text}: {text!r} is not {spelled(kind)}")


def registry_of(kind: Any) -> Registry | None:
    """The registry of a `Params` annotation, None for any other type."""
    marks = [mark for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, Named)]
    return marks[0].registry if marks else None


def name_of(params: Any) -> str:
    """heads.methods.rna.Params(...) -> "rna"."""
    return type(params).__module__.rpartition(".")[2]


def spelled(kind: Any) -> str:
    """A type in words for an error message."""
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


def _known(key: str, choices: Iterable[str], where: str) -> None:
    choices = list(choices)
    if key not in choices:
        raise unknown("setting", key, choices, where)


def _field_hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


_hints: Callable[[Any], dict[str, Any]] = cache(_field_hints)


def _is(data: Any, kind: type, where: str) -> Any:
    """Data, if it is of that type; True is no whole number here."""
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise ConfigError(f"{where or 'config'}: {reprlib.repr(data)} is not {spelled(kind)}")
    return data


def _construct(kind: Any, values: dict[str, Any], where: str) -> Any:
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{where or 'config'}: {error}") from None


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


def _attempt_text(text: str, kind: Any) -> Any:
    try:
        return _read(text, kind, "")
    except ConfigError as error:
        return error


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
