"""Collaborative experts [CE: Liu et al. 2019, BMVC, and its code], and MoEE [Miech et al. 2018] without the relations.

    x_e = W_e a_e + b_e, at length 1                     a_e: mean of the clip's windows of expert e
    q_e = mean over the clip's e' of g([x_e; x_e'])      relations;   g: Linear, then twice (BN, Mish, Linear)
    v_e = x_e ⊙ σ(BN(U_e x_e) + BN'(q_e)), at length 1   gated by the relations
    ξ(l, v) = Σ_e w_e(l) ⟨l_e, v_e⟩ / Σ_e w_e(l)         over the experts that the clip has; L_R of it is the loss

Text: heads/nets/_experts.py. Embeddings are E_v = [v_1; ..; v_E], E_l = [w_1 l_1; ..; w_E l_E], with M = E·D.

The tables' rows are `source_only` on this net: CE with the defaults, MoEE with `relations=False`. Then v_e = x_e ⊙
σ(BN(U_e x_e)), and x_e is not scaled to length 1 before its gate.

Implementation details
  1. All pairs share one g, also the pairs of an expert with itself; each expert has its own gate (CE's code). A pair
     with a missing expert does not count, neither in the mean nor in BN.
  2. A missing expert is 0 and contributes nothing to the relations. Its weight goes to the others in proportion.
  3. Several caption modalities are pooled one by one and concatenated. NetVLAD pools those with several tokens.
  4. CE's margins are 0.0938 on MSR-VTT, 0.3076 on MSVD and 0.1213 on LSMDC, with 28, 12 and 43 clusters and 1 ghost.
     MoEE has the margin 0.2 and 32 clusters.
Deviation: words are encoded by a frozen encoder, as in CE; the experts are the cached modalities.
Shapes: B rows, E experts, D entries of each.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import mish, normalize

from heads.batch import Side, Spec
from heads.batch_norm import BatchNorm
from heads.nets import Retrieval
from heads.nets._experts import ExpertText, mixture_similarity
from heads.nets._gated import Gate
from heads.params import within


@dataclass(frozen=True)
class Params:
    """Size and shape of collaborative experts."""

    dim: int = within(768, 1)  #: D, entries per expert [code]
    relations: bool = True  #: gates depend on pairs of experts; False is MoEE [paper]
    text: str = "mean"  #: pooling of a caption's tokens: mean | netvlad [ours: CE has netvlad]
    clusters: int = within(28, 1)  #: clusters of netvlad [code: on MSR-VTT]
    ghosts: int = within(1, 0)  #: ghost clusters of netvlad, which are discarded [code]
    margin: float = within(0.2, 0)  #: m of L_R [code: MoEE]


class CollaborativeExperts(Retrieval):
    """The network above, over the visual modalities of the spec."""

    def __init__(self, params: Params, spec: Spec) -> None:
        super().__init__()
        self.captions, self.margin = spec.captions, params.margin
        shapes = {m: shape for m, shape in spec.shapes.items() if m not in spec.captions}
        E, D = len(shapes), params.dim
        self.dim = E * D
        self.reduce = nn.ModuleDict({m: nn.Linear(prod(shape), D) for m, shape in shapes.items()})
        self.relations = Relations(D) if params.relations else None
        self.gate = nn.ModuleDict({m: Gate(D, relations=params.relations) for m in shapes})
        self.text = ExpertText(spec, E, D, params.text, params.clusters, params.ghosts)

    def encode(self, side: Side) -> dict[str, Tensor]:
        """Return "visual" E_v (B, M) and "text" E_l (B, M), or the one that the side has."""
        f = {}
        if any(m in side.x for m in self.reduce):
            f["visual"] = self.visual(side)
        if any(m in side.x for m in self.captions):
            f["text"] = self.text(side)
        return f

    def visual(self, side: Side) -> Tensor:
        """Return E_v (B, M); 0 in the blocks of missing experts."""
        experts = [m for m in self.reduce if m in side.x]
        in_BE = torch.stack([side.has(m) for m in experts], 1)
        x_BED = torch.stack([self.reduce[m](side.pool(m).flatten(1)) for m in experts], 1)
        q_BED = None
        if self.relations is not None:
            x_BED = normalize(x_BED, dim=2)
            q_BED = self.relations(x_BED, in_BE)
        v = {
            m: self.gate[m](x_BED[:, e], in_BE[:, e], None if q_BED is None else q_BED[:, e])
            for e, m in enumerate(experts)
        }
        return torch.cat([v[m] if m in v else torch.zeros_like(x_BED[:, 0]) for m in self.reduce], 1)

    def similarity(self, text_CM: Tensor, visual_VM: Tensor) -> Tensor:
        """Return ξ (C, V), weighted by the caption, over the experts that the clip has."""
        return mixture_similarity(text_CM, visual_VM, len(self.reduce))


class Relations(nn.Module):
    """Relations q_e between the experts of a clip: (B, E, D) -> (B, E, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        sizes = (2 * dim, dim, dim)
        self.W = nn.ModuleList(nn.Linear(size, dim, bias=False) for size in sizes)  # BN follows, after the last BN'
        self.BN = nn.ModuleList(BatchNorm(dim) for _ in range(2))

    def forward(self, x_BED: Tensor, in_BE: Tensor) -> Tensor:
        """Return the mean over the partners that a clip has; in_BE (bool) marks its experts."""
        E = x_BED.shape[1]
        pair_BEE = in_BE[:, :, None] & in_BE[:, None]
        first, second = x_BED[:, :, None].expand(-1, -1, E, -1), x_BED[:, None].expand(-1, E, -1, -1)
        g = self.W[0](torch.cat([first, second], 3).flatten(0, 2))
        for BN, W in zip(self.BN, self.W[1:], strict=True):
            g = W(mish(BN(g, pair_BEE.flatten())))
        g_BEED = g.unflatten(0, pair_BEE.shape) * pair_BEE[..., None]
        return g_BEED.sum(2) / in_BE.sum(1).clamp_min(1)[:, None, None]


NET = CollaborativeExperts
