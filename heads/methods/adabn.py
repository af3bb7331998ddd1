"""Adaptive batch normalisation [AdaBN: Li et al. 2018, Pattern Recognition 80], on cached features.

    x̂ = (x - μ_d) / σ_d      for a row of domain d, each entry of the feature by itself
    L = L_C, on x̂

The net reads x̂ only. Every domain is normalised by its own mean and variance, so that a shift or a stretch of single
entries between domains disappears before the net. Target rows are normalised by the target's, in tests too.

Implementation details
  1. AdaBN changes the statistics of batch normalisation layers. Those of the extractor are frozen in the cache, so x̂ is
     a normalisation before the net instead. Its scale and shift (γ, β) are those of the net's first layer. If the net
     standardises features by the source (adapter, `standardise`), x̂ replaces that. With `preparation.units=domain`
     every method reads x̂, and `source_only` is then AdaBN, on a net without batch normalisation.
  2. Statistics are measured once, before training, on all training rows of a domain: the limit of the paper's online
     estimate. Cached features do not change, so statistics of mini-batches (MM-SADA's "BN" mode) would only add noise.
     A net without batch normalisation never needs target rows, so training on the source and exchanging statistics
     afterwards is the same run.
  3. Each clip is one sample, whatever its number of windows: moments are means over clips of means over windows. Single
     windows then have variance 1, and the mean of a clip's windows, if the net or the feed takes it, somewhat less.
  4. Every source domain has its own statistics. A test domain that is not in training, and a modality that a domain
     lacks in training, take the statistics of all training rows together.
  5. The statistics are saved with the weights, because predictions need them. Labels are not used. A constant entry is
     not divided; the ε of batch normalisation would be large for features of a small scale, and is left out.
  6. Batch normalisation layers of the net (adapter, `batch_norm`) have the statistics of each domain, too. Their inputs
     change with the weights, so these statistics are running averages, as the layer's own are (the paper's online
     estimate). In each step the target's batch passes the net without gradient, only to update them. `layers=False`
     keeps one average over the source's batches for all domains, as in runs of earlier versions.
Deviation: the papers adapt layers of the backbone, or of a head that has batch normalisation.
Shapes: N domains: those of the spec, and one for all of them together; B rows, T windows.
"""

from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor

from heads.batch import Batch, Side, Spec, Sweep
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.methods._domain_layers import DomainLayers, batch_norms
from heads.nets import Net
from heads.params import added
from heads.units import moments_by_domain


@dataclass(frozen=True)
class Params:
    """The layers that AdaBN adapts; it has no hyper-parameters."""

    layers: bool = added(True, before=False)  #: the net's own BN layers have each domain's statistics [paper]


class AdaBN(Method):
    """Cross entropy on the source, with every domain standardised separately."""

    needs = ("source", "target")

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        net.units = None
        has_layers = params.layers and batch_norms(net)
        self.layers = DomainLayers(net, len(spec.domains)) if has_layers else None
        for m, shape in spec.shapes.items():
            self.register_buffer(f"mean_{m}", torch.zeros(len(spec.domains) + 1, *shape))
            self.register_buffer(f"std_{m}", torch.ones(len(spec.domains) + 1, *shape))

    def begin_epoch(self, epoch: int, sweep: Sweep) -> None:
        """Measure μ_d and σ_d of every modality, once, because cached features do not change."""
        if epoch > 0:
            return
        if self.layers:
            self.layers.start()
        sides = chain(sweep("source"), sweep("target"))
        for m, moments in moments_by_domain(sides, len(self.spec.domains)).items():
            for name, value_ND in zip(("mean", "std"), moments, strict=True):
                buffer = self.get_buffer(f"{name}_{m}")
                buffer.copy_(value_ND.reshape(buffer.shape))

    def specialise(self, domain: int) -> None:
        """Give the net's layers the statistics of the domain."""
        if self.layers:
            self.layers.settle(domain)
            self.layers = None

    def normalise(self, side: Side) -> Side:
        """Return the side with x̂ in place of x; absent windows stay 0."""
        x = {}
        for m, x_BT in side.x.items():
            mean_B, std_B = (self.get_buffer(f"{name}_{m}")[side.domain, None] for name in ("mean", "std"))
            present_BT = side.present[m].reshape(*x_BT.shape[:2], *[1] * (x_BT.dim() - 2))
            x[m] = (x_BT - mean_B) / std_B * present_BT
        return replace(side, x=x)

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the normalised source; the rows of the target give statistics only."""
        s, t = batch.both()
        if self.layers:
            with torch.no_grad():
                self.features(t)
        return {"L_C": label_cross_entropy(self.predict(s), s.y)}

    def features(self, side: Side) -> dict[str, Tensor]:
        """Return the features of the normalised rows, which are classified."""
        normalised = self.normalise(side)
        f = self.layers.encode(self.net, normalised) if self.layers else self.net.encode(normalised)
        return self.net.classified(f)


METHOD = AdaBN
