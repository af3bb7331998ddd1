"""Spatial temporal graph convolutions on skeletons [ST-GCN: Yan et al. 2018] in two branches, for CoDT's clustering.

    x' = relu(T(G x) + R x)                                          a block, ten of them
    (G x)_w = Σ_k W_k Σ_v x_v (A_k ⊙ E_k)_vw + b_k                   from joints v to joint w, over 3 partitions k
    T = Dropout(BN(conv of 9 frames(relu(BN))))                      over frames, joint by joint
    f = mean over frames, joints and bodies of the last block        256 numbers of a clip

A are the partitions of the graph (`heads/skeletons.py`), E the learnt importance of its edges. Channels are 16 four
times, 32 three times, 64 twice, and 256; blocks 5 and 8 halve the frames: 50 become 13. Branch B0 reads the run's first
feed, the layout that source and target share. Branch B1 reads the last feed: the target's own layout if there are two
feeds, else the same one. `classifier` predicts the source's classes from B0. Entries of the encoders' state dicts
(`encoder.B0`, `encoder.B1`) have the names of CoDT's official release, whose weights fit.

Implementation details
  1. The first block has no residual and no dropout. R is the identity if a block keeps channels and frames, otherwise a
     convolution of one frame and joint with BN.
  2. The graph is multiplied first and W second. The sum is the same, and the C_in channels of a block are cheaper than
     its 3 C_out (docs/benchmarks.md).
  3. Initial weights are normal, 0 ± 0.02, those of BN 1 ± 0.02, biases 0 (CoDT's code).
  4. The joints of an absent body are 0: it passes through the net, and counts in the mean (code).
Shapes: B rows, C coordinates, T frames, V joints, M bodies, D features; maps are (B, M, D, T').
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from heads import noise
from heads.batch import Side, Spec
from heads.nets import Net
from heads.params import within
from heads.skeletons import partitions, skeleton


@dataclass(frozen=True)
class Params:
    """Size of the network."""

    width: int = within(16, 1)  #: channels of the first four blocks; the next have two and four times it [code: CoDT]
    dim: int = within(256, 1)  #: D, channels of the last block [code: CoDT]
    kernel: int = within(9, 1)  #: frames of a block's convolution; odd [code: CoDT]
    dropout: float = within(0.5, 0, 1, below=True)  #: share of a block's numbers dropped in training [code: CoDT]


class Stgcn(Net):
    """An encoder for each branch, and a classifier of the source's classes."""

    task = "clustering"

    def __init__(self, params: Params, spec: Spec) -> None:
        super().__init__()
        if len(spec.classes) != 1 or not 1 <= len(spec.shapes) <= 2:
            raise ValueError(
                f"net stgcn takes one label kind and one or two feeds, not {', '.join(spec.classes)} on "
                f"{', '.join(spec.shapes)}; the first feed is the layout that source and target share"
            )
        for m, shape in spec.shapes.items():
            if len(shape) != 4 or spec.windows[m] != 1:
                raise ValueError(
                    f"net stgcn reads one window of (coordinates, frames, joints, bodies) per clip, but feed {m!r} has "
                    f"{spec.windows[m]} of {shape}; extract it with `skeleton`, one window per clip"
                )
        if params.kernel % 2 == 0:
            raise ValueError(f"net.kernel {params.kernel} is not odd, so it has no middle frame; the paper has 9")
        modalities = tuple(spec.shapes)
        self.feeds = {"B0": modalities[0], "B1": modalities[-1]}  # branch -> modality
        self.dim, self.units, (self.label,) = params.dim, None, spec.classes
        self.parts = {self.label: slice(None)}
        shapes = {branch: spec.shapes[m] for branch, m in self.feeds.items()}
        self.encoder = nn.ModuleDict({branch: Encoder(params, *shape[::2]) for branch, shape in shapes.items()})
        self.classifier = nn.Linear(params.dim, spec.classes[self.label])
        self.apply(draw_weights)

    def maps(self, branch: str, x_BCTVM: Tensor) -> Tensor:
        """Encode skeletons by one branch -> (B, M, D, T'), the mean over joints."""
        maps_BMDT: Tensor = self.encoder[branch](x_BCTVM)
        return maps_BMDT

    def encode(self, side: Side) -> dict[str, Tensor]:
        """Return branch -> f (B, D), for the branches whose feed the side has."""
        return {branch: pooled(self.maps(branch, side.pool(m))) for branch, m in self.feeds.items() if m in side.x}

    def classify(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return logits of the source's classes, from B0."""
        return {self.label: self.classifier(f["B0"])}

    def outputs(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the features that are clustered: feature_B0, feature_B1 (B, D)."""
        return {f"feature_{branch}": f_BD for branch, f_BD in f.items()}


class Encoder(nn.Module):
    """Ten blocks for skeletons of one layout."""

    A: Tensor

    def __init__(self, params: Params, coordinates: int, V: int) -> None:
        super().__init__()
        skeleton(V)
        widths = [params.width] * 4 + [2 * params.width] * 3 + [4 * params.width] * 2 + [params.dim]
        self.register_buffer("A", partitions(V))
        self.data_bn = nn.BatchNorm1d(V * coordinates)
        self.st_gcn_networks = nn.ModuleList(
            Block(C, D, V, params.kernel, 2 if k in (4, 7) else 1, params.dropout if k else 0.0, residual=k > 0)
            for k, (C, D) in enumerate(zip([coordinates, *widths], widths, strict=False))
        )

    def forward(self, x_BCTVM: Tensor) -> Tensor:
        """Encode skeletons -> (B, M, D, T')."""
        B, C, T, V, M = x_BCTVM.shape
        x = self.data_bn(x_BCTVM.permute(0, 4, 3, 1, 2).reshape(B * M, V * C, T))
        x = x.unflatten(1, (V, C)).permute(0, 2, 3, 1).contiguous()
        for block in self.st_gcn_networks:
            x = block(x, self.A)
        maps_BMDT: Tensor = x.mean(3).unflatten(0, (B, M))
        return maps_BMDT


class Block(nn.Module):
    """A block: (B, C, T, V) -> (B, D, ⌈T / stride⌉, V)."""

    def __init__(self, C: int, D: int, V: int, kernel: int, stride: int, dropout: float, *, residual: bool) -> None:
        super().__init__()
        self.edge_importance = nn.Parameter(torch.ones(3, V, V))
        self.gcn = nn.ModuleDict({"conv": nn.Conv2d(C, 3 * D, 1)})
        over_time = nn.Conv2d(D, D, (kernel, 1), (stride, 1), (kernel // 2, 0))
        self.tcn = nn.Sequential(nn.BatchNorm2d(D), nn.ReLU(), over_time, nn.BatchNorm2d(D), noise.Dropout(dropout))
        self.residual: nn.Module | None = None
        if residual:
            changes = C != D or stride != 1
            conv = (nn.Conv2d(C, D, 1, (stride, 1)), nn.BatchNorm2d(D)) if changes else (nn.Identity(),)
            self.residual = nn.Sequential(*conv)

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        """Apply the block."""
        weight, bias = self.gcn["conv"].parameters()
        y = self.tcn(graph_convolution(x, A * self.edge_importance, weight, bias))
        return torch.relu(y if self.residual is None else y + self.residual(x))


def graph_convolution(x_BCTV: Tensor, A_KVW: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return Σ_k (W_k x + b_k) A_k -> (B, D, T, W); weight (K D, C, 1, 1) and bias (K D,) are those of a convolution.

    It is computed as Σ_k W_k (x A_k) plus b_k times the column sums of A_k.
    """
    K, C = len(A_KVW), x_BCTV.shape[1]
    D = len(bias) // K
    gathered = torch.cat([x_BCTV @ A_VW for A_VW in A_KVW], 1)  # (B, K C, T, W)
    W_DKC = weight.reshape(K, D, C).transpose(0, 1)
    y_BDTW = conv2d(gathered, W_DKC.reshape(D, K * C, 1, 1))
    return y_BDTW + (bias.reshape(K, D).T @ A_KVW.sum(1))[:, None]


def pooled(maps_BMDT: Tensor) -> Tensor:
    """Return the mean over bodies and frames -> (B, D)."""
    return maps_BMDT.mean((1, 3))


def draw_weights(module: nn.Module) -> None:
    """Draw normal weights and set biases to 0, for `nn.Module.apply`."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.BatchNorm1d | nn.BatchNorm2d):
        weight, bias = module.parameters()
        nn.init.normal_(weight, 0.0 if isinstance(module, nn.Linear | nn.Conv2d) else 1.0, 0.02)
        nn.init.zeros_(bias)


NET = Stgcn
