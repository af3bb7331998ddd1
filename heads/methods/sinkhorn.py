"""Optimal transport between the domains, with entropy ("OT" in ACP's tables) [Genevay et al. 2018; Cuturi 2013].

    L = L_C + λ_ot Σ_m S_ε(f_m of the source, f_m of the target)
    S_ε(s, t) = OT_ε(s, t) - (OT_ε(s, s) + OT_ε(t, t)) / 2,   OT_ε = min_P <P, C> + ε KL(P | uniform)
    C_ij = 1 - cos(s_i, t_j)

f_m are the features of modality m. The plan P moves every source row to the target rows nearest in direction, with
equal use of all rows on both sides. Training lowers the cost of the plan.

Implementation details
  1. ACP names the method without values: ε = 0.1, 50 iterations, λ_ot = 1 and the cosine are our own. Cosines are
     bounded, so ε has the same effect for all features; norms are not aligned.
  2. `debiased=False` is OT_ε(s, t) without the correction. It is least if each side has shrunk to one direction, which
     the cross entropy has to prevent.
  3. The gradient goes through the cost; the plan is a constant, as the envelope theorem allows at the optimum.
  4. Equal use of rows matches rows of different classes if the domains have different class shares; small batches make
     this worse.
  5. Several source domains count as one source. With several label kinds, their features are aligned as one vector.
  6. Rows that lack m have no weight in the transport of m.
Deviation: features are frozen, so the encoder is the net's own layer; the papers train the whole network.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from heads.batch import Batch
from heads.losses.transport import cosine_cost, sinkhorn_divergence, transport_cost
from heads.methods import Method
from heads.methods._aligned import aligned
from heads.params import within


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of the transport."""

    lambda_ot: float = within(1.0, 0)  #: λ_ot, weight of the transport, summed over modalities [ours: ACP states none]
    epsilon: float = within(0.1, 0, above=True)  #: ε, weight of the plan's entropy in units of the cost (0 to 2) [ours]
    iterations: int = within(50, 1)  #: iterations of Sinkhorn's algorithm; a smaller ε needs more [ours]
    debiased: bool = True  #: True: S_ε; False: OT_ε [paper: Genevay et al.]


class Sinkhorn(Method):
    """Source rows moved near target rows by optimal transport."""

    needs = ("source", "target")
    tasks = ("classification", "retrieval")

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, L_ot between the sides."""
        p, (s, t) = self.params, batch.both()
        f_s, f_t = self.net.encode_both(s, t)
        each = [self.transport(*pair) for pair in aligned(self.spec, s, f_s, t, f_t).values()]
        return {**self.net.loss(f_s, s), "L_ot": p.lambda_ot * torch.stack(each).sum()}

    def transport(self, f_SD: Tensor, f_TD: Tensor, in_S: Tensor, in_T: Tensor) -> Tensor:
        """Return S_ε or OT_ε of one modality."""
        p = self.params
        if p.debiased:
            return sinkhorn_divergence(f_SD, f_TD, in_S, in_T, p.epsilon, p.iterations)
        return transport_cost(cosine_cost(f_SD, f_TD), in_S, in_T, p.epsilon, p.iterations)


METHOD = Sinkhorn
