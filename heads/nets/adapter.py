"""Adapter: one trainable layer per modality over frozen features, so that alignment losses have something to align.

    f_m = Dropout(act(W_m x_m + b_m))          x_m: mean of the clip's windows;  f_m in R^D
    z   = Σ_m G_m f_m + g                      late fusion: the modalities' scores are added

Both domains share all weights, and nothing is normalised between F and a loss: norms are what RNA aligns.

Implementation details
  1. Windows are averaged before the layer. To score each window and average the predictions, use `Feed(test="each")`.
  2. The bias g is one vector for all modalities, not one per modality. With all of them present that is the same set of
     functions; and f_m is set to 0 where a clip lacks m, so that a missing modality has exactly no say.
  3. With several tasks, D is cut into equal parts, one per task, in the order of their names; a remainder goes to the
     last.
Shapes: B batch, D features, K classes.
"""

from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from heads.batch import Side, Spec
from heads.nets import Net
from heads.nets._fusion import LateFusion
from heads.nets._parts import parts

ACTIVATIONS = {"relu": nn.ReLU, "none": nn.Identity}


@dataclass(frozen=True)
class Params:
    """Size and shape of the adapter."""

    dim: int = 1024  #: D, features per modality
    act: str = "relu"  #: relu (RNA on EK100), or none (contrastive cosines would be confined to [0, 1])
    dropout: float = 0.5  #: share of features dropped in training


class Adapter(Net):
    """The network above, over the modalities and tasks of the spec."""

    def __init__(self, params: Params, spec: Spec) -> None:
        super().__init__()
        if params.act not in ACTIVATIONS:
            raise ValueError(f"no net.act {params.act!r}; choose from {', '.join(ACTIVATIONS)}")
        self.dim = params.dim
        self.parts = parts(params.dim, tuple(spec.classes))
        self.F = nn.ModuleDict({m: nn.Linear(prod(shape), params.dim) for m, shape in spec.shapes.items()})
        self.after = nn.Sequential(ACTIVATIONS[params.act](), nn.Dropout(params.dropout))
        self.classifier = LateFusion(spec, params.dim, self.parts)

    def encode(self, side: Side) -> dict[str, Tensor]:
        """Modality -> f_m (B, D); zeros in the rows that lack the modality."""
        return {m: self.after(self.F[m](side.pool(m).flatten(1))) * side.has(m)[:, None] for m in side.x}

    def classify(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Task -> logits (B, K) of these modalities together."""
        logits: dict[str, Tensor] = self.classifier(f)
        return logits


NET = Adapter
