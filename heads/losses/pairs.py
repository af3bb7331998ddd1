"""Whether two rows of a batch belong together, and predictions that say so [CoDT, collaborative clustering].

Shapes: B rows, D features, K clusters.
"""

import torch
from torch import Tensor

EPS = 1e-8  # least similarity, of which the logarithm is taken; 1 - EPS is the largest, as in the code


def pair_consistency(s_BB: Tensor, same_BB: Tensor) -> Tensor:
    """Mean over i of -Σ_j G_ij log s'_ij / Σ_j G_ij, where s' is s with rows that sum to 1, and G says who is the same.

    s_BB: similarities in [0, 1]. A row is the same as itself. Least, log of how many are the same, where s is G.

    >>> s = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> pair_consistency(s, s > 0)   # (log 2 + log 2 + log 1) / 3
    tensor(0.4621)
    """
    s_BB = s_BB.clamp(EPS, 1 - EPS)
    log_s_BB = s_BB.log() - s_BB.sum(1, keepdim=True).log()
    return -((log_s_BB * same_BB).sum(1) / same_BB.sum(1)).mean()


def same_largest(f_BD: Tensor, k: int) -> Tensor:
    """Whether two rows have the same k entries as their largest, in any order -> (B, B) bool.

    >>> same_largest(torch.tensor([[3.0, 2.0, 0.0], [5.0, 9.0, 1.0], [0.0, 2.0, 3.0]]), 2)[0]
    tensor([ True,  True, False])
    """
    among_BD = torch.zeros_like(f_BD).scatter(1, f_BD.topk(k, 1).indices, 1.0)
    return among_BD @ among_BD.T > k - 0.5
