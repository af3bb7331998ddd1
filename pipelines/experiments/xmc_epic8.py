"""Contrastive features on EPIC-8 [XMC: Kim et al. 2021, ICCV], Table 3: our and published numbers.

    featcache manifest build epic8 EPIC-KITCHENS
    featcache extract EPIC-KITCHENS/epic8.csv i3d-rgb i3d-flow --windows inner:5 \
        --set i3d-rgb.stride=2 --set i3d-flow.stride=2
    featcache train-head xmc_epic8 && featcache evaluate xmc_epic8 && featcache table xmc_epic8

171 runs of 6,000 steps, about 20 hours on two cores (docs/benchmarks.md has the cost of a step). 16 of these hours are
for "XMC modality" and "XMC final", whose h passes over both banks in every step. `--seeds 0` takes a third.

Fidelity: adapter. The paper trains both I3D streams; here one layer per modality learns on frozen streams. So compare
differences between rows with the paper's, not the numbers themselves.

From the paper: batch of 32, 6,000 steps at 0.01, in the second half at 0.001; λ, τ, δ and T; windows of RGB and flow
drawn independently. From MM-SADA's code: 16 rows of each side in a batch, or 32 of the only side that a row sees; five
windows averaged in tests; momentum, weight decay, and the selection, the mean of the last nine evaluations, 50 steps
apart. Ours: the adapter (1024 without a ReLU, dropout 0.5), h, three seeds, and weights of the rivals' losses that
their files mark as ours. Nothing was tuned.

Windows are those of MM-SADA's code, on which the paper builds: 16 pictures, every second one of 32, around the centres
linspace(start + 16, stop - 16, 7)[1:-1] in pictures of the clip [start, stop). RGB is one picture later than there. A
clip shorter than 32 pictures repeats its first and last one, where the code takes pictures outside the clip. More
windows per clip (`--windows inner:25`) are closer to the code's training, which takes any window of the clip.

Variant "consecutive": 16 consecutive pictures, as in the paper's text. Leave out the two `--set` of `extract`, and give
all commands `--stores stores/consecutive`, and those after `extract` also `--runs runs/consecutive`.
"""

from typing import Any

from heads.methods import adabn, dann, mcd, mm_sada, mmd, source_only, xmc
from heads.nets import adapter
from pipelines.config import Feed, Optim
from pipelines.experiments._papers import LAST_NINE, published, shifts
from pipelines.experiments._rows import SEEDS, Row, Whole, runs

SHIFTS = shifts("D2→D1 D3→D1 D1→D2 D3→D2 D1→D3 D2→D3")
COMMON: dict[str, Any] = {
    "manifest": "epic8",
    "net": adapter.Params(act="none", fusion="mean"),
    "feeds": {m: Feed(f"i3d-{m}", train="random:1", test="each") for m in ("rgb", "flow")},
    "steps": 6000,
    "batch": Whole(32),
    "optim": Optim(lr=0.01, weight_decay=1e-7, milestones=(0.5,)),
    **LAST_NINE,
}
ROWS = {
    "source-only": Row(source_only.Params()),
    "AdaBN": Row(adabn.Params()),
    "MMD": Row(mmd.Params(gamma=mmd.MM_SADA)),
    "MCD": Row(mcd.Params(reversal=True)),
    "DANN": Row(dann.Params()),  # not in the paper's table
    "MM-SADA": Row(mm_sada.Params(), target=True),
    "XMC modality": Row(xmc.Params(cross_domain="none")),
    "XMC domain": Row(xmc.Params(cross_modal="none")),
    "XMC final": Row(xmc.Params()),
    "supervised-target": Row(source_only.Params(), supervised=True),
}
RUNS = runs(ROWS, SHIFTS, SEEDS, **COMMON)
PUBLISHED = published("XMC", "Table 3")
