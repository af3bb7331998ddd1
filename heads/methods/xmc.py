"""Cross-modal and cross-domain contrastive features [XMC: Kim et al. 2021, ICCV], adaptation with memory banks.

    L = L_C + λ (L_mo_s + L_mo_t + L_do)
    L_mo_d = ½ Σ_{k≠l} mean_i -log( φ(h(F_i^k), h(M_i^l)) / Σ_{j in d} φ(h(F_i^k), h(M_j^l)) )      Eq. 2, of a side d
    L_do   = Σ_k mean_i -log( Σ_{j in s: y_j = ŷ_i} φ(F_i^k, M_j^k) / Σ_{j in s} φ(F_i^k, M_j^k) )    Eq. 5 and 6
    M_i^k ← δ M_i^k + (1-δ) F_i^k                                      Eq. 8, after the step, for the rows of the batch

φ(u, v) = exp(cos(u, v) / τ). k, l are modalities, F the features of the batch, M the memory banks, one per side and
modality, h a projection head that all modalities share. L_mo moves a clip nearer to itself in the other modality than
to other clips of its side. L_do moves a target clip with a confident class ŷ near the source clips of that class.

The paper's rows as (cross_modal, cross_domain): final (h, F), modality (h, none), domain (none, F); Table 7 also (F,
none) and (h, h), Table 8 (h, adversarial) and (adversarial, adversarial). Windows are the run's:
`Feed(train="random:1")` draws the windows of RGB and flow independently, as the paper does; `"shared:1"` draws one
window for both (Table 5: without sampling). `PRINTED` has the printed form of the ratios (detail 1).

Implementation details
  1. The printed ratios have the sum over all anchors inside one logarithm. Here each anchor has its own logarithm, and
     the mean is over the anchors that count; without anchors it is 0. `reduction="one_log"` (`PRINTED`) is the printed
     form, -log( Σ_i Σ_{j positive of i} φ / Σ_i Σ_j φ ), of each direction (Eq. 2) and modality (Eq. 5, 6). It changes
     the share of an anchor in the gradient: 1/B in the mean, its share of both sums in one logarithm, where a cosine
     that is larger by τ weighs e times more. Few anchors with near keys then decide, and the others hardly learn.
  2. Eq. 2 leaves out k and l: the two directions are averaged, and more than two modalities add up over their pairs.
  3. φ normalises its arguments (not in the paper; exp(F·F / 0.1) would overflow). The banks hold F without
     normalisation.
  4. The banks hold F and not h(F), by Eq. 8: each step applies h to the whole bank again. Their rows are constants; the
     gradient flows through the anchors. No negatives are drawn: each anchor is compared with the whole bank.
  5. h: D -> D -> ReLU -> 128, as in SimCLR; the paper states no sizes.
  6. The paper does not state the initial banks: here a sweep before the first step fills them (test windows, eval
     mode).
  7. ŷ and its confidence come from the fused scores of the same batch, without gradient. The paper averages the scores
     of the modalities: give the adapter `fusion="mean"`. The default, their sum, is more confident, so more clips pass
     T.
  8. With several label kinds, the L_do of each kind's part of the features F (h takes whole features) and its confident
     clips are added. L_mo needs no class, and is taken once on whole features.
  9. Rows that lack a modality are neither anchors nor keys of it. A target row of a class without source rows is not an
     anchor.
 10. L_do has no remedy for confident but wrong classes: on generated shifts as large as the distance of the classes it
     reinforces them and ends below source-only. L_mo does not.
 11. Table 8's adversaries have no published equation that we know of. In our reading each takes the place, the space
     and the weight λ of the loss that it replaces. cross_domain="adversarial" has DANN's Σ_m L_d(m) instead of L_do.
     cross_modal="adversarial" has L_m_s + L_m_t instead of L_mo: DANN with the modality as the domain,
         L_m_d = Σ_{k<l} -E_d log D_kl(h(F^k))_k - E_d log D_kl(h(F^l))_l                   within a side d
     behind DANN's gradient reversal. D_kl tells modality k from l; both sides share it, as they share h. It reads h(F),
     not F, because Sec. 1 calls a direct alignment of F^a with F^m unreasonable.
Deviation: features are frozen, so F is the net's own layer; the paper also trains the backbone. Give the adapter
`act="none"`: after a ReLU no cosine is negative.
Shapes: B rows of a batch, N rows of a side, D features.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, permutations

import torch
from torch import Tensor, nn

from heads.batch import Batch, Side, Spec, Sweep, gather
from heads.losses.contrastive import contrast
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.methods._adversarial import discriminator, domain_loss
from heads.methods._aligned import aligned, shared
from heads.nets import Net
from heads.params import added, within
from heads.schedules import dann

Features = dict[str, Tensor]  #: modality -> (B, D)
SIDES = ("source", "target")
CHOICES = {
    "cross_modal": ("h", "F", "adversarial", "none"),
    "cross_domain": ("h", "F", "adversarial", "none"),
    "reduction": ("mean", "one_log"),
}


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of the contrastive losses."""

    lambda_: float = within(1.25, 0)  #: λ, weight of both losses, Eq. 7 [paper]
    tau: float = within(0.1, 0, above=True)  #: τ, temperature, Eq. 1 and 4 [paper]
    delta: float = within(0.5, 0, 1)  #: δ, share of a bank's row that is kept in an update, Eq. 8 [paper]
    T: float = within(0.8, 0, 1, below=True)  #: T, probability above which a pseudo-label counts [paper, Sec. 3.3]
    cross_modal: str = "h"  #: space of L_mo: h (projected) | F | none (no L_mo) | adversarial (L_m instead) [paper]
    cross_domain: str = "F"  #: space of L_do: h | F | none (no L_do) | adversarial (L_d instead) [paper]
    projection: int = within(128, 1)  #: size of h's output [ours: the paper states none]
    reduction: str = added("mean", before="mean")  #: mean (of one logarithm per anchor) | one_log (of the sums) [ours]


PRINTED = Params(reduction="one_log")
"""The printed ratios, with one logarithm for all anchors: detail 1; `--set method.reduction=one_log`."""


class Xmc(Method):
    """Cross entropy, and contrast with the banks: buffers "source:M:rgb", "target:M:rgb", and so on."""

    needs = SIDES

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        for name, choices in CHOICES.items():
            if (choice := getattr(params, name)) not in choices:
                raise ValueError(f"no method.{name} {choice!r}; choose from {', '.join(choices)}")
        if params.cross_domain == "none" and (params.cross_modal == "none" or len(spec.shapes) == 1):
            raise ValueError(
                f"method xmc has nothing to add to L_C: L_mo takes two modalities (here: {', '.join(spec.shapes)}) "
                "and a method.cross_modal other than none; L_do needs a method.cross_domain other than none"
            )
        layers = nn.Linear(net.dim, net.dim), nn.ReLU(), nn.Linear(net.dim, params.projection)
        projects = params.cross_modal in ("h", "adversarial") or params.cross_domain == "h"
        self.h = nn.Sequential(*layers if projects else ())
        adversarial = params.cross_domain == "adversarial"
        self.D = nn.ModuleDict({m: discriminator(net.dim) for m in spec.shapes} if adversarial else {})
        pairs = combinations(spec.shapes, 2) if params.cross_modal == "adversarial" else ()
        self.D_kl = nn.ModuleDict({f"{k}:{other}": discriminator(params.projection) for k, other in pairs})
        for d in SIDES:
            rows = spec.rows[d]
            for m in spec.shapes:  # random until the first sweep, because equal rows give no gradient
                self.keep(f"{d}:M:{m}", torch.randn(rows, net.dim))
                self.keep(f"{d}:has:{m}", torch.ones(rows, dtype=torch.bool))
        for label in net.parts:
            self.keep(f"source:y:{label}", torch.zeros(spec.rows["source"], dtype=torch.int64))

    def projected(self, f: Features) -> Features:
        """Return h(F) of each modality (Fig. 5); {} in the forms without h. No loss reads h of fused features."""
        return {m: self.h(f_BD) for m, f_BD in f.items() if m in self.spec.shapes} if len(self.h) else {}

    def keep(self, name: str, value: Tensor) -> None:
        """Register a buffer that a sweep can rebuild."""
        self.register_buffer(name, value, persistent=False)

    def begin_epoch(self, epoch: int, sweep: Sweep) -> None:
        """Fill the banks before the first step."""
        for d in SIDES if epoch == 0 else ():
            for name, value in gather(sweep(d), self.look).items():
                self.keep(f"{d}:{name}", value)

    def look(self, side: Side) -> dict[str, Tensor]:
        """Return the bank's entries for the rows of a side."""
        f = self.net.encode(side)
        bank = {f"M:{m}": f[m] for m in side.x} | {f"has:{m}": side.has(m) for m in side.x}
        return bank | {f"y:{label}": y_B for label, y_B in side.y.items()}

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C, and as the parameters choose, L_mo or L_m of both sides, and L_do or L_d."""
        return self.terms(batch, self.encode(batch), progress)

    def rounds(self, batch: Batch, progress: float) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Yield one round; after its update the banks take in the features of the batch."""
        f = self.encode(batch)
        yield "all", self.terms(batch, f, progress)
        self.remember(batch, f)

    def encode(self, batch: Batch) -> dict[str, Features]:
        """Return side -> F."""
        return dict(zip(SIDES, self.net.encode_both(*batch.both()), strict=True))

    @torch.no_grad()
    def remember(self, batch: Batch, f: dict[str, Features]) -> None:
        """Update the banks by Eq. 8. A row that is in the batch twice takes one of the two features."""
        for d, side in both(batch).items():
            for m in side.x:
                M_ND, delta = self.get_buffer(f"{d}:M:{m}"), self.params.delta
                old_BD = M_ND[side.index]
                new_BD = delta * old_BD + (1 - delta) * f[d][m]
                M_ND[side.index] = torch.where(side.has(m)[:, None], new_BD, old_BD)

    def terms(self, batch: Batch, f: dict[str, Features], progress: float) -> dict[str, Tensor]:
        """Return the weighted losses of these features."""
        p, sides = self.params, both(batch)
        terms = {"L_C": label_cross_entropy(self.net.classify(f["source"]), sides["source"].y)}
        for d, side in sides.items() if p.cross_modal != "none" else ():
            if p.cross_modal == "adversarial":
                terms[f"L_m_{d[0]}"] = p.lambda_ * self.modality_loss(side, f[d], dann(progress))
            else:
                terms[f"L_mo_{d[0]}"] = p.lambda_ * self.cross_modal_loss(d, side, f[d])
        if p.cross_domain == "none":
            return terms
        s, t = sides["source"], sides["target"]
        if p.cross_domain == "adversarial":
            pairs = aligned(self.spec, s, f["source"], t, f["target"])
            L_d = [domain_loss(self.D[m], *pair, dann(progress)) for m, pair in pairs.items()]
            return {**terms, "L_d": p.lambda_ * torch.stack(L_d).sum()}
        return {**terms, "L_do": p.lambda_ * self.cross_domain_loss(t, f["target"], shared(s, t))}

    def cross_modal_loss(self, d: str, side: Side, f: Features) -> Tensor:
        """Return L_mo: each clip against all clips of its side, in another modality."""
        same_BN = side.index[:, None] == torch.arange(self.spec.rows[d], device=side.index.device)
        each = [
            self.against(d, other, f[k], same_BN & side.has(k)[:, None], self.params.cross_modal)
            for k, other in permutations(side.x, 2)
        ]
        return sum(each, zero(f)) / 2

    def modality_loss(self, side: Side, f: Features, coefficient: float) -> Tensor:
        """Return L_m: "which modality?" for the projected features of each pair, behind a gradient reversal."""
        each = []
        for k, other in combinations([m for m in self.spec.shapes if m in side.x], 2):
            views, rows = (self.h(f[k]), self.h(f[other])), (side.has(k), side.has(other))
            each.append(domain_loss(self.D_kl[f"{k}:{other}"], *views, *rows, coefficient))
        return sum(each, zero(f))

    def cross_domain_loss(self, t: Side, f: Features, modalities: list[str]) -> Tensor:
        """Return L_do: each target clip of a confident class against all source clips, in the same modality."""
        each = []
        for label, z_BK in self.net.classify(f).items():
            sure_B, y_B = z_BK.softmax(1).max(1)
            same_BN = (y_B[:, None] == self.get_buffer(f"source:y:{label}")) & (sure_B > self.params.T)[:, None]
            each += [
                self.against(
                    "source", k, f[k], same_BN & t.has(k)[:, None], self.params.cross_domain, self.net.parts[label]
                )
                for k in modalities
            ]
        return sum(each, zero(f))

    def against(self, d: str, m: str, f_BD: Tensor, same_BN: Tensor, space: str, part: slice = slice(None)) -> Tensor:
        """Contrast features with the bank of modality m of side d, both projected (h) or not (the part of F)."""

        def view(f_ND: Tensor) -> Tensor:
            projected: Tensor = self.h(f_ND) if space == "h" else f_ND[:, part]
            return projected

        with torch.no_grad():
            keys_ND = view(self.get_buffer(f"{d}:M:{m}"))
        has_N, one_log = self.get_buffer(f"{d}:has:{m}"), self.params.reduction == "one_log"
        return contrast(view(f_BD), keys_ND, same_BN, tau=self.params.tau, keys_N=has_N, one_log=one_log)


def both(batch: Batch) -> dict[str, Side]:
    """Return the two sides, by name."""
    return dict(zip(SIDES, batch.both(), strict=True))


def zero(f: Features) -> Tensor:
    """Return the value of an empty sum."""
    return next(iter(f.values())).new_zeros(())


METHOD = Xmc
