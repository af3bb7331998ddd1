"""Where runs are executed. The folder is the registry: `engines/local.py` is the engine `local`.

An engine file has `run_all(configs, stores, runs, *, workers, device, report) -> list[Outcome]`.
"""

import multiprocessing
import traceback
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from featcache.errors import FeatcacheError
from pipelines.config import RunConfig
from pipelines.data.memory import free_memory
from pipelines.training.runs import Run
from pipelines.training.train import train


@dataclass(frozen=True)
class Outcome:
    """What became of one run."""

    config: RunConfig
    folder: Path | None  #: None when it failed
    status: str  #: trained | kept (was finished before) | failed
    tier: str = ""  #: where the features of a trained run lay (see pipelines/data/tiers.py)
    tier_why: str = ""
    note: str = ""  #: why it was trained again, or why it failed
    warnings: tuple[str, ...] = ()  #: what training warned of


Report = Callable[[Outcome, int, int], None]  #: (outcome, runs done, runs in all), after each run


def run_all(
    configs: Iterable[RunConfig],
    stores: Path,
    runs: Path,
    *,
    workers: int = 1,
    device: str = "cpu",
    report: Report | None = None,
) -> list[Outcome]:
    """Train all runs, those that others start from (`init_from`) first; a run that fails does not stop the others.

    One outcome per different run, in the order in which they ended.
    """
    waiting = {config.id: config for config in configs}
    total, outcomes = len(waiting), dict[str, Outcome]()

    def done(outcome: Outcome) -> None:
        outcomes[outcome.config.id] = outcome
        if report:
            report(outcome, len(outcomes), total)

    while waiting:
        ready = [config for config in waiting.values() if config.init_from not in waiting]
        for config in ready:  # never empty: an id is a hash of its own init_from, so there are no circles
            del waiting[config.id]
        lost = [config for config in ready if (first := outcomes.get(config.init_from or "")) and not first.folder]
        for config in lost:
            done(Outcome(config, None, "failed", note=f"the run it starts from failed: {config.init_from}"))
        _wave([config for config in ready if config not in lost], stores, runs, workers, device, done)
    return list(outcomes.values())


def _wave(
    configs: list[RunConfig], stores: Path, runs: Path, workers: int, device: str, done: Callable[[Outcome], None]
) -> None:
    """Runs that do not depend on each other."""
    memory, workers = free_memory(), min(workers, len(configs))  # asked once: later runs see what others took
    if workers <= 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for config in configs:
                done(run_one(config, stores, runs, device, memory))
        finally:
            torch.set_num_threads(threads)
        return
    context = multiprocessing.get_context("spawn")  # fork would copy torch's threads in an unknown state
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        futures: dict[Future[Outcome], RunConfig] = {
            pool.submit(run_one, config, stores, runs, device, memory, workers): config for config in configs
        }
        for future in as_completed(futures):
            try:
                done(future.result())
            except BrokenProcessPool:
                reason = "a worker process was killed (out of memory?); the same command trains what is left"
                done(Outcome(futures[future], None, "failed", note=reason))


def run_one(
    config: RunConfig, stores: Path, runs: Path, device: str, memory: int | None = None, workers: int = 1
) -> Outcome:
    """Train one run; a user's mistake becomes its sentence, a mistake of ours its traceback."""
    with warnings.catch_warnings(record=True) as said:
        outcome = _run_one(config, stores, runs, device, memory, workers)
    return replace(outcome, warnings=tuple(dict.fromkeys(str(warning.message) for warning in said)))


def _run_one(config: RunConfig, stores: Path, runs: Path, device: str, memory: int | None, workers: int) -> Outcome:
    folder = runs / config.id
    before = _stamp(folder)
    try:
        train(config, stores, runs, device, memory, workers)
    except FeatcacheError as error:
        return Outcome(config, None, "failed", note=str(error))
    except OSError as error:
        return Outcome(config, None, "failed", note=f"{error.strerror or error} ({error.filename or folder})")
    except Exception:
        return Outcome(config, None, "failed", note=traceback.format_exc())
    if _stamp(folder) == before:
        return Outcome(config, folder, "kept")
    facts = Run.open(folder).facts
    note = "" if facts["note"] == "new" else facts["note"]
    return Outcome(config, folder, "trained", facts["tier"], facts["tier_why"], note)


def _stamp(folder: Path) -> int:
    """Which folder stands there: a trained run is another one than was there before."""
    return folder.stat().st_ino if folder.exists() else 0
