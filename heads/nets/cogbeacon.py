"""1-D convolutions over a row of numbers, per modality, as RNA's heads on CogBeacon [RNA, Sec. 4.7.4].

    h_0 = x_m,   h_i = ReLU(MaxPool_2(conv_i h_{i-1} + b_i)),  i = 1, 2, 3        kernels of 3 numbers, stride 1
    f_m = h_3 where that is one position of D channels, else U_m h_3 + u_m        f_m in R^D
    z   = Σ_m G_m f_m + g                                                         late fusion

x_m is a row of L numbers: 24 for the EEG, 280 for the face. Convolutions run along a row as if it were a signal.

Implementation details
  1. The paper does not state padding and pool size. Without padding and with a pool of 2, a block reduces L to ⌊(L - 2)
     / 2⌋: 24 -> 11 -> 4 -> 1, so that the EEG's 64 channels are its features, as the paper's text requires; 280 -> 139
     -> 68 -> 33.
  2. Channels are (D/4, D/2, D) = (16, 32, 64) if the blocks end in one position (EEG), and half as many otherwise: 8,
     16, 32 for the face. One layer maps its 33 · 32 = 1056 numbers to D, "to match the output of the EEG backbone".
  3. Rows of fewer than 22 numbers are too short for three blocks: they pass the last two; under 10 numbers, the last.
  4. The paper has a LogSoftmax per modality before the sum. Here logits are added: log softmax z_m differs from z_m by
     one number for all classes, so that the sum has the same probabilities and cross entropy. The same holds for one g.
  5. Windows are averaged before the first block (a round of CogBeacon has one); f_m is 0 where a clip lacks m.
  6. With several label kinds, D is cut into parts as in the adapter.
Shapes: B rows, L numbers, D features, K classes.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from heads.batch import Side, Spec
from heads.nets import Net
from heads.nets._fusion import LateFusion
from heads.params import within
from heads.parts import parts

BLOCKS = 3


@dataclass(frozen=True)
class Params:
    """Size of the network."""

    dim: int = within(64, 8)  #: D, features per modality, a multiple of 8; channels are D/8 to D [paper: RNA]


class CogBeacon(Net):
    """The network above, over the modalities and label kinds of the spec."""

    row_by_row = True

    def __init__(self, params: Params, spec: Spec) -> None:
        super().__init__()
        if params.dim % 8:
            raise ValueError(f"net.dim {params.dim} is no multiple of 8, as the channels D/8 to D of cogbeacon require")
        self.dim = params.dim
        self.parts = parts(params.dim, tuple(spec.classes))
        self.branch = nn.ModuleDict({m: branch(m, prod(shape), params.dim) for m, shape in spec.shapes.items()})
        self.classifier = LateFusion(spec, params.dim, self.parts)

    def encode(self, side: Side) -> dict[str, Tensor]:
        """Return modality -> f_m (B, D); zeros in the rows that lack the modality."""
        return {m: self.branch[m](side.pool(m).flatten(1)) * side.has(m)[:, None] for m in side.x}

    def classify(self, f: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return label -> logits (B, K) of all modalities in f together."""
        logits: dict[str, Tensor] = self.classifier(f)
        return logits


def branch(m: str, L: int, D: int) -> nn.Sequential:
    """Build the blocks of one modality, and a layer to D if they end in more than one position: (B, L) -> (B, D)."""
    lengths = positions(L)
    if not lengths:
        raise ValueError(f"net cogbeacon needs rows of 4 numbers or more, but modality {m!r} has {L}; use net adapter")
    last = D if lengths[-1] == 1 else D // 2
    channels = [1, *[last // 2**k for k in reversed(range(len(lengths)))]]
    blocks = [block(*pair) for pair in pairwise(channels)]
    to_D = [] if lengths[-1] == 1 else [nn.Linear(lengths[-1] * last, D)]
    return nn.Sequential(nn.Unflatten(1, (1, L)), *blocks, nn.Flatten(), *to_D)


def block(C_in: int, C_out: int) -> nn.Sequential:
    """Build one block: (B, C_in, L) -> (B, C_out, ⌊(L - 2) / 2⌋)."""
    return nn.Sequential(nn.Conv1d(C_in, C_out, 3), nn.MaxPool1d(2), nn.ReLU())


def positions(L: int) -> list[int]:
    """Return the number of positions after each block that fits into L numbers.

    >>> positions(24), positions(280), positions(3)
    ([11, 4, 1], [139, 68, 33], [])
    """
    lengths: list[int] = []
    while len(lengths) < BLOCKS and (L := (L - 2) // 2) > 0:
        lengths.append(L)
    return lengths


NET = CogBeacon
