"""The suite: every method with its file's defaults, for benchmarks that compare all of them.

All methods use one net, schedule and optimiser, although the files of some prefer others: XMC and STCDA an adapter
without ReLU, SHOT batch normalisation and smoothed labels in its source stage, SFDA new prototypes every 100 steps,
3C-GAN its own optimiser. CBST and DLMM label more of the target in each epoch, CBST none in its first two epochs, so
their results depend on the length of an epoch (see `suite`). Methods that need several modalities or windows are in
groups of their own, so that a benchmark can leave them out.
"""

from dataclasses import replace
from typing import Any

from heads.methods import (
    adabn,
    bnm,
    cbst,
    cdan,
    cia,
    coral,
    daaa,
    dann,
    dlmm,
    entropy,
    gan3c,
    gradient_blending,
    hcl,
    infomax,
    label_propagation,
    logistic_regression,
    mcc,
    mcd,
    mdann,
    mm_sada,
    mmd,
    mtran,
    nearest_mean,
    pseudo_label,
    rna,
    safn,
    sava,
    sfda,
    shot,
    sinkhorn,
    source_only,
    stcda,
    ta3n,
    tcon,
    xmc,
)
from pipelines.experiments._rows import Row

SOURCE = "source-only"
SUPERVISED = "supervised-target"
FITTED: dict[str, Any] = {"steps": 0}  #: classifiers that are fitted at once on cached features need no training
COUNTING = (cbst.Params, dlmm.Params)  #: methods that label more of the target in each epoch

ADAPTED = {
    SOURCE: Row(source_only.Params()),
    # simple and strong
    "nearest mean": Row(nearest_mean.Params(), changes=FITTED),
    "nearest mean, by domain": Row(nearest_mean.Params(standardise="domain"), target=True, changes=FITTED),
    "logistic regression": Row(logistic_regression.Params(), changes=FITTED),
    "logistic regression, by domain": Row(
        logistic_regression.Params(standardise="domain"), target=True, changes=FITTED
    ),
    "logistic regression, self-trained": Row(logistic_regression.Params(rounds=5), target=True, changes=FITTED),
    "label propagation": Row(label_propagation.Params(), changes=FITTED),
    # aligned
    "AdaBN": Row(adabn.Params()),
    "MMD": Row(mmd.Params()),
    "CORAL": Row(coral.Params()),
    "Sinkhorn": Row(sinkhorn.Params()),
    "SAFN": Row(safn.Params()),
    # adversarial
    "DANN": Row(dann.Params()),
    "CDAN": Row(cdan.Params()),
    "CDAN+E": Row(cdan.Params(entropy=True)),
    "MCD": Row(mcd.Params()),
    "DAAA (surrogate)": Row(daaa.Params()),
    # certain
    "entropy": Row(entropy.Params()),
    "infomax": Row(infomax.Params()),
    "BNM": Row(bnm.Params()),
    "MCC": Row(mcc.Params()),
    "pseudo-label": Row(pseudo_label.Params()),
    "CBST": Row(cbst.Params()),
    # source-free
    "SHOT": Row(shot.Params(), start=SOURCE),
    "SFDA": Row(sfda.Params(), start=SOURCE),
    "HCL": Row(hcl.Params(), start=SOURCE),
    "3C-GAN (surrogate)": Row(gan3c.Params(), start=SOURCE),
    # contrast
    "XMC domain": Row(xmc.Params(cross_modal="none")),
}
MULTIMODAL = {
    "source-only, per modality": Row(source_only.Params(per_modality=True)),
    "Gradient Blending": Row(gradient_blending.Params(), changes={"holdout": 0.1}),
    "CBST, per modality": Row(cbst.Params(per_modality=True)),
    "MDANN (surrogate)": Row(mdann.Params()),
    "DLMM (surrogate)": Row(dlmm.Params()),
    "MM-SADA self-supervised": Row(mm_sada.Params(lambda_d=0), target=True),
    "MM-SADA": Row(mm_sada.Params(), target=True),
    "XMC modality": Row(xmc.Params(cross_domain="none")),
    "XMC final": Row(xmc.Params()),
    "CIA (surrogate)": Row(cia.Params()),
    "RNA (DG)": Row(rna.Params()),
    "RNA (UDA)": Row(rna.Params(), target=True),
}


TEMPORAL = {
    "SAVA (surrogate)": Row(sava.Params()),
    "TCoN (surrogate)": Row(tcon.Params()),
    "STCDA (surrogate)": Row(stcda.Params()),
}


def suite(
    *, modalities: bool, transformer: Any = None, relations: Any = None, epoch: int | None = None
) -> dict[str, Row]:
    """Rows of all methods, supervised-target last.

    modalities: True if there are several. transformer, relations: Params of the nets `mtran` and `trn`, if clips have
    several windows; MTRAN and TA3N use these nets, and each has its own source-only row. epoch: steps of an epoch of
    CBST and DLMM, which count epochs; None is one pass over the source, so that among runs of equal steps a larger
    source gives fewer rounds.
    """
    rows = ADAPTED | (MULTIMODAL if modalities else {})
    if epoch is not None:
        rows = {
            name: replace(row, changes={**row.changes, "epoch": epoch}) if isinstance(row.method, COUNTING) else row
            for name, row in rows.items()
        }
    if transformer is not None:
        changes = {"net": transformer}
        rows[f"{SOURCE}, transformer"] = Row(source_only.Params(), changes=changes)
        rows["MTRAN"] = Row(mtran.Params(), start=f"{SOURCE}, transformer", changes=changes)
    if relations is not None:
        changes = {"net": relations}
        rows[f"{SOURCE}, relations"] = Row(source_only.Params(), changes=changes)
        rows["TA3N"] = Row(ta3n.Params(), changes=changes)
        rows |= TEMPORAL
    return rows | {SUPERVISED: Row(source_only.Params(), supervised=True)}
