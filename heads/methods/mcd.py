"""Maximum classifier discrepancy [MCD: Saito et al. 2018, CVPR], on cached features.

    A   all     min  L_C + L_C'                          cross entropy of both classifiers, source
    B   C, C'   min  L_C + L_C' - λ d(p, p')             they disagree on target rows that the source does not explain
    C   F       min  λ d(p, p')       n times            features move until both agree on those rows
    d(p, p') = mean over target rows and classes of |p - p'|

C and C' are two classifiers on the same features F; p and p' are the softmax of their logits.

    reversal:   L = L_C + L_C' - λ d(p, p'),   reversed for F, by λ_d (2 / (1 + exp(-10 p)) - 1) at progress p

Implementation details
  1. C is the net's classifier. C' has the same shape and other initial weights: a copy would never disagree.
  2. n = 4 and λ = 1 are those of the authors' code for image adaptation. d also averages over classes (the paper's
     1/K).
  3. `reversal` is the form of MM-SADA's code, from which the rows of the EPIC tables come: one update per batch. There
     λ is 0.2 and the cross entropy has weight 0.2, so λ is 1 relative to it. The reversal ramps up to λ_d = 1, the
     default of `lambda_in` there: its scripts of MM-SADA and of the adversary pass 0.2, but no script runs MCD.
  4. The scores of the modalities are added before the softmax (MM-SADA's code). With several label kinds, the L_C and
     the d of all kinds are added.
  5. Where only logits feel the net's dropout, C and C' drop different features, as the authors' classifiers do, each of
     which has its own dropout. In MM-SADA's code both classify the same dropped features.
  6. Predictions are those of C. The 0.01 class balance term of TLL's code, which is not in the paper, is left out.
Deviation: features are frozen, so F is the net's own layer; the papers also train the backbone.
Shapes: B rows, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from heads.batch import Batch, Side, Spec
from heads.grl import reverse
from heads.losses.predictions import discrepancy
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.methods._copies import encoder_parameters, second_head
from heads.nets import Net
from heads.params import within
from heads.schedules import dann


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of MCD."""

    lambda_dis: float = within(1.0, 0)  #: λ, weight of the discrepancy [code]
    n: int = within(4, 1)  #: n, updates of F per batch in step C [code]
    lambda_d: float = within(1.0, 0)  #: λ_d of `reversal`: final coefficient of the reversed gradient [code: MM-SADA]
    reversal: bool = False  #: one update per batch, with a gradient reversal, instead of steps A, B and C [paper]


class Mcd(Method):
    """Two classifiers that maximise their disagreement, and features that minimise it."""

    needs = ("source", "target")

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        self.encoder = encoder_parameters(net)
        self.second = second_head(net)
        for parameter in self.second.classifier.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_uniform_(parameter, a=5**0.5)  # as nn.Linear draws its weights
        self.classifiers = [*net.classifier.parameters(), *self.second.classifier.parameters()]

    def players(self) -> dict[str, list[Parameter]]:
        """Return F, the parameters that features depend on, and C, both classifiers."""
        return {"F": self.encoder, "C": self.classifiers}

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return the terms of step A; with `reversal`, all terms."""
        p, (s, t) = self.params, batch.both()
        if not p.reversal:
            return self.supervised(s, self.net.encode(s))
        f_s, f_t = self.net.encode_both(s, t)
        f_t = {m: reverse(f_BD, p.lambda_d * dann(progress)) for m, f_BD in f_t.items()}
        return {**self.supervised(s, f_s), "L_dis": -p.lambda_dis * self.apart(f_t)}

    def objectives(self) -> list[tuple[str, str]]:
        """Return the steps A, B and C."""
        step_A = ("F C", "losses")
        return (
            [step_A] if self.params.reversal else [step_A, ("C", "disagreement"), *[("F", "agreement")] * self.params.n]
        )

    def disagreement(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return the terms of step B."""
        s, t = batch.both()
        f_s, f_t = self.net.encode_both(s, t)
        terms = {f"L_B_{name[2:]}": term for name, term in self.supervised(s, f_s).items()}  # the log keeps step A's
        return {"L_B_dis": -self.params.lambda_dis * self.apart(f_t), **terms}

    def agreement(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return the term of step C."""
        return {"L_dis": self.params.lambda_dis * self.apart(self.net.encode(batch.target_side))}

    def supervised(self, s: Side, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return L_C and L_C' of the source."""
        return {
            "L_C": label_cross_entropy(self.net.classify(f), s.y),
            "L_C2": label_cross_entropy(self.second.classify(f), s.y),
        }

    def apart(self, f: dict[str, Tensor]) -> Tensor:
        """Return Σ_label d of the target's features."""
        z, z_second = self.net.classify(f), self.second.classify(f)
        return torch.stack([discrepancy(z[label].softmax(1), z_second[label].softmax(1)) for label in z]).sum()


METHOD = Mcd
