"""Relative alignment [MTRAN, Sec. 3.2]: synthetic rows, encoded after mixing, against rows mixed after encoding.

    λ = max softmax(l', 1-l'),   μ = max softmax(l'/τ, (1-l')/τ)         Eq. 7, 8
    L_mra = mean over pairs of ‖f~ - f^‖₂                                Eq. 9, for one kind of feature
    L_tra = mean over pairs of Σ_l mean over t of KL(A~_lt ‖ A^_lt)      Eq. 11, for one modality; A_lt: row of window t

Eq. 11 as printed is the negative of L_tra; the text minimises the divergence.

Shapes: P pairs, D features, L layers, T windows.
"""

from torch import Tensor

TINY = 1e-8  # least relation inside a logarithm


def mixing_factor(l_P: Tensor, tau: float = 1.0) -> Tensor:
    """Return λ (τ = 1) or μ of l' in [0, 1] -> (P,): 1/2 at l' = 1/2, sigmoid(1/τ) at both ends.

    >>> import torch
    >>> mixing_factor(torch.tensor([0.0, 0.5, 1.0]))
    tensor([0.7311, 0.5000, 0.7311])
    """
    return ((2 * l_P - 1).abs() / tau).sigmoid()


def mix(w_P: Tensor, high: Tensor, low: Tensor) -> Tensor:
    """Return w high + (1 - w) low of any shape (P, ...), with one weight per pair.

    >>> import torch
    >>> mix(torch.tensor([0.75]), torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 8.0]]))
    tensor([[3., 2.]])
    """
    w = w_P.reshape(-1, *[1] * (high.dim() - 1))
    return w * high + (1 - w) * low


def mean_where(each_P: Tensor, rows_P: Tensor) -> Tensor:
    """Return the mean over the rows that count (bool); 0 without rows."""
    return (each_P * rows_P).sum() / rows_P.sum().clamp_min(1)


def feature_distance(f_PD: Tensor, g_PD: Tensor, rows_P: Tensor) -> Tensor:
    """Return the mean of ‖f - g‖₂ over the pairs that count.

    >>> import torch
    >>> f, g = torch.tensor([[3.0, 4.0], [9.0, 9.0]]), torch.zeros(2, 2)
    >>> feature_distance(f, g, torch.tensor([True, False]))
    tensor(5.)
    """
    return mean_where((f_PD - g_PD).norm(dim=1), rows_P)


def relation_divergence(A_PLTT: Tensor, B_PLTT: Tensor, present_PT: Tensor) -> Tensor:
    """Return KL(A ‖ B) of rows of relations: mean over present windows, sum over layers, mean over pairs with a window.

    >>> import torch
    >>> A, B = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]]), torch.full((1, 1, 2, 2), 0.5)
    >>> relation_divergence(A, B, torch.ones(1, 2, dtype=torch.bool))   # (log 2 + 0) / 2
    tensor(0.3466)
    """
    kl_PLT = (A_PLTT * (A_PLTT.clamp_min(TINY).log() - B_PLTT.clamp_min(TINY).log())).sum(3)
    kl_PT = kl_PLT.sum(1) * present_PT
    return mean_where(kl_PT.sum(1) / present_PT.sum(1).clamp_min(1), present_PT.any(1))
