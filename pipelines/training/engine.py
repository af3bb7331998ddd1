"""Training of many runs on this machine, in one process or in several."""

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
from pipelines.training.outputs import collapse
from pipelines.training.runs import Run
from pipelines.training.train import train


@dataclass(frozen=True)
class Outcome:
    """The outcome of one run."""

    config: RunConfig
    folder: Path | None  #: its folder; None if the run failed
    status: str  #: trained | kept (finished by an earlier call) | failed
    tier: str = ""  #: tier from which a trained run read its features (see pipelines/data/tiers.py)
    tier_why: str = ""  #: reason for that tier
    note: str = ""  #: reason for training it again, or for its failure
    warnings: tuple[str, ...] = ()  #: warnings raised in training
    collapse: str = ""  #: description of its collapse, if its features vanished or all its predictions are one class


Report = Callable[[Outcome, int, int], None]  #: called after each run with (outcome, runs done, all runs)


def run_all(
    configs: Iterable[RunConfig],
    stores: Path,
    runs: Path,
    *,
    workers: int = 1,
    device: str = "cpu",
    report: Report | None = None,
) -> list[Outcome]:
    """Train all runs, first those that others start from (`init_from`); a run that fails does not stop the others.

    Returns one outcome per different run, in the order in which they ended.
    """
    waiting = {config.id: config for config in configs}
    total, outcomes = len(waiting), dict[str, Outcome]()

    def done(outcome: Outcome) -> None:
        outcomes[outcome.config.id] = outcome
        if report:
            report(outcome, len(outcomes), total)

    while waiting:
        ready = [config for config in waiting.values() if config.init_from not in waiting]
        for config in ready:  # never empty: an id contains a hash of init_from, so there are no circles
            del waiting[config.id]
        orphans = [config for config in ready if (first := outcomes.get(config.init_from or "")) and not first.folder]
        for config in orphans:
            done(Outcome(config, None, "failed", note=f"the run that it starts from failed: {config.init_from}"))
        _wave([config for config in ready if config not in orphans], stores, runs, workers, device, done)
    return list(outcomes.values())


def _wave(
    configs: list[RunConfig], stores: Path, runs: Path, workers: int, device: str, done: Callable[[Outcome], None]
) -> None:
    """Train runs that do not depend on each other."""
    memory, workers = free_memory(), min(workers, len(configs))  # measured once, before the first run takes memory
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
                reason = "a worker process was killed (out of memory?); run the same command again to train the rest"
                done(Outcome(futures[future], None, "failed", note=reason))


def run_one(
    config: RunConfig, stores: Path, runs: Path, device: str, memory: int | None = None, workers: int = 1
) -> Outcome:
    """Train one run. A user's error becomes its message in the outcome, any other error its traceback."""
    with warnings.catch_warnings(record=True) as caught:
        outcome = _run_one(config, stores, runs, device, memory, workers)
    return replace(outcome, warnings=tuple(dict.fromkeys(str(warning.message) for warning in caught)))


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
    facts = Run.open(folder).facts if folder.exists() else {}
    dead = collapse(facts.get("collapsed", ()), facts.get("one_class", ()))
    if _stamp(folder) == before:
        return Outcome(config, folder, "kept", collapse=dead)
    note = "" if facts["note"] == "new" else facts["note"]
    return Outcome(config, folder, "trained", facts["tier"], facts["tier_why"], note, collapse=dead)


def _stamp(folder: Path) -> int:
    """The inode of the folder, which changes when a run is trained; 0 if there is no folder."""
    return folder.stat().st_ino if folder.exists() else 0
