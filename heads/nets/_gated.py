"""Gated embedding units [Miech et al. 2018, MoEE, Sec. 3.1], with or without the relations of collaborative experts.

Shapes: B rows, I entries of the input, D entries of the output.
"""

from torch import Tensor, nn
from torch.nn.functional import normalize

from heads.batch_norm import BatchNorm


class Gate(nn.Module):
    """x ⊙ σ(BN(W x)) at length 1; with relations x ⊙ σ(BN(W x) + BN'(q)). Rows that do not count are 0."""

    def __init__(self, dim: int, *, relations: bool = False) -> None:
        super().__init__()
        self.W = nn.Linear(dim, dim, bias=False)  # BN would cancel a bias
        self.BN = BatchNorm(dim)
        self.BN_q = BatchNorm(dim) if relations else None

    def forward(self, x_BD: Tensor, in_B: Tensor, q_BD: Tensor | None = None) -> Tensor:
        """Gate x -> (B, D); in_B (bool) marks the rows that count."""
        t_BD = self.BN(self.W(x_BD), in_B)
        if self.BN_q is not None:
            t_BD = t_BD + self.BN_q(q_BD, in_B)
        return normalize(x_BD * t_BD.sigmoid(), dim=1) * in_B[:, None]


class GatedUnit(nn.Module):
    """A linear layer and its gate: (B, I) -> (B, D), of length 1 or 0."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(inputs, dim)
        self.gate = Gate(dim)

    def forward(self, x_BI: Tensor, in_B: Tensor) -> Tensor:
        """Apply layer and gate; in_B (bool) marks the rows that count."""
        gated_BD: Tensor = self.gate(self.reduce(x_BI), in_B)
        return gated_BD
