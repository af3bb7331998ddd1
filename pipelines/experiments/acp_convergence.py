"""Adaptive cross-modal prototypes [ACP: Liu et al. 2021, CVPR], Figure 4b: convergence, MSR-VTT to MSVD.

Stores and manifests as in `acp_msrvtt_msvd`.

    featcache train-head acp_convergence && featcache evaluate acp_convergence
    featcache table acp_convergence             # after the last step
    featcache report acp_convergence            # after every eighth of the steps, as a curve

12 runs of 9,200 steps; the hours are not measured yet. Every run keeps the outputs of eight evaluation points, 1,150
steps apart: 2 GB for MSVD's test captions, about 40 a clip. To keep one seed only, add `--seeds 0`.

The paper's text does not name the rivals, the shift and the measure of its figure. The rows and the shift are those of
its Figure 3, the measure is R@1 from text to video, and our axis counts steps. Its curves are pictures without numbers,
so the published numbers are those of its Table 2.

Fidelity, and which settings are the paper's or ours (such as three seeds): as in `acp_msrvtt_msvd`. Selection: last,
because the curve shows all points. The rate is constant, so a point shows the net that a shorter run would give, except
for DANN, whose weight grows with the share of the steps.
"""

from math import ceil

from pipelines.experiments._acp import NOTE as COMMON
from pipelines.experiments._acp import SOURCES, STORES, rows, table
from pipelines.experiments.acp_msrvtt_msvd import PUBLISHED as TABLE_2

POINTS = 8
SHOWN = ("CE", "CORAL", "DANN", "ACP")
SOURCE = SOURCES["msrvtt"]
METHODS = rows(SOURCE, STORES, "msrvtt_msvd_captions")

RUNS = table(
    "msrvtt_msvd",
    ("msrvtt", "msvd"),
    {row: METHODS[row] for row in SHOWN},
    changes={"eval_every": ceil(SOURCE.steps / POINTS), "keep": POINTS, "select": "last"},
)
NOTE = "The numbers are those after the last step. The report shows them after every eighth of the steps. " + COMMON
PUBLISHED = {row: {"msrvtt→msvd": TABLE_2[row]["msrvtt→msvd"]} for row in SHOWN}
