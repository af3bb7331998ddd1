"""Cross entropy on labels of one kind or several."""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def label_cross_entropy(
    logits: dict[str, Tensor], y: dict[str, Tensor], rows: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Return the sum over label kinds of the mean cross entropy. logits: label -> (B, K), y: label -> (B,).

    rows: (B,) bool, the rows that count (default: all); the loss is 0 without rows. smoothing: ε of the targets
    (1 - ε) 1[y = k] + ε / K.

    >>> label_cross_entropy({"label": torch.zeros(3, 4)}, {"label": torch.tensor([0, 1, 3])})   # log 4
    tensor(1.3863)
    """
    for label in logits:
        if label not in y:
            raise ValueError(
                f"a loss needs labels of kind {label!r}, but this side's are hidden, as a target's always are; "
                f"visible here: {', '.join(y) or 'none'}"
            )
    loss = partial(cross_entropy, label_smoothing=smoothing)
    if rows is None:
        return torch.stack([loss(logits[label], y[label]) for label in logits]).sum()
    each_JB = torch.stack([loss(logits[label], y[label], reduction="none") for label in logits])
    return (each_JB * rows).sum() / rows.sum().clamp_min(1)
