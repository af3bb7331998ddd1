"""Parts of MTRAN on EPIC-8 [MTRAN: Huang et al. 2022, ACM MM], Tables 5 and 7. Different test split.

    featcache train-head mtran_epic8_ablations --stores stores/uniform
    featcache evaluate mtran_epic8_ablations --stores stores/uniform && featcache table mtran_epic8_ablations

Stores, the different test split, fidelity (exact, except for the test split), schedule and selection (last) are those
of `mtran_epic8`; runs of both tables are trained once. `mtran_ucf_hmdb_ablations` explains the rows, `mtran_ucf_hmdb`
what is ours. MT-Mix's 41.15 from D1 to D2 is not a share of the paper's 417 test clips, unlike all other numbers.

144 runs of 650 to 1,550 steps, about 135 hours on two cores, of which `mtran_epic8` has done 44. Take a GPU.
"""

from pipelines.experiments._mtran import COMMON, EPIC, ablations
from pipelines.experiments._papers import published
from pipelines.experiments._rows import SEEDS, runs
from pipelines.experiments.mtran_epic8 import NOTE, SHIFTS, STEPS

__all__ = ["NOTE", "PUBLISHED", "RUNS"]
RUNS = runs(ablations(EPIC), SHIFTS, SEEDS, manifest="epic8_mtran", steps=STEPS, **COMMON)
PUBLISHED = published("MTRAN", "Table 5", "Table 7")
