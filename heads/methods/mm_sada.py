"""Multi-modal self-supervised adversarial adaptation [MM-SADA: Munro & Damen 2020, CVPR], and its ablations.

    L   = L_C + λ_c Σ_m L_c(m) + Σ_m L_d(m)
    L_c = mean over true and false pairs of -log C_m(r | f_1, f_m)      r: are both of one clip? m: all but the first
    L_d = -E_s log D_m(f_m)_source - E_t log D_m(f_m)_target            reversed, by λ_d (2 / (1 + exp(-10 p)) - 1)

f_m are the features of modality m. C_m predicts whether the features of two modalities belong together, D_m predicts
their side; p is the progress of the run. L_c needs no labels: encoders and C_m lower it together on all sides of the
run. L_d is DANN's, per modality.

The papers' rows: MM-SADA is the default; "modality" or "self-supervised" is λ_d = 0; "domain" or "adversarial" is λ_c =
0. A run without a target is the DG form (RNA's Table 5): L_c on the source only, and no L_d. The authors' first stage
is a run with λ_d = 0, their second a run with `init_from` the first, which also restores C.

Implementation details
  1. A row gives a true pair; its first modality and the next row's other modality give a false pair. Both rows of a
     false pair may be of one class, as in the authors' code, but not of one clip. The code uses half of the rows for
     each, because a false pair costs a second pass through the backbone. Here it costs only another sum, and L_C keeps
     all rows.
  2. The mean is over the pairs of both sides. Pairs that lack a modality do not count.
  3. With three modalities the first is paired with each of the others (RNA: RGB-Flow and RGB-Audio): the order is that
     of the run's feeds.
  4. C_m: 2D -> 100 -> ReLU -> 2, and D_m: D -> 100 -> ReLU -> 2, both from a truncated normal of std 0.1 (code).
  5. λ_c = 5 and λ_d = 1 are the paper's. The code's second stage has 0.2 L_C + L_c + L_d and a reversal of 0.2: for the
     encoders the same ratios; its D_m learn five times as fast relative to L_C.
  6. The windows are the run's: `Feed(train="random:1")` draws those of a true pair independently, as the authors do.
  7. The README takes back the paper's Adam: SGD with momentum.
  8. With several label kinds, C_m and D_m take their features as one vector.
Deviation: features are frozen, so the encoder is the net's own layer; the paper also trains the backbone.
Shapes: B rows, P = 2B pairs, D features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

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
    """Hyper-parameters of MM-SADA."""

    lambda_c: float = within(5.0, 0)  #: λ_c, weight of the correspondence of the modalities; 0: without [paper]
    lambda_d: float = within(1.0, 0)  #: λ_d, peak coefficient of the gradient reversal; 0: no discriminators [paper]


class MmSada(Method):
    """Correspondence of modalities, and with a target also adversarial terms; without a target DG."""

    needs = ("source",)
    may = ("target",)

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        self.first, *others = spec.shapes
        adversarial = "target" in spec.rows and params.lambda_d > 0
        self.C = nn.ModuleDict({m: discriminator(2 * net.dim) for m in others} if params.lambda_c > 0 else {})
        self.D = nn.ModuleDict({m: discriminator(net.dim) for m in spec.shapes} if adversarial else {})
        if not self.C and not self.D:
            raise ValueError(
                f"method mm_sada has nothing to add to L_C: L_c takes two modalities (here: {', '.join(spec.shapes)}) "
                "and method.lambda_c above 0, L_d a target and method.lambda_d above 0"
            )

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, and if their λ are above 0, L_c on all sides and L_d between them."""
        s, t = batch.source_side, batch.target
        f_s, f_t = (self.net.encode(s), {}) if t is None else self.net.encode_both(s, t)
        terms = {"L_C": label_cross_entropy(self.net.classify(f_s), s.y)}
        zero = terms["L_C"].new_zeros(())
        sides = [(s, f_s)]
        if t is not None:
            sides.append((t, f_t))
            if self.D:
                c = self.params.lambda_d * dann(progress)
                each = [domain_loss(self.D[m], f_s[m], f_t[m], s.has(m), t.has(m), c) for m in shared(s, t)]
                terms["L_d"] = torch.stack(each).sum()
        if self.C:
            terms["L_c"] = self.params.lambda_c * sum((self.correspondence(m, sides) for m in self.C), zero)
        return terms

    def correspondence(self, m: str, sides: list[tuple[Side, dict[str, Tensor]]]) -> Tensor:
        """Return L_c of the first modality and m, the mean over the pairs of sides that have both; 0 without pairs."""
        by_side = [pairs(side, f, self.first, m) for side, f in sides if self.first in side.x and m in side.x]
        if not by_side:
            return next(iter(sides[0][1].values())).new_zeros(())
        h_P, r_P, counts_P = (torch.cat(parts) for parts in zip(*by_side, strict=True))
        return (cross_entropy(self.C[m](h_P), r_P, reduction="none") * counts_P).sum() / counts_P.sum().clamp_min(1)


def pairs(side: Side, f: dict[str, Tensor], first: str, m: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return features of true, then false pairs (P, 2D), 1 for true pairs (P,), and a mask of those that count (P,)."""
    a_BD, b_BD, a_B, b_B = f[first], f[m], side.has(first), side.has(m)
    h_P = torch.cat([torch.cat([a_BD, a_BD]), torch.cat([b_BD, b_BD.roll(1, 0)])], dim=1)
    r_P = torch.cat([torch.ones_like(side.index), torch.zeros_like(side.index)])
    counts_P = torch.cat([a_B & b_B, a_B & b_B.roll(1) & (side.index != side.index.roll(1))])
    return h_P, r_P, counts_P


METHOD = MmSada
