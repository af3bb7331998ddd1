"""Logistic regression on the cached features: a linear probe, fitted exactly. The baseline to try first.

    min_{W, b}  Σ_i -log p_i(y_i) + ‖W‖² / (2C),    p_i = softmax(W x_i + b),    i: all rows of the source
    L = L_C     of the net, whose own classifier predictions do not use

x holds the row's modalities one after another, each the mean over its windows, every entry standardised:

    standardise="none"      x is as cached: the usual logistic regression
    standardise="source"    by mean and standard deviation of the source, also for the target
    standardise="domain"    every domain by its own, for which the target's rows are looked at (not their labels):
                            what shifts or stretches single entries between domains is taken out

Implementation details
  1. L-BFGS on all rows at once, from zero, in begin_epoch; the bias is not penalised. C is scikit-learn's.
  2. Standardised rows are divided by √D, so that their length is about 1 and C means the same for features of any size.
     Without that, C would have to be about 1 / D.
  3. A modality that a row lacks is 0, the mean of the others once standardised. An entry that is constant in a domain
     is not divided. A domain that training never named is standardised as the source.
  4. Give the run `steps=0`: training the net changes no prediction, unless `features="encoded"`. Then the probe stands
     on what the net encodes, as it is at the beginning of the last epoch: join a trained net by `init_from`.
  5. With several tasks each has its own W and b, on the same x.
Shapes: B rows, D entries of all modalities together, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from heads.batch import Spec
from heads.methods._fitted import Fitted, Rows
from heads.nets import Net

MOST_STEPS = 1000  #: of L-BFGS; a few hundred are usual
TOLERANCE = 1e-6  #: greatest entry of the mean loss's gradient at which it stops
CHANGE = 1e-10  #: or change of the mean loss, or of all weights


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of logistic regression."""

    C: float = 1.0  #: inverse of the penalty's strength, as in scikit-learn
    standardise: str = "source"  #: none | source | domain
    features: str = "pooled"  #: pooled (the cached rows) | encoded (what the net makes of them)


class LogisticRegression(Fitted):
    """A linear classifier of the source's rows."""

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        if not params.C > 0:
            raise ValueError(f"method.C={params.C} must be above 0")
        for task, K in spec.classes.items():
            self.register_buffer(f"W:{task}", torch.zeros(K, self.D))
            self.register_buffer(f"b:{task}", torch.zeros(K))

    def fit(self, source: Rows, target: Rows | None) -> None:
        """W and b of each task."""
        for task, y_B in source.y.items():
            W_KD, b_K = logistic_regression(source.x, y_B, self.spec.classes[task], self.params.C)
            self.get_buffer(f"W:{task}").copy_(W_KD)
            self.get_buffer(f"b:{task}").copy_(b_K)

    def scores(self, rows: Rows) -> dict[str, Tensor]:
        """W x + b."""
        return {
            task: rows.x @ self.get_buffer(f"W:{task}").T + self.get_buffer(f"b:{task}") for task in self.spec.classes
        }


def logistic_regression(x_BD: Tensor, y_B: Tensor, K: int, C: float) -> tuple[Tensor, Tensor]:
    """W (K, D) and b (K,) of the minimum above, found in double precision and rounded to x's.

    A class without rows gets a b that keeps falling while it is fitted.
    """
    exact_BD = x_BD.double()
    W_KD = exact_BD.new_zeros(K, x_BD.shape[1]).requires_grad_()
    b_K = exact_BD.new_zeros(K).requires_grad_()
    search = torch.optim.LBFGS(
        [W_KD, b_K],
        max_iter=MOST_STEPS,
        tolerance_grad=TOLERANCE,
        tolerance_change=CHANGE,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        search.zero_grad()
        loss = cross_entropy(exact_BD @ W_KD.T + b_K, y_B) + W_KD.square().sum() / (2 * C * len(x_BD))
        loss.backward()
        return loss.detach()

    with torch.enable_grad():
        search.step(objective)
    return W_KD.detach().to(x_BD), b_K.detach().to(x_BD)


METHOD = LogisticRegression
