"""Pairs: every retrieval method on generated clips with captions; each domain differs from the source in one known way.

    featcache manifest build pairs demo/pairs
    featcache import npz demo/pairs/pairs.npz demo/pairs/pairs.csv --stores demo/stores
    featcache import npz demo/pairs/pairs_captions.npz demo/pairs/pairs_captions.csv --stores demo/stores
    featcache train-head pairs --stores demo/stores --runs demo/runs
    featcache evaluate pairs --stores demo/stores --runs demo/runs
    featcache table pairs --stores demo/stores --runs demo/runs

390 runs of 150 steps, 35 core-minutes. docs/efficacy.md has the table, and explains which method helps where.
Further metrics: t2v/R@5, t2v/MedR, v2t/R@1, ...

A batch has 64 rows of the source also where a row sees no target, because the other pairs of a batch are the negatives
of L_R, and all rows have equally many. All rows have one setting, and nothing was tuned: small nets, 16 keels of each
kind, and otherwise the defaults of their files. MMD takes its kernels from the batch, because embeddings have length 1.
"""

from dataclasses import replace
from typing import Any

from heads.methods import acp, capq, cdan_keels, coral, dann, mmd, sinkhorn, source_only
from heads.nets import ce, gated, mmt
from pipelines.config import Feed, Optim
from pipelines.experiments._rows import Row, runs

TARGETS = ("none", "mean", "rotation", "topics", "style", "swapped")
EXPERTS = ("object", "action", "scene")


def _on(net: Any) -> Row:
    return Row(source_only.Params(), changes={"net": net})


ROWS = {
    "CE": Row(source_only.Params()),
    "MoEE": _on(ce.Params(dim=32, relations=False)),
    "MMT": _on(mmt.Params(dim=32, layers=1, ff_dim=64)),
    "gated MLP": _on(gated.Params(dim=64)),
    "MMD": Row(mmd.Params()),
    "CORAL": Row(coral.Params()),
    "DANN": Row(dann.Params()),
    "CDAN": Row(cdan_keels.Params(K=16)),
    "OT": Row(sinkhorn.Params()),
    "CAPQ (surrogate)": Row(capq.Params(), changes={"fidelity": "adapter"}),
    "ACP": Row(acp.Params(N=16, K=16)),
    "ACP, τ = 0.1": Row(replace(acp.SHARP, N=16, K=16)),
    "supervised-target": Row(source_only.Params(), supervised=True),
}
RUNS = runs(
    ROWS,
    [("source", target) for target in TARGETS],
    range(5),
    manifest="pairs",
    net=ce.Params(dim=32),
    feeds={
        **{m: Feed(m, train="mean", test="mean") for m in EXPERTS},
        "sentence": Feed("sentence", seen_by="source test", captions="pairs_captions"),
    },
    absent="mask",
    steps=150,
    batch=(64, 64),
    optim=Optim("adam", lr=0.003, weight_decay=0.0),
    fidelity="exact",
)
