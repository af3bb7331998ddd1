"""Domain adaptation without source data [SFDA: Kim, Cho, Han, Panda & Hong 2021, IEEE TAI 2], source-free.

    L = L_source (1 - α) + L_self α      α = 2 / (1 + exp(-20 p)) - 1

    L_source = mean_i -log p'_i(y'_i)         y'_i: prediction of the source's net for row i; p': by head 1
    L_self   = mean_i w_i (-log p_i(y_i))     y_i, w_i in {0, 1}: by prototypes of the target; p: by head 2

p is the progress of the run. One encoder has two heads, both the source's at the start. Head 1 learns the source's
labels; head 2 learns the reliable labels of the target. Reliability needs no threshold: the farthest prototype of the
label's class must be nearer than the nearest prototype of the second-best class (`heads.cluster.prototype_labels`).
Predictions are those of head 2.

The source stage is `source_only` on the same net, and `init_from` names it. MTRAN's row "SFDA" is this on net `mtran`.

Implementation details
  1. The code updates the prototypes every 100 steps: `RunConfig.epoch=100`.
  2. The code labels each batch from the features of that step. Here the sweep that finds the prototypes also labels the
     rows, in eval mode: the code's features have no dropout, but those of a batch have it on some nets (`mtran`).
  3. y' come from the first sweep, before any update: features are cached, so the code's frozen copy of the source's net
     would give the same labels in each step.
  4. L_self is the mean over all rows, so its weight grows as more of them become reliable.
  5. A class has at most 100 prototypes. The code repeats those of small classes up to a common number, so that a
     remainder counts twice; here the means are over the prototypes.
  6. α is the code's, whose scale takes half of the run as the whole: 0.99 at a quarter of the run.
  7. With late fusion, a row's feature is the concatenation of all modalities, with 0 for those that the row lacks. With
     several label kinds, prototypes lie in each kind's part, and the losses are added.
  8. The code's optimiser is `Optim(lr=1e-3, weight_decay=5e-4, nesterov=True, inverse=10)`, lr / 10 for the extractor
     (`optim_for`), 5,000 steps, batches of 32. The code reports the best test accuracy, which selects on test labels.
Deviation: features are frozen, so only the net's own layers adapt; the paper also trains the backbone.
Shapes: N rows of the target, B of a batch, J label kinds, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, stack
from torch.nn.functional import cross_entropy

from heads.batch import Batch, Spec, Sweep, gather
from heads.cluster import prototype_labels
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.methods._copies import second_head
from heads.nets import Net
from heads.params import within
from heads.schedules import dann


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of SFDA."""

    most: int = within(100, 1)  #: largest number of prototypes of a class [code]


class Sfda(Method):
    """Two heads on one encoder: `net` has head 2, `first` has head 1."""

    needs = ("target", "init_from")
    source_labels: Tensor
    labels: Tensor
    reliable: Tensor

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        if min(spec.classes.values()) < 2:
            raise ValueError(f"method sfda compares classes, so each label kind needs two or more, not {spec.classes}")
        self.first = second_head(net)
        labels_NJ = torch.zeros(spec.rows["target"], len(spec.classes), dtype=torch.int64)
        self.register_buffer("source_labels", labels_NJ, persistent=False)  # y'
        self.register_buffer("labels", labels_NJ.clone(), persistent=False)  # y
        self.register_buffer("reliable", torch.ones(labels_NJ.shape, dtype=torch.bool), persistent=False)  # w

    def begin_epoch(self, epoch: int, sweep: Sweep) -> None:
        """Find prototypes and label the target by them; in the first epoch, store the source net's predictions."""
        f = gather(sweep("target"), self.net.encode)
        z, features = self.net.classify(f), self.net.reads(f)
        if epoch == 0:
            self.first.classifier.load_state_dict(self.net.classifier.state_dict())
            self.source_labels = stack([z[label].argmax(1) for label in self.net.parts], 1)
        results = [prototype_labels(z[label].softmax(1), features[label], self.params.most) for label in self.net.parts]
        self.labels, self.reliable = (stack(each, 1) for each in zip(*results, strict=True))

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_source of head 1, L_self of head 2."""
        t = batch.target_side
        f = self.net.encode(t)
        y_BJ, w_BJ = self.labels[t.index], self.reliable[t.index]
        y_source = dict(zip(self.net.parts, self.source_labels[t.index].unbind(1), strict=True))
        L_source = label_cross_entropy(self.first.classify(f), y_source)
        z = self.net.classify(f)
        each_BJ = stack(
            [cross_entropy(z[label], y_BJ[:, j], reduction="none") for j, label in enumerate(self.net.parts)], 1
        )
        alpha = dann(2 * progress)
        return {"L_source": (1 - alpha) * L_source, "L_self": alpha * (each_BJ * w_BJ).mean(0).sum()}


METHOD = Sfda
