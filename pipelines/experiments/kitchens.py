"""Kitchens: the demo. Two rendered kitchens, a loft and a cottage, and eight actions as pictures, motion and sound.

    featcache train-head kitchens && featcache evaluate kitchens && featcache table kitchens

24 runs, half a minute on two cores. Expected accuracy in per cent, over both shifts: source-only 56, RNA (DG) 68, RNA
(UDA) 80, supervised-target 86. The coefficient of variation of the modalities' feature norms over both domains is 0.34
after source-only, 0.23 after RNA (DG) and 0.06 after RNA (UDA).

The λ are our own, because the paper prints none. The number of steps gives a low loss on the source, clip_norm prevents
an explosion of RNA's per-class term, and units over the source a collapse of RNA where the norms of modalities differ
by factors of ten: a folder of stores is run with the same recipe. No label of a target was used to choose any of them.
"""

from itertools import permutations
from typing import Any

from heads.methods import rna
from heads.nets import adapter
from pipelines.config import Feed, Optim, Preparation
from pipelines.experiments._rows import Whole, grid

RECIPE: dict[str, Any] = {
    "net": adapter.Params(dim=256),
    "rna_params": rna.Params(),
    "optim": Optim(lr=0.01, milestones=(0.5,), clip_norm=5.0),
    "steps": 300,
    "batch": Whole(64),
    "preparation": Preparation(units="source"),
}
FEEDS = {"rgb": Feed("hog"), "flow": Feed("hof"), "audio": Feed("logmel")}
RUNS = grid("kitchens", FEEDS, permutations(("loft", "cottage"), 2), **RECIPE)
