"""The plan of a sweep: its settings and runs, and the minutes that they will take."""

import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import torch

from featcache.errors import FeatcacheError
from featcache.progress import Progress, silent
from featcache.wording import first
from pipelines.config import RunConfig
from pipelines.experiments import Experiment
from pipelines.sweeps.space import Space, described
from pipelines.training.groups import groups
from pipelines.training.runs import Run
from pipelines.training.train import train

TRIED = (2, 5, 25)  #: steps of the short runs that are timed; the first warms up
STARTED = "the runs start from others"  #: reason why short runs in an empty folder cannot be timed
LOOKED_AT = 3  #: number of finished runs of a kind whose seconds are read


@dataclass(frozen=True)
class Cost:
    """The seconds of the runs of one kind, which differ in numbers and seeds only."""

    fixed: float  #: of a run without steps
    step: float
    measured: bool  #: True if short runs were timed; False if the seconds are those of finished runs


Costs = dict[str, Cost | str]  #: kind of runs -> their cost, or the reason why it is unknown


def costs(experiment: Experiment, stores: Path, runs: Path, device: str, progress: Progress = silent) -> Costs:
    """Kind of runs -> their cost, from finished runs if there are any, else from a few steps of the first one."""
    by_kind: dict[str, list[RunConfig]] = {}
    for run in (*experiment.runs, *experiment.whole.runs):
        by_kind.setdefault(_kind(run), []).append(run)
    timed = {kind: min(alike, key=lambda run: bool(run.init_from)) for kind, alike in by_kind.items()}
    found: Costs = {}
    kinds = dict.fromkeys(map(_kind, experiment.runs))
    for kind in kinds:
        found[kind] = _of_finished(by_kind[kind], runs) or _of_first_steps(timed[kind], stores, device)
        progress(len(found), len(kinds))
    return found


def seconds(runs: Iterable[RunConfig], by_kind: Costs) -> float | None:
    """Return the seconds that these runs take one after another; None if no kind of runs has a cost.

    A kind without a cost is taken to cost what the others do on average.
    """
    known = {kind: cost for kind, cost in by_kind.items() if isinstance(cost, Cost)}
    if not known:
        return None
    mean = Cost(fmean(cost.fixed for cost in known.values()), fmean(cost.step for cost in known.values()), True)
    of_runs = ((run, known.get(_kind(run), mean)) for run in runs)
    return sum(cost.fixed + cost.step * run.steps for run, cost in of_runs)


def unfinished(experiment: Experiment, runs: Path) -> list[RunConfig]:
    """The different runs without a finished folder, which are trained if nothing has changed."""
    return [run for run in experiment.by_id.values() if not (runs / run.id / "run.json").is_file()]


def sentences(
    experiment: Experiment,
    todo: Sequence[RunConfig],
    by_kind: Costs,
    workers: int,
    device: str = "cpu",
    batch: str = "auto",
) -> list[str]:
    """Return the plan as text: settings, shifts, seeds, runs and their groups, rows that are not swept, and minutes."""
    shown = [run for run in experiment.runs if run.row]
    settings = Counter(setting.row for setting in experiment.swept.values())
    shifts = {column for run in shown for column in experiment.columns[run.id]}
    seeds = {run.seed for run in shown}
    swept = ", ".join(f"{row} {count}" for row, count in settings.items())
    lines = [
        f"{_count(len(experiment.swept), 'setting')} ({swept}), {_count(len(shifts), 'shift')}, "
        f"{_count(len(seeds), 'seed')}: {_count(len(experiment.by_id), 'run')}, of which "
        f"{len(experiment.by_id) - len(todo)} finished"
    ]
    if once := [row for row in experiment.rows if row not in experiment.swept]:
        lines.append(f"without the swept settings, so each trained with one setting: {first(once)}")
    together = [group for group in groups(todo, workers, device) if len(group) > 1] if batch == "auto" else []
    if together:
        where = f"{_count(sum(map(len, together)), 'run')} in {_count(len(together), 'group')}"
        lines.append(f"one pass can train several runs: {where}; the expected time counts them one by one")
    if todo:
        lines.append(expected(seconds(todo, by_kind), by_kind, min(workers, len(todo))))
    return lines


def of_search(
    experiment: Experiment, spaces: Mapping[str, Space], trials: int, by: str, by_kind: Costs, workers: int
) -> list[str]:
    """Return the plan of a search as text: what each row varies, rows that are not searched, runs and minutes."""
    lines, count, total = [], 0, 0.0
    for row, space in spaces.items():
        lines.append(f"{row}: {_count(trials, 'trial')} of {described(space)}; ranked by {by}")
        runs = [run for run in experiment.runs if run.row == row]
        count += trials * len(runs)
        total += trials * (seconds(runs, by_kind) or math.nan)
    if once := [row for row in experiment.rows if row not in spaces]:
        lines.append(f"not searched, so each trained with one setting: {first(once)}")
        others = [run for run in experiment.runs if run.row in once]
        count, total = count + len(others), total + (seconds(others, by_kind) or math.nan)
    lines.append(f"at most {_count(count, 'run')}; finished ones are kept, and trials that begin badly are pruned")
    return [*lines, expected(None if math.isnan(total) else total, by_kind, workers)]


def expected(total: float | None, by_kind: Costs, workers: int) -> str:
    """Return the expected minutes as text, with their source, or the reason why they are unknown."""
    if total is None:
        reasons = dict.fromkeys(cost for cost in by_kind.values() if isinstance(cost, str))
        return f"expected time: unknown{f', because {first(reasons)}' if reasons else ''}"
    measured = {cost.measured for cost in by_kind.values() if isinstance(cost, Cost)}
    short = f"{TRIED[-1]} steps of a first run"
    source = " and ".join([short] * (True in measured) + ["the seconds of finished runs"] * (False in measured))
    return f"expected time: {total / workers / 60:.1f} minutes with {_count(workers, 'worker')} (measured on {source})"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _kind(run: RunConfig) -> str:
    """Return the settings that decide the cost of a step: methods, nets, feeds and batches, without numbers."""
    content = run.all_settings
    names = ("manifest", "net", "feeds", "batch", "preparation", "absent", "eval_every", "keep")
    return json.dumps([content["method"]["name"], *(content[name] for name in names)], sort_keys=True)


def _of_finished(alike: list[RunConfig], runs: Path) -> Cost | None:
    """Return the cost of finished runs of a kind: the mean of their seconds per step; None if none is finished.

    Runs that shared their passes with others do not count, because they took less time than one alone takes.
    """
    steps, taken = 0, 0.0
    for run in [run for run in alike if run.steps and (runs / run.id).is_dir()][:LOOKED_AT]:
        try:
            facts = Run.open(runs / run.id).facts
        except FeatcacheError:  # damaged: it is trained again
            continue
        if not facts.batched:
            taken += facts.seconds
            steps += run.steps
    return Cost(0.0, taken / steps, measured=False) if steps and taken else None


def _of_first_steps(run: RunConfig, stores: Path, device: str) -> Cost | str:
    """Return the cost of runs like this one, from short runs in a temporary folder; the reason if there is none."""
    if run.init_from:
        return STARTED
    threads, times = torch.get_num_threads(), dict[int, float]()
    torch.set_num_threads(1)  # as in `run_all`
    try:
        with TemporaryDirectory() as folder:
            for steps in TRIED:
                began = time.perf_counter()
                train(replace(run, steps=steps, eval_every=0, keep=1), stores, Path(folder), device)
                times[steps] = time.perf_counter() - began
    except FeatcacheError as error:
        return str(error)
    finally:
        torch.set_num_threads(threads)
    _, short, long = TRIED
    step = max(times[long] - times[short], 0.0) / (long - short)
    return Cost(max(times[short] - short * step, 0.0), step, measured=True)
