"""The domain discriminator of the adversarial methods, its loss, and the input of a conditional discriminator.

Shapes: S, T rows of the two sides, B of either, I inputs, D features, K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from heads.grl import reverse

TINY = 1e-12  # least sum of weights
WIDEST, RANDOM = 4096, 1024  # most entries of f ⊗ p without projection, and entries of the projection


def discriminator(inputs: int) -> nn.Sequential:
    """Build I -> 100 -> ReLU -> 2 with truncated normal weights of std 0.1, as in MM-SADA's code."""
    layers = nn.Linear(inputs, 100), nn.Linear(100, 2)
    for layer in layers:
        nn.init.trunc_normal_(layer.weight, std=0.1)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1])


def domain_loss(
    D: nn.Module, h_SI: Tensor, h_TI: Tensor, weight_S: Tensor, weight_T: Tensor, coefficient: float
) -> Tensor:
    """Return the cross entropy of "source or target?", a weighted mean over the rows of both sides; 0 without weights.

    Layers before h get its gradient times -coefficient; D gets the whole gradient. A bool weight marks rows that count.
    """
    return side_loss(D(reverse(torch.cat([h_SI, h_TI]), coefficient)), weight_S, weight_T)


def side_loss(z_B2: Tensor, weight_S: Tensor, weight_T: Tensor) -> Tensor:
    """Return the same loss, given a discriminator's logits of the rows of both sides.

    >>> side_loss(torch.tensor([[0.0, 0.0], [9.0, -9.0]]), torch.ones(1), torch.zeros(1))   # the second row counts 0
    tensor(0.6931)
    """
    d_B = torch.cat([torch.zeros_like(weight_S, dtype=torch.long), torch.ones_like(weight_T, dtype=torch.long)])
    weight_B = torch.cat([weight_S, weight_T]).to(z_B2)
    return (cross_entropy(z_B2, d_B, reduction="none") * weight_B).sum() / weight_B.sum().clamp_min(TINY)


class Joint(nn.Module):
    """f ⊗ p of each row, (B, D) and (B, K) -> (B, width): flattened, or projected at random above WIDEST entries."""

    R_f: Tensor
    R_p: Tensor

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.random = dim * classes > WIDEST
        self.width = RANDOM if self.random else dim * classes
        if self.random:
            self.register_buffer("R_f", torch.randn(dim, RANDOM))
            self.register_buffer("R_p", torch.randn(classes, RANDOM))

    def forward(self, f_BD: Tensor, p_BK: Tensor) -> Tensor:
        """Return the joint features."""
        if self.random:
            return (f_BD @ self.R_f) * (p_BK @ self.R_p) / RANDOM**0.5
        return (f_BD[:, :, None] * p_BK[:, None, :]).flatten(1)
