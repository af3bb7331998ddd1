"""Temporal attentive adversarial adaptation [TA3N: Chen et al. 2019, ICCV], on the frames and relations of net `trn`.

    L = L_C + Σ_m (L_sd + L_rd + L_td)(m) + γ L_ae
    L_sd = CE(D_s(x_mt)),   L_rd = mean over n of CE(D_rn(r_mn)),   L_td = CE(D_t(f'_m))         source or target?
    f'_m = Σ_n (1 + w_mn) r_mn,   w_mn = 1 - H(d_mn),   d_mn = softmax D_rn(r_mn)                domain attention
    L_ae = mean over both sides of (1 + H(d_m)) H(p),   d_m = softmax D_t(f'_m)                  attentive entropy

x_mt are the frames of modality m, r_mn its relations of n frames, f'_m the video's feature, p the class probabilities.
Relations whose domain D_rn can predict are not aligned yet, so they weigh more. Videos whose domain D_t cannot predict
are aligned, so their p should be certain. The encoders get the gradients of the three domain losses reversed, times β
(2 / (1 + exp(-p)) - 1), with the progress p of the run: the factor ends at 0.46, while DANN's ends at 1.

Implementation details (the code is that of EK100's challenge, by the authors of TA3N)
  1. The β are the code's for EK100 and UCF -> HMDB: 0.5 for frames, 0.75 for relations and videos. HMDB -> UCF has 1
     for relations and γ = 0.3. β is in the reversal, so it scales the gradient of the encoders; discriminators learn at
     the full rate.
  2. The attention also acts in tests. Attention and L_ae take gradients through the discriminators and their reversal,
     as in the code.
  3. D: I -> I -> ReLU -> 2; relations have one D per n. Initial weights are torch's (the code has a normal of std 0.001
     for the D of frames and videos).
  4. Cross entropies are means over the rows of both sides that have m, and over their frames or relations.
  5. With several label kinds L_C and L_ae are means over them (EK100: 0.5 verb + 0.5 noun).
  6. In L_ae p is of all modalities together, and H(d_m) the mean over those that a row has.
  7. The paper's runs: SGD with Nesterov, momentum 0.9, weight decay 1e-4, lr 0.003 (UCF-HMDB 0.03) divided by 10 after
     a third and two thirds of 30 epochs, clip_norm 20, batch (128, 128 N_t / N_s), `Feed(train="segments:5")`.
Deviation: the code joins the modalities to one frame of 3072 numbers. Here each modality has its own relations,
discriminators and attention; the losses are added, and the scores are fused late, as in RNA, whose tables include it.
For the original, join the features in one store; U still maps f' to D before it is classified.
Shapes: B rows, N frames or relations of a row (1 for its video), S relations, R numbers of each.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn, stack

from heads.batch import Batch, Side, Spec
from heads.grl import reverse
from heads.losses.entropy import entropy
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.methods._adversarial import side_loss
from heads.methods._aligned import shared
from heads.nets import Net, trn
from heads.params import within
from heads.schedules import dann


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of TA3N."""

    beta_s: float = within(0.5, 0)  #: β of frames (spatial), peak of their reversal before the warm-up [code]
    beta_r: float = within(0.75, 0)  #: β of relations [code]
    beta_t: float = within(0.75, 0)  #: β of videos (temporal) [code]
    gamma: float = within(0.003, 0)  #: γ, weight of the attentive entropy [code]


class SideOutputs(NamedTuple):
    """Features and domain logits of one side."""

    f: dict[str, Tensor]  #: modality -> (B, D), from attended relations
    d: dict[str, dict[str, Tensor]]  #: L_sd | L_rd | L_td -> modality -> logits "source", "target" (B, N, 2)


class Ta3n(Method):
    """Discriminators of frames, relations and videos, and attention to relations that reveal the domain."""

    needs = ("source", "target")
    net: trn.Trn

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        if not isinstance(net, trn.Trn):
            raise ValueError("method ta3n aligns frames and relations, which this net does not have; use net trn")
        W, R = net.params.frame_dim, net.params.relation_dim
        self.D_s = nn.ModuleDict({m: discriminator(W) for m in spec.shapes})
        self.D_r = nn.ModuleDict({f"{m}:{n}": discriminator(R) for m, scales in net.scales.items() for n in scales})
        self.D_t = nn.ModuleDict({m: discriminator(R) for m in spec.shapes})

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, the domain losses between the sides, L_ae on both."""
        s, t = batch.both()
        warm = dann(progress / 10)
        out_s, out_t = self.look(s, warm), self.look(t, warm)
        z_s, z_t = self.net.classify_both(out_s.f, out_t.f)
        terms = {"L_C": label_cross_entropy(z_s, s.y) / len(z_s)}
        terms |= {name: domain_losses(s, t, out_s.d[name], out_t.d[name]) for name in out_s.d}
        both = torch.cat([attentive_entropy(s, out_s, z_s), attentive_entropy(t, out_t, z_t)])
        return {**terms, "L_ae": self.params.gamma * both.mean()}

    def features(self, side: Side) -> dict[str, Tensor]:
        """Return the features from attended relations."""
        return self.look(side, 0.0).f

    def look(self, side: Side, warm: float) -> SideOutputs:
        """Return features and domain logits; warm: factor of the β."""
        p = self.params
        video: dict[str, Tensor] = {}
        d: dict[str, dict[str, Tensor]] = {"L_sd": {}, "L_rd": {}, "L_td": {}}
        for m, (x_BTW, r_BSR) in self.net.levels(side).items():
            d["L_sd"][m] = self.D_s[m](reverse(x_BTW, warm * p.beta_s))
            each = zip(self.net.scales[m], reverse(r_BSR, warm * p.beta_r).unbind(1), strict=True)
            d["L_rd"][m] = stack([self.D_r[f"{m}:{n}"](r_BR) for n, r_BR in each], 1)
            w_BS = 1 - domain_entropy(d["L_rd"][m])
            video[m] = self.net.video((1 + w_BS[:, :, None]) * r_BSR)
            d["L_td"][m] = self.D_t[m](reverse(video[m], warm * p.beta_t))[:, None]
        return SideOutputs(self.net.project(side, video), d)


def domain_losses(s: Side, t: Side, d_s: dict[str, Tensor], d_t: dict[str, Tensor]) -> Tensor:
    """Return Σ_m of one level's cross entropy, over the modalities of both sides; d: modality -> logits (B, N, 2)."""
    each = []
    for m in shared(s, t):
        has_s, has_t = (side.has(m).repeat_interleave(d[m].shape[1]) for side, d in ((s, d_s), (t, d_t)))
        each.append(side_loss(torch.cat([d_s[m].flatten(0, 1), d_t[m].flatten(0, 1)]), has_s, has_t))
    return stack(each).sum()


def attentive_entropy(side: Side, outputs: SideOutputs, z: dict[str, Tensor]) -> Tensor:
    """Return (1 + H(d_m)) H(p) of each row -> (B,), with means over modalities and label kinds."""
    has_MB = stack([side.has(m) for m in side.x])
    H_MB = stack([domain_entropy(outputs.d["L_td"][m])[:, 0] for m in side.x])
    H_d = (H_MB * has_MB).sum(0) / has_MB.sum(0).clamp_min(1)
    H_p = stack([entropy(z_BK.softmax(1)) for z_BK in z.values()]).mean(0)
    return (1 + H_d) * H_p


def domain_entropy(d_BN2: Tensor) -> Tensor:
    """Return H of each domain prediction -> (B, N), from 0 (certain) to log 2."""
    return entropy(d_BN2.softmax(2).flatten(0, 1)).reshape(d_BN2.shape[:2])


def discriminator(inputs: int) -> nn.Sequential:
    """Build I -> I -> ReLU -> 2, as in the code."""
    return nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, 2))


METHOD = Ta3n
