"""CDAN for retrieval, as ACP's rival [Long et al. 2018, NeurIPS; ACP: Liu et al. 2021, Sec. 4.2, footnote 2].

    L = L_R + L_d      L_d = -E_s log D(E_v ⊗ a)_source - E_t log D(E_v ⊗ a)_target

Clips have no classes: a, the assignment of a clip to the visual keels of the target (`acp`), replaces the class
probabilities and never changes. As in DANN, a gradient reversal of coefficient λ_d (2 / (1 + exp(-10 p)) - 1) lies
between E_v ⊗ a and the encoder; p is the progress of the run.

Implementation details
  1. The footnote does not specify the keels. Visual keels assign the clips of both domains, text keels only those of
     the source.
  2. a has τ = 0.1, as `SHARP` in `acp`: with the paper's τ = 1 it is nearly the same for all clips, and D is DANN's.
  3. a is scaled to length 1, the length of a certain class: 1024 entries that sum to 1 would be too small for D.
  4. E_v ⊗ a is projected at random if it is large, as in `cdan`; D is that of `dann`.
Deviation: features are frozen, so the encoder is the net's own.
Shapes: B rows, K keels.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import normalize

from heads.batch import Batch, Side, Spec, Sweep
from heads.methods import Method
from heads.methods._adversarial import Joint, discriminator, domain_loss
from heads.methods._aligned import rows_of
from heads.methods._keels import find_visual, visual_keels, visual_vector
from heads.nets import Net
from heads.params import within
from heads.schedules import dann


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of CDAN on keels."""

    lambda_d: float = within(1.0, 0)  #: λ_d, peak coefficient of the gradient reversal [code: CDAN]
    K: int = within(1024, 1)  #: K, visual keels [paper: ACP]
    temperature: float = within(0.1, 0, above=True)  #: τ of the assignments [ours]


class CdanKeels(Method):
    """Clips whose domain a discriminator cannot predict, given their nearest keels."""

    needs = ("source", "target")
    tasks = ("retrieval",)

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        self.keels = visual_keels(spec, params.K, params.temperature)
        self.joint = Joint(net.dim, params.K)
        self.discriminator = discriminator(self.joint.width)

    def begin_epoch(self, epoch: int, sweep: Sweep) -> None:
        """Compute the keels, once."""
        if not epoch:
            find_visual(self.keels, self.spec, sweep, self.shared)

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_R on the source, L_d between the clips of both sides."""
        s, t = batch.both()
        f_s, f_t = self.net.encode_both(s, t)
        h_SI, h_TI = self.given_keel(s, f_s), self.given_keel(t, f_t)
        in_S, in_T = (rows_of(self.spec, side, "visual") for side in (s, t))
        L_d = domain_loss(self.discriminator, h_SI, h_TI, in_S, in_T, self.params.lambda_d * dann(progress))
        return {**self.net.loss(f_s, s), "L_d": L_d}

    def given_keel(self, side: Side, f: dict[str, Tensor]) -> Tensor:
        """Return E_v ⊗ a of each clip (B, inputs of D)."""
        a_BK = self.keels(visual_vector(self.spec, side)).exp()
        joint_BI: Tensor = self.joint(f["visual"], normalize(a_BK, dim=1))
        return joint_BI


METHOD = CdanKeels
