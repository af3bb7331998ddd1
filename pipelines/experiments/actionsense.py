"""ActionSense: kitchen activities from the muscles of both arms, leaving one person out; every method.

    featcache manifest build actionsense FOLDER
    featcache extract FOLDER/actionsense.csv vector --windows segments:1 \
        --set vector.key=left --set vector.modality=left --set vector.reduce=mean-std
    featcache extract FOLDER/actionsense.csv vector --windows segments:1 \
        --set vector.key=right --set vector.modality=right --set vector.reduce=mean-std
    featcache train-head actionsense && featcache evaluate actionsense && featcache table actionsense

FOLDER holds emg_all_subjects.npz (data_manifests/actionsense.md).
docs/efficacy.md has the table, of 1,107 runs.

All methods have their files' defaults but for the self-trained probe, one setting for all shifts; nothing was chosen
by a label of a target. The other eight people
teach (S01, who has 21 clips, takes no part); a person has about 60 clips of 20 classes to test, so a clip is worth 1.6
points. An epoch of CBST and of DLMM, whose labels grow from epoch to epoch, is 25 steps on all shifts. There is one
window per clip: methods that compare windows take no part.
"""

from heads.nets import adapter
from pipelines.config import Feed, Optim
from pipelines.experiments._rows import SEEDS, runs
from pipelines.experiments._suite import suite

PEOPLE = ("S00", "S02", "S03", "S04", "S05", "S06", "S07", "S08", "S09")

STEPS = 300
RUNS = runs(
    suite(modalities=True, epoch=STEPS // 12),
    [(tuple(person for person in PEOPLE if person != target), target) for target in PEOPLE],
    SEEDS,
    manifest="actionsense",
    net=adapter.Params(dim=256, standardise=True),
    feeds={"left": Feed("vector-left"), "right": Feed("vector-right")},
    steps=STEPS,
    batch=(60, 60),
    optim=Optim(lr=0.03, milestones=(0.5,), clip_norm=5.0),
)
