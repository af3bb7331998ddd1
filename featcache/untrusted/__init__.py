"""Files from unknown sources, read as data: no code in them is run, no link is followed, and memory use is limited.

Each module of this folder reads one format into arrays and plain values, and raises FormatError for anything
unexpected. Bridges, builders and media interpret the values.
"""

import contextlib
import errno
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featcache.errors import ConfigError, FormatError
from featcache.files import near, regular

BAD_FILE = (None, errno.EINVAL, errno.EOVERFLOW)  #: errno values caused by a bad file, not by the disk


@dataclass(frozen=True)
class LeftOut:
    """A column of a table that is not read, because of its type."""

    kind: str  #: the type in words


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn any error of a parser of a foreign file into one FormatError. kind: the format, such as "a pickle"."""
    try:
        regular(path, or_folder=True)
        yield
    except (FormatError, ConfigError):  # ConfigError: a setting such as FEATCACHE_MAX_GROWTH is wrong, not the file
        raise
    except (FileNotFoundError, NotADirectoryError):
        hint = near(path)
        raise FormatError(f"no {kind} file {path}" + (f": it does not exist{hint}" if hint else "")) from None
    except (IsADirectoryError, PermissionError) as error:
        raise FormatError(f"{path} cannot be read as {kind}: {error.strerror}") from None
    except Exception as error:  # parsers of foreign bytes raise anything
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in BAD_FILE):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FormatError(f"{path} is not {kind} as it should be, or it is damaged: {reason}") from None


def check_numbers(dtype: np.dtype[Any], place: str) -> None:
    """Raise FormatError unless values of this dtype are real numbers."""
    if dtype.kind not in "fiu":
        raise FormatError(f"{place} holds {dtype}; features are floats or integers")


def not_stored(entries: Sequence[zipfile.ZipInfo], size: int) -> str:
    """The reason why torch.save has not written a zip archive of `size` bytes; "" when it may have.

    torch.save neither compresses entries nor lets them overlap, so few bytes cannot unpack to many.
    """
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        return "is a compressed archive, which torch.save does not write"
    if sum(entry.file_size for entry in entries) > size:
        return "claims more bytes than it has"
    return ""
