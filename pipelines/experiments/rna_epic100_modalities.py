"""Relative norm alignment on EPIC-Kitchens-100 [RNA: Planamente et al. 2024, IJCV], Table 3: sets of modalities.

    featcache train-head rna_epic100_modalities && featcache evaluate rna_epic100_modalities
    featcache table rna_epic100_modalities                                 # also with --metric top1/verb or top1/noun
    featcache table rna_epic100_modalities --metric delta_acc              # over source-only of the same modalities

Stores, fidelity (exact), settings and selection (last) are those of `rna_epic100`. RNA (UDA) is the whole objective,
the paper's "Our (UDA)". Compare rows of one set; the last column compares all of them with the first row (`--only`
takes the rows of a set).

36 runs of 3,780 steps, about 31 hours on two cores; `rna_epic100` may have done the 9 on three modalities.
"""

from itertools import combinations

from pipelines.experiments._papers import published
from pipelines.experiments._rows import SEEDS, runs
from pipelines.experiments.rna_epic100 import COMMON, DG, FIVE, SHIFTS, SOURCE_ONLY, UDA

METRIC = "top1/action"
METHODS = {"source-only": SOURCE_ONLY, "RNA (DG)": DG, "RNA (UDA)": UDA}
RUNS = tuple(
    run
    for taken in (*combinations(FIVE, 2), tuple(FIVE))
    for run in runs(
        {f"{name}, {' + '.join(taken)}": row for name, row in METHODS.items()},
        SHIFTS,
        SEEDS,
        **{**COMMON, "feeds": {m: FIVE[m] for m in taken}},
    )
)
PUBLISHED = published("RNA", "Table 3")
