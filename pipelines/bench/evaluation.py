"""A benchmark of evaluation: hundreds of runs over one store, their time, their memory, and the time when all is known.

It writes 5 GB to the temporary folder, most of which are the weights of the runs, and removes them.
"""

import json
import resource
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import numpy as np
import torch

from featcache.manifest import Clip, Manifest
from featcache.store import StoreWriter
from heads.methods import rna
from heads.nets import adapter
from pipelines.bench._lines import Line, alternate, peak_bytes, run_apart
from pipelines.config import Feed, Optim, RunConfig
from pipelines.evaluation.engine import Case, cases_of, evaluate_all
from pipelines.evaluation.evaluate import evaluate
from pipelines.training.runs import Run, write
from pipelines.training.train import train

DOMAINS = {"D1": (1543, 435), "D2": (2495, 750), "D3": (3897, 974)}  #: train and test clips of EPIC-8
MODALITIES, WINDOWS, WIDTH = ("rgb", "flow"), 5, 1024
RUNS, FEW = 500, 50
SECONDS, KNOWN_SECONDS = 60, 5  #: goals


def evaluation(folder: Path) -> Iterator[Line]:
    """RNA on an adapter of 1024: six shifts, all other runs differ in the seed and have the weights of the first."""
    stores, runs, few = folder / "evaluation_stores", folder / "evaluation_runs", folder / "evaluation_few"
    write_stores(stores)
    configs = write_runs(stores, runs)
    few.mkdir()
    for config in configs[:FEW]:
        (few / config.id).symlink_to(runs / config.id)
    yield one_by_one(configs[0], stores, runs)
    small, all_runs, known = (apart(stores, each) for each in (few, runs, runs))
    name = f"{RUNS} adapter runs of dim 1024 on 2 modalities of {sum(map(sum, DOMAINS.values())):,} x 5 x 1024"
    for what, cost, goal in (
        (f"evaluate {name}", all_runs, SECONDS),
        ("the same, all results there", known, KNOWN_SECONDS),
    ):
        yield what, f"{goal} s on two cores", cost.seconds, goal, lambda s: f"{s:.1f} s"
        yield "its core-seconds", f"{goal} s on two cores", cost.core_seconds, 2 * goal, lambda s: f"{s:.1f}"
    peak = f"peak memory of {RUNS} runs"
    yield peak, f"of {FEW} runs", all_runs.peak, small.peak, lambda size: f"{size / 2**20:.0f} MiB"
    shutil.rmtree(runs)


def one_by_one(config: RunConfig, stores: Path, runs: Path) -> Line:
    """Runs of one shift in one call against as many single evaluations, in one thread."""
    torch.set_num_threads(1)
    configs = [replace(config, seed=seed) for seed in range(8)]
    cases = [Case(config) for config in configs]
    together, alone = alternate(
        lambda _: evaluate_all(cases, stores, runs, again=True),
        lambda _: [evaluate(runs / config.id, stores) for config in configs],
        rounds=3,
    )
    (runs / "results.jsonl").unlink()
    per_run = len(configs)
    return "evaluate 8 of these runs in one call", "one by one", together / per_run, alone / per_run, milliseconds


def milliseconds(seconds: float) -> str:
    """Print the time of one run."""
    return f"{1000 * seconds:.0f} ms per run"


@dataclass(frozen=True)
class Cost:
    """The cost of an evaluation with its worker processes."""

    seconds: float
    core_seconds: float
    peak: int  #: bytes of the process that takes most


def apart(stores: Path, runs: Path) -> Cost:
    """Evaluate all runs of a folder in a process of its own, with two workers, as `featcache evaluate --all` does."""
    began = time.perf_counter()
    code = "import sys; from pipelines.bench.evaluation import *; evaluate_folder(*map(Path, sys.argv[1:]))"
    core_seconds, peak = run_apart(code, str(stores), str(runs)).split()
    return Cost(time.perf_counter() - began, float(core_seconds), int(peak))


def evaluate_folder(stores: Path, runs: Path) -> None:
    """Evaluate all runs of a folder; print the core-seconds of this process and its workers, and the largest peak."""
    outcomes = evaluate_all(cases_of(runs)[0], stores, runs, workers=2)
    assert all(outcome.status != "failed" for outcome in outcomes)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(sum(each.ru_utime + each.ru_stime for each in used), max(peak_bytes(), used[1].ru_maxrss << 10))


def write_stores(stores: Path) -> None:
    """Write two stores of normal numbers of three domains, in which the class moves the mean."""
    clips = tuple(
        Clip(f"{domain}_{k}", domain, "train" if k < train_clips else "test", "-", labels={"label": "abcdefgh"[k % 8]})
        for domain, (train_clips, test_clips) in DOMAINS.items()
        for k in range(train_clips + test_clips)
    )
    manifest = Manifest("epic8", clips)
    manifest.write(stores / "epic8" / "manifest.csv")
    times, noise = np.arange(float(WINDOWS)), np.random.default_rng(0).standard_normal((512, WINDOWS, WIDTH))
    noise = noise.astype(np.float16)
    for m in MODALITIES:
        recipe = {"extractor": m, "version": 1, "modality": m, "weights_sha256": "none", "dtype": "float16"}
        path = stores / "epic8" / f"{m}.zarr"
        with StoreWriter.open(path, manifest, recipe, row_shape=(WIDTH,), windows=WINDOWS, facts={}) as writer:
            for row in range(len(clips)):
                x = np.roll(noise[row % len(noise)], row // len(noise), axis=1)
                x[:, row % 8] += 1
                writer.done(row, x, times, times + 1)


def write_runs(stores: Path, runs: Path) -> list[RunConfig]:
    """Train a run of each shift, and write the others with other seeds."""
    feeds = {m: Feed(m, train="random:1", test="mean") for m in MODALITIES}
    shifts = list(permutations(DOMAINS, 2))
    first = [
        RunConfig(
            "epic8", rna.Params(), adapter.Params(), feeds, row="RNA (UDA)", source=(source,), target=target,
            steps=1, epoch=100, batch=(64, 64), optim=Optim(clip_norm=5.0),
        )
        for source, target in shifts
    ]  # fmt: skip
    made = [Run.open(train(config, stores, runs)) for config in first]
    configs = [replace(first[k % len(first)], seed=k // len(first)) for k in range(RUNS)]
    for k, config in enumerate(configs[len(first) :]):
        run = made[k % len(first)]
        facts = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
        spec = run.facts.spec
        del facts["spec"]
        write(runs / config.id, config, spec, facts, log=run.log(), weights=run.weights[0], outputs=run.outputs)
    return configs


BENCHMARKS = {"evaluation": evaluation}
