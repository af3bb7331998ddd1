"""The classifier that late-fusion nets share."""

import torch
from torch import Tensor, nn

from heads.batch import Spec
from heads.nets._parts import widths


class LateFusion(nn.Module):
    """z = Σ_m G_m f_m + g of each task, over the modalities that are given; each task reads its part of f_m.

    mean: the sum is divided by the number of these modalities.
    """

    def __init__(self, spec: Spec, dim: int, parts: dict[str, slice], *, mean: bool = False) -> None:
        super().__init__()
        self.mean = mean
        self.parts, width = parts, widths(dim, parts)
        each = [(m, task, K) for m in spec.shapes for task, K in spec.classes.items()]
        self.G = nn.ModuleDict({f"{m}:{task}": nn.Linear(width[task], K, bias=False) for m, task, K in each})
        self.g = nn.ParameterDict({f":{task}": torch.zeros(K) for task, K in spec.classes.items()})

    def forward(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Modality -> (B, D) to task -> logits (B, K)."""
        share = 1 / len(f) if self.mean else 1.0
        return {
            task: share * torch.stack([self.G[f"{m}:{task}"](f_BD[:, part]) for m, f_BD in f.items()]).sum(0)
            + self.g[f":{task}"]
            for task, part in self.parts.items()
        }
