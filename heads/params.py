"""Numbers of a `Params` that say what they may be: `T: float = within(0.8, 0, 1, below=True)`.

>>> from heads.methods import xmc
>>> of = ranges(xmc.Params)
>>> str(of["T"]), 1.5 in of["T"], str(of["lambda_"]), str(of["tau"])
('in [0, 1)', False, 'at least 0', 'above 0')
"""

from dataclasses import dataclass, field, fields
from math import inf
from typing import Any, TypeVar

N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Range:
    """An interval; its ends belong to it unless said otherwise."""

    low: float
    high: float
    above: bool  #: without low
    below: bool  #: without high

    def __contains__(self, value: float) -> bool:
        """NaN is in no range."""
        end = (self.above and value == self.low) or (self.below and value == self.high)
        return self.low <= value <= self.high and not end

    def __str__(self) -> str:
        """In words, to stand after "must be"."""
        if self.high == inf:
            return f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return f"in {'[('[self.above]}{self.low:g}, {self.high:g}{'])'[self.below]}"


def within(default: N, low: float, high: float = inf, *, above: bool = False, below: bool = False) -> N:
    """A field of `Params` that lies in [low, high]; above: low itself is out, below: high is. The run checks it."""
    number: N = field(default=default, metadata={"range": Range(low, high, above, below)})
    return number


def ranges(params: Any) -> dict[str, Range]:
    """Name -> range of the fields of a `Params` that have one."""
    return {one.name: one.metadata["range"] for one in fields(params) if "range" in one.metadata}
