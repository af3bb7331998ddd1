"""Nearest-neighbour graphs of features, and labels that spread along their edges.

Shapes: N nodes, D features, K classes.
"""

import torch
from torch import Tensor

CHUNK = 1024  # nodes whose similarities to all others are in memory at the same time
TINY = 1e-12


def neighbour_graph(v_ND: Tensor, k: int, gamma: float) -> Tensor:
    """Return S = D^-1/2 (A + Aᵀ) D^-1/2, sparse (N, N); A: k nearest neighbours of each node [Iscen et al. 2019].

    v_ND: rows of length 1. A_ij = max(0, v_i · v_j)^gamma. No node is its own neighbour. D holds the sums of A + Aᵀ.
    """
    N = len(v_ND)
    weights, neighbours = [], []
    for rows in torch.arange(N, device=v_ND.device).split(CHUNK):
        cosine = v_ND[rows] @ v_ND.T
        cosine[torch.arange(len(rows), device=rows.device), rows] = -torch.inf
        nearest = cosine.topk(min(k, N - 1), 1)
        weights.append(nearest.values.clamp_min(0) ** gamma)
        neighbours.append(nearest.indices)
    weight_Nk, neighbour_Nk = torch.cat(weights), torch.cat(neighbours)
    node_Nk = torch.arange(N, device=v_ND.device)[:, None].expand_as(neighbour_Nk)
    i, j, a = node_Nk.flatten(), neighbour_Nk.flatten(), weight_Nk.flatten()
    edges = torch.stack([torch.cat([i, j]), torch.cat([j, i])])
    degree_N = a.new_zeros(N).index_add_(0, edges[0], a.repeat(2)).clamp_min(TINY)
    scaled = a.repeat(2) / (degree_N[edges[0]] * degree_N[edges[1]]).sqrt()
    return torch.sparse_coo_tensor(edges, scaled, (N, N), check_invariants=True).coalesce()


def spread(S: Tensor, y_NK: Tensor, alpha: float, *, steps: int = 100, tolerance: float = 1e-6) -> Tensor:
    """Return Z = (I - alpha S)^-1 y -> (N, K), by conjugate gradients [Zhou et al. 2004; solver of Iscen et al. 2019].

    Z = y + alpha S y + alpha² S² y + ...: each node adds its neighbours' scores to its own. The solver stops when the
    length of the residual has fallen to `tolerance` times the length of y.
    """
    z_NK, r_NK, d_NK = torch.zeros_like(y_NK), y_NK.clone(), y_NK.clone()
    square_K = r_NK.square().sum(0)
    enough_K = square_K * tolerance**2
    for _ in range(steps):
        if (square_K <= enough_K).all():
            break
        Ad_NK = d_NK - alpha * torch.sparse.mm(S, d_NK)
        step_K = square_K / (d_NK * Ad_NK).sum(0).clamp_min(torch.finfo(y_NK.dtype).tiny)
        z_NK, r_NK = z_NK + step_K * d_NK, r_NK - step_K * Ad_NK
        before_K, square_K = square_K, r_NK.square().sum(0)
        d_NK = r_NK + square_K / before_K.clamp_min(torch.finfo(y_NK.dtype).tiny) * d_NK
    return z_NK
