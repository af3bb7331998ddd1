"""Entropy minimisation [Grandvalet & Bengio 2004]: L = L_C + λ_ent L_ent, the mean entropy of target predictions.

Implementation details
  1. The scores of the modalities are added before the softmax.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from heads.batch import Batch
from heads.losses.entropy import entropy
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.params import within


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of entropy minimisation."""

    lambda_ent: float = within(0.1, 0)  #: λ_ent, weight of the target's entropy [code: Relative Rotation]


class Entropy(Method):
    """Certain predictions on the target."""

    needs = ("source", "target")

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, L_ent on the target."""
        s, t = batch.both()
        z_s, z_t = self.net.classify_both(*self.net.encode_both(s, t))
        h_t = torch.stack([entropy(z_BK.softmax(1)).mean() for z_BK in z_t.values()])
        return {"L_C": label_cross_entropy(z_s, s.y), "L_ent": self.params.lambda_ent * h_t.sum()}


METHOD = Entropy
