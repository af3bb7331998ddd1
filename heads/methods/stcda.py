"""A surrogate of STCDA, spatio-temporal contrast [Song et al. 2021, CVPR], on cached windows, known by its abstract.

    L = L_C + λ_c Σ_{d in s, t} (L_clip(d) + L_video(d)) + λ_v Σ_m L_vca(m)
    L_clip(d)  = ½ Σ_{k≠l} mean over windows of -log( Σ_{own clip} φ(f_it^k, f_ju^l) / Σ_{j, u} φ(f_it^k, f_ju^l) )
    L_video(d) = ½ Σ_{k≠l} mean over clips of -log( φ(v_i^k, v_i^l) / Σ_j φ(v_i^k, v_j^l) )
    L_vca(m)   = mean over classes of -log( φ(c_t^y, c_s^y) / Σ_y' φ(c_t^y, c_s^y') )

φ(a, b) = exp(cos(a, b) / τ). f_it^k are the features in modality k of window t (the paper's clip) of clip i (its
video), v_i^k their mean, c_d^y the mean v of class y on side d. The losses move windows and clips nearer to the same
clip in another modality than to other clips of the batch, and classes of the target near those of the source. The
target's classes come from clustering.

We know the paper only by its abstract: "clip/video pairs with positive or negative properties" for contrastive learning
that is self-supervised, and a "video-based contrastive alignment (VCA), to optimize the category-aware video-level
alignment". The equations are our own, after XMC's L_mo and InfoNCE over classes; the backbone is not trained.

Implementation details
  1. The whole target is clustered in eval mode, again in each epoch: by the nearest mean of a source class (cosine),
     then by the nearest mean of the target rows so labelled, on the concatenated features of all modalities.
  2. Negatives come from the batch, also from the same class, because the contrast uses no labels. Means c are over the
     rows of the batch, for the classes that both sides have there.
  3. λ_c = λ_v = 0.1 and τ = 0.1 are our own. There is no projection head.
  4. A clip is classified by the mean of its windows' features. With one modality, L_clip and L_video are 0.
  5. With several label kinds, the L_vca of each kind's part of the features are added. The net must have late fusion.
  6. Give the adapter `act="none"`: after a ReLU no cosine is negative.
Shapes: B rows, T windows, N rows of a side, K classes, D features.
"""

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from heads.batch import Batch, Side, Spec, Sweep, gather, members
from heads.cluster import centroid_labels
from heads.losses.contrastive import contrast
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.methods._aligned import shared
from heads.methods._windows import videos, window_features, window_features_both
from heads.nets import Net
from heads.params import within


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of the surrogate of STCDA."""

    lambda_c: float = within(0.1, 0)  #: λ_c, weight of the contrast between modalities, of windows and of clips [ours]
    lambda_v: float = within(0.1, 0)  #: λ_v, weight of the alignment of classes [ours]
    tau: float = within(0.1, 0, above=True)  #: τ, temperature of cosines [ours]


class Stcda(Method):
    """Contrast of windows and clips across modalities, and of classes across domains."""

    needs = ("source", "target")
    surrogate = "contrast of cached windows, with our own losses, replaces the paper's network, known by its abstract"
    labels: Tensor

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        labels_NJ = torch.zeros(spec.rows["target"], len(spec.classes), dtype=torch.long)
        self.register_buffer("labels", labels_NJ, persistent=False)

    def begin_epoch(self, epoch: int, sweep: Sweep) -> None:
        """Label the target."""
        source, target = gather(sweep("source"), self.look), gather(sweep("target"), self.look)
        y = [
            cluster(source[label], one_hot(source[f"y {label}"], K).float(), target[label])
            for label, K in self.spec.classes.items()
        ]
        self.labels = torch.stack(y, 1)

    def look(self, side: Side) -> dict[str, Tensor]:
        """Return label -> concatenated features of all modalities (B, M D); "y LABEL" -> labels, if visible."""
        v = self.features(side)
        all_v = {m: v.get(m, torch.zeros_like(next(iter(v.values())))) for m in self.spec.shapes}
        return self.net.reads(all_v) | {f"y {label}": y_B for label, y_B in side.y.items()}

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, L_clip and L_video on both sides, L_vca between them."""
        p, (s, t) = self.params, batch.both()
        f_s, f_t = window_features_both(self.net, s, t)
        v_s, v_t = videos(s, f_s), videos(t, f_t)
        L_C = label_cross_entropy(self.net.classify(v_s), s.y)
        L_clip = cross_modal(f_s, s.present, p.tau) + cross_modal(f_t, t.present, p.tau)
        L_video = cross_modal(*as_windows(s, v_s), p.tau) + cross_modal(*as_windows(t, v_t), p.tau)
        y_t = dict(zip(self.spec.classes, self.labels[t.index].unbind(1), strict=True))
        L_vca = L_C.new_zeros(())
        for label, part in self.net.parts.items():
            for m in shared(s, t):
                K = self.spec.classes[label]
                in_SK, in_TK = (members(y[label], K) & side.has(m)[:, None] for side, y in ((s, s.y), (t, y_t)))
                c_s, c_t = in_SK.to(v_s[m]).T @ v_s[m][:, part], in_TK.to(v_t[m]).T @ v_t[m][:, part]
                both_K = in_SK.any(0) & in_TK.any(0)
                L_vca = L_vca + contrast(c_t, c_s, both_K.diag(), tau=p.tau, keys_N=both_K)
        return {"L_C": L_C, "L_clip": p.lambda_c * L_clip, "L_video": p.lambda_c * L_video, "L_vca": p.lambda_v * L_vca}

    def features(self, side: Side) -> dict[str, Tensor]:
        """Return the means of encoded windows."""
        return videos(side, window_features(self.net, side))


def cross_modal(f: dict[str, Tensor], present: dict[str, Tensor], tau: float) -> Tensor:
    """Contrast each window with all windows of the batch in another modality; windows of its own row are positives.

    f: modality -> (B, T, D), present: modality -> (B, T) bool. The result is half the sum over ordered pairs of
    modalities.
    """
    total = next(iter(f.values())).new_zeros(())
    for k, other in permutations(f, 2):
        row_A, row_N = (
            torch.arange(len(f[m]), device=total.device).repeat_interleave(f[m].shape[1]) for m in (k, other)
        )
        own_AN = (row_A[:, None] == row_N) & present[k].flatten()[:, None]
        keys_N = present[other].flatten()
        total = total + contrast(f[k].flatten(0, 1), f[other].flatten(0, 1), own_AN, tau=tau, keys_N=keys_N)
    return total / 2


def cluster(f_SD: Tensor, in_SK: Tensor, f_TD: Tensor) -> Tensor:
    """Return labels of the target (T,): by the nearest mean of a source class, then of the rows so labelled.

    >>> f_t = torch.tensor([[4.0, 0.0], [1.0, 0.9], [0.8, 1.0]])
    >>> cluster(torch.eye(2), torch.eye(2), f_t)   # the first source row is nearest to the second row, but not its own
    tensor([0, 1, 1])
    """
    S, K = in_SK.shape
    nearest_T = centroid_labels(torch.cat([in_SK, in_SK.new_zeros(len(f_TD), K)]), torch.cat([f_SD, f_TD]))[S:]
    return centroid_labels(one_hot(nearest_T, K).to(f_TD), f_TD)


def as_windows(side: Side, v: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return features (B, 1, D) and their masks (B, 1), by modality: a row's mean as its only window."""
    return {m: v_BD[:, None] for m, v_BD in v.items()}, {m: side.has(m)[:, None] for m in v}


METHOD = Stcda
