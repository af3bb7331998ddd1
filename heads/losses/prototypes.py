"""Adaptive cross-modal prototypes [ACP: Liu et al. 2021, Eq. 2-7]: soft assignments, and losses that compare them.

    P(n) = softmax_n(cos(f, c_n) / τ)                                        Eq. 2-4; the paper has no τ, so 1
    KL(p ‖ q) = Σ_n p(n) (log p(n) - log q(n))                               Eq. 5, 6
    L_MI = -mean over X_P of log σ(D) - mean over X_N of log(1 - σ(D))       Eq. 7, which lacks the minus

Shapes: B rows, M features, N centroids.
"""

from torch import Tensor
from torch.nn.functional import normalize, softplus

from heads.losses.relative import mean_where


def log_assignment(f_BM: Tensor, centroids_NM: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the logarithm of P (B, N), row by row; uniform for a row of zeros.

    >>> import torch
    >>> log_assignment(torch.tensor([[3.0, 0.0]]), torch.eye(2)).exp()   # e / (e + 1), and the rest
    tensor([[0.7311, 0.2689]])
    """
    return (normalize(f_BM, dim=1) @ normalize(centroids_NM, dim=1).T / temperature).log_softmax(1)


def divergence(log_p_BN: Tensor, log_q_BN: Tensor, in_B: Tensor) -> Tensor:
    """Return the mean of KL(p ‖ q) over the rows that count (bool); 0 without rows.

    >>> import torch
    >>> p, q = torch.tensor([[0.5, 0.5], [0.1, 0.9]]), torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    >>> divergence(p.log(), q.log(), torch.tensor([True, False]))   # log 2 - log 3 / 2
    tensor(0.1438)
    """
    return mean_where((log_p_BN.exp() * (log_p_BN - log_q_BN)).sum(1), in_B)


def mutual_information(own_B: Tensor, other_B: Tensor, own_in_B: Tensor, other_in_B: Tensor) -> Tensor:
    """Return L_MI from D's scores of pairs of assignments of one row (own) and of two rows (other), where they count.

    >>> import torch
    >>> every = torch.tensor([True])
    >>> mutual_information(torch.zeros(1), torch.zeros(1), every, every)   # D separates nothing: 2 ln 2
    tensor(1.3863)
    """
    return mean_where(softplus(-own_B), own_in_B) + mean_where(softplus(other_B), other_in_B)
