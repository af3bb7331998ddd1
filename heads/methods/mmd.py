"""Maximum mean discrepancy with several Gaussian kernels [Long et al. 2015, DAN], of widths measured on the batch.

    L = L_C + λ_mmd Σ_m MMD²(f_m of the source, f_m of the target)
    MMD²(s, t) = E k(s, s') + E k(t, t') - 2 E k(s, t),   k(x, y) = Σ_g exp(-‖x - y‖² / (γ 2^g))

f_m are the features of modality m; the 12 kernels have g from -8 to 8 in steps of √2. γ is the mean ‖x - y‖² over the
pairs of rows of the batch, both domains together, as a constant.

Implementation details
  1. The steps of g are those of MM-SADA's code, which has a fixed γ = 9.7, for I3D features with free norms; the papers
     state neither. The kernels span a factor of 47,000 in ‖x - y‖². With the fixed γ no gradient is left where all
     ‖x - y‖² exceed 20,000, as for features of norms above 100. `gamma=mmd.MM_SADA` in the tables of papers that quote
     MM-SADA is the fixed γ. DAN has the median of ‖x - y‖²; the factor between mean and median is within the span of g.
  2. λ_mmd = 1: MM-SADA's code has 0.2, with a cross entropy of weight 0.2.
  3. The estimate is biased: it includes pairs of a row with itself, and is 0 or more.
  4. Several source domains count as one source. With several label kinds, their features are aligned as one vector.
  5. Rows that lack m count in no mean of m.
Deviation: features are frozen, so the encoder is the net's own layer; the papers also train the backbone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from heads.batch import Batch
from heads.losses.moments import mmd
from heads.methods import Method
from heads.methods._aligned import aligned
from heads.params import within

MM_SADA = 9.7  #: the fixed γ of MM-SADA's code


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of MMD."""

    lambda_mmd: float = within(1.0, 0)  #: λ_mmd, weight of MMD², summed over modalities [code: MM-SADA, relative]
    gamma: float = within(0.0, 0)  #: γ, middle of the kernels' widths, in units of ‖x - y‖²; 0: from the batch [ours]


class Mmd(Method):
    """Equal distributions of features on both sides, as measured by the kernels."""

    needs = ("source", "target")
    tasks = ("classification", "retrieval")

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, L_mmd between the sides."""
        p, (s, t) = self.params, batch.both()
        f_s, f_t = self.net.encode_both(s, t)
        each = [mmd(*pair, p.gamma) for pair in aligned(self.spec, s, f_s, t, f_t).values()]
        return {**self.net.loss(f_s, s), "L_mmd": p.lambda_mmd * torch.stack(each).sum()}


METHOD = Mmd
