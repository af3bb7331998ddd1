"""Rows and settings of ACP's tables [ACP: Liu et al. 2021, CVPR], which differ only in their data.

The paper gives the descriptors and the number of keels, and uses CE's encoders. Margin, batch, optimiser, length, λ
and text encoder are in a supplement that was not available. So margin, batch and passes are those of CE's code for the
source. The optimiser is Adam at 1e-4 (MoEE's) instead of CE's Ranger, at a constant rate; CE multiplies its rate by
0.95 each epoch. A caption is its Sentence-BERT embedding, for keels and encoders; CE uses tokens and NetVLAD.

ACP is `acp.Params()`: the printed form, τ = 1, with L_R as a mean. `acp.PRINTED` has the printed sum; `acp.SHARP`, τ =
0.1, is ours. Three seeds and the loss weights of the rivals are also ours: the defaults of their files, except CORAL's.
CORAL's term is a mean over M² covariances of unit vectors. With M = 2304 and λ_coral = 1 its gradient was 1,700 times
smaller than that of L_R, and the row would equal CE; with λ_coral = 1000 it has the order of L_R's. MMD takes its
kernels from the batch, because the default is meant for longer vectors. CAPQ compares all clips with all captions at
the start of an epoch, so its runs have ten epochs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from heads.methods import acp, capq, cdan_keels, coral, dann, mmd, sinkhorn, source_only
from heads.nets import ce, mmt
from pipelines.config import Feed, Optim, RunConfig
from pipelines.experiments._rows import SEEDS, Row, runs

STORES = {"object": "resnext101", "scene": "densenet161-places", "action": "r2plus1d-34"}
POINTS = 4  #: number of evaluation points, among which source_val selects
HOLDOUT = 0.1  #: share of the source's clips that is held out for source_val
NOTE = (
    "ACP is as printed, without a temperature (τ = 1). Captions are Sentence-BERT vectors; the paper uses CE's "
    "encoder, with tokens and NetVLAD."
)


@dataclass(frozen=True)
class Source:
    """The settings of CE's code for a data set, which the rivals share."""

    clips: int  #: number of training clips
    margin: float  #: m of L_R
    batch: int
    passes: int

    @property
    def steps(self) -> int:
        """Steps of all passes over the clips that are not held out."""
        return self.passes * ceil((self.clips - round(HOLDOUT * self.clips)) / self.batch)


SOURCES = {
    "msrvtt": Source(6513, 0.0938, 64, 100),
    "msvd": Source(1200, 0.3076, 16, 300),
    "lsmdc": Source(101_079, 0.1213, 256, 15),
    "coco": Source(118_287, 0.2, 256, 15),  # not in CE's code: the size is LSMDC's, the margin MoEE's
    "open_narratives": Source(507_444, 0.2, 256, 4),  # about as many steps
}


def rows(source: Source, experts: Iterable[str], captions: str, *, videos: bool = True) -> dict[str, Row]:
    """The methods of a table. Only tables of videos include the rivals of video retrieval."""
    margin, sequences = source.margin, feeds(experts, captions, windows="all")
    video_methods = {
        "MMT": _source(mmt.Params(margin=margin), {"feeds": sequences, "fidelity": "adapter"}),  # its BERT is frozen
        "MoEE": _source(ce.Params(margin=margin, relations=False)),
        "CAPQ (surrogate)": Row(capq.Params(), changes={"fidelity": "adapter", "epoch": source.steps // 10}),
    }
    return {
        "CE": _source(ce.Params(margin=margin)),
        **(video_methods if videos else {}),
        "CDAN": Row(cdan_keels.Params()),
        "CORAL": Row(coral.Params(lambda_coral=1000.0)),
        "DANN": Row(dann.Params()),
        "MMD": Row(mmd.Params()),
        "OT": Row(sinkhorn.Params()),
        "ACP": Row(acp.Params()),
    }


def ablations(margin: float) -> dict[str, Row]:
    """ACP without parts of its loss (Table 4), whole, with the printed sum in L_R, and with a temperature, our own."""
    return {
        "L_R": _source(ce.Params(margin=margin)),
        "L_R + L_s": Row(acp.Params(lambda_t=0.0, lambda_mi=0.0)),
        "L_R + L_t": Row(acp.Params(lambda_s=0.0, lambda_mi=0.0)),
        "all": Row(acp.Params()),
        "all, printed L_R": Row(acp.PRINTED),
        "all, τ = 0.1": Row(acp.SHARP),
    }


def feeds(
    experts: Iterable[str], captions: str, windows: str = "mean", language: str = "sentence-bert"
) -> dict[str, Feed]:
    """Feeds of the experts, averaged over time, and of the captions, one vector of a language model's store each."""
    text = Feed(language, seen_by="source test", captions=captions)
    return {**{m: Feed(STORES[m], train=windows, test=windows) for m in experts}, "text": text}


def table(
    manifest: str,
    shift: tuple[str, str],
    methods: Mapping[str, Row],
    experts: Iterable[str] = STORES,
    changes: Mapping[str, Any] | None = None,
) -> tuple[RunConfig, ...]:
    """The runs of these methods on one shift, with the settings of its source, except for the fields in `changes`."""
    source = SOURCES[shift[0]]
    common = {
        "manifest": manifest,
        "net": ce.Params(margin=source.margin),
        "feeds": feeds(experts, f"{manifest}_captions"),
        "absent": "mask",
        "steps": source.steps,
        "batch": (source.batch, source.batch),
        "optim": Optim("adam", lr=1e-4, weight_decay=0.0),
        "holdout": HOLDOUT,
        "eval_every": ceil(source.steps / POINTS),
        "keep": POINTS,
        "select": "source_val",
        "fidelity": "exact",
    }
    return runs(methods, [shift], SEEDS, **{**common, **(changes or {})})


def _source(net: Any, changes: Mapping[str, Any] | None = None) -> Row:
    """A row with L_R only, on this net."""
    return Row(source_only.Params(), changes={"net": net, **(changes or {})})
