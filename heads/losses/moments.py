"""Distances between two groups of rows: MMD and CORAL, without their weights.

    MMD²(s, t)  = E k(s, s') + E k(t, t') - 2 E k(s, t)      k(x, y) = Σ_g exp(-‖x - y‖² / (γ 2^g))
    CORAL(s, t) = mean_ij (C_s - C_t)_ij²                    C: covariance, with 1 / (n - 1)

MMD is 0 for equal groups only; CORAL compares covariances only, `mean_gap` means only. All three are symmetric, and do
not change when both groups are translated by the same vector.

Sources: [Gretton et al. 2012, JMLR 13, Eq. 5], with the kernels of MM-SADA's code; [Deep CORAL: Sun & Saenko 2016].
Shapes: S, T rows of the two groups, D features; in_S, in_T (bool) mark the rows that count.
"""

import torch
from torch import Tensor

FACTORS = tuple(2 ** (-8 + 2**0.5 * k) for k in range(12))  # 2^g: g from -8 to 8 in steps of √2, as in MM-SADA's code
TINY = 1e-12  # least γ measured on the rows, which may all be equal


def mmd(f_SD: Tensor, f_TD: Tensor, in_S: Tensor, in_T: Tensor, gamma: float) -> Tensor:
    """Return the biased MMD² of the rows that count, which includes pairs of a row with itself; 0 if a group is empty.

    gamma: γ; 0 takes the mean of ‖x - y‖² over all pairs of rows of both groups, as a constant.

    >>> everyone = torch.ones(1, dtype=torch.bool)
    >>> mmd(torch.zeros(1, 2), torch.full((1, 2), 1e6), everyone, everyone, 9.7)   # far apart: 12 kernels, 1 + 1 - 0
    tensor(24.)
    """
    k_BB = kernel(torch.cat([f_SD, f_TD]), torch.cat([in_S, in_T]), gamma)
    weight_B = torch.cat([in_S / in_S.sum().clamp_min(1), -(in_T / in_T.sum().clamp_min(1))]).to(k_BB)
    return (weight_B @ k_BB @ weight_B) * (in_S.any() & in_T.any())


def class_mmd(f_SD: Tensor, f_TD: Tensor, in_SK: Tensor, in_TK: Tensor, gamma: float) -> Tensor:
    """Return the mean of MMD² over the classes that have rows in both groups, with one γ; 0 without such a class.

    in_SK, in_TK (bool) mark the rows of each class.

    >>> one = torch.tensor([[True, False]])
    >>> class_mmd(torch.zeros(1, 2), torch.full((1, 2), 1e6), one, one, 9.7)   # no row belongs to the other class
    tensor(24.)
    """
    k_BB = kernel(torch.cat([f_SD, f_TD]), torch.cat([in_SK, in_TK]).any(1), gamma)
    weight_BK = torch.cat([in_SK / in_SK.sum(0).clamp_min(1), -(in_TK / in_TK.sum(0).clamp_min(1))]).to(k_BB)
    both_K = in_SK.any(0) & in_TK.any(0)
    return ((weight_BK * (k_BB @ weight_BK)).sum(0) * both_K).sum() / both_K.sum().clamp_min(1)


def kernel(f_BD: Tensor, in_B: Tensor, gamma: float) -> Tensor:
    """Return the sum of the kernels k of all pairs -> (B, B). gamma: γ; 0 takes the mean ‖x - y‖² of counted rows."""
    d_BB = squared_distances(f_BD, in_B)
    rows = in_B.sum()
    width = gamma or ((d_BB * in_B[:, None] * in_B).sum() / (rows * (rows - 1)).clamp_min(1)).detach().clamp_min(TINY)
    return torch.stack([(-d_BB / (width * factor)).exp() for factor in FACTORS]).sum(0)


def squared_distances(f_BD: Tensor, in_B: Tensor) -> Tensor:
    """Return ‖x - y‖² of all pairs -> (B, B); precise where both rows count.

    >>> squared_distances(torch.tensor([[0.0], [3.0]]), torch.tensor([True, True]))
    tensor([[0., 9.],
            [9., 0.]])
    """
    f_BD = f_BD - mean(f_BD, in_B).detach()  # or x² + y² - 2xy would lose its digits far from the origin
    square_B = f_BD.square().sum(1)
    return (square_B[:, None] + square_B - 2 * f_BD @ f_BD.T).clamp_min(0)


def coral(f_SD: Tensor, f_TD: Tensor, in_S: Tensor, in_T: Tensor) -> Tensor:
    """Return the mean squared difference of the D² covariances; 0 if a group has fewer than two rows.

    Deep CORAL's Eq. 1, ‖C_s - C_t‖² / 4D², is a quarter of it.

    >>> both = torch.tensor([True, True])
    >>> coral(torch.tensor([[-1.0], [1.0]]), torch.tensor([[5.0], [5.0]]), both, both)   # (2 - 0)²
    tensor(4.)
    """
    gap_DD = covariance(f_SD, in_S) - covariance(f_TD, in_T)
    return gap_DD.square().mean() * ((in_S.sum() > 1) & (in_T.sum() > 1))


def mean_gap(f_SD: Tensor, f_TD: Tensor, in_S: Tensor, in_T: Tensor) -> Tensor:
    """Return the mean squared difference of the D means; 0 if a group is empty.

    >>> everyone = torch.ones(1, dtype=torch.bool)
    >>> mean_gap(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 6.0]]), everyone, everyone)
    tensor(8.)
    """
    return (mean(f_SD, in_S) - mean(f_TD, in_T)).square().mean() * (in_S.any() & in_T.any())


def mean(f_BD: Tensor, in_B: Tensor) -> Tensor:
    """Return the mean of the rows that count -> (D,); zeros without rows."""
    return (f_BD * in_B[:, None]).sum(0) / in_B.sum().clamp_min(1)


def covariance(f_BD: Tensor, in_B: Tensor) -> Tensor:
    """Return the unbiased covariance of the rows that count -> (D, D); zeros for fewer than two rows."""
    centred_BD = (f_BD - mean(f_BD, in_B)) * in_B[:, None]
    return centred_BD.T @ centred_BD / (in_B.sum() - 1).clamp_min(1)
