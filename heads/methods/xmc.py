"""Cross-modal and cross-domain contrastive features [XMC: Kim et al. 2021, ICCV], adaptation with memory banks.

    L = L_C + λ (L_mo_s + L_mo_t + L_do)
    L_mo_d = ½ Σ_{k≠l} mean_i -log( φ(h(F_i^k), h(M_i^l)) / Σ_{j in d} φ(h(F_i^k), h(M_j^l)) )      Eq. 2, of a side d
    L_do   = Σ_k mean_i -log( Σ_{j in s: y_j = ŷ_i} φ(F_i^k, M_j^k) / Σ_{j in s} φ(F_i^k, M_j^k) )    Eq. 5 and 6
    M_i^k ← δ M_i^k + (1-δ) F_i^k                                      Eq. 8, after the step, for the rows of the batch

φ(u, v) = exp(cos(u, v) / τ). k, l are modalities, F the features of the batch, M the memory banks, one per side and
modality, h a projection head that all of them share. L_mo: a clip is near itself in the other modality, nearer than
other clips of its side. L_do: a target clip of a class ŷ that the model is sure of is near the source clips of it.

The paper's rows as (cross_modal, cross_domain): final (h, F), modality (h, none), domain (none, F); Table 7 also (F,
none) and (h, h), Table 8 (h, adversarial). Windows are the run's: `Feed(train="random:1")` draws those of RGB and flow
independently, as the paper does; `"shared:1"` draws one for both (Table 5: without sampling).

Implementation details
  1. The printed ratios have the sum over all anchors inside one logarithm, where a few near pairs would be all of the
     loss. Here each anchor has its logarithm, and the mean is over the anchors that count; over none it is 0.
  2. Eq. 2 leaves out k and l: the two directions are averaged, and more than two modalities add up over their pairs.
  3. φ normalises its arguments (the paper does not say; exp(F·F / 0.1) would overflow). The banks hold F as it is.
  4. The banks hold F and not h(F), by Eq. 8: h is applied anew to all of a bank in each step. Their rows are constants,
     the gradient flows through the anchors. No negatives are drawn: each anchor sees the whole bank.
  5. h: D -> D -> ReLU -> 128, as in SimCLR; the paper gives no sizes.
  6. The paper does not say how banks begin: a sweep before the first step fills them (test windows, eval mode).
  7. ŷ and its confidence come from the fused scores of the same batch, without gradient. The paper averages the scores
     of the modalities: give the adapter `fusion="mean"`. Added, as by default, they are more confident, so T lets more
     clips through.
  8. With several label kinds L_do is taken on each kind's part of the features F (h is of whole features), with the
     clips whose class of that kind is sure, and added. L_mo asks for no class, and is taken once on whole features.
  9. Rows that lack a modality are neither anchors nor keys of it. A target row of a class that no source row has is no
     anchor.
 10. L_do has no remedy for sure but wrong classes: on generated shifts as large as the distance of the classes it locks
     them in and ends under source-only. L_mo does not.
 11. Table 8's adversaries have no equation that we know. cross_domain="adversarial" is DANN's Σ_m L_d(m) in the place
     of L_do, with its weight λ. What adversaries of modalities would tell apart is not known: they are not here.
Deviation: on frozen features F is the net's own layer, where the paper trains the backbone too. Give the adapter
`act="none"`: behind a ReLU no cosine is negative.
Shapes: B rows of a batch, N rows of a side, D features.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor, nn

from heads.batch import Batch, Side, Spec, Sweep, gather
from heads.losses.contrastive import contrast
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.methods._adversarial import discriminator, domain_loss
from heads.methods._aligned import aligned, shared
from heads.nets import Net
from heads.params import within
from heads.schedules import dann

Features = dict[str, Tensor]  #: modality -> (B, D)
SIDES = ("source", "target")
CHOICES = {"cross_modal": ("h", "F", "none"), "cross_domain": ("h", "F", "adversarial", "none")}


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of the contrastive losses."""

    lambda_: float = within(1.25, 0)  #: λ, weight of both losses, Eq. 7
    tau: float = within(0.1, 0, above=True)  #: τ, temperature, Eq. 1 and 4
    delta: float = within(0.5, 0, 1)  #: δ, share of a bank's row that stays, Eq. 8
    T: float = within(0.8, 0, 1, below=True)  #: T, a pseudo-label counts above this probability, Sec. 3.3
    cross_modal: str = "h"  #: what L_mo compares: h (projected features) | F (features) | none (no L_mo)
    cross_domain: str = "F"  #: what L_do compares: h | F | none (no L_do); or adversarial, L_d in its place
    projection: int = within(128, 1)  #: size of h's output


class Xmc(Method):
    """Cross entropy, and contrast with the banks: buffers "source:M:rgb", "target:M:rgb", and so on."""

    needs = SIDES

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        for name, choices in CHOICES.items():
            if (space := getattr(params, name)) not in choices:
                raise ValueError(f"no {name} {space!r}; choose from {', '.join(choices)}")
        if params.cross_domain == "none" and (params.cross_modal == "none" or len(spec.shapes) == 1):
            raise ValueError(
                f"method xmc has nothing to add to L_C: L_mo takes two modalities (here: {', '.join(spec.shapes)}) "
                "and another method.cross_modal than none, L_do another method.cross_domain"
            )
        layers = nn.Linear(net.dim, net.dim), nn.ReLU(), nn.Linear(net.dim, params.projection)
        self.h = nn.Sequential(*layers if "h" in (params.cross_modal, params.cross_domain) else ())
        adversarial = params.cross_domain == "adversarial"
        self.D = nn.ModuleDict({m: discriminator(net.dim) for m in spec.shapes} if adversarial else {})
        for d in SIDES:
            rows = spec.rows[d]
            for m in spec.shapes:
                self.keep(f"{d}:M:{m}", torch.randn(rows, net.dim))  # until the first sweep; equal rows teach nothing
                self.keep(f"{d}:has:{m}", torch.ones(rows, dtype=torch.bool))
        for label in net.parts:
            self.keep(f"source:y:{label}", torch.zeros(spec.rows["source"], dtype=torch.int64))

    def keep(self, name: str, value: Tensor) -> None:
        """A buffer that a sweep can rebuild."""
        self.register_buffer(name, value, persistent=False)

    def begin_epoch(self, epoch: int, sweep: Sweep) -> None:
        """Fill the banks before the first step."""
        for d in SIDES if epoch == 0 else ():
            for name, value in gather(sweep(d), self.look).items():
                self.keep(f"{d}:{name}", value)

    def look(self, side: Side) -> dict[str, Tensor]:
        """What is kept of the rows of a side."""
        f = self.net.encode(side)
        kept = {f"M:{m}": f[m] for m in side.x} | {f"has:{m}": side.has(m) for m in side.x}
        return kept | {f"y:{label}": y_B for label, y_B in side.y.items()}

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """L_C, L_mo_s, L_mo_t and L_do or L_d, as far as they are asked for."""
        return self.terms(batch, self.encode(batch), progress)

    def rounds(self, batch: Batch, progress: float) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """One round; after its update the banks take in the features that it was computed from."""
        f = self.encode(batch)
        yield "all", self.terms(batch, f, progress)
        self.remember(batch, f)

    def encode(self, batch: Batch) -> dict[str, Features]:
        """Side -> F."""
        return {d: self.net.encode(side) for d, side in both(batch).items()}

    @torch.no_grad()
    def remember(self, batch: Batch, f: dict[str, Features]) -> None:
        """Eq. 8. A row that stands twice in a batch takes one of the two."""
        for d, side in both(batch).items():
            for m in side.x:
                M_ND, delta = self.get_buffer(f"{d}:M:{m}"), self.params.delta
                old_BD = M_ND[side.index]
                new_BD = delta * old_BD + (1 - delta) * f[d][m]
                M_ND[side.index] = torch.where(side.has(m)[:, None], new_BD, old_BD)

    def terms(self, batch: Batch, f: dict[str, Features], progress: float) -> dict[str, Tensor]:
        """The weighted losses of these features."""
        p, sides = self.params, both(batch)
        terms = {"L_C": label_cross_entropy(self.net.classify(f["source"]), sides["source"].y)}
        if p.cross_modal != "none":
            for d, side in sides.items():
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
        """L_mo: a clip against all clips of its side, in another modality."""
        same_BN = side.index[:, None] == torch.arange(self.spec.rows[d], device=side.index.device)
        each = [
            self.against(d, other, f[k], same_BN & side.has(k)[:, None], self.params.cross_modal)
            for k, other in permutations(side.x, 2)
        ]
        return sum(each, zero(f)) / 2

    def cross_domain_loss(self, t: Side, f: Features, modalities: list[str]) -> Tensor:
        """L_do: a target clip of a sure class against all source clips, in the same modality."""
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
        """Features against the bank of modality m of side d, both projected (h) or as they are (F, of it the part)."""

        def view(f_ND: Tensor) -> Tensor:
            projected: Tensor = self.h(f_ND) if space == "h" else f_ND[:, part]
            return projected

        with torch.no_grad():
            keys_ND = view(self.get_buffer(f"{d}:M:{m}"))
        return contrast(view(f_BD), keys_ND, same_BN, tau=self.params.tau, keys_N=self.get_buffer(f"{d}:has:{m}"))


def both(batch: Batch) -> dict[str, Side]:
    """The two sides, by name."""
    return dict(zip(SIDES, batch.both(), strict=True))


def zero(f: Features) -> Tensor:
    """What a sum over nothing is."""
    return next(iter(f.values())).new_zeros(())


METHOD = Xmc
