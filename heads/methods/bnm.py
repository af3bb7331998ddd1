"""Batch nuclear-norm maximisation [BNM: Cui et al. 2020, CVPR], on cached features.

    L = L_C + λ L_bnm      L_bnm = -‖P‖_* / B

P holds the softmax of the target's rows, ‖P‖_* is the sum of its singular values. The Frobenius norm of P grows as rows
become certain, its rank as they use more classes. A larger nuclear norm raises both at once.

Implementation details
  1. The norm is divided by B, as in the paper. The authors' code takes the mean of the singular values, which divides
     by min(B, K): its λ = 1 is λ = B / min(B, K) here.
  2. The scores of the modalities are added before the softmax. With several label kinds, the L_bnm of all kinds are
     added.
Deviation: features are frozen, so only the net's own layer adapts; the paper also trains the backbone.
Shapes: B rows, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from heads.batch import Batch
from heads.losses.predictions import nuclear_norm
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.params import within


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of BNM."""

    lambda_bnm: float = within(1.0, 0)  #: λ, weight of the target's L_bnm [ours]


class Bnm(Method):
    """Predictions of high rank and norm on the target."""

    needs = ("source", "target")

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, L_bnm on the target."""
        s, t = batch.both()
        z_s, z_t = self.net.classify_both(*self.net.encode_both(s, t))
        norms = torch.stack([nuclear_norm(z_BK.softmax(1)) for z_BK in z_t.values()])
        return {"L_C": label_cross_entropy(z_s, s.y), "L_bnm": -self.params.lambda_bnm * norms.sum()}


METHOD = Bnm
