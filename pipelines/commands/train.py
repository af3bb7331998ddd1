"""Training of the runs of an experiment: the function of `featcache train-head`."""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from featcache.arguments import PathLike, one_of, several, worker_count
from featcache.cluster import check_engine, connected, gpus_of, in_tasks, room_for_one
from featcache.errors import ArgumentsError
from featcache.machine import cores
from featcache.progress import Progress, reporting, silent
from pipelines.commands.jobs import Chosen, Job, Seeds, job, once
from pipelines.data.ahead import check_ahead, check_writable
from pipelines.experiments import Choice
from pipelines.settings import Words
from pipelines.tracking import NAMES, Tracking
from pipelines.training.engine import Outcome, Pool, Report, run_all
from pipelines.training.outputs import remedy
from pipelines.training.watching import Course, News

BATCH = ("auto", "off")
Say = Callable[[str], None]  #: takes remarks for people, such as `print`


def train(
    experiment: Chosen,
    stores: PathLike | None = None,
    runs: PathLike = "runs",
    *,
    method: str | Iterable[str] = (),
    feeds: str | Iterable[str] = (),
    shift: str | Iterable[str] = (),
    net: str = "",
    task: str = "",
    set: Words = (),
    seeds: Seeds | None = None,
    only: str | Iterable[str] = (),
    workers: int | None = None,
    device: str = "cpu",
    batch: str = "auto",
    engine: str = "local",
    address: str | None = None,
    gpus: float | None = None,
    track: str | Iterable[str] = (),
    track_to: PathLike | None = None,
    report: Report | None = None,
    note: Say | None = None,
    progress: Progress | bool = False,
) -> list[Outcome]:
    """Train the heads of an experiment on cached features; finished runs are kept.

    experiment: a name of `pipelines.names("experiments")`, the path of a Python file with RUNS or of a folder of
        stores, an `Experiment`, a `RunConfig`, or several of these runs.
    stores: folder of all stores (default: `stores`; if `experiment` is a folder, its parent).
    runs: folder of all runs, each of which gets a folder.
    method, feeds, shift, net, task: in a folder of stores, what is compared: "dann,mcd" or "all" (default: RNA), stores
        that are read together, "hog,hof", or several such texts to compare (default: all), "A:B" (default: every pair
        of domains), the name of a net, and the task if neither labels nor the others decide it.
    set: settings of every run, {"method.lambda_g": 0.5} or "method.lambda_g=0.5". seeds: for all rows, such as "0..4".
    only: rows of the table. workers: runs at a time (default: one per core; on a cluster all that have room).
    device: cpu, cuda, ... engine, address, gpus: as in `featcache.extract`; the nodes of a cluster share all folders.
    batch: "auto" lets similar runs share passes where a few measured steps show that this is faster; "off" never.
    track: "tensorboard", "trackio" or "wandb", or several, which record the runs while they are trained.
    track_to: folder of trackers (default: the folder of runs, with "-tracked" behind its name).
    report: called with (outcome, runs done, all runs) after each run. note: called with remarks for people, such as
        `print`. progress: True for a bar, or a callback (steps done, steps of all runs).

    Returns an outcome per run, in the order in which they ended; `outcome.run` is the finished `Run`. A run that fails
    has the status "failed" and a note, and does not stop the others.
    Raises ConfigError, StoreError or ManifestError for what keeps all runs from being trained, before the first one.

    >>> pipelines.train("kitchens", "demo/stores", "demo/runs", seeds=0)         # doctest: +SKIP
    """
    one_of("batch", batch, BATCH)
    check_engine(engine, device, address, gpus)
    made = job(experiment, stores, runs, Choice.of(method, feeds, shift, net, task), set=set, seeds=seeds, only=only)
    if note and made.left_out:
        note(made.left_out)
    with tracked(made, track, track_to, note) as tracking:
        check_ahead(made.experiment.runs, made.stores, device if engine == "local" else "cpu")
        check_writable(made.runs)
        place = places(engine, address, gpus, device, workers)
        with place as (pool, count), reporting(progress, f"train {made.experiment.name}", "step") as moved:
            return trained(made, count, device, batch, report, note, moved, tracking, pool)


@contextmanager
def places(
    engine: str, address: str | None, gpus: float | None, device: str, workers: int | None
) -> Iterator[tuple[Pool | None, int]]:
    """Yield the function that trains runs side by side on a cluster, None for this machine, and how many of them."""
    count = worker_count(workers)
    if engine == "local":
        yield None, count
        return
    share = gpus_of(gpus, device)
    with connected(address, max(count, cores())) as ray:
        most = room_for_one(ray, share)
        yield partial(in_tasks, ray, share), count if workers else most


def trained(
    made: Job,
    workers: int,
    device: str,
    batch: str,
    report: Report | None = None,
    note: Say | None = None,
    progress: Progress = silent,
    tracking: Tracking | None = None,
    pool: Pool | None = None,
) -> list[Outcome]:
    """Train the runs of a job, and note what is remarkable about them, each kind once."""
    noted, course = set[str](), Course(made.experiment.runs)

    def hear(news: News) -> None:
        course.hear(news)
        course.show(progress)
        if tracking:
            tracking.hear(news)

    def ended(outcome: Outcome, done: int, total: int) -> None:
        if outcome.status != "busy":
            course.ended(outcome.config.id)
        course.show(progress)
        if tracking:
            tracking.ended(outcome)
        for kind, text in remarks(outcome):
            if note and kind not in noted:
                noted.add(kind)
                note(text)
        if report:
            report(outcome, done, total)

    progress(0, course.total)
    options: dict[str, Any] = {"workers": workers, "device": device, "batch": batch, "logs": bool(tracking)}
    options["pool"] = pool
    outcomes = run_all(made.experiment.runs, made.stores, made.runs, report=ended, hear=hear, **options)
    progress(course.total, course.total)
    return outcomes


@contextmanager
def tracked(made: Job, track: str | Iterable[str], track_to: PathLike | None, note: Say | None) -> Iterator[Tracking]:
    """Yield the trackers of a job, and note at the end how their records are looked at."""
    if track_to and not several(track):
        raise ArgumentsError(f"--track-to {track_to} has no tracker; add --track {'|'.join(NAMES)}, or leave it out")
    runs = made.runs.resolve()
    folder = Path(track_to) if track_to else runs.with_name(f"{runs.name}-tracked")
    tracking = Tracking(several(track), folder, made.experiment.name, note or warnings.warn)
    try:
        yield tracking
    finally:
        tracking.close()
        for view in tracking.views:
            if note:
                note(f"tracked; to look at it: {view}")


@contextmanager
def summarised(say: Say) -> Iterator[Report]:
    """Yield a report that collects outcomes, and pass their summary to `say` at the end, also after Ctrl-C."""
    began, outcomes = time.monotonic(), list[Outcome]()

    def collect(outcome: Outcome, done: int, total: int) -> None:
        if outcome.status != "busy":
            outcomes.append(outcome)

    def say_all() -> None:
        for line in summary(outcomes, time.monotonic() - began):
            say(line)

    try:
        yield collect
    except KeyboardInterrupt:
        say_all()
        raise
    say_all()


def remarks(outcome: Outcome) -> Iterator[tuple[str, str]]:
    """Yield remarks on a run that has just ended, each with its kind: one of a kind is enough."""
    row = outcome.config.row_shown or outcome.config.id
    if outcome.status == "busy":
        yield "busy", f"{outcome.note} (it is left for the end, like others that are being trained)"
    if plan := outcome.plan:
        yield f"plan {plan.row} {plan.runs} {plan.together}", str(plan)
    if outcome.collapse:
        text = f"COLLAPSED: {row} ({outcome.config.id}): {outcome.collapse}; {remedy(outcome.config)}"
        yield f"collapsed {row}", text


def summary(outcomes: Sequence[Outcome], seconds: float) -> Iterator[str]:
    """Yield the number of runs by status, the tier of their features, warnings, collapsed runs and notes as text."""
    counts = Counter(outcome.status for outcome in outcomes)
    yield f"{', '.join(f'{n} {status}' for status, n in counts.items()) or '0 trained'} in {seconds:.1f} s"
    for tier, reason in {outcome.tier: outcome.tier_why for outcome in reversed(outcomes) if outcome.tier}.items():
        yield f"features: {tier}, {reason}"
    for warning, count in Counter(text for outcome in outcomes for text in outcome.warnings).items():
        yield f"Warning in {count} of {len(outcomes)} runs: {warning}"
    if collapsed := Counter(run.config.row_shown or run.config.id for run in outcomes if run.collapse):
        rows = ", ".join(f"{row} {count}" for row, count in collapsed.items())
        yield f"{collapsed.total()} of {len(outcomes)} runs collapsed: {rows}"
    yield from once((outcome.config, outcome.note) for outcome in outcomes if outcome.note)
