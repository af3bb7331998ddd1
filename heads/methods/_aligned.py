"""What is aligned between the domains: stream by stream, over the rows that have it."""

import torch
from torch import Tensor

from heads.batch import Side, Spec

Pair = tuple[Tensor, Tensor, Tensor, Tensor]  #: f of source (S, D) and target (T, D), and which rows count (S,), (T,)


def aligned(spec: Spec, s: Side, f_s: dict[str, Tensor], t: Side, f_t: dict[str, Tensor]) -> dict[str, Pair]:
    """Stream (a modality, or "visual") -> its features on both sides, where both have it, and the rows that have it.

    ValueError when the sides share none.
    """
    shared = [m for m in spec.streams if m in f_s and m in f_t]
    if not shared:
        raise ValueError("source and target share no modality to align; check `seen_by` of the feeds")
    return {m: (f_s[m], f_t[m], rows_of(spec, s, m), rows_of(spec, t, m)) for m in shared}


def rows_of(spec: Spec, side: Side, stream: str) -> Tensor:
    """Rows (B,) that have the modality, or, of "visual", any that is no caption."""
    if stream in side.x:
        return side.has(stream)
    return torch.stack([side.has(m) for m in side.x if m not in spec.captions]).any(0)
