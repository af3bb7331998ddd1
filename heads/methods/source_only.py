"""Source-only: L = L_C, cross entropy on the labelled domains and nothing else. Adaptation has to beat this row.

Supervised-target, the upper bound of adaptation, is this method with the target as its labelled domain:
`RunConfig(source=("night",), test="night", method=source_only.Params(), ...)`.

Implementation details
  1. The scores of the modalities are added before the softmax (RNA, Sec. 3; MM-SADA's code).
  2. `per_modality` adds the cross entropy of each single modality, with weight 1, over the rows that have it:
     "source-only †" of RNA's Table 5. The net must have late fusion.
  3. With several label kinds, their cross entropies are added.
  4. `smoothing=0.1` is the source stage of SHOT: the classifier's features then form tight, evenly spread clusters.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from heads.batch import Batch, Spec
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.nets import Net
from heads.params import within


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of source-only."""

    per_modality: bool = False  #: †: also classify from each single modality [paper: RNA]
    smoothing: float = within(0.0, 0, 1, below=True)  #: ε of label smoothing, (1 - ε) 1[y = k] + ε / K [paper: MTRAN]


class SourceOnly(Method):
    """Cross entropy on the source; on a retrieval net, its ranking loss."""

    tasks = ("classification", "retrieval")

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        if not spec.classes and params != Params():
            raise ValueError(f"{params} is for runs with classes, but this run has none; keep the defaults")

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C, and L_C_m with `per_modality`."""
        s, smoothing = batch.source_side, self.params.smoothing
        f = self.net.encode(s)
        if not smoothing:
            terms = self.net.loss(f, s)
        else:
            terms = {"L_C": label_cross_entropy(self.net.classify(f), s.y, smoothing=smoothing)}
        if self.params.per_modality:
            alone = [label_cross_entropy(self.net.classify({m: f[m]}), s.y, s.has(m), smoothing) for m in s.x]
            terms["L_C_m"] = torch.stack(alone).sum()
        return terms


METHOD = SourceOnly
