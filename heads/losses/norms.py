"""Relative norm alignment [RNA, Sec. 3.3, 3.4], without its weights.

    R(a, b) = (a/b - b/a)²        a, b: mean L2 norms of two groups of features of one size

R is 0 for equal norms, symmetric, and unchanged when both are scaled alike. The gradient flows into both groups.

Shapes: u_BD, v_BD: features, B may differ between them (two domains); K classes.
"""

import torch
from torch import Tensor

EPS = (
    1e-6  # least mean norm in a ratio: a dead modality would make it infinite. It has no gradient to revive it, either
)


def relative_norm(u_BD: Tensor, v_BD: Tensor, in_u: Tensor | None = None, in_v: Tensor | None = None) -> Tensor:
    """R of the mean norms of u and v, over the rows that in_u, in_v (B,) bool count in (default: all).

    A scalar; 0 when no row of one side counts.

    >>> relative_norm(torch.full((4, 1), 2.0), torch.full((4, 1), 1.0))   # (2/1 - 1/2)²
    tensor(2.2500)
    """
    in_u = torch.ones_like(u_BD[:, 0], dtype=torch.bool) if in_u is None else in_u
    in_v = torch.ones_like(v_BD[:, 0], dtype=torch.bool) if in_v is None else in_v
    return _relative(u_BD, v_BD, in_u[:, None], in_v[:, None])


def relative_norm_per_class(u_BD: Tensor, v_BD: Tensor, y_u: Tensor, y_v: Tensor, classes: int) -> Tensor:
    """Σ over classes of R of the mean norms of the class in u and in v; a sum, not a mean, as printed.

    y_u, y_v: (B,) int64 in [0, classes), or -1 for a row in no class. A class that u or v lacks adds 0.

    >>> u, v = torch.tensor([[2.0], [3.0], [9.0]]), torch.tensor([[1.0], [3.0]])
    >>> relative_norm_per_class(u, v, torch.tensor([0, 1, 2]), torch.tensor([0, 1]), 3)   # 2.25 + 0 + nothing
    tensor(2.2500)
    """
    classes_K = torch.arange(classes, device=u_BD.device)
    return _relative(u_BD, v_BD, y_u[:, None] == classes_K, y_v[:, None] == classes_K)


def _relative(u_BD: Tensor, v_BD: Tensor, in_u_BK: Tensor, in_v_BK: Tensor) -> Tensor:
    """Σ_k R of the mean norms of the rows of u and of v that are in group k, over groups with rows on both sides."""
    u_K, v_K = _mean_norms(u_BD, in_u_BK), _mean_norms(v_BD, in_v_BK)
    both_K = in_u_BK.any(0) & in_v_BK.any(0)
    return ((u_K / v_K - v_K / u_K) ** 2 * both_K).sum()


def _mean_norms(f_BD: Tensor, in_BK: Tensor) -> Tensor:
    """Mean L2 norm of the rows in each group -> (K,), EPS at least (so that an empty group stays finite)."""
    h_B = f_BD.norm(dim=1)
    return ((h_B[:, None] * in_BK).sum(0) / in_BK.sum(0).clamp_min(1)).clamp_min(EPS)
