"""Entropy of predictions, and information maximisation [Liang et al. 2020 (SHOT), Eq. 3-5; RNA, Sec. 3.6].

Shapes: B rows, K classes; p_BK are probabilities, rows sum to 1. Natural logarithms.
"""

from torch import Tensor

TINY = 1e-30  # inside the logarithm: p log p is 0 at p = 0, and so is not NaN in its gradient


def entropy(p_BK: Tensor) -> Tensor:
    """H of each row -> (B,), between 0 (certain) and log K (uniform).

    >>> import torch
    >>> entropy(torch.tensor([[0.5, 0.5], [0.9, 0.1]]))
    tensor([0.6931, 0.3251])
    """
    return -(p_BK * p_BK.clamp_min(TINY).log()).sum(1)


def information(p_BK: Tensor) -> Tensor:
    """Mean entropy of the rows minus entropy of the mean row: rows should be certain, classes equally used.

    Between -log K (certain and balanced) and 0 (all rows alike, uniform ones among them).

    >>> import torch
    >>> information(torch.eye(2))   # -log 2
    tensor(-0.6931)
    """
    return entropy(p_BK).mean() - entropy(p_BK.mean(0, keepdim=True)).squeeze(0)
