"""Inputs of a method: batches, sides, the run's spec and sweeps. Heads share only these types with pipelines.

A clip has one label of each kind: EPIC-Kitchens has the label kinds verb and noun, other data sets a single one.

Shapes: B rows of a batch, T windows of a row (or tokens of one caption), N rows of a whole side.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Side:
    """B rows of one side. x has no key for a modality that the side lacks.

    The x of a training batch is memory that later batches overwrite: it is valid until the next step. A method that
    keeps features for longer copies them. All other fields, and anything computed from x, stay valid.
    """

    x: dict[str, Tensor]  #: modality -> (B, T, *row_shape) float32; zeros where not present
    present: dict[str, Tensor]  #: modality -> (B, T) bool
    y: dict[str, Tensor]  #: label -> (B,) int64; {} where hidden: always for a target, always in predict
    domain: Tensor  #: (B,) int64, position in Spec.domains; -1 for a test domain that is not in training
    index: Tensor  #: (B,) int64, row number within the side; addresses banks and pseudo-labels
    joint: "Joint | None" = field(default=None, repr=False, compare=False)  #: of a batch whose sides share memory

    def pool(self, modality: str) -> Tensor:
        """Return the mean over the present windows -> (B, *row_shape); zeros for a row that lacks the modality."""
        x_BT, present_BT = self.x[modality], self.present[modality]
        if x_BT.shape[1] == 1:
            return x_BT[:, 0] * present_BT[:, 0].reshape(-1, *[1] * (x_BT.dim() - 2))
        weight_BT = present_BT / present_BT.sum(1, keepdim=True).clamp_min(1)
        return (x_BT * weight_BT.reshape(*weight_BT.shape, *[1] * (x_BT.dim() - 2))).sum(1)

    def has(self, modality: str) -> Tensor:
        """Return a mask of the rows with at least one window of the modality -> (B,) bool."""
        present_BT = self.present[modality]
        return present_BT[:, 0] if present_BT.shape[1] == 1 else present_BT.any(1)


@dataclass(frozen=True)
class Joint:
    """The features of both sides of a batch, one side after the other in the same memory."""

    x: dict[str, Tensor]  #: modality -> the rows of the source, then those of the target
    source: dict[str, Tensor]  #: `Side.x` of the source, which are views of these
    target: dict[str, Tensor]


def joined(s: Side, t: Side) -> Side | None:
    """Return the rows of two sides as one side, without labels; None if modalities or numbers of windows differ.

    The features are not copied if they are those of a batch whose sides share memory.
    """
    if any(s.x[m].shape[1:] != t.x[m].shape[1:] if m in t.x else True for m in s.x) or len(s.x) != len(t.x):
        return None
    present = {m: torch.cat([s.present[m], t.present[m]]) for m in s.x}
    if s.joint and s.joint.source is s.x and s.joint.target is t.x:  # else a method has replaced them
        x = s.joint.x
    else:
        x = {m: torch.cat([s.x[m], t.x[m]]) for m in s.x}
    return Side(x, present, {}, torch.cat([s.domain, t.domain]), torch.cat([s.index, t.index]))


def mapped(function: Callable[..., Tensor], *sides: Side) -> Side:
    """Return a side of the results of a function of each tensor of the sides, such as `torch.stack` of several."""
    x, present, y = (
        {name: function(*(getattr(side, field)[name] for side in sides)) for name in getattr(sides[0], field)}
        for field in ("x", "present", "y")
    )
    domain, index = (function(*(getattr(side, field) for side in sides)) for field in ("domain", "index"))
    return Side(x, present, y, domain, index)


def stack_sides(sides: Sequence[Side]) -> Side:
    """Stack the tensors of sides: each gets a second dimension."""
    return mapped(lambda *values: torch.stack(values, 1), *sides)


@dataclass(frozen=True)
class Batch:
    """The rows of one step. A side that the run does not name is None, and its rows were never read."""

    source: Side | None = None
    target: Side | None = None

    @property
    def source_side(self) -> Side:
        """The source side, for a method whose `needs` lists it; ValueError if the batch has none."""
        return required("source", self.source)

    @property
    def target_side(self) -> Side:
        """The target side, for a method whose `needs` lists it; ValueError if the batch has none."""
        return required("target", self.target)

    def both(self) -> tuple[Side, Side]:
        """Return the source side and the target side; ValueError if the batch lacks one."""
        return self.source_side, self.target_side


def required(name: str, side: Side | None) -> Side:
    """Return the side; ValueError if it is None."""
    if side is None:
        raise ValueError(f"this batch has no {name} side; a method that reads it lists {name!r} in `needs`")
    return side


@dataclass(frozen=True)
class Spec:
    """Facts about the run that are available before any row is read."""

    shapes: dict[str, tuple[int, ...]]  #: modality -> row_shape, over all feeds
    windows: dict[str, int]  #: modality -> T of a training draw
    classes: dict[str, int]  #: label -> number of classes in the manifest; in clustering, of the source's rows only
    rows: dict[str, int]  #: "source" | "source_val" | "target" -> number of rows, for the sides the method receives;
    #: "captions" -> number of captions of the source's rows
    domains: tuple[str, ...] = ()  #: source domains in the run's order, then the target
    captions: tuple[str, ...] = ()  #: caption modalities of a retrieval run; a target has none of them
    clusters: int = 0  #: number of target clusters in a clustering run: the target's true number of classes

    @property
    def streams(self) -> tuple[str, ...]:
        """The names of the features that are aligned across domains: the modalities, or "visual" in retrieval."""
        return ("visual",) if self.captions else tuple(self.shapes)


Sweep = Callable[[str], Iterator[Side]]
"""sweep("target") yields every row of the side once, in order, with test windows; only source sides have labels.

In retrieval a sweep of clips has no captions. sweep("captions") yields every caption of the source's clips once, with
the caption modalities only; `index` is the source row of its clip.
"""

Shared = Callable[[str, Callable[[], Tensor]], Tensor]
"""shared(name, compute) returns the result of compute(), or the one that an earlier run stored under that name.

The name identifies everything that the result depends on: it is a hash of the rows and of the computation.
"""


def members(y_B: Tensor, K: int) -> Tensor:
    """Return True where a row belongs to a class -> (B, K) bool. Unlike one_hot, it works under torch.func.vmap."""
    return y_B[:, None] == torch.arange(K, device=y_B.device)


def gather(sides: Iterator[Side], look: Callable[[Side], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Run `look` over a sweep and concatenate its results: row i of each is row i of the side."""
    results = [look(side) for side in sides]
    return {name: torch.cat([result[name] for result in results]) for name in results[0]}
