"""Entropy of predictions, and information maximisation [Liang et al. 2020 (SHOT), Eq. 3-5; RNA, Sec. 3.6].

Shapes: B rows, K classes; p_BK are probabilities, rows sum to 1. Natural logarithms.
"""

from torch import Tensor

TINY = 1e-30  # inside the logarithm: p log p is then 0 at p = 0, and its gradient is not NaN


def entropy(p_BK: Tensor) -> Tensor:
    """Return H of each row -> (B,), between 0 (certain) and log K (uniform).

    >>> import torch
    >>> entropy(torch.tensor([[0.5, 0.5], [0.9, 0.1]]))
    tensor([0.6931, 0.3251])
    """
    return -(p_BK * p_BK.clamp_min(TINY).log()).sum(1)


def information(p_BK: Tensor) -> Tensor:
    """Return the mean entropy of the rows minus the entropy of the mean row: low for certain rows and balanced classes.

    It lies between -log K (certain and balanced) and 0 (all rows equal, uniform or not).

    >>> import torch
    >>> information(torch.eye(2))   # -log 2
    tensor(-0.6931)
    """
    return entropy(p_BK).mean() - entropy(p_BK.mean(0, keepdim=True)).squeeze(0)
