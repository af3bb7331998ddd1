"""Changes of the features of test rows, and the spread of features of train rows; see `stress.py`.

Shapes: B rows, T windows, N windows of several rows, D entries of a row, n windows that are kept.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from featcache.errors import ConfigError
from heads.batch import Side

Change = Callable[[Side], Side]
LEVELS = 127  #: largest whole number of int8


def without(side: Side, modalities: Sequence[str]) -> Side:
    """Return the side without these modalities: zeros that are not present."""
    x, present = (
        {m: torch.zeros_like(values) if m in modalities else values for m, values in each.items()}
        for each in (side.x, side.present)
    )
    return replace(side, x=x, present=present)


def fewer(side: Side, n: int) -> Side:
    """Return the side with at most n windows of each row, at the centres of n equal parts of those that it has."""
    x, present = {}, {}
    for m, x_BT in side.x.items():
        present_BT = side.present[m]
        length_B1 = present_BT.sum(1, keepdim=True)
        at_Bn = (2 * torch.arange(n, device=x_BT.device) + 1) * length_B1 // (2 * n)  # among the present windows
        rank_BT = present_BT.cumsum(1) - 1
        chosen_BT = (rank_BT[:, :, None] == at_Bn[:, None]).any(2) | (length_B1 <= n)
        present[m] = present_BT & chosen_BT
        x[m] = x_BT * _as(present[m], x_BT)
    return replace(side, x=x, present=present)


def rounded(side: Side, dtype: str) -> Side:
    """Return the side with the features of each window as a store of this type would hold them."""
    x = {}
    for m, x_BT in side.x.items():
        if dtype == "int8":
            rows_BTD = x_BT.flatten(2)
            scale_BT1 = rows_BTD.abs().amax(2, keepdim=True) / LEVELS
            scale_BT1 = scale_BT1.where(scale_BT1 > 0, 1.0)
            x[m] = ((rows_BTD / scale_BT1).round() * scale_BT1).view_as(x_BT)
            continue
        x[m] = x_BT.half().float()
        if not bool(x[m].isfinite().all()):
            most = float(x_BT.abs().max())
            raise ConfigError(
                f"--dtype float16 cannot hold {m} features of {most:g}; its largest number is 65504; leave it out"
            )
    return replace(side, x=x)


def noisy(sigma: float, std: dict[str, Tensor], seed: int) -> Change:
    """Return the change that adds noise to one side after the other of a sweep.

    std: modality -> standard deviation of each entry (row_shape). Rows get the same noise whatever the sides' sizes.
    """
    draws = {m: np.random.default_rng([seed, *m.encode()]) for m in std}

    def change(side: Side) -> Side:
        x = {}
        for m, x_BT in side.x.items():
            noise_BT = torch.from_numpy(draws[m].standard_normal(x_BT.shape, np.float32)).to(x_BT.device)
            x[m] = x_BT + sigma * std[m] * noise_BT * _as(side.present[m], x_BT)
        return replace(side, x=x)

    return change


def _as(present_BT: Tensor, x_BT: Tensor) -> Tensor:
    """Return the mask with as many dimensions as x."""
    return present_BT.reshape(*present_BT.shape, *[1] * (x_BT.dim() - 2))


def spread(sides: Iterable[Side]) -> dict[str, Tensor]:
    """Modality -> standard deviation of each entry over all windows of all sides, without the modalities of no row."""
    origin: dict[str, Tensor] = {}  # near the mean, so that squares do not swallow small spreads
    sums: dict[str, Tensor] = {}  # number of windows, Σ (x - o), Σ (x - o)²
    for side in sides:
        for m, x_BT in side.x.items():
            windows_ND = x_BT[side.present[m]].double()
            if len(windows_ND):
                moved_ND = windows_ND - origin.setdefault(m, windows_ND.mean(0))
                new = torch.stack([torch.ones_like(moved_ND), moved_ND, moved_ND.square()]).sum(1)
                sums[m] = sums[m] + new if m in sums else new
    std = {}
    for m, sums_3D in sums.items():
        n, total, squares = sums_3D.unbind()
        std[m] = (squares / n - (total / n).square()).clamp_min(0).sqrt().float()
    return std
