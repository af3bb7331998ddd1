"""Generated clips with captions, in domains that differ from the source in one known way each: retrieval's `shifts`.

No videos: `folder/pairs.npz` has rows of the experts `object`, `action` and `scene`, `folder/pairs_captions.npz` rows
of the captions, `pairs.csv` and `pairs_captions.csv` name them, and `featcache import npz` makes stores of all. Clip i
has a topic y_ie for each expert e, and details of its own:

    c_ie = s_e e_y + n_ie                            content: what is shown, and what captions speak of
    x_iet = Q_e (c_ie + n_iet / 2)                   window t of expert e
    l_ij = Q [a_ij1 c_i1; a_ij2 c_i2; a_ij3 c_i3; style] + n_ij / 4
                                                     caption j, which speaks of some experts: a is 0 or 1
    all n ~ N(0, I), those of details times 0.7

Topics are not equally frequent. A target domain is drawn anew, and changed in one way before Q is applied.
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
APART = {"object": 2.5, "action": 2.0, "scene": 2.0}  #: s; how far topics lie apart
WORDS = {
    "object": ("a cat", "a dog", "a man", "a girl", "a car", "a robot"),
    "action": ("jumps", "sings", "turns", "waits", "falls", "shines"),
    "scene": ("at home", "in a park", "in a street", "by the sea", "on stage", "in snow"),
}  #: of the topics
CAPTIONS = (2, 5)  #: fewest and most of a clip
SPOKEN = 0.8  #: share of captions that speak of an expert
SHOWN = 0.9  #: share of clips that have a scene; the other experts are always there
ROWS = {"train": 300, "test": 200}  #: clips of a domain
AXES = np.eye(D)  #: AXES[:K] are those of the topics


@dataclass
class Domain:
    """Clips and captions before the rotations. A shift changes them in place."""

    topic: dict[str, NDArray[np.int64]]  #: expert -> (N,), as clips show it
    named: dict[str, NDArray[np.int64]]  #: expert -> (N,), as captions call it
    shown: dict[str, NDArray[np.float64]]  #: expert -> (N, D), content as clips have it
    has: dict[str, NDArray[np.bool_]]  #: expert -> (N,)
    of: NDArray[np.int64]  #: (C,) clip of each caption, in order
    told: dict[str, NDArray[np.float64]]  #: expert -> (C, D), content as captions have it
    speaks: dict[str, NDArray[np.bool_]]  #: expert -> (C,) whether a caption speaks of it
    style: NDArray[np.float64]  #: (C, STYLE)


def none(d: Domain) -> None:
    """No shift: nothing to gain, and something to lose."""


def mean(d: Domain) -> None:
    """All clips look moved alike: towards the first topic, away from the last."""
    for m, s in APART.items():
        d.shown[m] += 0.75 * s * (AXES[0] - AXES[K - 1])


def rotation(d: Domain) -> None:
    """What clips show is turned by 60 degrees: each topic's axis towards one that had no topic."""
    c, s = np.cos(np.pi / 3), np.sin(np.pi / 3)
    turn = np.block([[c * np.eye(K), s * np.eye(K)], [-s * np.eye(K), c * np.eye(K)]])
    for m in APART:
        d.shown[m] = d.shown[m] @ turn


def topics(d: Domain) -> None:
    """Rare topics are frequent, and frequent ones rare; clips and captions say so."""
    for m, s in APART.items():
        moved = s * (AXES[K - 1 - d.topic[m]] - AXES[d.topic[m]])
        d.shown[m] += moved
        d.told[m] += moved[d.of]
        d.topic[m] = d.named[m] = K - 1 - d.topic[m]


def style(d: Domain) -> None:
    """Captions are in another style, which only they themselves tell."""
    d.style *= -1


def swapped(d: Domain) -> None:
    """Captions call each topic by the name of its neighbour: no clip tells, and nothing without captions can help."""
    for m, s in APART.items():
        d.named[m] = d.topic[m] ^ 1
        d.told[m] += (s * (AXES[d.named[m]] - AXES[d.topic[m]]))[d.of]


SHIFTS: dict[str, Callable[[Domain], None]] = {
    shift.__name__: shift for shift in (none, mean, rotation, topics, style, swapped)
}  #: target domain -> its shift


def draw(domain: str, split: str, seed: int = 0) -> Domain:
    """The clips and captions of a domain ("source" or one of SHIFTS) and split, before rotations, noise and words."""
    n, rng = ROWS[split], np.random.default_rng([seed, *f"pairs {domain} {split}".encode()])
    often = 1 / np.arange(1, K + 1)
    topic = {m: rng.choice(K, n, p=often / often.sum()) for m in APART}
    content = {m: s * AXES[topic[m]] + 0.7 * rng.standard_normal((n, D)) for m, s in APART.items()}
    of = np.repeat(np.arange(n), rng.integers(CAPTIONS[0], CAPTIONS[1] + 1, n))
    speaks = {m: rng.random(len(of)) < SPOKEN for m in APART}
    speaks["object"] |= ~speaks["action"] & ~speaks["scene"]  # of something
    has = {m: rng.random(n) < (SHOWN if m == "scene" else 1) for m in APART}
    told = {m: c[of] for m, c in content.items()}
    plain = np.tile(2.0 * np.eye(STYLE)[0], (len(of), 1))
    drawn = Domain(topic, dict(topic), content, has, of, told, speaks, plain)
    if domain != "source":
        SHIFTS[domain](drawn)
    return drawn


def features(
    d: Domain, domain: str, split: str, seed: int = 0
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
    """Rows of the experts (N, T, D), and of the captions (C, 3 D + STYLE)."""
    rng = np.random.default_rng([seed, *f"pairs noise {domain} {split}".encode()])
    x = {m: c[:, None] + rng.standard_normal((len(c), T, D)) / 2 for m, c in d.shown.items()}
    parts = [d.told[m] * d.speaks[m][:, None] for m in APART]
    said = np.concatenate([*parts, d.style], 1) @ turned("sentence", 3 * D + STYLE, seed).T
    rows = {m: (v @ turned(m, D, seed).T).astype(np.float32) for m, v in x.items()}
    return rows, (said + rng.standard_normal(said.shape) / 4).astype(np.float32)


def turned(m: str, size: int, seed: int = 0) -> NDArray[np.float64]:
    """Q of an expert, or of the captions, (size, size)."""
    Q: NDArray[np.float64] = np.linalg.qr(np.random.default_rng([seed, *m.encode()]).standard_normal((size, size))).Q
    return Q


def sentences(d: Domain) -> list[str]:
    """The captions in words, of the topics that they speak of: `a cat jumps at home`."""
    return [" ".join(WORDS[m][d.named[m][i]] for m in APART if d.speaks[m][c]) for c, i in enumerate(d.of)]


def build(
    folder: str | os.PathLike[str],
    *,
    progress: Progress = silent,
    seed: int = 0,
) -> Manifest:
    """Write `pairs.npz`, `pairs_captions.npz`, `pairs.csv` and `pairs_captions.csv`; the clips' manifest is returned.

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
        first = np.searchsorted(drawn.of, drawn.of)  # a clip's captions follow each other
        for c, (i, text) in enumerate(zip(drawn.of.tolist(), sentences(drawn), strict=True)):
            name = f"{names[i]}#{c - first[c]}"
            captions.append(Clip(name, domain, split, "pairs_captions.npz", caption=text, of=names[i]))
        x, said = features(drawn, domain, split, seed)
        rows["sentence"].append(said)
        for m, has in drawn.has.items():
            rows[m].append(x[m][has])
            ids[m] += [names[i] for i in np.flatnonzero(has)]
    experts = {m: np.concatenate(rows[m]) for m in APART} | {f"{m}.clip_id": np.array(ids[m]) for m in APART}
    said_by = {"sentence": np.concatenate(rows["sentence"]), "clip_id": np.array([c.clip_id for c in captions])}
    manifest = Manifest("pairs", tuple(clips), folder)
    try:
        for name, arrays in (("pairs", experts), ("pairs_captions", said_by)):
            with replacing(folder / f"{name}.npz") as scratch, scratch.open("wb") as file:
                np.savez(file, **arrays)
        manifest.write(folder / "pairs.csv")
        Manifest("pairs_captions", tuple(captions), folder).write(folder / "pairs_captions.csv")
    except OSError as error:
        raise FeatcacheError(f"cannot write pairs to {folder}: {error.strerror or error}") from error
    progress(total, total)
    return manifest
