"""Kitchens: the demo. Two rendered kitchens, a loft and a cottage, eight actions, seen, in motion and heard.

    featcache train-head kitchens && featcache evaluate kitchens && featcache table kitchens

24 runs, half a minute on two cores. To expect, in per cent over both shifts: source-only 59, RNA (DG) 56, RNA (UDA) 74
(78 on another processor), supervised-target 85. The modalities' feature norms differ by a coefficient of variation of
0.46 after source-only, of 0.06 after RNA (DG) and of 0.02 after RNA (UDA).

The λ are our own (the paper prints none), steps were chosen for the source's loss to be low, and
clip_norm because RNA's per-class term can explode without; no label of a target had a say in any of them.
"""

from itertools import permutations
from typing import Any

from heads.methods import rna
from heads.nets import adapter
from pipelines.config import Feed, Optim
from pipelines.experiments._rows import grid

RECIPE: dict[str, Any] = {
    "net": adapter.Params(dim=256),
    "rna_params": rna.Params(),
    "optim": Optim(lr=0.01, milestones=(0.5,), clip_norm=5.0),
    "steps": 300,
    "batch": (32, 32),
}
FEEDS = {"rgb": Feed("hog"), "flow": Feed("hof"), "audio": Feed("logmel")}
RUNS = grid("kitchens", FEEDS, permutations(("loft", "cottage"), 2), **RECIPE)
