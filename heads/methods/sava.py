"""A surrogate of SAVA [Shuffle and Attend: Choi et al. 2020, ECCV] on cached windows, known by its abstract only.

    L = L_C + Σ_m L_d(m) + λ_o Σ_m L_o(m)
    v_m = Σ_t a_mt f_mt,   a_m = softmax over t of u_m · f_mt            attention to windows; v is classified
    L_d(m) = -E_s log D_m(v_m)_source - E_t log D_m(v_m)_target          reversed, by λ_d (2 / (1 + exp(-10 p)) - 1)
    L_o(m) = Σ_{d in s, t} E_d -log O_m(σ | f_mσ(1), f_mσ(2), f_mσ(3))   prediction of the order σ

f_mt are the features of window t of modality m, D_m their discriminator. O_m classifies the 6 orders of 3 windows; p is
the progress of the run. We know the paper only by its abstract: "an attention mechanism which focuses on more
discriminative clips and directly optimizes for video-level (cf. clip-level) alignment", and "the clip order prediction
as an auxiliary task"; its clips are our windows. It trains I3D by these losses, so that the backbone itself attends to
actions instead of backgrounds. Here one layer on frozen features does so, as far as they still contain the actions.

Implementation details
  1. Only L_C trains the attention, on the source: windows that help to classify are discriminative. In L_d the
     attention is a constant that weighs the gradient of each window; it does not learn to hide the windows that reveal
     the domain.
  2. u is 0 at first, so training begins with the mean of the windows. A modality drawn one window at a time has no u.
  3. The 3 windows are at the centres of equal stretches of a row's windows. Rows with fewer than 3 windows do not count
     in L_o, and modalities drawn with fewer windows have no O. Draw windows in order: `Feed(train="segments:3")`.
  4. σ is drawn for each row and step. O: 3D -> 100 -> ReLU -> 6. λ_o = 1 is our own choice.
  5. With several label kinds, D, O and u take their features as one vector. The net must have late fusion.
Shapes: B rows, T windows, D features.
"""

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from heads import noise
from heads.batch import Batch, Side, Spec
from heads.losses.relative import mean_where
from heads.losses.supervised import label_cross_entropy
from heads.methods import Method
from heads.methods._adversarial import discriminator, domain_loss
from heads.methods._aligned import shared
from heads.methods._windows import masked_softmax, window_features, window_features_both
from heads.nets import Net
from heads.nets.trn import centres
from heads.params import within
from heads.schedules import dann

ORDERS = tuple(permutations(range(3)))


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of the surrogate of SAVA."""

    lambda_d: float = within(1.0, 0)  #: λ_d, peak coefficient of the gradient reversal [ours]
    lambda_o: float = within(1.0, 0)  #: λ_o, weight of clip order prediction; 0: without [ours]


class Sava(Method):
    """Attended windows whose domain a discriminator cannot predict, and windows that reveal their order."""

    needs = ("source", "target")
    surrogate = "order and attention of cached windows replace the paper's training of I3D, known by its abstract"
    orders: Tensor

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        ordered = [m for m, T in spec.windows.items() if T >= 3 and params.lambda_o > 0]
        if params.lambda_o > 0 and not ordered:
            drawn = ", ".join(f"{m} {T}" for m, T in spec.windows.items())
            raise ValueError(
                f"method sava orders 3 windows of a clip, but no feed draws as many ({drawn}); "
                f'set Feed(train="segments:3"), or method.lambda_o=0'
            )
        self.u = nn.ModuleDict({m: nn.Linear(net.dim, 1, bias=False) for m, T in spec.windows.items() if T > 1})
        for score in self.u.parameters():
            nn.init.zeros_(score)
        self.D = nn.ModuleDict({m: discriminator(net.dim) for m in spec.shapes})
        self.O = nn.ModuleDict(
            {m: nn.Sequential(nn.Linear(3 * net.dim, 100), nn.ReLU(), nn.Linear(100, len(ORDERS))) for m in ordered}
        )
        self.register_buffer("orders", torch.tensor(ORDERS), persistent=False)

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_C on the source, L_d between the sides, L_o on both."""
        s, t = batch.both()
        f_s, f_t = window_features_both(self.net, s, t)
        a_s, a_t = self.attention(s, f_s), self.attention(t, f_t)
        L_C = label_cross_entropy(self.net.classify(attend(f_s, a_s)), s.y)
        v_s, v_t = (attend(f, {m: a[m].detach() for m in a}) for f, a in ((f_s, a_s), (f_t, a_t)))
        c = self.params.lambda_d * dann(progress)
        L_d = [domain_loss(self.D[m], v_s[m], v_t[m], s.has(m), t.has(m), c) for m in shared(s, t)]
        terms = {"L_C": L_C, "L_d": torch.stack(L_d).sum()}
        if self.O:
            L_o = [self.order_loss(m, side, f[m]) for side, f in ((s, f_s), (t, f_t)) for m in self.O if m in f]
            terms["L_o"] = self.params.lambda_o * sum(L_o, L_C.new_zeros(()))
        return terms

    def features(self, side: Side) -> dict[str, Tensor]:
        """Return the sums of attended windows."""
        f = window_features(self.net, side)
        return attend(f, self.attention(side, f))

    def attention(self, side: Side, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return modality -> a (B, T): rows sum to 1, or to 0 without the modality."""
        score = {m: self.u[m](f_BTD).squeeze(2) if m in self.u else f_BTD[:, :, 0] * 0 for m, f_BTD in f.items()}
        return {m: masked_softmax(score_BT, side.present[m]) for m, score_BT in score.items()}

    def order_loss(self, m: str, side: Side, f_BTD: Tensor) -> Tensor:
        """Return L_o of one side in one modality, the mean over the rows with 3 windows or more."""
        at_B3 = centres(side.present[m], 3)
        sigma_B = noise.integers(0, len(ORDERS), len(at_B3), device=at_B3.device)
        shuffled_B3 = at_B3.gather(1, self.orders[sigma_B])
        f_B3D = f_BTD.gather(1, shuffled_B3[:, :, None].expand(-1, -1, f_BTD.shape[2]))
        each_B = cross_entropy(self.O[m](f_B3D.flatten(1)), sigma_B, reduction="none")
        return mean_where(each_B, side.present[m].sum(1) >= 3)


def attend(f: dict[str, Tensor], a: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return v: modality -> Σ_t a_t f_t (B, D)."""
    return {m: (a[m][:, :, None] * f_BTD).sum(1) for m, f_BTD in f.items()}


METHOD = Sava
