"""The ranking loss of retrieval: a pair should fit better than any other pair of the batch, by a margin.

[Karpathy et al. 2014; Liu et al. 2019 (CE); ACP, Sec. 3.1]. Shapes: B pairs of a batch.
"""

from torch import Tensor


def ranking(xi_BB: Tensor, negative_BB: Tensor, margin: float) -> Tensor:
    """Return the mean of [m + ξ_ij - ξ_ii]_+ and [m + ξ_ji - ξ_ii]_+ over the negative pairs i, j; 0 without pairs.

    ξ_ij: similarity of caption i and clip j. negative_BB: bool, symmetric, false on the diagonal.

    >>> import torch
    >>> ranking(torch.tensor([[1.0, 0.9], [0.2, 1.0]]), torch.eye(2) == 0, 0.2)   # (0.1 + 0.1) / 4
    tensor(0.0500)
    """
    own_B = xi_BB.diagonal()
    hinge_BB = (margin + xi_BB - own_B[:, None]).relu() + (margin + xi_BB - own_B).relu()
    return (hinge_BB * negative_BB).sum() / (2 * negative_BB.sum()).clamp_min(1)
