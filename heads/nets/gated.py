"""Gated MLP: one gated embedding unit for clips and one for captions, the simplest retrieval net.

    E_v = unit([a_1; ..; a_E]),   E_l = unit'([t_1; ..])      unit(x): z = W x + b,  z ⊙ σ(BN(U z)), at length 1
    ξ(l, v) = ⟨E_l, E_v⟩                                      L_R of it is the loss

a_e is the mean of the clip's windows of modality e, t the mean of a caption's tokens. Each is scaled to length 1, so
that no modality dominates; a missing modality is 0. [The unit: Miech et al. 2018, Sec. 3.1.]

Shapes: B rows, M entries of an embedding.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import normalize

from heads.batch import Side, Spec
from heads.nets import Retrieval
from heads.nets._gated import GatedUnit
from heads.params import within


@dataclass(frozen=True)
class Params:
    """Size of the gated MLP."""

    dim: int = within(512, 1)  #: M, entries of an embedding [ours]
    margin: float = within(0.2, 0)  #: m of L_R [code: MoEE]


class Gated(Retrieval):
    """The network above."""

    def __init__(self, params: Params, spec: Spec) -> None:
        super().__init__()
        self.captions, self.margin, self.dim = spec.captions, params.margin, params.dim
        self.sizes = {m: prod(shape) for m, shape in spec.shapes.items()}
        self.experts = tuple(m for m in spec.shapes if m not in spec.captions)
        self.visual, self.text = (
            GatedUnit(sum(self.sizes[m] for m in modalities), params.dim)
            for modalities in (self.experts, self.captions)
        )

    def encode(self, side: Side) -> dict[str, Tensor]:
        """Return "visual" E_v (B, M) and "text" E_l (B, M), or the one that the side has; of length 1, or 0."""
        towers = {"visual": (self.visual, self.experts), "text": (self.text, self.captions)}
        f, B = {}, side.index.shape[0]
        for name, (unit, modalities) in towers.items():
            if given := [m for m in modalities if m in side.x]:
                zeros = {m: next(iter(side.x.values())).new_zeros(B, self.sizes[m]) for m in modalities}
                x = zeros | {m: normalize(side.pool(m).flatten(1), dim=1) for m in given}
                f[name] = unit(torch.cat(list(x.values()), 1), torch.stack([side.has(m) for m in given]).any(0))
        return f

    def similarity(self, text_CM: Tensor, visual_VM: Tensor) -> Tensor:
        """Return ξ (C, V), cosines; 0 if the caption or the clip is missing."""
        return text_CM @ visual_VM.T


NET = Gated
