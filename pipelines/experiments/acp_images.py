"""Adaptive cross-modal prototypes [ACP: Liu et al. 2021, CVPR], Table 1: images, from short captions to narratives.

    featcache manifest build narratives FOLDER
    featcache extract FOLDER/narratives.csv resnext101 densenet161-places --windows segments:1
    featcache extract FOLDER/narratives_captions.csv sentence-bert
    featcache train-head acp_images && featcache evaluate acp_images
    featcache table acp_images
    featcache table acp_images --metric v2t/MedR

42 runs of 6,240 (from COCO) or 7,136 steps (from Open Images); the hours are not measured yet.

Fidelity, selection, and which settings are the paper's or ours (such as three seeds): as in `acp_msrvtt_msvd`. Margin,
batch and passes are also ours, because CE has no images. The experts are objects and scenes. SCAN and VSRN, the first
rows of the paper's table, are only quoted: they attend to regions of an image, which a cached descriptor does not have.
"""

from pipelines.experiments._acp import NOTE as COMMON
from pipelines.experiments._acp import SOURCES, rows, table
from pipelines.experiments._papers import published, shifts

SHIFTS = "open_narratives→coco_narratives coco→coco_narratives"
EXPERTS = ("object", "scene")

RUNS = tuple(
    run
    for shift in shifts(SHIFTS)
    for run in table(
        "narratives", shift, rows(SOURCES[shift[0]], EXPERTS, "narratives_captions", videos=False), EXPERTS
    )
)
NOTE = (
    "Our runs are tested on the 8,573 narratives of COCO's 5,000 validation images. The paper does not give its number "
    "of test images, so its test may be easier or harder. " + COMMON
)
PUBLISHED = published("ACP", "Table 1")
QUOTED = ("SCAN", "VSRN")
