"""Minimum class confusion [MCC: Jin et al. 2020, ECCV], on cached features.

    L = L_C + μ L_MCC      L_MCC = 1/K Σ_k Σ_{k' ≠ k} C~_kk'
    Ŷ = softmax(z / T),   C_kk' = Σ_i W_i Ŷ_ik Ŷ_ik',   C~_kk' = C_kk' / Σ_j C_kj,   W_i ∝ 1 + exp(-H(ŷ_i))

C_kk' measures the confusion between classes k and k' over the target's rows. Rows of C are normalised to sum 1, so that
classes that are rare in the batch weigh as much as frequent ones. The entries off its diagonal are minimised.

Implementation details
  1. The paper scales the W_i to a mean of 1. This factor cancels in C~, and is not computed. W takes no gradient (the
     authors' code).
  2. T = 2.5, the default of the authors' code; the paper chose it per benchmark.
  3. The scores of the modalities are added before the softmax. With several label kinds, the L_MCC of all kinds are
     added.
Deviation: features are frozen, so only the net's own layer adapts; the paper also trains the backbone.
Shapes: B rows, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from heads.batch import Batch
from heads.losses.predictions import class_confusion
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.params import within


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of MCC."""

    lambda_mcc: float = within(1.0, 0)  #: μ, weight of the target's L_MCC [code]
    temperature: float = within(2.5, 0, above=True)  #: T of the softmax; above 1, saturated rows have a gradient [code]


class Mcc(Method):
    """Predictions on the target that do not confuse classes."""

    needs = ("source", "target")

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, L_MCC on the target."""
        s, t = batch.both()
        z_s, z_t = self.net.classify_both(*self.net.encode_both(s, t))
        each = torch.stack([class_confusion(z_BK, self.params.temperature) for z_BK in z_t.values()])
        return {"L_C": label_cross_entropy(z_s, s.y), "L_MCC": self.params.lambda_mcc * each.sum()}


METHOD = Mcc
