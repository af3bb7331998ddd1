"""Mean and standard deviation of the entries of features, and standardised features.

Shapes: B rows, D entries.
"""

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor, nn

from heads.batch import Side, Spec, gather

EPS = 1e-6  # an entry of smaller standard deviation is a constant with rounding errors, and is not divided


def moments(v_BD: Tensor, present_BD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, standard deviation (1 where constant) and number of rows of each entry, over the rows that have it.

    >>> v, present = torch.tensor([[1.0, 5.0], [3.0, 5.0], [9.0, 9.0]]), torch.tensor([[True], [True], [False]])
    >>> moments(v, present.expand(3, 2))
    (tensor([2., 5.]), tensor([1., 1.]), tensor([2, 2]))
    """
    rows_D = present_BD.sum(0)
    mean_D = (v_BD * present_BD).sum(0) / rows_D.clamp_min(1)
    std_D = (((v_BD - mean_D) * present_BD).square().sum(0) / rows_D.clamp_min(1)).sqrt()
    return mean_D, torch.where(std_D > EPS, std_D, 1.0), rows_D


class Standardise(nn.Module):
    """(x - μ) / σ of each entry of each modality; x itself before `measure`. μ and σ are saved with the weights."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        for m, shape in spec.shapes.items():
            self.register_buffer(f"mean:{m}", torch.zeros(prod(shape)))
            self.register_buffer(f"std:{m}", torch.ones(prod(shape)))

    def measure(self, sides: Iterator[Side]) -> None:
        """Measure μ and σ of the means over windows, over all rows that have the modality."""

        def look(side: Side) -> dict[str, Tensor]:
            has = {f"has {m}": side.has(m)[:, None] for m in side.x}
            return {m: side.pool(m).flatten(1) for m in side.x} | has

        whole = gather(sides, look)
        for m in [m for m in whole if f"has {m}" in whole]:
            mean_D, std_D, _ = moments(whole[m], whole[f"has {m}"].expand_as(whole[m]))
            self.get_buffer(f"mean:{m}").copy_(mean_D)
            self.get_buffer(f"std:{m}").copy_(std_D)

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Standardise modality -> (..., D)."""
        return {m: (v - self.get_buffer(f"mean:{m}")) / self.get_buffer(f"std:{m}") for m, v in x.items()}
