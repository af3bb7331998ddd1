"""Cross entropy on labels, one task or several."""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def task_cross_entropy(
    logits: dict[str, Tensor], y: dict[str, Tensor], rows: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Σ_task mean over rows of the cross entropy. logits: task -> (B, K), y: task -> (B,).

    rows: (B,) bool, the rows that count (default: all); 0 when none does. smoothing: ε of the targets
    (1 - ε) 1[y = k] + ε / K.

    >>> task_cross_entropy({"label": torch.zeros(3, 4)}, {"label": torch.tensor([0, 1, 3])})   # log 4
    tensor(1.3863)
    """
    for task in logits:
        if task not in y:
            raise ValueError(
                f"a loss needs labels of task {task!r}, but this side's are hidden: those of a target always are; "
                f"visible here: {', '.join(y) or 'none'}"
            )
    loss = partial(cross_entropy, label_smoothing=smoothing)
    if rows is None:
        return torch.stack([loss(logits[task], y[task]) for task in logits]).sum()
    each_TB = torch.stack([loss(logits[task], y[task], reduction="none") for task in logits])
    return (each_TB * rows).sum() / rows.sum().clamp_min(1)
