"""Relative norm alignment on EPIC-Kitchens-100 [RNA: Planamente et al. 2024, IJCV], Table 4: a modality lost in tests.

    featcache train-head rna_epic100_drop && featcache evaluate rna_epic100_drop
    featcache table rna_epic100_drop                                       # also with --metric top1/verb or top1/noun

Stores, fidelity (exact), settings and selection (last) are those of `rna_epic100`. A row without a modality takes the
weights of a run of `rna_epic100` on all three modalities, trains no further (steps=0), and is tested without that
modality. Do not set `--set steps=...`, because it would train these rows too.

9 runs of 3,780 steps, which `rna_epic100` may have done (about 10 hours on two cores), and 27 runs of 0 steps.
"""

from dataclasses import replace
from typing import Any

from pipelines.experiments._rows import SEEDS, Row, runs
from pipelines.experiments.rna_epic100 import COMMON, DG, FIVE, SHIFTS, SOURCE_ONLY, UDA, of_target

FULL = {"source-only": SOURCE_ONLY, "RNA (DG)": DG, "RNA (UDA)": UDA}


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
PUBLISHED = of_target("""
                             top1/verb  top1/noun  top1/action
    source-only                  46.79      26.79        18.29
    RNA (DG)                     50.75      27.92        19.81
    RNA (UDA)                    50.82      29.19        20.05
    source-only, no audio        41.61      21.91        13.07
    RNA (DG), no audio           44.03      24.44        14.89
    RNA (UDA), no audio          44.08      24.77        15.25
    source-only, no flow         30.58      20.33        10.63
    RNA (DG), no flow            36.88      22.82        12.89
    RNA (UDA), no flow           36.67      21.83        12.46
    source-only, no rgb          37.69      17.99        12.41
    RNA (DG), no rgb             46.70      18.92        13.53
    RNA (UDA), no rgb            46.51      19.37        13.55
""")
