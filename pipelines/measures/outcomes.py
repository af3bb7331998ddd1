"""The outcome of every test clip, short enough for a line of results.

A metric that is a share of right answers has, for each test clip, the number of right answers and of all its answers:
one answer per selected point in classification, one per point and caption in retrieval from text. Tables compare two
runs clip by clip with them (intervals.py).

    text:  CHECKSUM n ANSWERS RIGHT

CHECKSUM identifies the clips and their order. ANSWERS is one number if it is the same for all clips. Other numbers of
clips are base64 of zlib: bits where all are 0 or 1, else bytes, else 4-byte integers.
"""

import base64
import binascii
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

Counts = NDArray[np.integer]
KINDS = {"1": 1, "8": 8, "32": 32}  #: the bits of a number, as text and as number
MOST = 2**31  #: no count of clips or answers is larger


class Values(dict[str, float]):
    """Metric -> value of a point; `outcomes` holds those of the metrics that are shares of right answers."""

    def __init__(self, values: Mapping[str, float] = MappingProxyType({})) -> None:
        """Copy these values; there are no outcomes yet."""
        super().__init__(values)
        self.outcomes: dict[str, Outcomes] = {}


@dataclass(frozen=True)
class Outcomes:
    """The right answers of each test clip, out of all its answers."""

    right: Counts  #: (n,)
    answers: Counts  #: (n,); 0 for a clip that is not asked, such as one without captions
    clips: str = ""  #: checksum of the clips and their order

    @property
    def value(self) -> float:
        """The share of right answers."""
        return float(self.right.sum() / self.answers.sum())


def of_clips(right: NDArray[np.bool_]) -> Outcomes:
    """Return the outcomes of clips (n,) that give one answer each."""
    return Outcomes(right.astype(np.int64), np.ones(len(right), np.int64))


def together(points: Sequence[Outcomes]) -> Outcomes:
    """Return the sum of the outcomes of several points, or of several metrics, on the same clips."""
    right, answers = (np.sum([getattr(point, name) for point in points], axis=0) for name in ("right", "answers"))
    return Outcomes(right, answers, points[0].clips)


def checksum(manifest: str, rows: Counts) -> str:
    """Return the checksum of clips: rows of the manifest with this fingerprint, in this order."""
    return f"{crc32c(manifest.encode() + rows.astype('<i8').tobytes()):08x}"


def encode(outcomes: Outcomes) -> str:
    """Return the outcomes as text.

    >>> encode(Outcomes(np.array([1, 0, 3]), np.array([3, 3, 3]), "0a1b2c3d"))
    '0a1b2c3d 3 3 8:eNpjZGAGAAAJAAU='
    """
    first = int(outcomes.answers[0])
    answers = str(first) if (outcomes.answers == first).all() else _pack(outcomes.answers)
    return f"{outcomes.clips} {len(outcomes.right)} {answers} {_pack(outcomes.right)}"


def decode(text: str) -> Outcomes:
    """Return the outcomes of a text; ValueError if it is not one."""
    parts = text.split(" ")
    if len(parts) != 4 or not parts[1].isdecimal() or not 0 < (n := int(parts[1])) < MOST:
        raise ValueError("it is not: CHECKSUM n ANSWERS RIGHT")
    clips, _, answers, right = parts
    same = answers.isdecimal()
    if same and int(answers) >= MOST:
        raise ValueError(f"a clip has {answers} answers")
    counts = np.full(n, int(answers)) if same else _unpack(answers, n)
    found = Outcomes(_unpack(right, n), counts, clips)
    if not counts.any() or (found.right > counts).any():
        raise ValueError("a clip has more right answers than answers, or no clip has any")
    return found


def _pack(counts: Counts) -> str:
    """Return numbers as text, "BITS:base64 of zlib"."""
    most = int(counts.max())
    kind = "1" if most <= 1 else "8" if most < 256 else "32"
    data = np.packbits(counts.astype(np.uint8)) if kind == "1" else counts.astype("u1" if kind == "8" else "<u4")
    return f"{kind}:{base64.b64encode(zlib.compress(data.tobytes(), 9)).decode()}"


def _unpack(text: str, n: int) -> Counts:
    """Return n numbers of a text; ValueError if it holds another number of them. Memory is bounded by n."""
    kind, _, data = text.partition(":")
    if kind not in KINDS:
        raise ValueError(f"numbers of {kind[:9]!r} bits; choices: {', '.join(KINDS)}")
    size = -(-n * KINDS[kind] // 8)
    try:
        raw = zlib.decompressobj().decompress(base64.b64decode(data, validate=True), size + 1)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(str(error)) from None
    if len(raw) != size:
        raise ValueError(f"it does not hold the outcomes of {n} clips")
    array = np.frombuffer(raw, "<u4" if kind == "32" else "u1")
    return (np.unpackbits(array, count=n) if kind == "1" else array).astype(np.int64)
