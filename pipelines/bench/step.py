"""Benchmark of a training step against featcache's former step, which is put together here from its parts.

The former step took each side through the net by itself, with torch's dropout; it stacked the scores of the modalities
before their sum, measured and compared norms one by one, and clipped gradients in a pass of its own. Seconds are
processor time of one thread, which other work on the machine disturbs least.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout
from torch.nn.utils import clip_grad_norm_

from heads import noise
from heads.batch import Side, members
from heads.grl import reverse
from heads.losses.norms import Norms, mean_norms, relative_norm
from heads.methods import dann, rna
from heads.nets import Net, adapter
from pipelines.bench import training
from pipelines.bench._lines import Line, alternate
from pipelines.config import Feed, Optim, RunConfig
from pipelines.data.draws import draw_batch, draws
from pipelines.data.opening import Opened, open_run
from pipelines.training.optimizers import optimizers, update
from pipelines.training.runs import build

STEPS, ROUNDS = 4, 30  #: steps of a turn, and turns
CASES = ((rna, 1024), (rna, 256), (dann, 256))


def step(folder: Path) -> Iterator[Line]:
    """Steps of RNA and DANN on two modalities, each the mean of 5 windows of 1024 numbers, with 64 rows a side."""
    training.write(folder)
    torch.set_num_threads(1)
    feeds = {m: Feed(m, train="mean", test="mean") for m in ("rgb", "flow")}
    for module, dim in CASES:
        config = training.run(module.Params(), feeds, adapter.Params(dim=dim), (64, 64), STEPS, "t")
        opened = open_run(config, folder, "cpu")
        ours, plain = steps(config, opened, update), steps(config, opened, clip_then_step)
        seconds = alternate(ours, partial(formerly, plain), ROUNDS, time.thread_time)
        name = f"a step of {module.METHOD.__name__.upper()}, dim {dim}, 2 modalities of 1024, 64 + 64 rows"
        yield name, "the former step", *seconds, lambda s: f"{1000 * s / STEPS:.1f} ms"


def steps(config: RunConfig, opened: Opened, update: Callable[..., None]) -> Callable[[int], None]:
    """A function that makes some steps on one batch; its argument is not used."""
    torch.manual_seed(0)
    method = build(config, opened.spec).train()
    pairs = optimizers(method, method.players()["all"], config)
    batch = draw_batch(draws(config, opened.sides))

    def turn(_: int) -> None:
        for k in range(STEPS):
            terms = method.losses(batch, k / STEPS)
            method.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            for optim, optimizer in pairs:
                update(optim, optimizer, k / STEPS)

    return turn


def clip_then_step(optim: Optim, optimizer: torch.optim.Optimizer, progress: float) -> None:
    """The former update."""
    for group in optimizer.param_groups:
        group["lr"] = optim.at(progress)
        clip_grad_norm_(group["params"], optim.clip_norm)
    optimizer.step()


def formerly(turn: Callable[[int], None], number: int) -> None:
    """Call the function with the former parts in place of today's."""
    parts: list[tuple[Any, str, Callable[..., Any]]] = [
        (Net, "encode_both", lambda net, s, t: (net.encode(s), net.encode(t))),
        (Net, "classify_both", lambda net, f_s, f_t: (net.classify(f_s), net.classify(f_t))),
        (adapter.Adapter, "encode", encode),
        (adapter.Adapter, "classify", classify),
        (noise, "dropout", dropout),
        (rna, "domain_loss", domain_loss),
        (dann, "domain_loss", domain_loss),
        (rna.Rna, "norms", norms),
        (rna, "relative_norms", lambda pairs: torch.stack([relative_norm(u, v) for u, v in pairs])),
    ]
    with ExitStack() as stack:
        for owner, name, part in parts:
            stack.enter_context(mock.patch.object(owner, name, part))
        turn(number)


def encode(net: adapter.Adapter, side: Side) -> dict[str, Tensor]:
    """The former `Adapter.encode`, without batch normalisation and units."""
    f = {}
    for m in side.x:
        a_BD: Tensor = net.F[m](side.pool(m).flatten(1))
        f[m] = net.after(a_BD) * side.present[m].any(1)[:, None]
    return f


def classify(net: adapter.Adapter, f: dict[str, Tensor]) -> dict[str, Tensor]:
    """The former `Adapter.classify`."""
    G: Any = net.classifier.G
    g: Any = net.classifier.g
    f = {m: net.before_logits(f_BD) for m, f_BD in f.items()}
    return {
        label: 1.0 * torch.stack([G[f"{m}:{label}"](f_BD[:, part]) for m, f_BD in f.items()]).sum(0) + g[f":{label}"]
        for label, part in net.parts.items()
    }


def norms(method: rna.Rna, side: Side, f: dict[str, Tensor], y: dict[str, Tensor]) -> dict[str, dict[str, Norms]]:
    """The former `Rna.norms`."""
    found = {}
    for label, part in method.net.parts.items():
        is_class_BK = members(y[label], method.spec.classes[label])
        in_BG = torch.cat([torch.ones_like(is_class_BK[:, :1]), is_class_BK], dim=1)
        found[label] = {m: mean_norms(f[m][:, part], in_BG & side.has(m)[:, None]) for m in side.x}
    return found


def domain_loss(D: nn.Module, h_SI: Tensor, h_TI: Tensor, w_S: Tensor, w_T: Tensor, coefficient: float) -> Tensor:
    """The former `domain_loss`."""
    z_B2 = torch.cat(D(reverse(torch.cat([h_SI, h_TI]), coefficient)).split([len(h_SI), len(h_TI)]))
    d_B = torch.cat([torch.zeros_like(w_S, dtype=torch.long), torch.ones_like(w_T, dtype=torch.long)])
    weight_B = torch.cat([w_S, w_T]).to(z_B2)
    total = weight_B.sum()
    return (cross_entropy(z_B2, d_B, reduction="none") * weight_B).sum() / torch.where(total > 0, total, 1.0)


BENCHMARKS = {"step": step}
