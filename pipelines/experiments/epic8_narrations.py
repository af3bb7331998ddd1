"""EPIC-8 narrations without their verb, as Sentence-BERT embeddings: every method on six real shifts.

    featcache manifest build epic8_narrations FOLDER
    featcache extract FOLDER/epic8_narrations.csv sentence-bert --windows segments:1 \
        --set sentence-bert.model=sentence-transformers/all-MiniLM-L6-v2
    featcache train-head epic8_narrations && featcache evaluate epic8_narrations && featcache table epic8_narrations

FOLDER holds MM-SADA's lists (data_manifests/epic8_narrations.md). docs/efficacy.md has the table.

All methods use the defaults of their files, on all shifts. Net, steps and learning rate were chosen so that source-only
is good on held-out rows of the source, without any label of a target. An epoch of CBST, which labels more of the target
in each epoch, is 25 steps on all shifts: a pass over D1 takes 25 steps, over D3 61. Text has one modality and one
window, so methods that compare modalities or windows are left out.
"""

from itertools import permutations

from heads.nets import adapter
from pipelines.config import Feed, Optim
from pipelines.experiments._rows import SEEDS, Whole, runs
from pipelines.experiments._suite import suite

STEPS = 300
RUNS = runs(
    suite(modalities=False, epoch=STEPS // 12),
    permutations(("D1", "D2", "D3"), 2),
    SEEDS,
    manifest="epic8_narrations",
    net=adapter.Params(dim=512, standardise=True),
    feeds={"text": Feed("sentence-bert")},
    steps=STEPS,
    batch=Whole(128),
    optim=Optim(lr=0.03, milestones=(0.5,), clip_norm=5.0),
)
