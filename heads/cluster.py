"""Pseudo-labels by clustering: classes as centroids of features [Liang et al. 2020 (SHOT), Eq. 6; MTRAN, Sec. 3.3.2].

Shapes: N rows of a whole side, D features, K classes.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize


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
