"""Information maximisation [Krause et al. 2010; L_IM of SHOT: Liang et al. 2020, Eq. 3-5], with a labelled source.

    L = L_C + λ_IM L_IM      L_IM = mean_i H(p_i) - H(mean_i p_i),   p_i = softmax(z_i) of the target's rows

Each row should be certain, and all rows together should use the classes equally: the second part keeps entropy
minimisation from putting everything into one class.

Implementation details
  1. The scores of the modalities are added before the softmax. With several label kinds, their L_IM are added.
  2. mean_i p_i is the batch's (SHOT's code). A batch that is small beside K has fewer classes than the target, and
     is pushed towards classes it has not: take at least some rows per class.
  3. λ_IM = 1 as in SHOT, which has no source beside it. The paper says so of balanced targets; where the target's
     classes are of very different sizes, an equal use of them is wrong, and a smaller λ_IM better.
Deviation: on frozen features the net's own layer adapts, where SHOT trains the backbone too.
Shapes: B rows, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from heads.batch import Batch
from heads.losses.entropy import information
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.params import within


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of information maximisation."""

    lambda_im: float = within(1.0, 0)  #: λ_IM, weight of the target's L_IM


class Infomax(Method):
    """Certain and diverse predictions on the target."""

    needs = ("source", "target")

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """L_C on the source, L_IM on the target."""
        s, t = batch.both()
        z_s, z_t = (self.net.classify(self.net.encode(side)) for side in (s, t))
        each = torch.stack([information(z_BK.softmax(1)) for z_BK in z_t.values()])
        return {"L_C": label_cross_entropy(z_s, s.y), "L_IM": self.params.lambda_im * each.sum()}


METHOD = Infomax
