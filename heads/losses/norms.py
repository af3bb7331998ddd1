"""Relative norm alignment [RNA, Sec. 3.3, 3.4], without its weights.

    R(a, b) = (a/b - b/a)²        a, b: mean L2 norms of two groups of features of one size

R is symmetric, 0 for equal norms, and unchanged when both norms are scaled by one factor. The gradient flows into both
groups.

Norms are measured once per modality and side, and a method compares them in any number of pairs. Unlike other losses R
is not reduced: a method takes "all rows" as one group and each class as another, and weighs them differently.

Shapes: B rows, D features; G groups of rows.
"""

from typing import NamedTuple

from torch import Tensor

EPS = 1e-6  # least mean norm: a dead modality would make R infinite. Clamped, it has no gradient and stays dead


class Norms(NamedTuple):
    """Mean norms of the groups of one modality on one side."""

    h: Tensor  # (G,) mean L2 norm, at least EPS
    filled: Tensor  # (G,) bool: the group has a row


def mean_norms(f_BD: Tensor, in_BG: Tensor) -> Norms:
    """Return the mean L2 norm of the rows in each group. in_BG (B, G) bool: a row may be in several groups, or in none.

    Both may have further axes in front.

    >>> import torch
    >>> f, everyone = torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.ones(2, 1, dtype=torch.bool)
    >>> mean_norms(f, everyone).h
    tensor([3.])
    """
    h_B = f_BD.norm(dim=-1)
    rows_G = in_BG.sum(-2)
    return Norms(((h_B[..., None] * in_BG).sum(-2) / rows_G.clamp_min(1)).clamp_min(EPS), rows_G > 0)


def relative_norm(u: Norms, v: Norms) -> Tensor:
    """Return R of each group in u and in v -> (G,); 0 where u or v has no row of the group.

    >>> import torch
    >>> both = torch.tensor([True, True])
    >>> u, v = Norms(torch.tensor([2.0, 5.0]), both), Norms(torch.tensor([1.0, 5.0]), both)
    >>> relative_norm(u, v)   # (2/1 - 1/2)², and equal norms
    tensor([2.2500, 0.0000])
    """
    return (u.h / v.h - v.h / u.h) ** 2 * (u.filled & v.filled)
