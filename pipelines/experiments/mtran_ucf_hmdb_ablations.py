"""Parts of MTRAN on UCF-HMDB [MTRAN: Huang et al. 2022, ACM MM], Tables 4 and 6: our and published numbers.

    featcache train-head mtran_ucf_hmdb_ablations --stores stores/uniform
    featcache evaluate mtran_ucf_hmdb_ablations --stores stores/uniform && featcache table mtran_ucf_hmdb_ablations

Stores, fidelity (exact), schedule and selection (last) are those of `mtran_ucf_hmdb`; runs of both tables are trained
once.

48 runs of 350 or 600 steps, about 20 hours on two cores, of which `mtran_ucf_hmdb` has done 6.

RA is the relative alignment, of modalities (MRA) and of time (TRA). "w/o RA" has the numbers of the paper's SHOT in
every cell. M-MMD, MT-Absolute and MT-Mix replace MRA, or both (heads/methods/mtran.py, 7 and 8). The weight of MT-Mix
is ours, and its 90.17 is not a share of UCF's 571 test clips, unlike all other numbers.
"""

from pipelines.experiments._mtran import COMMON, ELSEWHERE, ablations
from pipelines.experiments._papers import published
from pipelines.experiments._rows import SEEDS, runs
from pipelines.experiments.mtran_ucf_hmdb import SHIFTS, STEPS

RUNS = runs(ablations(ELSEWHERE), SHIFTS, SEEDS, manifest="ucf_hmdb", steps=STEPS, **COMMON)
PUBLISHED = published("MTRAN", "Table 4", "Table 6")
