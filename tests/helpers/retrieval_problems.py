"""Small made-up retrieval specs and sides: three experts, two caption modalities (tokens, and one sentence row)."""

import torch

from heads.batch import Batch, Side
from heads.testing.problems import CAPTIONED as SPEC

EXPERTS = ("object", "action", "scene")


def side(modalities, rows=8, seed=0, domain=0, dtype=torch.float32):
    """Random rows of these modalities, all there; rows numbered from 0."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {m: (rows, SPEC.windows[m], *SPEC.shapes[m]) for m in modalities}
    x = {m: torch.randn(shape, generator=generator).to(dtype) for m, shape in shapes.items()}
    present = {m: torch.ones(v.shape[:2], dtype=torch.bool) for m, v in x.items()}
    return Side(x, present, {}, torch.full((rows,), domain), torch.arange(rows))


def pairs(rows=8, seed=0, dtype=torch.float32):
    """Clips and captions."""
    return side(SPEC.shapes, rows, seed, dtype=dtype)


def clips(rows=8, seed=1, domain=1):
    """Clips alone, as a target has them."""
    return side(EXPERTS, rows, seed, domain)


def batch(rows=8, seed=0):
    """A training batch of both sides."""
    return Batch(pairs(rows, seed), clips(rows, seed + 1))


def part(s, rows, modalities=None):
    """These rows, and these modalities, of a side."""
    cut = lambda values: {m: values[m][rows] for m in modalities or values}  # noqa: E731
    return Side(cut(s.x), cut(s.present), {}, s.domain[rows], s.index[rows])


def sweep(s_rows=24, t_rows=18, captions_per_clip=2):
    """The sweep of a run over these rows: "source", "target" and "captions"."""
    source, target = side(EXPERTS, s_rows, 3), clips(t_rows, 4)
    captions = side(SPEC.captions, s_rows * captions_per_clip, 5)
    owners = torch.arange(s_rows).repeat_interleave(captions_per_clip)
    captions = Side(captions.x, captions.present, {}, torch.zeros_like(owners), owners)
    whole = {"source": source, "target": target, "captions": captions}

    def look(name):
        yield from (part(whole[name], rows) for rows in torch.arange(len(whole[name].index)).split(7))

    return look
