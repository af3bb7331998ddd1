"""Stepwise adaptive feature norm [SAFN: Xu et al. 2019], without its weight.

    L_d(f) = mean (‖f‖ - (sg ‖f‖ + Δr))²        sg: no gradient

The value is Δr² at every step. Only the gradient matters: -2 Δr f / ‖f‖ per row, which makes each row longer.
Shapes: B rows, D features.
"""

from torch import Tensor


def stepwise_norm(f_BD: Tensor, in_B: Tensor, delta_r: float) -> Tensor:
    """Return the mean squared distance to a norm larger by Δr, over the rows that count (in_B, bool); 0 without rows.

    >>> import torch
    >>> f = torch.tensor([[3.0, 4.0]], requires_grad=True)
    >>> stepwise_norm(f, torch.tensor([True]), 1.0).backward()
    >>> f.grad   # -2 (3, 4) / 5
    tensor([[-1.2000, -1.6000]])
    """
    h_B = f_BD.norm(dim=1)
    return ((h_B - (h_B.detach() + delta_r)).square() * in_B).sum() / in_B.sum().clamp_min(1)
