"""Weights of MTRAN's losses on UCF-HMDB [MTRAN: Huang et al. 2022, ACM MM], Figure 5: λ_1, λ_2 and λ_3, one at a time.

    featcache train-head mtran_sensitivity --stores stores/uniform
    featcache evaluate mtran_sensitivity --stores stores/uniform
    featcache table mtran_sensitivity && featcache report mtran_sensitivity --stores stores/uniform

Stores, fidelity (exact), schedule and selection (last) are those of `mtran_ucf_hmdb`, and what is ours, such as three
seeds, is the same. The report draws a curve for each λ.

84 runs of 350 or 600 steps, about 35 hours on two cores, of which `mtran_ucf_hmdb` has done 5.

The values are those on the figure's axes. The middle value of each λ is the paper's on this data set: the row MTRAN.
The paper prints its curves, not their numbers, so only source-only and MTRAN have published numbers, those of Table 2.
Its text: accuracy falls where λ_1 is too large or too small, and λ_2 and λ_3 matter little. The axis of accuracy begins
at 89 per cent.
"""

from dataclasses import replace

from pipelines.experiments._mtran import COMMON, ELSEWHERE, SOURCE, adapted
from pipelines.experiments._papers import published
from pipelines.experiments._rows import SEEDS, runs
from pipelines.experiments.mtran_ucf_hmdb import SHIFTS, STEPS

ROWS = {
    **SOURCE,
    "MTRAN": adapted(ELSEWHERE),
    **{f"λ_1 = {value}": adapted(replace(ELSEWHERE, lambda_1=value)) for value in (2.6, 2.8, 3.2, 3.4)},
    **{f"λ_2 = {value}": adapted(replace(ELSEWHERE, lambda_2=value)) for value in (0.6, 0.8, 1.2, 1.4)},
    **{f"λ_3 = {value}": adapted(replace(ELSEWHERE, lambda_3=value)) for value in (0.01, 0.03, 0.07, 0.09)},
}

RUNS = runs(ROWS, SHIFTS, SEEDS, manifest="ucf_hmdb", steps=STEPS, **COMMON)
PUBLISHED = {row: numbers for row, numbers in published("MTRAN", "Table 2").items() if row in ROWS}
