"""Prepared features: rows at unit sum or length, and entries standardised by the source or by each domain.

`Prepare` is what a run applies to all features before its net and method read them (`RunConfig.preparation`).
Shapes: B rows, T windows, D entries of a row; N domains and, last, all of them together.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from heads.batch import Side, Spec, gather

EPS = 1e-6  # an entry of smaller standard deviation is a constant with rounding errors, and is not divided


def moments(v_BD: Tensor, present_BD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, standard deviation (1 where constant) and number of rows of each entry, over the rows that have it.

    An entry is constant if its standard deviation is at most EPS, whatever its mean (unlike `moments_by_domain`).

    >>> v, present = torch.tensor([[1.0, 5.0], [3.0, 5.0], [9.0, 9.0]]), torch.tensor([[True], [True], [False]])
    >>> moments(v, present.expand(3, 2))
    (tensor([2., 5.]), tensor([1., 1.]), tensor([2, 2]))
    """
    rows_D = present_BD.sum(0)
    mean_D = (v_BD * present_BD).sum(0) / rows_D.clamp_min(1)
    std_D = (((v_BD - mean_D) * present_BD).square().sum(0) / rows_D.clamp_min(1)).sqrt()
    return mean_D, torch.where(std_D > EPS, std_D, 1.0), rows_D


def moments_by_domain(sides: Iterable[Side], domains: int, *, exact: bool = False) -> dict[str, tuple[Tensor, Tensor]]:
    """Return modality -> mean and standard deviation of each entry in each domain, (N, D) each, in double precision.

    They are those of the means over windows, over the rows of a domain that have the modality; a domain without such
    rows has those of all domains. A modality that no row has is left out. A constant entry has the standard deviation
    1. Labels are not read, and rows are not kept. exact: the mean of the first rows is subtracted before squaring, and
    an entry is constant if its standard deviation is at most EPS times its mean, so that neither a large mean nor a
    small unit hides a spread; otherwise if it is at most EPS.
    """
    sums: dict[str, Tensor] = {}  # modality -> (N, 1 + 2D): rows, Σ (x - o), Σ (x - o)²
    origin: dict[str, Tensor] = {}  # modality -> o (row_shape)
    for side in sides:
        numbers = torch.arange(domains, device=side.domain.device)
        in_BN = pad(side.domain[:, None] == numbers, (0, 1), value=True)
        for m, x in side.x.items():
            if not side.has(m).any():
                continue
            if m not in origin:
                mean = side.pool(m).sum(0) / side.has(m).sum().clamp_min(1)
                origin[m] = mean if exact else torch.zeros_like(mean)
            moved, squared = (replace(side, x={m: v}) for v in (x - origin[m], (x - origin[m]).square()))
            weight_NB = (in_BN & side.has(m)[:, None]).T.double()
            means_BI = torch.cat([moved.pool(m).flatten(1), squared.pool(m).flatten(1)], dim=1).double()
            sums_NI = torch.cat([weight_NB.sum(1, keepdim=True), weight_NB @ means_BI], dim=1)
            sums[m] = sums[m] + sums_NI if m in sums else sums_NI
    return {m: _moments(sums_NI, origin[m].flatten().double(), exact) for m, sums_NI in sums.items()}


def _moments(sums_NI: Tensor, origin_D: Tensor, exact: bool) -> tuple[Tensor, Tensor]:
    """Return means and standard deviations (N, D) from the sums of `moments_by_domain`."""
    rows_N1, means_NI = sums_NI[:, :1], sums_NI[:, 1:] / sums_NI[:, :1].clamp_min(1)
    mean_ND, square_ND = torch.where(rows_N1 > 0, means_NI, means_NI[-1]).chunk(2, dim=1)
    std_ND = (square_ND - mean_ND.square()).clamp_min(0).sqrt()
    mean_ND = mean_ND + origin_D
    least_ND = EPS * (mean_ND.abs() if exact else torch.ones_like(mean_ND))
    return mean_ND, std_ND.where(std_ND > least_ND, 1.0)


class Prepare(nn.Module):
    """The preparation of all features of a run; its means and standard deviations are saved with the weights.

        x' = x / ‖x‖                    rows: "sum" (‖·‖ is the sum of absolute values), "length" (L2), "as-is" (x' = x)
        x̂ = (x' - μ_d) / σ_d            units: of all source rows ("source"), of the row's domain d ("domain"), "none"

    A row is the features of one window (or the mean of a clip's windows, if that is what the feed draws). μ and σ are
    those of the means over windows, from training rows, without labels. Absent windows stay 0, as does a row of zeros
    under `rows`. Captions always have the units of the source, because those of a target are hidden. A modality that
    the source or a domain lacks has the units of all training rows.
    """

    def __init__(
        self, rows: str, units: str, shapes: dict[str, tuple[int, ...]], domains: int, captions: tuple[str, ...] = ()
    ) -> None:
        """Prepare rows of these shapes; `domains` is the number of training domains."""
        super().__init__()
        self.rows, self.units, self.domains = rows, units, domains
        self.measured = units == "none"
        self.modalities = set(shapes) if units != "none" else set()
        for m in self.modalities:
            N = domains + 1 if units == "domain" and m not in captions else 1
            self.register_buffer(f"mean:{m}", torch.zeros(N, *shapes[m]))
            self.register_buffer(f"std:{m}", torch.ones(N, *shapes[m]))

    def measure(self, source: Iterable[Side], target: Iterable[Side], other: Iterable[Side] = ()) -> None:
        """Measure μ and σ on unprepared training rows; `other`: rows of a test domain that is not in training."""
        found = self._moments(source if self.units == "source" else chain(source, target))
        if not self.modalities <= found.keys():  # the source lacks a modality
            found = self._moments(target) | found
        outside = self._moments(other)
        for m, moments in (outside | found).items():
            for k, name in enumerate(("mean", "std")):
                buffer = self.get_buffer(f"{name}:{m}").flatten(1)
                buffer.copy_(moments[k][-len(buffer) :].expand_as(buffer))
                if m in outside:
                    buffer[-1] = outside[m][k][-1]
        self.measured = True

    def _moments(self, sides: Iterable[Side]) -> dict[str, tuple[Tensor, Tensor]]:
        scaled = (replace(side, x={m: self._scale(x.clone()) for m, x in side.x.items()}) for side in sides)
        return moments_by_domain(scaled, self.domains, exact=True)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take the units of an earlier run."""
        loaded = super().load_state_dict(state, strict, assign)
        self.measured = True
        return loaded

    def forward(self, modality: str, x_BT: Tensor, present_BT: Tensor, domain_B: Tensor) -> Tensor:
        """Prepare features (B, T, *row_shape) in place, and return them."""
        if not self.measured:
            raise RuntimeError("the units of this run are not measured, and no weights were loaded that have them")
        self._scale(x_BT)
        if self.units != "none":
            mean, std = (self.get_buffer(f"{name}:{modality}") for name in ("mean", "std"))
            if len(mean) > 1:
                mean, std = mean[domain_B], std[domain_B]
            x_BT.sub_(mean[:, None]).div_(std[:, None])
            x_BT.mul_(present_BT.reshape(*present_BT.shape, *[1] * (x_BT.dim() - 2)))
        return x_BT

    def _scale(self, x_BT: Tensor) -> Tensor:
        """Divide each row by its sum or length, in place."""
        if self.rows != "as-is":
            size_BT = x_BT.flatten(2).norm(p=1 if self.rows == "sum" else 2, dim=2)
            x_BT.div_(size_BT.where(size_BT > 0, 1.0).reshape(*size_BT.shape, *[1] * (x_BT.dim() - 2)))
        return x_BT


class Standardise(nn.Module):
    """(x - μ) / σ of each entry of each modality; x itself before `measure`. μ and σ are saved with the weights."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        for m, shape in spec.shapes.items():
            self.register_buffer(f"mean:{m}", torch.zeros(prod(shape)))
            self.register_buffer(f"std:{m}", torch.ones(prod(shape)))

    def measure(self, sides: Iterator[Side]) -> None:
        """Measure μ and σ of the means over windows, over all rows that have the modality."""

        def look(side: Side) -> dict[str, Tensor]:
            has = {f"has {m}": side.has(m)[:, None] for m in side.x}
            return {m: side.pool(m).flatten(1) for m in side.x} | has

        whole = gather(sides, look)
        for m in [m for m in whole if f"has {m}" in whole]:
            mean_D, std_D, _ = moments(whole[m], whole[f"has {m}"].expand_as(whole[m]))
            self.get_buffer(f"mean:{m}").copy_(mean_D)
            self.get_buffer(f"std:{m}").copy_(std_D)

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Standardise modality -> (..., D)."""
        return {m: (v - self.get_buffer(f"mean:{m}")) / self.get_buffer(f"std:{m}") for m, v in x.items()}
