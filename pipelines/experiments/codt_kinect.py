r"""CoDT [Liu & Wang 2022, ECCV] on three small real data sets of skeletons: what OCM and CCM bring there.

UTKinect-Action3D, MSR-Action3D and Florence3D-Action; classes of two are never the same, so those of the target are
new ones. `data_manifests/kinect_actions.md` says what FOLDER holds.

    featcache manifest build kinect_actions FOLDER
    for layout in kinect-15 kinect-20; do
        featcache extract FOLDER/kinect_actions.csv skeleton --windows segments:1 --set skeleton.layout=$layout \
            --set skeleton.frames=32 --set skeleton.bodies=1
    done                                            # Florence3D's clips fail at kinect-20, which they do not have
    featcache train-head codt_kinect && featcache evaluate codt_kinect
    featcache table codt_kinect
    featcache table codt_kinect --metric nmi/B1     # acc_dominant/B0, ari/B0, acc_hungarian/B0/kmeans, ...

45 runs: of each task and seed a first stage, which no row shows, three rows that start from it, and k-means of the
joints themselves; 35 minutes of two cores, reckoned from steps of 0.5 to 0.7 s. No table is published yet. In a first
look at UTKinect to MSR-Action3D, 300 steps were too few for branch B1: its loss stood at log N still, and clusters of
features that are all alike then collapsed to one. Nor did branch B0 come up to k-means of the joints.

From the supplement: losses and their weights, augmentation, rates of both stages, optimiser, first clusters, the true
number of clusters (oracle K). Ours, for data sets of a hundred to three hundred clips and two cores: a narrower net
(channels from 8 to 64), batches of 32 + 32, 300 and 150 steps, teachers that follow the last hundred of them (α 0.99)
in the place of a thousand, rows of 32 frames and one body, three seeds; and BM goes through the second stage as well,
so that rows differ in OCM and CCM alone. Nothing was tuned. Both branches read one store: the joints that source and
target have in common, which are all that the target has. No label of the target has a say: selection is the last point.
Fidelity is exact: the whole encoder is trained, as in the paper.
"""

from collections.abc import Iterator
from dataclasses import replace

from heads.methods import codt, joints
from heads.nets import stgcn
from pipelines.config import Feed, Optim, RunConfig
from pipelines.experiments import SEEDS
from pipelines.experiments._rows import Row, runs

CODT = codt.Params(alpha=0.99)
BASE = replace(CODT, lambda_cls=0, lambda_cot=0)
FIRST = {"optim": Optim(lr=0.1), "steps": 300}
ROWS = {
    "joints": Row(joints.Params(), changes={"steps": 0}),
    "first stage": Row(replace(BASE, strong=False), shown=False, changes=FIRST),
    "BM": Row(BASE, start="first stage"),
    "BM+OCM": Row(replace(CODT, lambda_cot=0), start="first stage"),
    "BM+OCM+CCM": Row(CODT, start="first stage"),
}
TASKS = {("utk", "msr"): "kinect-20", ("msr", "florence"): "kinect-15", ("utk", "florence"): "kinect-15"}


def _runs() -> Iterator[RunConfig]:
    for shift, layout in TASKS.items():
        yield from runs(
            ROWS,
            [shift],
            SEEDS,
            manifest="kinect_actions",
            net=stgcn.Params(width=8, dim=64),
            feeds={"skeleton": Feed(f"skeleton-{layout}")},
            steps=150,
            epoch="target",
            batch=(32, 32),
            optim=Optim(lr=0.01),
            fidelity="exact",
        )


RUNS = tuple(_runs())
NOTE = (
    "acc_hungarian pairs clusters and classes one to one; of rows without a classifier (joints, BM) it is by k-means, "
    "mean of ten starts. The number of clusters is the target's true number of classes."
)
