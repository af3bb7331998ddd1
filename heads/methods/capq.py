"""CAPQ's place among ACP's rivals [Chen et al. 2021, AAAI]: captions of the source as pseudo-labels of the target.

    L = L_R + λ_pl (2 / (1 + exp(-10 p)) - 1) L_pl        L_pl: L_R of the target's clips with their pseudo-captions

The pseudo-caption of a target clip is the caption of the source that fits it best, by the net at the start of an epoch.
It counts for the clips of the best fits, a share `keep` of the target. p is the progress of the run.

Implementation details
  1. ACP calls it "a pseudo-labelling approach" and says no more; neither paper nor code could be read. All of this but
     that phrase is ours.
  2. The share is of the whole target, as similarities have no scale: a threshold would mean another thing on every net.
  3. Two clips with one pseudo-caption are no negatives of each other.
  4. The weight grows from 0: the first pseudo-captions are those of an untrained net.
  5. Pseudo-captions are kept as their cached rows, one per target clip, in windows of tests.
Deviation: on frozen features the encoder is the net's own.
Shapes: N clips of the target, C captions of the source, M entries of an embedding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from heads.batch import Batch, Side, Spec, Sweep, gather
from heads.methods import Method
from heads.nets import Net, Retrieval
from heads.params import within
from heads.schedules import dann


@dataclass(frozen=True)
class Params:
    """Hyper-parameters of pseudo-captions."""

    lambda_pl: float = within(1.0, 0)  #: λ_pl, weight of the pseudo-captions at the end
    keep: float = within(0.5, 0, 1, above=True)  #: share of the target's clips that are captioned: the best fitting


class Capq(Method):
    """Learns from the captions of the source that fit the target's clips."""

    needs = ("source", "target")
    tasks = ("retrieval",)
    surrogate = "the best-fitting captions of the source as pseudo-captions of the target, for CAPQ's pseudo-labels"
    caption: Tensor
    counts: Tensor

    def __init__(self, params: Params, spec: Spec, net: Net) -> None:
        super().__init__(params, spec, net)
        N = spec.rows["target"]
        self.register_buffer("caption", torch.zeros(N, dtype=torch.int64), persistent=False)
        self.register_buffer("counts", torch.zeros(N, dtype=torch.bool), persistent=False)
        for m in spec.captions:
            shape = (N, spec.windows[m], *spec.shapes[m])
            self.register_buffer(f"x:{m}", torch.zeros(shape), persistent=False)
            self.register_buffer(f"present:{m}", torch.zeros(shape[:2], dtype=torch.bool), persistent=False)

    def begin_epoch(self, epoch: int, sweep: Sweep) -> None:
        """Give every clip of the target its caption, and fetch the rows of those."""
        assert isinstance(self.net, Retrieval)  # `tasks`
        visual_NM = gather(sweep("target"), self.net.encode)["visual"]
        best_N, self.caption, C = visual_NM.new_full((len(visual_NM),), -torch.inf), torch.zeros_like(self.caption), 0
        for side in sweep("captions"):
            fit_N, at_N = self.net.similarity(self.net.encode(side)["text"], visual_NM).max(0)
            self.caption = torch.where(fit_N > best_N, C + at_N, self.caption)
            best_N, C = torch.maximum(fit_N, best_N), C + len(side.index)
        there_N = visual_NM.any(1)
        kept = max(1, round(self.params.keep * len(best_N)))
        self.counts = there_N & (best_N >= best_N.masked_fill(~there_N, -torch.inf).topk(kept).values[-1])
        self.fetch(sweep)

    def fetch(self, sweep: Sweep) -> None:
        """The cached rows of the pseudo-captions."""
        C = 0
        for side in sweep("captions"):
            here = (self.caption >= C) & (self.caption < C + len(side.index))
            rows = self.caption[here] - C
            for m, x in side.x.items():
                for name, value in ((f"x:{m}", x), (f"present:{m}", side.present[m])):
                    if self.get_buffer(name).shape[1:] != value.shape[1:]:  # tests may show another number of windows
                        setattr(self, name, value.new_zeros(len(here), *value.shape[1:]))
                    self.get_buffer(name)[here] = value[rows]
            C += len(side.index)

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """L_R on the source, and the same on the target with its pseudo-captions."""
        s, t = batch.both()
        L_R = self.net.loss(self.net.encode(s), s)
        captioned = self.captioned(t)
        L_pl = self.net.loss(self.net.encode(captioned), captioned)["L_R"]
        return {**L_R, "L_pl": self.params.lambda_pl * dann(progress) * L_pl}

    def captioned(self, t: Side) -> Side:
        """The target with its pseudo-captions where they count; `index` numbers captions, which tells equal ones."""
        x, present = dict(t.x), dict(t.present)
        for m in self.spec.captions:
            x[m] = self.get_buffer(f"x:{m}")[t.index]
            present[m] = self.get_buffer(f"present:{m}")[t.index] & self.counts[t.index][:, None]
        return Side(x, present, {}, t.domain, self.caption[t.index])


METHOD = Capq
