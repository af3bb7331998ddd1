"""Benchmarks of many heads in one pass: steps of K runs together, against the same steps one by one."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from heads.methods import dann, mmd, rna
from heads.nets import adapter
from pipelines.bench import training
from pipelines.bench._lines import Line
from pipelines.config import Feed, RunConfig
from pipelines.data.draws import Together, draw_batch, draws
from pipelines.data.opening import Opened, open_run
from pipelines.training.optimizers import optimizers
from pipelines.training.together import Pass, Streams
from pipelines.training.train import Head, start, train_step

HEADS, ROUNDS, STEPS = 16, 15, 4  #: runs of a pass; rounds after a warm-up; steps of one run alone in a round


def passes(folder: Path) -> Iterator[Line]:
    """Sixteen seeds of small heads, and a grid of weights of one seed, on two modalities of 1,024 numbers."""
    stores = folder / "groups_stores"
    training.write(stores)
    torch.set_num_threads(1)
    for name, method, dim in (
        ("RNA", rna.Params(), 64),
        ("DANN", dann.Params(), 64),
        ("MMD", mmd.Params(), 64),
        ("RNA", rna.Params(), 16),
    ):
        seeds = [replace(run(method, dim), seed=seed) for seed in range(HEADS)]
        yield line(f"a step of {HEADS} {name} heads of {dim} in one pass, a seed each", seeds, stores)
    grid = [run(rna.Params(lambda_g=0.1 * (1 + k % 4), lambda_c=0.1 * (1 + k // 4)), 64) for k in range(HEADS)]
    yield line(f"a step of a grid of {HEADS} RNA heads of 64 in one pass, all of one seed", grid, stores)


def run(method: Any, dim: int) -> RunConfig:
    """A run with windows averaged, 64 rows of each side, dropout and clipping."""
    feeds = {m: Feed(m, train="mean", test="mean") for m in ("rgb", "flow")}
    return training.run(method, feeds, adapter.Params(dim=dim), (64, 64), 100, "t")


def line(measured: str, configs: list[RunConfig], stores: Path) -> Line:
    """Seconds of CPU per head and step, together and alone, in turns."""
    opened = open_run(configs[0], stores)
    heads, streams = [], []
    for config in configs:
        heads.append(Head(start(config, opened, stores).train(), config, opened, opened.test()))
        streams.append(Streams("cpu"))
    together, alone = steps_together(heads, streams, opened), steps_alone(configs[0], opened, stores)
    ours, plain = [], []
    for _ in range(ROUNDS + 1):
        ours.append(next(together) / HEADS)
        plain.append(next(alone))
    return measured, "one by one", median(ours[1:]), median(plain[1:]), lambda s: f"{1000 * s:.2f} ms CPU a head"


def steps_together(heads: list[Head], streams: list[Streams], opened: Opened) -> Iterator[float]:
    """Yield the CPU seconds of one step of all heads, again and again."""
    one_seed = len({head.config.seed for head in heads}) == 1
    generators = [stream.device for stream in streams[: 1 if one_seed else None]]
    own = [draws(head.config, opened.sides) for head in heads]
    sides = {side: Together([of_head[side] for of_head in own]) for side in own[0]}
    passed = Pass(heads)
    while True:
        began = time.process_time()
        passed.step(draw_batch(sides), 0.5, generators)
        yield time.process_time() - began


def steps_alone(config: RunConfig, opened: Opened, stores: Path) -> Iterator[float]:
    """Yield the CPU seconds of one step of one head, the mean of some."""
    method = start(config, opened, stores).train()
    players = {who: optimizers(method, parameters, config) for who, parameters in method.players().items()}
    sides = draws(config, opened.sides)
    while True:
        began = time.process_time()
        for _ in range(STEPS):
            train_step(method, players, draw_batch(sides), 0.5)
        yield (time.process_time() - began) / STEPS


BENCHMARKS = {"groups": passes}
