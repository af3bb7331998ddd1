"""A net as its author would write it outside this repository: a linear layer per modality, and their sum classified.

f_m = U_m x_m + u_m,   z = G Σ_m f_m + g
"""

from dataclasses import dataclass
from math import prod

from torch import nn

from heads.nets import Net
from heads.params import within
from heads.parts import parts


@dataclass(frozen=True)
class Params:
    """Size of the net."""

    dim: int = within(16, 1)  #: D, features per modality [ours]


class Linear(Net):
    """The net above."""

    def __init__(self, params, spec):
        super().__init__()
        self.dim = params.dim
        self.parts = parts(params.dim, tuple(spec.classes))
        self.encoder = nn.ModuleDict({m: nn.Linear(prod(shape), params.dim) for m, shape in spec.shapes.items()})
        sizes = {label: len(range(params.dim)[part]) for label, part in self.parts.items()}
        self.classifier = nn.ModuleDict({label: nn.Linear(sizes[label], K) for label, K in spec.classes.items()})

    def encode(self, side):
        """Return modality -> f_m (B, D); zeros in the rows that lack the modality."""
        return {m: self.encoder[m](side.pool(m).flatten(1)) * side.has(m)[:, None] for m in side.x}

    def classify(self, f):
        """Return label -> logits (B, K) of the sum of the modalities."""
        total = sum(f.values())
        return {label: self.classifier[label](total[:, part]) for label, part in self.parts.items()}


NET = Linear
