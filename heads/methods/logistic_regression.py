"""Logistic regression on the cached features: a linear probe, fitted exactly. The baseline to try first.

    min_{W, b}  Σ_i -log p_i(y_i) + ‖W‖² / (2C),    p_i = softmax(W x_i + b),    i: all rows of the source
    L = L_C     of the net, whose classifier predictions do not use

Self-training: `rounds` times, the most certain share q of the target's rows of each predicted class joins the source
with the predicted class, and the classifier is fitted again. Each class joins in proportion to its number of
predictions, so frequent classes do not crowd out the others, as one threshold for all would [class-balanced: Zou et al.
2018].

x concatenates the row's modalities, each the mean over its windows, with every entry standardised:

    standardise="none"      x is as cached: the usual logistic regression
    standardise="source"    by mean and standard deviation of the source, also for the target
    standardise="domain"    every domain by its own, which reads the target's rows (not their labels):
                            shifts and stretches of single entries between domains disappear

Implementation details
  1. L-BFGS on all rows at once, from zero, in begin_epoch; the bias is not penalised.
  2. C is that of scikit-learn's LogisticRegression on the same x, which is standardised as by StandardScaler unless
     standardise="none". The default, 0.03, is within 1.5 points of the best C in the mean over 12 shifts of generated
     histograms (16, 100 and 800 entries) and on the benchmarks of docs/efficacy.md (32 and 384 entries). A C near 1 / D
     underfits. With "none", smaller entries need a larger C: rows of length 1 about D times that of standardised ones.
  3. A modality that a row lacks is 0, which is the mean of the other rows after standardisation. An entry that is
     constant in a domain is not divided. A domain that is not in training is standardised as the source.
  4. Give the run `steps=0`, because training the net changes no prediction, unless `features="encoded"`. Then the probe
     is fitted to the net's features at the beginning of the last epoch: use `init_from` with a trained net.
  5. With several label kinds, each has its own W and b on the same x, and joins its own target rows.
  6. CBST's labels may differ from the predictions (see `cbst`); here they are the predicted classes. Every predicted
     class labels at least one row. rounds=5 and q=0.5 are a usual choice.
Shapes: B rows, D entries of all modalities together, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from heads.batch import Spec
from heads.methods._fitted import Fitted, Rows
from heads.nets import Net
from heads.params import within

MOST_STEPS = 1000  #: limit of L-BFGS steps; a few hundred are usual
TOLERANCE = 1e-6  #: L-BFGS stops if no entry of the mean loss's gradient is larger
CHANGE = 1e-10  #: L-BFGS also stops if the mean loss or the weights change less


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of logistic regression."""

    C: float = within(0.03, 0, above=True)  #: inverse of the penalty's strength, as in scikit-learn [ours]
    rounds: int = within(0, 0)  #: rounds of self-training on the target's rows; 0: the source only [ours]
    q: float = within(0.5, 0, 1, above=True)  #: share of each predicted class that a round labels [ours]
    standardise: str = "source"  #: none | source | domain [ours]
    features: str = "pooled"  #: pooled (the cached rows) | encoded (the net's features) [ours]


class LogisticRegression(Fitted):
    """A linear classifier of the source's rows."""

    version = 2  #: in version 1, C had the meaning of D times as much: standardised rows were divided by √D

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        if params.rounds and "target" not in spec.rows:
            raise ValueError(
                f"method.rounds={params.rounds} trains on the target's rows, but the run has no target; "
                "name a target, or set rounds=0"
            )
        for label, K in spec.classes.items():
            self.register_buffer(f"W:{label}", torch.zeros(K, self.D))
            self.register_buffer(f"b:{label}", torch.zeros(K))

    def fit(self, source: Rows, target: Rows | None) -> None:
        """Fit W and b of each label."""
        p = self.params
        for label, y_B in source.y.items():
            K = self.spec.classes[label]
            W_KD, b_K = logistic_regression(source.x, y_B, K, p.C)
            for _ in range(p.rounds):
                assert target is not None  # or rounds=0
                y_T = surest((target.x @ W_KD.T + b_K).softmax(1), p.q)
                x_BD, joined_B = torch.cat([source.x, target.x[y_T >= 0]]), torch.cat([y_B, y_T[y_T >= 0]])
                W_KD, b_K = logistic_regression(x_BD, joined_B, K, p.C, (W_KD, b_K))
            self.get_buffer(f"W:{label}").copy_(W_KD)
            self.get_buffer(f"b:{label}").copy_(b_K)

    def scores(self, rows: Rows) -> dict[str, Tensor]:
        """Return W x + b."""
        return {
            label: rows.x @ self.get_buffer(f"W:{label}").T + self.get_buffer(f"b:{label}")
            for label in self.spec.classes
        }


def logistic_regression(
    x_BD: Tensor, y_B: Tensor, K: int, C: float, start: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return W (K, D) and b (K,) of the minimum above, computed in double precision and rounded to that of x.

    start: initial W and b, for speed (default: zero). The b of a class without rows falls as long as the fit lasts.
    """
    exact_BD = x_BD.double()
    W_KD, b_K = start or (x_BD.new_zeros(K, x_BD.shape[1]), x_BD.new_zeros(K))
    W_KD, b_K = W_KD.double().requires_grad_(), b_K.double().requires_grad_()
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


def surest(p_NK: Tensor, q: float) -> Tensor:
    """Return the predicted class of rows among the most certain share q of that class, else -1 -> (N,) int64.

    >>> p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.45, 0.55]])
    >>> surest(p, 0.5)
    tensor([ 0, -1, -1,  1])
    """
    p_N, predicted_N = p_NK.max(1)
    y_N = torch.full_like(predicted_N, -1)
    for k in predicted_N.unique():
        rows = torch.nonzero(predicted_N == k).squeeze(1)
        y_N[rows[p_N[rows].argsort(descending=True, stable=True)[: max(1, int(q * len(rows)))]]] = k
    return y_N


METHOD = LogisticRegression
