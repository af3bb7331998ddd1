"""Retrieval ranks in both directions, exact and in bounded memory, and the measures computed from them.

Shapes: c captions, n clips, M entries of an embedding, T captions or clips of a tile.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TILE = 1024  #: T; a tile of similarities takes 4 MB, so that the work on it stays in the cache

Similarity = Callable[[Tensor, Tensor], Tensor]
"""similarity(text (T, M), visual (T, M)) -> (T, T); each entry depends only on its own two rows."""


def ranks(
    text: NDArray[np.float32],
    visual: NDArray[np.float32],
    clip: NDArray[np.integer],
    similarity: Similarity,
    *,
    tile: int = TILE,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ranks t2v (c,) of each caption's clip among the clips, and v2t (n,) of each clip's best caption.

    text (c, M), visual (n, M); clip (c,) is the row in `visual` of each caption's clip. Ranks count from 0, and ties
    get their mean rank. A clip without captions has nan in v2t, but is still a candidate for every caption.

    Let ξ_j be the similarities to the n candidates, and ξ the similarity to the right one among them. The mean rank is

        #{ξ_j > ξ} + (#{ξ_j = ξ} - 1) / 2  =  (n - 1 + Σ_j sign(ξ_j - ξ)) / 2

    The matrix (c, n) is computed tile by tile: first the tiles with a caption and its own clip, for ξ; then all tiles,
    each counted in both directions. All tiles have the same shape, and the last ones are padded with zeros: BLAS and
    cuDNN sum in a different order at other sizes, and then equal pairs would not tie.

    ValueError if `clip` has a number that is no row of `visual`, or if a similarity is not finite.
    """
    c, n = len(text), len(visual)
    if len(clip) != c or (c and not 0 <= clip.min() <= clip.max() < n):
        raise ValueError(f"each of {c} captions needs a row of `clip` in [0, {n}); `clip` has {len(clip)} rows")
    order = np.argsort(clip, kind="stable")  # captions of a clip are neighbours, so that few tiles have own pairs
    sorted_clip = torch.from_numpy(clip[order].astype(np.int64))
    own_c, best_n = torch.zeros(c), torch.full((n,), -torch.inf)

    def tiles(i: int, columns: Iterable[int]) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yield (captions in order, clips, ξ) for tiles of the i-th row of tiles."""
        rows = slice(i * tile, min((i + 1) * tile, c))
        text_TM = _filled(text[order[rows]], tile)
        for j in columns:
            clips = slice(j * tile, min((j + 1) * tile, n))
            xi_TT = similarity(text_TM, _filled(visual[clips], tile))
            yield rows, clips, xi_TT[: rows.stop - rows.start, : clips.stop - clips.start]

    for i in range(-(-c // tile)):
        for rows, clips, xi in tiles(i, (sorted_clip[i * tile : (i + 1) * tile] // tile).unique().tolist()):
            column = sorted_clip[rows] - clips.start
            inside = ((column >= 0) & (column < clips.stop - clips.start)).nonzero()[:, 0]
            own_c[rows.start + inside] = xi[inside.to(xi.device), column[inside].to(xi.device)].cpu()
    best_n.scatter_reduce_(0, sorted_clip, own_c, "amax")

    t2v_c, v2t_n = torch.zeros(c, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)  # Σ sign, exact
    for i in range(-(-c // tile)):
        for rows, clips, xi in tiles(i, range(-(-n // tile))):
            t2v_c[rows] += (xi - own_c[rows, None].to(xi.device)).sign_().sum(1).cpu()
            v2t_n[clips] += (xi - best_n[clips].to(xi.device)).sign_().sum(0).cpu()
            if not bool(xi.sum().isfinite()):  # the sign of nan is 0
                raise ValueError("a similarity is not finite, so its pair has no rank")
    t2v_c, v2t_n = (n - 1 + t2v_c) / 2, (c - 1 + v2t_n) / 2
    v2t_n[best_n == -torch.inf] = torch.nan
    ranks_c = np.empty(c)
    ranks_c[order] = t2v_c.numpy()
    return ranks_c, v2t_n.numpy()


def firsts(
    text: NDArray[np.float32],
    visual: NDArray[np.float32],
    clip: NDArray[np.integer],
    similarity: Similarity,
    *,
    tile: int = TILE,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the clip that comes first for each caption (c,), and the caption that comes first for each clip (n,).

    The arguments are those of `ranks`. An answer whose rank is above 0 is never the right one: of equal similarities
    that to another clip counts more than that to the own one.
    """
    c, n, clip_c = len(text), len(visual), torch.from_numpy(clip.astype(np.int64))
    own, other = ([(torch.full((count,), -torch.inf), torch.zeros(count).long()) for count in (c, n)] for _ in "ab")
    for i in range(0, c, tile):
        captions = slice(i, min(i + tile, c))
        text_TM = _filled(text[captions], tile)
        for j in range(0, n, tile):
            clips = slice(j, min(j + tile, n))
            xi_TT = similarity(text_TM, _filled(visual[clips], tile)).cpu()
            xi = xi_TT[: captions.stop - i, : clips.stop - j]
            mine = clip_c[captions, None] == torch.arange(j, clips.stop)
            for (t2v, v2t), left_out in ((own, ~mine), (other, mine)):
                part = xi.masked_fill(left_out, -torch.inf)
                _keep_larger(t2v, captions, part, j)
                _keep_larger(v2t, clips, part.T, i)
    t2v_c, v2t_n = (
        torch.where(own_best > other_best, own_row, other_row)
        for (own_best, own_row), (other_best, other_row) in zip(own, other, strict=True)
    )
    return t2v_c.numpy(), v2t_n.numpy()


def _keep_larger(best: tuple[Tensor, Tensor], queries: slice, xi: Tensor, begin: int) -> None:
    """Take the largest of these similarities where it is above the query's best one, and its column from `begin`."""
    value, row = xi.max(1)
    better = value > best[0][queries]
    best[0][queries] = torch.where(better, value, best[0][queries])
    best[1][queries] = torch.where(better, row + begin, best[1][queries])


def _filled(rows: NDArray[np.float32], tile: int) -> Tensor:
    """Copy the rows and pad them with zeros -> (T, M), so that every tile has the same memory layout."""
    filled = torch.zeros(tile, rows.shape[1])
    filled[: len(rows)] = torch.from_numpy(rows)
    return filled


def recall(rank: NDArray[np.float64], k: int) -> float:
    """Return R@K: the share of ranks below K. R@1 counts rank 0 only, so a tie does not count [CE's code]."""
    return float((rank == 0 if k == 1 else rank < k).mean())


def geometric_mean(rank: NDArray[np.float64]) -> float:
    """Return GM: the geometric mean of R@1, R@5 and R@10."""
    return float(np.prod([recall(rank, k) for k in (1, 5, 10)]) ** (1 / 3))
