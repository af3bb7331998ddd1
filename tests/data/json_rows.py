"""One JSON list of a key and its clips after its own digest: a bridge as its author would write it elsewhere.

Each clip is [id, dtype, shape, bytes in base64].
"""

import base64
import hashlib
import json

import numpy as np

from featcache.bridges import External
from featcache.errors import FormatError
from featcache.files import write_file

KEEPS = frozenset({"windows", "ragged", "shape", "dtype", "ids"})
DIGITS = 64  #: of the digest


def digest(body):
    """SHA-256 as text."""
    return hashlib.sha256(body).hexdigest().encode()


def is_text(name):
    """Return whether a key or an id can be written."""
    return 0 < len(name) <= 200 and "\0" not in name and not any(0xD800 <= ord(letter) < 0xE000 for letter in name)


def write(path, tables):
    """Write the only key."""
    if len(tables) != 1:
        raise FormatError(f"{path} would hold {len(tables)} keys; write one file for each")
    ((key, table),) = tables.items()
    if not table.ids or not all(map(is_text, [key, *table.ids])):
        raise FormatError(f"{path}: a file has clips, and names of 1 to 200 characters")
    rows = [table.row(k) for k in range(len(table.ids))]
    clips = [
        [clip_id, row.dtype.str, row.shape, base64.b64encode(row.tobytes()).decode()]
        for clip_id, row in zip(table.ids, rows, strict=True)
    ]
    body = json.dumps([key, clips]).encode()
    write_file(path, digest(body) + body, shared=True)


def read(path, ids=None):
    """Read the only key."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from None
    if digest(data[DIGITS:]) != data[:DIGITS]:
        raise FormatError(f"{path} is damaged, or no file of JSON rows")
    key, clips = json.loads(data[DIGITS:])
    names = [clip[0] for clip in clips] if ids is None else list(ids)
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise FormatError(f"{path}: the id {twice[0]!r} is given twice")
    if len(names) != len(clips):
        raise FormatError(f"{path} has {len(clips)} clips, but {len(names)} ids are given")

    def row(k):
        _, dtype, shape, text = clips[k]
        return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)

    return {key: External(names, row)}
