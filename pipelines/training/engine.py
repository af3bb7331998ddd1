"""Training of many runs on this machine, in one process or in several."""

import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from featcache.errors import BusyError, ConfigError, FeatcacheError
from featcache.files import claim_of, locked
from featcache.parallel import WorkerEnded, advised, import_first, in_parallel, tell
from featcache.wording import shortened
from pipelines.config import RunConfig
from pipelines.data.ahead import reads
from pipelines.data.memory import free_memory
from pipelines.data.sharing import Place, join, meeting_place
from pipelines.training.groups import Plan, alone, groups, train_together
from pipelines.training.outputs import collapse
from pipelines.training.runs import Run, explained
from pipelines.training.train import train_unless_done
from pipelines.training.watching import Hear, Watch

import_first("torch._dynamo", "zarr")  # by torch's optimisers, and by the reader of stores; they take a second


@dataclass(frozen=True, repr=False)
class Outcome:
    """The outcome of one run. `run` opens it."""

    config: RunConfig
    folder: Path | None  #: its folder; None if the run failed
    status: str  #: trained | kept (finished by an earlier call or another process) | failed | busy
    tier: str = ""  #: tier from which a trained run read its features (see pipelines/data/tiers.py)
    tier_why: str = ""  #: reason for that tier
    note: str = ""  #: reason for training it again, or for its failure; if busy, the process that trains it now
    warnings: tuple[str, ...] = ()  #: warnings raised in training
    collapse: str = ""  #: description of its collapse, if its features vanished or all its predictions are one class
    plan: Plan | None = None  #: the way in which it was trained with others, and the reason; None: there were no others

    @property
    def run(self) -> Run:
        """The finished run; ConfigError with the reason if it failed."""
        if self.folder is None:
            raise ConfigError(f"run {self.config.id} {self.status}: {self.note}")
        return Run.open(self.folder)

    def __repr__(self) -> str:
        words = filter(None, [self.config.row_shown, self.collapse and f"collapsed: {self.collapse}", self.note])
        return shortened(f"Outcome({self.status}, {self.config.id}, {'; '.join(words)})")


#: a function that does jobs in processes, as `in_parallel` does it on this machine
Pool = Callable[..., Generator[tuple[Any, Any], None, None]]

RETRY = "run the same command again to train the rest"

#: called after each run with (outcome, runs done, all runs), and when a run is left for later because it is busy
Report = Callable[[Outcome, int, int], None]


def run_all(
    configs: Iterable[RunConfig],
    stores: Path,
    runs: Path,
    *,
    workers: int = 1,
    device: str = "cpu",
    batch: str = "auto",
    report: Report | None = None,
    hear: Hear | None = None,
    logs: bool = False,
    pool: Pool | None = None,
) -> list[Outcome]:
    """Train all runs, first those that others start from (`init_from`); a run that fails does not stop the others.

    batch: "auto" trains runs in one pass where that is faster (`pipelines/training/groups.py`), "off" one by one. hear:
    receives the news of runs in training, of all workers, while they are trained; with `logs` also the lines of their
    logs. pool: does the work on other machines, which share the folders; the default on this one.

    Runs that another process is training now come last: they are waited for, and trained here if that process fails.
    Returns one outcome per different run, in the order in which they ended.
    """
    waiting = {config.id: config for config in configs}
    total, outcomes = len(waiting), dict[str, Outcome]()

    def done(outcome: Outcome) -> None:
        if outcome.status != "busy":
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
        ready = [config for config in ready if config not in orphans]
        _wave(ready, stores, runs, workers, device, batch, done, hear, logs, pool)
    return list(outcomes.values())


def _wave(
    configs: list[RunConfig],
    stores: Path,
    runs: Path,
    workers: int,
    device: str,
    batch: str,
    done: Callable[[Outcome], None],
    hear: Hear | None,
    logs: bool,
    pool: Pool | None,
) -> None:
    """Train runs that do not depend on each other."""
    workers, here = min(workers, len(configs)), pool is None
    memory = free_memory() if here else None  # measured once, before the first run takes memory; elsewhere by each run
    divided = groups(configs, workers, device) if batch == "auto" else [(config,) for config in configs]
    jobs = deque((group, False) for group in divided)  # (runs, True to wait for the process that trains the run)
    missing = {config.id: config for config in configs}
    plans = alone(divided) if batch == "auto" else {}
    threads = torch.get_num_threads()
    watch = Watch(tell if hear else None, logs=logs)
    job = partial(_one_threaded, stores=stores, runs=runs, device=device, memory=memory, workers=workers, watch=watch)
    try:
        with (
            meeting_place(workers if here else 1, len(set(map(reads, configs)))) as place,
            closing((pool or in_parallel)(partial(job, place=place), jobs, workers, hear)) as ended,
        ):
            for (group, _), answer in ended:
                outcomes, found = _of_lost(group, answer) if isinstance(answer, WorkerEnded) else answer
                plans |= found
                for outcome in outcomes:
                    if outcome.status == "busy":
                        jobs.append(((outcome.config,), True))
                    else:
                        del missing[outcome.config.id]
                    done(replace(outcome, plan=None if outcome.status == "kept" else plans.get(outcome.config.id)))
                ids = {outcome.config.id for outcome in outcomes}
                jobs.extend(((config,), False) for config in group if config.id not in ids)
    except BrokenProcessPool as error:
        reason = advised(error, RETRY)
        for config in missing.values():
            done(Outcome(config, None, "failed", note=reason))
    finally:
        torch.set_num_threads(threads)
        for config in missing.values():
            _clear(claim_of(runs / config.id))


def _of_lost(group: tuple[RunConfig, ...], error: WorkerEnded) -> tuple[list[Outcome], dict[str, Plan]]:
    """Return the outcomes of a job that was lost: a run has failed; the runs of a group are trained alone."""
    failed = [Outcome(config, None, "failed", note=advised(error, RETRY)) for config in group]
    return failed if len(group) == 1 else [], {}


def _clear(claim: Path) -> None:
    """Remove the lock file that a killed process has left, if there is one."""
    with suppress(OSError, FeatcacheError):
        if claim.exists():
            with locked(claim, wait=False):
                pass


def _one_threaded(
    job: tuple[tuple[RunConfig, ...], bool],
    stores: Path,
    runs: Path,
    device: str,
    memory: int | None,
    workers: int,
    place: Place | None,
    watch: Watch,
) -> tuple[list[Outcome], dict[str, Plan]]:
    """Train runs in one thread: runs are trained in parallel, and sums of several threads differ in their digits.

    Also return run id -> plan. Runs of a group without an outcome are left to be trained alone.
    """
    (config, *others), wait = job
    torch.set_num_threads(1)
    join(place)
    try:
        if others:
            return _run_group((config, *others), stores, runs, device, memory, workers, watch)
        train_one = partial(run_one, config, stores, runs, device, memory, workers, watch, wait=wait)
        while (outcome := train_one()).status == "busy" and wait:
            pass  # yet another process was faster
        return [outcome], {}
    finally:
        watch.end()


def _run_group(
    configs: tuple[RunConfig, ...],
    stores: Path,
    runs: Path,
    device: str,
    memory: int | None,
    workers: int,
    watch: Watch,
) -> tuple[list[Outcome], dict[str, Plan]]:
    with warnings.catch_warnings(record=True) as caught:
        results, plans = train_together(configs, stores, runs, device, memory, workers, watch)
    raised = tuple(dict.fromkeys(str(warning.message) for warning in caught))
    outcomes = [_ended(config, runs, results[config.id]) for config in configs if config.id in results]
    return [replace(outcome, warnings=raised) for outcome in outcomes], plans


def run_one(
    config: RunConfig,
    stores: Path,
    runs: Path,
    device: str,
    memory: int | None = None,
    workers: int = 1,
    watch: Watch | None = None,
    *,
    wait: bool = False,
) -> Outcome:
    """Train one run. A user's error becomes its message in the outcome, any other error its traceback.

    watch: receives its steps while they are made. wait: wait until no other process trains it; otherwise the outcome is
    "busy".
    """
    with warnings.catch_warnings(record=True) as caught:
        outcome = _run_one(config, stores, runs, device, memory, workers, watch, wait)
    return replace(outcome, warnings=tuple(dict.fromkeys(str(warning.message) for warning in caught)))


def _run_one(
    config: RunConfig,
    stores: Path,
    runs: Path,
    device: str,
    memory: int | None,
    workers: int,
    watch: Watch | None,
    wait: bool,
) -> Outcome:
    try:
        if wait:
            with locked(claim_of(runs / config.id)):
                pass
        _, stale = train_unless_done(config, stores, runs, device, memory, workers, watch)
    except Exception as error:
        return _ended(config, runs, error)
    return _ended(config, runs, stale)


def _ended(config: RunConfig, runs: Path, result: str | Exception) -> Outcome:
    """Return the outcome of a run, from the reason for training it ("": it was kept) or its error."""
    folder = runs / config.id
    if isinstance(result, Exception):
        return Outcome(
            config, None, "busy" if isinstance(result, BusyError) else "failed", note=explained(result, folder)
        )
    facts = Run.open(folder).facts
    dead = collapse(facts.collapsed, facts.one_class)
    if not result:
        _clear(claim_of(folder))
        return Outcome(config, folder, "kept", collapse=dead)
    note = "" if facts.note == "new" else facts.note
    return Outcome(config, folder, "trained", facts.tier, facts.tier_why, note, collapse=dead)
