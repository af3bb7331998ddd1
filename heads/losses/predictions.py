"""Losses on predictions without labels that depend on the use of classes in a batch; see also `losses/entropy.py`.

Shapes: B rows, K classes; p_BK are probabilities, z_BK logits.
"""

import torch
from torch import Tensor

from heads.losses.entropy import TINY, entropy


def nuclear_norm(p_BK: Tensor) -> Tensor:
    """Return ‖P‖_* / B: the sum of the singular values of the batch's predictions, per row [BNM: Cui et al. 2020].

    It is large for certain rows of many classes: at most √(min(B, K) / B), for certain rows with equally many of each
    class (B >= K). Equal rows give ‖p‖ / √B, the least value for their length.

    >>> nuclear_norm(torch.eye(2)), nuclear_norm(torch.full((2, 2), 0.5))
    (tensor(1.), tensor(0.5000))
    """
    return torch.linalg.svdvals(p_BK).sum() / len(p_BK)


def class_confusion(z_BK: Tensor, temperature: float) -> Tensor:
    """Return the mean over classes of the share of a class's row in C that is off the diagonal [MCC: Jin et al. 2020].

    C = Ŷᵀ W Ŷ with Ŷ = softmax(z / temperature), each row of C divided by its sum. W weighs certain rows up to twice as
    much as uniform rows of many classes, and takes no gradient. If all rows are certain, a predicted class counts 0 and
    any other class 1; uniform rows give 1 - 1/K.

    >>> class_confusion(torch.zeros(3, 4), 2.5)
    tensor(0.7500)
    """
    p_BK = (z_BK / temperature).softmax(1)
    weight_B = 1 + (-entropy(p_BK.detach())).exp()  # the paper divides it by its mean, which would cancel below
    C_KK = (p_BK * weight_B[:, None]).T @ p_BK
    return 1 - (C_KK.diagonal() / C_KK.sum(1).clamp_min(TINY)).mean()


def discrepancy(p_BK: Tensor, q_BK: Tensor) -> Tensor:
    """Return the mean over rows and classes of |p - q|, the disagreement of two classifiers [MCD: Saito et al. 2018].

    >>> discrepancy(torch.eye(2), 1 - torch.eye(2))
    tensor(1.)
    """
    return (p_BK - q_BK).abs().mean()
