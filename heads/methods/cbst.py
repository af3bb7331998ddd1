"""Class-balanced self-training [CBST: Zou et al. 2018, ECCV; as in the code of CRST, Zou et al. 2019, ICCV].

    L = L_C + λ_st L_st      L_st = mean over labelled target rows of -log p_i(ŷ_i)
    ŷ_i = argmax_k p_i(k) / c_k   where that is 1 or more, else none

Every round predicts the whole target again. c_k is the confidence that the share q of the rows predicted as k reaches:
each class labels its own most confident rows, so that easy classes do not crowd out hard ones. q grows from round to
round.

Implementation details
  1. q starts at 0.2 and grows by 0.05 per round up to 0.5; a round lasts 2 epochs (CRST's code). The code stops after 4
     rounds; here the length of the run decides. State the epoch of a run in steps, or as one pass over the target.
  2. The first round comes after 2 epochs on the source only. The code starts from a trained net, which is `first=0`
     with `init_from`.
  3. A class that any row is predicted as labels at least one row, even if q would round that to 0.
  4. The division by c_k can give a row another label than its argmax: a class with low confidences needs less. Except
     for such rows, the labels are "the top q of each class".
  5. Target batches are drawn from the labelled rows. With several label kinds these are the rows with a label of any
     kind, and the loss of each kind counts its own rows.
  6. Labels come from the fused scores, modalities added. `per_modality` also classifies from each single modality, with
     weight 1, on both sides. The net must have late fusion.
  7. CRST's regularisers have weight 0 by default, and are left out, as is its growing share of source images.
Deviation: features are frozen, so only the net's own layer adapts; the papers also train the backbone.
Shapes: N rows of the target, B of a batch, J label kinds, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, stack

from heads.batch import Batch, Side, Spec, Sweep, gather
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.nets import Net
from heads.params import within


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of CBST."""

    lambda_st: float = within(1.0, 0)  #: λ_st, weight of the labelled target rows [ours]
    q: float = within(0.2, 0, 1, above=True)  #: share of each predicted class that the first round labels [code: CRST]
    q_step: float = within(0.05, 0, 1)  #: growth of q in each further round [code: CRST]
    q_most: float = within(0.5, 0, 1, above=True)  #: upper limit of q [code: CRST]
    epochs: int = within(2, 1)  #: epochs of a round [code: CRST]
    first: int = within(2, 0)  #: epoch of the first round; before it the net learns from the source [ours]
    per_modality: bool = False  #: also classify from each single modality (late fusion), with weight 1 [ours]


class Cbst(Method):
    """Cross entropy on the labels that each class assigns to its most confident rows."""

    needs = ("source", "target")
    labels: Tensor

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        labels_NJ = torch.full((spec.rows["target"], len(spec.classes)), -1)
        self.register_buffer("labels", labels_NJ, persistent=False)  # -1: none

    def begin_epoch(self, epoch: int, sweep: Sweep) -> dict[str, list[Tensor]] | None:
        """Label the target at the start of a round; batches then come from the labelled rows."""
        p = self.params
        round_, epoch_of_round = divmod(epoch - p.first, p.epochs)
        if round_ < 0 or epoch_of_round > 0:
            return None
        q = min(p.q + p.q_step * round_, p.q_most)
        z = gather(sweep("target"), self.predict)
        self.labels = stack([balanced_labels(z[label].softmax(1), q) for label in self.spec.classes], 1)
        return {"target": [torch.nonzero((self.labels >= 0).any(1)).squeeze(1)]}

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, L_st on the labelled rows of the target."""
        s, t = batch.both()
        everyone = torch.ones_like(s.index, dtype=torch.bool)
        y_t = dict(zip(self.spec.classes, self.labels[t.index].unbind(1), strict=True))
        f_s, f_t = self.net.encode_both(s, t)
        L_C = self.cross_entropy(s, f_s, s.y, dict.fromkeys(y_t, everyone))
        labelled = {label: y_B >= 0 for label, y_B in y_t.items()}
        L_st = self.cross_entropy(t, f_t, {label: y_B.clamp_min(0) for label, y_B in y_t.items()}, labelled)
        return {"L_C": L_C, "L_st": self.params.lambda_st * L_st}

    def cross_entropy(self, side: Side, f: dict[str, Tensor], y: dict[str, Tensor], rows: dict[str, Tensor]) -> Tensor:
        """Return Σ_label of the mean cross entropy over rows[label] (B,); per_modality adds that of each modality."""
        streams = [(self.net.classify(f), torch.ones_like(side.index, dtype=torch.bool))]
        if self.params.per_modality:
            streams += [(self.net.classify({m: f[m]}), side.has(m)) for m in side.x]
        each = [
            label_cross_entropy({label: z[label]}, y, rows[label] & has_B) for z, has_B in streams for label in rows
        ]
        return stack(each).sum()


def balanced_labels(p_NK: Tensor, q: float) -> Tensor:
    """Return the class of each row that is confident enough for it, else -1 -> (N,) int64.

    >>> p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.45, 0.55]])
    >>> balanced_labels(p, 0.5)   # c = 0.9 and 0.55; two of three rows are not among the most confident of their class
    tensor([ 0, -1, -1,  1])
    """
    p_N, predicted_N = p_NK.max(1)
    c_K = torch.ones_like(p_NK[0])  # 1 for a class that no row is predicted as, which then labels no row
    for k in range(len(c_K)):
        surest = p_N[predicted_N == k].sort(descending=True).values
        if len(surest):
            c_K[k] = surest[max(1, int(q * len(surest))) - 1]
    ratio_N, y_N = (p_NK / c_K).max(1)
    return torch.where(ratio_N >= 1, y_N, -1)


METHOD = Cbst
