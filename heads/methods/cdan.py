"""Conditional domain-adversarial networks [CDAN: Long et al. 2018, NeurIPS], and CDAN+E.

    L = L_C + Σ_m L_d(m)      L_d(m) = -E_s w log D_m(f_m ⊗ p)_source - E_t w log D_m(f_m ⊗ p)_target
    CDAN: w = 1               CDAN+E: w = 1 + exp(-H(p)), divided by its mean

p are the class probabilities of all modalities together, f_m the features of modality m, ⊗ the outer product: D_m takes
the features given the class. As in DANN, a gradient reversal of coefficient λ_d (2 / (1 + exp(-10 p)) - 1) lies between
f_m ⊗ p and the encoder; there p is the progress of the run.

Implementation details
  1. If f ⊗ p has more than 4096 entries, (R_f f) ⊙ (R_p p) / √1024 replaces it, with fixed normal R_f, R_p of 1024
     rows: this keeps the inner products of f ⊗ p in expectation. Modalities share R_f, as they share p.
  2. p and w take no gradient, and w has mean 1 over the rows of both sides together (Transfer-Learning-Library). In the
     authors' code the reversed gradient reaches the entropy, and each side is normalised separately.
  3. D_m: inputs -> 100 -> ReLU -> 2, as in method `dann`. The authors have 1024 -> 1024 behind a bottleneck of 256 with
     batch normalisation. λ_d = 1 is their trade-off.
  4. The expectations are one mean over the rows of both sides that have m; several source domains count as one source.
  5. With several label kinds, each has its own p, its part of the features and its discriminators; the L_d are added.
Deviation: features are frozen, so the encoder is the net's own layer; the paper also trains the backbone.
Shapes: S, T rows of the sides, D features, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heads.batch import Batch, Spec
from heads.losses.entropy import entropy
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.methods._adversarial import Joint, discriminator, domain_loss
from heads.methods._aligned import shared
from heads.nets import Net
from heads.params import within
from heads.parts import widths
from heads.schedules import dann


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of CDAN."""

    lambda_d: float = within(1.0, 0)  #: λ_d, peak coefficient of the gradient reversal [code]
    entropy: bool = False  #: +E: rows with certain predictions weigh up to twice as much [paper: CDAN]


class Cdan(Method):
    """Features whose domain a discriminator cannot predict, given their class."""

    needs = ("source", "target")

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        width = widths(net.dim, net.parts)
        joint = {label: Joint(width[label], classes) for label, classes in spec.classes.items()}
        self.joint = nn.ModuleDict(joint)
        self.D = nn.ModuleDict(
            {f"{m}:{label}": discriminator(joint[label].width) for m in spec.shapes for label in joint}
        )

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, L_d between the sides."""
        s, t = batch.both()
        f_s, f_t = self.net.encode_both(s, t)
        z_s, z_t = self.net.classify_both(f_s, f_t)
        L_C = label_cross_entropy(z_s, s.y)

        coefficient = self.params.lambda_d * dann(progress)
        L_d = L_C.new_zeros(())
        for label, part in self.net.parts.items():
            p_SK, p_TK = z_s[label].softmax(1).detach(), z_t[label].softmax(1).detach()
            w_S, w_T = (1 + torch.exp(-entropy(p)) if self.params.entropy else p.new_ones(len(p)) for p in (p_SK, p_TK))
            for m in shared(s, t):
                h_SI, h_TI = self.joint[label](f_s[m][:, part], p_SK), self.joint[label](f_t[m][:, part], p_TK)
                D = self.D[f"{m}:{label}"]
                L_d = L_d + domain_loss(D, h_SI, h_TI, w_S * s.has(m), w_T * t.has(m), coefficient)
        return {"L_C": L_C, "L_d": L_d}


METHOD = Cdan
