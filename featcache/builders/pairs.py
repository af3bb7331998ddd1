"""Generated features of clips and captions for retrieval; each target domain differs from the source in one known way.

There are no videos: `folder/pairs.npz` has rows of the experts `object`, `action` and `scene`,
`folder/pairs_captions.npz` has rows of the captions, and `pairs.csv` and `pairs_captions.csv` are the manifests.
`featcache import npz` makes the stores. Clip i has a topic y_ie for each expert e, and its own details:

    c_ie = s_e e_y + n_ie                            content, which the clip shows and captions describe
    x_iet = Q_e (c_ie + n_iet / 2)                   window t of expert e
    l_ij = Q [a_ij1 c_i1; a_ij2 c_i2; a_ij3 c_i3; style] + n_ij / 4
                                                     caption j, which describes some experts: a is 0 or 1
    all n ~ N(0, I), those of details times 0.7

Topics are not equally frequent. A target domain is drawn separately, and changed in one way before Q is applied.
`data_manifests/pairs.md` is the dataset card. Shapes: N clips, C captions, T windows, D entries, K topics.
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

K, T, D, STYLE = 6, 2, 12, 4
APART = {"object": 2.5, "action": 2.0, "scene": 2.0}  #: s, the distance of topics from the origin
WORDS = {
    "object": ("a cat", "a dog", "a man", "a girl", "a car", "a robot"),
    "action": ("jumps", "sings", "turns", "waits", "falls", "shines"),
    "scene": ("at home", "in a park", "in a street", "by the sea", "on stage", "in snow"),
}  #: words for the topics
CAPTIONS = (2, 5)  #: smallest and largest number per clip
SPOKEN = 0.8  #: share of captions that describe an expert
SHOWN = 0.9  #: share of clips that have a scene; all clips have the other experts
ROWS = {"train": 300, "test": 200}  #: number of clips per domain
AXES = np.eye(D)  #: AXES[:K] are the axes of the topics


@dataclass
class Domain:
    """Clips and captions before the rotations. A shift changes them in place."""

    topic: dict[str, NDArray[np.int64]]  #: expert -> (N,) topic that the clip shows
    named: dict[str, NDArray[np.int64]]  #: expert -> (N,) topic that the captions name
    shown: dict[str, NDArray[np.float64]]  #: expert -> (N, D) content of the clips
    has: dict[str, NDArray[np.bool_]]  #: expert -> (N,) whether the clip has it
    clip_of: NDArray[np.int64]  #: (C,) index of each caption's clip, in order
    described: dict[str, NDArray[np.float64]]  #: expert -> (C, D) content of the captions
    speaks: dict[str, NDArray[np.bool_]]  #: expert -> (C,) whether the caption describes it
    style: NDArray[np.float64]  #: (C, STYLE) style of each caption


def none(d: Domain) -> None:
    """Change nothing: a method can gain nothing here, but lose accuracy."""


def mean(d: Domain) -> None:
    """Move all clips in the same direction: towards the first topic, away from the last."""
    for m, s in APART.items():
        d.shown[m] += 0.75 * s * (AXES[0] - AXES[K - 1])


def rotation(d: Domain) -> None:
    """Rotate the content of clips by 60 degrees: each topic's axis towards an axis without a topic."""
    c, s = np.cos(np.pi / 3), np.sin(np.pi / 3)
    turn = np.block([[c * np.eye(K), s * np.eye(K)], [-s * np.eye(K), c * np.eye(K)]])
    for m in APART:
        d.shown[m] = d.shown[m] @ turn


def topics(d: Domain) -> None:
    """Make rare topics frequent and frequent topics rare, in clips and captions."""
    for m, s in APART.items():
        moved = s * (AXES[K - 1 - d.topic[m]] - AXES[d.topic[m]])
        d.shown[m] += moved
        d.described[m] += moved[d.clip_of]
        d.topic[m] = d.named[m] = K - 1 - d.topic[m]


def style(d: Domain) -> None:
    """Give captions another style; only the captions show it."""
    d.style *= -1


def swapped(d: Domain) -> None:
    """Let captions name each topic like its neighbour; only captions show it, so no method without them can help."""
    for m, s in APART.items():
        d.named[m] = d.topic[m] ^ 1
        d.described[m] += (s * (AXES[d.named[m]] - AXES[d.topic[m]]))[d.clip_of]


SHIFTS: dict[str, Callable[[Domain], None]] = {
    shift.__name__: shift for shift in (none, mean, rotation, topics, style, swapped)
}  #: target domain -> its shift


def draw(domain: str, split: str, seed: int = 0) -> Domain:
    """Draw the clips and captions of a domain ("source" or one of SHIFTS) and split, before rotations and noise."""
    n, rng = ROWS[split], np.random.default_rng([seed, *f"pairs {domain} {split}".encode()])
    weight = 1 / np.arange(1, K + 1)
    topic = {m: rng.choice(K, n, p=weight / weight.sum()) for m in APART}
    content = {m: s * AXES[topic[m]] + 0.7 * rng.standard_normal((n, D)) for m, s in APART.items()}
    clip_of = np.repeat(np.arange(n), rng.integers(CAPTIONS[0], CAPTIONS[1] + 1, n))
    speaks = {m: rng.random(len(clip_of)) < SPOKEN for m in APART}
    speaks["object"] |= ~speaks["action"] & ~speaks["scene"]  # a caption describes at least one expert
    has = {m: rng.random(n) < (SHOWN if m == "scene" else 1) for m in APART}
    described = {m: c[clip_of] for m, c in content.items()}
    plain = np.tile(2.0 * np.eye(STYLE)[0], (len(clip_of), 1))
    drawn = Domain(topic, dict(topic), content, has, clip_of, described, speaks, plain)
    if domain != "source":
        SHIFTS[domain](drawn)
    return drawn


def features(
    d: Domain, domain: str, split: str, seed: int = 0
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
    """The rows of the experts, (N, T, D) each, and of the captions, (C, 3 D + STYLE)."""
    rng = np.random.default_rng([seed, *f"pairs noise {domain} {split}".encode()])
    x = {m: c[:, None] + rng.standard_normal((len(c), T, D)) / 2 for m, c in d.shown.items()}
    parts = [d.described[m] * d.speaks[m][:, None] for m in APART]
    captions = np.concatenate([*parts, d.style], 1) @ turned("sentence", 3 * D + STYLE, seed).T
    rows = {m: (v @ turned(m, D, seed).T).astype(np.float32) for m, v in x.items()}
    return rows, (captions + rng.standard_normal(captions.shape) / 4).astype(np.float32)


def turned(m: str, size: int, seed: int = 0) -> NDArray[np.float64]:
    """The rotation Q of an expert or of the captions, (size, size)."""
    Q: NDArray[np.float64] = np.linalg.qr(np.random.default_rng([seed, *m.encode()]).standard_normal((size, size))).Q
    return Q


def sentences(d: Domain) -> list[str]:
    """The captions as text, from the topics that they describe: `a cat jumps at home`."""
    return [" ".join(WORDS[m][d.named[m][i]] for m in APART if d.speaks[m][c]) for c, i in enumerate(d.clip_of)]


def build(
    folder: str | os.PathLike[str],
    *,
    progress: Progress = silent,
    seed: int = 0,
) -> Manifest:
    """Write `pairs.npz`, `pairs_captions.npz`, `pairs.csv` and `pairs_captions.csv`; return the manifest of the clips.

    The arrays: `object`, `action`, `scene` (clips, T, D), `sentence` (captions, 3 D + STYLE), all float32, and the ids
    of their rows. `progress(done, total)` counts clips.
    """
    folder = Path(folder)
    parts = [(domain, split) for domain in ("source", *SHIFTS) for split in ROWS]
    total = sum(ROWS[split] for _, split in parts)
    clips: list[Clip] = []
    captions: list[Clip] = []
    rows: dict[str, list[NDArray[np.float32]]] = {m: [] for m in (*APART, "sentence")}
    ids: dict[str, list[str]] = {m: [] for m in APART}
    for domain, split in parts:
        progress(len(clips), total)
        drawn = draw(domain, split, seed)
        names = [f"{domain}_{split}_{i:03d}" for i in range(ROWS[split])]
        clips += [Clip(name, domain, split, "pairs.npz") for name in names]
        first = np.searchsorted(drawn.clip_of, drawn.clip_of)  # a clip's captions are adjacent
        for c, (i, text) in enumerate(zip(drawn.clip_of.tolist(), sentences(drawn), strict=True)):
            name = f"{names[i]}#{c - first[c]}"
            captions.append(Clip(name, domain, split, "pairs_captions.npz", caption=text, of=names[i]))
        x, sentence_rows = features(drawn, domain, split, seed)
        rows["sentence"].append(sentence_rows)
        for m, has in drawn.has.items():
            rows[m].append(x[m][has])
            ids[m] += [names[i] for i in np.flatnonzero(has)]
    experts = {m: np.concatenate(rows[m]) for m in APART} | {f"{m}.clip_id": np.array(ids[m]) for m in APART}
    texts = {"sentence": np.concatenate(rows["sentence"]), "clip_id": np.array([c.clip_id for c in captions])}
    manifest = Manifest("pairs", tuple(clips), folder)
    try:
        for name, arrays in (("pairs", experts), ("pairs_captions", texts)):
            with replacing(folder / f"{name}.npz") as scratch, scratch.open("wb") as file:
                np.savez(file, **arrays)
        manifest.write(folder / "pairs.csv")
        Manifest("pairs_captions", tuple(captions), folder).write(folder / "pairs_captions.csv")
    except OSError as error:
        raise FeatcacheError(f"cannot write pairs to {error.filename or folder}: {error.strerror or error}") from error
    progress(total, total)
    return manifest
