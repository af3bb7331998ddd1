"""Information maximisation [Krause et al. 2010; L_IM of SHOT: Liang et al. 2020, Eq. 3-5], with a labelled source.

    L = L_C + λ_IM L_IM      L_IM = mean_i H(p_i) - H(mean_i p_i),   p_i = softmax(z_i) of the target's rows

Each row should be certain, and all rows together should use the classes equally: the second part prevents entropy
minimisation from predicting one class for all rows.

Implementation details
  1. The scores of the modalities are added before the softmax. With several label kinds, the L_IM of all kinds are
     added.
  2. mean_i p_i is the mean of the batch (SHOT's code). A batch that is small compared with K has fewer classes than the
     target, and is pushed towards classes that it lacks: use batches with several rows per class.
  3. λ_IM = 1 as in SHOT, which trains without a source. The paper's value is for balanced targets. If the target's
     classes have very different sizes, equal use of them is wrong, and a smaller λ_IM is better.
Deviation: features are frozen, so only the net's own layer adapts; SHOT also trains the backbone.
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

    lambda_im: float = within(1.0, 0)  #: λ_IM, weight of the target's L_IM [paper: SHOT]


class Infomax(Method):
    """Certain and diverse predictions on the target."""

    needs = ("source", "target")

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, L_IM on the target."""
        s, t = batch.both()
        z_s, z_t = self.net.classify_both(*self.net.encode_both(s, t))
        each = torch.stack([information(z_BK.softmax(1)) for z_BK in z_t.values()])
        return {"L_C": label_cross_entropy(z_s, s.y), "L_IM": self.params.lambda_im * each.sum()}


METHOD = Infomax
