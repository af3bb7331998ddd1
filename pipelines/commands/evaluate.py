"""Evaluation of runs on their test clips: the function of `featcache evaluate`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.arguments import PathLike, listed, several, worker_count
from featcache.errors import ArgumentsError, ConfigError, FeatcacheError
from featcache.progress import Progress, reporting
from featcache.store.places import local
from pipelines.commands.jobs import Chosen, Job, Seeds, jobs
from pipelines.config import RunConfig
from pipelines.data.ahead import check_ahead, check_writable
from pipelines.data.stores import parts_of
from pipelines.evaluation import predictions as answers
from pipelines.evaluation import results, stress
from pipelines.evaluation.engine import RESULTS, STRESS, Case, Outcome, cases_of, evaluate_all
from pipelines.evaluation.stress import Asked
from pipelines.experiments import Choice
from pipelines.settings import Words

if TYPE_CHECKING:
    import pandas as pd

Groups = dict[Path, list[Case]]  #: folder of stores -> the runs on these stores


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The outcome of an evaluation. `frame` has the results of its runs."""

    path: Path  #: the file with the results: RUNS/results.jsonl, or RUNS/stress.jsonl
    outcomes: tuple[Outcome, ...]
    damaged: tuple[str, ...] = ()  #: errors of runs whose configurations are damaged
    left_out: tuple[tuple[RunConfig, str], ...] = ()  #: tests on changed features that are left out, with the reasons
    predictions: Path | None = None  #: the file of predictions, if it was asked for and no result is missing
    advice: str = ""  #: the command that trains runs that are missing

    @property
    def whole(self) -> bool:
        """True if no result is missing."""
        return not self.damaged and not any(each.status == "failed" or each.without for each in self.outcomes)

    @property
    def results(self) -> results.Results:
        """The results of these runs, as the file has them now; empty if no run has any."""
        ids = {each.case.config.id for each in self.outcomes}
        if not self.path.exists():
            return results.Results()
        return results.read(self.path, stressed=self.path.name == STRESS).of(ids)

    def frame(self) -> "pd.DataFrame":
        """Return the results of these runs: a line per run and metric, with the fields of `Result` as columns."""
        return self.results.frame()

    def __repr__(self) -> str:
        counts = dict[str, int]()
        for outcome in self.outcomes:
            counts[outcome.status] = counts.get(outcome.status, 0) + 1
        words = [f"{count} {status}" for status, count in counts.items()]
        words += [f"{len(self.damaged)} damaged"] * bool(self.damaged)
        return f"Evaluation({str(self.path)!r}, {', '.join(words) or 'no run'})"

    def _repr_html_(self) -> str:
        return self.results._repr_html_()


def evaluate(
    experiments: Chosen | Sequence[Chosen] = (),
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
    all: bool = False,
    again: bool = False,
    workers: int | None = None,
    device: str = "cpu",
    drop: str | Iterable[str] = (),
    windows: str | int | None = None,
    dtype: str | Iterable[str] | None = None,
    noise: str | float | Iterable[float] | None = None,
    a_distance: bool = False,
    predictions: PathLike | None = None,
    overwrite: bool = False,
    progress: Progress | bool = False,
) -> Evaluation:
    """Evaluate the runs of experiments on their test clips, and append their metrics to RUNS/results.jsonl.

    A run is measured again only if it, its data or its results have changed, or if this version measures more.

    experiments: one or several, each as in `pipelines.train`; none with `all`. all: True for every run of `runs`.
    stores, runs, method, feeds, shift, net, task, set, seeds, only, workers, device, progress: as in `pipelines.train`.
    again: measure also runs whose results are up to date. a_distance: also A-distances (retrieval; seconds per run).
    drop, windows, dtype, noise: test on changed features instead, such as drop="all", windows="1..T", dtype="float16"
        and noise="0.1"; the metrics go to RUNS/stress.jsonl.
    predictions: a file OUT.parquet or OUT.csv for the class probabilities of all test clips. overwrite: replace it.

    An outcome whose test clips have no labels has all metrics that need none, and a sentence, `unlabelled`. A run that
    fails has the status "failed" and a note, and does not stop the others. Raises ConfigError if no run has been
    trained or can be evaluated, and ArgumentsError for arguments that exclude each other.
    """
    choice = Choice.of(method, feeds, shift, net, task)
    _check_experiments(experiments, all, changed=seeds is not None or bool(set or only or choice.words))
    asked = stress.parse(several(drop), listed(windows), listed(dtype), listed(noise))
    _check_files(asked, a_distance, predictions, overwrite)
    given, folder = jobs(experiments, stores, runs, choice, set=set, seeds=seeds, only=only), Path(runs)
    groups, damaged = (_planned(given), list[str]()) if given else _found(stores or "stores", folder)
    _check_runs(given, groups, folder, device)
    writing = _writing(Path(predictions), groups, folder, overwrite) if predictions else None
    plan = _stressed(groups, asked, device) if asked != Asked() else stress.Plan({}, ())
    call = partial(evaluate_all, runs=folder, workers=worker_count(workers), device=device, again=again)
    call = partial(call, a_distance=a_distance, stresses=plan.stresses or None)
    path, title = folder / (STRESS if plan.stresses else RESULTS), ", ".join(each.experiment.name for each in given)
    with reporting(progress, f"evaluate {title or folder}", "run") as moved:
        outcomes = tuple(_evaluated(call, groups, moved))
    found = Evaluation(path, outcomes, tuple(damaged), tuple(plan.left_out), advice=_advice(given))
    if not (writing and found.whole):
        return found
    return _with_predictions(found, writing, progress, Path(str(predictions)))


def _with_predictions(
    found: Evaluation, write: Callable[[Progress], None], progress: Progress | bool, path: Path
) -> Evaluation:
    """Write the predictions of an evaluation."""
    with reporting(progress, "predictions", "run") as report:
        write(report)
    return replace(found, predictions=path)


def _check_files(asked: Asked, a_distance: bool, predictions: PathLike | None, overwrite: bool) -> None:
    """Raise ArgumentsError for measurements and files that exclude each other."""
    if overwrite and not predictions:
        raise ArgumentsError("--overwrite belongs to --predictions OUT.parquet; name a file")
    if asked != Asked() and (a_distance or predictions):
        raise ArgumentsError("--a-distance and --predictions are about features as they are; leave --drop, ... out")


def _check_experiments(experiments: Chosen | Sequence[Chosen], all: bool, *, changed: bool) -> None:
    """Raise ArgumentsError unless there are experiments, or all runs are to be evaluated."""
    named = not isinstance(experiments, tuple | list) or bool(experiments)
    if changed and not named:
        raise ArgumentsError("--method, --feeds, ..., --set, --seeds and --only change an experiment; name one")
    if all and named:
        raise ArgumentsError("--all evaluates every run of RUNS; leave EXPERIMENT out, or --all")
    if not all and not named:
        raise ArgumentsError("name an EXPERIMENT, or evaluate every run of RUNS with --all")


def _evaluated(evaluate: Callable[..., list[Outcome]], groups: Groups, progress: Progress) -> list[Outcome]:
    """Evaluate the runs on each folder of stores, with one count for all."""
    total, ended = sum(map(len, groups.values())), list[Outcome]()
    progress(0, total)

    def done(outcome: Outcome, number: int, of: int) -> None:
        ended.append(outcome)
        progress(len(ended), total)

    return [outcome for stores, cases in groups.items() for outcome in evaluate(cases, stores, report=done)]


def _planned(jobs: Sequence[Job]) -> Groups:
    """Return folder of stores -> the runs that the tables of the experiments show, each once."""
    groups: dict[Path, dict[str, Case]] = {}
    for job in jobs:
        cases = {config.id: Case(config, job.experiment.name) for config in job.experiment.recorded.runs if config.row}
        groups[job.stores] = groups.get(job.stores, {}) | cases
    return {stores: list(cases.values()) for stores, cases in groups.items()}


def _found(stores: PathLike, runs: Path) -> tuple[Groups, list[str]]:
    """Return folder of stores -> all runs of a folder of runs, and the errors of runs with damaged configurations."""
    cases, damaged = cases_of(runs)
    if not cases:
        text = "\n  ".join([f"{runs} has no run to evaluate; train some with `featcache train-head`", *damaged])
        raise ConfigError(text)
    return {local(stores, parts_of(case.config for case in cases)): cases}, damaged


def _writing(path: Path, groups: Groups, runs: Path, overwrite: bool) -> Callable[[Progress], None]:
    """Return the function that writes the predictions of all runs; an error if they cannot be written to this file."""
    planned = [(case.config, runs / case.config.id, stores) for stores, cases in groups.items() for case in cases]
    answers.check(path, [config for config, _, _ in planned], overwrite)
    return partial(answers.write, path, planned)


def _stressed(groups: Groups, asked: Asked, device: str) -> stress.Plan:
    """Return the stresses of each run, and leave runs without any out of the groups."""
    planned = stress.plan({stores: [case.config for case in cases] for stores, cases in groups.items()}, asked, device)
    for stores, cases in groups.items():
        groups[stores] = [case for case in cases if case.config.id in planned.stresses]
    return planned


def _advice(jobs: Sequence[Job]) -> str:
    """Return the commands that train the runs, as the beginning of a sentence."""
    commands = " and ".join(f"`{job.experiment.training}`" for job in jobs)
    return f"{commands or '`featcache train-head EXPERIMENT`'} train{'s' * (len(jobs) < 2)}"


def _check_runs(jobs: Sequence[Job], groups: Groups, runs: Path, device: str) -> None:
    """Raise an error if there is no run, or if something keeps all runs from being evaluated."""
    configs = [case.config for cases in groups.values() for case in cases]
    made = any((runs / config.id).is_dir() for config in configs)
    names = " and ".join(job.experiment.name for job in jobs)
    lacking = f"{runs} has none of the {len(configs)} runs of {names}; {_advice(jobs)} them"
    try:
        for stores, cases in groups.items():
            check_ahead([case.config for case in cases], stores, device)
    except FeatcacheError as error:
        raise error if made else ConfigError(f"{lacking}, once this is mended: {error}") from error
    if not made:
        raise ConfigError(lacking)
    check_writable(runs)
