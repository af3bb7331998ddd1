"""The joints themselves as features, for k-means: what clusters are worth that nothing was learnt for.

    f = the cached row, its coordinates, frames, joints and bodies one after another
    L = L_sup, cross entropy of the source's classes by branch B0, which no feature depends on

The row that a method of clustering has to beat.

Implementation details
  1. Give the run `steps=0`: training the net changes nothing.
"""

from dataclasses import dataclass

from torch import Tensor

from heads.batch import Batch, Side
from heads.methods import Method


@dataclass(frozen=True)
class Params:
    """There are none."""


class Joints(Method):
    """Features of each branch are what it would read."""

    needs = ("source", "target")
    tasks = ("clustering",)

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """L_sup."""
        s = batch.source_side
        return self.net.loss(self.net.encode(s), s)

    def predict(self, side: Side) -> dict[str, Tensor]:
        """feature_B0, feature_B1 (B, 3 T V M): joints of the first feed and of the last."""
        feeds = tuple(self.spec.shapes)
        return {f"feature_{branch}": side.pool(m).flatten(1) for branch, m in {"B0": feeds[0], "B1": feeds[-1]}.items()}


METHOD = Joints
