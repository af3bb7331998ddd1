"""Source-free adaptation on UCF-HMDB [MTRAN: Huang et al. 2022, ACM MM], Table 2: our and published numbers.

    featcache manifest build ucf_hmdb FOLDER
    featcache extract FOLDER/ucf_hmdb.csv i3d-rgb i3d-flow --windows segments:5 --stores stores/uniform \
        --set i3d-rgb.sampling=uniform --set i3d-flow.sampling=uniform
    featcache train-head mtran_ucf_hmdb --stores stores/uniform
    featcache evaluate mtran_ucf_hmdb --stores stores/uniform && featcache table mtran_ucf_hmdb

These stores are in a folder of their own, because the experiments of other papers have stores of the same names, with
16 consecutive pictures.

36 runs of 350 or 600 steps, about 12 hours on two cores: 63 million weights, 5 core-seconds a step
(docs/benchmarks.md). Take a GPU (`--device cuda`, unmeasured), or `--seeds 0 --only MTRAN`.

Fidelity: exact, because the paper trains its transformers on frozen I3D features; 3C-GAN is a surrogate. Selection:
last (the paper states none). Methods adapt to the target's training clips and are tested on its test clips.

From the paper: net, rate, momentum, batch, epochs and λ of the target's stage. Ours: the source's stage (with the same
settings), no weight decay, three seeds, and the loss weights of the rivals (from their own code, except 3C-GAN, whose
code was not available).
"""

from pipelines.experiments._mtran import COMMON, ELSEWHERE, EPOCHS, table
from pipelines.experiments._papers import UCF_HMDB, published, shifts
from pipelines.experiments._rows import SEEDS, Passes, runs

SHIFTS = shifts("ucf→hmdb hmdb→ucf")
STEPS = Passes(EPOCHS, UCF_HMDB)

RUNS = runs(table(ELSEWHERE), SHIFTS, SEEDS, manifest="ucf_hmdb", steps=STEPS, **COMMON)
PUBLISHED = published("MTRAN", "Table 2")
