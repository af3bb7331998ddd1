"""A tiny clustering benchmark `motions` in real stores: skeletons that move one joint or another.

Domain "utk" has 3 classes, "msr" 4 others, of which one is in its test split alone, "flo" one more, which no run names.
Sorted over the manifest, the source's classes are the last ones.
"""

import numpy as np
import torch

from featcache.manifest import Clip, Manifest
from featcache.store import StoreWriter
from heads.methods import codt
from heads.nets import stgcn
from pipelines.config import Feed, Optim, RunConfig

torch.set_num_threads(1)  # tensors are tiny here, and threads that wait for each other are not

FRAMES = 8
JOINTS = {"shared": 15, "own": 20}  # store -> layout
CLASSES = {
    "flo": ("flo:clap",),
    "msr": ("msr:bow", "msr:draw", "msr:kick", "msr:wave"),
    "utk": ("utk:carry", "utk:push", "utk:sit"),
}
LATE = "msr:wave"  # in the test split alone


def manifest(classes=CLASSES, rename=None):
    """4 train clips and 2 test clips of each class; `rename`: clip id -> another label."""
    renamed = rename or {}
    made = [
        Clip(at, domain, split, f"{at}.txt", labels={"label": renamed.get(at, name)})
        for domain, names in classes.items()
        for name in names
        for split, count in (("train", 4), ("test", 2))
        if name != LATE or split == "test"
        for at in (f"{name}-{split}{k}" for k in range(count))
    ]
    return Manifest("motions", tuple(made))


def write_all(folder, of=None):
    """STORES/motions: of each clip a body that moves the joint of its class, and a second one every third time."""
    of = of or manifest()
    of.write(folder / of.name / "manifest.csv")
    names = [name for names in CLASSES.values() for name in names]
    for store, V in JOINTS.items():
        rng = np.random.default_rng(V)
        rest = rng.normal(size=(3, 1, V, 1))
        recipe = {
            "extractor": "skeleton",
            "version": 1,
            "modality": store,
            "weights_sha256": "none",
            "dtype": "float32",
        }
        path = folder / of.name / f"{store}.zarr"
        with StoreWriter.open(path, of, recipe, row_shape=(3, FRAMES, V, 2), windows=1, facts={}) as writer:
            for row, clip in enumerate(of):
                x = np.tile(rest, (1, FRAMES, 1, 2)) + 0.05 * rng.normal(size=(3, FRAMES, V, 2))
                joint = names.index(clip.clip_id.rpartition("-")[0])
                x[:, :, joint, 0] += 2 * np.sin(np.arange(FRAMES) + rng.uniform(0, 6))
                x[..., 1] *= row % 3 == 0
                writer.done(row, x[None].astype(np.float32), np.zeros(1), np.ones(1))
    return folder


def run(**changes):
    """A quick first stage from utk to msr, on both layouts."""
    plain = {
        "manifest": "motions",
        "method": codt.Params(lambda_cls=0, lambda_cot=0),
        "net": stgcn.Params(width=2, dim=8, kernel=3, dropout=0.0),
        "feeds": {"shared": Feed("shared"), "own": Feed("own", seen_by="target test")},
        "row": "BM",
        "source": ("utk",),
        "target": "msr",
        "steps": 3,
        "batch": (6, 6),
        "optim": Optim(lr=0.01),
        "fidelity": "exact",
    }
    return RunConfig(**{**plain, **changes})
