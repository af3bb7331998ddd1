"""Arguments of public functions: paths as text or as objects, and one value in place of several.

>>> several("hog"), several(["hog", "hof"])
(('hog',), ('hog', 'hof'))
"""

import numbers
import os
from collections.abc import Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.errors import ArgumentsError, ConfigError
from featcache.machine import cores

if TYPE_CHECKING:
    from featcache.manifest import Manifest

PathLike = str | os.PathLike[str]
Pairs = str | Iterable[str] | Mapping[str, str]  #: "KEY=NAME", several of these, or {"KEY": "NAME"}


def several(words: str | Iterable[str]) -> tuple[str, ...]:
    """Return words as a tuple; a single one is itself, not its letters."""
    return (words,) if isinstance(words, str) else tuple(words)


def listed(value: object) -> str | None:
    """Return a value, or several, as an option takes it: text stays, None stays.

    >>> listed("0..4"), listed(0), listed([0.1, 0.3]), listed(None)
    ('0..4', '0', '0.1,0.3', None)
    """
    if value is None or isinstance(value, str):
        return value
    return ",".join(map(str, value)) if isinstance(value, Iterable) else str(value)


def one_of(option: str, value: object, choices: Sequence[str]) -> None:
    """Raise ArgumentsError unless a value is one of the choices. option: its name, for messages."""
    if value not in choices:
        raise ArgumentsError(f"{option} is {value!r}; choose from {', '.join(choices)}")


def numeric(option: str, value: object, kind: type = numbers.Integral) -> None:
    """Raise ArgumentsError unless a value is a whole number, a number if `kind` is Real, or None.

    option: its name, for messages.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
        whole = "whole " if kind is numbers.Integral else ""
        raise ArgumentsError(f"{option} is {value!r}, a {type(value).__name__}; give a {whole}number")


def some(option: str, given: Sized) -> None:
    """Raise ArgumentsError if nothing is given. option: its name, for messages."""
    if not len(given):
        raise ArgumentsError(f"{option} names nothing; give one or several")


def worker_count(workers: int | None) -> int:
    """Return the number of workers, one per core for None; ArgumentsError for less than one."""
    numeric("workers", workers)
    if workers is not None and workers < 1:
        raise ArgumentsError(f"workers is {workers}; give 1 or more, or leave it out for one per core")
    return cores() if workers is None else workers


def paths(given: PathLike | Iterable[PathLike]) -> tuple[Path, ...]:
    """Return one path, or several, as a tuple."""
    return (Path(given),) if isinstance(given, str | os.PathLike) else tuple(map(Path, given))


def pairs(option: str, given: Pairs, form: str = "KEY=NAME", *, named: bool = True) -> dict[str, str]:
    """Return pairs {KEY: NAME}; ConfigError for a word of another form, and for a key that occurs twice.

    option: its name, for messages. named: False if NAME may be left out; it is then "".

    >>> pairs("--key", ["rgb=s04", "emg"], named=False), pairs("--key", {"rgb": "s04"})
    ({'rgb': 's04', 'emg': ''}, {'rgb': 's04'})
    """
    if isinstance(given, Mapping):
        return dict(given)
    found: dict[str, str] = {}
    for text in several(given):
        key, equals, name = text.rpartition("=") if "=" in text else (text, "", "")
        if not key or key in found or bool(equals) != bool(name) or (not name and named):
            raise ConfigError(f"{option} {text}: write {option} {form}, and each key only once")
        found[key] = name
    return found


def manifest_of(given: "Manifest | PathLike") -> "Manifest":
    """Return a manifest, read from its file if `given` is a path; ManifestError as of `Manifest.read`."""
    from featcache.manifest import Manifest

    return given if isinstance(given, Manifest) else Manifest.read(given)
