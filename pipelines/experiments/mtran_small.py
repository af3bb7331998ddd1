"""Source-free adaptation on two small pairs [MTRAN: Huang et al. 2022, ACM MM], Table 1: our and published numbers.

    featcache manifest build ucf_olympic FOLDER
    featcache manifest build ucf_hmdb_small FOLDER
    featcache extract FOLDER/ucf_olympic.csv i3d-rgb i3d-flow --windows segments:5 --stores stores/uniform \
        --set i3d-rgb.sampling=uniform --set i3d-flow.sampling=uniform
    featcache extract FOLDER/ucf_hmdb_small.csv i3d-rgb i3d-flow --windows segments:5 --stores stores/uniform \
        --set i3d-rgb.sampling=uniform --set i3d-flow.sampling=uniform
    featcache train-head mtran_small --stores stores/uniform
    featcache evaluate mtran_small --stores stores/uniform && featcache table mtran_small

UCF-Olympic and UCF-HMDB small: two manifests in one table.

72 runs of 100 to 250 steps, about 9 hours on two cores.

Fidelity, selection (last) and settings are those of `mtran_ucf_hmdb`. Sizes are TA3N's, with which all rows of the
paper except SFDA agree; the paper states other sizes (data_manifests/ucf_olympic.md, ucf_hmdb_small.md). One test clip
is 1.9 points on Olympic and 0.7 on HMDB. The paper prints no mean.
"""

from pipelines.experiments._mtran import COMMON, ELSEWHERE, EPOCHS, table
from pipelines.experiments._papers import published, shifts
from pipelines.experiments._rows import SEEDS, Passes, runs

CLIPS = {"ucf_olympic": {"ucf": 601, "olympic": 250}, "ucf_hmdb_small": {"ucf": 482, "hmdb": 350}}
SHIFTS = {"ucf_olympic": shifts("ucf→olympic olympic→ucf"), "ucf_hmdb_small": shifts("ucf→hmdb hmdb→ucf")}

RUNS = tuple(
    run
    for manifest, clips in CLIPS.items()
    for run in runs(table(ELSEWHERE), SHIFTS[manifest], SEEDS, manifest=manifest, steps=Passes(EPOCHS, clips), **COMMON)
)
PUBLISHED = published("MTRAN", "Table 1")
