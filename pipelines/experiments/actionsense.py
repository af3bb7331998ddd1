"""ActionSense: kitchen activities from the muscles of both arms, five people to four others; every method.

    featcache manifest build actionsense FOLDER
    featcache extract FOLDER/actionsense.csv vector --windows segments:1 \
        --set vector.key=left --set vector.modality=left --set vector.reduce=mean-std
    featcache extract FOLDER/actionsense.csv vector --windows segments:1 \
        --set vector.key=right --set vector.modality=right --set vector.reduce=mean-std
    featcache train-head actionsense && featcache evaluate actionsense && featcache table actionsense

FOLDER holds emg_all_subjects.npz (data_manifests/actionsense.md). docs/efficacy.md has the table.

All methods have their files' defaults, on all shifts; nothing was chosen by a label of a target. A person has about 150
clips to train and 60 to test of 20 classes, so a clip is worth 1.7 points, and supervised-target is no upper bound: it
learns from a fifth of the clips that the others have. There is one window per clip: methods that compare windows take
no part.
"""

from heads.nets import adapter
from pipelines.config import Feed, Optim
from pipelines.experiments import SEEDS
from pipelines.experiments._rows import runs
from pipelines.experiments._suite import suite

TEACHERS = ("S00", "S02", "S03", "S05", "S06")

RUNS = runs(
    suite(modalities=True),
    [(TEACHERS, target) for target in ("S04", "S07", "S08", "S09")],
    SEEDS,
    manifest="actionsense",
    net=adapter.Params(dim=256, standardise=True),
    feeds={"left": Feed("vector-left"), "right": Feed("vector-right")},
    steps=300,
    batch=(60, 60),
    optim=Optim(lr=0.03, milestones=(0.5,), clip_norm=5.0),
)
