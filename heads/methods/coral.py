"""Deep CORAL: correlation alignment [Sun & Saenko 2016, ECCV workshops], which also aligns means, as its successors.

    L = L_C + λ_coral Σ_m (mean_ij (C_s - C_t)_ij² + mean_j (μ_s - μ_t)_j²)

μ and C are mean and covariance of the features of modality m on one side of the batch, C with 1 / (n - 1).

Implementation details
  1. The paper has ‖C_s - C_t‖² / 4D², a quarter of the first term, and no means (its Eq. 1): `mean_term=False` and
     λ_coral / 4. The mean over entries, the second term and λ_coral = 1 are those of the Transfer-Learning-Library.
  2. The paper aligns the scores of the last layer, with one entry per class. Features have many more entries, and a
     mean over D² entries is small: a wide net may need a λ_coral far above 1.
  3. Several source domains count as one source. With several label kinds, their features are aligned as one vector.
  4. Rows that lack m count in no moment of m. A side with one row has no covariance, and the first term is 0.
Deviation: features are frozen, so the encoder is the net's own layer; the paper also trains the backbone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from heads.batch import Batch
from heads.losses.moments import coral, mean_gap
from heads.methods import Method
from heads.methods._aligned import aligned
from heads.params import within


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of CORAL."""

    lambda_coral: float = within(1.0, 0)  #: λ_coral, weight of the gap of moments, summed over modalities [code: TLL]
    mean_term: bool = True  #: also align the means; False is Deep CORAL as published [code: TLL]


class Coral(Method):
    """Equal covariances, and means, of the features on both sides."""

    needs = ("source", "target")
    tasks = ("classification", "retrieval")

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, L_coral between the sides."""
        p, (s, t) = self.params, batch.both()
        f_s, f_t = self.net.encode_both(s, t)
        gaps = (coral, mean_gap) if p.mean_term else (coral,)
        each = [gap(*pair) for pair in aligned(self.spec, s, f_s, t, f_t).values() for gap in gaps]
        return {**self.net.loss(f_s, s), "L_coral": p.lambda_coral * torch.stack(each).sum()}


METHOD = Coral
