"""Bridges read and write feature files in other tools' formats: `bridges/hdf5.py` is the format `hdf5`.

The folder is the registry. A bridge file holds

    KEEPS = frozenset({...})                       the properties that survive writing and reading, see below
    def read(path, ids) -> dict[str, External]     key in the file (modality, data set, column group) -> its features
    def write(path, tables) -> None                write a file, replacing `path` completely or not at all
    def companions(path) -> list[Path]             optional: other files that `write` replaces

and keeps the contract of `featcache.testing.BridgeTests`. The first paragraph of its docstring describes the format and
is printed by `featcache list formats`. Files are untrusted: a bridge never runs code from a file (pickles go through
`untrusted.pickles`). Unexpected content raises a FormatError that names the file, the place, the value found and the
value expected. NaN values are passed on.

Keys whose names describe clips (`featcache.columns`), such as `label` or `timestamps`, are read like any other; an
import leaves them out and names them. A file whose rows consist of named columns gives such columns keys of their own.
Names of content that a bridge does not read at all are in `left_out` of its tables.

`ids` is None or the clip ids in the order of the file, for files without ids. They replace the ids of a file that has
its own. A different number of ids, or a duplicate id, is a FormatError. An import takes `ids` from `ids_file(path)`, if
that file exists and no other ids are given; only bridges that also write this file read it themselves.

KEEPS is a subset of WORDS:

    "several"    more than one key in a file; without it several keys are refused
    "windows"    the window axis: (T, D) comes back as (T, D), neither flattened nor averaged
    "ragged"     a number of windows that differs between clips; without it such clips are refused
    "shape"      windows of any shape (D1, D2, ...); without it they come back as (D1*D2*...,), or are refused
    "dtype"      float16 as float16 and float32 as float32; without it everything is float32
    "ids"        any clip id; without it ids with some characters (such as / in a file name) are refused
    "times"      start and stop of each window
    "recipe"     the recipe of the features

`featcache export` prints what a format does not keep.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import registry
from featcache.errors import FormatError
from featcache.files import regular
from featcache.spreadsheets import UTF8

WORDS = ("several", "windows", "ragged", "shape", "dtype", "ids", "times", "recipe")  #: the choices for KEEPS
#: names of arrays and columns that hold clip ids
ID_NAMES = ("clip_id", "clip_ids", "ids", "uid", "narration_ids", "narration_id", "video_id", "id", "name")
#: the fix for features without ids
GIVE_IDS = "give the ids in a text file with --ids, or in FILE.ids.txt next to FILE: one per line, in the order of FILE"

Times = tuple[NDArray[np.float64], NDArray[np.float64]]  #: start (T,) and stop (T,) of a clip's windows, in seconds


@dataclass(frozen=True)
class External:
    """The features of one modality in a file, in the order of the file. Each row is read when `row` is called."""

    ids: Sequence[str]  #: unique
    row: Callable[[int], NDArray[Any]]  #: k -> (T, *row_shape) of clip ids[k], in the dtype of the file
    times: Callable[[int], Times] | None = None  #: k -> start and stop of its windows; None if the file has none
    recipe: dict[str, Any] = field(default_factory=dict)  #: the recipe in the file; {} if it has none
    columns: Sequence[str] = ()  #: names of the columns of a row, if the file has them
    left_out: Sequence[str] = ()  #: names of other columns, arrays or keys of the file, which are not in this table


def ids_file(path: Path) -> Path:
    """The text file of ids next to a file or folder of features."""
    return path.parent / f"{path.name}.ids.txt"


def read_ids(path: Path) -> list[str]:
    """Read the clip ids in a text file, one per line; FormatError if there is no such file."""
    try:
        text = regular(path, or_folder=True).read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise FormatError(f"no file of ids {path}; create it with one id per line, or name another file") from None
    except IsADirectoryError:
        raise FormatError(f"{path} is a folder; name a file of ids, one per line") from None
    except PermissionError:
        raise FormatError(f"{path} cannot be read: permission denied; give this user read access") from None
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); {UTF8}") from None
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")


def names() -> list[str]:
    """The names of all formats."""
    return registry.names(__name__)


def load(name: str) -> Any:
    """The module of a format; an unknown name raises a ConfigError that lists the formats."""
    return registry.load(__name__, name, "format")
