"""A surrogate of CIA, interact before align [Yang et al. 2022, CVPR] on cached features: without its spatial consensus.

    L = L_C + Σ_m L_d(m)
    g_m = f_m + Σ_{k≠m} s_km ⊙ W_km f_k,   s_km = sigmoid(V_km [f_m; f_k] + b_km)        k's addition to m
    L_d(m) = -E_s log D_m(g_m)_source - E_t log D_m(g_m)_target         reversed, by λ_d (2 / (1 + exp(-10 p)) - 1)

f_m are the features of modality m, g_m the same after additions from the other modalities; the net classifies g, in
tests too. A gate s, one number per feature, weighs each transferred feature. D_m is the discriminator of g_m. Transfer
and gates learn from both losses to add features that help to classify and are alike on both sides; p is the run's
progress.

We know the paper only by its abstract: it "exchanges complementary transferable information across modalities through
the semantic space" (mutual complementarity), then "finds the most transferable spatial region based on the consensus of
all modalities" (spatial consensus), and aligns after that. The second part needs feature maps, which a cache of vectors
does not have. This file has the part of the first that acts on features, with our own equations.

Implementation details
  1. W has no bias: a modality that a row lacks is 0 and adds nothing. A row that lacks m has no g_m either: it is not
     replaced by the others.
  2. With one modality there is no exchange, and the method is DANN. D and λ_d are those of method `dann`.
  3. With several label kinds, W, V and D take their features as one vector. The net must have late fusion.
Deviation: features are frozen, so the encoder is the net's own layer; the paper also trains the backbone.
"""

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor, nn

from heads.batch import Batch, Side, Spec
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.methods._adversarial import discriminator, domain_loss
from heads.methods._aligned import shared
from heads.nets import Net
from heads.params import within
from heads.schedules import dann


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of the surrogate of CIA."""

    lambda_d: float = within(1.0, 0)  #: λ_d, peak coefficient of the gradient reversal [ours]


class Cia(Method):
    """Modalities that exchange features before a discriminator aligns them."""

    needs = ("source", "target")
    surrogate = "gated transfer between features of modalities, without the spatial consensus, which needs feature maps"

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        pairs = [f"{k}:{m}" for k, m in permutations(spec.shapes, 2)]
        self.W = nn.ModuleDict({pair: nn.Linear(net.dim, net.dim, bias=False) for pair in pairs})
        self.V = nn.ModuleDict({pair: nn.Linear(2 * net.dim, net.dim) for pair in pairs})
        self.D = nn.ModuleDict({m: discriminator(net.dim) for m in spec.shapes})

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, L_d between the sides, both after the exchange."""
        s, t = batch.both()
        f_s, f_t = self.net.encode_both(s, t)
        g_s, g_t = self.exchanged(s, f_s), self.exchanged(t, f_t)
        L_C = label_cross_entropy(self.net.classify(g_s), s.y)
        coefficient = self.params.lambda_d * dann(progress)
        each = [domain_loss(self.D[m], g_s[m], g_t[m], s.has(m), t.has(m), coefficient) for m in shared(s, t)]
        return {"L_C": L_C, "L_d": torch.stack(each).sum()}

    def features(self, side: Side) -> dict[str, Tensor]:
        """Return the features after the exchange: modality -> g_m (B, D), zeros in the rows that lack the modality."""
        return self.exchanged(side, self.net.encode(side))

    def exchanged(self, side: Side, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Map f_m to g_m."""
        f = {m: f_BD for m, f_BD in f.items() if m in side.x}
        g = dict(f)
        for k, m in permutations(f, 2):
            s_BD = self.V[f"{k}:{m}"](torch.cat([f[m], f[k]], 1)).sigmoid()
            g[m] = g[m] + s_BD * self.W[f"{k}:{m}"](f[k])
        return {m: g_BD * side.has(m)[:, None] for m, g_BD in g.items()}


METHOD = Cia
