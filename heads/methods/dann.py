"""Domain-adversarial training [DANN: Ganin et al. 2016, JMLR 17], "GRL" in the tables.

    L = L_C + Σ_m L_d(m)      L_d(m) = -E_s log D_m(f_m)_source - E_t log D_m(f_m)_target

f_m are the features of modality m, D_m its discriminator. D_m lowers L_d. The encoder, behind a gradient reversal of
coefficient λ_d (2 / (1 + exp(-10 p)) - 1), raises it until D_m cannot separate the domains. p: progress of the run.

Implementation details
  1. D_m: D -> 100 -> ReLU -> 2, weights from a truncated normal of std 0.1; one per modality, losses added (MM-SADA's
     code).
  2. λ_d = 1: MM-SADA's code has 0.2 and a cross entropy of weight 0.2, so 1 relative to it. λ_d is in the reversal, so
     it scales the gradient of the encoders; the discriminators learn at the full rate.
  3. The expectations are one mean over the rows of both sides that have m.
  4. Several source domains count as one source. With several label kinds, D_m takes their features as one vector.
Deviation: features are frozen, so the encoder is the net's own layer; the papers also train the backbone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heads.batch import Batch, Spec
from heads.methods import Method
from heads.methods._adversarial import discriminator, domain_loss
from heads.methods._aligned import aligned
from heads.nets import Net
from heads.params import within
from heads.schedules import dann


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of DANN."""

    lambda_d: float = within(1.0, 0)  #: λ_d, peak coefficient of the gradient reversal [code: MM-SADA, relative to L_C]


class Dann(Method):
    """Features whose domain a discriminator cannot predict."""

    needs = ("source", "target")
    tasks = ("classification", "retrieval")

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        self.D = nn.ModuleDict({m: discriminator(net.dim) for m in spec.streams})

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, L_d between the sides."""
        s, t = batch.both()
        f_s, f_t = self.net.encode_both(s, t)
        coefficient = self.params.lambda_d * dann(progress)
        pairs = aligned(self.spec, s, f_s, t, f_t)
        each = [domain_loss(self.D[m], *pair, coefficient) for m, pair in pairs.items()]
        return {**self.net.loss(f_s, s), "L_d": torch.stack(each).sum()}


METHOD = Dann
