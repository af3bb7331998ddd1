"""The joints themselves as features, for k-means: the baseline of clusters without learning.

    f = the cached row: coordinates, frames, joints and bodies, flattened
    L = L_sup, cross entropy of the source's classes by branch B0, which no feature depends on

A clustering method has to beat this row.

Implementation details
  1. Give the run `steps=0`: training the net changes nothing.
"""

from dataclasses import dataclass

from torch import Tensor

from heads.batch import Batch, Side
from heads.methods import Method


@dataclass(frozen=True)
class Params:
    """The method has no hyper-parameters."""


class Joints(Method):
    """The input of each branch as its feature."""

    needs = ("source", "target")
    tasks = ("clustering",)

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_sup."""
        s = batch.source_side
        return self.net.loss(self.net.encode(s), s)

    def features(self, side: Side) -> dict[str, Tensor]:
        """Return B0 and B1 (B, 3 T V M): the joints of the first feed and of the last, of those that the side has."""
        feeds = tuple(self.spec.shapes)
        return {
            branch: side.pool(m).flatten(1) for branch, m in {"B0": feeds[0], "B1": feeds[-1]}.items() if m in side.x
        }


METHOD = Joints
