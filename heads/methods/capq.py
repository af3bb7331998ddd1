"""A surrogate of CAPQ, a rival of ACP [Chen et al. 2021, AAAI]: captions of the source as pseudo-labels of the target.

    L = L_R + λ_pl (2 / (1 + exp(-10 p)) - 1) L_pl        L_pl: L_R of the target's clips with their pseudo-captions

The pseudo-caption of a target clip is the caption of the source that fits it best, by the net at the start of an epoch.
Pseudo-captions count only for the share `keep` of target clips with the best fits. p is the progress of the run.

Implementation details
  1. ACP describes it only as "a pseudo-labelling approach"; neither paper nor code was available to us. Everything else
     here is our own.
  2. The share is taken of the whole target. Similarities have no scale, so a threshold would differ for every net.
  3. Two clips with the same pseudo-caption are not negatives of each other.
  4. The weight grows from 0, because the first pseudo-captions come from an untrained net.
  5. Pseudo-captions are kept as cached rows, one per target clip, with test windows.
Deviation: features are frozen, so the encoder is the net's own.
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

    lambda_pl: float = within(1.0, 0)  #: λ_pl, weight of the pseudo-captions at the end [ours]
    keep: float = within(0.5, 0, 1, above=True)  #: share of target clips that get a caption, best fits first [ours]


class Capq(Method):
    """Ranking losses on the source, and on the target with its pseudo-captions."""

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
        """Assign a caption to every clip of the target, and fetch the rows of these captions."""
        assert isinstance(self.net, Retrieval)  # `tasks`
        visual_NM = gather(sweep("target"), self.net.encode)["visual"]
        best_N, self.caption, C = visual_NM.new_full((len(visual_NM),), -torch.inf), torch.zeros_like(self.caption), 0
        for side in sweep("captions"):
            fit_N, at_N = self.net.similarity(self.net.encode(side)["text"], visual_NM).max(0)
            self.caption = torch.where(fit_N > best_N, C + at_N, self.caption)
            best_N, C = torch.maximum(fit_N, best_N), C + len(side.index)
        has_N = visual_NM.any(1)
        kept = max(1, round(self.params.keep * len(best_N)))
        self.counts = has_N & (best_N >= best_N.masked_fill(~has_N, -torch.inf).topk(kept).values[-1])
        self.fetch(sweep)

    def fetch(self, sweep: Sweep) -> None:
        """Copy the cached rows of the pseudo-captions."""
        C = 0
        for side in sweep("captions"):
            chosen_N = (self.caption >= C) & (self.caption < C + len(side.index))
            rows = self.caption[chosen_N] - C
            for m, x in side.x.items():
                for name, value in ((f"x:{m}", x), (f"present:{m}", side.present[m])):
                    if self.get_buffer(name).shape[1:] != value.shape[1:]:  # tests may have another number of windows
                        setattr(self, name, value.new_zeros(len(chosen_N), *value.shape[1:]))
                    self.get_buffer(name)[chosen_N] = value[rows]
            C += len(side.index)

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return L_R on the source, and the same loss on the target with its pseudo-captions."""
        s, t = batch.both()
        captioned = self.captioned(t)
        f_s, f_t = self.net.encode_both(s, captioned)
        L_R, L_pl = self.net.loss(f_s, s), self.net.loss(f_t, captioned)["L_R"]
        return {**L_R, "L_pl": self.params.lambda_pl * dann(progress) * L_pl}

    def captioned(self, t: Side) -> Side:
        """Return the target with its pseudo-captions where they count; equal captions have an equal `index`."""
        x, present = dict(t.x), dict(t.present)
        for m in self.spec.captions:
            x[m] = self.get_buffer(f"x:{m}")[t.index]
            present[m] = self.get_buffer(f"present:{m}")[t.index] & self.counts[t.index][:, None]
        return Side(x, present, {}, t.domain, self.caption[t.index])


METHOD = Capq
