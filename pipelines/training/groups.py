"""Groups: the runs that can be trained in one pass, and the decision whether they are.

The runs of a group differ only in their seed, in numbers of their optimisers, in weights of the method (`lambda_*`) and
in the run they start from. A few steps of copies are measured, because for large heads a pass gains nothing on a CPU.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from featcache.files import claimed, remove_abandoned
from heads.stacked import form, lambdas, why_not
from pipelines import settings
from pipelines.config import Preparation, RunConfig, method_class
from pipelines.data.memory import free_memory
from pipelines.data.opening import Opened, open_run
from pipelines.data.rows import Rows
from pipelines.training.runs import fingerprints, out_of_date
from pipelines.training.together import PassError, Streams, by_optim, fit_together, gain
from pipelines.training.train import Head, save, start, worth_prefetching
from pipelines.training.watching import Watch

GAIN = 1.1  #: smallest gain for which runs are trained in one pass
#: on a CPU a pass of two never gained and one of three hardly does; so tables of three seeds repeat to the last bit
FEWEST = 4
MOST, MOST_ON_GPU = 16, 64  #: largest groups; on a CPU larger ones gain little more, on a GPU this is unmeasured
COPIES = 6  #: of weights and batch of a run that a pass on a GPU needs: gradients, momenta, activations; unmeasured


@dataclass(frozen=True)
class Plan:
    """The way in which the runs of a group are trained."""

    row: str  #: table row, or method if the rows differ
    runs: int
    gain: float = 0.0  #: measured; 0: not measured
    why: str = ""  #: reason for training one by one, other than the gain

    @property
    def together(self) -> bool:
        """True if the runs are trained in one pass."""
        return not self.why and self.gain >= GAIN

    def __str__(self) -> str:
        if self.together:
            return f"{self.row}: {self.runs} runs in one pass, {self.gain:.1f}x as fast as one by one"
        return f"{self.row}: one by one, because {self.why or f'a pass of {self.runs} gains only {self.gain:.2f}x'}"


FEW = Plan("runs that differ only in numbers from few others", 0, why="a pass of so few would hardly be faster")
STREAMING = "each of its runs reads its own blocks of features that are larger than memory"


@dataclass(frozen=True)
class Claimed:
    """A run that this process is about to train."""

    config: RunConfig
    opened: Opened  #: shared with the runs that read the same rows
    folder: Path
    read: dict[str, str]
    stale: str  #: reason for training it, as `out_of_date` returns it


@dataclass(frozen=True)
class Member:
    """A run of a group, ready for its first step."""

    run: Claimed
    head: Head
    streams: Streams


def groups(configs: Sequence[RunConfig], workers: int, device: str = "cpu") -> list[tuple[RunConfig, ...]]:
    """Divide runs into groups, so that no worker is left idle; a run that fits to no other is a group of its own."""
    alike: dict[str, list[RunConfig]] = {}
    for config in configs:
        alike.setdefault(config.id if obstacle(config) else _key(config), []).append(config)
    most = MOST if torch.device(device).type == "cpu" else MOST_ON_GPU
    most = min(most, -(-len(configs) // max(1, workers)))
    divided = []
    for members in alike.values():
        count = -(-len(members) // most)
        members = sorted(members, key=by_optim)
        divided += [tuple(members[k * len(members) // count : (k + 1) * len(members) // count]) for k in range(count)]
    fewest = FEWEST if torch.device(device).type == "cpu" else 2
    return [part for group in divided for part in ([group] if len(group) >= fewest else [(each,) for each in group])]


def obstacle(config: RunConfig) -> str:
    """Return the reason why a run cannot share its passes with others; "" if it can."""
    return why_not(method_class(config)) or ("" if config.steps else "they have no steps")


def alone(divided: Sequence[Sequence[RunConfig]]) -> dict[str, Plan]:
    """Return run id -> plan of the runs that `groups` leaves by themselves, although they are like others."""
    alike: dict[str, list[RunConfig]] = {}
    for config in (group[0] for group in divided if len(group) == 1 and group[0].steps):
        alike.setdefault(_key(config), []).append(config)
    return {
        config.id: Plan(_row(members), len(members), why=obstacle(config)) if obstacle(config) else FEW
        for members in alike.values()
        for config in members
        if len(members) > 1
    }


def _row(configs: Sequence[RunConfig]) -> str:
    """Return the table row of these runs, or their method if they have several rows or none."""
    shown = {config.row_shown for config in configs}
    return (shown.pop() if len(shown) == 1 else "") or settings.name_of(configs[0].method)


def _key(config: RunConfig) -> str:
    """Return a text that is equal for the runs of a group."""
    content = config.to_json()
    for name in ("seed", "row"):
        content.pop(name, None)
    content["init_from"] = config.init_from is not None
    content["method"] |= dict.fromkeys(lambdas(config.method))
    optims = [content.get("optim"), *content.get("optim_for", {}).values()]
    for optim in filter(None, optims):
        optim.update({name: 0 for name, value in optim.items() if isinstance(value, int | float | list)})
    zero = {name: value == 0 for name, value in lambdas(config.method).items()}  # 0 can leave modules out
    return json.dumps([content, zero], sort_keys=True)


def train_together(
    configs: Sequence[RunConfig],
    stores: Path,
    runs: Path,
    device: str,
    memory: int | None,
    workers: int,
    watch: Watch | None = None,
) -> tuple[dict[str, str | Exception], dict[str, Plan]]:
    """Train the runs of a group in one pass, if that gains; return run id -> reason for training it, or its error.

    Also return run id -> plan. Runs without a result are left to be trained alone, or kept: they are up to date,
    another process trains them, they cannot be opened, or their plan is to be trained alone.
    """
    results, plans = dict[str, str | Exception](), dict[str, Plan]()
    with ExitStack() as held:
        claimed_runs = list(_claim(configs, stores, runs, device, memory, workers, held))
        if any(run.opened.features.tier == "streaming" for run in claimed_runs):
            plan = Plan(_row(configs), len(configs), why=STREAMING)
            return results, {config.id: plan for config in configs}
        watch = watch or Watch()
        waiting = _of_one_form(claimed_runs, watch)
        while waiting:
            members = waiting.pop()
            row, heads = _row([m.run.config for m in members]), [m.head for m in members]
            try:
                plan = Plan(row, len(members), gain(heads, [m.streams for m in members]))
                if plan.together:
                    results |= _train(members, workers)
            except Exception as error:  # alone, each run succeeds, or fails with an error of its own
                why = f"a pass of {len(members)} is not possible ({_brief(error)})"
                if isinstance(error, PassError) and error.culprits:  # the others share a pass from the beginning
                    why = f"a step of {len(error.culprits)} of {len(members)} also fails alone ({_brief(error)})"
                    waiting += _of_one_form([m.run for k, m in enumerate(members) if k not in error.culprits], watch)
                plan = Plan(row, len(members), why=why)
            plans |= {member.run.config.id: plan for member in members}
    return results, plans


def _claim(
    configs: Sequence[RunConfig],
    stores: Path,
    runs: Path,
    device: str,
    memory: int | None,
    workers: int,
    held: ExitStack,
) -> Iterator[Claimed]:
    """Open and claim the runs that have to be trained. Those that read the same rows share them in memory."""
    opened: dict[object, Opened] = {}
    keys = {config.id: _rows_of(config) for config in configs}
    sharing = workers * len({*keys.values()})
    for config in configs:
        folder, key = runs / config.id, keys[config.id]
        try:
            if key not in opened:
                opened[key] = open_run(config, stores, device, memory=memory, workers=sharing)
                held.callback(opened[key].features.close)
            read = fingerprints(opened[key], runs, config)
            remove_abandoned(folder)
            if out_of_date(folder, read):
                held.enter_context(claimed(folder))
                if stale := out_of_date(folder, read):  # else another process has trained it just now
                    yield Claimed(config, opened[key], folder, read, stale)
        except Exception:  # alone, the run fails with this error, or waits until it is not busy
            continue


def _rows_of(config: RunConfig) -> tuple[object, ...]:
    """Return a key that is equal for the runs of a group that read the same rows with the same preparation."""
    return config.seed if config.holdout else None, config.init_from if config.preparation != Preparation() else None


def _of_one_form(claimed_runs: Sequence[Claimed], watch: Watch) -> list[list[Member]]:
    """Build the methods of these runs, and return those that can be stacked together."""
    alike: dict[object, list[Member]] = {}
    tests: dict[int, Rows] = {}
    if len(claimed_runs) < 2:
        return []
    for run in claimed_runs:
        try:
            method = start(run.config, run.opened, run.folder.parent)
            streams = Streams(run.opened.device)
            if id(run.opened) not in tests:
                run.opened.measure()
                tests[id(run.opened)] = run.opened.test()
            head = Head(method, run.config, run.opened, tests[id(run.opened)], watch)
            alike.setdefault((form(method), repr(run.opened.spec)), []).append(Member(run, head, streams))
        except Exception:  # alone, the run fails with this error
            continue
    return [part for members in alike.values() for part in _fitting(members) if len(part) > 1]


def _fitting(members: list[Member]) -> list[list[Member]]:
    """Divide members so that each part fits into half of the free memory of a GPU."""
    device = members[0].run.opened.device
    if torch.device(device).type == "cpu":
        return [members]
    method, spec, rows = members[0].head.method, members[0].run.opened.spec, sum(members[0].run.config.batch)
    numbers = sum(tensor.numel() for tensor in (*method.parameters(), *method.buffers()))
    numbers += rows * sum(spec.windows[m] * prod(shape) for m, shape in spec.shapes.items())
    most = max(1, free_memory(device) // 2 // (4 * COPIES * numbers))
    return [members[k : k + most] for k in range(0, len(members), most)]


def _train(members: Sequence[Member], workers: int) -> dict[str, str | Exception]:
    """Train runs in one pass and write their folders; return run id -> reason for training it, or its error."""
    began, first = time.perf_counter(), members[0].run
    prefetch = worth_prefetching(first.opened, workers)
    failed = fit_together([m.head for m in members], [m.streams for m in members], prefetch=prefetch)
    seconds = round((time.perf_counter() - began) / len(members), 3)
    results: dict[str, str | Exception] = {}
    for k, member in enumerate(members):
        run, head = member.run, member.head
        facts = {"read": run.read, "note": run.stale, "seconds": seconds, "batched": len(members)}
        try:
            if k in failed:
                raise failed[k]
            save(run.folder, run.config, run.opened, head.test, head.method, head.log, head.points, facts)
            results[run.config.id] = run.stale
        except Exception as error:
            results[run.config.id] = error
    return results


def _brief(error: Exception) -> str:
    """Return the first line of an error."""
    error = error.cause if isinstance(error, PassError) else error
    return " ".join(f"{type(error).__name__}: {error}".split("\n", 1)[0].split())[:200]
