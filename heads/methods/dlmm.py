"""After DLMM, differentiated learning for multi-modal adaptation [Lv et al. 2021, ACM MM]: modalities as teachers.

    L = L_C + Σ_m L_C(m) + λ_t Σ_m L_t(m)               L_C of all modalities, and of each alone
    q_m(k | x) = softmax over k of cos(f_m, c_mk) / τ   c_mk: mean f_m of class k in the source, its prototype;
                                                        where learnt from the source without its mean f_m,
                                                        where asked, of the target's, without the target's
    r_m(x) = q_m(argmax_k p_m(k | x) | x)               reliability of what m says of a clip
    ŷ(x) = argmax_k p_m*(k | x),   m* = argmax_m r_m    teaching material: the most reliable result
    L_t(m) = mean over S_m of -log p_m(ŷ)               S_m: the share e Δ of the target with the largest q_m(ŷ)
    p(x) ∝ Σ_m r_m(x) p_m(x)                            prediction

Each modality m is a classifier of its own, p_m; all are teachers where they are reliable, and students elsewhere. Each
chooses its clips S_m from easy to hard, by its own prototypes (asynchronous curriculum), more of them in every epoch e.

The paper was known by its abstract, which names these parts: "a group of teacher/student sub-models", "Prototype based
Reliability Measurement", "Asynchronous Curriculum Learning", "reliability-aware fusion". Every equation above is ours.

Implementation details
  1. Prototypes, means, labels and S_m are of whole sides in eval mode, anew in each epoch. The first (e = 0) has no
     S_m: it learns from the source alone. Prototypes and the target's means are saved, for predictions need them.
  2. Prototypes are centred on the source's mean, clips on the target's: features behind a ReLU all point one way, and a
     domain shift would bring all clips to one prototype. On a small generated shift this made the difference.
  3. Clips that lack m are in no mean of m, not in S_m, and m has no reliability there.
  4. Each label kind has prototypes in its part of the features, teachers and curricula of its own; losses are added.
  5. It takes a net with late fusion.
Deviation: on frozen features the sub-models are the net's layers of each modality.
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

    lambda_t: float = within(1.0, 0)  #: λ_t, weight of the teaching material
    delta: float = within(0.1, 0, 1, above=True)  #: Δ, share of the target that each modality adds in an epoch
    tau: float = within(0.1, 0, above=True)  #: τ, temperature of cosines to prototypes


class Dlmm(Method):
    """Modalities that learn what the most reliable one says, the easiest clips first."""

    needs = ("source", "target")
    surrogate = "equations of ours for the reliability, curriculum and fusion that the paper's abstract names"
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
        """Prototypes of the source; teaching material of the target, and who learns which of it."""
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
            p_NMK, q_NMK = self.opinions(target, label)
            m_N = reliability(p_NMK, q_NMK, target[HAS]).argmax(1, keepdim=True)
            self.labels[:, j] = p_NMK.argmax(2).gather(1, m_N).squeeze(1)
            at_NM1 = self.labels[:, j, None, None].expand(-1, q_NMK.shape[1], 1)
            ease_NM = q_NMK.gather(2, at_NM1).squeeze(2).masked_fill(~target[HAS], -1)
            rank_NM = ease_NM.argsort(dim=0, descending=True, stable=True).argsort(dim=0)
            self.chosen[:, j] = rank_NM < share * target[HAS].sum(0)

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """L_C, L_C_m of each modality alone, L_t on the chosen rows of the target."""
        s, t = batch.both()
        f_s, f_t = self.net.encode(s), self.net.encode(t)
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

    def predict(self, side: Side) -> dict[str, Tensor]:
        """Logarithms of the modalities' probabilities, weighed by reliability."""
        seen, said = self.look(side), {}
        for label in self.spec.classes:
            p_BMK, q_BMK = self.opinions(seen, label)
            r_BM = reliability(p_BMK, q_BMK, seen[HAS])
            p_BK = (r_BM[:, :, None] * p_BMK).sum(1) / r_BM.sum(1, keepdim=True).clamp_min(TINY)
            said[label] = p_BK.clamp_min(TINY).log()
        return said

    def look(self, side: Side) -> dict[str, Tensor]:
        """Modality -> f_m (B, D), zeros where it is not there; HAS -> (B, M) bool; labels where there are any."""
        f = self.net.encode(side)
        none_BD = torch.zeros_like(next(iter(f.values())))
        none_B = torch.zeros_like(side.index, dtype=torch.bool)
        has_BM = stack([side.has(m) if m in f else none_B for m in self.spec.shapes], 1)
        labels = {f"y {label}": y_B for label, y_B in side.y.items()}
        return {m: f.get(m, none_BD) for m in self.spec.shapes} | {HAS: has_BM} | labels

    def opinions(self, seen: dict[str, Tensor], label: str) -> tuple[Tensor, Tensor]:
        """What each modality's classifier says, p, and what its prototypes say, q -> (B, M, K)."""
        j, K, part = list(self.spec.classes).index(label), self.spec.classes[label], self.net.parts[label]
        p, q = [], []
        for k, m in enumerate(self.spec.shapes):
            centred_BD = seen[m] - self.mean[k]
            cosine_BK = normalize(centred_BD[:, part]) @ normalize(self.prototypes[j, k, :K, part]).T
            p.append(self.net.classify({m: seen[m]})[label].softmax(1))
            q.append((cosine_BK / self.params.tau).softmax(1))
        return stack(p, 1), stack(q, 1)


def mean(f_ND: Tensor, in_NG: Tensor) -> Tensor:
    """Mean of the rows of each group (bool) -> (G, D); zeros where it has none.

    >>> mean(torch.tensor([[1.0], [3.0]]), torch.tensor([[True, False], [True, False]])).T
    tensor([[2., 0.]])
    """
    return in_NG.to(f_ND).T @ f_ND / in_NG.sum(0).clamp_min(1)[:, None]


def reliability(p_BMK: Tensor, q_BMK: Tensor, has_BM: Tensor) -> Tensor:
    """r: what the prototypes think of the class that the classifier says -> (B, M); 0 without the modality.

    >>> p, q = torch.tensor([[[0.9, 0.1], [0.2, 0.8]]]), torch.tensor([[[0.3, 0.7], [0.4, 0.6]]])
    >>> reliability(p, q, torch.tensor([[True, True]]))
    tensor([[0.3000, 0.6000]])
    """
    return q_BMK.gather(2, p_BMK.argmax(2, keepdim=True)).squeeze(2) * has_BM


METHOD = Dlmm
