"""What is aligned between the domains: modality by modality, over the rows that have it."""

import torch
from torch import Tensor

from heads.batch import Side, Spec

Pair = tuple[Tensor, Tensor, Tensor, Tensor]  #: f of source (S, D) and target (T, D), and which rows count (S,), (T,)


def aligned(spec: Spec, s: Side, f_s: dict[str, Tensor], t: Side, f_t: dict[str, Tensor]) -> dict[str, Pair]:
    """Modality, or "visual", of both sides -> its features on both, and the rows that have it."""
    streams = spec.streams if spec.captions else shared(s, t)
    return {m: (f_s[m], f_t[m], rows_of(spec, s, m), rows_of(spec, t, m)) for m in streams}


def shared(s: Side, t: Side) -> list[str]:
    """Modalities of both sides; ValueError without any, for then nothing would be aligned."""
    both = [m for m in s.x if m in t.x]
    if not both:
        raise ValueError("source and target share no modality to align; check `seen_by` of the feeds")
    return both


def rows_of(spec: Spec, side: Side, stream: str) -> Tensor:
    """Rows (B,) that have the modality, or, of "visual", any that is no caption."""
    if stream in side.x:
        return side.has(stream)
    return torch.stack([side.has(m) for m in side.x if m not in spec.captions]).any(0)
