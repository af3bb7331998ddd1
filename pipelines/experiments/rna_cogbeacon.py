"""Relative norm alignment on CogBeacon [RNA: Planamente et al. 2024, IJCV], Table 9: fatigue from EEG and face.

    featcache manifest build cogbeacon FOLDER
    featcache extract FOLDER/cogbeacon.csv vector --windows segments:1 \
        --set vector.key=eeg --set vector.modality=eeg
    featcache extract FOLDER/cogbeacon.csv vector --windows segments:1 \
        --set vector.key=face --set vector.modality=face --set vector.reduce=mean-std
    featcache train-head rna_cogbeacon && featcache evaluate rna_cogbeacon && featcache table rna_cogbeacon

The stores are vector-eeg and vector-face.

198 runs of 3,150 to 3,420 steps, about 4 hours on two cores.

Fidelity: exact, if the features and the labels are the paper's; it publishes neither its EEG features nor its
definition of fatigue (data_manifests/cogbeacon.md). MDANN and DLMM are surrogates. Selection: last (the paper states
none). All clips of a domain are adapted to, without labels, and tested, because the paper's splits are not known.

From the paper: net, Adam, rate 1e-3, and 1e-4 after 70 of 90 epochs. Ours: batch of 128 (64 rows of each side, or 128
of the only side that a row sees; epochs count batches of 64, so that all rows have the same steps), no weight decay,
every λ (the paper states none), clip_norm 20, three seeds. Nothing was tuned. CBST and DLMM count passes over the
source. Every shift has 90 passes, so all shifts have the same rounds.

The paper prints means over the six shifts only. It quotes MDANN, MCD, CBST and DLMM from DLMM's paper, which has other
numbers of clips, and source-only and MM-SADA rows of its own ("of DLMM").
"""

from itertools import permutations

from heads.methods import cbst, dann, dlmm, mcd, mdann, mm_sada, mmd, rna, safn, source_only
from heads.nets import cogbeacon
from pipelines.config import Feed, Optim
from pipelines.experiments._papers import published
from pipelines.experiments._rows import SEEDS, Passes, Row, Whole, runs

SURROGATE = {"fidelity": "adapter"}  #: a surrogate is never exact
ROWS = {
    "source-only": Row(source_only.Params()),
    "SAFN": Row(safn.Params()),
    "DANN": Row(dann.Params()),
    "MM-SADA": Row(mm_sada.Params(), target=True),
    "MMD": Row(mmd.Params(gamma=mmd.MM_SADA)),
    "MDANN (surrogate)": Row(mdann.Params(), changes=SURROGATE),
    "MCD": Row(mcd.Params()),
    "CBST": Row(cbst.Params()),
    "DLMM (surrogate)": Row(dlmm.Params(), changes=SURROGATE),
    "RNA (DG)": Row(rna.Params()),
    "RNA (UDA)": Row(rna.Params(), target=True),
}
NOTE = (
    "LABELS AND EEG FEATURES MAY DIFFER FROM THE PAPER'S: neither is published; see the dataset card. The paper quotes "
    "MDANN, MCD, CBST and DLMM on other numbers of clips."
)
RUNS = runs(
    ROWS,
    permutations(("V1", "V2", "V3"), 2),
    SEEDS,
    manifest="cogbeacon",
    net=cogbeacon.Params(),
    feeds={m: Feed(f"vector-{m}") for m in ("eeg", "face")},
    test_split="train",
    steps=Passes(90, {"V1": 2240, "V2": 2432, "V3": 2300}),
    batch=Whole(128),
    optim=Optim("adam", lr=1e-3, weight_decay=0.0, milestones=(70 / 90,), clip_norm=20.0),
    fidelity="exact",
)
QUOTED = ("source-only of DLMM", "MM-SADA of DLMM")
PUBLISHED = published("RNA", "Table 9")
