"""Historical contrastive learning, source-free [HCL: Huang, Guan, Xiao & Lu 2021, NeurIPS].

    L = L_HCCD + λ_id L_HCID

    L_HCID = mean_i -log( γ_i φ(q_i, k_i) / Σ_j γ_j φ(q_i, k_j) )     φ(q, k) = exp(cos(q, k) / τ)
             γ_j = clamp(1.1 - H(p'_j) / log K, 0.9, 1.1)             certainty of the history about row j
    L_HCCD = mean_i h_i (-log p_i(y_i)),   h_i = exp(-KL(p_i^s ‖ p'_i))

q and p are features and predictions of the net, k and p' those of its history, an average of past weights: θ' = m θ' +
(1 - m) θ after each step. p^s are the predictions of a second historical model, at first the source's net. Every 300
steps both historical models are recorded again: they become the net of that step. Historical contrastive instance
discrimination (HCID) keeps each row near its past feature, with more weight for rows of certain predictions. Category
discrimination (HCCD) learns pseudo-labels y, with less weight where the two historical models disagree.

The source stage is `source_only` on the same net, and `init_from` names it. MTRAN's row "HCL" is this on net `mtran`.

Implementation details
  1. γ, h, τ and m are those of the authors' code, which is for segmentation. The paper's h is one minus a sigmoid of
     the L1 distance of predictions.
  2. The positive of a row is the row itself, as in the paper. The code takes all other pixels of equal pseudo-label.
  3. The code compares the net's features of an augmented picture with the history's features of the picture. Here both
     read the same windows, the net in training mode, the historical models in eval mode. On nets with dropout before
     their features (`mtran`, `trn`, the adapter's dropout_at="features") dropout makes q another view than k. On an
     adapter without it, the two differ by their weights (and by batch statistics, if it has them), and HCID keeps
     features near those of the last steps.
  4. y are the net's predictions of the whole target in eval mode, again in each epoch (the code writes them to files
     before each round).
  5. The history is the average of the code, and the recording is the code's too; the paper has models of earlier steps
     and no recording. The code records after the forward pass of step 301, here after the update of step 300: the
     same weights, one step earlier. `every=0` never records again, as in version 1, which took p^s once from a sweep
     over the target's test windows. Version 2 takes p^s from the windows of the batch, as it takes p and p'.
  6. λ_id = 0.5 and 300 steps are those of the code's script. Its batches are 9 pictures; ours are the run's.
  7. With late fusion, a row's feature is the concatenation of all modalities, with 0 for those that the row lacks. With
     several label kinds, both losses are taken on each kind's part and scores, and added.
  8. All of the net learns, the classifier too (code).
Deviation: features are frozen, so only the net's own layers adapt; the paper also trains the backbone.
Shapes: N rows of the target, B of a batch, D features, K classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, stack
from torch.nn.functional import cross_entropy, kl_div

from heads.batch import Batch, Spec, Sweep, gather
from heads.losses.contrastive import contrast
from heads.losses.entropy import entropy
from heads.methods import Method
from heads.methods._copies import Teacher
from heads.nets import Net
from heads.params import within


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of HCL."""

    lambda_id: float = within(0.5, 0)  #: λ_id, weight of instance discrimination [code]
    tau: float = within(0.07, 0, above=True)  #: τ, temperature [code]
    m: float = within(0.996, 0, 1)  #: m, share of the historical weights that is kept in a step [code]
    every: int = within(300, 0, before=0)  #: steps between two recordings of the historical models; 0: never [code]


class Hcl(Method):
    """Contrast with two historical models, `history` and `recorded`; "y:LABEL" (N,): pseudo-labels."""

    needs = ("target", "init_from")
    version = 2  #: in version 1, p^s came from the test windows of each row, and not from the windows of the batch

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        if min(spec.classes.values()) < 2:
            raise ValueError(f"method hcl compares classes, so each label kind needs two or more, not {spec.classes}")
        self.history = Teacher(net)
        self.recorded = (self.history,)  # the model of p^s; a tuple, so that it is not saved with the weights
        self.steps = 0
        for label in spec.classes:
            y_N = torch.zeros(spec.rows["target"], dtype=torch.int64)
            self.register_buffer(f"y:{label}", y_N, persistent=False)

    def begin_epoch(self, epoch: int, sweep: Sweep) -> None:
        """Label the target; before the first step, also record the source's net as both historical models."""
        if epoch == 0:
            self.recorded, self.steps = (Teacher(self.net),), 0
            self.history.follow(self.net)
        for label, z_NK in gather(sweep("target"), self.predict).items():
            self.get_buffer(f"y:{label}").copy_(z_NK.argmax(1))

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_HCID and L_HCCD of the target."""
        p, t = self.params, batch.target_side
        f = self.net.encode(t)
        z, q = self.net.classify(f), self.net.reads(f)
        with torch.no_grad():
            f_past = self.history.net.encode(t)
            z_past, k = self.history.net.classify(f_past), self.net.reads(f_past)
            recorded = self.recorded[0].net
            z_recorded = recorded.classify(recorded.encode(t))
        same_BB = t.index[:, None] == t.index
        hcid, hccd = [], []
        for label in self.net.parts:
            gamma_B = reliability(z_past[label])
            hcid.append(contrast(q[label], k[label], same_BB, tau=p.tau, weight_N=gamma_B))
            h_B = consistency(z_recorded[label], z_past[label])
            y_B = self.get_buffer(f"y:{label}")[t.index]
            hccd.append((h_B * cross_entropy(z[label], y_B, reduction="none")).mean())
        return {"L_HCID": p.lambda_id * stack(hcid).sum(), "L_HCCD": stack(hccd).sum()}

    def rounds(self, batch: Batch, progress: float) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Yield one round; after its update the history follows, and every so often both models are recorded."""
        yield "all", self(batch, progress)
        self.history.follow(self.net, self.params.m)
        self.steps += 1
        if self.params.every and self.steps % self.params.every == 0:
            for model in (self.history, *self.recorded):
                model.follow(self.net)


def reliability(z_BK: Tensor) -> Tensor:
    """Return the weight γ of each key -> (B,), from 0.9 (uncertain) to 1.1 (certain).

    >>> reliability(torch.tensor([[0.0, 0.0], [9.0, 0.0]]))
    tensor([0.9000, 1.0982])
    """
    return (1.1 - entropy(z_BK.softmax(1)) / log(z_BK.shape[1])).clamp(0.9, 1.1)


def consistency(z_recorded_BK: Tensor, z_past_BK: Tensor) -> Tensor:
    """Return the weight h of each row -> (B,): 1 where both predictions agree, near 0 where they disagree.

    >>> consistency(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]]))
    tensor([1.])
    """
    kl_BK = kl_div(z_past_BK.log_softmax(1), z_recorded_BK.log_softmax(1), reduction="none", log_target=True)
    return (-kl_BK.sum(1)).exp()


METHOD = Hcl
