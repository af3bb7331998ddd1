"""A surrogate of the collaborative class-conditional GAN, source-free [3C-GAN: Li, Jiao, Cao, Wong & Wu 2020, CVPR].

    D:     L_D = -E log D(x) - E log(1 - D(x_g))                          x_g = G(y, z): a row of class y
    G:     L_adv + λ_s L_sem = -E log D(x_g) - λ_s E log p(y | x_g)
    net:   L = L_clu + λ_g L_gen + λ_w L_w
           L_clu = E H(p(x)),   L_gen = -E log p(y | x_g),   L_w = ‖θ - θ_s‖²

y is drawn uniformly, z from a normal distribution. The generator makes rows that look like the target's and that the
net classifies as y. The net learns from them, and a better net guides the generator better. θ_s are the source's
weights.

The paper generates pictures of the target. Here G generates cached features: all windows of all modalities of a clip.
The source stage is `source_only` on the same net, and `init_from` names it.

Implementation details
  1. G and D have one hidden layer; D takes all windows and modalities as one vector. The paper's nets are
     convolutional.
  2. G and D work on features standardised entry by entry with the target's mean and standard deviation, which are
     measured once. Cached features of any scale can then be generated.
  3. Generated clips lack the same windows and modalities as the clips of the batch, so that gaps do not identify real
     clips.
  4. Each step updates D, then G, then the net, each on its own labels and noise.
  5. λ_g ramps up with 2 / (1 + exp(-10 p)) - 1 (our own choice), because an untrained generator makes labelled noise.
  6. The paper's weights λ were not available to us; these are our own. They are for sums over all weights and means
     over rows.
  7. The paper's L_clu has virtual adversarial training in addition to entropy; it is left out here.
  8. G and D start at random: give them an `optim_for` with adam if the run has SGD for a trained net. The net must not
     learn faster than G: with λ_g = 1 and a learning rate of 0.01, net `mtran` unlearnt a generated shift that it
     learnt at 0.002. With λ_g = 0, entropy alone ended below source-only on most generated shifts.
  9. With several label kinds, y has one class of each; their cross entropies and entropies are added.
Shapes: B rows, T windows, K classes.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn, stack
from torch.nn import Parameter
from torch.nn.functional import softplus

from heads import noise
from heads.batch import Batch, Side, Spec, Sweep
from heads.losses.entropy import entropy
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.methods._copies import Teacher
from heads.nets import Net
from heads.params import within
from heads.schedules import dann
from heads.units import Standardise


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of the surrogate of 3C-GAN."""

    lambda_s: float = within(1.0, 0)  #: λ_s, weight of L_sem in the generator's loss [ours]
    lambda_g: float = within(0.3, 0)  #: λ_g, peak weight of generated rows for the net [ours]
    lambda_w: float = within(0.01, 0)  #: λ_w, weight of the distance to the source's weights [ours]
    noise: int = within(64, 1)  #: numbers in z [ours]
    hidden: int = within(256, 1)  #: width of the hidden layers of G and D [ours]


class Gan3c(Method):
    """A generator, a discriminator and the net."""

    needs = ("target", "init_from")
    surrogate = "a generator of cached features replaces the paper's generator of pictures; no virtual adversaries"

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        self.source = Teacher(net)
        self.sizes = {m: spec.windows[m] * prod(shape) for m, shape in spec.shapes.items()}
        self.G = perceptron(params.noise + sum(spec.classes.values()), params.hidden, sum(self.sizes.values()))
        self.D = perceptron(sum(self.sizes.values()), params.hidden, 1)
        self.standard = Standardise(spec)

    def players(self) -> dict[str, list[Parameter]]:
        """Return the parameters of D, of G, and the trained ones of the net."""
        trained = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        return {"D": list(self.D.parameters()), "G": list(self.G.parameters()), "net": trained}

    def begin_epoch(self, epoch: int, sweep: Sweep) -> None:
        """Copy the source's weights and measure the target, once."""
        if epoch > 0:
            return
        self.source.follow(self.net)
        self.standard.measure(sweep("target"))

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return the terms of all three players; `objectives` assigns them to the players."""
        return {k: v for _, terms in self.objectives() for k, v in self(batch, progress, terms).items()}

    def objectives(self) -> list[tuple[str, str]]:
        """Return the rounds of D, then G, then the net."""
        return [("D", "discrimination"), ("G", "generation"), ("net", "adaptation")]

    def discrimination(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_D, which separates real clips from generated ones."""
        t = batch.target_side
        with torch.no_grad():
            x_g = self.generate(t)
        real_B1, generated_B1 = (self.D(self.units(side)) for side in (t, x_g))
        return {"L_D": softplus(-real_B1).mean() + softplus(generated_B1).mean()}

    def generation(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_adv and L_sem: generated clips should look real, and like their class."""
        x_g = self.generate(batch.target_side)
        L_sem = label_cross_entropy(self.predict(x_g), x_g.y)
        return {"L_adv": softplus(-self.D(self.units(x_g))).mean(), "L_sem": self.params.lambda_s * L_sem}

    def adaptation(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_gen, L_w and L_clu, the terms of the net."""
        p, t = self.params, batch.target_side
        with torch.no_grad():
            x_g = self.generate(t)
        weights = zip(self.net.parameters(), self.source.parameters(), strict=True)
        L_w = stack([(theta - theta_s).square().sum() for theta, theta_s in weights]).sum()
        L_clu = stack([entropy(z_BK.softmax(1)).mean() for z_BK in self.predict(t).values()]).sum()
        L_gen = label_cross_entropy(self.predict(x_g), x_g.y)
        return {"L_gen": p.lambda_g * dann(progress) * L_gen, "L_w": p.lambda_w * L_w, "L_clu": L_clu}

    def generate(self, t: Side) -> Side:
        """Generate as many clips as t has, with random labels; they lack the windows and modalities that t lacks."""
        B, device = len(t.index), t.index.device
        y = {label: noise.integers(0, K, B, device=device) for label, K in self.spec.classes.items()}
        one_hot_BK = [
            y_B[:, None] == torch.arange(K, device=device)
            for y_B, K in zip(y.values(), self.spec.classes.values(), strict=True)
        ]
        z_BI = noise.normal(B, self.params.noise, like=next(self.G.parameters()))
        g_BI = self.G(torch.cat([z_BI, *one_hot_BK], 1))
        x = {}
        for m, g_B in zip(self.sizes, g_BI.split(list(self.sizes.values()), 1), strict=True):
            if m in t.x:
                g_BTI = g_B.reshape(B, self.spec.windows[m], -1)
                g_BTI = self.standard.get_buffer(f"mean:{m}") + self.standard.get_buffer(f"std:{m}") * g_BTI
                x[m] = (g_BTI * t.present[m][:, :, None]).reshape(t.x[m].shape)
        return Side(x, t.present, y, t.domain, t.index)

    def units(self, side: Side) -> Tensor:
        """Return the input of D (B, I): clips standardised by the target, 0 for absent windows and modalities."""
        inputs, x = [], self.standard({m: x.flatten(2) for m, x in side.x.items()})
        for m, size in self.sizes.items():
            if m in x:
                inputs.append((x[m] * side.present[m][:, :, None]).flatten(1))
            else:
                inputs.append(torch.zeros(len(side.index), size, device=side.index.device))
        return torch.cat(inputs, 1)


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Build a perceptron with one hidden layer."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, outputs))


METHOD = Gan3c
