"""MTRAN's network [MTRAN: ACM MM 2022, Sec. 3.1]: a transformer per modality over a clip's windows, fused by one layer.

    Z  = LN(SA(X) + X),   X' = LN(FFB(Z) + Z)                 L times, from the cached rows
    A  = softmax(XW_q (XW_k)ᵀ / √D),   SA(X) = A XW_v         relations between windows: one head, no output layer
    FFB(Z) = W_2 ReLU(W_1 Z + b_1) + b_2
    f_m = mean over the windows of the last X
    f  = ReLU(W_f [f_rgb; f_flow] + b_f),   z = W_c f + b_c

Each modality has its own weights, 32 M at the published size. Only the fused f is classified.

Implementation details
  1. In the paper D is the size of the cached rows (1024). One linear layer maps rows of another size to D.
  2. Dropout follows W_1, W_2 and W_f: "after each fully-connected layer except the last classification layer". The
     projections to queries, keys and values have neither dropout nor bias. The losses that align the fused f take it
     after dropout; the net has no `dropout_at`, unlike the adapter.
  3. Windows have no positions (the paper names none), so their order has no effect.
  4. No window attends to absent windows, and the mean leaves them out; f_m is 0 where a clip lacks m.
  5. A modality that is drawn one window at a time has A = 1: its W_q and W_k cannot learn, and keep their first values.
  6. With several label kinds, the fused D is cut into parts as in the adapter.
Shapes: B rows, T windows, D features, L layers, K classes.
"""

from dataclasses import dataclass
from math import prod, sqrt

import torch
from torch import Tensor, nn

from heads import noise
from heads.batch import Side, Spec
from heads.nets import Net
from heads.params import within
from heads.parts import parts, widths

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Params:
    """Size of the network."""

    dim: int = within(1024, 1)  #: D, features per window, per modality and fused [paper]
    layers: int = within(6, 1)  #: L, transformer layers per modality [paper]
    dropout: float = within(0.3, 0, 1, below=True)  #: share of features dropped in training [paper]
    precision: str = "float32"  #: precision of the matrix products: float32 | bfloat16 (faster where supported) [ours]


class Mtran(Net):
    """The network above, over the modalities and label kinds of the spec."""

    fuses = row_by_row = True
    classifier: nn.ModuleDict

    def __init__(self, params: Params, spec: Spec) -> None:
        super().__init__()
        if params.precision not in PRECISIONS:
            raise ValueError(f"no net.precision {params.precision!r}; choose from {', '.join(PRECISIONS)}")
        self.dim = params.dim
        self.parts = parts(params.dim, tuple(spec.classes))
        self.precision = params.precision
        self.branch = nn.ModuleDict(
            {m: Branch(prod(shape), params, attends=spec.windows[m] > 1) for m, shape in spec.shapes.items()}
        )
        W_f = nn.Linear(len(spec.shapes) * params.dim, params.dim)
        self.fuse = nn.Sequential(W_f, nn.ReLU(), noise.Dropout(params.dropout))
        width = widths(params.dim, self.parts)
        self.classifier = nn.ModuleDict({f":{label}": nn.Linear(width[label], k) for label, k in spec.classes.items()})

    def attend(self, side: Side) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return modality or "fused" -> f (B, D), and modality -> A of each layer (B, L, T, T), with rows of sum 1."""
        f, A = {}, {}
        with torch.autocast(side.index.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            for m, x in side.x.items():
                f[m], A[m] = self.branch[m](x.flatten(2), side.present[m])
        none_BD = torch.zeros_like(next(iter(f.values())))
        f["fused"] = self.fuse(torch.cat([f.get(m, none_BD) for m in self.branch], 1))
        return f, A

    def encode(self, side: Side) -> dict[str, Tensor]:
        """Return modality -> f_m (B, D), zeros in the rows that lack the modality; "fused" -> f (B, D)."""
        return self.attend(side)[0]

    def classify(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return label -> logits (B, K) of the fused features."""
        if "fused" not in f:
            raise ValueError(
                f"net mtran classifies fused features, not single modalities ({', '.join(f)}); use net adapter for that"
            )
        return {label: self.classifier[f":{label}"](f["fused"][:, part]) for label, part in self.parts.items()}


class Branch(nn.Module):
    """The transformer of one modality, for rows of E numbers."""

    def __init__(self, E: int, params: Params, *, attends: bool) -> None:
        super().__init__()
        self.embed = nn.Identity() if params.dim == E else nn.Linear(E, params.dim)
        self.layers = nn.ModuleList(Layer(params) for _ in range(params.layers))
        for layer in self.layers:
            layer.W_q.requires_grad_(attends)
            layer.W_k.requires_grad_(attends)

    def forward(self, x_BTE: Tensor, present_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return f_m (B, D) and A (B, L, T, T) in the dtype of x, which all intermediate sums also have."""
        X_BTD, relations = self.embed(x_BTE).to(x_BTE.dtype), []
        for layer in self.layers:
            X_BTD, A_BTT = layer(X_BTD, present_BT)
            relations.append(A_BTT)
        sum_BD = (X_BTD * present_BT[:, :, None]).sum(1)
        return sum_BD / present_BT.sum(1, keepdim=True).clamp_min(1), torch.stack(relations, 1)


class Layer(nn.Module):
    """Attention between the windows, then two linear layers, each with a residual and normalised after it."""

    def __init__(self, params: Params) -> None:
        super().__init__()
        D, dropout = params.dim, params.dropout
        self.W_q, self.W_k, self.W_v = (nn.Linear(D, D, bias=False) for _ in range(3))
        self.FFB = nn.Sequential(
            nn.Linear(D, D), nn.ReLU(), noise.Dropout(dropout), nn.Linear(D, D), noise.Dropout(dropout)
        )
        self.LN_SA, self.LN_FFB = nn.LayerNorm(D), nn.LayerNorm(D)

    def forward(self, X_BTD: Tensor, present_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return X' (B, T, D) and A (B, T, T)."""
        scores_BTT = (self.W_q(X_BTD) @ self.W_k(X_BTD).mT).to(X_BTD.dtype) / sqrt(X_BTD.shape[-1])
        least = torch.finfo(scores_BTT.dtype).min  # not -inf: a row without any window would be NaN
        A_BTT = scores_BTT.masked_fill(~present_BT[:, None], least).softmax(-1)
        Z_BTD = self.LN_SA(A_BTT @ self.W_v(X_BTD) + X_BTD)
        return self.LN_FFB(self.FFB(Z_BTD) + Z_BTD), A_BTT


NET = Mtran
