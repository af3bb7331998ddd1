"""Base of the classifiers that are fitted to whole sides at once: their features, and the time of the fit.

    x = (v - μ_d) / σ_d      v: a row's modalities, concatenated; d: the row's domain

Predictions come from the fitted classifier, never from the net's. The net matters only if it computes the features.
Shapes: B rows (of a whole side where they are fitted), D entries of all modalities together, N domains.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor

from heads.batch import Batch, Side, Spec, Sweep, gather
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.nets import Net
from heads.units import moments

FEATURES = ("pooled", "encoded")
STANDARDISE = ("none", "source", "domain")


@dataclass(frozen=True)
class Rows:
    """Rows of a side, ready to be classified."""

    x: Tensor  #: (B, D), 0 where the row lacks the modality
    present: Tensor  #: (B, D) bool: the row has the modality of this entry
    y: dict[str, Tensor]  #: label -> (B,) int64; {} where hidden


class Fitted(Method):
    """A classifier with `fit` and `scores`. Its Params have `features` and `standardise`."""

    needs: ClassVar[tuple[str, ...]] = ("source",)
    may: ClassVar[tuple[str, ...]] = ("target",)
    mean: Tensor
    std: Tensor

    def __init__(self, params: Any, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        for name, choices in (("features", FEATURES), ("standardise", STANDARDISE)):
            if getattr(params, name) not in choices:
                raise ValueError(f"no method.{name} {getattr(params, name)!r}; choose from {', '.join(choices)}")
        pooled = params.features == "pooled"
        self.width = {m: prod(shape) if pooled else net.dim for m, shape in spec.shapes.items()}
        self.D = sum(self.width.values())
        self.register_buffer("mean", torch.zeros(len(spec.domains) + 1, self.D))  # the last row is for other domains
        self.register_buffer("std", torch.ones(len(spec.domains) + 1, self.D))

    def fit(self, source: Rows, target: Rows | None) -> None:
        """Fit the classifier to all rows, without gradient, and fill the saved buffers that predictions need."""
        raise NotImplementedError

    def scores(self, rows: Rows) -> dict[str, Tensor]:
        """Return label -> logits (B, K)."""
        raise NotImplementedError

    def begin_epoch(self, epoch: int, sweep: Sweep) -> None:
        """Fit once to pooled features, which do not change, or in every epoch to the current features of the net."""
        if epoch > 0 and self.params.features == "pooled":
            return
        source = gather(sweep("source"), self.look)
        target = gather(sweep("target"), self.look) if "target" in self.spec.rows else None
        self.measure(source, target)
        self.fit(self.rows(source), self.rows(target) if target else None)

    def look(self, side: Side) -> dict[str, Tensor]:
        """Return the vectors v (B, D), a mask of their present entries, the domain, and the labels if visible."""
        if self.params.features == "pooled":
            f = {m: side.pool(m).flatten(1) for m in side.x}
        else:
            f = self.net.encode(side)
        v_BD, present_BD = self.joined(f, side)
        labels = {f"y {label}": y for label, y in side.y.items()}
        return {"v": v_BD, "present": present_BD, "domain": side.domain, **labels}

    def joined(self, f: dict[str, Tensor], side: Side) -> tuple[Tensor, Tensor]:
        """Concatenate the modalities' features, and masks of the rows that have them -> (B, D) each."""
        B, device = side.index.shape[0], side.index.device
        lacking = torch.zeros(B, dtype=torch.bool, device=device)
        present = [(side.has(m) if m in side.x else lacking)[:, None].expand(B, D) for m, D in self.width.items()]
        v = [f[m] if m in side.x else torch.zeros(B, D, device=device) for m, D in self.width.items()]
        return torch.cat(v, 1), torch.cat(present, 1)

    def measure(self, source: dict[str, Tensor], target: dict[str, Tensor] | None) -> None:
        """Set μ and σ of each domain: those of the source, those of the domain, or 0 and 1."""
        if self.params.standardise == "none":
            return
        mean_D, std_D, _ = moments(source["v"], source["present"])
        self.mean.copy_(mean_D.expand_as(self.mean))
        self.std.copy_(std_D.expand_as(self.std))
        if self.params.standardise == "domain":
            for vectors in (source, target) if target else (source,):
                for d in vectors["domain"].unique():
                    in_domain = vectors["domain"] == d
                    mean_D, std_D, rows_D = moments(vectors["v"][in_domain], vectors["present"][in_domain])
                    self.mean[d] = mean_D.where(rows_D > 0, self.mean[d])
                    self.std[d] = std_D.where(rows_D > 0, self.std[d])

    def rows(self, vectors: dict[str, Tensor]) -> Rows:
        """Standardise the output of `look`."""
        domain_B = vectors["domain"]
        x_BD = (vectors["v"] - self.mean[domain_B]) / self.std[domain_B] * vectors["present"]
        return Rows(
            x_BD,
            vectors["present"],
            {label: vectors[f"y {label}"] for label in self.spec.classes if f"y {label}" in vectors},
        )

    def features(self, side: Side) -> dict[str, Tensor]:
        """Return modality -> its entries of x (B, D_m)."""
        x_BD = self.rows(self.look(side)).x
        each = zip(self.width, x_BD.split(list(self.width.values()), 1), strict=True)
        return {m: x_BI for m, x_BI in each if m in side.x}

    def outputs(self, f: dict[str, Tensor], side: Side) -> dict[str, Tensor]:
        """Return label -> logits of the fitted classifier."""
        return self.scores(Rows(*self.joined(f, side), y={}))

    @property
    def parts(self) -> dict[str, slice]:
        """Label -> all of x, which every label's classifier reads."""
        return dict.fromkeys(self.spec.classes, slice(None))

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C, which trains the net as `source_only` does."""
        s = batch.source_side
        return {"L_C": label_cross_entropy(self.net.classify(self.net.encode(s)), s.y)}
