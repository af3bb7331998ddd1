r"""CoDT [Liu & Wang 2022, ECCV], the three main shifts: the gain by OCM, CCM and its variants. No published numbers.

NTU-60 to Skeletics, Skeletics to PKU-MMD, NTU-60+ to PKU-MMD. The paper's main text, whose tables have these shifts,
was not available to us, only its supplement and the released code: so our numbers have none to compare with. The
supplement gives the data (its Table 1) and the variants CCM-FP and CCM-PF (Section 5.2). The cards of the data sets
list the contents of their folders; `skeletics` needs a list of 30 classes, which the paper does not print.

    featcache manifest build ntu60_xview NTU && featcache manifest build skeletics SKELETICS
    featcache manifest build ntu60plus_xsub NTU
    featcache manifest build pkummd_xview PKU && featcache manifest build pkummd_xsub PKU
    featcache manifest join NTU/ntu60_xview.csv SKELETICS/skeletics.csv ntu60_skeletics.csv
    featcache manifest join SKELETICS/skeletics.csv PKU/pkummd_xview.csv skeletics_pkummd.csv
    featcache manifest join NTU/ntu60plus_xsub.csv PKU/pkummd_xsub.csv ntu60plus_pkummd.csv
    featcache extract ntu60_skeletics.csv skeleton --windows segments:1 --set skeleton.layout=shared-15
    featcache extract skeletics_pkummd.csv skeleton --windows segments:1 --set skeleton.layout=shared-15
    featcache extract skeletics_pkummd.csv skeleton --windows segments:1 --set skeleton.layout=ntu-25
                                                    # Skeletics' clips fail at ntu-25: they lack these joints
    featcache extract ntu60plus_pkummd.csv skeleton --windows segments:1 --set skeleton.layout=ntu-25
    featcache train-head codt_main && featcache evaluate codt_main
    featcache table codt_main                                   # acc_dominant/B0, the supplement's ACC
    featcache table codt_main --metric acc_dominant/B1          # nmi/B1, ari/B1, acc_hungarian/B1, ...

54 runs of 28,500 (Skeletics), 16,950 (PKU-MMD across views) or 22,200 steps (PKU-MMD across subjects), 9 of them first
stages that no row shows; the hours are not measured yet.

Protocols are those of the supplement's Table 1: NTU-60 across views (its training clips), PKU-MMD across views after
Skeletics and across subjects after NTU-60+. PKU-MMD has 51 clusters, Skeletics 30. The table prints 41 classes for
PKU-MMD across subjects, but its clips are those of all 51, and the released code has 51 clusters.

Branch B0 reads the joints that both domains share, B1 all joints of the target, as in the supplement: 25 of PKU-MMD.
Two stores have that only from Skeletics to PKU-MMD. NTU-60+ has the same 25 joints as PKU-MMD; of Skeletics only the 15
shared joints are read (data_manifests/skeletics.md). In both cases B0 and B1 read one store.

What is from the supplement, from the released code and ours, such as three seeds: as in `codt_supplement`. No label of
the target is used: selection is the last point. Fidelity is exact: the whole encoder is trained, as in the paper. Clips
without features, for example because no person was found, are left out.
"""

from heads.methods import codt
from pipelines.config import Feed
from pipelines.experiments._codt import FIRST, Shift, rows, table

SHARED, KINECT = Feed("skeleton-shared-15"), Feed("skeleton-ntu-25")
OWN = Feed("skeleton-ntu-25", seen_by="target test")  #: the joints that only PKU-MMD has
SHIFTS = {
    ("ntu60", "skeletics"): Shift({"skeleton": SHARED}, clips=24_265),
    ("skeletics", "pkummd"): Shift({"shared": SHARED, "own": OWN}, clips=14_357),
    ("ntu60plus", "pkummd"): Shift({"skeleton": KINECT}, clips=18_841),
}

RUNS = tuple(table(SHIFTS, rows(codt.Params(), FIRST)))
METRIC = "acc_dominant/B0"
NOTE = (
    "NO PUBLISHED NUMBERS: the paper's main tables were not available to us. Skeletics' 30 classes are not published, "
    "so they are your choice; B1 reads 15 joints of its clips instead of all."
)
