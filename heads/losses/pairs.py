"""Pairs of rows that belong to one cluster, and a loss for pairwise similarities [CoDT, collaborative clustering].

Shapes: B rows, D features, K clusters.
"""

import torch
from torch import Tensor

EPS = 1e-8  # least similarity inside the logarithm; the largest is 1 - EPS, as in the code


def pair_consistency(s_BB: Tensor, same_BB: Tensor) -> Tensor:
    """Return the mean over i of -Σ_j G_ij log s'_ij / Σ_j G_ij; s' is s with rows that sum to 1, G is same_BB.

    s_BB: similarities in [0, 1]. same_BB: true for rows of one cluster, and so on the diagonal. The loss is least, the
    mean log of the number of rows in a row's cluster, where s is G.

    >>> s = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> pair_consistency(s, s > 0)   # (log 2 + log 2 + log 1) / 3
    tensor(0.4621)
    """
    s_BB = s_BB.clamp(EPS, 1 - EPS)
    log_s_BB = s_BB.log() - s_BB.sum(1, keepdim=True).log()
    return -((log_s_BB * same_BB).sum(1) / same_BB.sum(1)).mean()


def same_largest(f_BD: Tensor, k: int) -> Tensor:
    """Return True for two rows whose k largest entries are at the same places, in any order -> (B, B) bool.

    >>> same_largest(torch.tensor([[3.0, 2.0, 0.0], [5.0, 9.0, 1.0], [0.0, 2.0, 3.0]]), 2)[0]
    tensor([ True,  True, False])
    """
    among_BD = torch.zeros_like(f_BD).scatter(1, f_BD.topk(k, 1).indices, 1.0)
    return among_BD @ among_BD.T > k - 0.5
