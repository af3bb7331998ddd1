"""ActionSense: kitchen activities from muscle signals of both arms, leaving one person out, by every method.

    featcache manifest build actionsense FOLDER
    featcache extract FOLDER/actionsense.csv vector --windows segments:1 \
        --set vector.key=left --set vector.modality=left --set vector.reduce=mean-std
    featcache extract FOLDER/actionsense.csv vector --windows segments:1 \
        --set vector.key=right --set vector.modality=right --set vector.reduce=mean-std
    featcache train-head actionsense && featcache evaluate actionsense && featcache table actionsense

FOLDER holds emg_all_subjects.npz (data_manifests/actionsense.md).
docs/efficacy.md has the table, of 1,107 runs.

All methods use the defaults of their files, except the self-trained probe, with one setting for all shifts. No label of
a target was used to choose anything. The source of a shift is the other eight people (S01, with 21 clips, is left out).
A person has about 60 test clips of 20 classes, so one clip is 1.6 points. An epoch of CBST and DLMM, which label more
of the target in each epoch, is 25 steps on all shifts. A clip has one window, so methods that compare windows are left
out.
"""

from heads.nets import adapter
from pipelines.config import Feed, Optim
from pipelines.experiments._rows import SEEDS, Whole, runs
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
    batch=Whole(120),
    optim=Optim(lr=0.03, milestones=(0.5,), clip_norm=5.0),
)
