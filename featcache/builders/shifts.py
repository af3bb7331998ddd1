"""Generated features for testing methods; each target domain differs from the source in one known way.

There are no videos: `folder/shifts.npz` holds the rows of `rgb` and `flow`, `folder/shifts.csv` is the manifest, and
`featcache import npz` makes the stores. Window t of clip i of class y has, in each modality, the features

    x_it = Q (s e_y + n_i + n_it / 2),     n_i, n_it ~ N(0, I)

Each class has its own axis e_y at the distance s from the origin. Q is a rotation, so that no class and no shift is
along single entries. A target domain is drawn separately, and changed in one way before Q is applied.
`data_manifests/shifts.md` is the dataset card. Shapes: N clips, T windows, D entries, K classes.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.errors import FeatcacheError
from featcache.files import replacing
from featcache.manifest import Clip, Manifest
from featcache.progress import Progress, silent

K, T, D = 5, 3, 16
APART = {"rgb": 3.2, "flow": 1.7}  #: s; rgb separates the classes better than flow
ROWS = {"train": 200, "test": 400}  #: number of clips per target domain; the source has no test split
AXES = np.eye(D)  #: AXES[:K] are the axes of the classes


@dataclass
class Domain:
    """Clips before the rotation. A shift changes them in place."""

    y: NDArray[np.int64]  #: (N,) class
    x: dict[str, NDArray[np.float64]]  #: modality -> (N, T, D) features
    has: dict[str, NDArray[np.bool_]]  #: modality -> (N,) whether the clip has it


def none(d: Domain) -> None:
    """Change nothing: a method can gain nothing here, but lose accuracy."""


def mean(d: Domain) -> None:
    """Move all clips in the same direction: towards the first class, away from the last."""
    for m, s in APART.items():
        d.x[m] += 0.75 * s * (AXES[0] - AXES[K - 1])


def covariance(d: Domain) -> None:
    """Spread the axes without class information five times as much."""
    for x in d.x.values():
        x[..., K:] *= 5


def norm(d: Domain) -> None:
    """Make the weaker modality ten times as long, so that it dominates the other."""
    d.x["flow"] *= 10


def cluster(d: Domain) -> None:
    """Move each class separately: half-way back along its axis, and out along an axis that is noise in the source."""
    for m in APART:
        move_classes(d, m)


def missing(d: Domain) -> None:
    """Remove the stronger modality from seven of ten clips, and move the other as in `cluster`."""
    d.has["rgb"] = np.arange(len(d.y)) >= 0.7 * len(d.y)  # clips are in random order
    move_classes(d, "flow")


def swapped(d: Domain) -> None:
    """Swap the names of the first two classes; unlabelled clips do not show it."""
    d.y = np.where(d.y < 2, 1 - d.y, d.y)


def move_classes(d: Domain, m: str) -> None:
    """Move class k from s e_k to 0.45 s e_k + 2.5 e_(K+k), in one modality."""
    d.x[m] += (2.5 * AXES[K + d.y] - 0.55 * APART[m] * AXES[d.y])[:, None]


SHIFTS: dict[str, Callable[[Domain], None]] = {
    shift.__name__: shift for shift in (none, mean, covariance, norm, cluster, missing, swapped)
}  #: target domain -> its shift


def draw(domain: str, split: str, seed: int = 0) -> Domain:
    """Draw the rotated clips of a domain ("source" or one of SHIFTS) and split; classes are equally frequent."""
    n = ROWS[split]
    rng = np.random.default_rng([seed, *f"{domain} {split}".encode()])
    y = rng.permutation(np.arange(n) % K)
    x = {
        m: s * AXES[y][:, None] + rng.standard_normal((n, 1, D)) + rng.standard_normal((n, T, D)) / 2
        for m, s in APART.items()
    }
    drawn = Domain(y, x, {m: np.ones(n, bool) for m in x})
    if domain != "source":
        SHIFTS[domain](drawn)
    for m in x:
        drawn.x[m] = drawn.x[m] @ rotation(m, seed).T
    return drawn


def rotation(m: str, seed: int = 0) -> NDArray[np.float64]:
    """The rotation Q of a modality, (D, D)."""
    Q: NDArray[np.float64] = np.linalg.qr(np.random.default_rng([seed, *m.encode()]).standard_normal((D, D))).Q
    return Q


def build(
    folder: str | os.PathLike[str],
    *,
    progress: Progress = silent,
    seed: int = 0,
) -> Manifest:
    """Write `folder/shifts.npz` (`rgb`, `flow`: (clips, T, D) float32, and the ids of their clips) and `shifts.csv`.

    The array of a modality leaves out the clips that lack it. `progress(done, total)` counts clips.
    """
    folder = Path(folder)
    parts = [("source", "train"), *((shift, split) for shift in SHIFTS for split in ROWS)]
    total = sum(ROWS[split] for _, split in parts)
    clips: list[Clip] = []
    rows: dict[str, list[NDArray[np.float32]]] = {m: [] for m in APART}
    ids: dict[str, list[str]] = {m: [] for m in APART}
    for domain, split in parts:
        progress(len(clips), total)
        drawn = draw(domain, split, seed)
        names = [f"{domain}_{split}_{i:03d}" for i in range(len(drawn.y))]
        for name, y in zip(names, drawn.y.tolist(), strict=True):
            clips.append(Clip(name, domain, split, "shifts.npz", labels={"label": "abcde"[y]}))
        for m, has in drawn.has.items():
            rows[m].append(drawn.x[m][has].astype(np.float32))
            ids[m] += [names[i] for i in np.flatnonzero(has)]
    arrays = {m: np.concatenate(rows[m]) for m in APART} | {f"{m}.clip_id": np.array(ids[m]) for m in APART}
    manifest = Manifest("shifts", tuple(clips), folder)
    try:
        with replacing(folder / "shifts.npz") as scratch, scratch.open("wb") as file:
            np.savez(file, **arrays)
        manifest.write(folder / "shifts.csv")
    except OSError as error:
        raise FeatcacheError(f"cannot write shifts to {error.filename or folder}: {error.strerror or error}") from error
    progress(total, total)
    return manifest
