"""Shifts: every method on generated features of domains that differ from the source in one known way each.

    featcache manifest build shifts demo/shifts
    featcache import npz demo/shifts/shifts.npz demo/shifts/shifts.csv --stores demo/stores
    featcache train-head shifts --stores demo/stores --runs demo/runs
    featcache evaluate shifts --stores demo/stores --runs demo/runs
    featcache table shifts --stores demo/stores --runs demo/runs

1155 runs of 100 steps, ten minutes on two cores. docs/efficacy.md has the table, and says what to make of it.

Every method has its file's defaults, and all have the net, steps and learning rate below. These were set once, for
source-only to be trained to the end; nothing was chosen by shift, nor by method.
"""

from dataclasses import dataclass
from typing import Any

from featcache.builders.shifts import SHIFTS
from heads.methods import (
    adabn,
    bnm,
    cbst,
    cdan,
    coral,
    dann,
    entropy,
    infomax,
    label_propagation,
    logistic_regression,
    mcc,
    mcd,
    mm_sada,
    mmd,
    mtran,
    nearest_mean,
    pseudo_label,
    rna,
    safn,
    sinkhorn,
    source_only,
    xmc,
)
from heads.nets import adapter
from heads.nets import mtran as mtran_net
from pipelines.config import Feed, Optim, RunConfig

SEEDS = range(5)
FEEDS = {"rgb": Feed("rgb"), "flow": Feed("flow")}
OPTIM = Optim(lr=0.03, milestones=(0.5,), clip_norm=5.0)
STEPS = 100
ADAPTER = adapter.Params(dim=64)
TRANSFORMER = mtran_net.Params(dim=32, layers=1)


@dataclass(frozen=True)
class Row:
    """A row of the table: a method, and what it is given."""

    method: Any
    net: Any = ADAPTER
    target: bool = True  #: it sees the target without labels
    start: str = ""  #: row whose runs it starts from; it then sees no source
    steps: int = STEPS


ROWS = {
    "source-only": Row(source_only.Params(), target=False),
    "source-only, per modality": Row(source_only.Params(per_modality=True), target=False),
    "source-only, transformer": Row(source_only.Params(), TRANSFORMER, target=False),
    "nearest mean": Row(nearest_mean.Params(), target=False, steps=0),
    "nearest mean, by domain": Row(nearest_mean.Params(standardise="domain"), steps=0),
    "logistic regression": Row(logistic_regression.Params(), target=False, steps=0),
    "logistic regression, by domain": Row(logistic_regression.Params(standardise="domain"), steps=0),
    "label propagation": Row(label_propagation.Params(), steps=0),
    "AdaBN": Row(adabn.Params()),
    "MMD": Row(mmd.Params()),
    "CORAL": Row(coral.Params()),
    "Sinkhorn": Row(sinkhorn.Params()),
    "DANN": Row(dann.Params()),
    "CDAN": Row(cdan.Params()),
    "CDAN+E": Row(cdan.Params(entropy=True)),
    "MCD": Row(mcd.Params()),
    "SAFN": Row(safn.Params()),
    "RNA (DG)": Row(rna.Params(), target=False),
    "RNA (UDA)": Row(rna.Params()),
    "entropy": Row(entropy.Params()),
    "infomax": Row(infomax.Params()),
    "BNM": Row(bnm.Params()),
    "MCC": Row(mcc.Params()),
    "pseudo-label": Row(pseudo_label.Params()),
    "CBST": Row(cbst.Params()),
    "CBST, per modality": Row(cbst.Params(per_modality=True)),
    "XMC modality": Row(xmc.Params(cross_domain="none")),
    "XMC domain": Row(xmc.Params(cross_modal="none")),
    "XMC final": Row(xmc.Params()),
    "MM-SADA self-supervised": Row(mm_sada.Params(lambda_d=0)),
    "MM-SADA": Row(mm_sada.Params()),
    "MTRAN": Row(mtran.Params(), TRANSFORMER, start="source-only, transformer"),
}


def run(name: str, row: Row, shift: str, seed: int, labelled: str = "source") -> RunConfig:
    """The run of a row on a shift."""
    return RunConfig(
        manifest="shifts",
        method=row.method,
        net=row.net,
        feeds=FEEDS,
        row=name,
        source=() if row.start else (labelled,),
        target=shift if row.target else None,
        test=shift,
        absent="mask",
        steps=row.steps,
        epoch="target" if row.start else "source",
        batch=(64, 64),
        optim=OPTIM,
        init_from=run(row.start, ROWS[row.start], shift, seed).id if row.start else None,
        seed=seed,
    )


RUNS = (
    *(run(name, row, shift, seed) for name, row in ROWS.items() for shift in SHIFTS for seed in SEEDS),
    *(run("supervised-target", ROWS["source-only"], shift, seed, shift) for shift in SHIFTS for seed in SEEDS),
)
