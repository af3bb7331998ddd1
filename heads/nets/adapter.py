"""Adapter: one trainable layer per modality over frozen features, so that alignment losses have layers to train.

    f_m = act(W_m x_m + b_m)                   x_m: mean of the clip's windows;  f_m in R^D
    z   = Σ_m G_m Dropout(f_m) + g             late fusion: the modalities' scores are added, or averaged

Both domains share all weights. By default nothing is normalised between F and a loss, because RNA aligns norms.

Implementation details
  1. Windows are averaged before the layer. To score each window and average the predictions, use `Feed(test="each")`.
  2. Extractors give features of very different scale: text entries of 0.05, filtered muscle signals of 0.02.
     Units (`RunConfig.preparation`) make one learning rate suit all of them, and remove the norms of the cached
     modalities. `standardise` is the older way to say preparation.units=source, kept for the experiments that use it.
     The papers' tables use neither.
  3. The bias g is one vector for all modalities, not one per modality. With all modalities present both are the same
     set of functions. f_m is set to 0 where a clip lacks m, so that a missing modality has no influence.
  4. With several label kinds, D is cut into equal parts, one per label, in the order of their names; a remainder goes
     to the last.
  5. `batch_norm` replaces W_m x_m + b_m by BN_m(W_m x_m). `Params(dim=1000, batch_norm=True)` is RNA's head on ROD
     (code of relative rotation), `Params(dim=256, act="none", dropout=0.0, batch_norm=True)` SHOT's bottleneck. In
     training each side is normalised by its own batch, in tests all rows by running averages over the batches of all
     sides. A norm loss then changes little except BN's scale and shift.
  6. Losses on features take f_m before dropout, and only logits feel it: so does MM-SADA's code, on whose protocols XMC
     and RNA are built. Each call of `classify` draws its own mask. `dropout_at="features"` is f_m = Dropout(act(..)),
     which all losses on features feel, z = Σ_m G_m f_m + g: the place in the code of Relative Rotation, and in all runs
     of earlier versions.
Shapes: B batch, I entries of a row, D features, K classes.
"""

from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from heads import noise
from heads.batch import Side, Spec, Sweep
from heads.batch_norm import BatchNorm
from heads.nets import Net
from heads.nets._fusion import LateFusion
from heads.params import added, within
from heads.parts import parts
from heads.units import Standardise

ACTIVATIONS = {"relu": nn.ReLU, "none": nn.Identity}
FUSIONS = ("sum", "mean")
PLACES = ("logits", "features")


@dataclass(frozen=True)
class Params:
    """Size and shape of the adapter."""

    dim: int = within(1024, 1)  #: D, features per modality [ours]
    act: str = "relu"  #: relu | none (for contrastive losses: after a ReLU cosines lie in [0, 1]) [ours]
    dropout: float = within(0.5, 0, 1, below=True)  #: share of features dropped in training [code: MM-SADA]
    fusion: str = "sum"  #: fusion of the modalities' scores: sum (MM-SADA, RNA) | mean (XMC) [code: MM-SADA]
    standardise: bool = False  #: standardise x_m over the source; in new runs take preparation.units=source [ours]
    batch_norm: bool = False  #: normalise the entries of each feature before act, as heads of ROD and SHOT [ours]
    dropout_at: str = added("logits", before="features")  #: logits (in classify) | features (encode) [code: MM-SADA]


class Adapter(Net):
    """The network above, over the modalities and label kinds of the spec."""

    units: Standardise | None

    def __init__(self, params: Params, spec: Spec) -> None:
        super().__init__()
        if params.act not in ACTIVATIONS:
            raise ValueError(f"no net.act {params.act!r}; choose from {', '.join(ACTIVATIONS)}")
        if params.fusion not in FUSIONS:
            raise ValueError(f"no net.fusion {params.fusion!r}; choose from {', '.join(FUSIONS)}")
        if params.dropout_at not in PLACES:
            raise ValueError(f"no net.dropout_at {params.dropout_at!r}; choose from {', '.join(PLACES)}")
        self.dim = params.dim
        self.parts = parts(params.dim, tuple(spec.classes))
        bias = not params.batch_norm  # BN would cancel a bias
        self.F = nn.ModuleDict({m: nn.Linear(prod(shape), params.dim, bias) for m, shape in spec.shapes.items()})
        self.BN = nn.ModuleDict({m: BatchNorm(params.dim) for m in spec.shapes} if params.batch_norm else {})
        drop = {at: noise.Dropout(params.dropout) if at == params.dropout_at else nn.Identity() for at in PLACES}
        self.after = nn.Sequential(ACTIVATIONS[params.act](), drop["features"])
        self.before_logits = drop["logits"]
        self.classifier = LateFusion(spec, params.dim, self.parts, mean=params.fusion == "mean")
        self.units = Standardise(spec) if params.standardise else None
        self.has_source = "source" in spec.rows
        self.row_by_row = not params.batch_norm

    def begin(self, sweep: Sweep) -> None:
        """Measure mean and standard deviation of x over the source."""
        if self.units and self.has_source:
            self.units.measure(sweep("source"))

    def encode(self, side: Side) -> dict[str, Tensor]:
        """Return modality -> f_m (B, D); zeros in the rows that lack the modality."""
        # a single window needs no mask before the layer, and `pool` copies it: 0.4 of the time of a pass of many heads
        x = {m: (x[:, 0] if x.shape[1] == 1 else side.pool(m)).flatten(1) for m, x in side.x.items()}
        if self.units:
            x = self.units(x)
        f = {}
        for m, x_BI in x.items():
            a_BD, has_B = self.F[m](x_BI), side.has(m)
            if self.BN:
                a_BD = self.BN[m](a_BD, has_B)
            f[m] = self.after(a_BD) * has_B[:, None]
        return f

    def classify(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return label -> logits (B, K) of all modalities in f together."""
        logits: dict[str, Tensor] = self.classifier({m: self.before_logits(f_BD) for m, f_BD in f.items()})
        return logits


NET = Adapter
