"""Gradient Blending [Wang, Tran & Feiszli 2020, CVPR], on the source only: a weighted loss for every modality.

    L = Σ_k w_k L_C(k)      k: each single modality, and "fused", all of them together
    w_k ∝ G_k / O_k²,  Σ_k w_k = 1
    G_k = V_k(0) - V_k(e)                                          generalisation: fall of the held-out loss
    O_k = (V_k(e) - T_k(e)) - (V_k(0) - T_k(0))                    overfitting: growth of the gap to the training loss

V_k(e) and T_k(e) are the cross entropies of head k on held-out and on training rows of the source at the start of epoch
e. Heads that generalise weigh more than heads that memorise the training rows. Predictions are those of the fused head.
The net must have late fusion.

If `weights` are given, they are used unchanged, and no rows need be held out. Published weights for two modalities
(VMZ; EPIC-Kitchens): audio, visual, fused = 0.524, 0.247, 0.229 for verbs, 0.175, 0.460, 0.364 for nouns. RNA's paper
has three modalities, and does not state the weight of flow.

Implementation details
  1. Without `weights`, they are equal in the first epoch and estimated again at the start of every later epoch, from
     the losses at the start of the run and now, for all heads of the one net in training. The paper trains each head
     separately, once (offline) or again for each stretch of epochs (online).
  2. A head whose held-out loss has risen has weight 0; if all have risen, the weights stay. O below 0.01 counts as
     0.01: a closing gap is not overfitting, and a head must not dominate because its gap is 0 by chance (not in the
     paper).
  3. V_k and T_k are means over all rows of their side that have the modality, in eval mode.
  4. Each label kind has its own weights, which sum to 1; the losses are added. All weights 1 is `per_modality` of
     source-only, RNA's "†".
Shapes: H heads, J label kinds.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, stack

from heads.batch import Batch, Side, Spec, Sweep, gather
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.nets import Net

LEAST = 0.01  # of O, in nats


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of Gradient Blending."""

    weights: dict[str, float] = field(default_factory=dict)  #: w_k of "audio:verb" ..; empty: G_k / O_k² [paper]
    per_modality: ClassVar[bool] = True  #: fixed: tables compare it with the source-only row that has this setting


class GradientBlending(Method):
    """Heads weighted by their generalisation."""

    needs = ("source",)
    may = ("source_val",)
    weights: Tensor
    start: Tensor

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        if len(spec.shapes) == 1:
            (only,) = spec.shapes
            raise ValueError(f"method gradient_blending weighs modalities, but {only!r} is the only one; add a feed")
        self.heads, given = (*spec.shapes, "fused"), params.weights
        names = [f"{head}:{label}" for head in self.heads for label in spec.classes]
        if given and set(given) != set(names):
            raise ValueError(f"method.weights has {', '.join(given)}; it must have {', '.join(names)}, or be empty")
        if given and min(given.values()) < 0:
            raise ValueError(f"method.weights={given} has a weight below 0; each must be at least 0")
        if not given and "source_val" not in spec.rows:
            raise ValueError("method gradient_blending needs held-out source rows; set holdout=0.1, or method.weights")
        first = [given.get(name, 1 / len(self.heads)) for name in names]
        shape = len(self.heads), len(spec.classes)
        self.register_buffer("weights", torch.tensor(first).reshape(shape), persistent=False)
        self.register_buffer("start", torch.zeros(2, *shape), persistent=False)  # T(0), V(0)

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return w_k L_C(k) of each head, summed over the label kinds."""
        s = batch.source_side
        has = {m: s.has(m) for m in s.x}
        weighed_H = (self.weights * self.head_losses(self.net.encode(s), has, s.y)).sum(1)
        return {f"L_C_{head}": L for head, L in zip(self.heads, weighed_H.unbind(), strict=True)}

    def begin_epoch(self, epoch: int, sweep: Sweep) -> None:
        """Update the weights of the heads, unless they are given."""
        if self.params.weights:
            return
        now = stack([self.side_losses(sweep(side)) for side in ("source", "source_val")])
        if epoch == 0:
            self.start = now
        else:
            self.weights = blend(self.start, now, self.weights)

    def side_losses(self, sides: Iterator[Side]) -> Tensor:
        """Return the losses (H, J) of a whole side."""

        def look(side: Side) -> dict[str, Tensor]:
            has = {f"has {m}": side.has(m) for m in side.x}
            return self.net.encode(side) | has | {f"y {label}": y for label, y in side.y.items()}

        whole = gather(sides, look)
        f = {m: whole[m] for m in self.spec.shapes if m in whole}
        y = {label: whole[f"y {label}"] for label in self.spec.classes}
        return self.head_losses(f, {m: whole[f"has {m}"] for m in f}, y)

    def head_losses(self, f: dict[str, Tensor], has: dict[str, Tensor], y: dict[str, Tensor]) -> Tensor:
        """Return the cross entropy of each head (H, J), a mean over the rows that have its modality; 0 without rows."""

        def losses(f: dict[str, Tensor], rows: Tensor | None) -> Tensor:
            z = self.net.classify(f)
            return stack([label_cross_entropy({label: z[label]}, y, rows) for label in self.spec.classes])

        by_head = {m: losses({m: f[m]}, has[m]) for m in f} | {"fused": losses(f, None)}
        return stack([by_head.get(head, torch.zeros_like(by_head["fused"])) for head in self.heads])


def blend(start: Tensor, now: Tensor, before: Tensor) -> Tensor:
    """Return weights (H, J) that sum to 1 over the heads; start, now: (2, H, J), losses on training and held-out rows.

    >>> start, now = torch.tensor([[[2.0], [2.0]], [[2.0], [2.0]]]), torch.tensor([[[0.9], [0.5]], [[1.0], [0.9]]])
    >>> blend(start, now, torch.ones(2, 1)).T   # 1.0 / 0.1² = 100 and 1.1 / 0.4² = 6.875
    tensor([[0.9357, 0.0643]])
    """
    (T_0, V_0), (T_e, V_e) = start, now
    G_HJ, O_HJ = V_0 - V_e, (V_e - T_e) - (V_0 - T_0)
    w_HJ = G_HJ.clamp_min(0) / O_HJ.clamp_min(LEAST).square()
    total_J = w_HJ.sum(0)
    return torch.where(total_J > 0, w_HJ / torch.where(total_J > 0, total_J, 1.0), before)


METHOD = GradientBlending
