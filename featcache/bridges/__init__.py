"""Other people's feature files, both ways. The folder is the registry: `bridges/hdf5.py` is the format `hdf5`.

A bridge file holds

    KEEPS = frozenset({...})                       what a file gives back of what was written into it, see below
    def read(path, ids) -> dict[str, External]     key in the file (modality, data set, column group) -> its features
    def write(path, tables) -> None                the way back; replaces what stands at `path`, whole or not at all
    def companions(path) -> list[Path]             where `write` replaces other files as well: which ones

and keeps the contract of `featcache.testing.BridgeTests`. The first sentence of its docstring describes the format.
Files are untrusted: a bridge never executes code from a file (pickles go through `untrusted.pickles`), and answers
anything unexpected with a FormatError that names the file, the place, what was found and what was expected. Values that
are no number (NaN) are passed on.

Keys that describe clips by their names (`featcache.columns`), such as `label` or `timestamps`, are read like any other;
an import leaves them out and names them. A file whose rows are made of named columns gives such columns keys of their
own. What a bridge does not read at all is named in `left_out` of its tables.

`ids` is None or the clips' ids in the order of the file, for a file that has none. Where it has ids, they are replaced;
another number of them, or an id that stands twice, is a FormatError.

KEEPS is a subset of WORDS:

    "several"    more than one key in a file; without it several keys are refused
    "windows"    the window axis: (T, D) comes back as (T, D), not as its rows flattened or averaged
    "ragged"     a number of windows that differs between clips; without it such clips are refused
    "shape"      rows of any shape (D1, D2, ...); without it they come back as (D1*D2*...,), or are refused
    "dtype"      float16 as float16 and float32 as float32; without it all is float32
    "ids"        any clip id; without it ids with some characters (such as / in a file's name) are refused
    "times"      start and stop of each window
    "recipe"     how the features were made

What is not kept is said when a file is written (`featcache export` prints it).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import registry
from featcache.errors import FormatError

WORDS = ("several", "windows", "ragged", "shape", "dtype", "ids", "times", "recipe")  #: that KEEPS may hold
#: arrays and columns that hold the clips' ids
ID_NAMES = ("clip_id", "clip_ids", "ids", "uid", "narration_ids", "narration_id", "video_id", "id", "name")

Times = tuple[NDArray[np.float64], NDArray[np.float64]]  #: start and stop (T,) of a clip's windows, in seconds


@dataclass(frozen=True)
class External:
    """Features of one modality as a file holds them, by clip id, in the file's order; rows are read when asked for."""

    ids: Sequence[str]  #: unique
    row: Callable[[int], NDArray[Any]]  #: k -> (T, *row_shape) of clip ids[k], in the dtype of the file
    times: Callable[[int], Times] | None = None  #: k -> its windows' start and stop; None: the file does not say
    recipe: dict[str, Any] = field(default_factory=dict)  #: what the file says about how it was made; {} if nothing
    columns: Sequence[str] = ()  #: names of the columns that a row consists of, where the file has them
    left_out: Sequence[str] = ()  #: names of other columns, arrays or keys of the file, which are not in this table


def read_ids(path: Path) -> list[str]:
    """The clip ids in a text file, one per line; FormatError where there is no such file."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise FormatError(f"no file of ids {path}; write one, an id per line, or name another") from None
    except IsADirectoryError:
        raise FormatError(f"{path} is a folder; name a file of ids, one per line") from None
    except PermissionError:
        raise FormatError(f"{path} cannot be read: permission denied; let this user read it") from None
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")


def names() -> list[str]:
    """The formats there are."""
    return registry.names(__name__)


def load(name: str) -> Any:
    """The module of a format, by name; unknown names list the known ones."""
    return registry.load(__name__, name, "format")
