"""Contrastive features on UCF-HMDB [XMC: Kim et al. 2021, ICCV], Table 2: our and published numbers.

    featcache manifest build ucf_hmdb FOLDER
    featcache extract FOLDER/ucf_hmdb.csv i3d-rgb i3d-flow --windows inner:5
    featcache train-head xmc_ucf_hmdb && featcache evaluate xmc_ucf_hmdb && featcache table xmc_ucf_hmdb

60 runs of 1,060 or 1,800 steps, about 2 hours on two cores, one of them for TA3N and its source-only.

Fidelity: adapter, as in `xmc_epic8`, which has the same net and feeds; TCoN and SAVA are surrogates. Selection: last,
because the paper states none here.

The paper quotes TA3N, TCoN and SAVA, which have no flow there; here all rows have both modalities. TA3N's own code
takes 2-D features of single pictures. Here it takes the five windows of I3D in their order, on its net `trn`, with the
losses' weights of its code for UCF→HMDB on both shifts, and its clip_norm of 20. Compare it with "source-only of TA3N",
the same net and feeds without adaptation. The table quotes the source-only of SAVA and the supervised-target of TA3N
and SAVA, which no run makes.

From the paper: λ, τ, δ, T and the rate of 0.01. The paper refers to SAVA for the rest, and gives no batch and no
length. We take those of RNA for this benchmark: 20 epochs in batches of 32, momentum 0.9, weight decay 1e-7. A batch
has 16 rows of each side, or 32 of the only side that a row sees; epochs count batches of 16, so that all rows have the
same steps.

The paper prints 98.8 and 95.0 for supervised training, in this order of the shifts. 98.8 is not a share of HMDB's 360
test clips, and 95.0 is not one of UCF's 571; exchanged, they are 342 / 360 and 564 / 571. So the table shows them
exchanged, and a note under it says so.
"""

from dataclasses import replace

from heads.methods import mm_sada, sava, source_only, ta3n, tcon, xmc
from heads.nets import trn
from pipelines.config import Feed, Optim
from pipelines.experiments._papers import UCF_HMDB, published, shifts
from pipelines.experiments._rows import SEEDS, Passes, Row, Whole, runs
from pipelines.experiments.xmc_epic8 import COMMON

WINDOWS = {"feeds": {m: Feed(f"i3d-{m}") for m in ("rgb", "flow")}}  #: all five windows, which these methods compare
OPTIM = Optim(lr=0.01, weight_decay=1e-7)
IN_ORDER = {
    "net": trn.Params(),
    "feeds": {m: Feed(f"i3d-{m}", train="segments:5", test="segments:5") for m in ("rgb", "flow")},
    "optim": replace(OPTIM, clip_norm=20.0),
}
ROWS = {
    "source-only": Row(source_only.Params()),
    "source-only of TA3N": Row(source_only.Params(), changes=IN_ORDER),
    "TA3N": Row(ta3n.Params(), changes=IN_ORDER),
    "TCoN (surrogate)": Row(tcon.Params(), changes=WINDOWS),
    "SAVA (surrogate)": Row(sava.Params(), changes=WINDOWS),
    "MM-SADA": Row(mm_sada.Params(), target=True),
    "XMC modality": Row(xmc.Params(cross_domain="none")),
    "XMC domain": Row(xmc.Params(cross_modal="none")),
    "XMC final": Row(xmc.Params()),
    "supervised-target": Row(source_only.Params(), supervised=True),
}
RUNS = runs(
    ROWS,
    shifts("ucf→hmdb hmdb→ucf"),
    SEEDS,
    manifest="ucf_hmdb",
    net=COMMON["net"],
    feeds=COMMON["feeds"],
    steps=Passes(20, UCF_HMDB),
    batch=Whole(32),
    optim=OPTIM,
)
PRINTED = published("XMC", "Table 2")
EXCHANGED = {"ucf→hmdb": PRINTED["supervised-target"]["hmdb→ucf"], "hmdb→ucf": PRINTED["supervised-target"]["ucf→hmdb"]}
PUBLISHED = {**PRINTED, "supervised-target": EXCHANGED}
QUOTED = ("supervised-target of TA3N", "source-only of SAVA", "supervised-target of SAVA")
NOTE = (
    "The published numbers of supervised-target are exchanged: the paper prints {ucf→hmdb} for ucf→hmdb and {hmdb→ucf} "
    "for hmdb→ucf, which are no shares of the test clips there. The published TA3N, TCoN and SAVA have no flow; here "
    "all rows have both modalities."
).format(**PRINTED["supervised-target"])
