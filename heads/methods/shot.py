"""Source hypothesis transfer, source-free [SHOT: Liang, Hu & Feng 2020, ICML].

    L = L_IM + β L_ss

    L_IM = mean_i H(p_i) - H(mean_i p_i)      certain rows, of all classes
    L_ss = mean_i -log p_i(y_i)               y_i: by the target's own centroids, `heads.cluster.shot_labels`

The classifier is the source's hypothesis and stays fixed: the encoder learns features that it can classify. The source
stage is `source_only.Params(smoothing=0.1)` on the same net, and `init_from` names it.

This is the original SHOT. The row "SHOT" of MTRAN's tables is MTRAN's own net and loss without alignment: method
`mtran` with lambda_2=0, lambda_3=0 (one round of centroids, no appended 1, λ_1 = 3 or 0.5 for β), as its ablation "w/o
RA".

Implementation details
  1. The whole target is labelled in eval mode, again in each epoch (the code's default: 15 epochs, 15 times).
  2. β = 0.3 (the code; Office-Home and Office), 0.1 for its digits.
  3. With late fusion, a row's feature f is the concatenation of all modalities, because the classifier adds their
     scores; it is 0 for modalities that the row lacks.
  4. With several label kinds, both losses are added, and centroids lie in each kind's part of f.
  5. The code's optimiser is `Optim(lr=0.01, weight_decay=1e-3, nesterov=True, inverse=10)` with batches of 64, and lr /
     10 for the backbone, which is frozen here.
Deviation: the paper has a bottleneck of 256 with batch normalisation and a weight-normalised classifier, and also
trains the backbone. Here the net is the run's.
Shapes: N rows of the target, B of a batch, J label kinds, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from heads.batch import Batch, Spec, Sweep, gather
from heads.cluster import shot_labels
from heads.losses.entropy import information
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.nets import Net
from heads.params import within


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of SHOT."""

    beta: float = within(0.3, 0)  #: β, weight of the pseudo-labels [code]


class Shot(Method):
    """Adaptation of the encoder to a frozen classifier."""

    needs = ("target", "init_from")
    labels: Tensor

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        net.classifier.requires_grad_(False)
        labels_NJ = torch.zeros(spec.rows["target"], len(spec.classes), dtype=torch.int64)
        self.register_buffer("labels", labels_NJ, persistent=False)

    def begin_epoch(self, epoch: int, sweep: Sweep) -> None:
        """Label the target."""
        f = gather(sweep("target"), self.net.encode)
        z, features = self.net.classify(f), self.net.reads(f)
        self.labels = torch.stack([shot_labels(z[label].softmax(1), features[label]) for label in self.net.parts], 1)

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_IM and L_ss of the target."""
        t = batch.target_side
        z = self.net.classify(self.net.encode(t))
        y = dict(zip(self.net.parts, self.labels[t.index].unbind(1), strict=True))
        return {
            "L_IM": torch.stack([information(z_BK.softmax(1)) for z_BK in z.values()]).sum(),
            "L_ss": self.params.beta * label_cross_entropy(z, y),
        }


METHOD = Shot
