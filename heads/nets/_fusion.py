"""The classifier of the late-fusion nets."""

import torch
from torch import Tensor, nn

from heads.batch import Spec
from heads.parts import widths


class LateFusion(nn.Module):
    """z = Σ_m G_m f_m + g of each label, over the modalities in the input; each label reads its own part of f_m.

    mean: divide the sum by the number of these modalities.
    """

    def __init__(self, spec: Spec, dim: int, parts: dict[str, slice], *, mean: bool = False) -> None:
        super().__init__()
        self.mean = mean
        self.parts, width = parts, widths(dim, parts)
        each = [(m, label, K) for m in spec.shapes for label, K in spec.classes.items()]
        self.G = nn.ModuleDict({f"{m}:{label}": nn.Linear(width[label], K, bias=False) for m, label, K in each})
        self.g = nn.ParameterDict({f":{label}": torch.zeros(K) for label, K in spec.classes.items()})

    def forward(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Map modality -> (B, D) to label -> logits (B, K)."""
        share, z = 1 / len(f) if self.mean else 1.0, {}
        for label, part in self.parts.items():
            z[label] = self.g[f":{label}"]
            for m, f_BD in f.items():
                G_KD: Tensor = self.G[f"{m}:{label}"].weight  # type: ignore[assignment]
                z[label] = torch.addmm(z[label], f_BD[:, part], G_KD.T, alpha=share)
        return z
