"""Pseudo-label self-training [Lee 2013, ICML workshop], with a threshold, as the rival in XMC's Table 4.

    L = L_C + λ L_pl      L_pl = mean over {i : max_k p_i(k) > T} of -log p_i(ŷ_i),   ŷ_i = argmax_k p_i(k)

p_i is the softmax of the target's row i; the predictions of confident rows become their labels.

Implementation details
  1. T = 0.8 is XMC's threshold (Kim et al. 2021, Sec. 3.3). Labels are those of the same batch and the same pass, with
     its dropout, and take no gradient. A batch without a confident row adds 0.
  2. λ is not stated for this row of the table: 1.25 is the λ of XMC's own losses (Eq. 7).
  3. The mean is over the confident rows (not in the papers): a few of them weigh as much as many.
  4. The scores of the modalities are added before the softmax: with many modalities they become confident sooner than
     with the mean that XMC takes. With several label kinds, each has its own confident rows, and the losses are added.
Deviation: features are frozen, so only the net's own layer adapts; XMC also trains the backbone.
Shapes: B rows, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from heads.batch import Batch
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.params import within


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of pseudo-labelling."""

    lambda_pl: float = within(1.25, 0)  #: λ, weight of the target's pseudo-labels [ours: the λ of XMC]
    T: float = within(0.8, 0, 1, below=True)  #: T, confidence above which a row gets a label [ours: XMC's T]


class PseudoLabel(Method):
    """Cross entropy on the target's own confident predictions."""

    needs = ("source", "target")

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, L_pl on the target."""
        s, t = batch.both()
        z_s, z_t = self.net.classify_both(*self.net.encode_both(s, t))
        each = []
        for label, z_BK in z_t.items():
            p_B, y_B = z_BK.detach().softmax(1).max(1)
            each.append(label_cross_entropy({label: z_BK}, {label: y_B}, p_B > self.params.T))
        return {"L_C": label_cross_entropy(z_s, s.y), "L_pl": self.params.lambda_pl * torch.stack(each).sum()}


METHOD = PseudoLabel
