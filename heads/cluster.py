"""Pseudo-labels of a whole side by clustering: classes as centroids, or as sets of prototypes.

Sources: [SHOT: Liang et al. 2020, Sec. 3.3]; [MTRAN, Sec. 3.3.2]; [SFDA: Kim et al. 2021].

Shapes: N rows of a whole side, D features, K classes.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot, pad

from heads.losses.entropy import entropy


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
