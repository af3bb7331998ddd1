"""Validators: scores that choose outputs and hyper-parameters without labels of the target.

A validator scores what a head predicts for training rows: unlabelled rows of the target, and labelled rows held out of
the source. No validator is the accuracy, and each one fails in its own way (docs/choosing.md). Musgrave et al. 2022
compare them: Three New Validators and a Large-Scale Benchmark Ranking for Unsupervised Domain Adaptation.

With several labels a score is the mean over the labels. Logarithms are natural.
Shapes: N rows, K classes, D features; p_NK are probabilities, rows sum to 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from heads.losses.entropy import entropy, information
from pipelines.measures.accuracy import in_topk

BLOCK = 1 << 20  #: number of similarities that `snd` holds at a time, 4 MB
ORACLE = "oracle"  #: the rule that uses the labels of the test rows; only `evaluate` can apply it

# ----------------------------------------------------------------------------------------------------------- equations


def mean_entropy(p_NK: Tensor) -> float:
    """Return H = -(1/N) Σ_i Σ_k p_ik log p_ik [Morerio et al. 2018], in [0, log K]; lower is better.

    >>> round(mean_entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]])), 4)  # (log 2) / 2
    0.3466
    """
    return float(entropy(p_NK).mean())


def infomax(p_NK: Tensor) -> float:
    """Return the mutual information of row and class [Shi & Sha 2012]: H(mean row) minus the mean H of the rows.

    It is in [0, log K]; higher is better: rows are certain and classes equally frequent.

    >>> round(infomax(torch.eye(2)), 4)  # log 2
    0.6931
    """
    return -float(information(p_NK))


def bnm(p_NK: Tensor) -> float:
    """Return ‖P‖_* / √(N K), the nuclear norm of predictions [Cui et al. 2020], in [1/K, 1]; higher is better.

    The paper divides by N, which gives the same order of candidates. Here the value is 1 for certain rows of equally
    frequent classes, 1/√K for certain rows of one class, and 1/K for uniform rows.

    >>> round(bnm(torch.eye(3)), 4)
    1.0
    """
    return float(torch.linalg.matrix_norm(p_NK, "nuc")) / sqrt(p_NK.numel())


def snd(p_NK: Tensor, temperature: float = 0.05) -> float:
    """Return the soft neighbourhood density [Saito et al. 2021]: mean entropy of the rows' soft neighbourhoods.

        q_ij = softmax over j ≠ i of <p_i/‖p_i‖, p_j/‖p_j‖> / τ        SND = -(1/N) Σ_i Σ_j q_ij log q_ij

    It is in [0, log (N-1)]; higher is better: each row has many near neighbours. Predictions are compared, not
    features, as in the paper and its code. Similarities are computed in blocks of rows: memory is bounded, and time
    grows with N².

    >>> round(snd(torch.tensor([[1.0, 0.0]] * 3)), 4)  # two neighbours, equally near: log 2
    0.6931
    """
    f_NK, N, total = normalize(p_NK.float()), len(p_NK), 0.0
    if N == 1:
        return 0.0  # no neighbours
    for i_B in torch.arange(N, device=p_NK.device).split(max(1, BLOCK // N)):
        s_BN = f_NK[i_B] @ f_NK.T / temperature
        s_BN.scatter_(1, i_B[:, None], -torch.inf)
        total += float(entropy(s_BN.softmax(1)).double().sum())
    return total / N


def dev(w_N: Tensor, loss_N: Tensor) -> float:
    """Return the DEV risk [You et al. 2019]: importance-weighted, with a control variate; lower is better.

        R = mean(w ℓ) + η mean(w) - η        η = -Cov(w ℓ, w) / Var(w)

    w: density of the target over that of the source, at held-out source rows; ℓ: their losses. Equal weights need no
    control: η = 0. The value estimates the target's risk, but may leave the range of a risk: it can be negative.

    >>> dev(torch.tensor([0.5, 1.5]), torch.tensor([0.0, 1.0]))  # 0.75 - 1.5 + 1.5: the means are right already
    0.75
    """
    wl_N, w, spread = w_N * loss_N, w_N.mean(), w_N.var(correction=0)
    eta = -((wl_N - wl_N.mean()) * (w_N - w)).mean() / spread if spread > 0 else 0.0
    return float(wl_N.mean() + eta * w - eta)


def density_ratio(source_ND: Tensor, target_ND: Tensor, at_ND: Tensor) -> Tensor:
    """Estimate the density of the target's rows over that of the source's rows, at some rows -> (N,) float64.

        w(x) = (n_s / n_t) P(target | x) / P(source | x)

    by a logistic regression of the domain. Features are standardised and divided by √D, and weights have the prior
    N(0, 1): units of features do not matter, and a large D does not by itself separate any two samples. (The paper
    trains an MLP and chooses its weight decay on held-out rows. Here nothing is chosen or drawn at random.)
    """
    n_s, n_t = len(source_ND), len(target_ND)
    std, mean = torch.std_mean(torch.cat([source_ND, target_ND]), 0, correction=0)
    scale = 1 / (std * sqrt(len(std))).where(std > 0, torch.inf)
    w_D = torch.zeros_like(mean, requires_grad=True)
    b = torch.zeros_like(mean[:1], requires_grad=True)

    def logit(f_ND: Tensor) -> Tensor:
        v_D = w_D * scale
        return f_ND @ v_D + (b - mean @ v_D)

    def closure() -> float:
        optimizer.zero_grad()
        misfit = softplus(logit(source_ND)).sum() + softplus(-logit(target_ND)).sum()
        loss = (misfit + w_D.square().sum() / 2) / (n_s + n_t)
        loss.backward()
        return float(loss.detach())

    optimizer = torch.optim.LBFGS([w_D, b], max_iter=100, line_search_fn="strong_wolfe")
    with torch.enable_grad():
        optimizer.step(closure)
    with torch.no_grad():
        return n_s / n_t * logit(at_ND).cpu().double().exp()


# ------------------------------------------------------------------------------------------------------------ registry


@dataclass(frozen=True)
class Predictions:
    """The predictions of a head for training rows. Only held-out source rows have labels."""

    p: dict[str, dict[str, Tensor]]  #: "target", "source_val" -> label -> (N, K)
    y: dict[str, Tensor]  #: label -> (N,) class numbers of "source_val"
    f: dict[str, Tensor]  #: "source", "source_val", "target" -> (N, D), modalities side by side


@dataclass(frozen=True)
class Validator:
    """A score of a head, and the direction in which it is better."""

    score: Callable[[Predictions], float]
    higher: bool  #: True if a higher score is better
    needs: tuple[str, ...]  #: source_val, target, or features (of a modality that source and target both see)
    words: str  #: in tables: "the kept outputs with the highest ..."


def _on_target(equation: Callable[[Tensor], float]) -> Callable[[Predictions], float]:
    return lambda head: float(np.mean([equation(p_NK) for p_NK in head.p["target"].values()]))


def _right(head: Predictions) -> Tensor:
    """Return the share of labels that are predicted right, for each held-out source row -> (N,) float64."""
    held = head.p["source_val"]
    right = [in_topk(held[label].cpu().numpy(), y_N.cpu().numpy(), 1) for label, y_N in head.y.items()]
    return torch.from_numpy(np.mean(right, axis=0))


def _dev(head: Predictions) -> float:
    w_N = density_ratio(head.f["source"], head.f["target"], head.f["source_val"])
    return dev(w_N, 1 - _right(head))


VALIDATORS = {
    "source_val": Validator(
        lambda head: float(_right(head).mean()),
        True,
        ("source_val",),
        "accuracy (in retrieval the mean GM of both directions) on held-out source rows",
    ),
    "entropy": Validator(_on_target(mean_entropy), False, ("target",), "mean entropy on the target's train rows"),
    "infomax": Validator(_on_target(infomax), True, ("target",), "information (IM) on the target's train rows"),
    "snd": Validator(_on_target(snd), True, ("target",), "soft neighbourhood density on the target's train rows"),
    "bnm": Validator(_on_target(bnm), True, ("target",), "nuclear norm of the predictions on the target's train rows"),
    "dev": Validator(
        _dev, False, ("source_val", "target", "features"), "risk on held-out source rows, weighted as the target"
    ),
}
RULES = ("last", "mean", *VALIDATORS, ORACLE)  #: the values of `RunConfig.select`


def best(rule: str, scores: Sequence[float]) -> int:
    """Return the position of the best score by a validator or the oracle; of equal scores, the latest."""
    sign = 1 if rule == ORACLE or VALIDATORS[rule].higher else -1
    return max(range(len(scores)), key=lambda k: (sign * scores[k], k))
