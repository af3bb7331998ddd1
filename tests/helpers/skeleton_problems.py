"""Small made-up clustering specs, sides and batches: two bodies, a shared layout and, or not, the target's own."""

import torch

from heads.batch import Batch, Side, Spec
from heads.nets import stgcn

FRAMES, ROWS = 8, {"source": 12, "target": 10}


def spec(*joints):
    """Feeds "shared", and "own" where two numbers of joints are given; 3 source classes, 4 target clusters."""
    shapes = {m: (3, FRAMES, V, 2) for m, V in zip(("shared", "own"), joints, strict=False)}
    return Spec(shapes, dict.fromkeys(shapes, 1), {"label": 3}, dict(ROWS), ("a", "b"), clusters=4)


ONE, TWO = spec(15), spec(15, 20)


def side(spec, name, rows=6, seed=0):
    """Random rows, numbered from 0; a source has labels, and only the shared layout. Some have one body."""
    generator = torch.Generator().manual_seed(seed)
    shapes = spec.shapes if name == "target" else {"shared": spec.shapes["shared"]}
    x = {m: torch.randn(rows, 1, *shape, generator=generator) for m, shape in shapes.items()}
    for v in x.values():
        v[::2, ..., 1] = 0
    present = {m: torch.ones(rows, 1, dtype=torch.bool) for m in x}
    y = {"label": torch.arange(rows) % spec.classes["label"]} if name == "source" else {}
    return Side(x, present, y, torch.full((rows,), int(name == "target")), torch.arange(rows))


def batch(spec, rows=6, seed=0):
    """A training batch of both sides."""
    return Batch(side(spec, "source", rows, seed), side(spec, "target", rows, seed + 1))


def sweep(spec):
    """The sweep of a run, a few rows at a time."""

    def look(name):
        whole = side(spec, name, ROWS[name], 7)
        for rows in torch.arange(ROWS[name]).split(4):
            cut = lambda values, rows=rows: {m: v[rows] for m, v in values.items()}  # noqa: E731
            yield Side(cut(whole.x), cut(whole.present), cut(whole.y), whole.domain[rows], rows)

    return look


def net(spec, seed=0, **params):
    """A net of few channels."""
    torch.manual_seed(seed)
    return stgcn.Stgcn(stgcn.Params(**{"width": 2, "dim": 6, "kernel": 3, **params}), spec)
