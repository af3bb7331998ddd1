"""Generated features of three modalities whose mean norms differ as those of real extractors: 3.8, 195 and 60."""

import numpy as np

from featcache.manifest import Clip, Manifest
from featcache.store import StoreWriter

NORMS = {"rgb": 3.8, "flow": 195.0, "audio": 60.0}
CLASSES, SIZE = 8, 64


def write(stores, clips=240, seed=0):
    """STORES/uneven: non-negative features with a mean per class, a shift per domain and noise. Returns the folder."""
    rng = np.random.default_rng(seed)
    y, domain, part = rng.integers(CLASSES, size=clips), np.arange(clips) % 2, np.arange(clips) % 6 // 4
    manifest = Manifest(
        "uneven",
        tuple(
            Clip(f"{k:04}", "ab"[domain[k]], ("train", "test")[part[k]], f"{k}.mp4", labels={"label": f"c{y[k]}"})
            for k in range(clips)
        ),
    )
    folder = stores / "uneven"
    manifest.write(folder / "manifest.csv")
    for m, norm in NORMS.items():
        means = np.abs(rng.normal(size=SIZE)) + 0.5 * rng.normal(size=(CLASSES, SIZE))[y]
        x = np.maximum(means + 0.5 * rng.normal(size=(2, SIZE))[domain] + rng.normal(size=(clips, SIZE)), 0)
        x *= norm / np.linalg.norm(x, axis=1).mean()
        recipe = {"extractor": m, "version": 1, "modality": m, "weights_sha256": "none", "dtype": "float32"}
        with StoreWriter.open(folder / f"{m}.zarr", manifest, recipe, row_shape=(SIZE,), windows=1, facts={}) as writer:
            for row in range(clips):
                writer.done(row, x[row : row + 1].astype(np.float32), np.zeros(1), np.ones(1))
    return folder
