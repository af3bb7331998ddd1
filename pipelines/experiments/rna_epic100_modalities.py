"""Relative norm alignment on EPIC-Kitchens-100 [RNA: Planamente et al. 2024, IJCV], Table 3: pairs of modalities.

    featcache train-head rna_epic100_modalities && featcache evaluate rna_epic100_modalities
    featcache table rna_epic100_modalities                                 # also with --metric top1/verb or top1/noun

Stores, fidelity (exact), settings and selection (last) are those of `rna_epic100`. Compare rows of one pair; the last
column compares all of them with the first row (`--only` takes the rows of a pair).

27 runs of 3,780 steps, about 21 hours on two cores.
"""

from itertools import combinations

from pipelines.experiments._rows import SEEDS, runs
from pipelines.experiments.rna_epic100 import COMMON, DG, FIVE, SHIFTS, SOURCE_ONLY, UDA, of_target

METRIC = "top1/action"
RUNS = tuple(
    run
    for pair in combinations(FIVE, 2)
    for run in runs(
        {f"{name}, {' + '.join(pair)}": row for name, row in (("source-only", SOURCE_ONLY), ("DG", DG), ("UDA", UDA))},
        SHIFTS,
        SEEDS,
        **{**COMMON, "feeds": {m: FIVE[m] for m in pair}},
    )
)
PUBLISHED = of_target("""
                                top1/verb  top1/noun  top1/action
    source-only, rgb + flow         44.80      25.35        16.33
    DG, rgb + flow                  45.95      26.65        16.94
    UDA, rgb + flow                 47.64      26.49        16.91
    source-only, rgb + audio        39.91      24.18        14.84
    DG, rgb + audio                 42.04      25.54        15.67
    UDA, rgb + audio                42.26      26.45        15.98
    source-only, flow + audio       45.11      21.98        15.37
    DG, flow + audio                48.87      23.44        16.49
    UDA, flow + audio               48.42      23.51        16.71
""")
