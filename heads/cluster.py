"""Clusters of a whole side: pseudo-labels from class centroids or from sets of prototypes, and k-means.

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
    """Return the class of the nearest centroid, by cosine -> (N,) int64. Centroids are means of f, weighted by p.

    p: probabilities, or one-hot labels for centroids of labelled rows. No row is labelled as a class without weight.

    >>> p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9]])
    >>> f = torch.tensor([[1.0, 0.0], [0.3, 1.0], [0.0, 1.0]])
    >>> centroid_labels(p, f)   # the second row is predicted as class 0, but is nearer to class 1
    tensor([0, 1, 1])
    """
    centroids_KD = p_NK.T @ f_ND  # not divided by the sum of p, which does not change a cosine
    cosine_NK = normalize(f_ND, dim=1) @ normalize(centroids_KD, dim=1).T
    return cosine_NK.masked_fill(p_NK.sum(0) == 0, -torch.inf).argmax(1)


def shot_labels(p_NK: Tensor, f_ND: Tensor) -> Tensor:
    """Return SHOT's labels after two rounds -> (N,) int64: centroids weighted by p, then means of the rows so labelled.

    Rows are [f; 1] at length 1. A class that is never predicted labels no row (SHOT's code; not in the paper).

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
    """Return SFDA's labels (N,) int64 and a mask (N,) bool of the labels that count, for two classes or more.

    The prototypes of a class are the rows predicted as it with H(p) <= η, at most `most`, the most certain first. η is
    the largest of the classes' least H, so that each class has a prototype. A class that is never predicted takes the
    row with its largest p.

    A row's label is the class with the largest mean cosine to its prototypes. The label counts if the farthest
    prototype of that class is nearer than the nearest prototype of the second-best class.

    >>> p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9]])
    >>> f = torch.tensor([[1.0, 0.0], [0.3, 1.0], [0.0, 1.0]])
    >>> prototype_labels(p, f, 100)   # prototypes: the first row, and the last
    (tensor([0, 1, 1]), tensor([True, True, True]))
    """
    H_N, predicted_N, f_ND = entropy(p_NK), p_NK.argmax(1), normalize(f_ND, dim=1)
    members = [torch.nonzero(predicted_N == k).squeeze(1) for k in range(p_NK.shape[1])]
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
    """Return the centroids (K, D) of least inertia out of several starts.

    The inertia is the sum of squared distances to the nearest centroid. Each start is k-means++: it draws rows in
    proportion to their squared distance from the rows drawn before. Equal seeds give equal centroids (on a GPU up to
    rounding). torch's global stream is not used.

    Raises ValueError if there are fewer rows than clusters.

    >>> kmeans(torch.tensor([[0.0], [2.0], [10.0], [12.0]]), 2, seed=0).sort(0).values.squeeze(1)
    tensor([ 1., 11.])
    """
    mean_D = x_ND.mean(0)  # squared distances are differences of squared lengths: less is lost near the origin
    return best_lloyd(x_ND - mean_D, k, seed, restarts, iterations) + mean_D


def spherical_kmeans(x_ND: Tensor, k: int, seed: int, restarts: int = 5, iterations: int = 100) -> Tensor:
    """Return centroids (K, D) of length 1 with the largest Σ_n max_k cos(x_n, c_k) out of several starts, as `kmeans`.

    If the rows of a cluster, at length 1, sum to 0, its centroid is 0.

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
    """Return the centroids (K, D) of least inertia out of several starts of k-means++."""
    if not 0 < k <= len(x_ND):
        raise ValueError(f"{len(x_ND)} rows cannot be divided into {k} clusters; choose 1 to {len(x_ND)}")
    generator = torch.Generator().manual_seed(seed)
    starts = [spread_start(x_ND, k, generator) for _ in range(restarts)]
    results = [lloyd(x_ND, start_KD, iterations, project) for start_KD in starts]
    return min(results, key=lambda result: result[1])[0]


def lloyd(
    x_ND: Tensor, centroids_KD: Tensor, iterations: int, project: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, float]:
    """Return the centroids (K, D) from this start, and their inertia; stop early when no row changes its cluster.

    An empty cluster moves to the row farthest from its own centroid; several empty clusters move to several rows.
    project: applied to the means. Scaled to length 1, the means are the best centroids of length 1 for such rows.
    """
    labels_N, square_N = nearest(x_ND, centroids_KD)
    for _ in range(iterations):
        before_N = labels_N
        count_K = labels_N.bincount(minlength=len(centroids_KD))
        if len(empty := torch.nonzero(count_K == 0).squeeze(1)):
            labels_N = labels_N.index_copy(0, square_N.topk(len(empty)).indices, empty)
            count_K = labels_N.bincount(minlength=len(centroids_KD))
        sums_KD = torch.zeros_like(centroids_KD).index_add_(0, labels_N, x_ND)
        # when all rows lie on centroids, a cluster may have given away its only row: its centroid stays
        centroids_KD = torch.where(count_K[:, None] > 0, sums_KD / count_K.clamp_min(1)[:, None], centroids_KD)
        if project is not None:
            centroids_KD = project(centroids_KD)
        labels_N, square_N = nearest(x_ND, centroids_KD)
        if torch.equal(labels_N, before_N):
            break
    return centroids_KD, square_N.sum(dtype=torch.float64).item()


def nearest(x_ND: Tensor, centroids_KD: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest centroid of each row (N,) int64 and the squared distance to it (N,)."""
    length_K = centroids_KD.square().sum(1)
    labels = [(length_K - 2 * rows @ centroids_KD.T).argmin(1) for rows in x_ND.split(BLOCK)]
    squares = [(x - centroids_KD[y]).square().sum(1) for x, y in zip(x_ND.split(BLOCK), labels, strict=True)]
    return torch.cat(labels), torch.cat(squares)


def spread_start(x_ND: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Draw the start of k-means++ -> (K, D)."""
    chosen = [int(torch.randint(len(x_ND), (), generator=generator))]
    square_N = torch.full_like(x_ND[:, 0], torch.inf)
    while len(chosen) < k:
        square_N = square_N.minimum((x_ND - x_ND[chosen[-1]]).square().sum(1))
        upto_N = square_N.cumsum(0, dtype=torch.float64)
        at = torch.rand((), generator=generator, dtype=torch.float64).to(upto_N.device) * upto_N[-1]
        chosen.append(min(int(torch.searchsorted(upto_N, at, right=True)), len(x_ND) - 1))
    return x_ND[chosen]
