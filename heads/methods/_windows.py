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
    return {m: net.encode(windows(side, m))[m].unflatten(0, x.shape[:2]) for m, x in side.x.items()}


def window_features_both(net: Net, s: Side, t: Side) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return `window_features` of both sides, each modality of both encoded at once where the net can do so."""
    f_s = window_features(net, replace(s, x={m: x for m, x in s.x.items() if m not in t.x}))
    f_t = window_features(net, replace(t, x={m: x for m, x in t.x.items() if m not in s.x}))
    for m in (m for m in s.x if m in t.x):
        both = net.encode_both(windows(s, m), windows(t, m))
        f_s[m], f_t[m] = (f[m].unflatten(0, side.x[m].shape[:2]) for f, side in zip(both, (s, t), strict=True))
    return {m: f_s[m] for m in s.x}, {m: f_t[m] for m in t.x}


def windows(side: Side, m: str) -> Side:
    """Return the windows of a modality as clips of one window (B T,), without labels."""
    domain, index = (per_row.repeat_interleave(side.x[m].shape[1]) for per_row in (side.domain, side.index))
    present = {m: side.present[m].flatten()[:, None]}
    return Side({m: side.x[m].flatten(0, 1)[:, None]}, present, {}, domain, index)


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
