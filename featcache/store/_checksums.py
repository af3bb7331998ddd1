"""The checksum of rows that follow each other, from the checksums of the rows.

A crc32c is linear: the checksum of A and B together is M(checksum of A) ^ (checksum of B), where the linear map M of 32
bits depends only on the number of bytes of B. So a shard gets its checksum from those of its rows, which the journal
has, and is not read again.
"""

from functools import cache

import google_crc32c
import numpy as np
from numpy.typing import NDArray


def joined(checksums: NDArray[np.uint32], size: int) -> int:
    """The crc32c of parts of `size` bytes each, one after the other, from the crc32c of each part."""
    values = np.zeros(1 << max(0, len(checksums) - 1).bit_length(), np.uint32)  # zeros in front: parts without bytes
    values[len(values) - len(checksums) :] = checksums
    while len(values) > 1:
        values = _mapped(values[::2], _followed_by(size)) ^ values[1::2]
        size *= 2
    return int(values[0])


@cache
def _followed_by(size: int) -> NDArray[np.uint32]:
    """The map of a checksum when `size` more bytes follow: the images of its 32 bits."""
    if size == 1:
        zero = google_crc32c.extend(0, b"\0")
        return np.array([google_crc32c.extend(1 << bit, b"\0") ^ zero for bit in range(32)], np.uint32)
    half = _followed_by(size // 2)
    twice = _mapped(half, half)
    return _mapped(twice, _followed_by(1)) if size % 2 else twice


def _mapped(values: NDArray[np.uint32], images: NDArray[np.uint32]) -> NDArray[np.uint32]:
    out = np.zeros_like(values)
    for bit, image in enumerate(images):
        out ^= image * (values >> np.uint32(bit) & np.uint32(1))
    return out
