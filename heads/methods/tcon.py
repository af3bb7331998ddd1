"""A surrogate of TCoN [co-attention: Pan et al. 2020, AAAI] on cached windows, known by its abstract only.

    L = L_C + L_C_a + Σ_m (L_d(m) + λ_mmd L_mmd(m))
    c_t = Σ_u A_tu f_u,   A_tu = softmax over u of g_t · f_u / √D        co-attention of a source with a target clip
    L_C_a = -E log p(y | mean_t c_t)                                     y: the source clip's label
    L_d(m) = -E log D_m(c_t)_source - E log D_m(g_t)_target              reversed, by λ_d (2 / (1 + exp(-10 p)) - 1)
    L_mmd(m) = MMD²(mean_t c_t, mean_t g_t)                              over the pairs of clips

f_u are the features of window u of a source clip, g_t those of window t of a target clip, in one modality m, which the
equations leave out. c_t are the source's features at the moment most similar to moment t of the target clip: the source
clip in the target's time. L_C classifies the means of f_u, predictions those of g_t; p is the run's progress.

We know the paper only by its abstract, which "matches the distributions of temporally aligned action features between
source and target domains using a novel cross-domain co-attention mechanism". The form of the attention, the distances
and the classified features are our own; attention within a clip is left out, and the backbone is not trained.

Implementation details
  1. Row i of the source is paired with row i of the target, whatever their classes; the rows of a shorter side repeat.
     Rows are drawn at random, so that pairs differ in each step.
  2. A has no own weights: it learns through the features. A modality drawn one window at a time has A = 1, so that c is
     f, and the method is DANN with MMD.
  3. A pair counts in modality m if both clips have it, and a moment t if the target has this window. MMD is that of
     method `mmd`; γ is the mean ‖x - y‖² of the batch. λ_mmd = 0.1 is our own choice.
  4. With several label kinds, D and A take their features as one vector. The net must have late fusion.
Shapes: P pairs, U and T windows of the source's and the target's clips, D features.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from heads.batch import Batch, Side, Spec
from heads.losses.moments import mmd
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.methods._adversarial import discriminator, domain_loss
from heads.methods._aligned import shared
from heads.methods._windows import masked_softmax, mean_windows, videos, window_features, window_features_both
from heads.nets import Net
from heads.params import within
from heads.schedules import dann


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of the surrogate of TCoN."""

    lambda_d: float = within(1.0, 0)  #: λ_d, peak coefficient of the gradient reversal [ours]
    lambda_mmd: float = within(0.1, 0)  #: λ_mmd, weight of MMD², summed over modalities; MMD² is at most 24 [ours]


class Paired(NamedTuple):
    """Pairs of clips in one modality."""

    c: Tensor  #: (P, T, D) source features at the target's windows
    g: Tensor  #: (P, T, D) target features
    counts: Tensor  #: (P, T) bool: the target has the window, and the source has any window


class TCoN(Method):
    """Source clips in the time of target clips, whose domain a discriminator cannot predict."""

    needs = ("source", "target")
    surrogate = (
        "co-attention of cached windows, with our own losses, replaces the paper's network, known by its abstract"
    )

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        self.D = nn.ModuleDict({m: discriminator(net.dim) for m in spec.shapes})

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, L_C_a on its co-attended clips, L_d and L_mmd between these and the target."""
        s, t = batch.both()
        f_s, f_t = window_features_both(self.net, s, t)
        L_C = label_cross_entropy(self.net.classify(videos(s, f_s)), s.y)
        L_d = L_mmd = L_C.new_zeros(())
        coefficient = self.params.lambda_d * dann(progress)
        P = torch.arange(max(len(s.index), len(t.index)), device=s.index.device)
        s_P, t_P = P % len(s.index), P % len(t.index)
        aligned, counts_P = {}, torch.zeros_like(P, dtype=torch.bool)
        for m in shared(s, t):
            paired = co_attend(f_s[m][s_P], s.present[m][s_P], f_t[m][t_P], t.present[m][t_P])
            weight = paired.counts.flatten()
            c, g = paired.c.flatten(0, 1), paired.g.flatten(0, 1)
            L_d = L_d + domain_loss(self.D[m], c, g, weight, weight, coefficient)
            aligned[m], in_P = mean_windows(paired.c, paired.counts), paired.counts.any(1)
            L_mmd = L_mmd + mmd(aligned[m], mean_windows(paired.g, paired.counts), in_P, in_P, gamma=0)
            counts_P = counts_P | in_P
        y = {label: y_B[s_P] for label, y_B in s.y.items()}
        L_C_a = label_cross_entropy(self.net.classify(aligned), y, counts_P)
        return {"L_C": L_C, "L_C_a": L_C_a, "L_d": L_d, "L_mmd": self.params.lambda_mmd * L_mmd}

    def features(self, side: Side) -> dict[str, Tensor]:
        """Return the means of encoded windows."""
        return videos(side, window_features(self.net, side))


def co_attend(f_PUD: Tensor, in_PU: Tensor, g_PTD: Tensor, in_PT: Tensor) -> Paired:
    """Return the co-attended features c of each pair, zeros where a pair does not count.

    >>> f, g = torch.tensor([[[99.0, 0.0], [0.0, 99.0]]]), torch.tensor([[[0.0, 99.0]]])
    >>> co_attend(f, torch.ones(1, 2).bool(), g, torch.ones(1, 1).bool()).c   # the second window resembles g
    tensor([[[ 0., 99.]]])
    """
    counts_PT = in_PT & in_PU.any(1, keepdim=True)
    score_PTU = g_PTD @ f_PUD.mT / f_PUD.shape[2] ** 0.5
    A_PTU = masked_softmax(score_PTU, in_PU[:, None])
    return Paired((A_PTU @ f_PUD) * counts_PT[:, :, None], g_PTD, counts_PT)


METHOD = TCoN
