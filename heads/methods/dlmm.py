"""A surrogate of DLMM, differentiated learning for adaptation [Lv et al. 2021, ACM MM]: modalities as teachers.

    L = L_C + Σ_m L_C(m) + λ_t Σ_m L_t(m)               L_C of all modalities, and of each modality
    q_m(k | x) = softmax over k of cos(f_m, c_mk) / τ   c_mk: prototype, the mean f_m of class k in the source, minus
                                                        the source's mean f_m; the f_m of a clip is taken minus the
                                                        target's mean f_m
    r_m(x) = q_m(argmax_k p_m(k | x) | x)               reliability of m's prediction for a clip
    ŷ(x) = argmax_k p_m*(k | x),   m* = argmax_m r_m    teaching material: the most reliable result
    L_t(m) = mean over S_m of -log p_m(ŷ)               S_m: the share e Δ of the target with the largest q_m(ŷ)
    p(x) ∝ Σ_m r_m(x) p_m(x)                            prediction

Each modality m has its own classifier p_m. Every modality is a teacher for the clips on which it is reliable, and a
student for the others. Each chooses its clips S_m from easy to hard by its own prototypes (asynchronous curriculum),
more of them in every epoch e.

We know the paper only by its abstract, which names these parts: "a group of teacher/student sub-models", "Prototype
based Reliability Measurement", "Asynchronous Curriculum Learning", "reliability-aware fusion". All equations above are
our own.

Implementation details
  1. Prototypes, means, labels and S_m come from whole sides in eval mode, again in each epoch. The first epoch (e = 0)
     has no S_m: it learns from the source only. Prototypes and the target's means are saved, because predictions need
     them.
  2. Prototypes are centred on the source's mean, clips on the target's. Features after a ReLU all point in a similar
     direction, and a domain shift would move all clips to one prototype. On a small generated shift the centring
     decided the result.
  3. Clips that lack m are in no mean of m and not in S_m, and m has no reliability for them.
  4. Each label kind has its own prototypes in its part of the features, its own teachers and curricula; losses are
     added.
  5. The net must have late fusion.
Deviation: features are frozen, so the sub-models are the net's layers of each modality.
Shapes: N rows of a side, B of a batch, M modalities, J label kinds, K classes, D features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, stack
from torch.nn.functional import normalize, one_hot

from heads.batch import Batch, Side, Spec, Sweep, gather
from heads.losses.entropy import TINY
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.nets import Net
from heads.params import within

HAS = "has a modality"  # no modality has a space in its name


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of the surrogate of DLMM."""

    lambda_t: float = within(1.0, 0)  #: λ_t, weight of the teaching material [ours]
    delta: float = within(0.1, 0, 1, above=True)  #: Δ, share of the target that each modality adds in an epoch [ours]
    tau: float = within(0.1, 0, above=True)  #: τ, temperature of cosines to prototypes [ours]


class Dlmm(Method):
    """Modalities that learn from the predictions of the most reliable one, the easiest clips first."""

    needs = ("source", "target")
    surrogate = "our own equations for the reliability, curriculum and fusion that the paper's abstract names"
    prototypes: Tensor
    mean: Tensor
    labels: Tensor
    chosen: Tensor

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        N, M, J, K = spec.rows["target"], len(spec.shapes), len(spec.classes), max(spec.classes.values())
        self.register_buffer("prototypes", torch.zeros(J, M, K, net.dim))
        self.register_buffer("mean", torch.zeros(M, net.dim))  # of the target
        self.register_buffer("labels", torch.zeros(N, J, dtype=torch.long), persistent=False)
        self.register_buffer("chosen", torch.zeros(N, J, M, dtype=torch.bool), persistent=False)

    def begin_epoch(self, epoch: int, sweep: Sweep) -> None:
        """Compute the source's prototypes and the target's labels, and choose the clips that each modality learns."""
        source, target = gather(sweep("source"), self.look), gather(sweep("target"), self.look)
        share = min(1.0, epoch * self.params.delta)
        for k, m in enumerate(self.spec.shapes):
            self.mean[k] = mean(target[m], target[HAS][:, k : k + 1])[0]
        for j, label in enumerate(self.spec.classes):
            is_class_NK = one_hot(source[f"y {label}"], self.prototypes.shape[2]).bool()
            for k, m in enumerate(self.spec.shapes):
                has_N1 = source[HAS][:, k : k + 1]
                in_NK = is_class_NK & has_N1
                centred_KD = mean(source[m], in_NK) - mean(source[m], has_N1)
                self.prototypes[j, k] = centred_KD * in_NK.any(0)[:, None]  # 0 for a class without rows: cosine 0
            p_NMK, q_NMK = self.probabilities(target, label)
            m_N = reliability(p_NMK, q_NMK, target[HAS]).argmax(1, keepdim=True)
            self.labels[:, j] = p_NMK.argmax(2).gather(1, m_N).squeeze(1)
            at_NM1 = self.labels[:, j, None, None].expand(-1, q_NMK.shape[1], 1)
            ease_NM = q_NMK.gather(2, at_NM1).squeeze(2).masked_fill(~target[HAS], -1)
            rank_NM = ease_NM.argsort(dim=0, descending=True, stable=True).argsort(dim=0)
            self.chosen[:, j] = rank_NM < share * target[HAS].sum(0)

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C, L_C_m of each single modality, L_t on the chosen rows of the target."""
        s, t = batch.both()
        f_s, f_t = self.net.encode_both(s, t)
        alone = [label_cross_entropy(self.net.classify({m: f_s[m]}), s.y, s.has(m)) for m in s.x]
        y_BJ, chosen_BJM = self.labels[t.index], self.chosen[t.index]
        taught = []
        for k, m in ((k, m) for k, m in enumerate(self.spec.shapes) if m in t.x):
            for j, (label, z_BK) in enumerate(self.net.classify({m: f_t[m]}).items()):
                rows_B = chosen_BJM[:, j, k] & t.has(m)
                taught.append(label_cross_entropy({label: z_BK}, {label: y_BJ[:, j]}, rows_B))
        return {
            "L_C": label_cross_entropy(self.net.classify(f_s), s.y),
            "L_C_m": stack(alone).sum(),
            "L_t": self.params.lambda_t * stack(taught).sum(),
        }

    def outputs(self, f: dict[str, Tensor], side: Side) -> dict[str, Tensor]:
        """Return the logarithm of the modalities' probabilities, averaged with their reliability as weight."""
        features, log_p = self.padded(f, side), {}
        for label in self.spec.classes:
            p_BMK, q_BMK = self.probabilities(features, label)
            r_BM = reliability(p_BMK, q_BMK, features[HAS])
            p_BK = (r_BM[:, :, None] * p_BMK).sum(1) / r_BM.sum(1, keepdim=True).clamp_min(TINY)
            log_p[label] = p_BK.clamp_min(TINY).log()
        return log_p

    def look(self, side: Side) -> dict[str, Tensor]:
        """Return the padded features of a side; "y LABEL" -> visible labels."""
        return self.padded(self.features(side), side) | {f"y {label}": y_B for label, y_B in side.y.items()}

    def padded(self, f: dict[str, Tensor], side: Side) -> dict[str, Tensor]:
        """Return modality -> f_m (B, D), zeros if it is missing; HAS -> (B, M) bool."""
        none_BD = torch.zeros_like(next(iter(f.values())))
        none_B = torch.zeros_like(side.index, dtype=torch.bool)
        has_BM = stack([side.has(m) if m in f else none_B for m in self.spec.shapes], 1)
        return {m: f.get(m, none_BD) for m in self.spec.shapes} | {HAS: has_BM}

    def probabilities(self, features: dict[str, Tensor], label: str) -> tuple[Tensor, Tensor]:
        """Return p of each modality's classifier and q of its prototypes -> (B, M, K) each."""
        j, K, part = list(self.spec.classes).index(label), self.spec.classes[label], self.net.parts[label]
        p, q = [], []
        for k, m in enumerate(self.spec.shapes):
            centred_BD = features[m] - self.mean[k]
            cosine_BK = normalize(centred_BD[:, part]) @ normalize(self.prototypes[j, k, :K, part]).T
            p.append(self.net.classify({m: features[m]})[label].softmax(1))
            q.append((cosine_BK / self.params.tau).softmax(1))
        return stack(p, 1), stack(q, 1)


def mean(f_ND: Tensor, in_NG: Tensor) -> Tensor:
    """Return the mean of the rows of each group (bool) -> (G, D); zeros for an empty group.

    >>> mean(torch.tensor([[1.0], [3.0]]), torch.tensor([[True, False], [True, False]])).T
    tensor([[2., 0.]])
    """
    return in_NG.to(f_ND).T @ f_ND / in_NG.sum(0).clamp_min(1)[:, None]


def reliability(p_BMK: Tensor, q_BMK: Tensor, has_BM: Tensor) -> Tensor:
    """Return r, the prototypes' probability of the classifier's predicted class -> (B, M); 0 without the modality.

    >>> p, q = torch.tensor([[[0.9, 0.1], [0.2, 0.8]]]), torch.tensor([[[0.3, 0.7], [0.4, 0.6]]])
    >>> reliability(p, q, torch.tensor([[True, True]]))
    tensor([[0.3000, 0.6000]])
    """
    return q_BMK.gather(2, p_BMK.argmax(2, keepdim=True)).squeeze(2) * has_BM


METHOD = Dlmm
