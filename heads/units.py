"""Mean and spread of the entries of features, and features in these units.

Shapes: B rows, D entries.
"""

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor, nn

from heads.batch import Side, Spec, gather

EPS = 1e-6  # an entry that spreads less is a constant with rounding errors: it is not divided


def moments(v_BD: Tensor, there_BD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and standard deviation (1 where constant) of each entry over the rows that have it, and how many have.

    >>> v, there = torch.tensor([[1.0, 5.0], [3.0, 5.0], [9.0, 9.0]]), torch.tensor([[True], [True], [False]])
    >>> moments(v, there.expand(3, 2))
    (tensor([2., 5.]), tensor([1., 1.]), tensor([2, 2]))
    """
    rows_D = there_BD.sum(0)
    mean_D = (v_BD * there_BD).sum(0) / rows_D.clamp_min(1)
    std_D = (((v_BD - mean_D) * there_BD).square().sum(0) / rows_D.clamp_min(1)).sqrt()
    return mean_D, torch.where(std_D > EPS, std_D, 1.0), rows_D


class Standardise(nn.Module):
    """(x - μ) / σ of each entry of each modality; x itself until it is measured. μ and σ are saved with the weights."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        for m, shape in spec.shapes.items():
            self.register_buffer(f"mean:{m}", torch.zeros(prod(shape)))
            self.register_buffer(f"std:{m}", torch.ones(prod(shape)))

    def measure(self, sides: Iterator[Side]) -> None:
        """μ and σ over all rows that have the modality, of the means over their windows."""

        def look(side: Side) -> dict[str, Tensor]:
            has = {f"has {m}": side.has(m)[:, None] for m in side.x}
            return {m: side.pool(m).flatten(1) for m in side.x} | has

        seen = gather(sides, look)
        for m in [m for m in seen if f"has {m}" in seen]:
            mean_D, std_D, _ = moments(seen[m], seen[f"has {m}"].expand_as(seen[m]))
            self.get_buffer(f"mean:{m}").copy_(mean_D)
            self.get_buffer(f"std:{m}").copy_(std_D)

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Modality -> (..., D) to the same."""
        return {m: (v - self.get_buffer(f"mean:{m}")) / self.get_buffer(f"std:{m}") for m, v in x.items()}
