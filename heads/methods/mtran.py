"""MTRAN's target stage, source-free [MTRAN: ACM MM 2022, Sec. 3.2, 3.3]: a trained net adapts to unlabelled clips.

    L = L_im + λ_1 L_ss + λ_2 L_mra + λ_3 L_tra                                                               Eq. 13

    L_im  = mean_i H(p_i) - H(mean_i p_i)                                                                     Eq. 6
    L_ss  = mean_i -log p_i(y_i),   y_i = argmax_k cos(f_i, c_k),   c_k = Σ_i p_i(k) f_i / Σ_i p_i(k)     Sec. 3.3.2
    X~ = λ X_high + (1-λ) X_low,    λ = max softmax(l', 1-l')              synthetic clip                     Eq. 7
    f^ = μ f_high + (1-μ) f_low,    μ = max softmax(l'/τ, (1-l')/τ)        hypothetical clip; same for A^     Eq. 8, 10
    L_mra = Σ_{m, fused} mean ‖f~ - f^‖,   L_tra = Σ_{m, l} mean KL(A~ ‖ A^)                                  Eq. 9, 11

"high" and "low" are clips of high and of low confidence: the halves of the target by entropy, under the source's
classifier. l' ~ Beta(α, α), one per pair. f~ and A~ are the net's features and attention maps of X~. Because μ > λ, the
hypothetical clip is a little nearer to the confident parent, which resembles the source more.

The source stage is `source_only` on the same net (its L_C is Eq. 12), and `init_from` names it. The classifier stays
the source's; transformers and fusion learn. The paper's ablations and rivals (Tables 4 to 7):

    w/o RA (equal to its SHOT row)   lambda_2=0, lambda_3=0     M-MMD         align="mmd"
    w/o TRA                          lambda_3=0                 MT-Absolute   align="absolute"
    w/o MRA                          lambda_2=0                 MT-Mix        align="mix"

Implementation details
  1. Eq. 6 and Eq. 11 as printed maximise entropy and divergence; the text minimises both, as here.
  2. Sums over the target are means over a batch, because the λ are suitable for means only.
  3. Pseudo-labels and halves are those of the whole target in eval mode, again in each epoch (not in the paper; SHOT's
     code does this). There is one round of clustering.
  4. Each half of the target fills a half of each batch, and pair i is row i of both (not in the paper). L_im and L_ss
     use all rows.
  5. The hypothetical clip takes no gradient: "push the synthetic sample to be similar to the hypothetical sample".
  6. KL is the mean over a clip's windows, summed over layers and modalities (not in the paper).
  7. M-MMD: MMD² between the high and the low rows of the batch, per modality and fused, with weight λ_2, "instead of
     using the proposed multimodal relative alignment"; L_tra stays. The paper names no kernel; here they are those of
     MM-SADA's code, with γ the mean ‖x - y‖² of the rows.
  8. MT-Absolute: μ = 1. MT-Mix: cross entropy of the synthetic clip on both parents' pseudo-labels, weighted by λ and
     1-λ, replaces both alignments; the paper states no weight for it, here it is λ_2.
  9. A pair counts for a modality if both clips have it, in the windows that both have (A^ may still attend to a window
     that only one of them has), and for the fused feature if both clips have the same modalities.
 10. With several label kinds, L_im and L_ss are summed over them, centroids lie in each kind's part of f, and the
     halves are split by the sum of the entropies.
 11. L_mra is 0 if all clips have the same features. On a target that the source's net classifies badly, λ_2 = 1 can
     drive the fused features to 0, and all clips to one class (the run reports `collapsed`). A smaller λ_2 avoids this;
     the paper has 0.05 on EPIC-Kitchens.
Shapes: N rows of the target, B of a batch, P = B/2 pairs, J label kinds, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from heads import noise
from heads.batch import Batch, Side, Spec, Sweep, gather
from heads.cluster import centroid_labels
from heads.losses.entropy import entropy, information
from heads.losses.moments import mmd
from heads.losses.relative import feature_distance, mean_where, mix, mixing_factor, relation_divergence
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.nets import Net, mtran
from heads.params import within

ALIGN = ("relative", "absolute", "mmd", "mix")


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of MTRAN's target stage."""

    lambda_1: float = within(3.0, 0)  #: λ_1, weight of pseudo-labels; 0.5 on EPIC-Kitchens [paper]
    lambda_2: float = within(1.0, 0)  #: λ_2, weight of multimodal relative alignment; 0.05 on EPIC-Kitchens [paper]
    lambda_3: float = within(0.05, 0)  #: λ_3, weight of temporal relative alignment [paper]
    alpha: float = within(0.85, 0, above=True)  #: α of Beta(α, α), the distribution of l' [paper]
    tau: float = within(0.9, 0, 1, above=True)  #: τ; below 1, the hypothetical clip is nearer the confident one [paper]
    align: str = "relative"  #: relative | absolute (MT-Absolute) | mmd (M-MMD) | mix (MT-Mix) [paper]


class Mtran(Method):
    """Adaptation of the transformers and the fusion of net `mtran`."""

    needs = ("target", "init_from")
    net: mtran.Mtran
    labels: Tensor

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        if not isinstance(net, mtran.Mtran):
            raise ValueError("method mtran aligns attention maps, which this net does not have; use net mtran")
        if spec.rows["target"] < 2:
            raise ValueError(
                f"method mtran halves the target by confidence, and {spec.rows['target']} rows are too few; "
                "give it two or more"
            )
        if params.align not in ALIGN:
            raise ValueError(f"no method.align {params.align!r}; choose from {', '.join(ALIGN)}")
        net.classifier.requires_grad_(False)
        self.aligns = params.lambda_2 > 0 or params.lambda_3 > 0
        labels_NJ = torch.zeros(spec.rows["target"], len(spec.classes), dtype=torch.int64)
        self.register_buffer("labels", labels_NJ, persistent=False)

    def begin_epoch(self, epoch: int, sweep: Sweep) -> dict[str, list[Tensor]]:
        """Label the target, and divide it into the half of low entropy and the half of high entropy."""
        f = gather(sweep("target"), lambda side: {"fused": self.net.encode(side)["fused"]})
        p = {label: z_NK.softmax(1) for label, z_NK in self.net.classify(f).items()}
        y = [centroid_labels(p[label], f["fused"][:, part]) for label, part in self.net.parts.items()]
        self.labels = torch.stack(y, 1)
        order = torch.stack([entropy(p_NK) for p_NK in p.values()]).sum(0).argsort(stable=True)
        half = len(order) // 2
        return {"target": [order[:half], order[half:]]}

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_im, L_ss and, unless λ_2 = λ_3 = 0, the terms of `align`."""
        p, t = self.params, batch.target_side
        f, A = self.net.attend(t)
        z = self.net.classify(f)
        y = dict(zip(self.net.parts, self.labels[t.index].unbind(1), strict=True))
        terms = {
            "L_im": torch.stack([information(z_BK.softmax(1)) for z_BK in z.values()]).sum(),
            "L_ss": p.lambda_1 * label_cross_entropy(z, y),
        }
        if self.aligns:
            terms |= self.alignment(t, f, A, y)
        return terms

    def alignment(self, t: Side, f: dict[str, Tensor], A: dict[str, Tensor], y: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return L_mra and L_tra, or their replacements; f, A and y are those of the batch."""
        p, P = self.params, len(t.index) // 2
        high, low = slice(P), slice(len(t.index) - P, None)
        l_P = noise.beta(p.alpha, p.alpha, P, like=f["fused"])
        lam_P = mixing_factor(l_P)
        mu_P = torch.ones_like(l_P) if p.align == "absolute" else mixing_factor(l_P, p.tau)

        both = {m: present_BT[high] & present_BT[low] for m, present_BT in t.present.items()}
        either = {m: (present_BT[high] | present_BT[low]).any(1) for m, present_BT in t.present.items()}
        rows = {m: both_PT.any(1) for m, both_PT in both.items()}
        rows["fused"] = torch.stack([rows[m] == either[m] for m in both]).all(0)
        x = {m: mix(lam_P, x[high], x[low]) for m, x in t.x.items()}
        f_syn, A_syn = self.net.attend(Side(x, both, {}, t.domain[high], t.index[high]))

        if p.align == "mix":
            each_P = lam_P.new_zeros(P)
            for label, z_PK in self.net.classify(f_syn).items():
                high_P, low_P = (cross_entropy(z_PK, y[label][half], reduction="none") for half in (high, low))
                each_P = each_P + mix(lam_P, high_P, low_P)
            return {"L_mix": p.lambda_2 * mean_where(each_P, rows["fused"])}

        A_hyp = {m: mix(mu_P, A_m[high], A_m[low]).detach() for m, A_m in A.items()}
        L_tra = torch.stack([relation_divergence(A_syn[m], A_hyp[m], both[m]) for m in A]).sum()
        if p.align == "mmd":
            has = {m: t.has(m) for m in t.x} | {"fused": torch.ones_like(t.index, dtype=torch.bool)}
            apart = [mmd(f[k][high], f[k][low], has[k][high], has[k][low], gamma=0) for k in f]
            return {"L_mmd": p.lambda_2 * torch.stack(apart).sum(), "L_tra": p.lambda_3 * L_tra}
        f_hyp = {k: mix(mu_P, f_k[high], f_k[low]).detach() for k, f_k in f.items()}
        L_mra = torch.stack([feature_distance(f_syn[k], f_hyp[k], rows[k]) for k in f]).sum()
        return {"L_mra": p.lambda_2 * L_mra, "L_tra": p.lambda_3 * L_tra}


METHOD = Mtran
