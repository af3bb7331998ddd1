"""Relative norm alignment from SynROD to ROD [RNA: Planamente et al. 2024, IJCV], Table 8: two pairs of sensors.

    featcache manifest build synrod FOLDER
    featcache import npz FEATURES.npz FOLDER/synrod.csv                    # arrays rgb, depth and event
    featcache train-head rna_rod && featcache evaluate rna_rod && featcache table rna_rod

A manifest has one source per clip, so depth and events are imported as features (data_manifests/synrod.md): one row of
512 numbers per picture, by ResNet-18, in the stores rgb, depth and event.

54 runs of 6,000 steps, about one and a half hours on two cores, estimated from the cost of steps on EPIC-8
(docs/benchmarks.md).

Fidelity: adapter, because the paper trains its backbones. Selection: last (the paper states none). Methods adapt to all
of ROD, without labels, and are tested on it. AdaBN and MM-SADA are not in the paper's table. Relative Rotation, with
66.68 in both columns, is left out: it rotates pictures before the backbone (docs/methods.md).

From the paper: batch of 64 (here 32 rows of each side, or 64 of the only side that a row sees), weight decay 0.003, one
set of hyper-parameters. From the code of Relative Rotation: the head (1000, batch normalisation, ReLU, dropout, whose
output is the feature), rate 1e-4, weight 0.1 of the entropy. Ours: the number of steps (the code has 40 epochs of a
split whose size its lists do not state), momentum 0.9, every λ of RNA (the paper states none), three seeds,
clip_norm 20. Nothing was tuned.
"""

from heads.methods import adabn, dann, entropy, mm_sada, mmd, rna, safn, source_only
from heads.nets import adapter
from pipelines.config import Feed, Optim
from pipelines.experiments._papers import printed
from pipelines.experiments._rows import SEEDS, Row, Whole, runs

METHODS = {
    "source-only": Row(source_only.Params()),
    "DANN": Row(dann.Params()),
    "MMD": Row(mmd.Params(gamma=mmd.MM_SADA)),
    "AdaBN": Row(adabn.Params()),
    "SAFN": Row(safn.Params()),
    "entropy": Row(entropy.Params()),
    "MM-SADA": Row(mm_sada.Params(), target=True),
    "RNA (DG)": Row(rna.Params()),
    "RNA (UDA)": Row(rna.Params(), target=True),
}
RUNS = tuple(
    run
    for other in ("depth", "event")
    for run in runs(
        {f"{name}, {other}": row for name, row in METHODS.items()},
        [("synrod", "rod")],
        SEEDS,
        manifest="synrod",
        net=adapter.Params(dim=1000, batch_norm=True, dropout_at="features"),
        feeds={"rgb": Feed("rgb"), other: Feed(other)},
        test_split="train",
        steps=6000,
        batch=Whole(64),
        optim=Optim(lr=1e-4, weight_decay=0.003, clip_norm=20.0),
    )
)
PUBLISHED = printed("""
                           synrod→rod
    source-only, depth          47.70
    DANN, depth                 59.51
    MMD, depth                  62.57
    SAFN, depth                 62.40
    entropy, depth              63.12
    RNA (DG), depth             50.06
    RNA (UDA), depth            82.36
    source-only, event          49.19
    DANN, event                 55.11
    MMD, event                  62.39
    SAFN, event                 66.87
    entropy, event              66.23
    RNA (DG), event             50.61
    RNA (UDA), event            78.52
""")
