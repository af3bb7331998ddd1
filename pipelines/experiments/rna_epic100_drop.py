"""Relative norm alignment on EPIC-Kitchens-100 [RNA: Planamente et al. 2024, IJCV], Table 4: a modality lost in tests.

    featcache train-head rna_epic100_drop && featcache evaluate rna_epic100_drop
    featcache table rna_epic100_drop                                       # also with --metric top1/verb or top1/noun
    featcache table rna_epic100_drop --metric delta_acc                    # over source-only without the same modality

Stores, fidelity (exact), settings and selection (last) are those of `rna_epic100`. A row without a modality takes the
weights of a run of `rna_epic100` on all three modalities, trains no further (steps=0), and is tested without that
modality. Do not set `--set steps=...`, because it would train these rows too.

UDA (L_RNA) is L_C and L_RNA (Eq. 3), without L_d and L_IM, as the paper names its rows here: the row of the same name
of `rna_epic100`. The numbers of the rows with all modalities are those of Table 2.

9 runs of 3,780 steps, which `rna_epic100` may have done (about 10 hours on two cores), and 27 runs of 0 steps.
"""

from dataclasses import replace
from typing import Any

from pipelines.experiments._papers import published
from pipelines.experiments._rows import SEEDS, Row, runs
from pipelines.experiments.rna_epic100 import COMMON, DG, FIVE, L_RNA, SHIFTS, SOURCE_ONLY

FULL = {"source-only": SOURCE_ONLY, "RNA (DG)": DG, "UDA (L_RNA)": L_RNA}


def _without(lost: str) -> dict[str, Any]:
    """Changes of a run that trains no further and is tested without that modality."""
    return {"steps": 0, "feeds": {**FIVE, lost: replace(FIVE[lost], seen_by="source target")}}


LESS: dict[str, Row] = {
    f"{name}, no {lost}": replace(row, start=name, changes=_without(lost))
    for lost in ("audio", "flow", "rgb")
    for name, row in FULL.items()
}
METRIC = "top1/action"
RUNS = runs(FULL | LESS, SHIFTS, SEEDS, **COMMON)
WHOLE = published("RNA", "Table 2")  # all modalities in tests
PUBLISHED = {name: WHOLE[name] for name in FULL} | published("RNA", "Table 4")
