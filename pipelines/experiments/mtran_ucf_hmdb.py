"""Source-free adaptation on UCF-HMDB [MTRAN: Huang et al. 2022, ACM MM], Table 2: ours beside theirs.

    featcache manifest build ucf_hmdb FOLDER
    featcache extract FOLDER/ucf_hmdb.csv i3d-rgb i3d-flow --windows segments:5 --stores stores/uniform \
        --set i3d-rgb.sampling=uniform --set i3d-flow.sampling=uniform
    featcache train-head mtran_ucf_hmdb --stores stores/uniform
    featcache evaluate mtran_ucf_hmdb --stores stores/uniform && featcache table mtran_ucf_hmdb

These stores lie apart, because those of the other papers' experiments have the same names and 16 pictures in a row.

TIME

Fidelity: exact, for the paper trains its transformers on frozen I3D features; 3C-GAN is a surrogate. Selection: last (the
paper states none). `_mtran.py` says what is the paper's and what is ours. The target's training clips are adapted to, its
test clips tested. 3C-GAN, SFDA and HCL were re-run by the paper's authors, who give no settings of theirs.
"""

from pipelines.experiments import SEEDS
from pipelines.experiments._mtran import COMMON, EPOCHS, table
from pipelines.experiments._papers import UCF_HMDB, printed, shifts
from pipelines.experiments._rows import Passes, runs

SHIFTS = shifts("ucf→hmdb hmdb→ucf")
STEPS = Passes(EPOCHS, UCF_HMDB)

RUNS = runs(table(), SHIFTS, SEEDS, manifest="ucf_hmdb", steps=STEPS, **COMMON)
PUBLISHED = printed("""
                         ucf→hmdb  hmdb→ucf
    source-only             81.11     86.87
    SHOT                    89.72     91.77
    3C-GAN (surrogate)      90.83     92.12
    SFDA                    90.28     92.47
    HCL                     90.56     92.99
    MTRAN                   92.22     95.27
""")
