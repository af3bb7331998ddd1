"""Batch normalisation of rows, some of which lack the feature."""

import torch
from torch import Tensor, nn

EPSILON, MOMENTUM = 1e-5, 0.1  # torch's


class BatchNorm(nn.Module):
    """γ (a - μ) / √(σ² + ε) + β [Ioffe & Szegedy 2015], with μ and σ² of the rows that count, entry by entry.

    In training μ and σ² come from the batch, and update the running averages that tests use. A batch with fewer than
    two rows that count has no variance: it is normalised by the running averages and does not update them.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("var", torch.ones(dim))

    def forward(self, a_BD: Tensor, in_B: Tensor) -> Tensor:
        """Normalise (B, D); in_B (bool) marks the rows that count."""
        mean_D, var_D = self.measure(a_BD, in_B) if self.training else (self.mean, self.var)
        return self.gamma * (a_BD - mean_D) / (var_D + EPSILON).sqrt() + self.beta

    def measure(self, a_BD: Tensor, in_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance of the batch, and update the running averages with the unbiased variance."""
        rows, in_B1 = in_B.sum(), in_B[:, None]
        mean_D = (a_BD * in_B1).sum(0) / rows.clamp_min(1)
        var_D = ((a_BD - mean_D).square() * in_B1).sum(0) / rows.clamp_min(1)
        enough = rows > 1
        measured = torch.where(enough, mean_D, self.mean), torch.where(enough, var_D, self.var)
        with torch.no_grad():
            unbiased_D = var_D * rows / (rows - 1).clamp_min(1)
            self.mean.add_(MOMENTUM * enough * (mean_D - self.mean))  # lerp_ has no rule for torch.vmap
            self.var.add_(MOMENTUM * enough * (unbiased_D - self.var))
        return measured
