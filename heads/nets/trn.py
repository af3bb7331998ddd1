"""Temporal relation network per modality [TRN: Zhou et al. 2018], as RNA's EPIC-Kitchens-100 head [RNA, Sec. 4.2.1].

    x_mt = Dropout(ReLU(W_m x_mt + b_m))                                        frames, t = 1 .. T
    r_mn = Σ_{t_1 < .. < t_n} ReLU(V_mn [x_mt_1; ..; x_mt_n] + c_mn)            relations of n frames, n = T .. 2
    f'_m = Dropout(Σ_n r_mn),   f_m = U_m f'_m + u_m                            video;  f_m in R^D, cut by label
    z    = Σ_m G_m f_m + g                                                      late fusion

Frames keep their order: unlike the adapter and MTRAN, this net depends on the order of events. T is the number of
windows of a training draw (`Feed(train="segments:5")`: 5 of 25); each modality has its own.

Implementation details
  1. Up to 3 combinations of n frames are summed: numbers ⌈i C / 3⌉ of all C in lexicographic order, the same for all
     rows. The combinations of one n share V_mn. (Code of EK100's challenge, by the authors of TA3N.)
  2. That code has one more ReLU before V_mn, which has no effect because frames are not negative. The dropout on f' is
     from the code; RNA's text mentions only the first dropout, and refers to the code up to f'. Both stand before the
     features that losses align, as in the code, so there is no `dropout_at` as in the adapter.
  3. The code joins the modalities to one frame of 3072 numbers; RNA has a network per modality, as here. Widths are
     RNA's: f' in R^1024, verb and noun in R^256 each. The paper does not state the width of the frames.
  4. A row with fewer or more present windows than T is read at the centres of T equal stretches of its windows, as by
     `segments:T`: some windows are read twice, or some not at all. Each row then has all relations, and norms are
     comparable.
  5. One window (T = 1) has no relation: V is then applied to that frame.
  6. f_m is 0 where a clip lacks m. All modalities share the bias g, as in the adapter.
Shapes: B rows, T frames, E numbers of a row, W width of a frame, S scales n, C combinations, R relations, D features.
"""

from dataclasses import dataclass
from itertools import combinations
from math import ceil, prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from heads import noise
from heads.batch import Side, Spec
from heads.nets import Net
from heads.nets._fusion import LateFusion
from heads.params import within
from heads.parts import parts

MOST = 3  # largest number of combinations that are summed at a scale


@dataclass(frozen=True)
class Params:
    """Size of the network."""

    dim: int = within(512, 1)  #: D, features per modality of all label kinds together: verb 256, noun 256 [paper: RNA]
    frame_dim: int = within(1024, 1)  #: W, width of a frame [ours: RNA states none]
    relation_dim: int = within(1024, 1)  #: R, width of a relation and of f' [paper: RNA]
    dropout: float = within(0.5, 0, 1, below=True)  #: share of frame and video features dropped [paper: RNA]


class Levels(NamedTuple):
    """Outputs of a modality's network before f', for methods that align its levels."""

    frames: Tensor  #: (B, T, W)
    relations: Tensor  #: (B, S, R), from n = T down to 2


class Trn(Net):
    """The network above, over the modalities and label kinds of the spec."""

    row_by_row = True

    def __init__(self, params: Params, spec: Spec) -> None:
        super().__init__()
        self.params = params
        self.dim = params.dim
        self.parts = parts(params.dim, tuple(spec.classes))
        self.scales = {m: list(range(spec.windows[m], 1, -1)) or [1] for m in spec.shapes}  # n of the relations
        self.branch = nn.ModuleDict(
            {m: Branch(prod(shape), self.scales[m], params) for m, shape in spec.shapes.items()}
        )
        self.U = nn.ModuleDict({m: nn.Linear(params.relation_dim, params.dim) for m in spec.shapes})
        self.after = noise.Dropout(params.dropout)
        self.classifier = LateFusion(spec, params.dim, self.parts)

    def levels(self, side: Side) -> dict[str, Levels]:
        """Return modality -> frames and relations; meaningless in the rows that lack the modality."""
        return {m: self.branch[m](x.flatten(2), side.present[m]) for m, x in side.x.items()}

    def video(self, relations_BSR: Tensor) -> Tensor:
        """Sum the relations, weighted or not -> f' (B, R)."""
        video_BR: Tensor = self.after(relations_BSR.sum(1))
        return video_BR

    def project(self, side: Side, video: dict[str, Tensor]) -> dict[str, Tensor]:
        """Map modality -> f' (B, R) to modality -> f_m (B, D); zeros in the rows that lack the modality."""
        return {m: self.U[m](video_BR) * side.has(m)[:, None] for m, video_BR in video.items()}

    def encode(self, side: Side) -> dict[str, Tensor]:
        """Return modality -> f_m (B, D); zeros in the rows that lack the modality."""
        return self.project(side, {m: self.video(levels.relations) for m, levels in self.levels(side).items()})

    def classify(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return label -> logits (B, K) of all modalities in f together."""
        logits: dict[str, Tensor] = self.classifier(f)
        return logits


class Branch(nn.Module):
    """Frames and relations of one modality, for T windows of E numbers."""

    def __init__(self, E: int, scales: list[int], params: Params) -> None:
        super().__init__()
        self.T = scales[0]
        self.W = nn.Linear(E, params.frame_dim)
        self.after = nn.Sequential(nn.ReLU(), noise.Dropout(params.dropout))
        self.scales = nn.ModuleList(Scale(chosen(self.T, n), params) for n in scales)

    def forward(self, x_BTE: Tensor, present_BT: Tensor) -> Levels:
        """Compute both levels, for any number of windows."""
        at_BT = centres(present_BT, self.T)
        x_BTE = x_BTE.gather(1, at_BT[:, :, None].expand(-1, -1, x_BTE.shape[2]))
        x_BTW = self.after(self.W(x_BTE))
        return Levels(x_BTW, torch.stack([scale(x_BTW) for scale in self.scales], 1))


class Scale(nn.Module):
    """Relations r_mn of n frames, summed over the chosen combinations."""

    at: Tensor  # (C, n) frames

    def __init__(self, frames: list[tuple[int, ...]], params: Params) -> None:
        super().__init__()
        self.register_buffer("at", torch.tensor(frames), persistent=False)
        self.V = nn.Linear(len(frames[0]) * params.frame_dim, params.relation_dim)

    def forward(self, x_BTW: Tensor) -> Tensor:
        """Map frames to relations (B, R)."""
        r_BCR = self.V(x_BTW[:, self.at].flatten(2)).relu()
        return r_BCR.sum(1)


def chosen(T: int, n: int) -> list[tuple[int, ...]]:
    """Return up to MOST combinations of n out of T frames, evenly spaced among all of them.

    >>> chosen(5, 4)
    [(0, 1, 2, 3), (0, 1, 3, 4), (1, 2, 3, 4)]
    """
    every = list(combinations(range(T), n))
    count = min(MOST, len(every))
    return [every[ceil(i * len(every) / count)] for i in range(count)]


def centres(present_BT: Tensor, k: int) -> Tensor:
    """Return the windows at the centres of k equal stretches of a row's windows -> (B, k); 0 for a row without windows.

    >>> centres(torch.tensor([[True, True, True], [True, False, True]]), 3)
    tensor([[0, 1, 2],
            [0, 2, 2]])
    """
    order_BT = present_BT.int().argsort(dim=1, descending=True, stable=True)  # present windows first, in their order
    count_B1 = present_BT.sum(1, keepdim=True)
    return order_BT.gather(1, (2 * torch.arange(k, device=present_BT.device) + 1) * count_B1 // (2 * k))


NET = Trn
