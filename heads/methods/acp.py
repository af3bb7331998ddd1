"""Adaptive cross-modal prototypes [ACP: Liu et al. 2021, CVPR]: retrieval where the target has no captions.

    L = L_R + λ_s L_s + λ_t L_t + λ_mi (L_MI(source) + L_MI(target))                                       Eq. 8

    y(n) = softmax_n(cos(l, L_n)/τ),  a(k) = softmax_k(cos(v, V_k)/τ)              keels, static           Eq. 2
    ŷ(n) = softmax_n(cos(E, K_n)/τ),  â(k) = softmax_k(cos(E_v, W_k)/τ)            prototypes, learnt      Eq. 3, 4
    L_s = KL(y_l ‖ ŷ_l) + KL(y_l ‖ ŷ_v),   L_t = KL(a_v ‖ â_v)                     source, target          Eq. 5, 6
    L_MI = -E_P log σ(D(â_v, ŷ_v)) - E_N log(1 - σ(D(â_v, ŷ_v'))),   D = âᵀ W_mi ŷ                          Eq. 7

N text keels L_n are centroids of the source's sentence embeddings l. K visual keels V_k are centroids of the target's
cached descriptors v (`_keels.py`). The prototypes K_n and W_k, rows of the source and the target prototype network,
keep the structure of the keels. E_v, E_l are the net's embeddings, L_R its ranking loss. Both networks take the clips
of both domains, and D scores whether two assignments belong to one clip.

Ablations (Table 4) set a λ to 0, which also removes a network that no term would train. `Params()` is the printed form
except for the mean in L_R, `PRINTED` has the printed sum (detail 6), and `SHARP` is our own form in which the
assignments are not nearly uniform.

Implementation details, in the order of the points that the paper leaves open
  1. The paper has no τ, and cosines lie in [-1, 1]: soft assignments to 512 keels are nearly uniform, KL is 0.01 to
     0.04, D stays at 0, and L_MI at 2 ln 2. With τ = 0.1 KL is about 2. `scaled` gives D the difference between an
     assignment and the uniform one, (Kâ - 1)/√K and (Nŷ - 1)/√N. D is still small: with M = 2304, N = 512, K = 1024,
     |D| is 0.001 before training, and 0.00002 as printed; only trained prototypes and W_mi make it larger.
  2. Eq. 7 is printed without its minus; minimising it as printed would favour chance.
  3. Sec. 3.4 swaps the names of the assignments: ŷ (N) is the source network's, â (K) the target network's.
  4. α in Eq. 6 is a.
  5. λ, m, M, optimiser, steps and the sentence encoder are not in the paper. λ = 1; the run and the net set the rest.
     With τ = 0.1 the terms are so large that λ = 1 can outweigh L_R (data_manifests/pairs.md): try 0.03, 0.1.
  6. L_R is the mean over the 2B(B-1) hinge terms of the negative pairs, as in CE's code; Eq. 1 prints their sum divided
     by B. `reduction="sum"` (`PRINTED`) is the printed form: L_R, and its weight against the other terms, grow by the
     factor 2(B-1), 126 for B = 64. With Adam, which removes the scale of a loss, this is the same as λ / (2(B-1)); with
     SGD it also is a larger learning rate for L_R. Our λ are for the mean. The sums over rows in Eq. 8 are means.
  7. The paper's text claims that ACP wins everywhere; its tables show otherwise.
  8. Its rivals MMD, CORAL, OT align E_v; 9. CDAN gets the visual keel assignment (`cdan_keels`); 10. the splits are
     those of the benchmarks.
 11. Negative pairs are a clip's â and the ŷ of the next row in its domain's batch, unless both rows are one clip.
 12. k-means: the best of five k-means++ starts, 100 iterations, one seed for all runs. Each descriptor is scaled to
     length 1 before they are concatenated, because the longest would hide the others. A missing descriptor is 0.
 13. KL are means over the rows that have both compared modalities. The checkpoint holds the keels and the sha256 of
     their rows.
 14. More keels than rows are refused. K = 1024 for MSVD's 1200 clips, as published, causes a warning.
Shapes: B rows of a batch, M features, N text keels, K visual keels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heads.batch import Batch, Side, Spec, Sweep, gather
from heads.losses.prototypes import divergence, log_assignment, mutual_information
from heads.losses.ranking import REDUCTIONS
from heads.methods import Method
from heads.methods._aligned import rows_of
from heads.methods._keels import find_visual, text_keels, visual_keels, visual_vector
from heads.nets import Net, Retrieval
from heads.params import added, within


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of ACP."""

    lambda_s: float = within(1.0, 0)  #: λ_s (λ_1), weight of the text keels' structure; 0: without [ours]
    lambda_t: float = within(1.0, 0)  #: λ_t (λ_2), weight of the visual keels' structure; 0: without [ours]
    lambda_mi: float = within(1.0, 0)  #: λ_mi (λ_3), weight of the mutual information of assignments; 0: without [ours]
    N: int = within(512, 1)  #: N, text keels and source prototypes [paper, Sec. 4]
    K: int = within(1024, 1)  #: K, visual keels and target prototypes [paper, Sec. 4]
    temperature: float = within(1.0, 0, above=True)  #: τ of all assignments; 1 as printed, without τ [paper]
    scaled: bool = False  #: D takes the difference of assignments from uniform ones [paper: as printed]
    keel_text: str = ""  #: caption modality of the text keels, a sentence embedding; empty: the run's first [ours]
    reduction: str = added("mean", before="mean")  #: hinge terms of L_R: mean | sum (divided by B, Eq. 1) [code: CE]


PRINTED = Params(reduction="sum")  #: the printed L_R: detail 6; `--set method.reduction=sum`
SHARP = Params(lambda_s=0.03, lambda_t=0.03, lambda_mi=0.03, temperature=0.1, scaled=True)  #: see detail 1


class Acp(Method):
    """Prototypes that keep the structure of each modality and agree on a clip in both domains."""

    needs = ("source", "target")
    tasks = ("retrieval",)

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        p = params
        self.has_s, self.has_t, self.has_mi = p.lambda_s > 0, p.lambda_t > 0, p.lambda_mi > 0
        if p.reduction not in REDUCTIONS:
            raise ValueError(f"no method.reduction {p.reduction!r}; choose from {', '.join(REDUCTIONS)}")
        self.keel_text = p.keel_text or spec.captions[0]
        if self.keel_text not in spec.captions:
            raise ValueError(
                f"no caption modality {p.keel_text!r} for method.keel_text; choose from {', '.join(spec.captions)}"
            )
        if p.lambda_s or p.lambda_mi:
            self.P_s = prototypes(p.N, net.dim)
        if p.lambda_t or p.lambda_mi:
            self.P_t = prototypes(p.K, net.dim)
        if p.lambda_mi:
            self.W_mi = nn.Parameter(torch.rand(p.K, p.N).mul_(2).sub_(1).div_(p.N**0.5))  # as a linear layer
        if p.lambda_s:
            self.text_keels = text_keels(spec, self.keel_text, p.N, p.temperature)
        if p.lambda_t:
            self.visual_keels = visual_keels(spec, p.K, p.temperature)

    def begin_epoch(self, epoch: int, sweep: Sweep) -> None:
        """Compute the keels, once."""
        p = self.params
        if epoch:
            return
        if p.lambda_s:
            l_ND = gather(sweep("captions"), lambda side: {"l": side.pool(self.keel_text).flatten(1)})["l"]
            self.text_keels.find(l_ND, self.shared)
        if p.lambda_t:
            find_visual(self.visual_keels, self.spec, sweep, self.shared)

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_R on the source, and the terms whose λ is not 0."""
        assert isinstance(self.net, Retrieval)  # `tasks`
        p, (s, t) = self.params, batch.both()
        f_s, f_t = self.net.encode_both(s, t)
        terms = self.net.loss(f_s, s, p.reduction)
        v_s, v_t = rows_of(self.spec, s, "visual"), rows_of(self.spec, t, "visual")
        if self.has_s:
            y_BN = self.text_keels(s.pool(self.keel_text).flatten(1))
            l_s = s.has(self.keel_text)
            y_l, y_v = (log_assignment(f_s[name], self.P_s, p.temperature) for name in ("text", "visual"))
            terms["L_s"] = p.lambda_s * (divergence(y_BN, y_l, l_s) + divergence(y_BN, y_v, l_s & v_s))
        if self.has_t:
            a_BK = self.visual_keels(visual_vector(self.spec, t))
            a_v = log_assignment(f_t["visual"], self.P_t, p.temperature)
            terms["L_t"] = p.lambda_t * divergence(a_BK, a_v, v_t)
        if self.has_mi:
            sides = ((s, f_s["visual"], v_s), (t, f_t["visual"], v_t))
            terms["L_MI"] = p.lambda_mi * torch.stack([self.information(*side) for side in sides]).sum()
        return terms

    def information(self, side: Side, v_BM: Tensor, in_B: Tensor) -> Tensor:
        """Return L_MI of the clips of one domain; in_B marks the rows with a clip."""
        other = in_B & in_B.roll(-1) & (side.index != side.index.roll(-1))
        return mutual_information(self.D(v_BM, v_BM), self.D(v_BM, v_BM.roll(-1, 0)), in_B, other)

    def D(self, v_BM: Tensor, u_BM: Tensor) -> Tensor:
        """Return D's scores of â_v and ŷ_u, row by row (B,): larger where v and u look like one clip."""
        tau = self.params.temperature
        a_BK, y_BN = log_assignment(v_BM, self.P_t, tau).exp(), log_assignment(u_BM, self.P_s, tau).exp()
        if self.params.scaled:
            a_BK, y_BN = ((q.shape[1] * q - 1) / q.shape[1] ** 0.5 for q in (a_BK, y_BN))
        return ((a_BK @ self.W_mi) * y_BN).sum(1)


def prototypes(rows: int, dim: int) -> nn.Parameter:
    """Draw random directions; their length does not change cosines."""
    return nn.Parameter(torch.randn(rows, dim).div_(dim**0.5))  # in place: `/` on "meta" imports torch's compiler


METHOD = Acp
