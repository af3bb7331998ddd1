"""Stepwise adaptive feature norm [SAFN: Xu et al. 2019, ICCV, "Larger Norm More Transferable"].

    L = L_C + λ_afn Σ_{d in s, t} Σ_m L_d(f_m) + λ_ent E_t H(p)      L_d(f) = E (‖f‖ - (sg ‖f‖ + Δr))²

f_m are the features of modality m, sg stops the gradient. The loss raises the norm of each row by Δr, on both sides,
because a classifier of the source is uncertain about rows of small norm. The value of L_d is always Δr².

Implementation details
  1. Means are taken per side and added, λ_afn = 0.05 and Δr = 1 (the authors' code; the paper has one mean over both).
  2. The norm is that of the classifier's input; with several label kinds, the losses of each kind's part are added.
  3. λ_ent = 0 is SAFN; above 0 it is the paper's SAFN+ENT, with the entropy of the fused prediction.
  4. Rows that lack m count in no term of m; several source domains count as one source.
  5. The authors' head has batch normalisation, and multiplies features by √0.5 in training, so that dropout does not
     change their mean square. Here the net is the run's. The adapter's features have the same norm in training and in
     tests; with dropout_at="features" and a dropout of 0.5, norms are about √2 larger in training.
Deviation: features are frozen, so the encoder is the net's own layer; the paper also trains the backbone.
"""

from dataclasses import dataclass

from torch import Tensor, stack

from heads.batch import Batch, Side, Spec
from heads.losses.adaptive_norm import stepwise_norm
from heads.losses.entropy import entropy
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.nets import Net
from heads.params import within


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of SAFN."""

    lambda_afn: float = within(0.05, 0)  #: λ_afn, weight of the norm's growth (the paper's λ) [code]
    delta_r: float = within(1.0, 0, above=True)  #: Δr, growth of each norm that the loss aims at [code]
    lambda_ent: float = within(0.0, 0)  #: λ_ent, weight of the target's entropy (+ENT) [paper: without +ENT]


class Safn(Method):
    """Norms that grow, row by row, on both sides."""

    needs = ("source", "target")

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        self.has_ent = params.lambda_ent > 0

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, L_afn on both sides, with λ_ent also L_ent on the target."""
        p, (s, t) = self.params, batch.both()
        f_s, f_t = self.net.encode_both(s, t)
        terms = {
            "L_C": label_cross_entropy(self.net.classify(f_s), s.y),
            "L_afn": p.lambda_afn * (self.growth(s, f_s) + self.growth(t, f_t)),
        }
        if self.has_ent:
            H_t = [entropy(z_BK.softmax(1)).mean() for z_BK in self.net.classify(f_t).values()]
            terms["L_ent"] = p.lambda_ent * stack(H_t).sum()
        return terms

    def growth(self, side: Side, f: dict[str, Tensor]) -> Tensor:
        """Return L_d of one side, summed over its modalities and the label kinds."""
        parts = self.net.parts.values()
        return stack(
            [stepwise_norm(f[m][:, part], side.has(m), self.params.delta_r) for m in side.x for part in parts]
        ).sum()


METHOD = Safn
