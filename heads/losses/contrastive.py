"""Contrastive loss between anchors and keys, with any number of positives [Kim et al. 2021, Eq. 2, 5, 6; HCL].

    L = mean_i -log( Σ_{j positive of i} φ(q_i, k_j) / Σ_j φ(q_i, k_j) ),    φ(q, k) = exp(cos(q, k) / τ)

With one positive per anchor this is InfoNCE. Several positives are added inside the logarithm (soft nearest neighbours
[Salakhutdinov & Hinton 2007]), so that one near positive is enough; SupCon averages outside the logarithm.

`one_log=True` is the form that XMC prints, with the sums over the anchors inside one logarithm:

    L = -log( Σ_i Σ_{j positive of i} φ(q_i, k_j) / Σ_i Σ_j φ(q_i, k_j) )

Shapes: A anchors, N keys, D features.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def contrast(
    q_AD: Tensor,
    k_ND: Tensor,
    positive_AN: Tensor,
    *,
    tau: float,
    keys_N: Tensor | None = None,
    weight_N: Tensor | None = None,
    one_log: bool = False,
) -> Tensor:
    """Return L of the anchors that have a positive, or 0; between 0 and 2/τ + log N at any scale of features.

    positive_AN: (A, N) bool, the pairs that belong together. keys_N: (N,) bool, the keys that count (default: all);
    other keys are neither positive nor negative. weight_N: above 0, multiplies each key's φ (default: 1). one_log: one
    logarithm for all anchors, instead of the mean of one each.

    >>> q, k = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> contrast(q, k, torch.tensor([[True, False]]), tau=1.0)   # -log(e / (e + 1))
    tensor(0.3133)
    """
    z_AN = normalize(q_AD) @ normalize(k_ND).T / tau
    if weight_N is not None:
        z_AN = z_AN + weight_N.log()
    least = torch.finfo(z_AN.dtype).min  # finite, because a row without keys would be inf - inf
    if keys_N is not None:
        positive_AN = positive_AN & keys_N
        z_AN = z_AN.masked_fill(~keys_N, least)
    all_A, positive_A = z_AN.logsumexp(1), z_AN.masked_fill(~positive_AN, least).logsumexp(1)
    counts_A = positive_AN.any(1)
    if one_log:
        return all_A.masked_fill(~counts_A, least).logsumexp(0) - positive_A.masked_fill(~counts_A, least).logsumexp(0)
    return torch.where(counts_A, all_A - positive_A, 0).sum() / counts_A.sum().clamp_min(1)
