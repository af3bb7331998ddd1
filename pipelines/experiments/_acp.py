"""Rows and settings of ACP's tables [ACP: Liu et al. 2021, CVPR], which differ in data alone.

The paper says which descriptors, how many keels, and that its encoders are CE's; margin, batch, optimiser, length, λ
and text encoder are in a supplement that could not be read. So margin, batch and passes are those of CE's code for the
source, and the optimiser is Adam at 1e-4 (MoEE's) in the place of CE's Ranger, at one rate, where CE's falls to 0.95 of
itself each epoch. A caption is its Sentence-BERT embedding, for keels and encoders alike: CE has tokens, and NetVLAD.

ACP is the printed form, τ = 1: `acp.Params()`. `acp.SHARP`, τ = 0.1, is ours. Ours as well: three seeds, and the
rivals' weights, their files' defaults but for CORAL's. Its term is a mean over M² covariances of unit vectors: with
M = 2304 and λ_coral = 1 its gradient was 1,700 times smaller than L_R's, and the row would be CE; with 1000 it is of
L_R's order. MMD takes its kernels from the batch, as the default is of longer vectors. CAPQ compares all clips with all
captions at the start of an epoch, so its runs have ten.
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
POINTS = 4  #: at which source_val is asked
HOLDOUT = 0.1  #: of the source's clips, that it is asked about
NOTE = (
    "ACP is as printed, without a temperature (τ = 1). Captions are Sentence-BERT vectors, where the paper's encoder, "
    "CE's, has tokens and NetVLAD."
)


@dataclass(frozen=True)
class Source:
    """What CE's code sets by data set, and rivals follow."""

    clips: int  #: to train on
    margin: float  #: m of L_R
    batch: int
    passes: int

    @property
    def steps(self) -> int:
        """All passes over what is not held out."""
        return self.passes * ceil((self.clips - round(HOLDOUT * self.clips)) / self.batch)


SOURCES = {
    "msrvtt": Source(6513, 0.0938, 64, 100),
    "msvd": Source(1200, 0.3076, 16, 300),
    "lsmdc": Source(101_079, 0.1213, 256, 15),
    "coco": Source(118_287, 0.2, 256, 15),  # not in CE's code: the size is LSMDC's, the margin MoEE's
    "open_narratives": Source(507_444, 0.2, 256, 4),  # about as many steps
}


def rows(source: Source, experts: Iterable[str], captions: str, *, videos: bool = True) -> dict[str, Row]:
    """The methods of a table; only those of videos have the rivals of video retrieval."""
    margin, sequences = source.margin, feeds(experts, captions, windows="all")
    of_videos = {
        "MMT": _source(mmt.Params(margin=margin), {"feeds": sequences, "fidelity": "adapter"}),  # its BERT is frozen
        "MoEE": _source(ce.Params(margin=margin, relations=False)),
        "CAPQ (surrogate)": Row(capq.Params(), changes={"fidelity": "adapter", "epoch": source.steps // 10}),
    }
    return {
        "CE": _source(ce.Params(margin=margin)),
        **(of_videos if videos else {}),
        "CDAN": Row(cdan_keels.Params()),
        "CORAL": Row(coral.Params(lambda_coral=1000.0)),
        "DANN": Row(dann.Params()),
        "MMD": Row(mmd.Params(gamma=0.0)),
        "OT": Row(sinkhorn.Params()),
        "ACP": Row(acp.Params()),
    }


def ablations(margin: float) -> dict[str, Row]:
    """ACP without parts of its loss (Table 4), as printed, and with a temperature, which is ours."""
    return {
        "L_R": _source(ce.Params(margin=margin)),
        "L_R + L_s": Row(acp.Params(lambda_t=0.0, lambda_mi=0.0)),
        "L_R + L_t": Row(acp.Params(lambda_s=0.0, lambda_mi=0.0)),
        "all": Row(acp.Params()),
        "all, τ = 0.1": Row(acp.SHARP),
    }


def feeds(experts: Iterable[str], captions: str, windows: str = "mean") -> dict[str, Feed]:
    """Experts, averaged over time, and the captions' sentence embeddings."""
    text = Feed("sentence-bert", seen_by="source test", captions=captions)
    return {**{m: Feed(STORES[m], train=windows, test=windows) for m in experts}, "text": text}


def table(
    manifest: str, shift: tuple[str, str], of: Mapping[str, Row], experts: Iterable[str] = STORES
) -> tuple[RunConfig, ...]:
    """These rows on one shift, as the source wants them."""
    source = SOURCES[shift[0]]
    return runs(
        of,
        [shift],
        SEEDS,
        manifest=manifest,
        net=ce.Params(margin=source.margin),
        feeds=feeds(experts, f"{manifest}_captions"),
        absent="mask",
        steps=source.steps,
        batch=(source.batch, source.batch),
        optim=Optim("adam", lr=1e-4, weight_decay=0.0),
        holdout=HOLDOUT,
        eval_every=ceil(source.steps / POINTS),
        keep=POINTS,
        select="source_val",
        fidelity="exact",
    )


def _source(net: Any, changes: Mapping[str, Any] | None = None) -> Row:
    """L_R alone, on this net."""
    return Row(source_only.Params(), changes={"net": net, **(changes or {})})
