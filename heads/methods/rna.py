"""Relative Norm Alignment [RNA: Planamente et al. 2024, IJCV], for domain generalisation (DG) and adaptation (UDA).

    DG:   L = L_C + Σ_{i<j} (L_g + L_c)(i_s, j_s)
    UDA:  L = L_C + Σ_{d in s, t} Σ_{i<j} (L_g + L_c)(i_d, j_d) + Σ_i (L_g + L_c)(i_s, i_t) + L_d + λ_IM L_IM

    L_g(u, v) = λ_g R(E‖u‖, E‖v‖),   L_c(u, v) = λ_c Σ_class R(E‖u_class‖, E‖v_class‖),   R(a, b) = (a/b - b/a)²

i, j are modalities, s and t source and target; the sum over i in UDA is the paper's L_mod (mod=False: without). A run
with a target is UDA, a run without one is DG. The paper's L_RNA are the terms in L_g and L_c only (Eq. 2, 3): "UDA
(L_RNA)" of its tables is lambda_d=0, lambda_im=0.

Implementation details
  1. λ_g and λ_c are factors here; the printed Eq. 1 has them inside the loss. L_mod shares them (paper: "requires only
     two hyper-parameters"). No public source states the values: the defaults are our own, not the authors'.
  2. Classes of the target are the argmax of the fused scores of the same batch, without gradient (Sec. 3.4; the paper
     states no threshold). A class that either side lacks adds nothing; one row is enough (not in the paper).
  3. Several source domains count as one source: the expectation is over all its rows and needs no domain labels.
  4. L_d: per modality a discriminator D -> 100 -> ReLU -> 2 behind a gradient reversal, as in MM-SADA's code. λ_d is in
     the reversal, so it scales the gradient of the encoders; the discriminators learn at the full rate. The paper does
     not state its schedule; here it is MM-SADA's, `schedules.dann`.
  5. With several label kinds the norm terms are taken on each kind's part of the features, and added (EK100: verb,
     noun).
  6. Rows that lack a modality count in none of its terms.
  7. R grows without bound if a one-row class has almost no norm: set `Optim.clip_norm` in every experiment. This keeps
     steps finite but does not prevent collapse: all features of a modality can go to 0, where ReLU passes no gradient,
     so they stay 0. L_g is then near 0 and looks like perfect alignment. It happens where the cached norms differ by
     factors of ten (lowering the rate or widening the net does not cure it there; preparation.units=source does, or a
     net without ReLU), and in nets narrower than 64. `train-head` reports it, with the settings that avoid it.
Deviation: features are frozen, so F is the net's own layer; the paper also trains the backbone (except on EK100).
Shapes: B rows, D features, K classes, G = 1 + K groups of rows: all of them, then class by class.
"""

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn, stack

from heads.batch import Batch, Side, Spec, members
from heads.losses.entropy import information
from heads.losses.norms import Norms, mean_norms, relative_norm
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.methods._adversarial import discriminator, domain_loss
from heads.methods._aligned import shared
from heads.nets import Net
from heads.params import within
from heads.schedules import dann


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of RNA."""

    lambda_g: float = within(1.0, 0)  #: λ_g, global norm ratio, Eq. 1; between modalities and (UDA) domains [ours]
    lambda_c: float = within(0.1, 0)  #: λ_c, norm ratio per class, Eq. 2; small for a sum over classes [ours]
    lambda_d: float = within(0.2, 0)  #: λ_d, UDA: peak coefficient of the reversal; 0: no discriminators [ours]
    lambda_im: float = within(0.1, 0)  #: λ_IM, UDA: information maximisation on the target [ours]
    mod: bool = True  #: L_mod, UDA: also align the norms of each modality across the domains [paper]
    per_modality: bool = False  #: †: also classify from each single modality (late fusion), with weight 1 [paper]


class Rna(Method):
    """DG without a target, UDA with one."""

    needs = ("source",)
    may = ("target",)

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        if "target" not in spec.rows and len(spec.shapes) == 1:
            (only,) = spec.shapes
            raise ValueError(
                f"method rna without a target aligns modalities, but {only!r} is the only one; "
                "add a feed, or name a target"
            )
        adversarial = "target" in spec.rows and params.lambda_d > 0
        self.D = nn.ModuleDict({m: discriminator(net.dim) for m in spec.shapes} if adversarial else {})

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C, L_g, L_c; with a target also L_d and L_IM; with per_modality also L_C_m."""
        p, s, t = self.params, batch.source_side, batch.target
        f_s, f_t = (self.net.encode(s), {}) if t is None else self.net.encode_both(s, t)
        z_s, z_t = (self.net.classify(f_s), {}) if t is None else self.net.classify_both(f_s, f_t)
        terms = {"L_C": label_cross_entropy(z_s, s.y)}
        if p.per_modality:
            alone = [label_cross_entropy(self.net.classify({m: f_s[m]}), s.y, s.has(m)) for m in s.x]
            terms["L_C_m"] = stack(alone).sum()

        zero = terms["L_C"].new_zeros(())  # an empty sum: a side with one modality has no pair in DG
        sides = [self.norms(s, f_s, s.y)]
        if t is not None:
            both = shared(s, t)
            sides.append(self.norms(t, f_t, {label: z_BK.argmax(1) for label, z_BK in z_t.items()}))
            terms["L_IM"] = p.lambda_im * stack([information(z_BK.softmax(1)) for z_BK in z_t.values()]).sum()
            if self.D:
                coefficient = p.lambda_d * dann(progress)
                each = [domain_loss(self.D[m], f_s[m], f_t[m], s.has(m), t.has(m), coefficient) for m in both]
                terms["L_d"] = stack(each).sum()

        R = [relative_norms(pairs([side[label] for side in sides], across=p.mod)) for label in self.net.parts]
        terms["L_g"] = p.lambda_g * sum((R_PG[:, 0].sum() for R_PG in R if R_PG is not None), zero)
        terms["L_c"] = p.lambda_c * sum((R_PG[:, 1:].sum() for R_PG in R if R_PG is not None), zero)
        return terms

    def norms(self, side: Side, f: dict[str, Tensor], y: dict[str, Tensor]) -> dict[str, dict[str, Norms]]:
        """Return label -> modality -> mean norms of the label's features, over all rows and over each class."""
        norms = {}
        for label, part in self.net.parts.items():
            is_class_BK = members(y[label], self.spec.classes[label])
            in_BG = torch.cat([torch.ones_like(is_class_BK[:, :1]), is_class_BK], dim=1)
            in_MBG = in_BG & stack([side.has(m) for m in side.x])[:, :, None]
            h_MG, filled_MG = mean_norms(stack([f[m][:, part] for m in side.x]), in_MBG)
            norms[label] = {m: Norms(*of_m) for m, *of_m in zip(side.x, h_MG, filled_MG, strict=True)}
        return norms


def pairs(sides: list[dict[str, Norms]], *, across: bool) -> list[tuple[Norms, Norms]]:
    """Return the aligned pairs: the modalities of each side; with `across` also each modality on both sides."""
    within = [pair for side in sides for pair in combinations(side.values(), 2)]
    return within + [(u[m], v[m]) for u, v in combinations(sides, 2) for m in u if m in v and across]


def relative_norms(pairs: list[tuple[Norms, Norms]]) -> Tensor | None:
    """Return R of all pairs at once -> (P, G); None without pairs."""
    if not pairs:
        return None
    u, v = (Norms(*(stack(each) for each in zip(*norms, strict=True))) for norms in zip(*pairs, strict=True))
    return relative_norm(u, v)


METHOD = Rna
