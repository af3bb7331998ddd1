"""Fields of a `Params`: the ranges of its numbers, and fields that earlier runs did not have.

    T: float = within(0.8, 0, 1, below=True)
    dropout_at: str = added("logits", before="features")

>>> from heads.methods import xmc
>>> allowed = ranges(xmc.Params)
>>> str(allowed["T"]), 1.5 in allowed["T"], str(allowed["lambda_"]), str(allowed["tau"])
('in [0, 1)', False, 'at least 0', 'above 0')
"""

from dataclasses import dataclass, field, fields
from math import inf
from typing import Any, TypeVar

N = TypeVar("N", int, float)
V = TypeVar("V")


@dataclass(frozen=True)
class Range:
    """An interval; its ends belong to it unless `above` or `below` excludes them."""

    low: float
    high: float
    above: bool  #: excludes low
    below: bool  #: excludes high

    def __contains__(self, value: float) -> bool:
        """Return whether the value is in the range; NaN never is."""
        end = (self.above and value == self.low) or (self.below and value == self.high)
        return self.low <= value <= self.high and not end

    def __str__(self) -> str:
        """Return the range as text, to follow "must be"."""
        if self.high == inf:
            return f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return f"in {'[('[self.above]}{self.low:g}, {self.high:g}{'])'[self.below]}"


def within(
    default: N, low: float, high: float = inf, *, above: bool = False, below: bool = False, before: N | None = None
) -> N:
    """Declare a field of `Params` in [low, high], which the run checks. `above` excludes low, `below` excludes high.

    before: as in `added`, for a field that earlier runs did not have.
    """
    earlier = {} if before is None else {"before": before}
    number: N = field(default=default, metadata={"range": Range(low, high, above, below), **earlier})
    return number


def added(default: V, *, before: V) -> V:
    """Declare a field that earlier versions did not have; `before` is the value that runs of those versions had.

    A configuration without the field is read with `before`, and a field of this value is not written. So configurations
    of earlier runs keep their meaning and their id.
    """
    value: V = field(default=default, metadata={"before": before})
    return value


def ranges(params: Any) -> dict[str, Range]:
    """Return name -> range of the fields of a `Params` that have a range."""
    return {param.name: param.metadata["range"] for param in fields(params) if "range" in param.metadata}
