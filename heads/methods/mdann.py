"""A surrogate of MDANN, multimodal domain adaptation networks [Qi et al. 2018, ACM MM]: attention and discriminators.

    L = L_C + Σ_m L_d(f_m) + L_d([g_1; ..; g_M]) + L_d(a)          single modalities, fused features, attention scores
    g_m = M a_m f_m,   a_m = softmax over m of u_m · f_m + v_m
    L_d(h) = -E_s log D(h)_source - E_t log D(h)_target

f_m are the features of modality m, a the attention of a row to its M modalities; the net classifies g, in tests too.
Each L_d has its own discriminator behind a gradient reversal of coefficient λ_d (2 / (1 + exp(-10 p)) - 1), as in DANN;
p is the progress of the run.

We know the paper only by its abstract: (1) "a covariant multimodal attention" for a common representation, (2) a fusion
module that "adaptively fuses attended features", (3) "hybrid domain constraints" on "single modal features, fused
features, and attention scores". The three kinds of constraints are here; the replacements of (1) and (2) are our own.

Implementation details
  1. M counts the modalities that a row has, and a is a softmax over these: with equal attention g is f.
  2. u and v are 0 at first, so training begins with equal attention. The fused features are the concatenated g, with 0
     for an absent modality. With one modality a is always 1, and the method is DANN with two discriminators.
  3. D: inputs -> 100 -> ReLU -> 2. Encoders get gradients from the D of their modality and of the fused features: λ_d =
     0.5 each gives DANN's 1 together.
  4. With several label kinds, attention and discriminators take their features as one vector.
Deviation: features are frozen, so the encoder is the net's own layer.
Shapes: B rows, M modalities, D features.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn, stack

from heads.batch import Batch, Side, Spec
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.methods._adversarial import discriminator, domain_loss
from heads.methods._aligned import shared
from heads.nets import Net
from heads.params import within
from heads.schedules import dann


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of MDANN."""

    lambda_d: float = within(0.5, 0)  #: λ_d, peak coefficient of the gradient reversal [ours]


class Attended(NamedTuple):
    """Features and attention of one side, which the domain losses constrain."""

    f: dict[str, Tensor]  #: modality -> features (B, D)
    a: Tensor  #: (B, M) attention, in the order of Spec.shapes; rows sum to 1, with 0 for absent modalities
    g: dict[str, Tensor]  #: modality -> attended features (B, D)
    fused: Tensor  #: all g (B, M D)


class Mdann(Method):
    """Attention to the modalities that is also aligned between the domains."""

    needs = ("source", "target")
    surrogate = (
        "softmax attention over modalities for the paper's covariant attention and fusion, known by its abstract"
    )

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        M = len(spec.shapes)
        self.u = nn.ModuleDict({m: nn.Linear(net.dim, 1) for m in spec.shapes})
        for score in self.u.parameters():
            nn.init.zeros_(score)
        self.D = nn.ModuleDict({m: discriminator(net.dim) for m in spec.shapes})
        self.D_fused, self.D_a = discriminator(M * net.dim), discriminator(M)

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source; L_d of modalities, fused features and attention between the sides."""
        s, t = batch.both()
        f_s, f_t = self.net.encode_both(s, t)
        a_s, a_t = self.attend(s, f_s), self.attend(t, f_t)
        L_C = label_cross_entropy(self.net.classify(a_s.g), s.y)
        c = self.params.lambda_d * dann(progress)
        each = [domain_loss(self.D[m], a_s.f[m], a_t.f[m], s.has(m), t.has(m), c) for m in shared(s, t)]
        all_s, all_t = (torch.ones_like(side.index, dtype=torch.bool) for side in (s, t))
        return {
            "L_C": L_C,
            "L_d": stack(each).sum(),
            "L_d_fused": domain_loss(self.D_fused, a_s.fused, a_t.fused, all_s, all_t, c),
            "L_d_a": domain_loss(self.D_a, a_s.a, a_t.a, all_s, all_t, c),
        }

    def features(self, side: Side) -> dict[str, Tensor]:
        """Return the attended features."""
        return self.attend(side, self.net.encode(side)).g

    def attend(self, side: Side, f: dict[str, Tensor]) -> Attended:
        """Return the features of a side, its attention, and its attended features."""
        zeros_BD = torch.zeros_like(next(iter(f.values())))
        all_f = {m: f.get(m, zeros_BD) for m in self.spec.shapes}
        has_BM = stack([side.has(m) if m in f else torch.zeros_like(side.has(next(iter(f)))) for m in all_f], 1)
        score_BM = torch.cat([self.u[m](f_BD) for m, f_BD in all_f.items()], 1)
        least = torch.finfo(score_BM.dtype).min  # not -inf: a row without any modality would be NaN
        a_BM = score_BM.masked_fill(~has_BM, least).softmax(1) * has_BM
        weight_BM = a_BM * has_BM.sum(1, keepdim=True)
        g = {m: weight_BM[:, k : k + 1] * f_BD for k, (m, f_BD) in enumerate(all_f.items())}
        return Attended(f, a_BM, {m: g[m] for m in side.x}, torch.cat(list(g.values()), 1))


METHOD = Mdann
