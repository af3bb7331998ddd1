"""Contrastive features on EPIC-8 [XMC: Kim et al. 2021, ICCV], Tables 4 to 8: the contribution of each part.

    featcache train-head xmc_epic8_ablations && featcache evaluate xmc_epic8_ablations
    featcache table xmc_epic8_ablations

Stores, fidelity (adapter), schedule and selection (mean of the last nine evaluations) are those of `xmc_epic8`; runs of
both tables are trained once. The paper prints means over the six shifts.

342 runs of 6,000 steps, about 92 hours on two cores, because h passes over the banks in each step; `xmc_epic8` has done
19 of these hours. `--seeds 0` takes a third; take a GPU, or choose rows with `--only`.

    Eq. 2, 5  the printed ratios, with one logarithm for all anchors (no published number)
    Table 4   objectives: XMC's for modalities, for domains, and both; MM-SADA's and pseudo-labels'
    Table 5   sampling: "one window" takes the windows of RGB and flow at the same time
    Table 6   λ (1.25 in "XMC final") and T (0.8)
    Table 7   the projection h: left out between modalities, or also taken between domains
    Table 8   contrast between modalities and domains (XMC final), or adversaries between domains ("XMC modality +
              DANN") or between both ("XMC adversarial")

The paper has 49.4 twice, for different runs: MM-SADA domain, and MM-SADA with one window. It has no equation of the
adversaries and does not define those between modalities: heads/methods/xmc.py has our reading. λ of the pseudo-labels
is ours.
"""

from dataclasses import replace

from heads.methods import mm_sada, pseudo_label, source_only, xmc
from pipelines.config import Feed
from pipelines.experiments._papers import published
from pipelines.experiments._rows import SEEDS, Row, runs
from pipelines.experiments.xmc_epic8 import COMMON, SHIFTS

FEEDS: dict[str, Feed] = COMMON["feeds"]
ONE_WINDOW = {"feeds": {m: replace(feed, train="shared:1") for m, feed in FEEDS.items()}}
ROWS = {
    "source-only": Row(source_only.Params()),
    "MM-SADA modality": Row(mm_sada.Params(lambda_d=0.0), target=True),
    "XMC modality": Row(xmc.Params(cross_domain="none")),
    "MM-SADA domain": Row(mm_sada.Params(lambda_c=0.0), target=True),
    "pseudo-label": Row(pseudo_label.Params()),
    "XMC domain": Row(xmc.Params(cross_modal="none")),
    "MM-SADA": Row(mm_sada.Params(), target=True),
    "XMC final": Row(xmc.Params()),
    "XMC final, one logarithm": Row(xmc.PRINTED),
    "MM-SADA, one window": Row(mm_sada.Params(), target=True, changes=ONE_WINDOW),
    "XMC final, one window": Row(xmc.Params(), changes=ONE_WINDOW),
    "XMC final, λ = 1": Row(xmc.Params(lambda_=1.0)),
    "XMC final, λ = 1.5": Row(xmc.Params(lambda_=1.5)),
    "XMC final, T = 0.9": Row(xmc.Params(T=0.9)),
    "XMC final, T = 0.6": Row(xmc.Params(T=0.6)),
    "XMC modality, no h": Row(xmc.Params(cross_modal="F", cross_domain="none")),
    "XMC final, h twice": Row(xmc.Params(cross_domain="h")),
    "XMC adversarial": Row(xmc.Params(cross_modal="adversarial", cross_domain="adversarial")),
    "XMC modality + DANN": Row(xmc.Params(cross_domain="adversarial")),
}
RUNS = runs(ROWS, SHIFTS, SEEDS, **COMMON)
PUBLISHED = published("XMC", "Table 4", "Table 5", "Table 6", "Table 7", "Table 8")
