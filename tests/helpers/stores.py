"""A tiny two-domain benchmark `toy` in real stores: class means seen through two modalities of very different norm."""

import contextlib
import dataclasses

import numpy as np
import pytest
import torch

from featcache.manifest import Clip, Manifest
from featcache.store import StoreWriter, _format
from heads.methods import source_only
from heads.nets import adapter
from pipelines.config import Feed, Optim, RunConfig

torch.set_num_threads(1)  # tensors are tiny here, and threads that wait for each other are not

CLASSES = ("chop", "peel", "stir")
STORES = {"hog": ("rgb", 8, 5.0), "hof": ("flow", 6, 0.5)}  # name -> modality, size, scale


def manifest(domains=("day", "night"), train=4, test=2, labels=None):
    """`train` + `test` clips per domain and class; `labels(domain, split, name)` may say something else."""
    labels = labels or (lambda domain, split, name: {"label": name})
    clips = [
        Clip(f"{d}_{name}_{split}{k}", d, split, f"{d}/{name}{split}{k}.mp4", labels=labels(d, split, name))
        for d in domains
        for split, count in (("train", train), ("test", test))
        for name in CLASSES
        for k in range(count)
    ]
    return Manifest("toy", tuple(clips))


def write_store(folder, clips, name, *, windows=3, seed=0, states=None, weights="none", stop_after=None, facts=None):
    """Features: a mean per class, a shift per domain, noise. `states`: row -> "failed" or "absent"."""
    modality, size, scale = STORES.get(name, (name, 5, 1.0))
    rng = np.random.default_rng(seed)
    means = {c: rng.normal(size=size) for c in CLASSES}
    shifts = {d: 0.7 * rng.normal(size=size) for d in clips.domains}
    recipe = {"extractor": name, "version": 1, "modality": modality, "weights_sha256": weights, "dtype": "float32"}
    with StoreWriter.open(
        folder / f"{name}.zarr", clips, recipe, row_shape=(size,), windows=windows, facts=facts or {}
    ) as writer:
        for row, clip in enumerate(clips):
            what = clip.clip_id.split("_")[1]
            x = scale * (means[what] + shifts[clip.domain] + 0.3 * rng.normal(size=(windows, size)))
            if stop_after is not None and row >= stop_after:
                break
            if (states or {}).get(row) == "absent":
                writer.absent(row, "no sound")
            elif (states or {}).get(row) == "failed":
                writer.failed(row, "moov atom not found")
            else:
                writer.done(row, x.astype(np.float32), np.arange(windows), np.arange(windows) + 1.0)


def write_all(stores, clips=None, **options):
    """STORES/toy with its manifest and both stores; returns the folder of all stores."""
    clips = clips or manifest()
    folder = stores / clips.name
    clips.write(folder / "manifest.csv")
    for name in STORES:
        write_store(folder, clips, name, **options)
    return stores


def run(**changes):
    """A quick source-only run from day to night on both stores."""
    plain = RunConfig(
        manifest="toy",
        method=source_only.Params(),
        net=adapter.Params(dim=8),
        feeds={"rgb": Feed("hog"), "flow": Feed("hof")},
        row="source-only",
        source=("day",),
        test="night",
        steps=12,
        epoch="source",
        batch=(6, 6),
        optim=Optim(lr=0.05, clip_norm=5.0),
    )
    return dataclasses.replace(plain, **changes)


@contextlib.contextmanager
def small_blocks():
    """Stores that are written here have blocks of 4 rows and chunks of 1; yields the patch, for further changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_format.Layout, "block_rows", 4)
        patch.setattr(_format.Layout, "chunk_rows", 1)
        yield patch
