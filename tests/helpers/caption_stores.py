"""A tiny retrieval benchmark `clips` in real stores: clips without labels, some lacking an expert, and their captions.

Every clip is a point z; experts and captions see it through maps of their own. Clip k has 1 + k % 3 captions, and each
caption has 1 to TOKENS tokens.
"""

import numpy as np
import torch

from featcache.manifest import Clip, Manifest
from featcache.store import StoreWriter
from heads.methods import source_only
from heads.nets import gated
from pipelines.config import Feed, Optim, RunConfig

torch.set_num_threads(1)  # tensors are tiny here, and threads that wait for each other are not

EXPERTS = {"object": (8, 1), "action": (6, 3)}  # name -> size, windows
CAPTIONS = {"words": 7, "sentence": 5}
TOKENS = 4
Z = 4


def clips(train=9, test=6, domains=("day", "night")):
    """Clips of two domains."""
    made = [
        Clip(f"{d}-{split}{k}", d, split, f"{d}/{split}{k}.mp4")
        for d in domains
        for split, count in (("train", train), ("test", test))
        for k in range(count)
    ]
    return Manifest("clips", tuple(made))


def captions(of, without=()):
    """The manifest of their captions; the clips of these rows have none."""
    made = [
        Clip(f"{clip.clip_id}#{k}", clip.domain, clip.split, clip.source, caption=f"caption {k}", of=clip.clip_id)
        for row, clip in enumerate(of)
        if row not in without
        for k in range(1 + row % 3)
    ]
    return Manifest("clips_captions", tuple(made))


def write(folder, manifest, name, size, windows, points, lacking=(), seed=0):
    """What one map makes of the points (rows, Z): row r has 1 + r % windows windows where there are tokens."""
    rng = np.random.default_rng([seed, len(name), size])
    to = rng.normal(size=(Z, size))
    recipe = {"extractor": name, "version": 1, "modality": name, "weights_sha256": "none", "dtype": "float32"}
    manifest.write(folder / manifest.name / "manifest.csv")
    path = folder / manifest.name / f"{name}.zarr"
    with StoreWriter.open(path, manifest, recipe, row_shape=(size,), windows=windows, facts={}) as writer:
        for row, z in enumerate(points):
            length = 1 + row % windows if windows == TOKENS else windows
            if row in lacking:
                writer.absent(row, "nothing to see")
            else:
                x = z @ to + 0.1 * rng.normal(size=(length, size))
                writer.done(row, x.astype(np.float32), np.arange(length), np.arange(length) + 1.0)


def write_all(folder, *, of=None, lacking=(2,), uncaptioned=(), unread=(), seed=0):
    """Both folders of stores. lacking, uncaptioned: clips without `action`, or captions; unread: captions of no use."""
    of = of or clips()
    texts = captions(of, uncaptioned)
    points = np.random.default_rng(7).normal(size=(len(of), Z))
    row = {clip.clip_id: k for k, clip in enumerate(of)}
    for name, (size, windows) in EXPERTS.items():
        write(folder, of, name, size, windows, points, lacking if name == "action" else ())
    described = points[[row[text.of] for text in texts]]
    write(folder, texts, "words", CAPTIONS["words"], TOKENS, described, unread, seed)
    write(folder, texts, "sentence", CAPTIONS["sentence"], 1, described, unread, seed)
    return folder


def feeds(**changes):
    """Two experts, tokens and a sentence."""
    text = {m: Feed(m, seen_by="source test", captions="clips_captions") for m in CAPTIONS}
    return {**{m: Feed(m) for m in EXPERTS}, **text, **changes}


def run(**changes):
    """A quick source-only run of the gated MLP from day to night."""
    plain = {
        "manifest": "clips",
        "method": source_only.Params(),
        "net": gated.Params(dim=8),
        "feeds": feeds(),
        "row": "gated",
        "source": ("day",),
        "test": "night",
        "absent": "mask",
        "steps": 8,
        "epoch": "source",
        "batch": (6, 6),
        "optim": Optim("adam", lr=0.01),
    }
    return RunConfig(**{**plain, **changes})
