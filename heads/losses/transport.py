"""Entropic optimal transport between two groups of rows, and of rows to clusters of equal size.

    OT(s, t) = min_P <P, C> + ε KL(P | a bᵀ)       C_ij = 1 - cos(s_i, t_j);  P has row sums a, column sums b
             = max_{f, g} <a, f> + <b, g>          with f_i = -ε log Σ_j b_j exp((g_j - C_ij) / ε), and the same for g
    S(s, t)  = OT(s, t) - (OT(s, s) + OT(t, t)) / 2

a and b are uniform over the rows that count. OT of a group with itself is above 0, and OT without the correction is
least for groups that have shrunk to a point. The Sinkhorn divergence S is 0 for equal groups, and never below 0.

Rows to clusters: of all S >= 0 with row sums 1/N and column sums 1/K, the one with the least

    <S, -log P> + KL(S | uniform) / ξ,  which is  S = diag(v) P^ξ diag(u)     P_nk: predicted probability of row n

Sources: [Cuturi 2013]; [Genevay et al. 2018] for S(s, t), there without the entropy; [Feydy et al. 2019] for the dual
form; [Asano et al. 2020] and CoDT's supplement, Eq. 9 to 11, for clusters.
Shapes: S, T rows of the two groups, D features; in_S, in_T (bool) mark the rows that count. N rows, K clusters.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

EPS = 1e-6  # least norm in a cosine
STRIDE = 10  # iterations between two checks of the stopping rule


def sinkhorn_divergence(
    f_SD: Tensor, f_TD: Tensor, in_S: Tensor, in_T: Tensor, epsilon: float, iterations: int
) -> Tensor:
    """Return S of the rows that count; 0 if a group is empty.

    >>> one = torch.tensor([True])
    >>> sinkhorn_divergence(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]]), one, one, 0.1, 50)   # 1 - cos
    tensor(1.)
    """
    across = transport_cost(cosine_cost(f_SD, f_TD), in_S, in_T, epsilon, iterations)
    within_s = transport_cost(cosine_cost(f_SD, f_SD), in_S, in_S, epsilon, iterations)
    within_t = transport_cost(cosine_cost(f_TD, f_TD), in_T, in_T, epsilon, iterations)
    return (across - (within_s + within_t) / 2) * (in_S.any() & in_T.any())


def transport_cost(C_ST: Tensor, in_S: Tensor, in_T: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Return OT of a cost between the rows that count; 0 if a group is empty. Costs may differ by up to 300 ε.

    The gradient with respect to C is the plan P: its rows sum to a exactly, its columns to b as closely as the
    iterations have converged. The potentials take no gradient: at the optimum the value does not depend on them.

    >>> both = torch.tensor([True, True])
    >>> transport_cost(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), both, both, 0.01, 50)   # 0, and ε log 2 for certainty
    tensor(0.0069)
    """
    a_S, b_T = uniform(in_S), uniform(in_T)
    with torch.no_grad():
        K_ST = (-C_ST.double() / epsilon).exp()  # double: the range of its exponents is wide enough without logarithms
        v_T = torch.ones_like(b_T)  # exp(g / ε)
        for _ in range(iterations):
            u_S = 1 / (K_ST @ (b_T * v_T))
            v_T = 1 / ((u_S * a_S) @ K_ST)
    f_S = -epsilon * ((b_T * v_T).log().to(C_ST) - C_ST / epsilon).logsumexp(1)  # the half step that has a gradient
    g_T = epsilon * v_T.log().to(C_ST)
    return (a_S.to(C_ST) @ f_S + b_T.to(C_ST) @ g_T) * (in_S.any() & in_T.any())


def cosine_cost(f_SD: Tensor, f_TD: Tensor) -> Tensor:
    """Return 1 - cos of all pairs -> (S, T), from 0 (same direction) to 2; 1 where a row is 0."""
    return 1 - normalize(f_SD, dim=1, eps=EPS) @ normalize(f_TD, dim=1, eps=EPS).T


def uniform(in_B: Tensor) -> Tensor:
    """Return equal weights of the rows that count, in double -> (B,); of all rows if none counts, to stay finite."""
    counts_B = (in_B | ~in_B.any()).double()
    return counts_B / counts_B.sum()


def cluster_scales(
    log_p_NK: Tensor, xi: float, start_K: Tensor | None = None, *, iterations: int = 100, tolerance: float = 0.01
) -> Tensor:
    """Return log u (K,) in double, up to a constant: Sinkhorn's scales that make clusters equally large.

    The iterations stop when Σ_n |v_n / v'_n - 1| of two successive v is below the tolerance, which is checked every 10
    iterations; cluster masses are then off by at most tolerance / N. Otherwise they stop after `iterations`: if K
    divides N, the masses of certain predictions converge as slowly as 1 / iterations. start_K: the initial log u.

    The first of ten iterations works on logarithms, where the most certain predictions do not vanish. The others
    multiply the resulting matrix, which is ten times as fast (docs/benchmarks.md).

    >>> p = torch.tensor([[0.8, 0.2], [0.6, 0.4]])   # both rows are predicted as 0, the second with less certainty
    >>> transport_plan(p.log(), 10.0, cluster_scales(p.log(), 10.0)).argmax(1)
    tensor([0, 1])
    """
    N, K = log_p_NK.shape
    z_NK = xi * log_p_NK.double()
    log_u_K = z_NK.new_zeros(K) if start_K is None else start_K.double()
    tiny = torch.finfo(z_NK.dtype).tiny
    for _ in range(0, iterations, STRIDE):
        log_u_K = log_u_K - (z_NK + log_u_K).log_softmax(1).logsumexp(0)
        S_NK = (z_NK + log_u_K).softmax(1) / N
        v_N = torch.ones_like(z_NK[:, 0])
        for _ in range(1, STRIDE):
            u_K = 1 / (K * (v_N @ S_NK)).clamp_min(tiny)
            before_N, v_N = v_N, 1 / (N * (S_NK @ u_K)).clamp_min(tiny)
        log_u_K = log_u_K + u_K.log()
        log_u_K = log_u_K - log_u_K.mean()
        if (before_N / v_N - 1).abs().sum() < tolerance:
            break
    return log_u_K


def transport_plan(log_p_NK: Tensor, xi: float, log_u_K: Tensor) -> Tensor:
    """Return S (N, K) for these cluster scales, in double. Its rows sum to 1/N; their argmax are pseudo-labels."""
    S_NK: Tensor = (xi * log_p_NK.double() + log_u_K).softmax(1) / len(log_p_NK)
    return S_NK
