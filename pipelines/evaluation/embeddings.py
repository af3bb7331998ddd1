"""Embeddings of two domains: the pairs of a run, their A-distance, and a picture by t-SNE.

Shapes: n pairs or rows of one domain, M entries of an embedding.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ConfigError
from heads.methods import Method
from pipelines.data.opening import Opened
from pipelines.training.outputs import outputs
from pipelines.training.runs import Run

MOST = 2000  #: largest number of rows per domain for the A-distance
LEAST = 20  #: smallest number of rows per domain: each of 5 folds of a half then has some of both domains
CS = (0.1, 1.0, 10.0, 100.0)  #: values of C among which the folds choose

ITERATIONS = 500  #: of t-SNE: for up to 600 rows the divergence is within some per cent of that after 1000

Rows = NDArray[np.floating]


@dataclass(frozen=True)
class Pairs:
    """The clips of one domain that have a caption, each with its first caption."""

    visual: Rows  #: E_v (n, M)
    text: Rows  #: E_l (n, M)


def pairs(method: Method, opened: Opened, *domains: str, most: int | None = None) -> Pairs:
    """Embeddings of the test rows of these domains (default: the run's test domain), and of one caption of each.

    most: embed only so many rows, drawn at random with the run's seed. Captions of a target are read, so use this only
    to report on trained methods. ConfigError if there are no rows or no captions.
    """
    if not opened.captions:
        raise ConfigError(
            f"run {opened.config.id} is a {opened.config.task.name} run; only clips with captions make pairs"
        )
    chosen = opened.check_test(*domains)
    if most is not None and most < len(chosen):
        chosen = np.sort(np.random.default_rng(opened.config.seed).permutation(chosen)[:most]).tolist()
    rows = opened.load("test", chosen)
    assert rows.captions is not None  # every side of a retrieval run has captions, except the target
    embeddings = outputs(method, rows, opened)
    clips, first = np.unique(rows.captions.row.numpy(), return_index=True)
    return Pairs(embeddings["visual"][clips], embeddings["text"][first])


def kept_pairs(run: Run) -> Pairs:
    """The same of the run's test domain, as the run keeps them at its last kept point."""
    visual, text, clip = (run.outputs[name] for name in ("visual", "text", "clip"))
    clips, first = np.unique(clip, return_index=True)
    return Pairs(visual[-1][clips], text[-1][first])


def a_distances(method: Method, opened: Opened) -> dict[str, float]:
    """`a_distance/joint`, of E_v and E_l concatenated, and `a_distance/video`, of E_v: source against target test rows.

    ConfigError if the run has no source, or if a side has too few pairs.
    """
    config, by_side = opened.config, {}
    if not config.source:
        raise ConfigError(f"run {config.id} has no source, so it has no A-distance between source and target")
    for side, domains in {"source": config.source, "target": (config.test,)}.items():
        try:
            by_side[side] = pairs(method, opened, *domains)
            _check_count(len(by_side[side].visual))
        except ConfigError as error:
            rows = f"{side} {'+'.join(domains)}, split {config.test_split}"
            raise ConfigError(f"no A-distance of run {config.id}: {rows}: {error}") from error
    source, target = by_side.values()
    joint = (np.concatenate([embedded.visual, embedded.text], 1) for embedded in (source, target))
    return {
        "a_distance/joint": a_distance(*joint, seed=config.seed),
        "a_distance/video": a_distance(source.visual, target.visual, seed=config.seed),
    }


def a_distance(source: Rows, target: Rows, *, seed: int = 0) -> float:
    """d_A = 2(1 - 2θ) [Ben-David et al. 2007], θ the held-out error of a kernel SVM that separates the domains.

    About 0 if the SVM cannot separate them, 2 if it always can; chance can make it negative. source (n, M) and target
    (n', M) are cut to the same number of rows, at most MOST. Half of the rows train the SVM, and five folds of them
    choose C [Liu et al. 2021, Sec. 4.4; the paper names no kernel: here RBF, γ = 1 / (M · variance)]. ConfigError for
    fewer than LEAST rows of a domain.
    """
    from sklearn.metrics.pairwise import rbf_kernel
    from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
    from sklearn.svm import SVC

    count = min(len(source), len(target), MOST)
    _check_count(count)
    rng = np.random.default_rng(seed)
    x = np.concatenate([rows[rng.permutation(len(rows))[:count]] for rows in (source, target)]).astype(np.float64)
    y = np.repeat([0, 1], count)
    train, test = train_test_split(np.arange(2 * count), test_size=0.5, stratify=y, random_state=seed)
    kernel = rbf_kernel(x, x[train], gamma=1 / (x.shape[1] * x[train].var() or 1.0))  # once: an SVC has no BLAS
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    svm = GridSearchCV(SVC(kernel="precomputed"), {"C": CS}, cv=folds).fit(kernel[train], y[train])
    return float(2 * (1 - 2 * np.mean(svm.predict(kernel[test]) != y[test])))


def _check_count(rows: int) -> None:
    if rows < LEAST:
        raise ConfigError(f"A-distance needs {LEAST} rows of each domain; one has {rows}")


def tsne(x: Rows, *, seed: int = 0) -> NDArray[np.float64]:
    """t-SNE [van der Maaten & Hinton 2008] by cosine (n, M) -> (n, 2), deterministic.

    ConfigError below 5 rows, and where all rows are equal: scikit-learn then divides by zero, and crashes.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if len(x) < 5:
        raise ConfigError(f"t-SNE needs at least 5 rows, not {len(x)}")
    if not np.ptp(x, axis=0).max() > 1e-6 * np.abs(x).max():  # true for NaN too
        raise ConfigError(f"all {len(x)} rows are equal (or NaN), so t-SNE has nothing to place")
    with threadpool_limits(1):  # several threads would sum in a different order each time
        settings = {"perplexity": perplexity(len(x)), "max_iter": ITERATIONS, "metric": "cosine"}
        settings["init"] = "pca" if x.shape[1] > 1 else "random"  # one entry has no two principal components
        points = TSNE(2, **settings, random_state=seed).fit_transform(x)
    return np.asarray(points, np.float64)


def budget(maps: int, *, most: int, total: int) -> int:
    """The number of points on each of several maps: at most `most`, and `total` on all maps together.

    t-SNE takes about a millisecond for each point.
    """
    return min(most, total // max(maps, 1))


def perplexity(n: int) -> float:
    """The perplexity of `tsne` for n rows: about the number of neighbours that each row is placed by."""
    return min(30.0, (n - 1) / 3)
