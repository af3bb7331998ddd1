"""Sides of the generated pairs, and the loop that trains a method of retrieval on them."""

from dataclasses import replace

import numpy as np
import torch

from featcache.builders import pairs
from heads.batch import Batch, Side, Spec
from heads.nets import gated

EXPERTS = tuple(pairs.APART)
SPEC = Spec(
    shapes=dict.fromkeys(EXPERTS, (pairs.D,)) | {"sentence": (3 * pairs.D + pairs.STYLE,)},
    windows=dict.fromkeys(EXPERTS, pairs.T) | {"sentence": 1},
    classes={},
    rows={"source": pairs.ROWS["train"], "target": pairs.ROWS["train"], "captions": 0},
    domains=("source", "target"),
    captions=("sentence",),
)


def sides(domain, split, seed=0):
    """Clips, and captions (`index`: the clip of each)."""
    drawn = pairs.draw(domain, split, seed)
    x, said = pairs.features(drawn, domain, split, seed)
    has = {m: torch.from_numpy(np.repeat(h[:, None], pairs.T, 1)) for m, h in drawn.has.items()}
    x = {m: torch.from_numpy(v) * has[m][..., None] for m, v in x.items()}
    zeros = lambda n: torch.zeros(n, dtype=torch.int64)  # noqa: E731
    there = torch.ones(len(said), 1, dtype=torch.bool)
    clips = Side(x, has, {}, zeros(pairs.ROWS[split]), torch.arange(pairs.ROWS[split]))
    captions = Side(
        {"sentence": torch.from_numpy(said)[:, None]},
        {"sentence": there},
        {},
        zeros(len(said)),
        torch.from_numpy(drawn.clip_of),
    )
    return clips, captions


def take(side, rows):
    cut = lambda values: {m: v[rows] for m, v in values.items()}  # noqa: E731
    return Side(cut(side.x), cut(side.present), {}, side.domain[rows], side.index[rows])


def train(module, params, target, *, seed, steps, lr=0.003, size=64):
    """A method on the gated MLP after training on source and target; steps=0: what it begins with."""
    (s, captions), (t, _) = sides("source", "train", seed), sides(target, "train", seed)
    spec = replace(SPEC, rows=SPEC.rows | {"captions": len(captions.index)})
    torch.manual_seed(seed)
    method = module.METHOD(params, spec, gated.NET(gated.Params(dim=64), spec))
    whole = {"source": s, "target": t, "captions": captions}
    last = torch.bincount(captions.index).cumsum(0)
    first = last - torch.bincount(captions.index)
    optimizer = torch.optim.Adam(method.parameters(), lr)
    method.eval()
    with torch.no_grad():
        method.begin_epoch(0, lambda name: iter([whole[name]]))
    method.train()
    for step in range(steps):
        rows, t_rows = (torch.randperm(len(side.index))[:size] for side in (s, t))
        c = first[rows] + (torch.rand(size) * (last - first)[rows]).long()
        clip, caption = take(s, rows), take(captions, c)
        source = Side(clip.x | caption.x, clip.present | caption.present, {}, clip.domain, clip.index)
        terms = method(Batch(source, take(t, t_rows)), step / steps)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    return method.eval()
