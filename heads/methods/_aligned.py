"""Features that are aligned between the domains: modality by modality, over the rows that have it."""

import torch
from torch import Tensor

from heads.batch import Side, Spec

Pair = tuple[Tensor, Tensor, Tensor, Tensor]
"""Features of source (S, D) and target (T, D), and masks of the rows that count (S,) and (T,)."""


def aligned(spec: Spec, s: Side, f_s: dict[str, Tensor], t: Side, f_t: dict[str, Tensor]) -> dict[str, Pair]:
    """Return modality (or "visual") of both sides -> its features on both sides, and the rows that have it."""
    streams = spec.streams if spec.captions else shared(s, t)
    return {m: (f_s[m], f_t[m], rows_of(spec, s, m), rows_of(spec, t, m)) for m in streams}


def shared(s: Side, t: Side) -> list[str]:
    """Return the modalities of both sides; ValueError if there is none, because nothing could be aligned."""
    both = [m for m in s.x if m in t.x]
    if not both:
        raise ValueError("source and target share no modality to align; check `seen_by` of the feeds")
    return both


def rows_of(spec: Spec, side: Side, stream: str) -> Tensor:
    """Return the rows (B,) that have the modality; for "visual" the rows with any modality that is not a caption."""
    if stream in side.x:
        return side.has(stream)
    return torch.stack([side.has(m) for m in side.x if m not in spec.captions]).any(0)
