"""Clusters of a whole side: pseudo-labels by centroids of classes or by sets of prototypes, and k-means.

Sources: [SHOT: Liang et al. 2020, Sec. 3.3]; [MTRAN, Sec. 3.3.2]; [SFDA: Kim et al. 2021]; [Lloyd 1982]; [k-means++:
Arthur & Vassilvitskii 2007]; [spherical k-means: Dhillon & Modha 2001].

Shapes: N rows of a whole side, D features, K classes or clusters.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot, pad

from heads.losses.entropy import entropy

BLOCK = 8192  # rows whose distances to all centroids are in memory at the same time


def centroid_labels(p_NK: Tensor, f_ND: Tensor) -> Tensor:
    """Class of the nearest centroid, by cosine -> (N,) int64. Centroids are means of the rows f, weighted by p.

    p: probabilities, or one-hot labels for centroids of labelled rows. A class without any weight is nobody's label.

    >>> p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9]])
    >>> f = torch.tensor([[1.0, 0.0], [0.3, 1.0], [0.0, 1.0]])
    >>> centroid_labels(p, f)   # the second row is said to be of class 0, and lies with class 1
    tensor([0, 1, 1])
    """
    centroids_KD = p_NK.T @ f_ND  # not divided by the sum of p: cosines do not see it
    cosine_NK = normalize(f_ND, dim=1) @ normalize(centroids_KD, dim=1).T
    return cosine_NK.masked_fill(p_NK.sum(0) == 0, -torch.inf).argmax(1)


def shot_labels(p_NK: Tensor, f_ND: Tensor) -> Tensor:
    """SHOT's two rounds -> (N,) int64: centroids weighted by p, then means of the rows that these have labelled.

    Rows are [f; 1] at length 1. A class that no row is predicted as is nobody's label (SHOT's code; not in the paper).

    >>> p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9]])
    >>> f = torch.tensor([[1.0, 0.0], [0.3, 1.0], [0.0, 1.0]])
    >>> shot_labels(p, f)
    tensor([0, 1, 1])
    """
    K = p_NK.shape[1]
    f_ND = normalize(pad(f_ND, (0, 1), value=1.0), dim=1)
    predicted_K = one_hot(p_NK.argmax(1), K).any(0)
    y_N = centroid_labels(p_NK * predicted_K, f_ND)
    return centroid_labels(one_hot(y_N, K).to(f_ND), f_ND)


def prototype_labels(p_NK: Tensor, f_ND: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """SFDA's labels (N,) int64, and whether they count (N,) bool, for two classes or more.

    Prototypes of a class are the rows predicted as it with H(p) <= η, at most `most`, the surest first. η is the
    largest of the classes' least H, so that each has a prototype; a class that is never predicted borrows the row of
    its largest p.

    The label is the class of the largest mean cosine to its prototypes. It counts where the farthest prototype of that
    class is nearer than the nearest one of the second-best class.

    >>> p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9]])
    >>> f = torch.tensor([[1.0, 0.0], [0.3, 1.0], [0.0, 1.0]])
    >>> prototype_labels(p, f, 100)   # prototypes: the first row, and the last
    (tensor([0, 1, 1]), tensor([True, True, True]))
    """
    H_N, said_N, f_ND = entropy(p_NK), p_NK.argmax(1), normalize(f_ND, dim=1)
    members = [torch.nonzero(said_N == k).squeeze(1) for k in range(p_NK.shape[1])]
    eta = torch.stack([H_N[rows].min() for rows in members if len(rows)]).max()
    mean, least, largest = [], [], []
    for k, rows in enumerate(members):
        surest = rows[H_N[rows].argsort(stable=True)]
        chosen = surest[H_N[surest] <= eta][:most] if len(rows) else p_NK[:, k].argmax()[None]
        cosine_NP = f_ND @ f_ND[chosen].T
        mean.append(cosine_NP.mean(1))
        least.append(cosine_NP.amin(1))
        largest.append(cosine_NP.amax(1))
    first_N1, second_N1 = torch.stack(mean, 1).topk(2).indices.split(1, 1)
    counts_N1 = torch.stack(least, 1).gather(1, first_N1) > torch.stack(largest, 1).gather(1, second_N1)
    return first_N1.squeeze(1), counts_N1.squeeze(1)


def kmeans(x_ND: Tensor, k: int, seed: int, restarts: int = 5, iterations: int = 100) -> Tensor:
    """Centroids (K, D) of least inertia, the sum of squared distances to the nearest one, out of several starts.

    Each start is k-means++: rows that are drawn in proportion to their squared distance from those drawn before. Equal
    seeds give equal centroids (on a GPU up to rounding); torch's global stream is left alone.

    Raises ValueError where there are fewer rows than clusters.

    >>> kmeans(torch.tensor([[0.0], [2.0], [10.0], [12.0]]), 2, seed=0).sort(0).values.squeeze(1)
    tensor([ 1., 11.])
    """
    mean_D = x_ND.mean(0)  # squared distances are differences of squared lengths: less is lost near the origin
    return best_lloyd(x_ND - mean_D, k, seed, restarts, iterations) + mean_D


def spherical_kmeans(x_ND: Tensor, k: int, seed: int, restarts: int = 5, iterations: int = 100) -> Tensor:
    """Centroids (K, D) of length 1 of the largest Σ_n max_k cos(x_n, c_k) found, out of several starts as of `kmeans`.

    A cluster whose rows, at length 1, sum to 0 has the centroid 0.

    >>> x = torch.tensor([[1.0, 0.0], [5.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    >>> spherical_kmeans(x, 2, seed=0).sort(0).values
    tensor([[0., 0.],
            [1., 1.]])
    """
    return best_lloyd(normalize(x_ND), k, seed, restarts, iterations, normalize)


def best_lloyd(
    x_ND: Tensor,
    k: int,
    seed: int,
    restarts: int,
    iterations: int,
    project: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Centroids (K, D) of least inertia out of several starts of k-means++."""
    if not 0 < k <= len(x_ND):
        raise ValueError(f"{len(x_ND)} rows cannot be parted into {k} clusters; ask for 1 to {len(x_ND)}")
    generator = torch.Generator().manual_seed(seed)
    starts = [spread_start(x_ND, k, generator) for _ in range(restarts)]
    found = [lloyd(x_ND, start_KD, iterations, project) for start_KD in starts]
    return min(found, key=lambda pair: pair[1])[0]


def lloyd(
    x_ND: Tensor, centroids_KD: Tensor, iterations: int, project: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, float]:
    """Centroids (K, D) from this start, and their inertia; stops early where no row changes its cluster.

    An empty cluster moves to the row that lies farthest from its own centroid, several of them to several rows.
    project: what is done to the means; brought to length 1, they are the best centroids of length 1 for such rows.
    """
    labels_N, square_N = nearest(x_ND, centroids_KD)
    for _ in range(iterations):
        before_N = labels_N
        count_K = labels_N.bincount(minlength=len(centroids_KD))
        if len(empty := torch.nonzero(count_K == 0).squeeze(1)):
            labels_N = labels_N.index_copy(0, square_N.topk(len(empty)).indices, empty)
            count_K = labels_N.bincount(minlength=len(centroids_KD))
        sums_KD = torch.zeros_like(centroids_KD).index_add_(0, labels_N, x_ND)
        # where all rows lie on centroids, a cluster may have given its only row away: it stays
        centroids_KD = torch.where(count_K[:, None] > 0, sums_KD / count_K.clamp_min(1)[:, None], centroids_KD)
        if project is not None:
            centroids_KD = project(centroids_KD)
        labels_N, square_N = nearest(x_ND, centroids_KD)
        if torch.equal(labels_N, before_N):
            break
    return centroids_KD, square_N.sum(dtype=torch.float64).item()


def nearest(x_ND: Tensor, centroids_KD: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centroid of each row (N,) int64, and the squared distance from it (N,)."""
    length_K = centroids_KD.square().sum(1)
    labels = [(length_K - 2 * rows @ centroids_KD.T).argmin(1) for rows in x_ND.split(BLOCK)]
    squares = [(x - centroids_KD[y]).square().sum(1) for x, y in zip(x_ND.split(BLOCK), labels, strict=True)]
    return torch.cat(labels), torch.cat(squares)


def spread_start(x_ND: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """The start of k-means++ -> (K, D)."""
    chosen = [int(torch.randint(len(x_ND), (), generator=generator))]
    square_N = torch.full_like(x_ND[:, 0], torch.inf)
    while len(chosen) < k:
        square_N = square_N.minimum((x_ND - x_ND[chosen[-1]]).square().sum(1))
        upto_N = square_N.cumsum(0, dtype=torch.float64)
        at = torch.rand((), generator=generator, dtype=torch.float64).to(upto_N.device) * upto_N[-1]
        chosen.append(min(int(torch.searchsorted(upto_N, at, right=True)), len(x_ND) - 1))
    return x_ND[chosen]
