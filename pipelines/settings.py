"""Frozen dataclasses to JSON, and `a.b=value` settings that are read by the type of their field.

`featcache/schema.py` reads the JSON, and describes the types that are supported.
"""

import types
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any, Union, get_args, get_origin

from featcache import plugins
from featcache.arguments import several
from featcache.errors import ConfigError
from featcache.schema import Named, check_key, earlier, from_json, hints_of, join, registry_of, spelled, verify

__all__ = ["Named", "Words", "as_text", "as_words", "assign", "flattened", "from_json", "name_of", "to_json", "verify"]

#: settings: "a.b=value", several of these, or {"a.b": value}
Words = str | Iterable[str] | Mapping[str, Any]


def to_json(value: Any, kind: Any, *, whole: bool = False) -> Any:
    """Convert a value of type `kind` to JSON. Equal values give equal JSON: 1 in a float field is 1.0.

    A field of its `earlier` value is left out, as in documents of earlier versions, unless `whole`.
    """
    if kind in (str, int, bool):  # most values
        return value
    if registry_of(kind):
        return {"name": name_of(value), **to_json(value, type(value), whole=whole)}
    if is_dataclass(kind):
        fields = {name: (getattr(value, name), hint) for name, hint in hints_of(kind).items()}
        unwritten = {} if whole else earlier(kind)
        return {
            name: to_json(part, hint, whole=whole)
            for name, (part, hint) in fields.items()
            if name not in unwritten or part != unwritten[name]
        }
    origin, args = get_origin(kind), get_args(kind)
    if origin is dict:
        return {key: to_json(part, args[1], whole=whole) for key, part in value.items()}
    if origin is tuple:
        return [to_json(part, args[0], whole=whole) for part in value]
    return float(value) if kind is float else value


def assign(data: Any, kind: Any, path: str, text: str, where: str = "") -> Any:
    """Return JSON `data` of type `kind`, with the value at `path` replaced by the one that `text` spells."""
    if not path:
        return _parse(text, kind, where)
    if registry := registry_of(kind):
        return {"name": data["name"], **assign(data, registry(data["name"]), path, text, where)}
    if is_dataclass(kind):
        key, _, rest = path.partition(".")
        hints = hints_of(kind)
        check_key(key, hints, where)
        return {**data, key: assign(data.get(key), hints[key], rest, text, join(where, key))}
    if get_origin(kind) is dict:
        # keys may contain dots (optim_for takes prefixes of parameter names): take the longest key that fits
        fitting = [key for key in data if path == key or path.startswith(f"{key}.")]
        key = max(fitting, key=len) if fitting else path.partition(".")[0]
        check_key(key, data, where)
        return {**data, key: assign(data[key], get_args(kind)[1], path[len(key) + 1 :], text, join(where, key))}
    raise ConfigError(f"{where} is {spelled(kind)} and has no part {path!r}")


def _parse(text: str, kind: Any, where: str) -> Any:
    """Parse the text of a setting into JSON of type `kind`; the name of a `Params` gives all its defaults."""
    if registry := registry_of(kind):
        return to_json(registry(text)(), kind, whole=True)
    origin, args = get_origin(kind), get_args(kind)
    if origin is tuple:
        parts = [part.strip() for part in text.strip().strip("()[]").split(",")]
        return [_parse(part, args[0], where) for part in parts if part]
    if origin in (Union, types.UnionType):
        if type(None) in args and text.lower() in ("none", "null", ""):
            return None
        for option in (option for option in args if option is not type(None)):
            if not isinstance(parsed := _attempt_text(text, option), ConfigError):
                return parsed
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


def as_text(value: Any) -> str:
    """Return a setting as `--set` takes it; the values of a grid in a list, those with several parts in brackets.

    >>> [as_text(value) for value in (None, True, 0.5, [0.3, 0.6], "D1", [(32, 32), (64, 64)])]
    ['none', 'true', '0.5', '0.3,0.6', 'D1', '(32,32),(64,64)']
    """
    if isinstance(value, list | tuple):
        parts = ((part, as_text(part)) for part in value)
        return ",".join(f"({text})" if isinstance(part, list | tuple) else text for part, text in parts) or "()"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value) or '""'


def as_words(settings: Words) -> tuple[str, ...]:
    """Return settings as `--set` takes them.

    >>> as_words({"method.lambda_g": 0.5, "steps": 100}), as_words("steps=100")
    (('method.lambda_g=0.5', 'steps=100'), ('steps=100',))
    """
    if isinstance(settings, Mapping):
        return tuple(f"{name}={as_text(value)}" for name, value in settings.items())
    return several(settings)


def flattened(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted paths.

    >>> flattened({"method": {"name": "rna", "lambda_g": 1.0}, "steps": 300})
    {'method.name': 'rna', 'method.lambda_g': 1.0, 'steps': 300}
    """
    by_path: dict[str, Any] = {}
    for name, value in settings.items():
        by_path |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return by_path


def name_of(params: Any) -> str:
    """Return the name of the file that a Params comes from: heads.methods.rna.Params(...) -> "rna"."""
    return plugins.canonical(type(params).__module__).rpartition(".")[2]


def _attempt_text(text: str, kind: Any) -> Any:
    try:
        return _parse(text, kind, "")
    except ConfigError as error:
        return error
