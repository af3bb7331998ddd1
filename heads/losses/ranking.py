"""The ranking loss of retrieval: a pair should fit better than any other pair of the batch, by a margin.

    mean   1/(2B(B-1)) Σ_i Σ_{j≠i} [m + ξ_ij - ξ_ii]_+ + [m + ξ_ji - ξ_ii]_+      ξ_ij: of caption i and clip j
    sum    1/B of the same sums, so 2(B-1) times the mean

[Karpathy et al. 2014; mean: Liu et al. 2019 (CE), code; sum: ACP, Eq. 1]. Shapes: B pairs of a batch.
"""

from torch import Tensor

REDUCTIONS = ("mean", "sum")


def ranking(xi_BB: Tensor, negative_BB: Tensor, margin: float, reduction: str = "mean") -> Tensor:
    """Return the mean over the negative pairs i, j, or their sum per row that has one; 0 without pairs.

    ξ_ij: similarity of caption i and clip j. negative_BB: bool, symmetric, false on the diagonal.

    >>> import torch
    >>> ranking(torch.tensor([[1.0, 0.9], [0.2, 1.0]]), torch.eye(2) == 0, 0.2)   # (0.1 + 0.1) / 4
    tensor(0.0500)
    >>> ranking(torch.tensor([[1.0, 0.9], [0.2, 1.0]]), torch.eye(2) == 0, 0.2, "sum")   # (0.1 + 0.1) / 2
    tensor(0.1000)
    """
    own_B = xi_BB.diagonal()
    hinge_BB = (margin + xi_BB - own_B[:, None]).relu() + (margin + xi_BB - own_B).relu()
    number = 2 * negative_BB.sum() if reduction == "mean" else negative_BB.any(1).sum()
    return (hinge_BB * negative_BB).sum() / number.clamp_min(1)
