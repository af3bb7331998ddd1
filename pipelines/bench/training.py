"""Benchmarks of training heads: the cost of the loop around its steps, and the time that a paper's table takes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featcache.manifest import Clip, Manifest
from featcache.store import StoreWriter
from heads.methods import rna, source_only
from heads.nets import adapter
from pipelines.bench._lines import Line, alternate
from pipelines.config import Feed, Optim, RunConfig
from pipelines.data.draws import draw_batch, draws
from pipelines.data.opening import Opened, open_run
from pipelines.training.optimizers import optimizers, update
from pipelines.training.outputs import scores
from pipelines.training.runs import build
from pipelines.training.train import fit

ROWS, WINDOWS, WIDTH = 2500, 5, 1024  #: shape of a domain's store; about the mean of EPIC-8's domains
STEPS = 4  #: the steps that scoring a point is compared with
EPIC8 = {"steps": 5000, "runs": 6 * 3}  #: six shifts, three seeds
GOAL = 15 * 60  #: seconds


def heads(folder: Path) -> Iterator[Line]:
    """The loop of small heads, a whole table of RNA, and the scoring of evaluation points."""
    folder = folder / "heads_stores"
    write(folder)
    torch.set_num_threads(1)
    yield from overhead(folder)
    yield from table(folder)
    yield from choosing(folder)


def overhead(folder: Path) -> Iterator[Line]:
    """Source-only training of small heads on one modality."""
    for dim, draw in ((64, "mean"), (256, "mean"), (256, "random:1"), (256, "all"), (1024, "mean")):
        feed = Feed("rgb", train=draw, test="mean")
        config = run(source_only.Params(), {"rgb": feed}, adapter.Params(dim=dim), (128, 0), 300, None)
        yield against_bare(folder, config, f"train an adapter head of {dim}, batch 128, windows: {draw}")


def table(folder: Path) -> Iterator[Line]:
    """RNA (UDA) on two modalities of 5 x 1024, batch 128: the time of EPIC-8's runs, extrapolated from some steps."""
    feeds = {m: Feed(m, train="mean", test="mean") for m in ("rgb", "flow")}
    config = run(rna.Params(), feeds, adapter.Params(), (64, 64), 100, "t")
    line = against_bare(folder, config, "RNA, 2 modalities of 5 x 1024, batch 128")
    yield line
    opened = open_run(config, folder, "cpu")
    ours, plain = alternate(lambda n: bare(config, opened), lambda n: products(config))
    yield "its steps", "only the products of its layers", ours, plain, lambda s: f"{config.steps / s:.0f} steps/s"
    cores = 2
    seconds = line[2] * EPIC8["steps"] * EPIC8["runs"] / config.steps / cores
    measured = (
        f"RNA on EPIC-8's six shifts, 3 seeds, 5,000 steps, on {cores} cores, extrapolated from {config.steps} steps"
    )
    yield measured, "15 minutes", seconds, GOAL, lambda s: f"{s / 60:.1f} min"


def choosing(folder: Path) -> Iterator[Line]:
    """Scoring an evaluation point by the rules that need only the target, and with a holdout by all rules."""
    feeds = {m: Feed(m, train="mean", test="mean") for m in ("rgb", "flow")}
    for holdout, rules in ((0.0, "the target's rules"), (0.1, "all rules, dev among them")):
        config = replace(run(rna.Params(), feeds, adapter.Params(), (64, 64), STEPS, "t"), holdout=holdout)
        ours, plain = scoring_seconds(config, folder)
        yield f"score a point by {rules}", f"{STEPS} steps of RNA", ours, plain, lambda s: f"{1000 * s:.0f} ms"


def scoring_seconds(config: RunConfig, folder: Path) -> tuple[float, float]:
    """Seconds to score one evaluation point, and to make the run's bare steps."""
    opened = open_run(config, folder, "cpu")
    method = build(config, opened.spec)
    return alternate(lambda n: scores(method, opened), lambda n: bare(config, opened))


def against_bare(folder: Path, config: RunConfig, measured: str) -> Line:
    """The loop of a run against its bare steps."""
    opened = open_run(config, folder, "cpu")
    ours, plain = alternate(lambda n: trained(config, opened), lambda n: bare(config, opened))
    return measured, "forward, backward and step", ours, plain, lambda s: f"{config.steps / s:.0f} steps/s"


def run(
    method: Any, feeds: dict[str, Feed], net: Any, batch: tuple[int, int], steps: int, target: str | None
) -> RunConfig:
    """A run from the one domain to the other."""
    return RunConfig(
        "heads", method, net, feeds, source=("s",), target=target, test="t", steps=steps, epoch=100, batch=batch,
        optim=Optim(clip_norm=5.0),
    )  # fmt: skip


def write(folder: Path) -> None:
    """Write two stores of normal numbers of two domains."""
    clips = tuple(
        Clip(f"{domain}{k}", domain, "train" if k < ROWS else "test", "-", labels={"label": "abcdefgh"[k % 8]})
        for domain in "st"
        for k in range(ROWS + 100)
    )
    manifest = Manifest("heads", clips)
    manifest.write(folder / "heads" / "manifest.csv")
    for m in ("rgb", "flow"):
        recipe = {"extractor": m, "version": 1, "modality": m, "weights_sha256": "none", "dtype": "float16"}
        rows = np.random.default_rng(0).standard_normal((len(clips), WINDOWS, WIDTH)).astype(np.float16)
        path = folder / "heads" / f"{m}.zarr"
        with StoreWriter.open(path, manifest, recipe, row_shape=(WIDTH,), windows=WINDOWS, facts={}) as writer:
            for k, row in enumerate(rows):
                writer.done(k, row, np.arange(5.0), np.arange(5.0) + 1)


def trained(config: RunConfig, opened: Opened) -> None:
    """The real loop: it draws batches, records terms and evaluates the test rows in the end."""
    torch.manual_seed(0)
    fit(build(config, opened.spec), config, opened, opened.test())


def bare(config: RunConfig, opened: Opened) -> None:
    """Forward, backward and step on one batch that is drawn once."""
    torch.manual_seed(0)
    method = build(config, opened.spec).train()
    players = {who: optimizers(method, parameters, config) for who, parameters in method.players().items()}
    batch = draw_batch(draws(config, opened.sides))
    for step in range(config.steps):
        for who, terms in method.rounds(batch, step / config.steps):
            method.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            for player in who.split():
                for optim, optimizer in players[player]:
                    update(optim, optimizer, step / config.steps)


def products(config: RunConfig) -> None:
    """The two matrix products, forward and for the gradient, of each modality's layer on each side."""
    x_BI, W_DI = torch.randn(config.batch[0], WIDTH), torch.randn(config.net.dim, WIDTH)
    for _ in range(config.steps * 2 * len(config.feeds)):
        f_BD = x_BI @ W_DI.T
        torch.mm(f_BD.T, x_BI)


BENCHMARKS = {"training": heads}
