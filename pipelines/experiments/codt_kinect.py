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

63 runs: of each task and seed a first stage, which no row shows, five rows that start from it, and k-means of the
joints themselves; 85 minutes of two cores beside other work. The tables, and what they say, are in docs/efficacy.md.

From the supplement: losses and their weights, augmentation, the second stage's rate, optimiser, first clusters, the
true number of clusters (oracle K). Ours, for data sets of a hundred to three hundred clips and two cores: a narrower
net (channels from 8 to 64), batches of 32 + 32, 500 and 200 steps, teachers that follow the last hundred of them
(α 0.99) in the place of a thousand, rows of 32 frames and one body, three seeds; and BM goes through the second stage
as well, so that rows differ in OCM and CCM alone. Both branches read one store: the joints that source and target have
in common, which are all that the target has. No label of the target has a say: selection is the last point. Fidelity is
exact: the whole encoder is trained, as in the paper.

The first stage has the second's rate, chosen by L_cont, a training loss: of Florence3D by itself it ends, after 400
steps, at 4.13 with the supplement's rate of 0.1, at 4.11 with 0.03, at 3.44 with 0.01, where log N = 4.69 is that of
features that are all alike (torch's own first weights end at 3.29; the paper's stay). With 0.1 and 300 steps, a first
setting whose accuracies were seen, branch B1 stayed there and its clusters fell into one.
"""

from collections.abc import Iterator
from dataclasses import replace

from heads.methods import codt, joints
from heads.nets import stgcn
from pipelines.config import Feed, Optim, RunConfig
from pipelines.experiments._rows import SEEDS, Row, runs

CODT = codt.Params(alpha=0.99)
BASE = replace(CODT, lambda_cls=0, lambda_cot=0)
ROWS = {
    "joints": Row(joints.Params(), changes={"steps": 0}),
    "first stage": Row(replace(BASE, strong=False), shown=False, changes={"steps": 500}),
    "BM": Row(BASE, start="first stage"),
    "BM+OCM": Row(replace(CODT, lambda_cot=0), start="first stage"),
    "BM+OCM+CCM": Row(CODT, start="first stage"),
    "BM+OCM+CCM-FP": Row(replace(CODT, variant="fp"), start="first stage"),
    "BM+OCM+CCM-PF": Row(replace(CODT, variant="pf"), start="first stage"),
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
            steps=200,
            epoch="target",
            batch=(32, 32),
            optim=Optim(lr=0.01),
            fidelity="exact",
        )


RUNS = tuple(_runs())
NOTE = (
    "A narrower net, smaller batches and fewer steps than the paper's, on other data sets. Numbers by k-means are "
    "means of ten starts."
)
