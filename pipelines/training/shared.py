"""Tensors that the runs of a folder share, because they cost minutes and depend only on the cached rows.

A file is named after a hash of everything that its tensor depends on, and begins with the sha256 of the rest. If
several runs need the same tensor at once, one computes it and the others wait (on one machine). A damaged file is
computed again.
"""

import io
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from featcache.errors import FormatError
from featcache.files import claim_of, locked, remove_abandoned, write_file
from featcache.untrusted import tensors

DIGEST = 32  #: bytes of a sha256


class Shared:
    """A folder of tensors by name (`heads.batch.Shared`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """Return the tensor of that name: from its file, on the CPU, or computed and written if there is none."""
        path = self.folder / f"{name}.pt"
        remove_abandoned(path)
        if (kept := _read(path)) is not None:
            return kept
        with locked(claim_of(path)):
            if (kept := _read(path)) is not None:  # another run has computed it meanwhile
                return kept
            tensor, file = compute(), io.BytesIO()
            torch.save(tensor.cpu(), file)
            write_file(path, sha256(file.getvalue()).digest() + file.getvalue(), shared=True)
            return tensor


def _read(path: Path) -> Tensor | None:
    """The tensor of a file; None if the file is missing or damaged."""
    data = path.read_bytes() if path.is_file() else b""
    if sha256(data[DIGEST:]).digest() != data[:DIGEST]:
        return None
    try:
        kept = tensors.load(data[DIGEST:], str(path))
    except FormatError:  # of a stranger, who can write the digest, too
        return None
    return kept if isinstance(kept, Tensor) else None
