"""A surrogate of DAAA, deep adversarial action adaptation [Jamal et al. 2018, BMVC]: DANN, and alignment per class.

    L = L_C + Σ_m L_d(m) + λ_c Σ_m L_c(m)
    L_c(m) = mean over classes of MMD²(f_m of the class in the source, f_m of the class in the target)
    L_d(m) = -E_s log D_m(f_m)_source - E_t log D_m(f_m)_target

f_m are the features of modality m, D_m their discriminator behind a gradient reversal of coefficient λ_d (2 / (1 +
exp(-10 p)) - 1); p is the progress of the run. The net predicts the classes of the target.

The paper trains a 3-D network against a discriminator, and aligns subspaces of actions before that; we have not read
it. Its row in RNA's Table 6 is a quotation. This file is DANN, the main part of the paper's method, with an alignment
per class instead of subspaces.

Implementation details
  1. Target classes are the argmax of the fused scores of the same batch, without gradient or threshold. The mean is
     over the classes that both sides of the batch have.
  2. MMD is that of method `mmd` (12 kernels); γ is the mean ‖x - y‖² of the batch. λ_c = 0 is DANN.
  3. With several label kinds, D_m takes their features as one vector; the MMD of each kind's part are added.
Deviation: features are frozen, so the encoder is the net's own layer; the paper also trains its backbone.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from heads.batch import Batch, Spec, members
from heads.losses.moments import class_mmd
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.methods._adversarial import discriminator, domain_loss
from heads.methods._aligned import shared
from heads.nets import Net
from heads.params import within
from heads.schedules import dann


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of the surrogate of DAAA."""

    lambda_d: float = within(1.0, 0)  #: λ_d, peak coefficient of the gradient reversal [ours]
    lambda_c: float = within(0.1, 0)  #: λ_c, weight of the MMD² per class over modalities; MMD² is at most 24 [ours]


class Daaa(Method):
    """Features whose domain a discriminator cannot predict, aligned class by class."""

    needs = ("source", "target")
    surrogate = (
        "DANN with MMD per class for the paper's adversarial training of a 3-D network and alignment of subspaces"
    )

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        self.D = nn.ModuleDict({m: discriminator(net.dim) for m in spec.shapes})

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source; L_d and L_c between the sides."""
        p, (s, t) = self.params, batch.both()
        f_s, f_t = self.net.encode_both(s, t)
        z_s, z_t = self.net.classify_both(f_s, f_t)
        L_C = label_cross_entropy(z_s, s.y)
        y_t = {label: z_BK.argmax(1) for label, z_BK in z_t.items()}
        coefficient = p.lambda_d * dann(progress)
        L_d = L_c = L_C.new_zeros(())
        for m in shared(s, t):
            L_d = L_d + domain_loss(self.D[m], f_s[m], f_t[m], s.has(m), t.has(m), coefficient)
            for label, part in self.net.parts.items():
                K = self.spec.classes[label]
                in_SK, in_TK = (members(y[label], K) & side.has(m)[:, None] for side, y in ((s, s.y), (t, y_t)))
                L_c = L_c + class_mmd(f_s[m][:, part], f_t[m][:, part], in_SK, in_TK, gamma=0)
        return {"L_C": L_C, "L_d": L_d, "L_c": p.lambda_c * L_c}


METHOD = Daaa
