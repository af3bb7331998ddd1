"""Files of strangers, read as data: no code in them is run, no link followed, and memory stays in proportion to them.

Each file of this folder reads one format into arrays and plain values, and answers anything unexpected with a
FormatError. What the values mean is the affair of bridges, builders and media.
"""

import contextlib
import errno
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featcache.errors import FormatError

GROWTH, SMALL = 200, 1 << 26  #: a file may unpack to 200 times its bytes and 64 MiB; deflate could do 1000 times
BAD_FILE = (None, errno.EINVAL, errno.EOVERFLOW)  #: errno where a parser was led astray, not the disk at fault


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a parser makes of a foreign file into one FormatError."""
    try:
        yield
    except FormatError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise FormatError(f"no {what} file {path}") from None
    except (IsADirectoryError, PermissionError) as error:
        raise FormatError(f"{path} cannot be read as {what}: {error.strerror}") from None
    except Exception as error:  # parsers of foreign bytes raise anything
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in BAD_FILE):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FormatError(f"{path} is not {what} as it should be, or it is damaged: {reason}") from None


def check_growth(size: int, stored: int, place: str) -> None:
    """FormatError where a few bytes claim to be very many."""
    if size > GROWTH * stored + SMALL:
        raise FormatError(f"{place} would grow from {stored} to {size} bytes, more than {GROWTH} times and 64 MiB")


def check_numbers(dtype: np.dtype[Any], place: str) -> None:
    """FormatError unless values are real numbers."""
    if dtype.kind not in "fiu":
        raise FormatError(f"{place} holds {dtype}; features are floats or integers")


def not_stored(entries: Sequence[zipfile.ZipInfo], size: int) -> str:
    """Why a zip archive of `size` bytes is none of torch.save's, which neither compress nor overlap; "" where it is.

    So a few bytes cannot stand for many.
    """
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        return "is a compressed archive, which torch.save does not write"
    if sum(entry.file_size for entry in entries) > size:
        return "claims more bytes than it has"
    return ""
