"""Features of single windows, for methods that use the course of events within a clip.

Shapes: B rows, T windows, D features.
"""

from dataclasses import replace

import torch
from torch import Tensor

from heads.batch import Side
from heads.nets import Net


def window_features(net: Net, side: Side) -> dict[str, Tensor]:
    """Return modality -> (B, T, D): each window encoded as one clip; zeros for absent windows."""
    f = {}
    for m, x in side.x.items():
        B, T = x.shape[:2]
        domain, index = (per_row.repeat_interleave(T) for per_row in (side.domain, side.index))
        windows = replace(
            side,
            x={m: x.flatten(0, 1)[:, None]},
            present={m: side.present[m].flatten()[:, None]},
            y={},
            domain=domain,
            index=index,
        )
        f[m] = net.encode(windows)[m].reshape(B, T, -1)
    return f


def mean_windows(f_BTD: Tensor, present_BT: Tensor) -> Tensor:
    """Return the mean over the present windows -> (B, D); zeros without windows.

    >>> mean_windows(torch.tensor([[[1.0], [5.0], [99.0]]]), torch.tensor([[True, True, False]]))
    tensor([[3.]])
    """
    return (f_BTD * present_BT[:, :, None]).sum(1) / present_BT.sum(1, keepdim=True).clamp_min(1)


def videos(side: Side, f: dict[str, Tensor]) -> dict[str, Tensor]:
    """Map modality -> features of windows (B, T, D) to modality -> their mean (B, D)."""
    return {m: mean_windows(f_BTD, side.present[m]) for m, f_BTD in f.items()}


def masked_softmax(score: Tensor, where: Tensor) -> Tensor:
    """Return the softmax over the last axis of the entries that count; zeros if no entry counts.

    >>> masked_softmax(torch.zeros(2, 3), torch.tensor([[True, True, False], [False, False, False]]))
    tensor([[0.5000, 0.5000, 0.0000],
            [0.0000, 0.0000, 0.0000]])
    """
    least = torch.finfo(score.dtype).min  # not -inf: a row without entries would be NaN
    return score.masked_fill(~where, least).softmax(-1) * where
