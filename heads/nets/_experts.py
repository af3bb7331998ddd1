"""Shared parts of nets with several experts: the text tower, and the similarity that weighs experts by the caption.

    t = [t_1; t_2; ...]                       a caption: mean or NetVLAD of its tokens, of each caption modality
    l_e = unit_e(t),   w = softmax(W_w t)     gated embedding unit and mixture weight of each expert e
    ξ(l, v) = Σ_e w_e ⟨l_e, v_e⟩ / Σ_e w_e    both sums over the experts that the clip has

[Miech et al. 2018 (MoEE); Liu et al. 2019 (CE); Gabeur et al. 2020 (MMT)]. An embedding concatenates one block per
expert: block e of a text is w_e l_e, so its length is w_e; block e of a clip is v_e, of length 1, or 0 if the clip
lacks the expert. The embedding of a missing caption is 0.

Shapes: B rows, T tokens of I entries, E experts, D entries of each, M = E·D; C captions, V clips; K clusters.
"""

from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from heads.batch import Side, Spec
from heads.batch_norm import BatchNorm
from heads.nets._gated import GatedUnit

TEXTS = ("mean", "netvlad")
TINY = 1e-12


def mixture_similarity(text_CM: Tensor, visual_VM: Tensor, experts: int) -> Tensor:
    """Return ξ (C, V); 0 if the clip has none of the experts that the caption weighs, or if the caption is missing.

    >>> text, visual = torch.tensor([[0.6, 0.0, 0.0, 0.4]]), torch.tensor([[1.0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
    >>> mixture_similarity(text, visual, 2)   # a perfect match; one on the clip's only expert; nothing to compare
    tensor([[1., 1., 0.]])
    """
    w_CE = text_CM.unflatten(1, (experts, -1)).norm(dim=2)
    has_VE = visual_VM.unflatten(1, (experts, -1)).ne(0).any(2)
    return text_CM @ visual_VM.T / (w_CE @ has_VE.to(w_CE).T).clamp_min(TINY)


class ExpertText(nn.Module):
    """The text tower: captions -> w_e l_e of all experts, concatenated (B, M)."""

    def __init__(self, spec: Spec, experts: int, dim: int, text: str, clusters: int, ghosts: int) -> None:
        super().__init__()
        if text not in TEXTS:
            raise ValueError(f"no net.text {text!r}; choose from {', '.join(TEXTS)}")
        rows = {m: prod(spec.shapes[m]) for m in spec.captions}
        tokenised = [m for m in rows if text == "netvlad" and spec.windows[m] > 1]
        if text == "netvlad" and not tokenised:
            raise ValueError("net.text 'netvlad' pools tokens, but each caption has one row here; choose mean")
        self.vlad = nn.ModuleDict({m: NetVLAD(rows[m], clusters, ghosts) for m in tokenised})
        inputs = sum(size * (clusters if m in self.vlad else 1) for m, size in rows.items())
        self.captions = spec.captions
        self.unit = nn.ModuleList(GatedUnit(inputs, dim) for _ in range(experts))
        self.W_w = nn.Linear(inputs, experts) if experts > 1 else None  # one expert has all the weight

    def forward(self, side: Side) -> Tensor:
        """Encode captions -> (B, M); zeros in the rows without a caption."""
        has_B = torch.stack([side.has(m) for m in self.captions]).any(0)
        t_BI = torch.cat([self.pool(m, side) for m in self.captions], 1)
        w_BE = self.W_w(t_BI).softmax(1) if self.W_w is not None else torch.ones_like(t_BI[:, :1])
        l_BED = torch.stack([unit(t_BI, has_B) for unit in self.unit], 1)
        return (w_BE[:, :, None] * l_BED).flatten(1)

    def pool(self, m: str, side: Side) -> Tensor:
        """Pool the tokens of each caption into one vector."""
        if m not in self.vlad:
            return side.pool(m).flatten(1)
        pooled: Tensor = self.vlad[m](side.x[m].flatten(2), side.present[m])
        return pooled


class NetVLAD(nn.Module):
    """Sums of the differences between tokens and cluster centres [Arandjelović et al. 2016]; (B, T, I) -> (B, K·I).

        a_tk = softmax_k(BN(W x_t)),   V_k = Σ_t a_tk (x_t - c_k),   [V_1/‖V_1‖; ..; V_K/‖V_K‖] at length 1

    Ghost clusters are in the softmax only: uninformative tokens are assigned to them [Zhong et al. 2018, GhostVLAD].
    """

    def __init__(self, inputs: int, clusters: int, ghosts: int) -> None:
        super().__init__()
        self.clusters = clusters
        self.W = nn.Linear(inputs, clusters + ghosts, bias=False)  # BN would cancel a bias
        self.BN = BatchNorm(clusters + ghosts)
        self.centres = nn.Parameter(torch.randn(clusters, inputs).div_(inputs**0.5))

    def forward(self, x_BTI: Tensor, present_BT: Tensor) -> Tensor:
        """Pool the tokens that are present."""
        in_BT = present_BT.flatten()
        a_BTK = self.BN(self.W(x_BTI.flatten(0, 1)), in_BT).softmax(1).unflatten(0, present_BT.shape)
        a_BTK = a_BTK[..., : self.clusters] * present_BT[:, :, None]
        V_BKI = a_BTK.mT @ x_BTI - a_BTK.sum(1)[:, :, None] * self.centres
        return normalize(normalize(V_BKI, dim=2).flatten(1), dim=1)
