"""Nearest class mean: a row gets the class whose mean over the source is nearest. Nothing is trained.

    z_k = -‖x - μ_k‖² / (2 σ²),    μ_k = mean of x over the source's rows of class k
    L = L_C     of the net, whose classifier predictions do not use

x concatenates the row's modalities, each the mean over its windows, with every entry standardised:

    standardise="none"      x is as cached: a modality of larger norms weighs more
    standardise="source"    by mean and standard deviation of the source, also for the target
    standardise="domain"    every domain by its own, which reads the target's rows (not their labels):
                            shifts and stretches of single entries between domains disappear

Implementation details
  1. σ² is the mean square of x - μ_y over rows and entries: z are log likelihoods, up to a constant, of Gaussians with
     equal spherical covariances. σ² does not change the nearest class. Classes have no prior.
  2. Means and distances are over the modalities that a row has. If no row of a class has a modality, the class gets the
     modality's mean over all rows. A class without rows is never predicted.
  3. Give the run `steps=0`, because training the net changes no prediction, unless `features="encoded"`. Then the means
     are those of the net's features at the beginning of the last epoch: use `init_from` with a trained net.
Shapes: B rows, D entries of all modalities together, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from heads.batch import Spec, members
from heads.methods._fitted import Fitted, Rows
from heads.nets import Net

EPS = 1e-12  #: least σ², for classes of equal rows


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of the nearest class mean."""

    standardise: str = "source"  #: none | source | domain [ours]
    features: str = "pooled"  #: pooled (the cached rows) | encoded (the net's features) [ours]


class NearestMean(Fitted):
    """Distances to the means of the source's classes."""

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        for label, K in spec.classes.items():
            self.register_buffer(f"mean:{label}", torch.zeros(K, self.D))
            self.register_buffer(f"rows:{label}", torch.ones(K))  # number of source rows in each class
            self.register_buffer(f"variance:{label}", torch.ones(()))

    def fit(self, source: Rows, target: Rows | None) -> None:
        """Compute μ_k and σ² of each label."""
        present_BD = source.present.to(source.x)
        overall_D = source.x.sum(0) / present_BD.sum(0).clamp_min(1)
        for label, y_B in source.y.items():
            is_class_BK = members(y_B, self.spec.classes[label]).to(source.x)
            rows_KD = is_class_BK.T @ present_BD
            mean_KD = torch.where(rows_KD > 0, is_class_BK.T @ source.x / rows_KD.clamp_min(1), overall_D)
            within_BD = (source.x - mean_KD[y_B]) * present_BD
            self.get_buffer(f"mean:{label}").copy_(mean_KD)
            self.get_buffer(f"rows:{label}").copy_(is_class_BK.sum(0))
            variance = within_BD.square().sum() / present_BD.sum().clamp_min(1)
            self.get_buffer(f"variance:{label}").copy_(variance.clamp_min(EPS))

    def scores(self, rows: Rows) -> dict[str, Tensor]:
        """Return z, and -inf for a class without rows."""
        z = {}
        for label in self.spec.classes:
            mean_KD = self.get_buffer(f"mean:{label}")
            present_BD = rows.present.to(rows.x)
            square_BK = rows.x.square().sum(1, keepdim=True) - 2 * rows.x @ mean_KD.T + present_BD @ mean_KD.square().T
            z_BK = -square_BK / (2 * self.get_buffer(f"variance:{label}"))
            z[label] = z_BK.masked_fill(self.get_buffer(f"rows:{label}") == 0, -torch.inf)
        return z


METHOD = NearestMean
