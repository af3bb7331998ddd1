"""What embeddings of two domains look like: the pairs of a run, their A-distance, and a picture by t-SNE.

Shapes: n pairs or rows of one domain, M entries of an embedding.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ConfigError
from heads.methods import Method
from pipelines.data.opening import Opened
from pipelines.training.outputs import outputs

MOST = 2000  #: rows of a domain that A-distance looks at
LEAST = 20  #: so that each of 5 folds of a half has some of both domains
CS = (0.1, 1.0, 10.0, 100.0)

Rows = NDArray[np.floating]


@dataclass(frozen=True)
class Pairs:
    """The clips of one domain that have a caption, each with its first one."""

    visual: Rows  #: E_v (n, M)
    text: Rows  #: E_l (n, M)


def pairs(method: Method, opened: Opened, *domains: str) -> Pairs:
    """Embeddings of the test rows of these domains (default: the run's test domain), and of a caption of each.

    Captions of a target are read here, so this is for reports of trained methods alone. ConfigError where there is no
    row, or no caption.
    """
    if not opened.captions:
        raise ConfigError(
            f"run {opened.config.id} is a {opened.config.task.name} run; only clips with captions make pairs"
        )
    rows = opened.test(*domains)
    assert rows.captions is not None  # a side of retrieval has some, unless it is the target's
    said = outputs(method, rows, opened)
    clips, first = np.unique(rows.captions.row.numpy(), return_index=True)
    return Pairs(said["visual"][clips], said["text"][first])


def a_distances(method: Method, opened: Opened) -> dict[str, float]:
    """`a_distance/joint`, of E_v and E_l side by side, and `a_distance/video`, of E_v: source against target test rows.

    ConfigError where the run has no source, or a side too few pairs.
    """
    config, found = opened.config, {}
    if not config.source:
        raise ConfigError(f"run {config.id} names no source, so there is no distance to it")
    for side, domains in {"source": config.source, "target": (config.test,)}.items():
        try:
            found[side] = pairs(method, opened, *domains)
            _check_count(len(found[side].visual))
        except ConfigError as error:
            where = f"{side} {'+'.join(domains)}, split {config.test_split}"
            raise ConfigError(f"no A-distance of run {config.id}: {where}: {error}") from error
    source, target = found.values()
    joint = (np.concatenate([of.visual, of.text], 1) for of in (source, target))
    return {
        "a_distance/joint": a_distance(*joint, seed=config.seed),
        "a_distance/video": a_distance(source.visual, target.visual, seed=config.seed),
    }


def a_distance(source: Rows, target: Rows, *, seed: int = 0) -> float:
    """d_A = 2(1 - 2θ) [Ben-David et al. 2007], θ the held-out error of a kernel SVM that tells the domains apart.

    About 0 where it cannot, 2 where it always can; by chance below 0. source (n, M), target (n', M): as many of each,
    at most MOST, half of them to train on, C by five folds of these [Liu et al. 2021, Sec. 4.4, which names no kernel:
    RBF, γ = 1 / (M · variance)]. ConfigError for fewer than LEAST rows of a domain.
    """
    from sklearn.metrics.pairwise import rbf_kernel
    from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
    from sklearn.svm import SVC

    count = min(len(source), len(target), MOST)
    _check_count(count)
    rng = np.random.default_rng(seed)
    x = np.concatenate([of[rng.permutation(len(of))[:count]] for of in (source, target)]).astype(np.float64)
    y = np.repeat([0, 1], count)
    train, test = train_test_split(np.arange(2 * count), test_size=0.5, stratify=y, random_state=seed)
    kernel = rbf_kernel(x, x[train], gamma=1 / (x.shape[1] * x[train].var() or 1.0))  # once: an SVC has no BLAS
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    svm = GridSearchCV(SVC(kernel="precomputed"), {"C": CS}, cv=folds).fit(kernel[train], y[train])
    return float(2 * (1 - 2 * np.mean(svm.predict(kernel[test]) != y[test])))


def _check_count(rows: int) -> None:
    if rows < LEAST:
        raise ConfigError(f"A-distance needs {LEAST} rows of each domain, and has {rows} of one")


def tsne(x: Rows, *, seed: int = 0) -> NDArray[np.float64]:
    """t-SNE [van der Maaten & Hinton 2008] by cosine (n, M) -> (n, 2), the same each time; ConfigError below 5 rows."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if len(x) < 5:
        raise ConfigError(f"t-SNE needs 5 rows, and has {len(x)}")
    perplexity = min(30.0, (len(x) - 1) / 3)
    with threadpool_limits(1):  # threads add up in another order each time
        placed = TSNE(2, perplexity=perplexity, metric="cosine", init="pca", random_state=seed).fit_transform(x)
    return np.asarray(placed, np.float64)
