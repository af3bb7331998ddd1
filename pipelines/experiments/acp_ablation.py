"""Adaptive cross-modal prototypes [ACP: Liu et al. 2021, CVPR], Table 4: the terms of its loss, MSR-VTT to MSVD.

Stores and manifests as in `acp_msrvtt_msvd`, which shares the runs of L_R (CE there) and of all terms (ACP).

    featcache train-head acp_ablation && featcache evaluate acp_ablation
    featcache table acp_ablation
    featcache table acp_ablation --metric v2t/R@1

15 runs of 10,200 steps; the hours are not measured yet.

Fidelity, selection, what is from the paper and what is ours, three seeds among it: as in `acp_msrvtt_msvd`. The last
row is ours: the paper prints no temperature, and without one its assignments are nearly uniform.
"""

from pipelines.experiments._acp import SOURCES, ablations, table
from pipelines.experiments._papers import retrieved

RUNS = table("msrvtt_msvd", ("msrvtt", "msvd"), ablations(SOURCES["msrvtt"].margin))
PUBLISHED = retrieved(
    "R@1 R@5 R@10 MedR",
    "msrvtt→msvd",
    """
    L_R        14.2 38.0 52.3 9 | 16.6 37.5 50.0 10
    L_R + L_s  15.7 39.8 54.1 9 | 20.4 41.5 51.3  9
    L_R + L_t  15.4 40.3 53.6 9 | 19.8 42.0 51.8  9
    all        16.6 42.4 55.2 8 | 22.1 42.9 52.5  8
    """,
)
